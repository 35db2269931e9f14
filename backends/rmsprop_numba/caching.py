"""Compiled kernels on disk, for those who ask for it: nothing that is wrong with the files can stop a step.

Numba's own cache raises at import if there is no directory to write to, raises in a step if a file is corrupt,
and does not notice that a function which a kernel calls has changed in another file.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from rmsprop_numba.compilation import with_own_stack

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError(
        "NUMBA_DISABLE_JIT is set (or numba.config.DISABLE_JIT), but kernels work on addresses, which only "
        "compiled code can do. Expected it to be unset; to look into a step, put arrays of another library into a "
        "rmsprop.Variable, such as JAX's: these are updated by functions of their own."
    )

# Machine code on disk outlives uninstallation, and is unpickled: hence only for those who ask for it.
IS_ASKED_FOR = os.environ.get("RMSPROP_CACHE") == "1"
logger = logging.getLogger("rmsprop")


class KernelCache(FunctionCache):
    """Numba's cache of a function, with keys that cover all source files of this package."""

    def __init__(self, function: Any, options: Iterable[str]) -> None:
        super().__init__(function)
        # A function that is compiled twice, for one thread and for several, has files for each.
        name, stamp = "-".join([self._impl.filename_base, *options]), self._impl.locator.get_source_stamp()
        self._cache_file = IndexDataCacheFile(self._cache_path, name, stamp)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return super()._index_key(sig, codegen), numba.__version__, _sources()

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function; None if it is missing, or can't be read, or is another one."""
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:  # whatever unpickling may raise
            logger.warning("A file of the cache of kernels is replaced, as it can't be read: %r", error)
            self._clear()
            return None
        # Numba lets two processes that write at once give two functions the same file.
        return found if found is None or tuple(found.signature.args) == tuple(sig) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, if it can be written."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            logger.warning("A kernel can't be kept on disk: %r", error)

    def _clear(self) -> None:
        try:
            self.flush()
        except OSError as error:
            logger.warning("The cache of kernels can't be written to: %r", error)


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Return the decorator that compiles functions, and keeps what it has compiled if that is asked for."""

    def decorate(function: Any) -> Any:
        # error_model is for speed, and since a division by zero must not stop a loop half way.
        dispatcher: Any = numba.njit(error_model="numpy", **options)(function)
        dispatcher.compile = partial(with_own_stack, dispatcher.compile)  # where Numba itself looks it up
        if IS_ASKED_FOR:
            try:
                dispatcher._cache = KernelCache(function, options)
            except Exception as error:  # no directory can be written to
                logger.warning("Kernels are not kept on disk: %s", error)
        return dispatcher

    return decorate


@cache
def _sources() -> str:
    """Return a digest of the source files of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
