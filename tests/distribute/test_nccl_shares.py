"""State on GPUs that is sharded over NCCL: its arithmetic, done by threads, each of them a rank."""

import runpy
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import rmsprop
from rmsprop import IndexedSlices, RMSprop, Variable, Windows
from rmsprop.distribute import ReplicaError

cupy = pytest.importorskip("cupy", reason="CuPy is in the extras 'cuda12', 'cuda13' and 'rocm'")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device"),
]
kernels = pytest.importorskip("rmsprop_cupy.kernels")
_threads = runpy.run_path(str(Path(__file__).parent / "programs" / "rank_threads.py"))
Threaded, World = _threads["Threaded"], _threads["World"]

LAYOUTS = {
    "vector": lambda a: a((101,)),
    "smaller than the ranks": lambda a: a((2,)),
    "number": lambda a: a(()),
    "empty": lambda a: a((0, 3)),
    "matrix": lambda a: a((7, 11)),
    "Fortran": lambda a: cupy.asfortranarray(a((6, 5))),
    "strided": lambda a: a((8, 9))[::2, ::-2],
    "transposed": lambda a: a((2, 3, 4)).transpose(2, 0, 1),
}
SETTINGS = {
    "plain": {},
    "momentum, centered": {"momentum": 0.9, "centered": True},
    "nesterov, decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "bias_correction": True},
    "clipvalue": {"clipvalue": 0.3, "complex_as_real": True},
    "clipnorm": {"clipnorm": 0.5, "momentum": 0.9},
    "global_clipnorm": {"global_clipnorm": 2.0, "centered": True},
    "skip": {"nonfinite": "skip", "initial_accumulator": 0.5},
    "averages": {"use_ema": True, "ema_overwrite_frequency": 2},
    "accumulated": {"accumulate": 2},
    "transformed": {"gradient_transformers": [lambda pairs: [(2 * g, v) for g, v in pairs]]},
}


@pytest.fixture
def without_fusion(monkeypatch):
    """Compile kernels in which no product is fused with a sum, as one may be in one layout and not in another."""
    monkeypatch.setattr(kernels, "OPTIONS", ("-fmad=false", "-ftz=false"))


def made(dtypes, seed, layouts=LAYOUTS):
    """Return CuPy arrays of all layouts, on the current device."""
    found = []
    for name in dtypes:
        dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
        for layout in layouts:
            rng = np.random.default_rng([seed, len(found)])

            def array(shape, rng=rng, dtype=dtype):
                values = rng.standard_normal((2, *shape))
                values = values[0] + 1j * values[1] if dtype.kind == "c" else values[0]
                return cupy.asarray(np.asarray(values).astype(dtype))

            found.append(LAYOUTS[layout](array))
    return found


class Training:
    """An optimizer of a rank with variables, and gradients that are its own.

    Rank 0 has the values that count.
    """

    def __init__(self, strategy, dtypes, options, layouts=LAYOUTS):
        self.strategy, self.dtypes, self.layouts = strategy, dtypes, layouts
        scale = {"loss_scale": rmsprop.LossScale(8.0)} if options.get("nonfinite") == "skip" else {}
        with strategy.scope():
            self.opt = RMSprop(0.01, **options, **scale)
        self.arrays = made(dtypes, strategy.rank, layouts)
        self.opt.build(self.arrays)
        self.opt.group(self.arrays[::3], lr_mult=0.5, wd_mult=2.0)

    def step(self, number):
        grads = made(self.dtypes, 1000 * (number + 1) + self.strategy.rank, self.layouts)
        pairs = list(zip(grads, self.arrays, strict=True))
        return self.strategy.run(self.opt.apply_gradients, args=(pairs,))

    def content(self):
        """Return the bits of variables and slots, for which all ranks have to ask."""
        return [v.get().tobytes() for v in self.arrays] + [w.tobytes() for w in self.opt.get_weights()]

    def own(self):
        """Return the bits that are on this rank."""
        slots = [v.own if hasattr(v, "own") else v.array for v in self.opt.weights[1:]]
        return [array.get().tobytes() for array in (*self.arrays, *slots)]


def trained(ranks, shard_state, dtypes, options, layouts=LAYOUTS, **buckets):
    """Return what variables and slots are on each rank after some steps."""
    world = World(ranks)

    def program(rank):
        training = Training(Threaded(world, rank, shard_state, **buckets), dtypes, options, layouts)
        for number in range(4):
            training.step(number)
        return training.content()

    return world.run(program)


@pytest.mark.parametrize(("name", "ranks"), [*[(name, 3) for name in SETTINGS], ("momentum, centered", 2)])
def test_shares_come_to_the_same_bits_as_whole_state(name, ranks, without_fusion):
    dtypes = ["float32", "complex64"]
    whole = trained(ranks, False, dtypes, SETTINGS[name])
    assert trained(ranks, True, dtypes, SETTINGS[name]) == whole
    assert whole == [whole[0]] * ranks


@pytest.mark.parametrize("name", ["momentum, centered", "global_clipnorm", "averages"])
def test_shares_of_arrays_without_gaps_come_to_the_same_bits_with_products_fused(name):
    dtypes, layouts = ["float32", "complex64", "complex128"], ["vector", "number", "matrix"]
    whole = trained(3, False, dtypes, SETTINGS[name], layouts)
    assert trained(3, True, dtypes, SETTINGS[name], layouts) == whole


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128", "float16", "bfloat16"])
def test_shares_of_every_dtype_come_to_the_same_bits_in_buckets_of_any_size(dtype, without_fusion):
    options = {"momentum": 0.9, "centered": True}
    whole = trained(4, False, [dtype], options)
    for bucket_bytes in (100, 2**20):
        assert trained(4, True, [dtype], options, bucket_bytes=bucket_bytes) == whole


def test_whole_and_sharded_replicas_do_what_one_process_does_that_adds_up_the_gradients(without_fusion):
    ranks, dtypes, world = 3, ["float32", "float64"], World(3)
    alone, opt = made(dtypes, 0), RMSprop(0.01, momentum=0.9)
    for number in range(4):
        grads = [made(dtypes, 1000 * (number + 1) + rank) for rank in range(ranks)]
        sums = [sum(parts[1:], parts[0]) for parts in zip(*grads, strict=True)]
        opt.apply_gradients(list(zip(sums, alone, strict=True)))

    def program(rank):
        training = Training(Threaded(world, rank, True), dtypes, {"momentum": 0.9})
        training.opt.group(training.arrays, lr_mult=1.0, wd_mult=1.0)
        for number in range(4):
            training.step(number)
        return training.content()

    expected = [v.get().tobytes() for v in alone] + [w.tobytes() for w in opt.get_weights()]
    assert world.run(program) == [expected] * ranks


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (4, 1), (1, 4)])
def test_a_file_of_any_number_of_ranks_is_restored_on_any_other(before, after, tmp_path, without_fusion):
    path, dtypes, options = tmp_path / "file", ["float32", "float16"], SETTINGS["momentum, centered"]

    def saving(world, rank):
        training = Training(Threaded(world, rank, before > 1), dtypes, options)
        for number in range(2):
            training.step(number)
        training.opt.save(path, training.arrays)
        return training.content()

    def restoring(world, rank, is_sharded):
        training = Training(Threaded(world, rank, is_sharded), dtypes, options)
        training.opt.restore(path, training.arrays)
        loaded = training.content()
        twin = Training(Threaded(world, rank, is_sharded), dtypes, options)
        for array, source in zip(twin.arrays, training.arrays, strict=True):
            array[...] = source
        twin.opt.set_weights(training.opt.get_weights())
        for each in (training, twin):
            each.step(7)
        assert twin.content() == training.content()
        return loaded, training.content()

    world, other = World(before), World(after)
    saved = world.run(lambda rank: saving(world, rank))
    whole, shared = (other.run(lambda rank, s=s: restoring(other, rank, s and after > 1)) for s in (False, True))
    assert whole == shared
    assert all(loaded == saved[0] for loaded, _ in shared)


def test_each_rank_has_its_share_of_the_slots_and_sends_no_sums_back():
    world, layouts = World(3), ["vector", "smaller than the ranks", "matrix", "strided"]

    def program(rank):
        strategy = Threaded(world, rank, True, 2**20)
        training = Training(strategy, ["float32"], {"momentum": 0.9}, layouts)
        training.step(0)
        strategy.communicator.calls.clear()
        training.step(1)
        slots = training.opt.weights[1:]
        whole = [slot.array for slot in slots]
        assert {array.device.id for array in whole} == {cupy.cuda.Device().id}
        assert [array.size for array in whole] == 2 * [a.size for a in training.arrays]
        average = slots[0].assign(whole[0] + 1)
        np.testing.assert_array_equal(average.numpy(), whole[0].get() + 1)
        return strategy.communicator.calls, [slot.own.size for slot in slots]

    (calls, *others), sizes = zip(*world.run(program), strict=True)
    columns = sum(-(-size // 3) for size in (101, 2, 77, 20))
    assert calls == [("reduceScatter", columns, 7), ("allGather", 4 * columns, 1)]
    assert others == [calls] * 2
    assert [sum(each) for each in zip(*sizes, strict=True)] == 2 * [101, 2, 77, 20]
    assert [each[:4] for each in sizes] == [[34, 1, 26, 7], [34, 1, 26, 7], [33, 0, 25, 6]]


@pytest.mark.parametrize("name", ["momentum, centered", "clipnorm"])
def test_slots_and_values_that_are_given_between_steps_count_as_with_whole_state(name, without_fusion):
    world, layouts = World(2), ["vector", "Fortran", "strided", "transposed", "matrix"]

    def program(rank, shard_state):
        training = Training(Threaded(world, rank, shard_state), ["float32"], SETTINGS[name], layouts)
        for number in range(4):
            training.step(number)
            for k, array in enumerate(training.arrays[number:]):
                training.opt.add_slot(array, f"slot {number} {k}")
            for array in training.arrays:
                array *= 0.5
        return [array.get().tobytes() for array in training.arrays]

    whole, shared = (world.run(lambda rank, s=s: program(rank, s)) for s in (False, True))
    assert shared == whole


def test_a_sum_that_is_not_finite_is_left_out_by_all_ranks():
    world = World(3)

    def program(rank):
        training = Training(Threaded(world, rank, True), ["float32"], {"nonfinite": "skip"})
        training.step(0)
        before, grads = training.content(), made(["float32"], 5)
        grads[0][100 * (rank == 1)] = np.nan if rank == 1 else 1
        training.opt.apply_gradients(list(zip(grads, training.arrays, strict=True)))
        assert training.content() == before
        assert (training.opt.skipped, int(training.opt.iterations)) == (1, 1)
        training.step(1)
        return training.content() != before

    assert all(world.run(program))


def test_what_can_not_be_sharded_is_refused_before_anything_changes():
    world = World(2)
    rows = IndexedSlices(np.ones((1, 11), np.float32), np.zeros(1, int))

    def program(rank):
        training = Training(Threaded(world, rank, True), ["float32"], {})
        training.step(0)
        before, (table,) = training.content(), [a for a in training.arrays if a.shape == (7, 11)]
        sparse = IndexedSlices(cupy.asarray(rows.values), cupy.asarray(rows.indices))
        windows = Windows(cupy.ones((1, 2, 2), cupy.float32), np.zeros((1, 2), int))
        for gradient, message in ((sparse, "can't be sparse"), (windows, "can't be Windows")):
            with pytest.raises(TypeError, match=message):
                training.opt.apply_gradients([(gradient, table)])
        constrained = Variable(cupy.ones(2), constraint=abs)
        with pytest.raises(ValueError, match="constraints"):
            training.opt.build([*training.arrays, constrained])
        with training.strategy.scope(), pytest.raises(ValueError, match="state_dtype"):
            RMSprop(state_dtype="uint8").build([cupy.ones(3)])
        assert training.content() == before
        return int(training.opt.iterations)

    assert world.run(program) == [1, 1]


def test_arrays_on_another_device_than_the_ranks_are_refused():
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("only one CUDA device")
    world = World(2)

    def program(rank):
        with cupy.cuda.Device(1 - rank):
            far = cupy.ones(3)
        with Threaded(world, rank, True).scope():
            opt = RMSprop()
        with pytest.raises(TypeError, match=f"CuPy arrays on device {rank}, .*given .*Device {1 - rank}"):
            opt.apply_gradients([(far, far)])

    world.run(program)


@pytest.mark.parametrize("call", ["reduceScatter", "allGather"])
def test_an_error_of_nccl_leaves_no_half_step(call):
    world, trainings = World(2), [None, None]

    def program(rank):
        training = trainings[rank] = Training(Threaded(world, rank, True), ["float32"], {"momentum": 0.9})
        training.step(0)
        training.before = training.own()
        training.strategy.communicator.fails_at = call if rank == 1 else None
        training.step(1)

    with pytest.raises(RuntimeError, match="unhandled system error"):
        world.run(program)
    for training in trainings:
        assert training.own() == training.before
        assert training.strategy.communicator.calls[-1] == ("abort",)


def test_a_rank_that_fails_before_the_step_is_taken_undoes_it_on_all(monkeypatch):
    world, trainings = World(2), [None, None]

    def program(rank):
        training = trainings[rank] = Training(Threaded(world, rank, True), ["float32"], {"momentum": 0.9})
        training.step(0)
        training.before = training.own()
        link = training.strategy.ranks.link
        agree = link.agree

        def failing(statement):
            if "before it is taken" in statement.doing and rank == 1:
                statement = statement._replace(error="MemoryError")
            agree(statement)

        link.agree = failing
        with pytest.raises(ReplicaError, match="MemoryError"):
            training.step(1)
        assert training.own() == training.before

    world.run(program)
