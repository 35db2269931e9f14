"""Faults in replayed steps on CuPy arrays, and in the order and sums of rows there."""

from machinery import Mutant

REPLAY, UPDATES, STREAMS = [f"backends/rmsprop_cupy/{name}.py" for name in ("replay", "updates", "streams")]
SORT, ROWS, KERNELS = [f"backends/rmsprop_cupy/{name}" for name in ("sort.cu", "rows.py", "row_kernels.py")]

MUTANTS = [
    Mutant(
        "replay of the gradient of the step before", REPLAY, "test_cupy_replay.py -k 'check_in_python and 1_0'",
        "update.words[0] = addresses[position]", "update.words[0] = self._keys[0].data.ptr",
    ),
    Mutant(
        "replay with the addresses of the step before", REPLAY, "test_cupy_replay.py -k 'check_in_python and 9'",
        "            self._column.write(words)\n", "            pass\n",
    ),
    Mutant(
        "replay with the numbers of the step before", REPLAY, "test_cupy_replay.py -k setting_changed",
        "            update.write(hyper)\n", "            self._hyper or update.write(hyper)\n",
    ),
    Mutant(
        "replay with the limits of the step before", REPLAY,
        "test_cupy_replay.py -k 'check_in_python and clipnorm'",
        "hyper is not self._hyper and hyper is not None", "self._hyper is None and hyper is not None",
    ),
    Mutant(
        "replay of another formula", REPLAY, "test_cupy_replay.py -k setting_changed",
        "        if _kind(hyper) != self._kind:\n", "        if False:\n",
    ),
    Mutant(
        "strides of gradients not compared", REPLAY, "test_cupy_replay.py -k in_another_way",
        " or list(map(STRIDES, gradients)) != self._strides", "",
    ),
    Mutant(
        "dtypes of gradients not compared", REPLAY, "test_cupy_replay.py -k bad_list",
        "            or list(map(DTYPE, gradients)) != self._dtypes\n", "",
    ),
    Mutant(
        "shapes of gradients not compared", REPLAY, "test_cupy_replay.py -k bad_list",
        "            or list(map(SIZE, gradients)) != self._counts\n", "",
    ),
    Mutant(
        "shapes of gradients that were given before not compared", REPLAY, "test_cupy_replay.py -k reshaped",
        "return self._apart if self._are_shaped(gradients) else None", "return self._apart",
    ),
    Mutant(
        "other gradients taken for those of before", REPLAY, "test_cupy_replay.py -k check_in_python",
        "all(map(is_, gradients, map(ref.__call__, self._known)))", "True",
    ),
    Mutant(
        "axes of variables not compared", REPLAY, "test_cupy_replay.py -k reshaped",
        " or list(map(NDIM, arrays)) != self._ndims", "",
    ),
    Mutant(
        "lengths of variables not compared", REPLAY, "test_cupy_replay.py -k reshaped",
        " == lengths == list(map(len, arrays))", " == lengths",
    ),
    Mutant(
        "shapes of variables not compared", REPLAY, "test_cupy_replay.py -k reshaped",
        " == shapes == list(map(SHAPE, arrays))", " == shapes",
    ),
    Mutant(
        "devices of gradients not compared", REPLAY, "test_cupy_devices.py -k replayed",
        "            or {*map(DEVICE, data)} != {self._device}\n", "",
        devices=2,
    ),
    Mutant(
        "replayed on another device than the variables'", REPLAY, "test_cupy_devices.py -k replayed",
        "cupy.cuda.runtime.getDevice() != self._device\n            or ", "",
        devices=2,
    ),
    Mutant(
        "constraints not looked at in replays", REPLAY, "test_cupy_replay.py -k constraint",
        "variable.constraint is not None or ", "",
    ),
    Mutant(
        "gradients in memory that is updated replayed", REPLAY, "test_cupy_replay.py -k in_memory",
        "if np.logical_or.reduce(self._occupied.touched(words, words + self._sizes)):", "if False:",
    ),
    Mutant(
        "gradients in memory of few variables replayed", REPLAY, "test_cupy_replay.py -k in_memory",
        "if start < high and low < start + size:", "if False:",
    ),
    Mutant(
        "steps replayed while the stream captures", REPLAY, "test_cupy_replay.py -k captures",
        "            or cupy.cuda.get_current_stream().is_capturing()\n", "",
    ),
    Mutant(
        "arrays updated in another stream than the current one", REPLAY, "test_cupy_replay.py -k current_then",
        "update.function(*update.call)", "update.function(*update.call, stream=cupy.cuda.Stream.null)",
        count=2,
    ),
    Mutant(
        "norms in another stream than the current one", REPLAY, "test_cupy_replay.py -k current_then",
        "function(grid, block, arguments)", "function(grid, block, arguments, stream=cupy.cuda.Stream.null)",
    ),
    Mutant(
        "steps that a device leaves out not counted in replays", REPLAY, "test_cupy_replay.py -k not_finite",
        "self._tally = cast", "self._tally = None and cast",
    ),
    Mutant(
        "memory written to while it is being copied", STREAMS, "test_cupy_replay.py -k before_the_device",
        "if source[0].done:", "if True:",
    ),
    Mutant(
        "plans gone with their optimizer after a replay", REPLAY, "test_cupy_replay.py -k another_stream_is_done",
        "        self._kept.used()\n", "",
    ),
    Mutant(
        "duplicates of a row in falling order", SORT, "test_cupy_rows.py -k 'often and 10000'",
        "__popc(alike & ((1u << lane) - 1))", "__popc(alike >> lane) - 1",
    ),
    Mutant(
        "tiles of a gradient in falling order", SORT, "test_cupy_rows.py -k 'often and 10000'",
        "if (k < tile) before", "if (k > tile) before",
    ),
    Mutant(
        "highest digit of rows not sorted", "backends/rmsprop_cupy/sorting.py", "test_cupy_rows.py -k any_height",
        "max(-(-high // DIGIT), 1)", "max(high // DIGIT, 1)",
    ),
    Mutant(
        "lowest digit of rows sorted last", "backends/rmsprop_cupy/sorting.py",
        "test_cupy_rows.py -k all_listed_often",
        "shift = low + k * DIGIT", "shift = low + (passes(high) - 1 - k) * DIGIT",
    ),
    Mutant(
        "sums of blocks added in another order", KERNELS, "test_cupy_rows.py -k 'often and 10000'",
        "sums[k / {MANY} * width + column]", "sums[(2 * first + count - {MANY} - k) / {MANY} * width + column]",
    ),
    Mutant(
        "sum of a negative zero begun with a positive one", KERNELS, "test_cupy_rows.py -k negative_zero",
        "-({number})0", "({number})0",
        count=2,
    ),
    Mutant(
        "blocks of a row summed up where others are", KERNELS, "test_cupy_rows.py -k all_listed_often",
        "sums[i] = sum_from(begin)", "sums[begin / {MANY} * width] = sum_from(begin)",
    ),
    Mutant(
        "sums of a gradient where those of another are", ROWS, "test_cupy_rows.py -k all_listed_often",
        "words[:, SUMS] = bytes_before[:-1]", "words[:, SUMS] = 0 * bytes_before[:-1]",
    ),
    Mutant(
        "passes in another stream than the current one", "backends/rmsprop_cupy/launches.py",
        "test_cupy_rows.py -k sorted_there",
        "            launch.kernel(*launch.arguments, **launch.options)\n            used()",
        "            launch.kernel(*launch.arguments, **launch.options, stream=cupy.cuda.Stream.null)\n"
        "            used()",
    ),
]  # fmt: skip
