"""The conformance suite for backends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmsprop.arrays.indexed_slices import IndexedSlices
from rmsprop.arrays.libraries import Host
from rmsprop.arrays.windows import Windows
from rmsprop.backends import Backend, backend_of
from rmsprop.formula import averaged
from rmsprop.optimizer import RMSprop
from rmsprop.testing.numbers import clip_values, clipped, draw, moved, tolerance, wide
from rmsprop.testing.oracle import assert_step, hyper_of, snapshot
from rmsprop.variables.variable import Variable

AsArray = Callable[[Host], Any]

VARIANTS = [
    {},
    {"momentum": 0.9},
    {"centered": True},
    {"momentum": 0.9, "centered": True},
    {"epsilon_in_sqrt": True, "epsilon": 0.1},
    {"momentum": 0.9, "epsilon_in_sqrt": False, "epsilon": 0.1},
]
OPTIONS: list[dict[str, Any]] = [
    {"weight_decay": 0.1, "bias_correction": True, "maximize": True},
    {"weight_decay": 0.1, "decoupled": True, "initial_accumulator": 1.0},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decoupled": True, "use_ema": True},
    {"momentum": 0.9, "momentum_includes_lr": False, "maximize": True, "bias_correction": True},
    {"weight_decay": 0.1, "bias_correction": True, "centered": True, "initial_accumulator": 1.0},
]
"""What other frameworks compute."""

CLIPPING = [
    {"clipvalue": 0.5},
    {"clipnorm": 0.8},
    {"global_clipnorm": 1.1},
    {"clipvalue": 0.5, "clipnorm": 0.7},
    {"clipnorm": 0.0},
]
WINDOWED: list[dict[str, Any]] = [
    {"momentum": 0.9, "centered": True, "clipvalue": 0.5, "global_clipnorm": 1.0},
    {"lazy": False, "momentum": 0.9, "weight_decay": 0.1, "decoupled": True, "use_ema": True},
]
SHAPES = [(2, 3), (), (1, 0, 2), (33,), (3, 4, 5)]


class BackendTests:
    """Subclass it with a fixture ``asarray``, which turns NumPy arrays into those of the backend."""

    dtypes: tuple[str, ...] = ("float32", "float64", "complex64", "complex128")
    """The dtypes that the arrays may have, by their NumPy names."""

    @pytest.fixture
    def asarray(self) -> AsArray:
        """Return the function that makes the arrays; to be overridden."""
        raise NotImplementedError("a subclass of BackendTests needs the fixture asarray")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the tests that ask for a dtype for each that the backend has."""
        if "dtype" in metafunc.fixturenames:
            metafunc.parametrize("dtype", self.dtypes)

    @pytest.mark.parametrize("settings", VARIANTS + OPTIONS, ids=str)
    def test_steps_are_within_4_ulp_of_the_oracle(
        self, asarray: AsArray, dtype: str, settings: dict[str, Any]
    ) -> None:
        for shape in SHAPES:
            _assert_steps(asarray, dtype, shape, RMSprop(0.05, **settings))

    @pytest.mark.parametrize("settings", VARIANTS[:4], ids=str)
    def test_complex_numbers_can_count_as_two_reals(self, asarray: AsArray, settings: dict[str, Any]) -> None:
        if "complex64" not in self.dtypes:
            pytest.skip("the backend has no complex numbers")
        optimizer = RMSprop(0.05, complex_as_real=True, clipvalue=0.5, **settings)
        _assert_steps(asarray, "complex64", (3, 4), optimizer)

    def test_value_clipping_is_part_of_the_step(self, asarray: AsArray, dtype: str) -> None:
        _assert_steps(asarray, dtype, (7,), RMSprop(0.05, clipvalue=0.5))

    @pytest.mark.parametrize("settings", CLIPPING, ids=str)
    def test_clipping_is_as_if_the_gradients_had_been_clipped_before(
        self, asarray: AsArray, dtype: str, settings: dict[str, Any]
    ) -> None:
        starts = [draw(dtype, shape, seed) for seed, shape in enumerate([(4, 3), (5,)])]
        gradients = [draw(dtype, start.shape, seed) for seed, start in enumerate(starts, 7)]
        one, two = ([Variable(asarray(start)) for start in starts] for _ in range(2))
        RMSprop(0.05, epsilon=0.1, **settings).apply_gradients(zip(map(asarray, gradients), one, strict=True))
        shorter = [g.astype(dtype) for g in clipped(gradients, **settings)]
        RMSprop(0.05, epsilon=0.1).apply_gradients(zip(map(asarray, shorter), two, strict=True))
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(wide(a), wide(b), rtol=tolerance(dtype), atol=tolerance(dtype))

    def test_a_list_is_updated_like_its_members(self, asarray: AsArray, dtype: str) -> None:
        starts = [draw(dtype, shape, seed) for seed, shape in enumerate(SHAPES)]
        together = [Variable(asarray(start)) for start in starts]
        optimizer = RMSprop(0.1, momentum=0.5)
        optimizer.apply_gradients([(asarray(start), v) for start, v in zip(starts, together, strict=True)])
        for start, v in zip(starts, together, strict=True):
            alone = Variable(asarray(start))
            RMSprop(0.1, momentum=0.5).apply_gradients([(asarray(start), alone)])
            np.testing.assert_array_equal(v.numpy(), alone.numpy())

    def test_arrays_keep_their_memory_or_not_as_the_backend_says(self, asarray: AsArray, dtype: str) -> None:
        start = draw(dtype, (5,))
        v, optimizer = Variable(asarray(start)), RMSprop()
        optimizer.build([v])
        arrays = [v.array, optimizer.get_slot(v, "rms").array]
        optimizer.apply_gradients([(asarray(start), v)])
        for before, after in zip(arrays, (v.array, optimizer.get_slot(v, "rms").array), strict=True):
            assert (before is after) == backend_of(before).in_place

    def test_what_the_backend_is_able_to_do_is_what_it_declares(self, asarray: AsArray) -> None:
        backend = backend_of(asarray(np.ones(1, np.float32)))
        for is_able, name in (
            (backend.makes_factors, "factors"),
            (backend.reports_misses, "report_misses"),
            (backend.has_compact_slots, "compact_slot"),
            (backend.adapts_gradients, "adapted"),
        ):
            assert is_able == (getattr(type(backend), name) is not getattr(Backend, name))

    def test_a_view_is_found_in_the_array_that_it_was_taken_from(self, asarray: AsArray) -> None:
        whole = asarray(np.arange(6, dtype=np.float32))
        part = whole[2:4]
        backend = backend_of(whole)
        owner = backend.owner(part, False)
        if owner is not None:
            found = backend.view(owner, backend.place(part, owner))
            assert backend.memory(found) == backend.memory(part)

    def test_slots_are_kept_in_a_smaller_dtype_or_refused(self, asarray: AsArray) -> None:
        start = draw("float32", (2, 3))
        v, optimizer = Variable(asarray(start)), RMSprop(state_dtype="bfloat16")
        if backend_of(v.array).has_compact_slots:
            optimizer.apply_gradients([(asarray(start), v)])
            rms = optimizer.get_slot(v, "rms").numpy()
            np.testing.assert_allclose(rms, 0.1 * start**2, rtol=2.0**-7)
        else:
            with pytest.raises(TypeError, match="state_dtype='bfloat16' needs an array of NumPy or CuPy"):
                optimizer.apply_gradients([(asarray(start), v)])

    def test_a_constraint_gives_the_values_to_keep(self, asarray: AsArray, dtype: str) -> None:
        start = draw(dtype, (5,))
        plain, v = Variable(asarray(start)), Variable(asarray(start), constraint=lambda array: array * 2)
        array = v.array
        for variable in (plain, v):
            RMSprop(0.1, momentum=0.9).apply_gradients([(asarray(start), variable)])
        np.testing.assert_array_equal(wide(v), 2 * wide(plain))
        assert (v.array is array) == backend_of(array).in_place

    def test_a_constraint_that_raises_undoes_the_step(self, asarray: AsArray, dtype: str) -> None:
        starts = [draw(dtype, shape, seed) for seed, shape in enumerate([(4, 3), (5,)])]
        variables = [*(Variable(asarray(start)) for start in starts), Variable(np.ones(2))]
        pairs = [*zip(map(asarray, starts), variables, strict=False), (np.ones(2), variables[-1])]
        optimizer = RMSprop(0.1, momentum=0.9, centered=True)
        optimizer.apply_gradients(pairs)
        before = [*(v.numpy().copy() for v in variables), *(w.copy() for w in optimizer.get_weights())]
        for count, broken in ((2, variables[1]), (3, variables[1]), (3, variables[2])):  # alone and beside NumPy
            broken.constraint = _broken
            with pytest.raises(ZeroDivisionError):
                optimizer.apply_gradients(pairs[:count])
            broken.constraint = None
            after = [*(v.numpy() for v in variables), *optimizer.get_weights()]
            for a, b in zip(after, before, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_files_bring_back_variables_and_slots(self, asarray: AsArray, dtype: str, tmp_path: Path) -> None:
        start = draw(dtype, (5,))
        v, optimizer = Variable(asarray(start), name="v"), RMSprop(0.1, momentum=0.9, centered=True)
        optimizer.apply_gradients([(asarray(start), v)])
        optimizer.save(tmp_path / "x.safetensors", [v])
        arrays = [v.array, *(optimizer.get_slot(v, name).array for name in ("rms", "momentum", "mg"))]
        results = []
        for _ in range(2):
            optimizer.apply_gradients([(asarray(start), v)])
            results.append([v.numpy().copy(), *(w.copy() for w in optimizer.get_weights())])
            optimizer.restore(tmp_path / "x.safetensors", [v])
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(a, b)
        if backend_of(v.array).in_place:
            held = [v.array, *(optimizer.get_slot(v, name).array for name in ("rms", "momentum", "mg"))]
            assert all(a is b for a, b in zip(arrays, held, strict=True))

    def test_numbers_are_taken_from_wherever_they_lie_in_memory(self, asarray: AsArray, dtype: str) -> None:
        start = draw(dtype, (5,))
        v, optimizer = Variable(asarray(start)), RMSprop(momentum=0.9, centered=True)
        optimizer.apply_gradients([(asarray(start), v)])
        value, weights = v.numpy().copy(), optimizer.get_weights()
        for offset in range(1, 16):
            v.assign(moved(value, offset))
            optimizer.set_weights([moved(weight, offset) for weight in weights])
            for a, b in zip([v.numpy(), *optimizer.get_weights()], [value, *weights], strict=True):
                np.testing.assert_array_equal(a, b)

    def test_gradients_are_not_modified(self, asarray: AsArray, dtype: str) -> None:
        start = draw(dtype, (5,))
        gradient, v = asarray(start), Variable(asarray(start))
        RMSprop(clipvalue=0.1, clipnorm=0.1).apply_gradients([(gradient, v)])
        np.testing.assert_array_equal(Variable(gradient).numpy(), start)

    @pytest.mark.parametrize("settings", VARIANTS + OPTIONS, ids=str)
    def test_listed_rows_are_updated_by_the_sum_of_their_gradients(
        self, asarray: AsArray, dtype: str, settings: dict[str, Any]
    ) -> None:
        table = Variable(asarray(draw(dtype, (6, 3))))
        optimizer = RMSprop(0.05, clipvalue=0.5, **settings)
        optimizer.build([table])
        for seed, rows in enumerate([[1, 4], [4, 0, 4, 4], [], [5]]):
            values = draw(dtype, (len(rows), 3), seed)
            before, hyper = snapshot(optimizer, table), hyper_of(optimizer)
            optimizer.apply_gradients([(IndexedSlices(asarray(values), asarray(np.array(rows, int))), table)])
            after = snapshot(optimizer, table)
            used = sorted(set(rows))
            limited = clip_values(values, 0.5)
            total = np.array([sum((limited[i] for i, r in enumerate(rows) if r == row)) for row in used])
            if used:
                wide_limit = hyper._replace(clipvalue=10.0)  # the total has been clipped, part by part
                assert_step(_rows(before, used), _rows(after, used), total, wide_limit, dtype)
            others = [row for row in range(6) if row not in used]
            for x, y in zip(_rows(before, others)[:4], _rows(after, others)[:4], strict=True):
                np.testing.assert_array_equal(x, y)
            if hyper.ema_momentum is not None:  # the average is that of all rows
                mean, error = averaged(before.average, wide(table), hyper.numbers_of()), tolerance(dtype)
                np.testing.assert_allclose(np.asarray(after.average), mean, rtol=error, atol=error)

    def test_averages_of_other_rows_decay_if_not_lazy(self, asarray: AsArray) -> None:
        table = Variable(asarray(np.ones((3, 2), np.float32)))
        optimizer = RMSprop(0.05, rho=0.5, centered=True, lazy=False)
        for rows in ([0, 1], [1]):
            values = np.full((len(rows), 2), 2.0, np.float32)
            optimizer.apply_gradients([(IndexedSlices(asarray(values), asarray(np.array(rows))), table)])
        np.testing.assert_array_equal(optimizer.get_slot(table, "rms").numpy()[:, 0], [1.0, 3.0, 0.0])
        np.testing.assert_array_equal(optimizer.get_slot(table, "mg").numpy()[:, 0], [0.5, 1.5, 0.0])
        assert table.numpy()[2, 0] == 1

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_other_rows_shrink_if_not_lazy_and_weight_decay_is_decoupled(
        self, asarray: AsArray, dtype: str, momentum: float
    ) -> None:
        tables = [Variable(asarray(draw(dtype, (6, 3)))) for _ in range(2)]
        of_all = wide(tables[0])
        for table, lazy in zip(tables, (True, False), strict=True):
            optimizer = RMSprop(0.5, lazy=lazy, weight_decay=0.5, decoupled=True, momentum=momentum)
            for rows in ([1, 4, 1], []):
                values = draw(dtype, (len(rows), 3))
                optimizer.apply_gradients([(IndexedSlices(asarray(values), asarray(np.array(rows, int))), table)])
        lazy_one, whole = map(wide, tables)
        np.testing.assert_array_equal(lazy_one[[0, 2, 3, 5]], of_all[[0, 2, 3, 5]])
        of_all[[1, 4]] = lazy_one[[1, 4]] / 0.75  # in the second step, all shrink
        np.testing.assert_allclose(whole, of_all * 0.75**2, rtol=(t := 4 * tolerance(dtype)), atol=t)

    @pytest.mark.parametrize("rows", [[-1], [3]])
    def test_rows_out_of_range_are_refused(self, asarray: AsArray, rows: list[int]) -> None:
        table = Variable(asarray(np.ones((3, 2), np.float32)))
        gradient = IndexedSlices(asarray(np.ones((1, 2), np.float32)), asarray(np.array(rows)))
        with pytest.raises(ValueError, match="indices must be >= 0 and < 3"):
            RMSprop(validate=backend_of(table.array).reports_misses).apply_gradients([(gradient, table)])
        assert (table.numpy() == 1).all()

    @pytest.mark.parametrize("settings", WINDOWED, ids=str)
    def test_windows_are_updated_like_the_same_elements_of_a_flat_variable_or_refused(
        self, asarray: AsArray, dtype: str, settings: dict[str, Any]
    ) -> None:
        start, starts = draw(dtype, (4, 5)), np.array([[0, 0], [1, 1], [1, 2], [1, 1]])
        variables = [Variable(asarray(start)), Variable(asarray(start.reshape(-1)))]
        optimizers = [RMSprop(0.05, **settings) for _ in variables]
        for seed, given in enumerate([starts, asarray(starts), starts[:0]]):
            windows = Windows(asarray(draw(dtype, (given.shape[0], 2, 3), seed)), given)
            if not backend_of(variables[0].array).takes_windows:
                with pytest.raises(TypeError, match="takes no Windows; expected a dense gradient"):
                    optimizers[0].apply_gradients([(windows, variables[0])])
                return
            gradients = windows, windows.indexed((4, 5))
            for gradient, v, optimizer in zip(gradients, variables, optimizers, strict=True):
                optimizer.apply_gradients([(gradient, v)])
        found = [[v.numpy(), *opt.get_weights()] for v, opt in zip(variables, optimizers, strict=True)]
        for a, b in zip(*found, strict=True):
            np.testing.assert_array_equal(np.ravel(a), np.ravel(b))

    @pytest.mark.parametrize("start", [-1, 2])
    def test_windows_out_of_range_are_refused(self, asarray: AsArray, start: int) -> None:
        v = Variable(asarray(np.ones((3, 4), np.float32)))
        windows = Windows(asarray(np.ones((1, 2, 2), np.float32)), np.array([[start, 1]]))
        with pytest.raises((TypeError, ValueError), match=r"takes no Windows|so that it lies inside of \(3, 4\)"):
            RMSprop().apply_gradients([(windows, v)])
        assert (v.numpy() == 1).all()

    def test_what_is_not_finite_stays_visible(self, asarray: AsArray) -> None:
        v = Variable(asarray(np.ones(3, np.float32)))
        RMSprop(clipvalue=0.5).apply_gradients([(asarray(np.array([np.nan, 1, 2], np.float32)), v)])
        assert np.isnan(v.numpy()).tolist() == [True, False, False]

    def test_a_gradient_that_is_not_finite_leaves_out_the_step(self, asarray: AsArray, dtype: str) -> None:
        starts = [draw(dtype, shape, seed) for seed, shape in enumerate([(4, 3), (5,)])]
        plain, careful = ([Variable(asarray(start)) for start in starts] for _ in range(2))
        usual, other = RMSprop(0.1, momentum=0.9), RMSprop(0.1, momentum=0.9, nonfinite="skip")
        spoilt = starts[1].copy()
        spoilt[-1] = np.inf
        for second in (spoilt, starts[1], spoilt):
            if second is not spoilt:
                usual.apply_gradients(zip(map(asarray, starts), plain, strict=True))
            other.apply_gradients(zip(map(asarray, (starts[0], second)), careful, strict=True))
        assert (other.skipped, int(other.iterations)) == (2, 1)
        for a, b in zip(plain, careful, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
        other.nonfinite = "raise"
        rows = IndexedSlices(asarray(spoilt[-1:].reshape(1, 1).repeat(3, 1)), asarray(np.array([1])))
        with pytest.raises(FloatingPointError, match="Gradient of variable 1 "):
            other.apply_gradients([(asarray(starts[1]), careful[1]), (rows, careful[0])])

    def test_weights_move_to_numpy_and_back(self, asarray: AsArray, dtype: str) -> None:
        start = draw(dtype, (4,))
        one, two = Variable(asarray(start)), Variable(asarray(start))
        first, second = RMSprop(momentum=0.5, centered=True), RMSprop(momentum=0.5, centered=True)
        first.apply_gradients([(asarray(start), one)])
        second.build([two])
        second.set_weights(first.get_weights())
        two.assign(one.array)
        for optimizer, v in ((first, one), (second, two)):
            optimizer.apply_gradients([(asarray(start), v)])
        for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def _broken(array: Any) -> Any:
    return 1 / 0


def _assert_steps(asarray: AsArray, dtype: str, shape: tuple[int, ...], optimizer: RMSprop) -> None:
    """Take some steps and compare each with the oracle."""
    variable = Variable(asarray(draw(dtype, shape)))
    optimizer.build([variable])
    for seed in range(4):
        gradient = draw(dtype, shape, seed)
        before, hyper = snapshot(optimizer, variable), hyper_of(optimizer)
        optimizer.apply_gradients([(asarray(gradient), variable)])
        assert_step(before, snapshot(optimizer, variable), gradient, hyper, dtype)


def _rows(state: Any, rows: list[int]) -> Any:
    return type(state)(*(None if x is None else x[rows] for x in state))
