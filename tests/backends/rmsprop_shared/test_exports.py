"""Libraries that are declared to share their memory, of which array_api_strict stands for any."""

import array_api_strict
import numpy as np
import pytest

import rmsprop_shared
from rmsprop import RMSprop, Variable, backends
from rmsprop.backends import backend_of
from rmsprop.testing import BackendTests


@pytest.fixture(scope="module", autouse=True)
def declared(tmp_path_factory):
    """Declare it, as a package does that is installed."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "declaration-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: declaration\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rmsprop.backends]\narray_api_strict = rmsprop_shared:backend\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        backends._load.cache_clear()
        yield
    backends._load.cache_clear()


class TestExports(BackendTests):
    @pytest.fixture
    def asarray(self):
        return array_api_strict.asarray


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "centered": True, "global_clipnorm": 1.0}], ids=str)
def test_arrays_are_updated_in_their_memory_with_the_bits_of_numpy(options):
    arrays = [np.random.default_rng(k).standard_normal(shape) for k, shape in enumerate([(3, 4), (5,), ()])]
    starts = [array_api_strict.asarray(a, copy=True) for a in arrays]
    variables = [starts[0], Variable.around(starts[1]), starts[2]]
    ours, theirs = RMSprop(0.1, **options), RMSprop(0.1, **options)
    for _ in range(4):
        ours.apply_gradients([(array_api_strict.ones(v.shape), v) for v in variables])
        theirs.apply_gradients([(np.ones(a.shape), a) for a in arrays])
    for start, array in zip(starts, arrays, strict=True):
        assert np.from_dlpack(start).tobytes() == array.tobytes()
    assert backend_of(starts[0]) is rmsprop_shared.backend


def test_a_view_of_known_memory_is_the_same_variable():
    whole, opt = array_api_strict.ones((2, 3)), RMSprop(0.1)
    for k in (0, 1, 0):
        opt.apply_gradients([(array_api_strict.ones(3), whole[k, ...])])
    assert len(opt.get_weights()) == 3


def test_memory_that_can_only_be_read_is_refused():
    memory = np.ones(3)
    memory.flags.writeable = False
    with pytest.raises((TypeError, ValueError), match="read-only|share"):
        RMSprop(0.1).apply_gradients([(array_api_strict.ones(3), array_api_strict.asarray(memory, copy=False))])
