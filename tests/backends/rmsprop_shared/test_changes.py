"""Tensors that change between steps, and steps as PyTorch's gradients see them."""

import gc
import sys
from functools import partial

import numpy as np
import pytest

from rmsprop import RMSprop, Variable

torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")

STEPS = pytest.mark.parametrize("before", [0, 1, 3])
"""Steps that were taken before: what is kept of them must not be trusted."""
WRAPS = pytest.mark.parametrize("wrap", [torch.nn.Parameter, lambda t: t, Variable.around])


def stepped(wrap, before, numbers=None, **options):
    """Return an optimizer after some steps, and two variables."""
    start = torch.arange(1.0, 101.0).reshape(10, 10) if numbers is None else numbers
    variables = [wrap(start.clone()), wrap(torch.ones(3))]
    opt = RMSprop(0.1, **options)
    for _ in range(before):
        opt.apply_gradients(ones(*variables))
    return opt, *variables


def ones(*variables):
    return [(torch.ones(tuple(v.shape), dtype=v.dtype), v) for v in variables]


def tensor_of(variable):
    return variable.array if isinstance(variable, Variable) else variable


def assert_unchanged(opt, variables, action, error, match):
    kept = [tensor_of(v).detach().clone() for v in variables]
    weights, count = opt.get_weights(), int(opt.iterations)
    with pytest.raises(error, match=match):
        action()
    assert int(opt.iterations) == count
    assert all(torch.equal(a, tensor_of(b).detach()) for a, b in zip(kept, variables, strict=True))
    for a, b in zip(weights, opt.get_weights(), strict=False):
        np.testing.assert_array_equal(a, b)


@WRAPS
@STEPS
def test_fewer_elements_in_the_same_memory_are_noticed(wrap, before):
    opt, x, y = stepped(wrap, max(before, 1))
    t = tensor_of(x)
    whole = t.data
    t.data = t.data[:5]
    assert t.data_ptr() == whole.data_ptr()
    assert_unchanged(opt, [y], lambda: opt.apply_gradients(ones(x, y)), ValueError, "shape and dtype were")
    assert_unchanged(
        opt, [y], lambda: opt.apply_gradients([(torch.ones(10, 10), x), ones(y)[0]]), ValueError, "shape"
    )
    t.data = whole
    opt.apply_gradients(ones(x, y))


@WRAPS
@STEPS
def test_another_order_in_the_same_memory_is_followed(wrap, before):
    opt, x, y = stepped(wrap, before)
    array, other = tensor_of(x).detach().numpy().copy(), RMSprop(0.1)
    twin = np.arange(1.0, 101.0, dtype=np.float32).reshape(10, 10)
    for _ in range(before):
        other.apply_gradients([(np.ones((10, 10), np.float32), twin)])
    t = tensor_of(x)
    t.data = t.data.T  # of the same memory and shape
    twin[...] = array.T
    g = torch.arange(100.0).reshape(10, 10)
    for _ in range(3):
        opt.apply_gradients([(g, x), *ones(y)])
        other.apply_gradients([(g.numpy(), twin)])
    np.testing.assert_array_equal(t.detach().numpy(), twin)
    assert t.stride() == (1, 10)


@WRAPS
@STEPS
def test_other_memory_is_written_to_and_the_former_left_alone(wrap, before):
    opt, x, y = stepped(wrap, before)
    t = tensor_of(x)
    former, value = t.data, t.data.clone()
    t.data = torch.full((10, 10), 7.0)
    for _ in range(3):
        opt.apply_gradients(ones(x, y))
    assert torch.equal(former, value)
    assert (t < 7).all()
    t.data = torch.full((10, 10), 5.0)
    del former
    gc.collect()
    newcomer = torch.full((10, 10), 3.0)  # perhaps where the former was
    opt.apply_gradients([*ones(x, y), (torch.ones(10, 10), newcomer)])
    assert (t < 5).all()
    assert len(opt.get_weights()) == 4


@WRAPS
def test_another_dtype_is_refused(wrap):
    opt, x, y = stepped(wrap, 3)
    tensor_of(x).data = tensor_of(x).data.double()
    assert_unchanged(opt, [x, y], lambda: opt.apply_gradients(ones(x, y)), ValueError, "shape and dtype were")


@pytest.mark.parametrize("before", [1, 3])
def test_variables_that_come_to_share_memory_are_refused(before):
    opt, x, y = stepped(torch.nn.Parameter, before, torch.ones(3))
    y.data = x.data[:]
    assert_unchanged(opt, [x, y], lambda: opt.apply_gradients(ones(x, y)), ValueError, "share memory since one")
    y.data = torch.ones(1).expand(3)
    assert_unchanged(opt, [x, y], lambda: opt.apply_gradients(ones(x, y)), ValueError, "with each other")
    y.data = torch.ones(3)
    opt.apply_gradients(ones(x, y))


ODD_GRADIENTS = {
    "gaps": torch.arange(200.0).reshape(10, 20)[:, ::2],
    "transposed": torch.arange(100.0).reshape(10, 10).T,
    "expanded": torch.tensor(2.0).expand(10, 10),
    "double": torch.arange(100.0, dtype=torch.float64).reshape(10, 10),
    "half": torch.ones(10, 10, dtype=torch.bfloat16),
    "followed": torch.ones(10, 10, requires_grad=True) * 3,
    "a parameter": torch.nn.Parameter(torch.ones(10, 10)),
    "between bytes": None,
}


@STEPS
@pytest.mark.parametrize("kind", ODD_GRADIENTS)
def test_gradients_of_every_kind_are_taken_for_their_numbers(kind, before):
    opt, x, y = stepped(torch.nn.Parameter, before)
    odd, other = ODD_GRADIENTS[kind], RMSprop(0.1)
    if kind == "between bytes":
        numbers = np.arange(100, dtype=np.float32)
        memory = np.zeros(401, np.uint8)
        memory[1:] = numbers.view(np.uint8)
        odd = torch.from_numpy(memory[1:].view(np.float32)).reshape(10, 10)
        assert odd.data_ptr() % 4
    array = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
    for step in range(before + 2):
        g = np.ones((10, 10), np.float32) if step < before else odd.detach().float().numpy()
        other.apply_gradients([(g, array)])
    for _ in range(2):
        opt.apply_gradients([(odd, x), *ones(y)])
    np.testing.assert_array_equal(x.detach().numpy(), array)


BAD_GRADIENTS = {
    "fewer": (lambda: torch.ones(5, 10), ValueError),
    "flat": (lambda: torch.ones(100), ValueError),
    "complex": (lambda: torch.ones(10, 10, dtype=torch.complex64), TypeError),
    "integers": (lambda: torch.ones(10, 10, dtype=torch.int32), TypeError),
    "sparse elements": (lambda: torch.eye(10).to_sparse(), TypeError),
    "sparse rows compressed": (lambda: torch.eye(10).to_sparse_csr(), TypeError),
    "of another layout": (lambda: torch.eye(10).to_mkldnn(), TypeError),
    "of NumPy": (lambda: np.ones((10, 10), np.float32), TypeError),
    "on another device": (lambda: torch.ones(10, 10, device="meta"), ValueError),
    "without memory": (lambda: torch._efficientzerotensor(10, 10), None),
    "no array": (lambda: "x", TypeError),
}


@STEPS
@pytest.mark.parametrize("kind", BAD_GRADIENTS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_gradients_that_are_none_of_the_variables_are_refused(kind, before):
    make, error = BAD_GRADIENTS[kind]
    for wrap in (torch.nn.Parameter, lambda t: t):
        bad = make()
        opt, x, y = stepped(wrap, before)
        if error is None:
            opt.apply_gradients([(bad, x), *ones(y)])
            assert int(opt.iterations) == before + 1
        else:
            pairs = [(bad, x), *ones(y)]  # in the order of the steps before
            assert_unchanged(opt, [x, y], partial(opt.apply_gradients, pairs), error, "variable 0")


@STEPS
@pytest.mark.parametrize("wrap", [torch.nn.Parameter, lambda t: t.requires_grad_()])
def test_a_step_is_not_recorded_but_backward_through_an_older_graph_is_refused(wrap, before):
    opt, x, y = stepped(wrap, before)
    loss, linear = (x * x).sum(), x.sum()
    opt.apply_gradients(ones(x, y))
    assert x.is_leaf
    assert x.requires_grad
    assert x.grad_fn is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    linear.backward()  # does not need the value
    assert (x.grad == 1).all()


@STEPS
def test_a_step_that_is_left_out_changes_no_version(before):
    opt, x, y = stepped(torch.nn.Parameter, before, nonfinite="skip", clipnorm=1.0)
    loss = (x * x).sum()
    opt.apply_gradients([(torch.full((10, 10), float("nan")), x), *ones(y)])
    assert opt.skipped == 1
    loss.backward()


def test_assignments_slots_and_averages_are_not_recorded_either():
    x = torch.nn.Parameter(torch.ones(3))
    v, opt = Variable.around(x), RMSprop(0.1, use_ema=True, ema_momentum=0.5, momentum=0.9, accumulate=2)
    loss = (x * x).sum()
    v.assign([1.0, 2.0, 3.0]).assign_add([1.0, 1.0, 1.0])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    for _ in range(4):
        opt.apply_gradients([(torch.ones(3, requires_grad=True) * 2, x)])
    with opt.swapped():
        assert x.grad_fn is None
    opt.set_weights(opt.get_weights())
    assert not any(opt.get_slot(x, name).array.requires_grad for name in opt.get_slot_names())
    assert x.is_leaf


def test_steps_in_inference_mode_go_on_outside():
    x, array = torch.nn.Parameter(torch.ones(3)), np.ones(3, np.float32)
    opt, other = RMSprop(0.1, momentum=0.9), RMSprop(0.1, momentum=0.9)
    for k in range(4):
        with torch.inference_mode(k % 2 == 0):
            opt.apply_gradients([(torch.ones(3), x)])
        other.apply_gradients([(np.ones(3, np.float32), array)])
    np.testing.assert_array_equal(x.detach().numpy(), array)
    assert not opt.get_slot(x, "rms").array.is_inference()


class Subclass(torch.Tensor):
    pass


def inferred():
    with torch.inference_mode():
        return torch.ones(2)


REFUSED = {
    "computed from others": lambda: torch.ones(2, requires_grad=True) * 2,
    "Subclass": lambda: torch.ones(2).as_subclass(Subclass),
    "to_dense": lambda: torch.eye(2).to_sparse(),
    "resolve_conj": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "negative": lambda: torch._neg_view(torch.ones(2)),
    "inference mode": inferred,
    "can't be optimised": lambda: torch.ones(2, dtype=torch.int64),
    "no memory": lambda: torch._efficientzerotensor(2),
    "Variable": lambda: torch.ones(2, device="meta"),
    "each other": lambda: torch.ones(1).expand(2),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_tensors_that_cannot_be_updated_in_their_memory_are_refused(reason):
    y, bad, opt = torch.ones(3), REFUSED[reason](), RMSprop(0.1)
    shape = tuple(bad.shape)
    pairs = [*ones(y), (torch.ones(shape, dtype=bad.dtype), bad)]
    with pytest.raises((TypeError, ValueError), match=reason):
        opt.apply_gradients(pairs)
    assert (y == 1).all()
    assert int(opt.iterations) == 0


def test_a_steady_step_takes_few_calls_in_python():
    opt, x, y = stepped(torch.nn.Parameter, 3)
    pairs, calls = ones(x, y), []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        opt.apply_gradients(pairs)
    finally:
        sys.setprofile(None)
    assert len(calls) <= 30, calls
