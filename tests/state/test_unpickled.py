"""Optimizers that are unpickled have state of their own, which can be written to, whatever memory it came in."""

import copy
import mmap
import pickle

import ml_dtypes
import numpy as np
import pytest

from rmsprop import LossScale, RMSprop, Variable

SIZE = 2_000  # beyond which NumPy takes the memory of a pickle rather than a copy


def in_band(data, buffers):
    return None


def as_they_are(data, buffers):
    return buffers


def writable(data, buffers):
    return [bytearray(b) for b in buffers]


def read_only(data, buffers):
    return [bytes(b) for b in buffers]


def mapped(data, buffers):
    """Map each buffer from memory that can't be written to, as joblib does with files."""
    maps = []
    for buffer in buffers:
        raw = buffer.raw()
        file = mmap.mmap(-1, max(raw.nbytes, 1))
        file.write(raw)
        maps.append(memoryview(file).toreadonly()[: raw.nbytes])
    return maps


CARRIERS = [as_they_are, writable, read_only, mapped]
KINDS = {
    "halves": ("float16", {}),
    "bfloat16": (ml_dtypes.bfloat16, {"momentum": 0.9}),
    "doubles": ("float64", {"momentum": 0.9, "centered": True}),
    "complex": ("complex64", {"complex_as_real": True}),
    "compact, 2 bytes": ("float32", {"state_dtype": "bfloat16", "momentum": 0.9}),
    "compact, 1 byte": ("float32", {"state_dtype": "uint8", "centered": True}),
    "scaled": ("float16", {"nonfinite": "skip", "loss_scale": True}),
}


def made(kind):
    """Return an optimizer with state, a `Variable`, and a list with an array in Fortran order."""
    dtype, settings = KINDS[kind]
    if "loss_scale" in settings:
        settings = {**settings, "loss_scale": LossScale(2.0, dynamic_growth_steps=2)}
    v = Variable(np.linspace(-1, 1, SIZE).astype(dtype), name="v")
    arrays = [np.ones((SIZE // 50, 50), dtype, order="F")]
    opt = RMSprop(0.1, **settings)
    stepped(opt, v, *arrays)
    return opt, v, arrays


def stepped(opt, *variables):
    opt.apply_gradients([(np.full(v.shape, 0.5, v.dtype), v) for v in variables])


def bits(opt, v, arrays):
    scale = [] if opt.loss_scale is None else opt.loss_scale.get_weights()
    return [np.asarray(a).tobytes() for a in (v.array, *arrays, *opt.get_weights(), *scale)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_optimizers_from_the_same_buffers_share_nothing_with_each_other(carrier, kind):
    original = made(kind)
    expected, buffers = made(kind), []
    stepped(expected[0], expected[1])
    data = pickle.dumps(original[:2], protocol=5, buffer_callback=buffers.append)
    assert buffers
    buffers = carrier(data, buffers)
    before = bits(*original)
    one, other = ((*pickle.loads(data, buffers=buffers), []) for _ in range(2))
    untouched = bits(*other)
    assert untouched == bits(*original[:2], [])
    stepped(*one[:2])
    assert bits(*one) == bits(*expected[:2], [])
    assert bits(*other) == untouched
    assert bits(*original) == before
    one[0].iterations.assign(7)
    assert int(other[0].iterations) == int(original[0].iterations) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_was_one_array_in_a_pickle_is_one_after_it(protocol, kind):
    opt, v, arrays = pickle.loads(pickle.dumps(made(kind), protocol))
    expected = made(kind)
    for these in ((opt, v, arrays), expected):
        stepped(these[0], these[1], *these[2])
    assert len(opt.weights) == len(expected[0].weights)  # they have been recognised
    assert bits(opt, v, arrays) == bits(*expected)


@pytest.mark.parametrize("carrier", [in_band, *CARRIERS])
def test_variables_and_counts_that_are_shared_stay_so(carrier):
    count, v = Variable(np.array(3, np.int64)), Variable(np.ones(SIZE))
    one, other = RMSprop(), RMSprop(momentum=0.5)
    one.iterations = other.iterations = count
    again, buffers = Variable.around(v.array), []
    callback = None if carrier is in_band else buffers.append
    data = pickle.dumps((count, v, again, one, other), protocol=5, buffer_callback=callback)
    count, v, again, one, other = pickle.loads(data, buffers=carrier(data, buffers))
    assert again.array is v.array
    for opt in (one, other):
        stepped(opt, v)
    assert int(count) == int(one.iterations) == int(other.iterations) == 5


@pytest.mark.parametrize("carrier", [read_only, mapped])
def test_arrays_that_came_read_only_are_refused_by_name_and_their_slots_are_not(carrier):
    opt, w, buffers = RMSprop(), np.ones(SIZE), []
    stepped(opt, w)
    data = pickle.dumps((opt, w), protocol=5, buffer_callback=buffers.append)
    opt, w = pickle.loads(data, buffers=carrier(data, buffers))
    with pytest.raises(ValueError, match="Variable 0 .*read-only"):
        stepped(opt, w)
    opt.set_weights([np.array(2), np.full(SIZE, 0.5)])
    assert (opt.get_slot(w, "rms").numpy() == 0.5).all()


def test_no_more_is_copied_than_must_be():
    v = made("doubles")[1]
    for again in (copy.deepcopy(v), pickle.loads(pickle.dumps(v, 4))):
        assert type(again.array.base) in (type(None), bytes)
        assert again.array.flags.writeable
    fortran = Variable(np.ones((40, 50), order="F"))
    buffers = []
    data = pickle.dumps(fortran, 5, buffer_callback=buffers.append)
    again = pickle.loads(data, buffers=buffers)
    assert again.array.flags.f_contiguous
    assert again.array.flags.owndata


@pytest.mark.gpu
@pytest.mark.parametrize("carrier", CARRIERS)
def test_state_on_a_gpu_is_its_own_too(carrier):
    cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
    if not cupy.cuda.is_available():
        pytest.skip("no CUDA device")
    opt, v, buffers = RMSprop(momentum=0.9), Variable(cupy.ones(SIZE)), []
    opt.apply_gradients([(cupy.ones(SIZE), v)])
    data = pickle.dumps((opt, v), protocol=5, buffer_callback=buffers.append)
    buffers = carrier(data, buffers)
    (one, v1), (other, v2) = (pickle.loads(data, buffers=buffers) for _ in range(2))
    one.apply_gradients([(cupy.ones(SIZE), v1)])
    assert (int(one.iterations), int(other.iterations), int(opt.iterations)) == (2, 1, 1)
    for ours, theirs in zip([v2, *other.weights], [v, *opt.weights], strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert (v1.numpy() < v2.numpy()).all()
