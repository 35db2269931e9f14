"""How public objects and modules show themselves."""

import copy
import importlib
import itertools
import rlcompleter
import subprocess
import sys

import numpy as np
import pytest

import rmsprop
from rmsprop import CheckpointManager, GradientTape, IndexedSlices, LossScale, RMSprop, TorchTape, Variable
from rmsprop.distribute import ReplicaContext, Strategy
from rmsprop.schedules import CosineDecay

PUBLIC = [
    "rmsprop",
    "rmsprop.adapters",
    "rmsprop.checkpoints",
    "rmsprop.conventions",
    "rmsprop.distribute",
    "rmsprop.schedules",
    "rmsprop.testing",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_dir_and_completion_show_exactly_the_public_names(name):
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)
    complete = rlcompleter.Completer({"module": module}).complete
    completed = itertools.takewhile(bool, (complete("module.", state) for state in itertools.count()))
    assert sorted(each.removeprefix("module.").rstrip("()") for each in completed) == sorted(module.__all__)


def test_dir_imports_nothing_and_shows_the_same_whatever_has_been_imported():
    code = (
        "import sys, rmsprop; n = len(sys.modules); a = dir(rmsprop); assert len(sys.modules) == n; "
        "import rmsprop.testing, rmsprop.distribute, rmsprop.__main__; assert dir(rmsprop) == a"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


SETTINGS = [
    {},
    {"learning_rate": 0.1},
    {"learning_rate": 0.1, "rho": 0.5, "momentum": 0.9, "epsilon": 1e-3, "centered": True, "name": "me"},
    {"learning_rate": CosineDecay(0.1, 10), "clipnorm": 0.0, "clipvalue": 2.0},
    {"global_clipnorm": 1.0, "decay": 0.1, "lazy": False, "epsilon_in_sqrt": False, "complex_as_real": True},
    {"state_dtype": "uint8", "nonfinite": "skip", "loss_scale": LossScale(2.0), "validate": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_an_optimizer_reads_like_the_call_of_its_constructor(settings):
    optimizer = RMSprop(**copy.deepcopy(settings))
    assert repr(optimizer) == f"RMSprop({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
    scope = {"RMSprop": RMSprop, "LossScale": LossScale, "CosineDecay": CosineDecay}
    assert eval(repr(optimizer), scope).get_config() == optimizer.get_config()


def test_an_optimizer_shows_code_and_arrays_without_calling_code():
    def rate():
        raise AssertionError("called")

    assert repr(RMSprop(rate)) == f"RMSprop(learning_rate={rate!r})"
    assert repr(RMSprop(rho=np.array(0.5))) == "RMSprop(rho=array(0.5))"
    assert repr(RMSprop(rho=np.array(0.9))) == "RMSprop(rho=array(0.9))"
    assert (
        repr(RMSprop(rho=Variable(0.5, name="rho"))) == "RMSprop(rho=Variable('rho', array(0.5, dtype=float32)))"
    )
    assert repr(RMSprop(gradient_transformers=[rate])) == f"RMSprop(gradient_transformers=({rate!r},))"
    assert repr(RMSprop(gradient_aggregator=rate)) == f"RMSprop(gradient_aggregator={rate!r})"


def test_an_optimizer_shows_what_it_is_told_now():
    opt = RMSprop(0.1)
    opt.apply_gradients([(np.ones(2), np.ones(2))])
    opt.learning_rate, opt.momentum = 0.001, 0.5
    assert repr(opt) == "RMSprop(momentum=0.5)"


def test_a_subclass_goes_by_its_own_name():
    class Mine(RMSprop):
        def __init__(self, rate):
            super().__init__(rate, clipnorm=1.0)

    assert repr(Mine(0.5)) == "Mine(learning_rate=0.5, clipnorm=1.0)"
    assert repr(Mine.__new__(Mine)) == "Mine()"  # as a debugger shows it while it is made


def test_tapes_managers_strategies_and_slices_read_like_the_calls_of_their_constructors(tmp_path):
    assert repr(GradientTape()) == "GradientTape()"
    assert repr(GradientTape(watch_accessed_variables=False)) == "GradientTape(watch_accessed_variables=False)"
    assert repr(Strategy()) == "Strategy()"
    assert repr(ReplicaContext(Strategy())) == "ReplicaContext(strategy=Strategy())"
    assert repr(CheckpointManager(tmp_path)) == f"CheckpointManager(directory={str(tmp_path)!r})"
    manager = CheckpointManager(tmp_path, max_to_keep=None, every=10)
    assert repr(manager) == f"CheckpointManager(directory={str(tmp_path)!r}, max_to_keep=None, every=10)"
    slices = IndexedSlices(np.ones((1, 2)), np.array([3]))
    assert repr(slices) == "IndexedSlices(values=array([[1., 1.]]), indices=array([3]))"
    assert repr(IndexedSlices([1.0], [3], (4,))) == "IndexedSlices(values=[1.0], indices=[3], dense_shape=(4,))"
    assert repr(LossScale()) == "LossScale()"
    assert repr(LossScale(2, dynamic=False)) == "LossScale(initial_scale=2.0, dynamic=False)"


def test_a_tape_of_pytorch_does_so_too():
    pytest.importorskip("torch", reason="in the extra 'interop'")
    assert repr(TorchTape(False, False)) == "TorchTape(watch_accessed_variables=False)"


def test_a_strategy_over_mpi_does_so_too():
    pytest.importorskip("mpi4py", reason="in the extra 'mpi'")
    code = (
        "import rmsprop; MPIStrategy = rmsprop.distribute.MPIStrategy; "
        "assert repr(MPIStrategy()) == 'MPIStrategy()'; "
        "assert repr(MPIStrategy(timeout=5.0, bucket_bytes=64)) == 'MPIStrategy(timeout=5.0, bucket_bytes=64)'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["RMSprop", "GradientTape", "IndexedSlices", "CheckpointManager", "LossScale"])
def test_no_public_class_shows_an_address(name):
    assert getattr(rmsprop, name).__repr__ is not object.__repr__
