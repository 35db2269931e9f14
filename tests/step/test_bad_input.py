"""Bad input: the error that it gets, and that variables, slots and iterations keep every bit."""

import array_api_strict
import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable, schedules


class Quantity(np.ndarray):
    """Stands for an array with a unit."""


def read_only():
    v = np.ones(3)
    v.flags.writeable = False
    return v


def sliding(n=4):
    return np.lib.stride_tricks.as_strided(np.ones(n), (n - 1, 2), (8, 8))


W = np.ones(6)
ONE = np.ones(3)

VARIABLES = {
    "read-only": (ONE, read_only(), ValueError, "read-only"),
    "broadcast": (np.ones((2, 3)), np.broadcast_to(np.ones(3), (2, 3)), ValueError, "read-only"),
    "overlaps itself": (np.ones((3, 2)), sliding(), ValueError, "share memory with each other"),
    "masked": (ONE, np.ma.ones(3), TypeError, "MaskedArray"),
    "with a unit": (ONE, np.ones(3).view(Quantity), TypeError, "Quantity"),
    "big-endian": (ONE, np.ones(3, ">f8"), TypeError, "byte order"),
    "longdouble": (ONE, np.ones(3, np.longdouble), TypeError, "longdouble|float128"),
    "integers": (ONE, np.ones(3, int), TypeError, "int64"),
    "booleans": (ONE, np.ones(3, bool), TypeError, "bool"),
    "objects": (ONE, np.ones(3, object), TypeError, "object"),
    "records": (ONE, np.ones(3, [("a", "f8")]), TypeError, "Variable 1"),
    "number": (1.0, 2.0, TypeError, "Variable 1"),
    "NumPy scalar": (1.0, np.float64(2.0), TypeError, "Variable 1"),
    "list": (ONE, [1.0, 2.0, 3.0], TypeError, "Variable 1"),
    "None": (ONE, None, TypeError, "Variable 1"),
    "string": (ONE, "w", TypeError, "Variable 1"),
    "plain immutable": (array_api_strict.ones(3), array_api_strict.ones(3), TypeError, "rmsprop.Variable"),
    "Variable of integers": (np.array(1), Variable(1, name="count"), TypeError, "'count'"),
}

GRADIENTS = {
    "shape": (np.ones(4), ValueError, r"shape \(4,\); expected \(3,\)"),
    "would broadcast": (np.ones(1), ValueError, r"shape \(1,\); expected \(3,\)"),
    "scalar": (2.0, ValueError, r"shape \(\); expected \(3,\)"),
    "extra axis": (np.ones((1, 3)), ValueError, r"shape \(1, 3\)"),
    "complex into real": (np.ones(3, complex), TypeError, "complex128"),
    "Python complex": ([1j, 0, 0], TypeError, "complex"),
    "integers": (np.ones(3, int), TypeError, "int64"),
    "booleans": (np.ones(3, bool), TypeError, "bool"),
    "objects": (np.ones(3, object), TypeError, "object"),
    "longdouble": (np.ones(3, np.longdouble), TypeError, "longdouble|float128"),
    "masked": (np.ma.ones(3), TypeError, "MaskedArray"),
    "with a unit": (np.ones(3).view(Quantity), TypeError, "Quantity"),
    "another library": (array_api_strict.ones(3), TypeError, "array_api_strict"),
    "string": ("abc", TypeError, "str"),
    "ragged": ([[1, 2], [3]], (TypeError, ValueError), "Gradient of variable 1"),
    "dictionary": ({}, TypeError, "dict"),
}

ROWS = np.ones((2, 2))
SLICES = {
    "row beyond the end": (IndexedSlices(ROWS, [0, 3]), ValueError, "indices must be >= 0 and < 3"),
    "negative row": (IndexedSlices(ROWS, [0, -1]), ValueError, "indices"),
    "float indices": (IndexedSlices(ROWS, np.array([0.0, 1.0])), TypeError, "integers"),
    "boolean indices": (IndexedSlices(ROWS, np.array([True, False])), TypeError, "integers"),
    "indices with two axes": (IndexedSlices(ROWS, np.array([[0, 1]])), ValueError, "one axis"),
    "scalar index": (IndexedSlices(ROWS, 1), TypeError, "indices"),
    "row shape": (IndexedSlices(np.ones((2, 3)), [0, 1]), ValueError, "values has shape"),
    "number of rows": (IndexedSlices(ROWS, [0, 1, 2]), ValueError, "values has shape"),
    "dense_shape": (IndexedSlices(ROWS, [0, 1], (4, 2)), ValueError, "dense_shape"),
    "complex values": (IndexedSlices(ROWS * 1j, [0, 1]), TypeError, "complex"),
    "integer values": (IndexedSlices(np.ones((2, 2), int), [0, 1]), TypeError, "int64"),
    "masked values": (IndexedSlices(np.ma.ones((2, 2)), [0, 1]), TypeError, "MaskedArray"),
    "masked indices": (IndexedSlices(ROWS, np.ma.array([0, 1])), TypeError, "MaskedArray"),
    "values of another library": (IndexedSlices(array_api_strict.ones((2, 2)), [0, 1]), TypeError, "strict"),
    "indices of another library": (
        IndexedSlices(ROWS, array_api_strict.asarray([0, 1])), TypeError, "indices"
    ),
    "no values": (IndexedSlices(None, [0, 1]), TypeError, "values"),
}  # fmt: skip


class Scene:
    """An optimizer with state, whose every bit can be compared."""

    def __init__(self, **settings):
        self.good, self.table = np.ones(4), np.ones((3, 2))
        self.vector = Variable(np.ones(3), name="vector")
        self.opt = RMSprop(momentum=0.9, **settings)
        self.opt.apply_gradients([(np.ones(4), self.good), (np.ones((3, 2)), self.table), (ONE, self.vector)])

    def bits(self):
        arrays = [self.good, self.table, self.vector.numpy(), *self.opt.get_weights()]
        return [a.tobytes() for a in arrays], [w.name for w in self.opt.weights], self.opt.get_slot_names()

    def check_refused(self, pairs, error, message):
        before = self.bits()
        with pytest.raises(error, match=message):
            self.opt.apply_gradients(pairs)
        assert self.bits() == before
        self.opt.apply_gradients([(np.ones(4), self.good)])  # and still works


@pytest.mark.parametrize("case", VARIABLES)
def test_a_bad_variable_is_named_and_nothing_changes(case):
    gradient, variable, error, message = VARIABLES[case]
    scene = Scene()
    scene.check_refused([(np.ones(4), scene.good), (gradient, variable)], error, message)
    scene.check_refused([(np.ones(4), scene.good), (gradient, variable)], error, "Variable|Gradient of variable 1")


@pytest.mark.parametrize("case", VARIABLES)
def test_a_bad_variable_is_not_built(case):
    _, variable, error, _ = VARIABLES[case]
    if isinstance(variable, list):
        pytest.skip("build flattens lists: their numbers are refused as variables")
    scene = Scene()
    before = scene.bits()
    with pytest.raises(error):
        scene.opt.build([np.ones(2), variable])
    assert scene.bits() == before


@pytest.mark.parametrize("case", GRADIENTS)
def test_a_bad_gradient_is_named_and_nothing_changes(case):
    gradient, error, message = GRADIENTS[case]
    scene = Scene()
    scene.check_refused([(np.ones(4), scene.good), (gradient, scene.vector)], error, message)
    scene.check_refused([(np.ones(4), scene.good), (gradient, scene.vector)], error, "variable 1.*'vector'")


@pytest.mark.parametrize("case", SLICES)
def test_a_bad_sparse_gradient_is_named_and_nothing_changes(case):
    gradient, error, message = SLICES[case]
    scene = Scene()
    pairs = [(np.ones(4), scene.good), (gradient, scene.table)]
    scene.check_refused(pairs, error, message)
    scene.check_refused(pairs, error, "Gradient of variable 1")


@pytest.mark.parametrize("gradient", [IndexedSlices(np.ones(1), [0])])
def test_a_scalar_has_no_rows(gradient):
    scene = Scene()
    scene.check_refused([(gradient, np.ones(()))], ValueError, "without axes")


def test_a_constraint_excludes_sparse_gradients():
    scene = Scene()
    v = Variable(np.ones((3, 2)), name="table", constraint=abs)
    scene.check_refused([(IndexedSlices(ROWS, [0, 1]), v)], RuntimeError, "'table'.*constraint")


@pytest.mark.parametrize(
    "pairs", [7, None, [1, 2], [(1,)], [(1, 2, 3)], ["ab"], [None], np.ones(3), [np.ones(2)]], ids=str
)
def test_malformed_pairs_are_a_type_error(pairs):
    Scene().check_refused(pairs, TypeError, "pair")


def test_no_gradient_for_any_variable_is_a_value_error():
    scene = Scene()
    scene.check_refused([(None, scene.good), (None, scene.vector)], ValueError, "No gradients provided.*'vector'")


def test_the_same_variable_twice_is_refused():
    scene = Scene()
    for again in (scene.good, scene.good[:], scene.good.view()):
        scene.check_refused([(np.ones(4), scene.good), (np.ones(4), again)], ValueError, "same as variable 0")
    scene.check_refused([(ONE, scene.vector), (ONE, scene.vector.array)], ValueError, "share memory|same as")


@pytest.mark.parametrize(
    ("one", "two"), [(W[:4], W[2:]), (W, W[::2]), (W.reshape(2, 3), W), (W[:5], W[1:])], ids=str
)
def test_variables_that_share_memory_are_refused(one, two):
    scene = Scene()
    pairs = [(np.ones(one.shape), one), (np.ones(two.shape), two)]
    scene.check_refused(pairs, ValueError, "share memory")
    scene.opt.apply_gradients(pairs[:1])
    scene.check_refused(pairs[1:], ValueError, "share memory")


def test_a_variable_in_the_memory_of_one_that_begins_before_others_is_refused():
    w, scene = np.ones(6), Scene()
    pairs = [(np.ones(3), w[::2]), (np.ones(1), w[1:2]), (np.ones(1), w[4:5])]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        scene.check_refused([pairs[k] for k in order], ValueError, "share memory")


def test_interleaved_variables_that_share_no_element_are_fine():
    w = np.ones(6)
    RMSprop(0.1).apply_gradients([(np.ones(3), w[::2]), (np.ones(3), w[1::2])])
    assert (w < 1).all()


def test_a_variable_made_read_only_later_is_refused():
    scene = Scene()
    scene.table.flags.writeable = False
    scene.check_refused(
        [(np.ones(4), scene.good), (np.ones((3, 2)), scene.table)], ValueError, "Variable 1.*read-only"
    )


def test_a_variable_reshaped_in_place_is_refused():
    scene, w = Scene(), np.ones((2, 2))
    scene.opt.apply_gradients([(np.ones((2, 2)), w)])
    w.resize((4,), refcheck=False)
    scene.check_refused([(np.ones(4), w)], ValueError, r"shape")


def test_the_array_of_a_variable_or_slot_that_is_updated_in_place_cannot_be_replaced():
    scene = Scene()
    for variable in (scene.vector, scene.opt.get_slot(scene.vector, "rms")):
        old = variable.array
        with pytest.raises(AttributeError, match="vector.* can't be replaced; .*assign"):
            variable.array = np.ones(3)
        variable.array = old
        assert variable.array is old
    scene.opt.apply_gradients([(np.ones(3), scene.vector)])


@pytest.mark.filterwarnings("ignore:Setting the strides:DeprecationWarning")
def test_a_variable_whose_strides_were_changed_is_refused():
    scene, w = Scene(), np.ones((4, 4))
    scene.opt.apply_gradients([(np.ones((4, 4)), w)])
    w.strides = (8, 32)
    scene.check_refused([(np.ones((4, 4)), w)], ValueError, "strides")


def test_a_backend_that_fails_leaves_the_variables_of_the_others_alone(monkeypatch):
    mixed = np.ones(2), Variable(array_api_strict.ones(2))
    opt = RMSprop()
    pairs = [(np.ones(2), mixed[0]), (array_api_strict.ones(2), mixed[1])]
    opt.apply_gradients(pairs)
    before = mixed[0].tobytes(), mixed[1].numpy().tobytes(), [w.tobytes() for w in opt.get_weights()]
    for module in ("rmsprop_numba.step._jobs", "rmsprop_array_api.step._updated"):
        with monkeypatch.context() as patch:
            patch.setattr(module, lambda *arguments: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                opt.apply_gradients(pairs)
        after = mixed[0].tobytes(), mixed[1].numpy().tobytes(), [w.tobytes() for w in opt.get_weights()]
        assert after == before


@pytest.mark.parametrize("value", [None, "3", "x", {}])
def test_what_is_no_number_is_not_assigned(value):
    v = Variable(1.0)
    with pytest.raises(TypeError):
        v.assign(value)
    assert v == 1


@pytest.mark.parametrize("name", ["learning_rate", "rho", "momentum"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "x", None, 1j, np.ones(2)], ids=str)
def test_a_bad_hyperparameter_is_named_and_nothing_changes(name, value):
    scene = Scene()
    setattr(scene.opt, name, lambda: 0.5)
    before = scene.bits()
    setattr(scene.opt, name, lambda: value)
    with pytest.raises((TypeError, ValueError), match=name):
        scene.opt.apply_gradients([(np.ones(4), scene.good)])
    assert scene.bits() == before


def test_a_schedule_that_is_not_finite_changes_nothing():
    class Broken(schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (1 - step) if step != 1 else float("nan")

    scene = Scene()
    scene.opt.learning_rate = Broken()
    before = scene.bits()
    with pytest.raises(ValueError, match="learning_rate"):
        scene.opt.apply_gradients([(np.ones(4), scene.good)])
    assert scene.bits() == before


def test_a_callable_that_raises_changes_nothing():
    scene = Scene()
    scene.opt.rho = 0.5
    scene.opt._settings.values["rho"] = lambda: 1 / 0
    before = scene.bits()
    with pytest.raises(ZeroDivisionError):
        scene.opt.apply_gradients([(np.ones(4), scene.good)])
    assert scene.bits() == before


@pytest.mark.parametrize("made", [lambda pairs: [(np.ones(9), v) for _, v in pairs], lambda pairs: 1])
def test_what_a_transformer_returns_is_checked_too(made):
    scene = Scene()
    scene.opt.gradient_transformers = [made]
    before = scene.bits()
    with pytest.raises((TypeError, ValueError)):
        scene.opt.apply_gradients([(np.ones(4), scene.good)])
    assert scene.bits() == before


def test_gradients_of_another_precision_or_byte_order_are_cast():
    for dtype in (np.float16, np.float64, ">f4"):
        v = np.ones(3, np.float32)
        RMSprop(0.1).apply_gradients([(np.ones(3, dtype), v)])
        np.testing.assert_allclose(v, 0.68377227, rtol=2e-7)
    z = np.ones(3, np.complex64)
    RMSprop(0.1).apply_gradients([(np.ones(3), z)])
    np.testing.assert_allclose(z, 0.68377227, rtol=2e-7)


def test_gradients_may_be_numbers_lists_and_variables():
    v, s = np.ones(2), np.array(1.0)
    RMSprop(0.1).apply_gradients([([1, 2.0], v), (1, s)])
    RMSprop(0.1).apply_gradients([(Variable(np.ones(2)), v), (np.float32(1), s)])
    assert s == pytest.approx(1 - 2 * 0.31622773)
