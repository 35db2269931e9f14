"""Faults in the backend for CuPy."""

import replays
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
        "+ row[1] + lane\"", "+ row[1] + lane + 1\"",
    ),
    Mutant(
        "last element of each row of the table left out", "backends/rmsprop_cupy/kernels.py",
        "test_cupy.py -k on_the_host",
        "if (lane < row[0])", "if (lane + 1 < row[0])",
    ),
    Mutant(
        "addresses of the first gradients kept", "backends/rmsprop_cupy/streams.py",
        "test_cupy.py -k another_order",
        "if given != self._last:", "if not self._last:",
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
        "rows beyond the table written", "backends/rmsprop_cupy/sort.cu", "test_cupy.py -k out_of_range",
        "index >= 0 && index < height", "index >= 0 && index <= height",
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
        "test_cupy_windows.py -k starts_may_be_changed",
        "hold(pinned)\n", "pass\n",
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
        "tensors updated in CuPy's stream", "backends/rmsprop_shared/tensors_on_cuda.py",
        "test_tensors_on_gpu.py -k 'stream_that_pytorch_uses'",
        "            cupy.cuda.Stream.from_external(", "            (lambda exported: before)(",
    ),
    Mutant(
        "tensors updated on the current device", "backends/rmsprop_shared/tensors_on_cuda.py",
        "test_tensors_on_gpu.py -k 'device_of_a_tensor'",
        "        with cupy.cuda.Device(index):\n            # `with",
        "        with cupy.cuda.Device(0):\n            # `with",
        devices=2,
    ),
    Mutant(
        "views of tensors kept for other memory", "backends/rmsprop_shared/twins.py",
        "test_tensors_on_gpu.py -k 'other_memory'",
        "return bool(self._facts == facts)", "return True",
    ),
    Mutant(
        "aliases not looked for", "backends/rmsprop_cupy/step.py", "test_cupy.py -k in_the_memory",
        "if is_shared:", "if False:",
    ),
    # Slots in smaller dtypes
    Mutant(
        "NaN carried to zero by the dither", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k spoils_no_other",
        "min(bits_of(x > subnormal ? x : subnormal), ANY_NAN)", "bits_of(x > subnormal ? x : subnormal)",
    ),
    Mutant(
        "codes cut off", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and float32'",
        "return (bits + (dither >> 12)) >> 20;", "return bits >> 20;",
    ),
    Mutant(
        "bfloat16 cut off", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and float32'",
        "(bits + (dither >> 16)) >> 16", "bits >> 16",
    ),
    Mutant(
        "sign of codes lost", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and float32'",
        "SIGNED, dither) & 127) | sign", "SIGNED, dither) & 127)",
    ),
    Mutant(
        "signed codes decoded as unsigned", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and float32'",
        "magnitude_of(code & 127, SIGNED)", "magnitude_of(code & 127, UNSIGNED)",
    ),
    Mutant(
        "subnormal codes decoded as normal ones", "backends/rmsprop_cupy/codes.cu",
        "test_smaller_state.py -k 'assigned and cupy'",
        "return x < subnormal ? x : subnormal;", "return x;",
    ),
    Mutant(
        "divisor of a large scale taken for zero", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k compiled_as_usual",
        "const bool is_large = sizeof(R) == 4 && scale >= R(0x1p126);", "const bool is_large = false;",
    ),
    Mutant(
        "scale larger than need be", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and float32'",
        "OCTAVE / 8 - 1) & INFINITE", "OCTAVE / 2 - 1) & INFINITE",
    ),
    Mutant(
        "scale of a block by infinite numbers", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k spoils_no_other",
        "return bits < infinity ? bits : 0;", "return bits;",
    ),
    Mutant(
        "scale of the first warp alone", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and float32'",
        "for (int k = 0; k < blockDim.x / 32; ++k)", "for (int k = 0; k < 1; ++k)",
    ),
    Mutant(
        "scale of real parts alone", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and complex64'",
        "return max(finite_bits(x.real()), finite_bits(x.imag()));", "return finite_bits(x.real());",
    ),
    Mutant(
        "new scale not written", "backends/rmsprop_cupy/compact_kernels.py",
        "test_cupy_compact.py -k 'host and list and float32'",
        "if (threadIdx.x == 0 && {slot.name}_new != scales[{k}])", "if (false && {slot.name}_new != scales[{k}])",
    ),
    Mutant(
        "dithers the same in each step", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and float32'",
        "displacement(3 * step + which)", "displacement(which)",
    ),
    Mutant(
        "dithers the same in each block", "backends/rmsprop_cupy/compact_kernels.py",
        "test_cupy_compact.py -k 'host and list and float32'",
        "{slot.reals} * start * stride;", "{slot.reals} * 0 * stride;",
    ),
    Mutant(
        "real and imaginary part rounded alike", "backends/rmsprop_cupy/codes.cu",
        "test_cupy_compact.py -k 'host and list and complex64'",
        "dither + (2 * j + 1) * stride", "dither + 2 * j * stride",
    ),
    Mutant(
        "steps that the device left out counted for the dither", "backends/rmsprop_cupy/compact_kernels.py",
        "test_cupy_compact.py -k as_if_there_were_none",
        '" - skipped[0]" * variant.guarded,\n        locate',
        '" - 0 * skipped[0]" * variant.guarded,\n        locate',
    ),
    Mutant(
        "replays that round as the first", "backends/rmsprop_cupy/kept.py", "test_cupy_compact.py -k replays",
        "if self._count is not None:", "if False:",
    ),
    Mutant(
        "variance below what rounding hides", "backends/rmsprop_cupy/compact_kernels.py",
        "test_cupy_compact.py -k rounding_may_hide",
        "if (rms < floor_) rms = floor_;", "",
    ),
    Mutant(
        "copies of strided variables not put back on a device", "backends/rmsprop_cupy/compact_dense.py",
        "test_cupy_compact.py -k 'host and strided and float32'",
        "* (k > 0)", "* 0",
    ),
    Mutant(
        "rows that share a scale updated alone on a device", "backends/rmsprop_cupy/compact_sparse.py",
        "test_smaller_state.py -k 'refused and cupy'",
        "if rms.blocks.row != width or", "if",
    ),
    Mutant(
        "equal rows of codes updated twice", "backends/rmsprop_cupy/compact_kernels.py",
        "test_cupy_compact.py -k 'sparse_gradients and rows and float32'",
        "if (row >= height || (first > 0 && elements[first - 1] >> low == row))", "if (row >= height)",
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
    return [mutant for mutant in (*MUTANTS, *replays.MUTANTS) if mutant.devices <= count]
