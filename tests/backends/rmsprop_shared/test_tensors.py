"""Tensors of PyTorch on the CPU: the bits of NumPy, in the tensors' own memory, in every layout."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmsprop import IndexedSlices, RMSprop, Variable
from rmsprop.arrays.libraries import to_numpy
from rmsprop.backends import backend_of

torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")

from rmsprop_shared import exchange  # noqa: E402 (it compiles, and is for those who have PyTorch)

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (1, 4, 1), (129, 131)]
SETTINGS = [
    {},
    {"momentum": 0.9, "centered": True, "clipvalue": 0.5, "global_clipnorm": 1.0},
    {"clipnorm": 0.5, "weight_decay": 0.1, "nesterov": True, "momentum": 0.5, "use_ema": True},
    {"complex_as_real": True, "bias_correction": True, "nonfinite": "skip", "centered": True},
]
LAYOUTS = {
    "C": lambda x: x,
    "transposed": lambda x: x.T,
    "with gaps": lambda x: x[..., ::2] if x.ndim else x,
    "last rows": lambda x: x[1:] if x.ndim else x,
    "axis of one": lambda x: x[:1] if x.ndim else x,
}


def tensor(array):
    """Return a tensor of its own with the numbers of an array of NumPy."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def bytes_of(array):
    if isinstance(array, torch.Tensor):
        array = array.detach().contiguous()
        array = array.view(torch.int16).numpy() if array.dtype is torch.bfloat16 else array.numpy()
    return np.ascontiguousarray(array).tobytes()


def drawn(rng, dtype, shape):
    numbers = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if "complex" in dtype else 0)
    return np.asarray(numbers).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def slots_of(optimizer, variables):
    return [optimizer.get_slot(v, name).array for name in optimizer.get_slot_names() for v in variables]


def assert_same_bits(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert bytes_of(a) == bytes_of(b)


def pair_of(dtype, layout, shapes, seed):
    """Return the same numbers in NumPy and in tensors, and what they are views of."""
    rng = np.random.default_rng(seed)
    wholes = [drawn(rng, dtype, shape) for shape in shapes]
    tensors = [tensor(whole) for whole in wholes]
    view = LAYOUTS[layout]
    return [view(whole) for whole in wholes], [view(whole) for whole in tensors], wholes, tensors


@pytest.mark.filterwarnings("ignore:The use of `x.T` on tensors of dimension other than 2")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_have_the_bits_of_numpy(dtype, options, layout):
    shapes = [shape for shape in SHAPES if layout != "transposed" or len(shape) == 2]
    arrays, tensors, wholes, memory = pair_of(dtype, layout, shapes, 0)
    ours, theirs = RMSprop(0.05, **options), RMSprop(0.05, **options)
    for step in range(4):
        for given_layout in ("C", layout):
            gs, ts, _, _ = pair_of(dtype, given_layout, [a.shape for a in arrays], 1 + step)
            if any(g.shape != a.shape for g, a in zip(gs, arrays, strict=True)):
                continue
            ours.apply_gradients(zip(ts, tensors, strict=True))
            theirs.apply_gradients(zip(gs, arrays, strict=True))
    assert_same_bits(memory, wholes)  # also between the elements
    assert_same_bits(slots_of(ours, tensors), slots_of(theirs, arrays))
    assert all([type(slot) is torch.Tensor for slot in slots_of(ours, tensors)])
    assert_same_bits(ours.get_weights(), [to_numpy(w.array) for w in ours.weights])


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    steps=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    given_steps=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    dtype=st.sampled_from(DTYPES),
)
def test_any_strides_are_followed_and_nothing_else_is_written_to(shape, order, steps, given_steps, dtype):
    def views(library_steps, seed):
        axes = list(range(len(shape)))
        order.shuffle(axes)
        whole = drawn(np.random.default_rng(seed), dtype, [shape[a] * library_steps[a] + 1 for a in axes])
        back = [axes.index(k) for k in range(len(shape))]
        parts = tuple(slice(1, 1 + shape[a] * library_steps[a], library_steps[a]) for a in axes)
        copy = tensor(whole)
        return whole, copy, whole[parts].transpose(back), copy[parts].permute(back)

    whole, copy, array, ours = views(steps, 0)
    opt, other = RMSprop(0.1, momentum=0.9), RMSprop(0.1, momentum=0.9)
    for seed in range(3):
        before, kept, g, t = views(given_steps, 1 + seed)
        other.apply_gradients([(g, array)])
        opt.apply_gradients([(t, ours)])
        assert bytes_of(kept) == bytes_of(before)
    assert bytes_of(copy) == bytes_of(whole)


def test_large_tensors_have_the_bits_of_numpy_in_threads():
    rng = np.random.default_rng(0)
    arrays = [drawn(rng, "float32", n) for n in (300_001, 5, 1_000)]
    tensors = [tensor(a) for a in arrays]
    ours, theirs = (RMSprop(0.1, momentum=0.9, global_clipnorm=1.0) for _ in range(2))
    for _ in range(3):
        gradients = [drawn(rng, "float32", a.shape) for a in arrays]
        ours.apply_gradients([(tensor(g), v) for g, v in zip(gradients, tensors, strict=True)])
        theirs.apply_gradients(zip(gradients, arrays, strict=True))
    assert_same_bits(tensors, arrays)


@pytest.mark.parametrize("wrap", [torch.nn.Parameter, Variable.around, lambda t: t])
def test_a_step_that_repeats_the_one_before_is_replayed(monkeypatch, wrap):
    if exchange.function_of(torch.Tensor) is None:
        pytest.skip("this PyTorch has no C functions of DLPack")
    opt, variables = RMSprop(0.1), [wrap(torch.ones(shape)) for shape in [(3,), (), (2, 2), (0,)]]
    for _ in range(2):
        opt.apply_gradients([(torch.ones(tuple(v.shape)), v) for v in variables])
    monkeypatch.setattr("rmsprop.step.gradients.pairs", lambda given: pytest.fail("checked in Python"))
    opt.apply_gradients([(torch.ones(tuple(v.shape)), v) for v in variables])
    assert int(opt.iterations) == 3


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_without_the_c_functions_of_dlpack_steps_have_the_same_bits(monkeypatch, options):
    results = []
    for has_functions in (True, False):
        with monkeypatch.context() as patch:
            if not has_functions:
                patch.setattr(exchange, "function_of", lambda kind: None)
            rng = np.random.default_rng(0)
            tensors, opt = [tensor(drawn(rng, "float32", s)) for s in SHAPES], RMSprop(0.1, **options)
            for _ in range(4):
                opt.apply_gradients([(tensor(drawn(rng, "float32", t.shape)), t) for t in tensors])
            results.append([*tensors, *slots_of(opt, tensors)])
    assert_same_bits(*results)


def test_a_sparse_gradient_of_an_embedding_lists_rows():
    tables = [torch.nn.Embedding(6, 3, sparse=is_sparse) for is_sparse in (True, False)]
    array = np.ones((6, 3), np.float32)
    rows = torch.tensor([4, 1, 4])
    opt, other = RMSprop(0.1, momentum=0.9), RMSprop(0.1, momentum=0.9)
    table = tables[0].weight
    with torch.no_grad():
        table[...] = 1
    for _ in range(3):
        table.grad = None
        tables[0](rows).square().sum().backward()
        assert table.grad.is_sparse
        values = 2 * array[rows.numpy()]
        opt.apply_gradients([(table.grad, table)])
        other.apply_gradients([(IndexedSlices(values, rows.numpy()), array)])
    assert bytes_of(table) == array.tobytes()
    assert (array[0] == 1).all()
    plain = torch.ones(6, 3)
    RMSprop(0.1, momentum=0.9).apply_gradients([(torch.eye(6, 3).to_sparse(1), plain)])
    assert (plain[3:] == 1).all()
    assert plain[0, 0] < 1


def test_gradients_that_are_lazily_conjugate_or_negative_are_taken_as_what_they_stand_for():
    z, real = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex128), torch.tensor([1.0, 3.0]).double()
    for wrap in (torch.nn.Parameter, lambda t: t):
        x, v = wrap(torch.ones(2, dtype=torch.complex128)), wrap(torch.ones(2, dtype=torch.float64))
        array, other = np.ones(2, complex), np.ones(2)
        ours, theirs = RMSprop(0.1), RMSprop(0.1)
        for step in range(4):  # the last two repeat steps whose gradients were plain
            lazy = z.conj() if step != 1 else z.conj().resolve_conj()
            negative = torch._neg_view(real) if step != 1 else -real
            assert lazy.is_conj() == negative.is_neg() == (step != 1)
            ours.apply_gradients([(lazy, x), (negative, v)])
            theirs.apply_gradients([(z.numpy().conj(), array), (-real.numpy(), other)])
        assert_same_bits([x, v], [array, other])


def test_a_gradient_in_the_memory_of_a_variable_counts_as_it_was_before():
    for _ in range(2):
        memory = torch.arange(1.0, 9.0)
        x, y, opt, other = memory[:4], memory[4:], RMSprop(0.1), RMSprop(0.1)
        array = memory.numpy().copy()
        for step in range(4):
            ours = (y, x) if step != 1 else (y.clone(), x.clone())
            theirs = (array[4:].copy(), array[:4].copy())
            opt.apply_gradients([(ours[0], x), (ours[1], y)])
            other.apply_gradients([(theirs[0], array[:4]), (theirs[1], array[4:])])
            assert bytes_of(memory) == array.tobytes()


def test_tensors_stand_in_one_list_with_arrays_of_other_libraries():
    x, t, v = np.ones(3), torch.ones(3, dtype=torch.float64), Variable(torch.ones(3, dtype=torch.float64))
    opt = RMSprop(0.1, global_clipnorm=1.0, momentum=0.9)
    for _ in range(3):
        opt.apply_gradients([(np.ones(3), x), (torch.ones(3, dtype=torch.float64), t), (torch.ones(3), v)])
    assert_same_bits([t, v.array], [x, x])


def test_numbers_and_lists_may_be_gradients():
    t, array = torch.ones(2), np.ones(2, np.float32)
    for g in ([1.0, 2.0], torch.tensor([1.0, 2.0], dtype=torch.float64)):
        RMSprop(0.1).apply_gradients([(g, t)])
        RMSprop(0.1).apply_gradients([(np.asarray(g, np.float32), array)])
    assert_same_bits([t], [array])


def test_steps_on_arrays_of_numpy_load_no_pytorch():
    code = (
        "import sys, numpy as np, rmsprop; opt, x = rmsprop.RMSprop(), np.ones(3)\n"
        "v = rmsprop.Variable(x).assign(x + 1); opt.apply_gradients([(x.copy(), x), (x, v)])\n"
        "assert 'torch' not in sys.modules and 'rmsprop_shared' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_tensor_gets_the_backend_of_its_device():
    assert backend_of(torch.ones(1)).in_place
    assert backend_of(torch.nn.Parameter(torch.ones(1))) is backend_of(torch.ones(1))
    assert not backend_of(torch.ones(1, device="meta")).in_place
