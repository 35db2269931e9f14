"""What check_gradients takes, leaves alone, returns, prints and refuses."""

import array_api_compat
import array_api_strict
import autograd.numpy as anp
import ml_dtypes
import numpy as np
import pytest

import rmsprop
from rmsprop import IndexedSlices, Variable, Windows, check_gradients

A = np.array([[1.0, 2.0, -1.0], [0.5, -2.0, 3.0], [2.0, 1.0, 1.0], [-1.0, 0.0, 2.0]])
B = np.array([1.0, -2.0, 0.5, 3.0])
X = np.array([0.3, -1.2, 2.0])
Z = np.array([0.5 - 1j, 2 + 0.3j, -1 - 1j])


def quadratic(x, scale=1.0):
    r = A @ x - B
    return np.vdot(r, r).real, scale * 2 * A.T @ r


def separate(tree, *factors):
    """Return the sum of |x|^4 of all arrays, with gradients by `factors` of those of 'a', 'b' and 'c'."""
    a, (b, c) = tree["a"], tree["b"]
    value = sum(np.sum(np.abs(x) ** 4) for x in (a, b, c))
    p, q, r = (f * 4 * np.abs(x) ** 2 * x for f, x in zip(factors, (a, b, c), strict=True))
    return value, {"b": (q, r), "a": p}


# Structures


def tree():
    return {"b": (X.copy(), Variable(Z, name="probe")), "a": np.array([[1.0, 2.0]])}


def test_each_array_of_a_structure_is_judged_by_itself():
    result = check_gradients(separate, tree(), (1, -1, 0.5))
    assert result.verdicts == {"a": "right", "b": ("negative", "scaled")}
    assert result.scales["b"] == (pytest.approx(-1), pytest.approx(0.5))
    assert result.scales["a"] == 1
    assert [array.name for array in result.arrays] == ["a", "b/0", "b/probe"]
    assert not result.success
    assert check_gradients(separate, tree(), (1, 1, 1)).success


def test_verdicts_have_the_order_of_the_keys_as_given():
    assert [*check_gradients(separate, tree(), (1, 1, 1)).verdicts] == ["b", "a"]


@pytest.mark.parametrize("jac", [True, "function", None])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_gradients_come_with_the_value_or_from_a_function_or_from_the_tape(jac, factor):
    def loss(x, factor):
        return anp.sum((x - 1) ** 4)

    def gradient(x, factor):
        return factor * 4 * (x - 1) ** 3

    def both(x, factor):
        return loss(x, factor), gradient(x, factor)

    fun = both if jac is True else loss
    result = check_gradients(fun, X, (factor,), gradient if jac == "function" else jac)
    assert result.verdicts == ("scaled" if jac and factor != 1 else "right")


def test_one_further_argument_needs_no_tuple():
    assert check_gradients(quadratic, X, 1.0).success


def test_the_tape_differentiates_structures_and_complex_arrays():
    def loss(tree):
        return anp.sum(anp.abs(tree["z"]) ** 4) + anp.sum(tree["x"][0] ** 3)

    assert check_gradients(loss, {"z": Z, "x": [X]}, jac=None).success


def test_nothing_is_changed_by_the_check_nor_by_a_loss_that_writes_into_its_argument():
    def writes(x):
        value, gradients = separate(x, 1, 1, 1)
        for each in (x["a"], *x["b"]):
            each[...] = 7
        return value, gradients

    x0 = tree()
    assert check_gradients(writes, x0).success
    assert np.array_equal(x0["b"][0], X)
    assert np.array_equal(x0["b"][1].array, Z)
    assert np.array_equal(x0["a"], [[1.0, 2.0]])


def test_layouts_make_no_difference():
    x = np.linspace(-1, 2, 24).reshape(4, 6)

    def loss(x):
        return np.sum(x**3), 3 * x**2

    for each in (x, x.T, x[::2, ::-3], np.asfortranarray(x), np.broadcast_to(x[:1], (4, 6)), x[0, 0, None][0:0]):
        assert check_gradients(loss, each).success
    fixed = x.copy()
    fixed.flags.writeable = False
    assert check_gradients(loss, fixed).success


def test_sparse_gradients_are_summed_and_none_counts_as_zeros():
    rows = np.array([2, 0, 2])

    def loss(tree):
        table, _ = tree
        return np.sum(table[rows] ** 2), [IndexedSlices(2 * table[rows], rows), None]

    table = np.arange(1.0, 9.0).reshape(4, 2)
    assert check_gradients(loss, [table, X]).success

    def short(tree):
        value, (gradient, _) = loss(tree)
        return value, [IndexedSlices(gradient.values[:2], rows[:2]), None]

    assert check_gradients(short, [table, X]).verdicts == ["wrong", "right"]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_gradients_of_windows_are_summed_where_these_overlap(dtype):
    corners = [(0, 0), (1, 1), (0, 1)]

    def patches(x):
        return np.array([x[i : i + 2, j : j + 2] for i, j in corners])

    def loss(x):
        values = patches(x)
        return np.sum(np.abs(values) ** 4), Windows(4 * np.abs(values) ** 2 * values, corners)

    x = np.linspace(1, 2, 12).reshape(3, 4).astype(dtype)
    assert check_gradients(loss, x * (1 + 1j) if x.dtype.kind == "c" else x).success

    def short(x):
        value, gradient = loss(x)
        return value, Windows(gradient.values[:2], corners[:2])

    assert check_gradients(short, x).verdicts == "wrong"
    with pytest.raises(ValueError, match="gradient of x0: .*window"):
        check_gradients(lambda x: (1.0, Windows(np.ones((1, 2, 2)), [(2, 0)])), x)


def test_a_complex_gradient_of_a_real_array_is_judged_by_its_parts():
    def times(factor):
        return lambda x: (quadratic(x)[0], factor * quadratic(x)[1])

    right = check_gradients(times(1 + 0j), X)
    assert right.success
    assert ".real" in repr(right)
    assert check_gradients(times(2 + 0j), X).verdicts == "scaled"
    turned = check_gradients(times(3j), X)
    assert (turned.verdicts, turned.scales) == ("times i", pytest.approx(3))


def test_one_real_element_is_never_wrong_but_scaled():
    for shape in ((), (1,), (1, 1)):
        result = check_gradients(lambda x: (np.sum(x**2), x**3), np.full(shape, 1.5))
        assert result.verdicts == "scaled"
        assert result.scales == pytest.approx(1.125)
        assert check_gradients(lambda x: (1.0, x), np.full(shape, 1.5)).verdicts == "unclear"


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12, -1e-9, -1e9])
@pytest.mark.parametrize("x", [X, Z], ids=["real", "complex"])
def test_scales_are_found_of_any_size(x, scale):
    result = check_gradients(lambda x: (np.sum(np.abs(x) ** 4), scale * 4 * np.abs(x) ** 2 * x), x)
    assert result.verdicts == ("scaled" if scale > 0 else "negative")
    assert result.scales == pytest.approx(scale)


# Libraries and dtypes


def torch_asarray(array):
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(array.copy())


def jax_asarray(array):
    return pytest.importorskip("jax.numpy", reason="JAX is in the extra 'interop'").asarray(array)


def cupy_asarray(array):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    return cupy.asarray(array)


LIBRARIES = [
    np.array,
    array_api_strict.asarray,
    torch_asarray,
    jax_asarray,
    pytest.param(cupy_asarray, marks=pytest.mark.gpu),
]


def fourth_powers(factor):
    def loss(x):
        xp = array_api_compat.array_namespace(x)
        modulus = xp.abs(x)
        return xp.sum(modulus * modulus * modulus * modulus), factor * 4 * (modulus * modulus * x)

    return loss


@pytest.mark.parametrize("asarray", LIBRARIES, ids=["numpy", "strict", "torch", "jax", "cupy"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_arrays_of_all_libraries_are_checked_where_they_are(asarray, dtype):
    numbers = np.linspace(0.5, 2, 6).reshape(2, 3) * (1 + 0.5j * (np.dtype(dtype).kind == "c"))
    if asarray is jax_asarray and dtype in ("float64", "complex128"):
        pytest.skip("JAX has single precision by default")
    x = asarray((numbers if np.dtype(dtype).kind == "c" else numbers.real).astype(dtype))
    seen = set()

    def noted(x):
        seen.add((type(x), x.dtype, tuple(x.shape)))
        return fourth_powers(1)(x)

    assert check_gradients(noted, x, raise_on_failure=True).success
    assert seen == {(type(x), x.dtype, (2, 3))}
    result = check_gradients(fourth_powers(0.5), x)
    assert (result.verdicts, result.scales) == ("scaled", pytest.approx(0.5, rel=1e-3))
    assert check_gradients(fourth_powers(-1), x).verdicts == "negative"


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("asarray", [np.array, torch_asarray], ids=["numpy", "torch"])
def test_gradients_in_half_precision_are_never_wrong_if_right(asarray, dtype):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        x = asarray(rng.uniform(0.5, 2, 5).astype(dtype))
        found.append(check_gradients(lambda x: ((x * x * x).sum(), 3 * (x * x)), x).verdicts)
    assert {*found} <= {"right", "unclear"}
    assert check_gradients(lambda x: ((x * x * x).sum(), -30 * (x * x)), x).verdicts in ("negative", "unclear")


@pytest.mark.parametrize("part", ["value", "gradient", "array"])
def test_steps_are_as_long_as_the_coarsest_dtype_takes(part):
    longest, dtype = [], np.float32 if part == "gradient" else np.float64

    def loss(x):
        longest.append(float(np.max(np.abs(x - X))))
        value, gradient = quadratic(x.astype(float))
        return (np.float32(value), gradient) if part == "value" else (value, gradient.astype(dtype))

    assert check_gradients(loss, X.astype(np.float32) if part == "array" else X).success
    assert 0.02 < max(longest) < 0.2


@pytest.mark.parametrize("x0", [np.arange(1, 4), [1, 2, 3], (1.0, 2.0, 3.0), [np.float32(1), 2, 3]])
def test_whole_numbers_and_lists_start_where_minimize_does(x0):
    assert check_gradients(quadratic, x0).success
    assert rmsprop.minimize(quadratic, x0, jac=True, steps=1).x.shape == (3,)
    assert check_gradients(lambda x: (x["a"] ** 2, {"a": 2 * x["a"]}), {"a": 3}).verdicts == {"a": "right"}


def test_the_tape_of_pytorch_is_checked_too():
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    x = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64, requires_grad=True)
    assert check_gradients(lambda x: (x**3).sum(), x, jac=None).success


# What can't be told


def test_a_loss_that_is_not_finite_is_unclear_and_says_so():
    for here in (np.nan, np.inf):
        result = check_gradients(lambda x: (here, x), X)  # noqa: B023
        assert result.verdicts == "unclear"
        assert "not finite" in repr(result)
        assert result.nfev == 1


def test_steps_out_of_the_domain_are_made_shorter():
    x = np.array([1.0, 1e-5])
    assert check_gradients(lambda x: (np.sum(np.log(x)), 1 / x), x).success
    result = check_gradients(lambda x: (np.sum(np.sqrt(x)), np.array([0.5, 0.0])), np.array([1.0, 0.0]))
    assert result.verdicts == "unclear"
    assert "not finite" in repr(result)


def test_a_gradient_that_is_not_finite_is_wrong():
    result = check_gradients(lambda x: (np.sum(x**2), x * np.nan), X)
    assert result.verdicts == "wrong"
    assert "not finite" in repr(result)


@pytest.mark.parametrize("x", [np.ones(3), np.ones(3, complex)], ids=["real", "complex"])
def test_a_minimum_is_unclear_but_right_if_the_gradient_is_zero(x):
    def loss(rest):
        return lambda x: (np.sum(np.abs(x - 1) ** 2) + 1, 2 * (x - 1) + rest)

    assert check_gradients(loss(0), x).success
    result = check_gradients(loss(1e-14), x)
    assert result.verdicts == "unclear"
    assert "try another x0" in repr(result)


def test_arrays_that_are_empty_or_unused_are_right():
    def loss(tree):
        return np.sum(tree[0] ** 2), [2 * tree[0], np.zeros((0, 3)), np.zeros(2)]

    assert check_gradients(loss, [X, np.ones((0, 3)), np.ones(2)]).success


def test_a_gradient_of_what_the_loss_does_not_use_is_wrong():
    result = check_gradients(lambda x: (np.sum(x[0] ** 2), [2 * x[0], np.array([1.0, -1.0])]), [X, np.ones(2)])
    assert result.verdicts == ["right", "wrong"]


# What is shown


def test_the_worst_elements_are_shown_where_a_gradient_is_wrong():
    x = np.random.default_rng(0).standard_normal((40, 25))

    def loss(x):
        gradient = 3 * x**2
        gradient[31, 7] += 2
        gradient[2, 24] *= -1
        return np.sum(x**3), gradient

    result = check_gradients(loss, x)
    worst = {element.place: element for element in result.arrays[0].worst}
    assert {*worst} == {(31, 7), (2, 24)}
    assert worst[31, 7].measured == pytest.approx(3 * x[31, 7] ** 2, rel=1e-4)
    assert worst[31, 7].given == 3 * x[31, 7] ** 2 + 2
    assert "[31, 7]  given " in repr(result)
    assert result.nfev < 300


def test_the_worst_elements_of_complex_arrays_have_both_parts():
    def loss(z):
        gradient = 4 * np.abs(z) ** 2 * z
        gradient[1] = gradient[1].conj()
        return np.sum(np.abs(z) ** 4), gradient

    (element,) = check_gradients(loss, Z).arrays[0].worst
    assert element.place == (1,)
    assert element.measured == pytest.approx(4 * abs(Z[1]) ** 2 * Z[1], rel=1e-6)


def test_the_table_names_verdicts_scales_sizes_and_the_wirtinger_factors():
    def derivatives(tree):
        value, gradients = separate(tree, 1, 1, 0.5)
        gradients["a"] = 0 * gradients["a"]
        return value, gradients

    text = repr(check_gradients(derivatives, tree()))
    lines = text.splitlines()
    assert lines[0].split() == ["array", "verdict", "scale", "elements", "misfit", "error"]
    assert lines[1].split()[:4] == ["a", "zero", "0", "2"]
    assert lines[2].split()[:4] == ["b/0", "right", "1", "3"]
    assert lines[3].split()[:4] == ["b/probe", "scaled", "0.5", "3"]
    assert lines[4].startswith("a: The gradient is 0 everywhere")
    assert lines[5].startswith("b/probe: The gradient is 0.5 times the true one. It is the Wirtinger derivative")
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda g: g / 2, "dL/dconj(z): multiply it by 2"),
        (lambda g: g * 2, "Wirtinger factor too many"),
        (lambda g: g.conj() / 2, "dL/dz: return 2 conj(g)"),
        (lambda g: g.conj(), "return conj(g)"),
        (lambda g: g.conj() * 2, "return conj(g) / 2"),
    ],
)
def test_each_wirtinger_factor_has_its_advice(spoil, words):
    text = repr(check_gradients(lambda z: (np.sum(np.abs(z) ** 4), spoil(4 * np.abs(z) ** 2 * z)), Z))
    assert words in text


def test_a_real_array_has_no_wirtinger_factor():
    assert "Wirtinger" not in repr(check_gradients(quadratic, X, (0.5,)))


def test_a_check_is_true_if_all_is_right_and_raises_if_told_to():
    assert check_gradients(quadratic, X)
    assert not check_gradients(quadratic, X, (2.0,))
    with pytest.raises(AssertionError, match="scaled"):
        check_gradients(quadratic, X, (2.0,), raise_on_failure=True)
    with pytest.raises(AssertionError, match="unclear"):
        check_gradients(lambda x: (np.nan, x), X, raise_on_failure=True)
    check_gradients(quadratic, X, raise_on_failure=True)


def test_the_same_seed_finds_the_same_and_takes_some_fifteen_evaluations_a_direction():
    first, again = check_gradients(quadratic, X, seed=3), check_gradients(quadratic, X, seed=3)
    assert first == again
    assert first != check_gradients(quadratic, X, seed=4)
    assert first.nfev == 1 + 3 * 14
    assert check_gradients(fourth_powers(1), Z).nfev == 1 + 4 * 14
    assert check_gradients(quadratic, X, directions=5).nfev == 1 + 5 * 14


# Bad input


@pytest.mark.parametrize(
    ("fun", "x0", "options", "error", "words"),
    [
        (quadratic, np.ones(3, bool), {}, TypeError, "x0 .*bool.*convert it first"),
        (quadratic, {"w": [np.ones(2), np.ones(3, bool)]}, {}, TypeError, "w/1 .*bool"),
        (quadratic, [[1.0], [1.0, 2.0]], {}, ValueError, "lists of different lengths"),
        (quadratic, {"w": "text"}, {}, TypeError, "w is .*'text'.*expected an array"),
        (quadratic, np.ma.ones(3), {}, TypeError, "x0 is a .*MaskedArray"),
        (quadratic, [], {}, ValueError, "at least one array"),
        (None, X, {}, TypeError, "fun must be a function"),
        (quadratic, X, {"jac": "2-point"}, TypeError, "jac must be True.*'2-point'"),
        (quadratic, X, {"jac": None}, TypeError, "returned a tuple.*jac=True"),
        (quadratic, X, {"directions": 1}, ValueError, "directions must be an integer >= 2"),
        (quadratic, X, {"directions": 2.5}, ValueError, "directions must be an integer >= 2"),
        (lambda x: np.sum(x), X, {}, TypeError, "must return .value, gradients..*jac=None"),
        (lambda x: (1j, x), X, {}, TypeError, "real value; given complex128"),
        (lambda x: (x, x), X, {}, TypeError, "must return a number"),
        (lambda x: (None, x), X, {}, TypeError, "must return a number"),
        (lambda x: (1.0, x[:2]), X, {}, ValueError, "gradient of x0 has shape .2,.; expected .3,."),
        (lambda x: (1.0, "text"), X, {}, TypeError, "gradient of x0 must be an array of numbers"),
        (lambda x: (1.0, [[1.0], [2.0, 3.0]]), X, {}, TypeError, "gradient of x0 must be an array of numbers"),
        (lambda x: (1.0, [x]), {"a": X}, {}, ValueError, "structure of x0, {'a': array}; given .{.a.: array}."),
        (lambda x: (1.0, [x[0]]), [X, X], {}, ValueError, "structure of x0"),
        (lambda x: (1.0, {"a": x}), X, {}, ValueError, "structure of x0"),
        (lambda x: (1.0, IndexedSlices(x, np.array([1]))), X, {}, ValueError, "values of shape .3,."),
        (lambda x: (1.0, IndexedSlices(x, np.array([0, 1, 3]))), X, {}, ValueError, "indices out of range"),
        (lambda x: (1.0, IndexedSlices(x, x)), X, {}, TypeError, "integers as indices; given float64"),
    ],
)
def test_bad_input_is_refused_with_what_was_given_and_expected(fun, x0, options, error, words):
    with pytest.raises(error, match=words):
        check_gradients(fun, x0, **options)


def test_what_the_tape_cannot_differentiate_is_refused():
    with pytest.raises(TypeError, match="array_api_strict.*jac=True"):
        check_gradients(lambda x: 1.0, array_api_strict.ones(2), jac=None)


def test_errors_of_the_loss_come_through():
    def broken(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="^mine$"):
        check_gradients(broken, X)


def test_it_is_public():
    assert rmsprop.check_gradients is check_gradients
    assert "check_gradients" in dir(rmsprop)
