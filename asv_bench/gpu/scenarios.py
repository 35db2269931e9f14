"""What is timed on a GPU."""

from benchmarks.scenarios import CENTERED, MOMENTUM, ROWS, SIZES, Scenario, one_array, resnet50, shrunk

LIST = Scenario([(shrunk(100_000),)] * shrunk(300))

SCENARIOS = {
    **{f"1 × {elements:,}": one_array(elements) for elements in SIZES},
    "300 × 100,000": LIST,
    "300 × 1,000": Scenario([(shrunk(1_000),)] * shrunk(300)),
    "ResNet-50": resnet50(),
    "ResNet-50, momentum": resnet50(**MOMENTUM),
    "ResNet-50, momentum, centered": resnet50(**CENTERED),
    "ResNet-50, global_clipnorm": resnet50(global_clipnorm=1.0),
    "ResNet-50, clipvalue": resnet50(clipvalue=1.0),
    "1 × 10,000,000, complex64": one_array(10_000_000, dtype="complex64"),
    "1 × 10,000,000, complex64, clipvalue": one_array(10_000_000, dtype="complex64", clipvalue=1.0),
    "1 × 64,000,000, uint8 state": one_array(64_000_000, state_dtype="uint8"),
    "1 × 64,000,000, bfloat16 state": one_array(64_000_000, state_dtype="bfloat16"),
    "8,192 of 1,000,000 rows × 64": ROWS,
    "8,192 of 1,000,000 rows × 64, some twice": ROWS._replace(is_repeated=True),
}


def dtype_of(scenario):
    """Return the dtype of a scenario's variables."""
    return scenario.settings.get("dtype", "float32")
