"""Differentiation of arrays by PyTorch, in their own memory."""

import sys

import array_api_strict
import autograd.numpy as anp
import ml_dtypes
import numpy as np
import pytest

from rmsprop import GradientTape, IndexedSlices, RMSprop, TorchTape, Variable

torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")

DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64", "complex64", "complex128"]
LAYOUTS = {
    "C": lambda a: a,
    "Fortran": np.asfortranarray,
    "transposed": lambda a: a.T,
    "with gaps": lambda a: a.repeat(2, 1)[:, ::2],
    "reversed": lambda a: a[::-1, ::-1],
    "between bytes": lambda a: field_of_a_record(a),
    "midst of a file": lambda a: moved(a, 8),
    "0-d": lambda a: a[0, 0:1].reshape(()),
    "empty": lambda a: a[:0],
}


def moved(a, offset):
    copy = np.zeros(a.nbytes + offset, np.uint8)[offset:].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def field_of_a_record(a):
    records = np.zeros(a.shape, [("flag", "i1"), ("number", a.dtype)])
    records["number"] = a
    return records["number"]


def numbers(dtype, layout="C"):
    return LAYOUTS[layout](np.array([[1, -2, 3], [0.5, 4, -1]]).astype(dtype))


def gradient(loss, x, **kwargs):
    with TorchTape() as tape:
        value = loss(tape.watch(x))
    return tape.gradient(value, x, **kwargs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_dtypes_and_layouts_are_differentiated(dtype, layout):
    x = numbers(dtype, layout)
    g = gradient(lambda t: (t * t.clone().conj()).real.sum(), x)
    assert type(g) is np.ndarray
    assert g.dtype == x.dtype
    np.testing.assert_array_equal(g, 2 * x)


@pytest.mark.parametrize("layout", ["C", "Fortran", "transposed", "with gaps", "0-d"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_is_copied_there_or_back(dtype, layout):
    x, seen = numbers(dtype, layout), []
    with TorchTape() as tape:
        t = tape.watch(x)
        t.register_hook(seen.append)
        loss = (t * t.conj()).real.sum()
    g = tape.gradient(loss, x)
    assert t.data_ptr() == x.ctypes.data
    assert seen[0].data_ptr() == g.ctypes.data
    assert g.flags.writeable


def test_arrays_that_only_read_are_viewed():
    x = numbers("float64")
    x.flags.writeable = False
    with TorchTape() as tape:
        assert tape.watch(x).data_ptr() == x.ctypes.data


@pytest.mark.parametrize(
    "loss",
    [
        lambda t, lib: lib.sum(lib.abs(t) ** 2),
        lambda t, lib: lib.sum(lib.real(t * t)),
        lambda t, lib: lib.sum(lib.imag(t * (2 + 1j)) ** 3),
        lambda t, lib: lib.sum(lib.abs(lib.fft.fft2(t)) ** 4),
    ],
)
def test_complex_gradients_are_those_of_the_gradient_tape(loss):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
    with GradientTape() as tape:
        value = loss(tape.watch(x), anp)
    np.testing.assert_allclose(gradient(lambda t: loss(t, torch), x), tape.gradient(value, x), rtol=1e-12)


def test_minimize_of_plain_arrays_follows_the_gradient_tape():
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((5, 3)), rng.standard_normal(5)
    x, y, ours, theirs = np.zeros(3), np.zeros(3), RMSprop(0.1), RMSprop(0.1)
    tape = TorchTape()
    for _ in range(100):
        ours.minimize(lambda t: anp.sum((A @ t - b) ** 2), [x])
        theirs.minimize(lambda t: ((torch.from_numpy(A) @ t - torch.from_numpy(b)) ** 2).sum(), [y], tape=tape)
    np.testing.assert_allclose(y, x, rtol=1e-9)


def test_training_converges():
    truth = np.array([1 + 2j, -1j])
    z, w = np.zeros(2, complex), Variable(np.zeros(2))
    opt = RMSprop(0.05)
    for _ in range(200):
        opt.minimize(
            lambda z, w: (z - torch.from_numpy(truth)).abs().square().sum() + (w - 3).square().sum(),
            [z, w],
            tape=TorchTape(),
        )
    np.testing.assert_allclose(z, truth, atol=0.1)
    np.testing.assert_allclose(w.numpy(), 3, atol=0.1)


def test_variables_are_tensors_in_a_loss_without_arguments():
    v, fixed = Variable([1.0, 2.0]), Variable([3.0, 5.0], trainable=False)
    for loss in [
        lambda: (v**2 * fixed).sum(),
        lambda: torch.sum(v.value.square() * fixed),
        lambda: [v * v * fixed],
    ]:
        for sources in ([v], lambda: [v]):
            v.assign([1.0, 2.0])
            opt = RMSprop(rho=0.0)
            opt.minimize(loss, sources, tape=TorchTape())
            np.testing.assert_array_equal(opt.get_slot(v, "rms").numpy(), [36, 400])


def test_no_operator_loses_the_gradient_of_a_variable():
    x, y, s = Variable([1.0, 2.0]), Variable([3.0, 5.0]), Variable(2.0)
    losses = [lambda: (x * s) * y, lambda: y * (s * x), lambda: (2 * x) * (s / 2) * y, lambda: (1 * y) * x * s]
    for loss in losses:
        with TorchTape() as tape:
            value = loss()
        dx, dy, ds = tape.gradient(value, (x, y, s))
        np.testing.assert_allclose(dx, [6, 10])
        np.testing.assert_allclose(dy, [2, 4])
        np.testing.assert_allclose(ds, 13)


def test_numpy_functions_of_variables_are_refused_not_taken_for_constants():
    v = Variable([1.0, 2.0])
    with TorchTape():
        for function in (np.exp, np.asarray, np.sum, np.linalg.norm):
            with pytest.raises((TypeError, RuntimeError)):
                float(function(v)[0])


def test_watching_decides_what_is_followed():
    a, b = Variable([2.0]), Variable([3.0])
    with TorchTape(watch_accessed_variables=False) as tape:
        tape.watch(b)
        loss = a * b
    assert tape.gradient(loss, {"a": a, "b": [b]}) == {"a": None, "b": [[2]]}
    assert tape.gradient(b, b) == 1


def test_what_a_target_does_not_depend_on_has_no_gradient():
    x, y = np.ones(2), np.ones(2)
    with TorchTape() as tape:
        loss = tape.watch(x).sum()
        tape.watch(y)
    assert tape.gradient(loss, [y, (np.ones(1),)]) == [None, (None,)]
    assert tape.gradient(3.0, x) is None
    assert tape.gradient(loss, []) == []
    with pytest.raises(ValueError, match="No gradients provided"):
        RMSprop().minimize(loss, [y], tape=tape)


@pytest.mark.parametrize("convert", [list, np.asarray, torch.tensor, lambda w: Variable(w)])
def test_output_gradients_weight_the_elements_of_the_target(convert):
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(gradient(lambda t: t * t, x), [2, 4])
    np.testing.assert_array_equal(gradient(lambda t: t * t, x, output_gradients=convert([2.0, 0.0])), [4, 0])
    with pytest.raises(ValueError, match=r"output_gradients has shape \(1,\), not \(2,\)"):
        gradient(lambda t: t * t, x, output_gradients=convert([1.0]))


def test_targets_in_a_list_are_summed():
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(gradient(lambda t: [t.sum(), [2 * t], 7.0], x), [3, 3])


def test_gradients_share_no_memory():
    x, y, w = np.ones(2), np.ones(2), np.ones(2)
    with TorchTape() as tape:
        loss = tape.watch(x) + tape.watch(y)
        total = loss.sum()
    for target, weights in [(loss, None), (loss, w), (total, None)]:
        dx, dy = tape.gradient(target, [x, y], weights)
        dx *= 0
        np.testing.assert_array_equal(dy, [1, 1])
        np.testing.assert_array_equal(w, [1, 1])
        assert 0 not in dy.strides


def embedding(t):
    rows = torch.nn.functional.embedding(torch.tensor([3, 1, 3]), t, sparse=True)
    return (rows * rows).sum()


@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16], ids=str)
def test_sparse_gradients_are_indexed_slices(dtype):
    table, dense = np.full((5, 2), 2, dtype), np.full((5, 2), 2, dtype)
    g = gradient(embedding, table)
    assert isinstance(g, IndexedSlices)
    assert g.dense_shape == (5, 2)
    assert (g.values.dtype, g.values.shape) == (table.dtype, (3, 2))
    np.testing.assert_array_equal(g.indices, [3, 1, 3])
    RMSprop(0.1).minimize(embedding, [table], tape=TorchTape())
    RMSprop(0.1).minimize(lambda t: t[[3, 1, 3]].square().sum(), [dense], tape=TorchTape())
    np.testing.assert_array_equal(table, dense)
    assert (table[[0, 2, 4]] == 2).all()


def test_sparse_and_dense_uses_of_one_table_are_summed():
    table = np.full((5, 2), 2.0)
    g = gradient(lambda t: embedding(t) + t.sum(), table)
    np.testing.assert_array_equal(g[:, 0], [1, 5, 1, 9, 1])


@pytest.mark.parametrize("bad", [np.ones(2, int), np.ones(2, ">f8"), [1.0], "x"], ids=str)
def test_what_cannot_be_differentiated_is_named(bad):
    with TorchTape() as tape, pytest.raises(TypeError, match="PyTorch"):
        tape.watch(bad)
    v = Variable([1, 2], name="counts")
    with TorchTape() as tape, pytest.raises(TypeError, match="'counts', int64"):
        tape.watch(v)


def test_tapes_are_neither_nested_nor_watched_from_outside():
    with TorchTape() as tape, pytest.raises(RuntimeError, match="nested"), GradientTape():
        pass
    with pytest.raises(RuntimeError, match="with"):
        tape.watch(np.ones(1))
    v = Variable([2.0])
    with tape, pytest.raises(RuntimeError, match="nested"):
        RMSprop().minimize(lambda: v * v, [v], tape=TorchTape())


@pytest.mark.parametrize("change", ["step", "assignment"])
def test_a_gradient_that_needs_values_from_before_a_change_is_refused(change):
    v, opt = Variable([2.0, 1.0]), RMSprop(0.1)
    with TorchTape() as tape:
        square, linear = v * v, 3 * v
    opt.apply_gradients([(np.ones(2), v)]) if change == "step" else v.assign([5.0, 5.0])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        tape.gradient(square, v)
    np.testing.assert_array_equal(tape.gradient(linear, v), [3, 3])


def test_a_step_on_a_plain_array_is_noticed_too():
    x, y = np.ones(2), np.ones(2)
    with TorchTape() as tape:
        one, two = tape.watch(x).square(), tape.watch(y).square()
    RMSprop().minimize(one, [x], tape=tape)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        tape.gradient(one, x)
    np.testing.assert_array_equal(tape.gradient(two, y), [2, 2])


def test_assignment_inside_of_a_tape_counts_from_there_on():
    v = Variable([2.0])
    with TorchTape() as tape:
        before = 2 * v
        v.assign_add([1.0])
        after = v**2
    assert tape.gradient(after, v) == 6
    assert tape.gradient([before, after], v) == 8


def test_an_immutable_array_keeps_its_former_values():
    v = Variable(array_api_strict.ones(2))
    with TorchTape() as tape:
        square = v * v
    RMSprop(0.1).apply_gradients([(array_api_strict.ones(2), v)])
    np.testing.assert_array_equal(np.asarray(tape.gradient(square, v)), [2, 2])


def test_layouts_of_other_libraries_are_safe():
    x = array_api_strict.flip(array_api_strict.asarray([1.0, 2.0]))
    g = gradient(lambda t: t * t, x)
    assert type(g) is type(x)
    np.testing.assert_array_equal(np.asarray(g), [4, 2])


def test_tensors_are_differentiated_without_touching_theirs():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    g = gradient(lambda t: (t * t).sum(), x)
    assert isinstance(g, torch.Tensor)
    assert g.tolist() == [2, 4]
    assert x.grad is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_jax_arrays_are_trained_in_a_variable(dtype):
    jnp = pytest.importorskip("jax.numpy", reason="JAX is in the extra 'interop'")
    v, twin = Variable(jnp.ones((2, 3), dtype)), Variable(jnp.ones((2, 3), dtype))
    with TorchTape() as tape:
        assert tape.watch(v).data_ptr() == v.array.unsafe_buffer_pointer()
        assert tape.gradient(v.value.T.real.sum(), v).dtype == dtype
    RMSprop(0.1).minimize(lambda t: t.abs().square().sum(), [v], tape=tape)
    RMSprop(0.1).apply_gradients([(2 * twin.array, twin)])
    np.testing.assert_array_equal(v.numpy(), twin.numpy())


def test_dask_arrays_are_refused_with_their_name():
    da = pytest.importorskip("dask.array", reason="Dask is in the extra 'interop'")
    v = Variable(da.ones(2), name="lazy")
    with TorchTape() as tape, pytest.raises(TypeError, match="PyTorch can't view .*'lazy'"):
        tape.watch(v)


def test_a_gradient_of_torch_by_conjugation_or_negation_is_resolved():
    z = np.array([1 + 2j, 3j])
    np.testing.assert_array_equal(gradient(lambda t: (t * t).imag.sum(), z), 2j * z.conj())
    weights = torch.tensor([1j, 2.0]).conj().imag  # a negated view
    np.testing.assert_array_equal(gradient(lambda t: t.real, z, output_gradients=weights), [-1, 0])


def test_second_derivatives_are_taken_in_the_loss():
    def loss(t):
        (slope,) = torch.autograd.grad((t**3).sum(), t, create_graph=True)
        return (slope**2).sum()

    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(gradient(loss, x), 36 * x**3)


def test_a_tape_that_is_gone_is_told_nothing():
    from rmsprop.variables.observers import tapes

    with TorchTape() as tape:
        pass
    assert tapes[id(tape)]() is tape
    number = id(tape)
    del tape
    assert number not in tapes


def test_cupy_arrays_are_differentiated_in_their_memory():
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not torch.cuda.is_available() or "gpusim" in sys.modules:
        pytest.skip("PyTorch sees no CUDA device")
    for dtype in DTYPES:
        x = cupy.asarray(numbers(np.float32)).astype(dtype)
        with TorchTape() as tape:
            t = tape.watch(x)
            loss = (t * t.conj()).real.sum()
        g = tape.gradient(loss, x)
        assert t.data_ptr() == x.data.ptr
        assert isinstance(g, cupy.ndarray)
        assert g.dtype == x.dtype
        np.testing.assert_array_equal(g.get(), 2 * x.get())
        RMSprop(0.1).minimize(loss, [x], tape=tape)
    np.testing.assert_array_equal(gradient(lambda t: t.square().sum(), x[::-1]).get(), 2 * x[::-1].get())
