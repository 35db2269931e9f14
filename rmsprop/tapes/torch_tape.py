"""Differentiation of losses over arrays of any library, by PyTorch, in the arrays' own memory."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from rmsprop.arrays import dtypes
from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Array, ends_pytorch, has_strides, is_array, namespace
from rmsprop.backends import Gradient, is_updated_in_place
from rmsprop.tapes.recorder import Recorder, refuse_complex, wants_zeros, zeros_of
from rmsprop.variables.nested import Tree, flatten, mapped
from rmsprop.variables.variable import array_of, described

if TYPE_CHECKING:
    import torch


class TorchTape(Recorder):
    """Let PyTorch record what is computed from arrays of any library, then give the gradients.

    The traced values are torch tensors in the memory of the arrays of NumPy, CuPy or JAX, on their device. Nothing
    is copied, there or back, and no device is waited for. Inside the ``with`` block, the values of `Variable`s are
    such tensors, too. PyTorch is imported by the first tape that is made; it is in the extra ``interop``.

    Parameters
    ----------
    persistent : bool, default False
        Not needed: gradients can be asked for any number of times.
    watch_accessed_variables : bool, default True
        Whether trainable variables are followed from their first use on. If not, `watch` them.

    Notes
    -----
    Rows that are read as ``table[ids]`` have a dense gradient, other than with a `GradientTape`. For
    `IndexedSlices`, read them by ``torch.nn.functional.embedding(ids, table, sparse=True)``.

    Since memory is shared, a tensor shows the updates of its array. A `gradient` that needs the values from
    before a step or an assignment is refused, with PyTorch's ``RuntimeError``. Of changes by other code PyTorch
    learns nothing: make them after `gradient`. Watch anew in each step, as `RMSprop.minimize` does; the same
    tape will do, since each ``with`` begins anew.

    Copied are arrays that PyTorch can't view, such as those of negative strides, and gradients that would share
    memory with each other. Read-only arrays are viewed: a loss must not write to its arguments.

    On a GPU, each library's current stream waits for the other's. As PyTorch and CuPy reuse freed memory in the
    order of one stream, both should use the same: the default one, unless you choose.

    For higher derivatives, call ``torch.autograd.grad(..., create_graph=True)`` in the loss.

    Examples
    --------
    ::

        x = cupy.asarray([3.0, -2.0])       # or numpy.asarray
        tape = TorchTape()
        for _ in range(100):
            opt.minimize(lambda t: (t ** 2).sum(), [x], tape=tape)

    or with a loss as a value:

    >>> import numpy as np
    >>> from rmsprop import RMSprop, TorchTape
    >>> x = np.array([3.0, -2.0])
    >>> with TorchTape() as tape:
    ...     loss = (tape.watch(x) ** 2).sum()
    >>> tape.gradient(loss, x)
    array([ 6., -4.])
    >>> _ = RMSprop().minimize(loss, [x], tape=tape)
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        try:
            import torch  # noqa: F401  # it had better be missing here than in the middle of a step
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TorchTape needs PyTorch, which is not installed: `pip install torch`. A GradientTape "
                "differentiates losses over NumPy arrays without it.",
                name=error.name,
            ) from error
        super().__init__(persistent, watch_accessed_variables)

    def _paused(self) -> AbstractContextManager[Any]:
        import torch

        return torch.no_grad()  # type: ignore[no-any-return]

    def gradient(
        self,
        target: Any,
        sources: Tree,
        output_gradients: Array | None = None,
        unconnected_gradients: str = "none",
    ) -> Any:
        """Return the gradient of `target` with respect to each of `sources`.

        What was recorded is kept as long as `target` is, so that gradients can be asked for more than once.

        Parameters
        ----------
        target : torch.Tensor
            What was computed inside the ``with`` block, or a list of such. Elements and targets are summed.
        sources : Variable or array, or nested lists, tuples and dicts of these
        output_gradients : array_like, shape of `target`, or a number, optional
            Weights of the elements of `target` instead of ones.
        unconnected_gradients : {"none", "zero"}, default "none"
            What is returned where `target` does not depend on the source: None, or an array of zeros.

        Returns
        -------
        array, IndexedSlices or None, in the structure of `sources`
            An array of the library of its source, `IndexedSlices` where PyTorch gives a sparse gradient. Gradients
            by complex sources are ``dL/dRe + i dL/dIm``, as `RMSprop.apply_gradients` takes them.

        Raises
        ------
        ValueError
            If `output_gradients` has another shape than `target`.
        TypeError
            If `target` or `output_gradients` is complex.
        RuntimeError
            If a value that the gradient needs was changed by a step or an assignment.
        """
        import torch

        has_zeros = wants_zeros(unconnected_gradients)
        targets = [self._latest(each) for each in flatten(target)]
        for each in targets:
            if each.is_complex() if isinstance(each, torch.Tensor) else np.iscomplexobj(each):
                refuse_complex(getattr(each, "dtype", type(each)))
        targets = [each for each in targets if isinstance(each, torch.Tensor) and each.requires_grad]
        weights = [_weights(output_gradients, each) for each in targets]
        leaves = [leaf for source in flatten(sources) for leaf in self._values(source)]
        found: Any = [None] * len(leaves)
        if targets and leaves:
            found = torch.autograd.grad(targets, leaves, weights, retain_graph=True, allow_unused=True)
        arrivals = {id(leaf): gradient for leaf, gradient in zip(leaves, found, strict=True)}
        taken = {_memory(tensor) for tensor in (*weights, *leaves)}

        def gradient_of(source: Any) -> Gradient | None:
            gradient = self._gradient_of(source, arrivals, taken)
            return zeros_of(source) if gradient is None and has_zeros else gradient

        return mapped(gradient_of, sources)

    def forget(self, source: Any) -> None:
        """Take note that a variable gets another value, so that PyTorch refuses to use it as the former one."""
        super().forget(source)
        if id(source) in self._watched and is_updated_in_place(array_of(source)):
            from torch.autograd.graph import increment_version

            increment_version(self._values(source))

    def _new_value(self, source: Any) -> "torch.Tensor":
        array = array_of(source)
        if not is_array(array) or not self._can_trace(array):
            raise TypeError(
                f"PyTorch differentiates arrays of {', '.join(dtypes.COMPUTE)}; given {described(source)}."
            )
        try:
            return _viewed(array).requires_grad_()
        except (BufferError, RuntimeError) as error:
            raise TypeError(f"PyTorch can't view {described(source)} of {type(array)}: {error}") from error

    def _constant(self, array: Array) -> "torch.Tensor":
        return _viewed(array)

    def _gradient_of(self, source: Any, arrivals: dict[int, Any], taken: set[int]) -> Gradient | None:
        """Return the gradient by a source, in memory that is not `taken`, and take that."""
        parts = [arrivals[id(leaf)] for leaf in self._values(source)]
        parts = [part for part in parts if part is not None]
        return _returned(sum(parts[1:], parts[0]), array_of(source), taken) if parts else None


def _viewed(array: Array) -> "torch.Tensor":
    """Return a tensor in the memory of an array, or in that of a copy if PyTorch can't view its layout."""
    import torch

    if isinstance(array, torch.Tensor):
        return array.detach()
    if _needs_integers(array):
        return _viewed(array.view(np.int16)).view(torch.bfloat16)
    if _may_end_pytorch(array):
        return torch.from_dlpack(_copied(array))
    try:
        return torch.from_dlpack(array)
    except BufferError:  # strides that are no multiple of the elements' size
        return torch.from_dlpack(_copied(array))


def _may_end_pytorch(array: Array) -> bool:
    """Tell whether PyTorch may end the process at a view: strides are negative, or not known to be none."""
    if has_strides(array):
        return min(array.strides, default=0) < 0 or (isinstance(array, np.ndarray) and ends_pytorch(array))
    return namespace(array).__name__ != "jax.numpy"


def _copied(array: Array) -> Array:
    return array.copy() if has_strides(array) else namespace(array).asarray(array, copy=True)


def _needs_integers(array: Array) -> bool:
    """Tell whether an array must pass for integers, since NumPy, and CuPy after it, can't exchange bfloat16."""
    return has_strides(array) and dtypes.name_of(array.dtype) == "bfloat16"


def _weights(given: Any, target: "torch.Tensor") -> "torch.Tensor":
    """Return the weights of the elements of a target."""
    import torch

    if given is None:
        return torch.ones_like(target)
    given = array_of(given)
    weights = _viewed(given) if is_array(given) else torch.as_tensor(given)
    if weights.is_complex():
        raise TypeError(f"output_gradients must be real, as the target is; given {weights.dtype}.")
    if weights.shape not in ((), target.shape):
        raise ValueError(f"output_gradients has shape {tuple(weights.shape)}, not {tuple(target.shape)}.")
    return weights.to(target).expand(target.shape)


def _returned(gradient: "torch.Tensor", like: Array, taken: set[int]) -> Gradient:
    """Return a gradient as an array of the library of `like`."""
    import torch

    if gradient.layout == torch.sparse_coo and gradient.sparse_dim() == 1:
        values, indices = gradient._values(), gradient._indices()[0]
        shape = tuple(gradient.shape)
        return IndexedSlices(_returned(values, like, taken), _returned(indices, like, taken), shape)
    dense = gradient.to_dense().detach().resolve_conj().resolve_neg()
    if _memory(dense) in taken or 0 in dense.stride():
        dense = dense.clone(memory_format=torch.contiguous_format)
    taken.add(_memory(dense))
    with torch.cuda.device_of(dense):  # only from its current device does PyTorch give tensors away
        return _exported(dense, like)


def _exported(tensor: "torch.Tensor", like: Array) -> Array:
    """Return an array of the library of `like` in the memory of a tensor."""
    import torch

    if isinstance(like, torch.Tensor):
        return tensor
    if tensor.dtype == torch.bfloat16 and _needs_integers(like):
        return _exported(tensor.view(torch.int16), like).view(like.dtype)
    return namespace(like).from_dlpack(tensor)


def _memory(tensor: "torch.Tensor") -> int:
    return int(tensor.untyped_storage().data_ptr())
