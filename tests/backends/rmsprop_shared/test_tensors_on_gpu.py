"""Memory of a GPU that is not CuPy's: tensors of PyTorch, for which others stand in, and arrays that export it."""

import os
import sys
from functools import partial

import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable
from rmsprop.backends import backend_of

torch = pytest.importorskip("torch", reason="PyTorch is in the extra 'interop'")
cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]

SETTINGS = [
    {},
    {"momentum": 0.9, "centered": True, "clipvalue": 0.5},
    {"global_clipnorm": 1.0, "weight_decay": 0.1},
    {"nonfinite": "skip", "clipnorm": 0.5, "nesterov": True, "momentum": 0.5},
]
SHAPES = [(5,), (3, 4), (), (0, 2), (300,), (2, 2, 2)]
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]


class OnDevice(torch.Tensor):
    """A tensor on a CUDA device, in the memory of an array of CuPy, for a PyTorch that knows no CUDA."""

    @staticmethod
    def __new__(cls, array):
        strides = [s // array.itemsize for s in array.strides]
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            array.shape,
            strides=strides,
            dtype=getattr(torch, array.dtype.name),
            device=f"cuda:{array.device.id}",
        )
        tensor.held = array
        return tensor

    __cuda_array_interface__ = property(lambda self: self.held.__cuda_array_interface__)

    def data_ptr(self):
        return self.held.data.ptr

    def detach(self):
        return self

    def is_conj(self):
        return False

    is_neg = is_conj

    def view(self, dtype):
        return OnDevice(self.held.view({torch.int16: np.int16}[dtype]))

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.zeros_like:
            with args[0].held.device:
                return cls(cupy.zeros_like(args[0].held, dtype=str(kwargs["dtype"]).removeprefix("torch.")))
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(f"{function} would be computed by PyTorch")


@pytest.fixture(params=["default", "other"])
def stream(request, monkeypatch):
    """Return the stream that PyTorch is taken to use."""
    used = cupy.cuda.Stream.null if request.param == "default" else cupy.cuda.Stream(non_blocking=True)
    monkeypatch.setattr("rmsprop_shared.tensors.PLAIN", (OnDevice, Moved))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: Current(used.ptr))
    yield used
    used.synchronize()


class Current:
    def __init__(self, pointer):
        self.cuda_stream = pointer


def drawn(rng, dtype, shape):
    numbers = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if "complex" in dtype else 0)
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    return np.asarray(numbers).astype(dtype)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_on_a_device_get_the_bits_of_cupy(stream, dtype, options):
    if "GPUSIM_FUZZ" in os.environ and dtype == "complex128" and "clipvalue" in options:
        pytest.skip("the modulus takes approximate instructions, which err another way in each kernel here")
    rng = np.random.default_rng(0)
    starts = [drawn(rng, dtype, shape) for shape in SHAPES]
    arrays = [cupy.asarray(start) for start in starts]
    tensors = [OnDevice(cupy.asarray(start)) for start in starts]
    ours, theirs = RMSprop(0.1, **options), RMSprop(0.1, **options)
    versions = [t._version for t in tensors]
    for _ in range(3):
        gradients = [drawn(rng, dtype, shape) for shape in SHAPES]
        on_device = [OnDevice(cupy.asarray(g)) for g in gradients]
        cupy.cuda.Device().synchronize()
        ours.apply_gradients(list(zip(on_device, tensors, strict=True)))
        stream.synchronize()
        theirs.apply_gradients([(cupy.asarray(g), a) for g, a in zip(gradients, arrays, strict=True)])
    for tensor, array in zip(tensors, arrays, strict=True):
        assert tensor.held.get().tobytes() == array.get().tobytes()
    assert all([t._version > before for t, before in zip(tensors, versions, strict=True)])
    for name in theirs.get_slot_names():
        for tensor, array in zip(tensors, arrays, strict=True):
            slot = ours.get_slot(tensor, name).array
            assert slot.held.get().tobytes() == theirs.get_slot(array, name).array.get().tobytes()
    assert backend_of(tensors[0]).memory(tensors[0]) != backend_of(tensors[1]).memory(tensors[1])


def places(tensor, monkeypatch):
    """Return a list of the devices and streams in which work is handed to CuPy from now on."""
    seen, through = [], backend_of(tensor).through

    def noted(function, *arguments):
        seen.append((cupy.cuda.Device().id, cupy.cuda.get_current_stream().ptr))
        return function(*arguments)

    for name in ("prepare", "factors"):
        monkeypatch.setattr(type(through), name, staticmethod(partial(noted, getattr(through, name))))
    return seen


def test_kernels_run_in_the_stream_that_pytorch_uses(stream, monkeypatch):
    tensor, opt = OnDevice(cupy.ones(4, cupy.float32)), RMSprop(0.1, clipnorm=1.0, nonfinite="skip")
    seen, before = places(tensor, monkeypatch), cupy.cuda.get_current_stream().ptr
    cupy.cuda.Device().synchronize()
    opt.apply_gradients([(OnDevice(cupy.ones(4, cupy.float32)), tensor)])
    assert {*seen} == {(0, stream.ptr)}
    assert cupy.cuda.get_current_stream().ptr == before


def test_a_gradient_that_pytorch_still_computes_is_waited_for_by_the_device_alone(stream):
    tensor, gradient, opt = OnDevice(cupy.ones(4, cupy.float32)), cupy.zeros(4, cupy.float32), RMSprop(0.1)
    opt.build([tensor])
    cupy.cuda.Device().synchronize()
    with stream:
        gradient += 2
    opt.apply_gradients([(OnDevice(gradient), tensor)])
    stream.synchronize()
    assert (tensor.held.get() < 1).all()


def test_other_memory_shape_or_device_is_noticed(stream):
    tensor, opt = OnDevice(cupy.ones(4, cupy.float32)), RMSprop(0.1)
    former = tensor.held
    g = OnDevice(cupy.ones(4, cupy.float32))
    cupy.cuda.Device().synchronize()
    for _ in range(2):
        opt.apply_gradients([(g, tensor)])
    stream.synchronize()
    value = former.get()
    tensor.held = cupy.full(4, 5, cupy.float32)
    cupy.cuda.Device().synchronize()
    opt.apply_gradients([(g, tensor)])
    stream.synchronize()
    np.testing.assert_array_equal(former.get(), value)
    assert (tensor.held.get() < 5).all()
    with pytest.raises(ValueError, match="it is on cpu, not on cuda:0"):
        opt.apply_gradients([(torch.ones(4), tensor)])
    with pytest.raises(ValueError, match="shape"):
        opt.apply_gradients([(OnDevice(cupy.ones(3, cupy.float32)), tensor)])


def test_sparse_gradients_list_rows_on_the_device(stream):
    tensor, array = OnDevice(cupy.ones((5, 2), cupy.float32)), cupy.ones((5, 2), cupy.float32)
    values, rows = cupy.ones((3, 2), cupy.float32), cupy.array([3, 1, 3])
    ours, theirs = RMSprop(0.1), RMSprop(0.1)
    cupy.cuda.Device().synchronize()
    for _ in range(2):
        ours.apply_gradients([(IndexedSlices(OnDevice(values), OnDevice(rows)), tensor)])
        stream.synchronize()
        theirs.apply_gradients([(IndexedSlices(values, rows), array)])
    np.testing.assert_array_equal(tensor.held.get(), array.get())


def test_the_device_of_a_tensor_is_worked_on(stream, monkeypatch):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two devices")
    with cupy.cuda.Device(1):
        other = cupy.cuda.Stream(non_blocking=True)
        tensor, g = (OnDevice(cupy.ones(4, cupy.float32)) for _ in range(2))
        cupy.cuda.Device().synchronize()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: Current([stream, other][index].ptr))
    near, opt = OnDevice(cupy.ones(4, cupy.float32)), RMSprop(0.1, global_clipnorm=1.0)
    seen = places(tensor, monkeypatch)
    cupy.cuda.Device().synchronize()
    for _ in range(2):
        opt.apply_gradients([(g, tensor), (OnDevice(cupy.ones(4, cupy.float32)), near)])
    stream.synchronize()
    other.synchronize()
    assert {*seen} == {(0, stream.ptr), (1, other.ptr)}
    np.testing.assert_array_equal(tensor.held.get(), near.held.get())
    assert opt.get_slot(tensor, "rms").array.held.device.id == 1
    with pytest.raises(ValueError, match="it is on cuda:0, not on cuda:1"):
        opt.apply_gradients([(near, tensor)])
    tensor.__class__ = Moved
    with pytest.raises(ValueError, match="is on cuda:0, its slot 'rms' on cuda:1"):
        opt.apply_gradients([(near, tensor)])


class Moved(OnDevice):
    device = torch.device("cuda:0")


class Exported:
    """An array of a library that only shares its memory, as numba.cuda does."""

    def __init__(self, array, is_read_only=False):
        pointer, _ = array.__cuda_array_interface__["data"]
        self.held = array
        self.__dict__["interface"] = array.__cuda_array_interface__ | {"data": (pointer, is_read_only)}

    __cuda_array_interface__ = property(lambda self: self.interface)


def test_arrays_that_export_memory_of_a_device_are_updated_there():
    arrays = [cupy.ones((4, 3), cupy.float32), cupy.arange(6, dtype=cupy.float64)]
    x, y = (Exported(a.copy()) for a in arrays)
    ours, theirs = RMSprop(0.1, momentum=0.9), RMSprop(0.1, momentum=0.9)
    for _ in range(3):
        gs = [cupy.full(a.shape, 2, a.dtype) for a in arrays]
        ours.apply_gradients([(Exported(gs[0]), x), (gs[1], Exported(y.held))])  # one object, and one anew
        theirs.apply_gradients(zip(gs, arrays, strict=True))
    for exported, array in zip((x, y), arrays, strict=True):
        np.testing.assert_array_equal(exported.held.get(), array.get())
    assert len(ours.get_weights()) == 5
    np.testing.assert_array_equal(ours.get_slot(x, "rms").numpy(), theirs.get_slot(arrays[0], "rms").numpy())
    assert isinstance(Variable(x).array, cupy.ndarray)


def test_arrays_that_export_memory_to_be_read_are_gradients_only():
    x, frozen = cupy.ones(3), Exported(cupy.ones(3), is_read_only=True)
    RMSprop(0.1).apply_gradients([(frozen, x)])
    assert (x.get() < 1).all()
    with pytest.raises(TypeError, match="read-only"):
        RMSprop(0.1).apply_gradients([(x, frozen)])


def test_tensors_of_pytorch_on_a_device_are_trained():
    if not torch.cuda.is_available() or "gpusim" in sys.modules:
        pytest.skip("PyTorch sees no CUDA device")
    model, array = torch.nn.Linear(4, 1).cuda(), None
    array = cupy.asarray(model.weight.detach()).copy()
    ours, theirs = RMSprop(0.1), RMSprop(0.1)
    for _ in range(3):
        model.zero_grad(set_to_none=True)
        model(torch.ones(2, 4, device="cuda")).square().sum().backward()
        g = cupy.asarray(model.weight.grad).copy()
        torch.cuda.synchronize()
        ours.apply_gradients([(p.grad, p) for p in model.parameters()])
        theirs.apply_gradients([(g, array)])
    torch.cuda.synchronize()
    np.testing.assert_array_equal(model.weight.detach().cpu().numpy(), array.get())
