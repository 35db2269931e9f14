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
]  # fmt: skip


def present() -> list[Mutant]:
    """Return the faults that the devices at hand can show."""
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    return [mutant for mutant in (*MUTANTS, *replays.MUTANTS) if mutant.devices <= count]
