"""Configurations of Keras 3, recorded from it, and of tf_keras today make an optimizer that does the same."""

import json
from pathlib import Path

import numpy as np
import pytest

from rmsprop import RMSprop
from rmsprop.schedules import ExponentialDecay, LearningRateSchedule, PiecewiseConstantDecay, deserialize
from rmsprop.settings.checks import SMALLEST_EPSILON

DATA = Path(__file__).parents[1] / "data" / "peer_reference"
RECORD = json.loads((DATA / "cases.json").read_text())["cases"]
CASES = {case["name"]: case for case in RECORD if case["function"] == "keras"}
KERAS_3 = CASES["keras_148"]["config"]
TF_KERAS = {
    "name": "RMSprop",
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": 100,
    "jit_compile": False,
    "is_legacy_optimizer": False,
    "learning_rate": np.float32(0.001),
    "rho": 0.9,
    "momentum": 0.0,
    "epsilon": 1e-07,
    "centered": False,
}
LEGACY = {"name": "RMSprop", "learning_rate": 0.1, "decay": 0.5, "rho": 0.9, "momentum": 0.0, "epsilon": 0.1}


@pytest.mark.parametrize("name", CASES)
def test_trajectory_is_that_of_keras_3_within_4_ulp_per_step(name):
    case, arrays = CASES[name], np.load(DATA / "arrays.npz")
    # Keras computes the factor of clipping by norm in float32, also for float64.
    by_norm = case["config"]["clipnorm"] or case["config"]["global_clipnorm"]
    unit = np.finfo(np.float32 if by_norm else case["dtype"]).eps
    optimizer = RMSprop.from_config(case["config"])
    variables = [np.array(arrays[f"{name}/var{i}"][0]) for i in range(case["n_vars"])]
    for t in range(case["steps"]):
        optimizer.apply_gradients([(arrays[f"{name}/grad{i}"][t], v) for i, v in enumerate(variables)])
        for i, v in enumerate(variables):
            run = arrays[f"{name}/var{i}"][: t + 2]
            # What was lost when a variable was large stays lost when it is small.
            assert (np.abs(v - run[-1]) <= 4 * (t + 1) * unit * np.abs(run).max(0)).all()


@pytest.mark.parametrize("config", [KERAS_3, TF_KERAS], ids=["Keras 3", "tf_keras"])
def test_neutral_keys_pass_and_epsilon_goes_inside(config):
    before = dict(config)
    optimizer = RMSprop.from_config(config)
    assert config == before
    own = {key: value for key, value in config.items() if value is not None and key in LEGACY}
    expected = {**own, "decay": 0.0, "centered": False, "epsilon_in_sqrt": True, "decoupled": True}
    assert optimizer.get_config() == expected
    assert RMSprop.from_config(optimizer.get_config()).get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    "neutral",
    [
        {"weight_decay": 0.0},
        {"use_ema": None},
        {"loss_scale_factor": 1.0},
        {"gradient_accumulation_steps": 1},
        {"jit_compile": True},
    ],
    ids=str,
)
def test_what_changes_nothing_in_keras_is_accepted(neutral):
    assert RMSprop.from_config(KERAS_3 | neutral).epsilon_in_sqrt is True


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("loss_scale_factor", 0.5, ValueError),
        ("epsilon", -0.1, ValueError),
        ("epsilon", None, TypeError),
        ("amsgrad", False, TypeError),
        ("nesterov", None, TypeError),
        ("weight_decay", -0.1, ValueError),
        ("use_ema", "yes", TypeError),
    ],
)
@pytest.mark.parametrize("config", [KERAS_3, TF_KERAS], ids=["Keras 3", "tf_keras"])
def test_what_is_not_known_or_not_neutral_is_refused_by_name(config, key, value, error):
    with pytest.raises(error, match=key):
        RMSprop.from_config(config | {key: value})


@pytest.mark.parametrize("config", [KERAS_3, TF_KERAS], ids=["Keras 3", "tf_keras"])
def test_what_keras_can_do_besides_becomes_the_option_that_does_it(config):
    optimizer = RMSprop.from_config(config | {"weight_decay": 0.25, "use_ema": True, "ema_overwrite_frequency": 3})
    assert (optimizer.weight_decay, optimizer.decoupled) == (0.25, True)
    assert (optimizer.use_ema, optimizer.ema_momentum, optimizer.ema_overwrite_frequency) == (True, 0.99, 3)
    assert RMSprop.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    assert RMSprop.from_config(config | {"gradient_accumulation_steps": 4}).accumulate == 4
    scale = RMSprop.from_config(config | {"loss_scale_factor": 1024.0}).loss_scale
    assert (scale.scale, scale.dynamic) == (1024.0, False)


@pytest.mark.parametrize("config", [KERAS_3, TF_KERAS], ids=["Keras 3", "tf_keras"])
def test_an_epsilon_of_zero_is_none_and_keeps_0_by_0_at_0(config):
    optimizer, v = RMSprop.from_config(config | {"epsilon": 0.0}), np.zeros(2)
    optimizer.apply_gradients([(np.array([0.0, 1e-30]), v)])
    assert (optimizer.epsilon, optimizer.epsilon_in_sqrt) == (SMALLEST_EPSILON, False)
    np.testing.assert_allclose(v, [0.0, -optimizer.learning_rate / (1 - optimizer.rho) ** 0.5], rtol=1e-7)


def test_a_configuration_of_an_early_keras_3_is_known_by_what_it_has_in_the_place_of_decay():
    early = {key: value for key, value in KERAS_3.items() if not key.endswith(("_factor", "_steps"))}
    optimizer = RMSprop.from_config(early | {"weight_decay": 0.25})
    assert (optimizer.decoupled, optimizer.epsilon_in_sqrt) == (True, True)
    own = RMSprop.from_config(RMSprop(weight_decay=0.25).get_config())
    assert (own.decoupled, own.epsilon_in_sqrt) == (False, None)


def test_averages_that_keras_takes_in_each_call_are_refused_with_accumulation():
    with pytest.raises(ValueError, match="use_ema"):
        RMSprop.from_config(KERAS_3 | {"gradient_accumulation_steps": 4, "use_ema": True})


@pytest.mark.parametrize("config", [LEGACY, LEGACY | {"is_legacy_optimizer": True}], ids=str)
def test_a_legacy_configuration_keeps_epsilon_where_the_legacy_optimizer_has_it(config):
    optimizer = RMSprop.from_config(config)
    assert optimizer.epsilon_in_sqrt is None
    assert optimizer.decay == 0.5
    assert RMSprop.from_config(config | {"clipnorm": 0.0}).clipnorm == 0.0
    assert RMSprop.from_config(config | {"epsilon": 0.0}).epsilon == 1e-7


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"clipnorm": 0.0}, (None, None, None)),
        ({"clipvalue": -1.0, "global_clipnorm": 2.0}, (None, 2.0, None)),
        ({"clipvalue": 1.0, "global_clipnorm": 2.0}, (None, 2.0, None)),
        ({"clipvalue": 1.0, "clipnorm": 0.0}, (None, None, 1.0)),
        ({"clipvalue": 1.0, "clipnorm": 3.0}, (3.0, None, None)),
    ],
    ids=str,
)
def test_the_limit_by_which_present_optimizers_of_keras_clip_is_kept_alone(limits, kept):
    optimizer = RMSprop.from_config(TF_KERAS | limits)
    assert (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue) == kept


def test_a_subclass_keeps_a_setting_of_its_own_that_keras_has_too():
    class Decaying(RMSprop):
        def __init__(self, weight_decay=0.0, **settings):
            super().__init__(**settings)
            self.weight_decay = weight_decay

        def get_config(self):
            return super().get_config() | {"weight_decay": self.weight_decay}

    again = Decaying.from_config(Decaying(0.5, epsilon=0.1).get_config())
    assert (again.weight_decay, again.epsilon_in_sqrt) == (0.5, None)


def serialized(name, config, module="keras.optimizers.schedules", registered_name=None):
    return {"module": module, "class_name": name, "config": config, "registered_name": registered_name}


def tensor(value, dtype, kind="__tensor__"):
    """Return what Keras 3 writes for an array, or a number of NumPy."""
    return {"class_name": kind, "config": {"value": value, "dtype": dtype}}


DECAY = {"decay_steps": 3, "decay_rate": 0.7, "staircase": False, "name": "ExponentialDecay"}
SERIALIZED = [
    (
        serialized("ExponentialDecay", {"initial_learning_rate": tensor(0.5, "float32"), **DECAY}),
        ExponentialDecay(0.5, 3, 0.7, name="ExponentialDecay"),
    ),
    (
        serialized(
            "PiecewiseConstantDecay", {"boundaries": tensor([2], "int64"), "values": [tensor(0.5, "f4"), 1]}
        ),
        PiecewiseConstantDecay([2], [0.5, 1]),
    ),
    (
        serialized(
            "PiecewiseConstantDecay",
            {
                "boundaries": {"class_name": "__tuple__", "items": [2]},
                "values": tensor([0.5, 1.0], "f4", "__numpy__"),
            },
        ),
        PiecewiseConstantDecay([2], [0.5, 1]),
    ),
]


@pytest.mark.parametrize(("config", "schedule"), SERIALIZED, ids=["number", "array", "tuple"])
def test_a_schedule_as_keras_3_writes_it_is_read(config, schedule):
    before = json.dumps(config)
    assert deserialize(config) == schedule
    assert RMSprop.from_config(KERAS_3 | {"learning_rate": config}).learning_rate == schedule
    assert json.dumps(config) == before


def test_hyperparameters_that_were_numpys_numbers_are_read():
    assert RMSprop.from_config(KERAS_3 | {"rho": tensor(0.75, "float32")}).rho == 0.75


@pytest.mark.parametrize("module", [None, "mine", "mine.keras"])
def test_a_custom_schedule_of_a_built_in_name_is_not_taken_for_it(module):
    class Mine(LearningRateSchedule):
        pass

    config = serialized("CosineDecay", {}, module, "mine>CosineDecay")
    assert type(deserialize(config, {"mine>CosineDecay": Mine})) is Mine
    with pytest.raises(TypeError, match="custom_objects"):
        deserialize(config)
