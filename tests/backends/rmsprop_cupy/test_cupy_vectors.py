"""Lists of which each thread takes several neighbours at once, which is off until a GPU shows it to be faster."""

import numpy as np
import pytest

from rmsprop import RMSprop

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
from rmsprop_cupy import kernels  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
BY_DAY = [
    pytest.param(d, marks=[pytest.mark.nightly] * (d in ("float16", "float64", "complex128"))) for d in DTYPES
]
OPTIONS = {
    "plain": {},
    "clipped": {"momentum": 0.9, "centered": True, "clipvalue": 0.5, "clipnorm": 1.0, "nonfinite": "skip"},
    "decay": {"weight_decay": 0.1, "decoupled": True, "use_ema": True, "nesterov": True, "momentum": 0.5},
}
SIZES = [0, 1, 3, 4, 5, 1023, 1024, 1025, 2050]


@pytest.fixture(params=[kernels.Split(1024, 4), kernels.Split(2048, 1)], ids=str)
def other_split(request, monkeypatch):
    monkeypatch.setattr(kernels, "OPTIONS", ("-fmad=false", "-ftz=false"))
    return lambda: monkeypatch.setattr(kernels, "SPLIT", request.param)


def trained(dtype, options, offset):
    """Return the bits of variables and slots after steps of a list, the last of which are replayed."""
    rng = np.random.default_rng(0)

    def drawn(size):
        numbers = rng.standard_normal(size + offset) + 1j * rng.standard_normal(size + offset) * (
            "complex" in dtype
        )
        return cupy.asarray(numbers if "complex" in dtype else numbers.real).astype(dtype)[offset:]

    variables = [drawn(size) for size in SIZES]
    opt = RMSprop(0.01, **options)
    for _ in range(4):
        opt.apply_gradients([(drawn(v.size), v) for v in variables])
    return [np.asarray(w).tobytes() for w in [*[v.get() for v in variables], *opt.get_weights()]]


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", BY_DAY)
def test_vectors_give_the_bits_of_single_elements(other_split, dtype, name, offset):
    expected = trained(dtype, OPTIONS[name], offset)
    other_split()
    assert trained(dtype, OPTIONS[name], offset) == expected
