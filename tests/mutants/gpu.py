"""Faults in the backend for CuPy."""

from machinery import Mutant

MUTANTS = [
    Mutant(
        "epsilon at the other place", "backends/rmsprop_cupy/source.py", "test_cupy.py -k oracle",
        "sqrt(variance + epsilon_inside) + epsilon_outside", "sqrt(variance + epsilon_outside) + epsilon_inside",
    ),
    Mutant(
        "complex gradients squared", "backends/rmsprop_cupy/source.py", "test_cupy.py -k oracle",
        "x.real() * x.real() + x.imag() * x.imag()", "x.real() * x.real() - x.imag() * x.imag()",
    ),
    Mutant(
        "gradients of a list read one element further", "backends/rmsprop_cupy/kernels.py",
        "test_cupy.py -k on_the_host",
        "[row[1] + lane];", "[row[1] + lane + 1];",
    ),
    Mutant(
        "last element of each row of the table left out", "backends/rmsprop_cupy/kernels.py",
        "test_cupy.py -k on_the_host",
        "if (lane < row[0])", "if (lane + 1 < row[0])",
    ),
    Mutant(
        "addresses of the first gradients kept", "backends/rmsprop_cupy/streams.py",
        "test_cupy.py -k another_order",
        "or not np.array_equal(numbers, self._last)", "",
    ),
    Mutant(
        "kernels launched on the current device", "backends/rmsprop_cupy/launches.py", "test_cupy_devices.py",
        "        with launch.device, np", "        with np",
        devices=2,
    ),
    Mutant(
        "list planned on the current device", "backends/rmsprop_cupy/lists.py", "test_cupy_devices.py",
        "with first.device:", "if True:",
        devices=2,
    ),
    Mutant(
        "gradient copied on the current device", "backends/rmsprop_cupy/step.py", "test_cupy_devices.py",
        "with arrays[i].device:", "if True:",
        devices=2,
    ),
    Mutant(
        "one device not waiting for another", "backends/rmsprop_cupy/streams.py", "test_cupy_devices.py",
        "wait_event(event)", "is_capturing()",
        devices=2,
    ),
    Mutant(
        "gradients on other devices taken", "backends/rmsprop_cupy/step.py", "test_cupy_devices.py",
        "part.data.device_id != device", "False",
        devices=2,
    ),
    Mutant(
        "squares summed by float atomics", "backends/rmsprop_cupy/norm.cu", "test_cupy.py -k atomics",
        "    total = added(shared, total, threadIdx.x, blockDim.x);\n"
        "    if (threadIdx.x == 0) sums[2 * blockIdx.x] = total;",
        "sums[2 * blockIdx.x] = 0; __syncthreads(); atomicAdd(&sums[2 * blockIdx.x], total); __syncthreads();\n"
        "total = sums[2 * blockIdx.x];",
    ),
    Mutant(
        "rows beyond the table written", "backends/rmsprop_cupy/kernels.py", "test_cupy.py -k out_of_range",
        "row < 0 || row >= height", "row < 0 || row > height",
    ),
    Mutant(
        "windows beyond the variable written", "backends/rmsprop_cupy/windows.cu",
        "test_cupy_windows.py -k out_of_range",
        "if (start[axis] < 0 || start[axis] > shape[axis] - patch[axis])", "if (start[axis] < 0)",
    ),
    Mutant(
        "elements written by each of their windows", "backends/rmsprop_cupy/windows.cu",
        "test_cupy_windows.py -k 'one_by_one and float32'",
        "is_first = other >= window;", "is_first = true;",
    ),
    Mutant(
        "windows looked at only as far as there are threads", "backends/rmsprop_cupy/windows.cu",
        "test_cupy_windows.py -k many",
        "base < windows;", "base < 1;",
    ),
    Mutant(
        "captured step shares its plan", "backends/rmsprop_cupy/kept.py", "test_cupy_graphs.py -k between",
        "return Kept(len(parameters), multipliers, Captured(hyper, multipliers or [NEUTRAL]))", "pass",
    ),
    Mutant(
        "captured numbers frozen", "backends/rmsprop_cupy/kept.py",
        "test_cupy_graphs.py -k 'replays_are and 8'",
        "            self.scalars.write(hyper, self._multipliers)",
        "            hasattr(self, 'first') or self.scalars.write(hyper, self._multipliers); self.first = True",
    ),
    Mutant(
        "captured before its tables are there", "backends/rmsprop_cupy/streams.py",
        "test_cupy_pending.py -k captured",
        "        stream.synchronize()\n", "",
    ),
    Mutant(
        "gradients of a captured step let go", "backends/rmsprop_cupy/kept.py",
        "test_cupy_graphs.py -k stay_alive",
        "self.gradients += gradients", "pass",
    ),
    Mutant(
        "memory used again before it has been copied", "backends/rmsprop_cupy/streams.py",
        "test_cupy_pending.py -k without_waiting",
        "hold(pinned)", "pass",
    ),
    Mutant(
        "count of missed rows let go", "backends/rmsprop_cupy/counters.py", "test_cupy_pending.py -k gone",
        "        self._written.record()\n        hold(self)", "        self._written.record()",
    ),
    Mutant(
        "table of another formula used", "backends/rmsprop_cupy/lists.py", "test_cupy_pending.py -k formulas",
        "(table.slots, table.positions) != (hyper.slots, positions)", "table.positions != positions",
    ),
    Mutant(
        "kernels compiled one after the other", "backends/rmsprop_cupy/launches.py", "test_cupy.py -k compile",
        "if compiled_for not in _compiled", "if False",
    ),
    Mutant(
        "tables and slots gone with their optimizer", "backends/rmsprop_cupy/kept.py",
        "test_cupy_pending.py -k 'another_stream_is_done'",
        "hold(things, event)", "pass",
    ),
    Mutant(
        "captured step gone when it is discarded", "backends/rmsprop_cupy/kept.py",
        "test_cupy_pending.py -k discarded",
        "                hold(things)\n", "                pass\n",
    ),
    Mutant(
        "aliases not looked for", "backends/rmsprop_cupy/step.py", "test_cupy.py -k in_the_memory",
        "if is_shared:", "if False:",
    ),
    Mutant(
        "sums of another rank's share", "rmsprop/distribute/nccl.py",
        "test_nccl_shares.py -k 'same_bits and plain'",
        "self._scatter(table, own[columns], *TYPES[dtype])",
        "self._scatter(table[::-1].copy(), own[columns], *TYPES[dtype])",
    ),
    Mutant(
        "complex shares counted as real ones", "rmsprop/distribute/nccl.py",
        "test_nccl_shares.py -k 'same_bits and complex64'",
        "ptr, own.size * factor", "ptr, own.size",
    ),
    Mutant(
        "shares given to the others before they are updated", "rmsprop/distribute/sharded_steps.py",
        "test_nccl_shares.py -k 'same_bits and plain'",
        "    _update(parts, group.factors, hyper)\n    return _exchanged(",
        "    sent = _exchanged(reduction, group.parameters, shares, gradients, hyper)\n"
        "    _update(parts, group.factors, hyper)\n    return sent or _exchanged(",
    ),
    Mutant(
        "shares of the last table only written", "rmsprop/distribute/nccl.py",
        "test_nccl_shares.py -k 'same_bits and float64'",
        "for _, table, segments in tables.cut(total):\n                    for segment in segments:\n"
        "                        for source",
        "for _, table, segments in [*tables.cut(total)][-1:]:\n                    for segment in segments:\n"
        "                        for source",
    ),
    Mutant(
        "rest of an array that fills no share left out", "rmsprop/distribute/tables.py",
        "test_nccl_shares.py -k 'same_bits and plain'",
        "stop = min(segment.stop, rest)", "stop = min(segment.stop, rest - 1)",
    ),
    Mutant(
        "tables that begin where the last one did", "rmsprop/distribute/tables.py",
        "test_nccl_shares.py -k 'same_bits and float64'",
        "begin = k * self._width", "begin = max(k - 1, 0) * self._width",
    ),
    Mutant(
        "shares cut one element further", "rmsprop/distribute/tables.py",
        "test_nccl_shares.py -k 'same_bits and plain'",
        "own[begin : begin + size]", "own[begin + (begin > 0) : begin + size + (begin > 0)]",
    ),
    Mutant(
        "variables in another order updated from their first copy", "rmsprop/distribute/sharding.py",
        "test_nccl_shares.py -k between_steps",
        "    if share.is_copy:\n", "    if False:\n",
    ),
    Mutant(
        "variables in another order not written", "rmsprop/distribute/nccl.py",
        "test_nccl_shares.py -k 'same_bits and plain'",
        "array[...] = elements.reshape(array.shape)", "pass",
    ),
    Mutant(
        "shares of gradients taken in the order of memory", "rmsprop/distribute/reduction.py",
        "test_nccl_shares.py -k 'same_bits and plain'",
        "array.flat[start:stop]", "array.ravel(order='K')[start:stop]",
    ),
    Mutant(
        "shares clipped by plans of whole arrays", "backends/rmsprop_cupy/norms.py",
        "test_nccl_shares.py -k between_steps",
        "return self._replace(kept=kept_for_step(parameters, hyper))", "return self",
    ),
    Mutant(
        "updates of shares not put back", "rmsprop/distribute/sharded_steps.py",
        "test_nccl_shares.py -k 'half_step or undoes'",
        "            journals.append(journal)\n", "",
    ),
    Mutant(
        "NCCL left waiting for a rank that fails", "rmsprop/distribute/nccl.py",
        "test_nccl_shares.py -k half_step",
        "            self._communicator.abort()\n", "",
    ),
    Mutant(
        "sparse gradients of shares taken", "rmsprop/distribute/steps.py", "test_nccl_shares.py -k refused_before",
        "if isinstance(gradient, IndexedSlices) and not isinstance(parameter.variable.array, np.ndarray):",
        "if False:",
    ),
    Mutant(
        "shares on the device of another rank", "rmsprop/distribute/nccl.py",
        "test_nccl_shares.py -k another_device",
        " and array.device.id == self._device", "",
        devices=2,
    ),
    Mutant(
        "whole slots kept by each rank", "rmsprop/distribute/sharding.py",
        "test_nccl_shares.py -k has_its_share",
        "[link.rank : link.rank + 2]\n    own = parameter", "[0], array.size\n    own = parameter",
    ),
]  # fmt: skip


def present() -> list[Mutant]:
    """Return the faults that the devices at hand can show."""
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    return [mutant for mutant in MUTANTS if mutant.devices <= count]
