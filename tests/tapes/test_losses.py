"""What a loss is given and may return: values by name and in their structure, real numbers, gradients alike."""

import sys
from functools import partial
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest

import rmsprop
from rmsprop import GradientTape, IndexedSlices, LossScale, RMSprop, TorchTape, Variable


@pytest.fixture(params=[GradientTape, TorchTape])
def make(request):
    """Return a class of tapes."""
    if request.param is TorchTape:
        pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    return request.param


COMPLEX = {
    "square": lambda z: z * z,
    "sum": lambda z: (z * z).sum(),
    "modulus as a product": lambda z: (z * z.conj()).sum(),
    "list": lambda z: [(z * z.conj()).real.sum(), z.sum()],
}


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("name", COMPLEX)
def test_a_complex_loss_is_refused(make, name, dtype):
    loss, z = COMPLEX[name], np.array([1 + 2j, 3j], dtype)
    v = Variable(z)
    with make() as tape:
        value, traced = loss(v), loss(tape.watch(z))
    for target in (value, traced):
        for weights in (None, 2.0, 1j) if name in ("sum", "list") else (None, 2.0, [1.0, 0.0], [1j, 0.0]):
            for sources in (v, [z, v]):
                with pytest.raises(TypeError, match=r"complex.*\.real.*abs"):
                    tape.gradient(target, sources, weights)
        with pytest.raises(TypeError, match=r"\.real.*abs"):
            RMSprop().minimize(target, [v], tape=tape)
    for opt in (RMSprop(), RMSprop(loss_scale=LossScale(8.0, dynamic=False))):
        for weights in (None, 2.0):
            with pytest.raises(TypeError, match=r"\.real.*abs"):
                opt.minimize(lambda: loss(v), [v], weights, tape=make())
            with pytest.raises(TypeError, match=r"\.real.*abs"):
                opt.minimize(loss, [z], weights, tape=make())
    np.testing.assert_array_equal(z, [1 + 2j, 3j])
    np.testing.assert_array_equal(v.numpy(), z)


def test_a_complex_constant_and_a_complex_source_are_refused_as_losses(make):
    z = Variable([1j])
    with make() as tape:
        _ = z * 1
    for target in (1j, z, np.ones(1, complex)):
        with pytest.raises(TypeError, match="complex"):
            tape.gradient(target, z)


@pytest.mark.parametrize("scale", [None, 8.0])
@pytest.mark.parametrize("loss", [lambda z: (z * z.conj()).real.sum(), lambda z: (abs(z) ** 2).sum()])
def test_the_real_part_and_the_modulus_are_differentiated(make, loss, scale):
    z = np.array([1 + 2j, 3j])
    scaled = RMSprop(rho=0.0, loss_scale=scale and LossScale(scale, dynamic=False))
    scaled.minimize(loss, [z], tape=make())
    np.testing.assert_allclose(scaled.get_slot(z, "rms").numpy(), [20, 36])


def test_complex_weights_of_a_real_loss_are_refused(make):
    v = Variable(np.ones(2))
    with make() as tape:
        loss = v * v
    for weights in (1j, [1j, 2], np.ones(2, complex)):
        with pytest.raises(TypeError, match="output_gradients must be real"):
            tape.gradient(loss, v, weights)


def test_losses_in_a_list_are_scaled(make):
    v = Variable(np.array([1.0, 2.0]))
    opt = RMSprop(rho=0.0, loss_scale=LossScale(8.0, dynamic=False))
    opt.minimize(lambda: [(v * v).sum(), v * 3], [v], tape=make())
    np.testing.assert_array_equal(opt.get_slot(v, "rms").numpy(), [25, 49])


class Pair(NamedTuple):
    first: Any
    second: Any


def leaves():
    return np.array([1.0, 2.0]), np.array([3.0]), np.array([5.0, 7.0])


def structures(a, b, c):
    """Return a loss for each structure of three variables, whose gradients are 2a, 3 and c."""

    def value(a, b, c):
        return (a * a).sum() + 3 * b.sum() + (c * c).sum() / 2

    return {
        "list": ([a, b, c], value),
        "tuple": ((a, b, c), value),
        "keywords": ({"c": c, "a": a, "b": b}, lambda *, b, a, c: value(a, b, c)),
        "keywords by position": ({"c": c, "a": a, "b": b}, lambda b, c, a: value(a, b, c)),
        "any keywords": ({"c": c, "a": a, "b": b}, lambda **names: value(**names)),
        "partial": ({"q": c, "p": [a, b]}, partial(lambda k, p, q: value(*p, q), 0)),
        "lists in a list": ([a, [b, c]], lambda a, rest: value(a, *rest)),
        "dict in a list": ([a, {"y": b, "x": c}], lambda a, rest: value(a, rest["y"], rest["x"])),
        "list in a dict": ({"z": [a, b], "k": c}, lambda z, k: value(*z, k)),
        "tree": ({"net": {"w": a, "b": (b,)}, "c": c}, lambda net, c: value(net["w"], net["b"][0], c)),
        "named tuple within": ([Pair(a, b), c], lambda pair, c: value(pair.first, pair.second, c)),
        "iterator": (iter([a, b, c]), value),
        "views": ({1: a, 2: b, 3: c}.values(), value),
    }


STRUCTURES = list(structures(*leaves()))


@pytest.mark.parametrize("as_variables", [False, True])
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_loss_gets_its_variables_in_their_structure(make, name, as_variables):
    a, b, c = map(Variable, leaves()) if as_variables else leaves()
    tree, loss = structures(a, b, c)[name]
    opt = RMSprop(rho=0.0)
    opt.minimize(loss, tree, tape=make())
    for variable, expected in [(a, [4, 16]), (b, [9]), (c, [25, 49])]:
        np.testing.assert_array_equal(opt.get_slot(variable, "rms").numpy(), expected)


def doubled(tree):
    """Return twice each array, in the same structure; dicts with their keys in another order."""
    if isinstance(tree, dict):
        return {key: doubled(tree[key]) for key in reversed(tree)}
    if isinstance(tree, list | tuple):
        return [doubled(each) for each in tree]
    return 2 * tree


@pytest.mark.parametrize("as_variables", [False, True])
@pytest.mark.parametrize("jac", [True, False])
@pytest.mark.parametrize("name", STRUCTURES)
def test_gradients_have_the_structure_of_the_variables(name, jac, as_variables):
    a, b, c = map(Variable, leaves()) if as_variables else leaves()
    tree, _ = structures(a, b, c)[name]
    opt = RMSprop(rho=0.0)
    loss = (lambda **names: (0.0, doubled(names))) if isinstance(tree, dict) else (
        lambda x, *rest: (0.0, doubled([x, *rest]))
    )  # fmt: skip
    opt.minimize(loss, tree, jac=jac)
    for variable, expected in [(a, [4, 16]), (b, [36]), (c, [100, 196])]:
        np.testing.assert_array_equal(opt.get_slot(variable, "rms").numpy(), expected)


def test_keywords_are_names_not_an_order():
    width, center = np.array(2.0), np.array(-1.0)
    loss = lambda width, center: (width - 5) ** 2 + (center - 3) ** 2  # noqa: E731
    opt = RMSprop(0.1)
    for _ in range(200):
        opt.minimize(loss, {"center": center, "width": width})
    np.testing.assert_allclose([width, center], [5, 3], atol=0.1)


@pytest.mark.parametrize("as_variables", [False, True])
@pytest.mark.parametrize("jac", [False, True])
@pytest.mark.parametrize("tree", [{"heigth": 1.0}, {"width": 1.0, "heigth": 1.0}, {"width": 1.0, 3: 1.0}], ids=str)
def test_a_key_that_the_loss_does_not_take_is_refused(tree, jac, as_variables):
    tree = {key: Variable([1.0]) if as_variables else np.ones(1) for key in tree}
    before = str(tree)
    for loss in (lambda width, height: width, lambda width=1.0, height=2.0: width, lambda width: width):
        with pytest.raises(TypeError, match=r"must take the keyword arguments.*(heigth|3)") as caught:
            RMSprop().minimize(loss, tree, jac=jac)
        assert "width" in str(caught.value)
    assert str(tree) == before


def test_a_loss_without_arguments_needs_no_names():
    a, b = Variable(np.array([1.0])), Variable(np.array([2.0]))
    RMSprop().minimize(lambda: (a * b).sum(), {"x": a, "y": b})
    assert a.numpy() < 1
    assert b.numpy() < 2
    with pytest.raises(TypeError, match="must take the keyword arguments 'x'"):
        RMSprop().minimize(lambda w: w, {"x": np.ones(1)})


@pytest.mark.parametrize(
    ("loss", "variables"),
    [
        (lambda a, b: a, [np.ones(1)]),
        (lambda a: a, [np.ones(1), np.ones(1)]),
        (lambda a, b: a, [Variable([1.0])]),
        (lambda a, b: a, [np.ones(1), np.ones(1), np.ones(1)]),
        (lambda a, *, b: a, [np.ones(1)]),
        (lambda a, b: a, np.ones(2)),
    ],
)
def test_a_loss_of_the_wrong_arity_is_refused_before_it_is_called(loss, variables):
    with pytest.raises(TypeError, match="The loss <lambda>.*must take [123] positional argument") as caught:
        RMSprop().minimize(loss, variables)
    assert not getattr(caught.value, "__notes__", [])


WRONG = {
    "too few": ([1, 2], lambda a, b: (0.0, [a]), r"2 gradients .*\[array, array\].*\[array\]"),
    "too many": ([1], lambda a: (0.0, [a, a]), r"1 gradients .*\[array\].*\[array, array\]"),
    "alone": ([1, 2], lambda a, b: (0.0, a), "2 gradients"),
    "too flat": ([1, [2, 3]], lambda a, b: (0.0, [a, *b]), "3 gradients"),
    "a list for names": ({"a": 1, "b": 2}, lambda a, b: (0.0, [a, b]), "'a': array"),
    "names for a list": ([1, 2], lambda a, b: (0.0, {"a": a, "b": b}), "2 gradients"),
    "other names": ({"a": 1}, lambda a: (0.0, {"b": a}), "'b': array"),
    "a name more": ({"a": 1}, lambda a: (0.0, {"a": a, "b": a}), "'b': array"),
    "a dict for an array": ([1], lambda a: (0.0, [{"a": a}]), "1 gradients"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_number_of_gradients_is_named(name):
    tree, loss, message = WRONG[name]
    tree = (
        {key: np.ones(1) for key in tree}
        if isinstance(tree, dict)
        else [[np.ones(1) for _ in each] if isinstance(each, list) else np.ones(1) for each in tree]
    )
    for jac in (True, False):
        with pytest.raises(ValueError, match=message):
            RMSprop().minimize(loss, tree, jac=jac)


def test_one_gradient_for_one_variable_needs_no_list():
    for wrapped in (lambda w: w, lambda w: [w], lambda w: (w,), lambda w: {"w": w}):
        w = np.ones(2)
        if wrapped(w) is not w and isinstance(wrapped(w), dict):
            with pytest.raises(ValueError, match="'w'"):
                RMSprop(0.1).minimize(lambda w: (0.0, 2 * w), wrapped(w), jac=True)
            continue
        RMSprop(0.1).minimize(lambda w: (0.0, 2 * w), wrapped(w), jac=True)
        np.testing.assert_allclose(w, 1 - 0.1 / np.sqrt(0.1), rtol=1e-6)


def test_gradients_may_be_lists_of_numbers_or_sparse():
    a, b = np.ones(2), np.ones((3, 2))
    opt = RMSprop(rho=0.0)
    opt.minimize(lambda a, b: (0.0, [[2.0, 3.0], IndexedSlices(np.ones((1, 2)), [1])]), [a, b], jac=True)
    np.testing.assert_array_equal(opt.get_slot(a, "rms").numpy(), [4, 9])
    np.testing.assert_array_equal(opt.get_slot(b, "rms").numpy()[:, 0], [0, 1, 0])


def test_a_callable_may_return_any_structure_of_variables():
    a, b = Variable(np.ones(1)), Variable(np.ones(1))
    for tree in ({"b": b, "a": a}, [a, [b]], (v for v in [a, b])):
        a.assign([2.0]), b.assign([5.0])
        opt = RMSprop(rho=0.0)
        opt.minimize(lambda: (a * b).sum(), lambda tree=tree: tree)
        assert opt.get_slot(a, "rms").numpy() == 25
        assert opt.get_slot(b, "rms").numpy() == 4


def test_gradients_of_sources_have_their_structure(make):
    a, b, c = map(Variable, leaves())
    with make() as tape:
        loss = a.sum() + b.sum()
    gradients = tape.gradient(loss, {"x": (a, [b]), "y": Pair(b, c)})
    assert isinstance(gradients["x"], tuple)
    assert isinstance(gradients["x"][1], list)
    assert isinstance(gradients["y"], Pair)
    assert gradients["y"].second is None


def test_a_missing_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match="PyTorch.*pip install torch") as caught:
        TorchTape()
    assert caught.value.name == "torch"


def test_the_number_of_steps_is_an_integer_to_all():
    opt, w = RMSprop(), np.ones(2)
    step = opt.minimize(lambda w: anp.sum(w**2), [w])
    assert (int(step), f"{opt.iterations:d}", f"{step:03d}", f"{step}") == (1, "1", "001", str(step))


JAX = "JAX is in the extra 'interop'"


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("transformation", ["jit", "grad", "vmap", "value_and_grad", "make_jaxpr"])
@pytest.mark.parametrize("kwargs", [{}, {"clipnorm": 1.0}, {"nonfinite": "skip"}, {"momentum": 0.9}], ids=str)
@pytest.mark.filterwarnings("default")
def test_a_step_inside_of_a_transformation_of_jax_is_refused(transformation, kwargs, is_built):
    jax = pytest.importorskip("jax", reason=JAX)
    v, opt = Variable(jax.numpy.ones(3), name="v"), RMSprop(**kwargs)
    if is_built:
        opt.build([v])

    def function(x):
        opt.apply_gradients([(x, v)])
        return x.sum()

    x = jax.numpy.ones((2, 3) if transformation == "vmap" else 3)
    with pytest.raises(TypeError, match="traced by jax.jit"):
        getattr(jax, transformation)(function)(x)
    assert not isinstance(v.array, jax.core.Tracer)
    assert int(opt.iterations) == 0
    opt.apply_gradients([(jax.numpy.ones(3), v)])
    assert (v.numpy() < 1).all()


@pytest.mark.parametrize("before", ["nothing", "built", "stepped"])
def test_a_step_by_constants_inside_of_jit_is_refused(before):
    jax = pytest.importorskip("jax", reason=JAX)
    v, opt, constant = Variable(jax.numpy.ones(3)), RMSprop(), jax.numpy.ones(3)
    if before == "built":
        opt.build([v])
    if before == "stepped":
        opt.apply_gradients([(constant, v)])
    with pytest.raises(TypeError, match="traced by jax.jit"):
        jax.jit(lambda x: opt.apply_gradients([(constant, v)]) and x)(constant)
    assert not isinstance(v.array, jax.core.Tracer)
    opt.apply_gradients([(constant, v)])
    assert (v.numpy() < 1).all()


def test_a_traced_value_of_jax_is_neither_assigned_nor_optimised():
    jax = pytest.importorskip("jax", reason=JAX)
    v = Variable(jax.numpy.ones(3))
    with pytest.raises(TypeError, match="can't be assigned a value traced by jax.jit"):
        jax.jit(lambda x: v.assign(x) and x)(v.array)
    with pytest.raises(TypeError, match="traced by jax.jit"):
        jax.jit(lambda x: RMSprop().apply_gradients([(x, Variable.around(x))]) and x)(v.array)


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("transformation", ["vmap", "grad", "both"])
def test_a_step_inside_of_a_transformation_of_torch_is_refused(transformation, is_built):
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
    transform = getattr(torch.func, transformation, lambda function: torch.func.vmap(torch.func.grad(function)))
    v, opt = Variable(torch.ones(3)), RMSprop()
    if is_built:
        opt.build([v])
    x = torch.ones(3) if transformation == "grad" else torch.ones(2, 3)
    with pytest.raises(TypeError, match="traced by torch.vmap"):
        transform(lambda x: (opt.apply_gradients([(x, v)]), x.sum())[1])(x)
    assert not torch._C._functorch.is_functorch_wrapped_tensor(v.array)
    assert int(opt.iterations) == 0
    opt.apply_gradients([(torch.ones(3), v)])
    assert (v.numpy() < 1).all()


def test_annotations_say_that_a_step_is_a_number():
    """Type checkers take ``int(step)`` for right only if its None is not in the type."""
    import typing

    for function in (RMSprop.apply_gradients, RMSprop.minimize):
        assert type(None) not in typing.get_args(
            typing.get_type_hints(function, vars(rmsprop.optimizer))["return"]
        )
