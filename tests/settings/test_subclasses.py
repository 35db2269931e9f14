"""What a subclass of `RMSprop` may define, and what is refused by name since it would have no effect."""

import copy
import pickle

import numpy as np
import pytest

from rmsprop import RMSprop
from rmsprop.settings.keras_hooks import KERAS_HOOKS


class Mine(RMSprop):
    """A subclass with attributes and methods of its own."""

    def __init__(self, tag="mine", **settings):
        super().__init__(**settings)
        self.tag, self.history = tag, []

    def apply_gradients(self, *given, **more):
        self.history.append(int(self.iterations))
        return super().apply_gradients(*given, **more)


@pytest.mark.parametrize("kind", [RMSprop, Mine])
@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("learnig_rate", "learning_rate"),
        ("Learning_Rate", "learning_rate"),
        ("learningrate", "learning_rate"),
        ("centred", "centered"),
        ("momentun", "momentum"),
        ("clip_norm", "clipnorm"),
        ("global_clip_norm", "global_clipnorm"),
        ("nonfinit", "nonfinite"),
        ("epsilon_in_sqr", "epsilon_in_sqrt"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_name_that_was_meant(kind, misspelt, meant):
    opt = kind()
    before = opt.get_config()
    with pytest.raises(AttributeError, match=f"{kind.__name__} has no setting '{misspelt}'; '{meant}' was meant"):
        setattr(opt, misspelt, 0.5)
    assert opt.get_config() == before
    assert not hasattr(opt, misspelt)


def test_an_optimizer_takes_no_attributes_that_are_no_settings_but_subclasses_do():
    with pytest.raises(AttributeError, match=r"has no setting 'tag'\. Expected one of name, "):
        RMSprop().tag = 1
    opt, w = Mine(momentum=0.5), np.ones(2)
    opt.weight_decay, opt.tag, opt.learning_rate = 0.1, "other", 0.25
    opt.apply_gradients([(np.ones(2), w)])
    for twin in (opt, copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):
        assert (twin.tag, twin.history, twin.learning_rate, twin.weight_decay) == ("other", [0], 0.25, 0.1)


@pytest.mark.parametrize("hook", sorted(KERAS_HOOKS))
def test_hooks_of_keras_are_refused_since_nothing_would_call_them(hook):
    def never_called(self, *given, **more):
        raise AssertionError

    with pytest.raises(TypeError, match=f"Hooked defines {hook}, which Keras would call"):
        type("Hooked", (RMSprop,), {hook: never_called})
    mixin = type("Mixin", (), {hook: never_called})
    with pytest.raises(TypeError, match=f"Mixin defines {hook}"):
        type("Mixed", (RMSprop, mixin), {})
    assert type("Further", (Mine,), {"step": never_called})().tag == "mine"
