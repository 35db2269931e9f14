# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
"""Tensors of PyTorch: which of them can be updated in their memory, and what PyTorch is told of it.

PyTorch counts the changes of each tensor, so that a gradient that needs the values from before one is refused.
Updates are counted, but not recorded, whether its gradients are enabled or not.
"""

from collections.abc import Hashable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import torch
from torch._C._functorch import peek_interpreter_stack
from torch.autograd.graph import increment_version

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import refuse_traced
from rmsprop.arrays.memory import strides_of
from rmsprop.backends import Gradient, Updatable, values_of
from rmsprop_shared.steps import SharedBackend

PLAIN = torch.Tensor, torch.nn.Parameter
_is_conj, _is_neg, _first = torch.Tensor.is_conj, torch.Tensor.is_neg, itemgetter(0)


class TorchBackend(SharedBackend):
    """What tensors of all devices have in common that share their memory."""

    adapts_gradients = True
    device_type = "cpu"

    def check_variable(self, array: Any) -> None:
        """Raise ``TypeError`` if a tensor can't be updated in its memory."""
        refuse_traced(array, "it is")
        reason = _reason_against(array, self.device_type)
        if reason is not None:
            raise TypeError(reason)

    def adapted(self, gradient: Any) -> Any:
        """Return a gradient that lists rows, if it is a sparse tensor that does."""
        if not isinstance(gradient, torch.Tensor) or gradient.layout is torch.strided:
            return gradient
        if gradient.layout is not torch.sparse_coo or gradient.sparse_dim() != 1:
            raise TypeError(
                f"a sparse gradient must be one of rows, of layout torch.sparse_coo and sparse_dim 1; given "
                f"layout {gradient.layout}. Pass gradient.to_dense()."
            )
        rows = gradient.detach()
        return IndexedSlices(rows._values(), rows._indices()[0], tuple(gradient.shape))

    def memory(self, array: Any) -> Hashable:
        """Return what two views of the same elements have in common; all empty tensors have the address 0."""
        refuse_traced(array, "it is")
        if array.layout is not torch.strided:
            raise TypeError(_reason_against(array, self.device_type))
        place = array.data_ptr() or id(array)
        return place, tuple(array.shape), strides_of(_Strided(array)), array.dtype, array.device

    def facts(self, array: Any) -> tuple[Any, ...]:
        """Return what tells where a tensor lies in memory."""
        return array.data_ptr(), array.shape, array.stride(), array.dtype, array.device

    def zeros(self, like: Any, dtype: str) -> Any:
        """Return zeros with the shape, order of axes and device of a tensor, without gaps."""
        with torch.inference_mode(False):  # its tensors could not be changed outside of it
            new = torch.zeros_like(like, dtype=getattr(torch, dtype), device=like.device, requires_grad=False)
        refuse_traced(new, "slots would be")
        return new

    def owner(self, array: Any, is_its_own: bool) -> Any:
        """Return a leaf itself: who wants its gradients has to hold it. Others may share memory with anything."""
        is_leaf = isinstance(array, torch.nn.Parameter) or (array.requires_grad and array.is_leaf)
        return array if is_leaf or (is_its_own and array._base is None) else None

    def changed(self, arrays: Sequence[Any]) -> None:
        """Count a change of each tensor, so that gradients that need former values are refused."""
        increment_version(arrays)

    def are_plain(self, pairs: Sequence[tuple[Any, Any]], complex_variables: Sequence[Any]) -> bool:
        """Tell whether no gradient is the conjugate or negative of what is in its memory, and nothing is traced.

        In the memory that a real variable had, another tensor can't be its negative without `torch._neg_view`.
        """
        if peek_interpreter_stack() is not None or any(map(_is_neg, map(_first, pairs))):
            return False
        return not complex_variables or not any(map(_is_conj, chain(complex_variables, map(_first, pairs))))

    def check_step(
        self, parameters: Sequence[Updatable], gradients: Sequence[Gradient], positions: Sequence[int]
    ) -> bool:
        """Raise errors about memory and devices."""
        for position, parameter, gradient in zip(positions, parameters, gradients, strict=True):
            device, given = parameter.variable.array.device, values_of(gradient)
            refuse_traced(given, "the gradient of variable {} is", parameter)
            if given.device != device:
                raise ValueError(
                    f"Gradient of variable {position} {parameter}: it is on {given.device}, not on {device} like "
                    f"the variable."
                )
            for name, slot in parameter.slots.items():
                if str(slot.array.device) != str(device):
                    raise ValueError(
                        f"Variable {position} {parameter} is on {device}, its slot {name!r} on "
                        f"{slot.array.device}, where it was before; expected a new optimizer, with the weights of "
                        f"this one."
                    )
        return super().check_step(parameters, gradients, positions)


class _Strided:
    """Shape and strides of a tensor as attributes."""

    def __init__(self, tensor: Any) -> None:
        self.shape, self.strides = tensor.shape, tensor.stride()


def resolved(tensor: Any) -> Any:
    """Return a tensor that is not followed and whose memory holds its numbers; a copy if it has none such."""
    plain = tensor.detach()
    if plain.is_conj() or plain.is_neg():
        return plain.resolve_conj().resolve_neg()
    return plain if plain.data_ptr() or not plain.numel() else plain.clone()  # some zeros have no memory


def _reason_against(tensor: Any, device: str) -> str | None:
    """Return why a tensor can't be updated in its memory, and what would do; None if it can."""
    if type(tensor) not in PLAIN:
        kind = type(tensor)
        return (
            f"a {kind.__module__}.{kind.__name__} can't be updated; expected a torch.Tensor or torch.nn.Parameter."
        )
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return (
            f"its layout is {tensor.layout}, its dtype {tensor.dtype}; expected a dense tensor, as by to_dense()."
        )
    if tensor.device.type != device:
        return f"it is on {tensor.device}; expected {device}, where it was when it was first given."
    if tensor.is_conj() or tensor.is_neg():
        return "its memory holds conjugate or negative numbers; expected x.resolve_conj().resolve_neg()."
    if tensor.requires_grad and not tensor.is_leaf:
        return "it is computed from others that require grad; expected a leaf, such as x.detach()."
    if tensor.is_inference():
        return "it was made in inference mode; expected one made outside, such as x.clone() there."
    if tensor.data_ptr() == 0 and tensor.numel():
        return "it has no memory; expected a tensor of numbers."
    return None
