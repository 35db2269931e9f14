"""A catalogue of input that lies: the exact error that each gets, and that every byte of state stays."""

import warnings

import numpy as np
import pytest

from rmsprop import IndexedSlices, LossScale, RMSprop, Variable

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
ONE, ROW = np.ones(3), np.ones((1, 2))


class LyingPair(tuple):
    """A tuple that claims to be a pair."""

    __slots__ = ()

    def __len__(self):
        return 2


class Unusual:
    """What is no number, list or array."""


def failing(*arguments, **keywords):
    raise KeyError("midway")


def matrix(values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(values)


def yields_then_fails(pair):
    yield pair
    failing()


def scene(**settings):
    """Return an optimizer with state, its vector (a `Variable`), and its table (an array)."""
    vector, table = Variable(np.ones(3), name="vector"), np.ones((4, 2))
    opt = RMSprop(**{"nonfinite": "skip", "loss_scale": LossScale(2.0), **settings})
    opt.apply_gradients([(np.ones(3), vector), (np.ones((4, 2)), table)])
    opt.apply_gradients([(np.full(3, np.inf), vector)])
    return opt, vector, table


def state(opt, *variables):
    """Return every byte of variables, slots, counts and settings."""
    arrays = [np.asarray(v.array if isinstance(v, Variable) else v) for v in variables]
    counts = opt.skipped, [w.tobytes() for w in opt.loss_scale.get_weights()]
    slots = [(w.name, w.numpy().tobytes()) for w in opt.weights]
    return [a.tobytes() for a in arrays], slots, counts, repr(opt.get_config()), opt.get_slot_names()


def check(call, error, message, **settings):
    """Check that a call is refused, and that nothing has changed."""
    opt, vector, table = scene(**settings)
    gradients = [np.arange(3.0), np.arange(8.0).reshape(4, 2)]
    before = state(opt, vector, table, *gradients)
    with pytest.raises(error, match=message) as caught:
        call(opt, vector, table, *gradients)
    assert type(caught.value) is error
    assert state(opt, vector, table, *gradients) == before
    opt.apply_gradients([(np.ones(3), vector), (np.ones((4, 2)), table)])  # and it still works
    assert opt.iterations == 2


def step(make):
    """Return a call of `apply_gradients` with what `make` gives for vector, table and their good gradients."""
    return lambda opt, *given: opt.apply_gradients(make(*given))


PAIRS = {
    "tuple that lies about its length": (lambda v, t, g, h: [LyingPair((g,))], TypeError, "pair"),
    "tuple of three that lies": (lambda v, t, g, h: [LyingPair((g, v, 1))], TypeError, "pair"),
    "dictionary": (lambda v, t, g, h: {1: 2}, TypeError, "pair"),
    "string": (lambda v, t, g, h: "ab", TypeError, "pair"),
    "callable": (lambda v, t, g, h: failing, TypeError, "iterable of .* pairs"),
    "generator that raises midway": (lambda v, t, g, h: yields_then_fails((g, v)), KeyError, "midway"),
    "the second pair is none": (lambda v, t, g, h: [(g, v), 7], TypeError, r"grads_and_vars\[1\]"),
    "class for a variable": (lambda v, t, g, h: [(g, v), (g, np.ndarray)], TypeError, "Variable 1 .*expected"),
    "matrix for a variable": (lambda v, t, g, h: [(h, t), (ROW, matrix([[1.0, 2]]))], TypeError, "matrix"),
    "recarray for a variable": (lambda v, t, g, h: [(g, ONE.view(np.recarray))], TypeError, "recarray"),
    "part of a known variable": (lambda v, t, g, h: [(h[1:], t[1:])], ValueError, "share memory"),
    "reversed view of a known variable": (lambda v, t, g, h: [(h, t[::-1])], ValueError, "share memory"),
    "transposed view of a known variable": (lambda v, t, g, h: [(h.T, t.T)], ValueError, "share memory"),
    "same bytes as another dtype": (lambda v, t, g, h: [(h, t.view(complex).real)], ValueError, "shape|share"),
    "variable twice, once as its array": (lambda v, t, g, h: [(g, v), (g, v.array)], ValueError, "share|same"),
}
GRADIENTS = {
    "class": (np.ndarray, TypeError, "must be an array"),
    "function": (failing, TypeError, "must be an array"),
    "set": ({1.0, 2.0, 3.0}, TypeError, "must be an array"),
    "bytes": (b"abc", TypeError, "must be an array"),
    "generator": ((x for x in ONE), TypeError, "must be an array"),
    "object": (Unusual(), TypeError, "must be an array"),
    "matrix": (matrix([1.0, 2, 3]), TypeError, "matrix"),
    "recarray": (np.ones(3).view(np.recarray), TypeError, "recarray"),
    "structured": (np.ones(3, [("a", "f8")]), TypeError, "void64, which can't be cast"),
    "datetimes": (np.zeros(3, "M8[s]"), TypeError, "datetime64"),
    "timedeltas": (np.zeros(3, "m8[s]"), TypeError, "timedelta64"),
    "strings": (np.array(["a", "b", "c"]), TypeError, "str32"),
    "raw bytes": (np.zeros(3, "V8"), TypeError, "void64"),
    "huge integers": ([HUGE] * 3, TypeError, "must consist of numbers"),
    "list of None": ([None] * 3, TypeError, "must consist of numbers"),
    "list of booleans": ([True] * 3, TypeError, "must consist of numbers"),
    "ragged list": ([[1.0], [1.0, 2.0], []], TypeError, "different lengths"),
    "list of strings": (["1", "2", "3"], TypeError, "must consist of numbers"),
    "empty": (np.ones(0), ValueError, r"shape \(0,\); expected \(3,\)"),
    "0-d": (np.ones(()), ValueError, r"shape \(\); expected \(3,\)"),
    "transposed": (np.ones((3, 1)), ValueError, r"shape \(3, 1\); expected \(3,\)"),
}
SLICES = {
    "uint64 beyond int64": (IndexedSlices(ROW, np.array([2**64 - 1], np.uint64)), ValueError, "< 4"),
    "int64 at its lowest": (IndexedSlices(ROW, np.array([-(2**63)])), ValueError, "< 4"),
    "int8 negative": (IndexedSlices(ROW, np.array([-1], np.int8)), ValueError, "< 4"),
    "listed index of 2**63": (IndexedSlices(ROW, [2**63]), ValueError, "< 4"),
    "listed index of 10**400": (IndexedSlices(ROW, [HUGE]), TypeError, "indices must be integers"),
    "listed None": (IndexedSlices(ROW, [None]), TypeError, "indices must be integers"),
    "listed string": (IndexedSlices(ROW, ["0"]), TypeError, "indices must be integers"),
    "listed boolean": (IndexedSlices(ROW, [True]), TypeError, "indices must be integers"),
    "ragged indices": (IndexedSlices(ROW, [[0], [1, 2]]), TypeError, "indices must be integers"),
    "no indices": (IndexedSlices(ROW, None), TypeError, "indices must be an array"),
    "indices of NaN": (IndexedSlices(ROW, np.array([NAN])), TypeError, "indices must be integers"),
    "complex indices": (IndexedSlices(ROW, np.array([1j])), TypeError, "indices must be integers"),
    "indices of objects": (IndexedSlices(ROW, np.array([1], object)), TypeError, "indices must be integers"),
    "indices of time": (IndexedSlices(ROW, np.zeros(1, "m8[s]")), TypeError, "indices must be integers"),
    "matrix of indices": (IndexedSlices(ROW, matrix([0])), TypeError, "matrix"),
    "variable of indices": (IndexedSlices(ROW, Variable(np.array([1]))), TypeError, "indices must be an array"),
    "scalar values": (IndexedSlices(1.0, [1]), ValueError, "values has shape"),
    "slices of slices": (IndexedSlices(IndexedSlices(ROW, [0]), [0]), TypeError, "values must be an array"),
    "ragged values": (IndexedSlices([[1.0], [1.0, 2.0]], [0, 1]), TypeError, "different lengths"),
    "dense_shape of floats": (IndexedSlices(ROW, [0], (4.0, 2.0)), ValueError, "dense_shape"),
    "dense_shape in two axes": (IndexedSlices(ROW, [0], ((4,), (2,))), ValueError, "dense_shape"),
    "ragged dense_shape": (IndexedSlices(ROW, [0], ((4,), (2, 3))), ValueError, "dense_shape"),
    "dense_shape of another rank": (IndexedSlices(ROW, [0], (4, 2, 1)), ValueError, "dense_shape"),
    "dense_shape as a string": (IndexedSlices(ROW, [0], "42"), ValueError, "dense_shape"),
}
CALLS = {
    "weights that are none": (lambda o, *_: o.set_weights(None), TypeError, "sequence of arrays"),
    "weights as a number": (lambda o, *_: o.set_weights(5), TypeError, "sequence of arrays"),
    "weights as a string": (lambda o, *_: o.set_weights("abc"), TypeError, "sequence of arrays"),
    "weights as a dictionary": (lambda o, *_: o.set_weights({0: 1}), TypeError, "sequence of arrays"),
    "weights that fail midway": (lambda o, *_: o.set_weights(map(failing, [1])), KeyError, "midway"),
    "last weight bad": (lambda o, *_: o.set_weights([1, ONE * 7, ONE]), ValueError, "array/rms' has shape"),
    "ragged weight": (lambda o, *_: o.set_weights([1, [1, [2]], ONE]), TypeError, "Weight 1"),
    "masked weight": (lambda o, *_: o.set_weights([1, np.ma.ones(3), np.ones((4, 2))]), TypeError, "Masked"),
    "structured weight": (
        lambda o, *_: o.set_weights([1, np.ones(3, [("a", "f8")]), np.ones((4, 2))]), ValueError, "dtype",
    ),
    "count of True": (lambda o, *_: o.set_weights([True, -ONE, np.ones((4, 2))]), ValueError, "negative"),
    "count of NaN": (lambda o, *_: o.set_weights([NAN, ONE, np.ones((4, 2))]), ValueError, "whole number"),
    "count of raw bytes": (
        lambda o, *_: o.set_weights([np.zeros((), "V8"), ONE, np.ones((4, 2))]), ValueError, "dtype",
    ),
    "iterations of NaN": (lambda o, *_: o.iterations.assign(NAN), ValueError, "whole number"),
    "iterations of infinity": (lambda o, *_: o.iterations.assign(INF), ValueError, "whole number"),
    "iterations that are negative": (lambda o, *_: o.iterations.assign(-5), ValueError, "whole number"),
    "iterations of 1.5": (lambda o, *_: o.iterations.assign(1.5), ValueError, "whole number"),
    "iterations of 2**70": (lambda o, *_: o.iterations.assign(2**70), TypeError, "iterations takes"),
    "slot name that is none": (lambda o, v, *_: o.add_slot(v, 5), TypeError, "slot_name"),
    "slot name that is a list": (lambda o, v, *_: o.get_slot(v, ["rms"]), TypeError, "slot_name"),
    "slot shape of letters": (lambda o, v, *_: o.add_slot(v, "x", shape="ab"), TypeError, "shape"),
    "slot shape below zero": (lambda o, v, *_: o.add_slot(v, "x", shape=(-1,)), ValueError, "shape"),
    "slot initializer that fails": (lambda o, v, *_: o.add_slot(v, "x", failing), KeyError, "midway"),
    "build of a part": (lambda o, v, t, *_: o.build([t[1:]]), ValueError, "share memory"),
    "build of bytes": (lambda o, *_: o.build(b"abc"), TypeError, "Variable 0"),
    "build that fails midway": (lambda o, *_: o.build(yields_then_fails(np.ones(2))), KeyError, "midway"),
    "tape that is none": (lambda o, v, *_: o.minimize(lambda: v * v, [v], tape=3), TypeError, "tape must"),
    "value and a tape that is none": (lambda o, v, *_: o.minimize(1.0, [v], tape=3), TypeError, "tape must"),
    "jac that is no flag": (lambda o, v, *_: o.minimize(lambda: 1.0, [v], jac="yes"), TypeError, "jac"),
    "jac without gradients": (lambda o, v, *_: o.minimize(lambda x: 1.0, [v], jac=True), TypeError, "jac=True"),
    "loss by a number": (lambda o, *_: o.minimize(lambda x: x, [3.0]), TypeError, "Variable 0"),
    "loss by a string": (lambda o, *_: o.minimize(lambda x: x, "w"), TypeError, "Variable 0"),
    "loss that is none": (lambda o, v, *_: o.minimize(None, [v]), ValueError, "tape"),
    "loss that fails": (lambda o, v, *_: o.minimize(failing, [v]), KeyError, "midway"),
    "loss with too many gradients": (
        lambda o, v, *_: o.minimize(lambda: (1.0, [ONE, ONE]), [v]), ValueError, "1 gradients",
    ),
    "value that is structured": (lambda o, v, *_: v.assign(np.zeros(3, [("a", "f8")])), TypeError, "vector"),
    "value in time": (lambda o, v, *_: v.assign(np.zeros(3, "M8[s]")), TypeError, "vector"),
    "value that is masked": (lambda o, v, *_: v.assign_add(np.ma.ones(3)), TypeError, "vector.*Masked"),
    "value of raw bytes": (lambda o, v, *_: v.assign(np.zeros(3, "V8")), TypeError, "vector"),
    "setting of transformers": (lambda o, *_: setattr(o, "gradient_transformers", "ab"), TypeError, "callables"),
    "setting of one transformer": (lambda o, *_: setattr(o, "gradient_transformers", failing), TypeError, "seq"),
    "setting of an aggregator": (lambda o, *_: setattr(o, "gradient_aggregator", 5), TypeError, "callable"),
    "setting of a name": (lambda o, *_: setattr(o, "name", 5), TypeError, "name must be a string"),
    "setting of a loss scale": (lambda o, *_: setattr(o, "loss_scale", 8), TypeError, "LossScale"),
}  # fmt: skip
CONFIGS = {
    "none": (None, TypeError, "config must be a dict"),
    "string": ("x", TypeError, "config must be a dict"),
    "numbered": ({1: 2}, TypeError, "strings"),
    "unknown": ({"unknown": 1}, TypeError, "unknown"),
    "schedule of a list": ({"learning_rate": {"class_name": ["a"], "config": {}}}, TypeError, "schedule class"),
    "schedule of a number": (
        {"learning_rate": {"class_name": "ExponentialDecay", "config": 5}}, TypeError, "mapping",
    ),
    "loss scale unknown": ({"loss_scale": {"x": 1}}, TypeError, "x"),
    "loss scale without skip": ({"loss_scale": {}}, ValueError, "nonfinite='skip'"),
}  # fmt: skip
NUMBERS = ["learning_rate", "rho", "momentum", "epsilon", "decay", "clipnorm", "clipvalue", "global_clipnorm"]
NO_NUMBERS = ["0.1", b"1", [0.1], np.ones(2), np.ones(1), 1j, {}, Unusual(), np.array("x"), np.zeros((), "M8[s]")]


@pytest.mark.parametrize("case", PAIRS)
def test_pairs_and_variables(case):
    make, error, message = PAIRS[case]
    check(step(make), error, message)


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients(case):
    gradient, error, message = GRADIENTS[case]
    check(step(lambda v, t, g, h: [(h, t), (gradient, v)]), error, f"Gradient of variable 1 .*'vector'.*{message}")


@pytest.mark.parametrize("case", SLICES)
def test_slices(case):
    gradient, error, message = SLICES[case]
    check(step(lambda v, t, g, h: [(g, v), (gradient, t)]), error, f"Gradient of variable 1 .*{message}")


@pytest.mark.parametrize("case", CALLS)
def test_calls(case):
    check(*CALLS[case])


@pytest.mark.parametrize("case", CONFIGS)
def test_configurations(case):
    config, error, message = CONFIGS[case]
    check(lambda opt, *_: type(opt).from_config(config), error, message)


@pytest.mark.parametrize("name", NUMBERS)
def test_settings(name):
    for value in NO_NUMBERS:
        check(lambda opt, *_, value=value: setattr(opt, name, value), TypeError, name)
    for value in (NAN, INF, -INF, HUGE, np.float64(NAN)):
        check(lambda opt, *_, value=value: setattr(opt, name, value), ValueError, name)


@pytest.mark.parametrize("name", NUMBERS[:3])
def test_what_callables_return(name):
    for value in (*NO_NUMBERS, None, lambda: 0.5):
        opt, vector, table = scene()
        setattr(opt, name, lambda: 0.5)
        before = state(opt, vector, table)[:3]
        setattr(opt, name, lambda value=value: value)
        with pytest.raises(TypeError, match=name):
            opt.apply_gradients([(ONE, vector)])
        setattr(opt, name, lambda: 0.5)
        assert state(opt, vector, table)[:3] == before
    opt, vector, table = scene()
    before = state(opt, vector, table)
    with pytest.raises(KeyError, match="midway"):
        setattr(opt, name, failing)
        opt.apply_gradients([(ONE, vector)])
    setattr(opt, name, before and {"learning_rate": 0.001, "rho": 0.9, "momentum": 0.0}[name])
    assert state(opt, vector, table)[:3] == before[:3]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_callable_that_changes_the_variables_meanwhile_is_noticed(step):
    w = np.ones(4)

    def rate():
        if len(calls) == step:
            w.resize((2,), refcheck=False)
        calls.append(0)
        return 0.1

    calls = []
    opt = RMSprop(rate)
    for _ in range(step):
        opt.apply_gradients([(np.ones(4), w)])
    with pytest.raises(ValueError, match=r"\(4,\)|expected \(2,\)"):
        opt.apply_gradients([(np.ones(4), w)])
    assert opt.iterations == step


def test_memory_that_was_moved_is_noticed():
    w = np.ones(4)
    opt = RMSprop()
    for _ in range(2):
        opt.apply_gradients([(np.ones(4), w)])
    before = w.tobytes(), [a.tobytes() for a in opt.get_weights()]
    address = w.ctypes.data
    kept = []
    for size in (10_000_000, 4):
        w.resize((size,), refcheck=False)
        kept.append(np.ones(4))
    if w.ctypes.data == address:
        pytest.skip("the memory happens to be the same")
    for gradient in (np.ones(4), [1.0] * 4):
        with pytest.raises(ValueError, match="Variable .*moved"):
            opt.apply_gradients([(gradient, w)])
    assert (w.tobytes(), [a.tobytes() for a in opt.get_weights()]) == before


def test_compact_state_refuses_the_same():
    for cases in (GRADIENTS, SLICES):
        for gradient, error, message in list(cases.values())[::4]:
            opt = RMSprop(state_dtype="bfloat16")
            vector, table = Variable(np.ones(3), name="vector"), np.ones((4, 2))
            opt.apply_gradients([(np.ones(3), vector), (np.ones((4, 2)), table)])
            before = [a.tobytes() for a in (vector.array, table, *opt.get_weights())]
            with pytest.raises(error, match=message):
                opt.apply_gradients(
                    [(ONE, vector), (gradient, table)] if cases is SLICES else [(gradient, vector)]
                )
            assert [a.tobytes() for a in (vector.array, table, *opt.get_weights())] == before


def test_numbers_beyond_the_dtype_of_the_variable_are_infinite_without_a_warning():
    for gradient in ([1e300, 1], np.array([1e300, 1]), IndexedSlices([1e300], [0])):
        v, opt = np.ones(2, np.float32), RMSprop(nonfinite="skip")
        opt.apply_gradients([(gradient, v)])
        assert (opt.skipped, opt.iterations) == (1, 0)
