"""Tests that any backend can be put to; needs pytest.

Examples
--------
The whole test file of a backend for the arrays of ``mylib``::

    import mylib
    import pytest
    from rmsprop.testing import BackendTests

    class TestMyLib(BackendTests):
        @pytest.fixture
        def asarray(self):
            return mylib.asarray    # from NumPy arrays
"""

from rmsprop.formula import VariableState
from rmsprop.testing.backend_tests import BackendTests
from rmsprop.testing.oracle import assert_step, expected_step, hyper_of, snapshot

__all__ = ["BackendTests", "VariableState", "assert_step", "expected_step", "hyper_of", "snapshot"]


def __dir__() -> list[str]:
    return __all__
