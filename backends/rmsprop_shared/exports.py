# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
"""Arrays of any library that export their memory by DLPack, declared as such by an entry point."""

from collections.abc import Hashable
from typing import Any

import numpy as np

import rmsprop_numba
from rmsprop.arrays.libraries import Array, namespace, place_beside
from rmsprop.backends import Backend
from rmsprop_shared.steps import SharedBackend, memory_of

CPU = 1
"""The host's memory in DLPack's words."""


class ExportsOnHost(SharedBackend):
    """The backend for arrays in the host's memory that export it by DLPack, and may be changed by others."""

    def of(self, array: Array) -> Backend:
        """Return this backend for arrays in the host's memory, else that for any library."""
        import rmsprop_array_api

        return self if int(array.__dlpack_device__()[0]) == CPU else rmsprop_array_api.backend

    def exported(self, array: Array) -> Any:
        """Return an array of NumPy in the memory of another library's."""
        return np.from_dlpack(array)

    def facts(self, array: Array) -> tuple[Any, ...]:
        """Return what tells where an array lies in memory."""
        view = self.exported(array)
        return view.__array_interface__["data"][0], view.shape, view.strides, view.dtype

    def memory(self, array: Array) -> Hashable:
        """Return what two views of the same elements have in common."""
        view = self.exported(array)
        return memory_of(view, view.__array_interface__["data"][0])

    def check_variable(self, array: Array) -> None:
        """Raise ``TypeError`` or ``ValueError`` if the memory can't be had, or not be written to."""
        try:
            view = self.exported(array)
        except (BufferError, RuntimeError, ValueError) as error:
            raise TypeError(f"its library does not share its memory: {error}") from None
        self.through.check_variable(view)

    def zeros(self, like: Array, dtype: str) -> Array:
        """Return zeros of the shape and on the device of an array."""
        xp = namespace(like)
        return xp.zeros(tuple(like.shape), dtype=getattr(xp, dtype), device=place_beside(like))


backend = ExportsOnHost(rmsprop_numba.backend)
