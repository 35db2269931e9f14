"""The form of autograd.misc.optimizers: the same results, in any structure."""

import numpy as np
import pytest
from autograd.misc import optimizers

from rmsprop import Variable
from rmsprop.adapters import rmsprop

RNG = np.random.default_rng(0)
STARTS = {
    "array": RNG.standard_normal((3, 4)),
    "number": 2.0,
    "numbers": [1.0, -2.0],
    "tree": {"w": [RNG.standard_normal((2, 3)), np.array(0.5)], "b": (RNG.standard_normal(3), -1.0)},
    "empty": {"w": [], "b": np.ones(2)},
}


def parts(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in parts(tree[key])]
    return [leaf for branch in tree for leaf in parts(branch)] if isinstance(tree, list | tuple) else [tree]


def outline(tree):
    if isinstance(tree, dict):
        return {key: outline(each) for key, each in tree.items()}
    return type(tree)(map(outline, tree)) if isinstance(tree, list | tuple) else np.shape(tree)


def gradient(x, i):
    """Return that of cosh(x) / 2, at another place in each step."""
    if isinstance(x, dict):
        return {key: gradient(each, i) for key, each in x.items()}
    return type(x)(gradient(e, i) for e in x) if isinstance(x, list | tuple) else np.sinh(x + 0.01 * i) / 2


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("given", [{}, {"step_size": 0.01, "gamma": 0.5, "eps": 0.1}], ids=["plain", "given"])
def test_one_step_is_that_of_autograd_to_two_units_in_the_last_place(start, given):
    theirs = optimizers.rmsprop(gradient, STARTS[start], num_iters=1, **given)
    ours = rmsprop(gradient, STARTS[start], num_iters=1, **given)
    assert outline(ours) == outline(theirs) == outline(STARTS[start])
    for one, other in zip(parts(ours), parts(theirs), strict=True):
        np.testing.assert_array_max_ulp(np.asarray(one), np.asarray(other), 2)


@pytest.mark.parametrize("start", STARTS)
def test_a_hundred_steps_and_the_callbacks_before_them_are_those_of_autograd(start):
    traces = []
    for optimize in (optimizers.rmsprop, rmsprop):
        trace = []
        x = optimize(gradient, STARTS[start], lambda *call, trace=trace: trace.append(call))
        traces.append([*trace, (x, 100, gradient(x, 100))])
    assert len(traces[0]) == len(traces[1]) == 101
    for (x, i, g), (other, j, h) in zip(*traces, strict=True):
        assert i == j
        for one, two in zip([*parts(x), *parts(g)], [*parts(other), *parts(h)], strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-13)


def test_what_it_begins_with_and_what_callbacks_keep_stay_as_they_are():
    x0, kept = {"a": np.ones(3)}, []
    rmsprop(gradient, x0, lambda x, i, g: kept.append((x["a"], x["a"].copy())), num_iters=3)
    np.testing.assert_array_equal(x0["a"], 1)
    assert len({tuple(now) for now, _ in kept}) == 3
    for now, then in kept:
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_arrays_keep_their_dtype(dtype):
    x = rmsprop(lambda x, i: 2 * x, np.full(3, 3, dtype), num_iters=200, step_size=0.05)
    assert x.dtype == dtype
    assert np.all(np.abs(x) < 0.1)


def test_no_steps_return_a_copy():
    x0 = np.ones(2)
    x = rmsprop(gradient, x0, num_iters=0)
    np.testing.assert_array_equal(x, x0)
    assert x is not x0


def test_arrays_of_any_library_will_do(xp):
    x0 = {"a": xp.ones((2, 3)), "b": Variable(xp.ones(2))}
    x = rmsprop(lambda x, i: {"a": 2 * x["a"], "b": 2 * x["b"]}, x0, num_iters=100, step_size=0.05)
    assert bool((x["a"] < 0.1).all() if hasattr(x["a"], "all") else xp.all(x["a"] < 0.1))
    assert isinstance(x["b"], Variable)


@pytest.mark.gpu
def test_on_a_gpu_it_takes_the_same_steps():
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    x = rmsprop(lambda x, i: 2 * x, cupy.ones(5), num_iters=10)
    assert isinstance(x, cupy.ndarray)
    np.testing.assert_allclose(cupy.asnumpy(x), rmsprop(lambda x, i: 2 * x, np.ones(5), num_iters=10), rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"grad": 3}, TypeError, "grad must be a function; given 3"),
        ({"callback": 3}, TypeError, "callback must be a function; given 3"),
        ({"x0": "text"}, TypeError, "x0 must be an array"),
        ({"x0": []}, ValueError, "x0 must have at least one array"),
        ({"num_iters": -1}, ValueError, "num_iters must be a whole number from 0 on; given -1"),
        ({"num_iters": 1.5}, ValueError, "num_iters must be a whole number"),
        ({"step_size": "fast"}, TypeError, "learning_rate"),
        ({"eps": -1.0}, ValueError, "eps"),
        ({"gamma": 2.0}, ValueError, "rho"),
        ({"grad": lambda x, i: {"a": x}}, TypeError, "gradient must be an array"),
        ({"x0": {"a": np.ones(2)}, "grad": lambda x, i: x["a"]}, ValueError, "structure of x0"),
        ({"grad": lambda x, i: np.ones(3)}, ValueError, "shape"),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, dict) else "",
)
def test_bad_arguments_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        rmsprop(**{"grad": gradient, "x0": np.ones(2), **given})
