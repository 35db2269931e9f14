"""Any sequence of calls, beside a model that knows what each of them has to do to every number."""

import copy
import pickle
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rmsprop import IndexedSlices, RMSprop, Variable, schedules
from rmsprop.arrays import dtypes
from rmsprop.formula import SLOTS, VariableState
from rmsprop.testing import hyper_of
from rmsprop.testing.oracle import assert_step

DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64", "complex64", "complex128"]
SHAPES = [(), (0,), (5,), (4, 3), (2, 0), (2, 3, 2)]
LAYOUTS = {
    "contiguous": lambda a: a,
    "Fortran": np.asfortranarray,
    "gaps": lambda a: np.stack([a, a], -1)[..., 0],
    "reversed": lambda a: a[(slice(None, None, -1),) * a.ndim].copy()[(slice(None, None, -1),) * a.ndim],
}
LAYOUT = st.sampled_from(sorted(LAYOUTS))
SCHEDULE = {"initial_learning_rate": 0.5, "decay_steps": 3, "decay_rate": 0.5}
SETTINGS = {
    "learning_rate": st.sampled_from([0.0, 0.01, 0.25]),
    "rho": st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    "momentum": st.sampled_from([0.5, 1.0]),
    "epsilon": st.sampled_from([1e-7, 1.0]),
    "decay": st.sampled_from([0.0, 0.1]),
    "clipvalue": st.sampled_from([None, 0.75]),
    "weight_decay": st.sampled_from([0.0, 0.25]),
    "decoupled": st.booleans(),
    "nesterov": st.booleans(),
    "momentum_includes_lr": st.booleans(),
    "maximize": st.booleans(),
}
"""Those that can be changed between steps."""


def numbers(draw, shape, dtype):
    """Return an array of numbers that have few bits, so that sums of them are exact."""
    size = int(np.prod(shape)) * (2 if np.dtype(dtype).kind == "c" else 1)
    drawn = draw(st.lists(st.integers(-8, 8), min_size=size, max_size=size))
    parts = np.array(drawn, float) / 4
    wide = parts[::2] + 1j * parts[1::2] if np.dtype(dtype).kind == "c" else parts
    array = wide.astype(dtype).reshape(shape)
    return LAYOUTS[draw(LAYOUT)](array) if shape else array


def plain(variable):
    return variable.array if isinstance(variable, Variable) else variable


class Sequence(RuleBasedStateMachine):
    """An optimizer and its variables; `model` is what they have to be, to the bit, after each call."""

    @initialize(
        fixed=st.fixed_dictionaries(
            {
                "centered": st.booleans(),
                "epsilon_in_sqrt": st.sampled_from([None, False, True]),
                "complex_as_real": st.booleans(),
                "nonfinite": st.sampled_from(["propagate", "skip", "raise"]),
                "state_dtype": st.sampled_from([None, None, None, "bfloat16", "uint8"]),
            }
        ),
        changing=st.fixed_dictionaries({**SETTINGS, "momentum": st.sampled_from([0.0, 0.5])}),
        is_scheduled=st.booleans(),
        data=st.data(),
    )
    def start(self, fixed, changing, is_scheduled, data):
        if is_scheduled:
            changing = {**changing, "learning_rate": schedules.ExponentialDecay(**SCHEDULE)}
        self.settings = {**fixed, **changing}
        self.opt = RMSprop(**self.settings)
        self.variables, self.known, self.model = [], [], []
        self.iterations = self.skipped = 0
        self.add_a_variable(data, (4, 3), is_wrapped=False, is_built=False)

    def array(self, i):
        return plain(self.variables[i])

    def seen(self, i):
        """Return a variable and its slots; those that are still to be created as zeros."""
        array, slots = self.array(i), []
        for name in VariableState._fields[1:4]:
            try:
                slots.append(self.opt.get_slot(self.variables[i], name).numpy())
            except KeyError:
                dtype = SLOTS[name].dtype(dtypes.name_of(array.dtype), self.settings["complex_as_real"])
                slots.append(np.zeros(array.shape, dtype))
        return VariableState(array.copy(), *slots)

    def learning_rate(self):
        rate = self.settings["learning_rate"]
        if not isinstance(rate, float):
            rate = SCHEDULE["initial_learning_rate"] * 0.5 ** (self.iterations / SCHEDULE["decay_steps"])
        return rate / (1 + self.settings["decay"] * self.iterations)

    @rule(data=st.data(), shape=st.sampled_from(SHAPES), is_wrapped=st.booleans(), is_built=st.booleans())
    @precondition(lambda self: len(self.variables) < 4)
    def add_a_variable(self, data, shape, is_wrapped, is_built):
        array = numbers(data.draw, shape, data.draw(st.sampled_from(DTYPES)))
        self.variables.append(Variable(array, name=f"v{len(self.variables)}") if is_wrapped else array)
        self.model.append(self.seen(len(self.model)))
        if is_built:
            self.opt.build([self.variables[-1]])
            self.known.append(len(self.model) - 1)

    def gradient(self, data, i):
        """Draw a gradient; return it as it is given, as an array, and the rows that it changes."""
        array = self.array(i)
        is_compact = self.settings["state_dtype"] is not None
        if array.ndim < 2 or is_compact or not data.draw(st.booleans()):
            dense = numbers(data.draw, array.shape, array.dtype)
            return dense, dense, ...
        rows = data.draw(st.lists(st.integers(0, len(array) - 1), max_size=4))
        values = numbers(data.draw, (len(rows), *array.shape[1:]), array.dtype)
        limit = self.settings["clipvalue"]
        summands = values
        if limit is not None:
            modulus = np.maximum(np.abs(values), limit).astype(values.real.dtype)
            summands = (values * (np.asarray(limit, modulus.dtype) / modulus)).astype(values.dtype)
            rows = sorted(set(rows))
            values, summands = values[: len(rows)], summands[: len(rows)]
        total = np.zeros_like(array)
        np.add.at(total, rows, values)
        return IndexedSlices(values, np.array(rows, int)), total, sorted(set(rows))

    @rule(data=st.data(), count=st.integers(1, 3))
    def steps(self, data, count):
        for _ in range(count):
            chosen = data.draw(st.lists(st.sampled_from(range(len(self.variables))), unique=True, min_size=1))
            drawn = {i: self.gradient(data, i) for i in chosen}
            missing = [(None, v) for i, v in enumerate(self.variables) if i not in chosen]
            self.step(drawn, missing)

    def step(self, drawn, missing):
        hyper = hyper_of(self.opt)
        assert hyper.learning_rate == pytest.approx(self.learning_rate(), rel=1e-12)
        twin, twins = pickle.loads(pickle.dumps((self.opt, self.variables)))
        given = [(gradient, self.variables[i]) for i, (gradient, *_) in drawn.items()]
        assert self.opt.apply_gradients(given + missing) is self.opt.iterations
        twin.apply_gradients([(gradient, twins[i]) for i, (gradient, *_) in drawn.items()])
        self.iterations += 1
        self.known += [i for i in drawn if i not in self.known]
        for i, (_, dense, rows) in drawn.items():
            before, self.model[i] = self.model[i], self.seen(i)
            assert plain(twins[i]).tobytes() == self.model[i].variable.tobytes()
            self.assert_rows(before, self.model[i], dense, rows, hyper)

    def assert_rows(self, before, after, dense, rows, hyper):
        if rows is not ...:
            others = np.setdiff1d(np.arange(len(dense)), rows)
            for a, b in zip(before[:4], after[:4], strict=True):
                assert a[others].tobytes() == b[others].tobytes()
        if hyper.state_dtype is None:
            used = "variable", *hyper.slots
            part = [
                VariableState(*(getattr(s, f)[rows] if f in used else None for f in s._fields))
                for s in (before, after)
            ]
            assert_step(*part, dense[rows], hyper)

    @rule(data=st.data(), number=st.sampled_from([np.nan, np.inf]))
    @precondition(
        lambda self: any(self.array(i).size for i in self.known) and self.settings["nonfinite"] != "propagate"
    )
    def step_with_a_number_that_is_not_finite(self, data, number):
        i = data.draw(st.sampled_from([i for i in self.known if self.array(i).size]))
        pairs = [(np.ones_like(self.array(k)), self.variables[k]) for k in self.known if k != i]
        bad = numbers(data.draw, self.array(i).shape, self.array(i).dtype)
        bad = np.where(np.arange(bad.size).reshape(bad.shape) == bad.size // 2, bad.dtype.type(number), bad)
        if self.settings["nonfinite"] == "raise":
            with pytest.raises(FloatingPointError):
                self.opt.apply_gradients([*pairs, (bad, self.variables[i])])
        else:
            self.opt.apply_gradients([*pairs, (bad, self.variables[i])])
            self.skipped += 1

    @rule(kind=st.sampled_from(["shape", "twice", "none", "kind", "setting"]))
    @precondition(lambda self: self.known)
    def a_call_that_fails(self, kind):
        pairs = [(np.ones_like(self.array(i)), self.variables[i]) for i in self.known]
        gradient, variable = pairs[-1]
        with pytest.raises((ValueError, TypeError)):
            if kind == "setting":
                self.opt.rho = 2.0
            self.opt.apply_gradients(
                {
                    "shape": [*pairs[:-1], (np.ones((7, 7), gradient.dtype), variable)],
                    "twice": [*pairs, pairs[0]],
                    "none": [(None, variable)],
                    "kind": [*pairs[:-1], (np.full(gradient.shape, "x"), variable)],
                }[kind]
            )

    @rule(data=st.data(), name=st.sampled_from(sorted(SETTINGS)))
    def change_a_setting(self, data, name):
        self.settings[name] = data.draw(SETTINGS[name])
        setattr(self.opt, name, self.settings[name])

    @rule(data=st.data())
    @precondition(lambda self: self.settings["state_dtype"] is None)
    def set_weights(self, data):
        slots = self.opt.weights[1:]
        weights = [numbers(data.draw, slot.shape, slot.dtype) for slot in slots]
        weights = [w.real**2 + 1j * w.imag**2 if w.dtype.kind == "c" else w**2 for w in weights]
        weights = [w.astype(slot.dtype) for w, slot in zip(weights, slots, strict=True)]
        self.iterations = data.draw(st.integers(0, 20))
        self.opt.set_weights([np.array(self.iterations), *weights])
        self.model = [self.seen(i) for i in range(len(self.model))]
        assert [w.tobytes() for w in self.opt.get_weights()[1:]] == [w.tobytes() for w in weights]

    @rule()
    def give_weights_back(self):
        self.opt.set_weights(self.opt.get_weights())

    @rule()
    def pickle(self):
        self.opt, self.variables = pickle.loads(pickle.dumps((self.opt, self.variables)))

    @rule()
    def copy(self):
        self.opt = copy.deepcopy(self.opt)

    @rule(is_in_background=st.booleans())
    @precondition(lambda self: self.known)
    def save_and_restore(self, is_in_background):
        named = {f"v{i}": self.variables[i] for i in self.known}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "all.safetensors")
            weights = [w.tobytes() for w in self.opt.get_weights()]
            saving = self.opt.save(path, named, wait=not is_in_background)
            for i in self.known:
                self.array(i)[...] = 7
            if saving is not None:
                saving.wait()
            self.opt = RMSprop(**self.settings)
            self.opt.restore(path, named)
        assert [w.tobytes() for w in self.opt.get_weights()] == weights

    @rule()
    @precondition(lambda self: self.known)
    def load(self):
        known = [self.variables[i] for i in self.known]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "state.safetensors")
            self.opt.save(path, known)
            self.opt = RMSprop.load(path)
        self.opt.build(known)

    @invariant()
    def all_is_as_the_model_says(self):
        assert int(self.opt.iterations) == self.iterations
        assert self.opt.skipped == self.skipped
        for i, model in enumerate(self.model):
            for field, a, b in zip(model._fields[:4], model[:4], self.seen(i)[:4], strict=True):
                assert a.tobytes() == b.tobytes(), f"{field} of variable {i}: {b} instead of {a}"
        note(f"{self.settings}")


TestSequence = Sequence.TestCase
TestSequence.settings = settings(max_examples=settings().max_examples // 40, stateful_step_count=20)
