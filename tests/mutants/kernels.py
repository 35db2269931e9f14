"""Faults in the backend for NumPy."""

from machinery import Mutant

MUTANTS = [
    # The formula
    Mutant(
        "epsilon at the other place", "backends/rmsprop_numba/kernels.py",
        "test_optimizer.py -k epsilon_is_outside",
        "np.sqrt(variance + real(epsilon_inside)) + real(epsilon_outside)",
        "np.sqrt(variance + real(epsilon_outside)) + real(epsilon_inside)",
    ),
    Mutant(
        "variance not clamped at zero", "backends/rmsprop_numba/kernels.py",
        "test_accuracy.py -k variance_of_a_constant",
        "if variance < real(0):", "if variance < real(-1):",
    ),
    Mutant(
        "infinity minus infinity", "backends/rmsprop_numba/kernels.py", "test_extremes.py -k square_overflows",
        "if np.isinf(new_rms):", "if np.isnan(new_rms):",
    ),
    Mutant(
        "momentum times the sum", "backends/rmsprop_numba/kernels.py", "test_accuracy.py -k ulp",
        "new_momentum = times(momentum, real(mu)) + step", "new_momentum = times(momentum + step, real(mu))",
    ),
    Mutant(
        "mean with the factors swapped", "backends/rmsprop_numba/kernels.py", "test_accuracy.py -k ulp",
        "times(mg, real(rho)) + times(gradient, real(one_minus_rho))",
        "times(mg, real(one_minus_rho)) + times(gradient, real(rho))",
    ),
    Mutant(
        "squares of complex numbers instead of their moduli", "backends/rmsprop_numba/scalars.py",
        "test_optimizer.py -k modulus",
        "x.real * x.real + x.imag * x.imag", "x.real * x.real - x.imag * x.imag",
    ),
    Mutant(
        "negative numbers not clipped", "backends/rmsprop_numba/scalars.py", "test_accuracy.py -k ulp",
        "low = -limit if x < -limit else x", "low = x",
    ),
    Mutant(
        "learning rate and rho swapped", "rmsprop/formula.py", "test_optimizer.py -k page_gives_its_number",
        "rho=self.rho,", "rho=self.learning_rate,",
    ),
    # Halves
    Mutant(
        "ties of halves rounded up", "backends/rmsprop_numba/scalars.py", "test_halves.py -k ties",
        "rounding = 0x0FFF + ((magnitude >> 13) & 1)", "rounding = 0x1000",
    ),
    Mutant(
        "ties of bfloat16 rounded up", "backends/rmsprop_numba/scalars.py", "test_halves.py -k ties",
        "bits + 0x7FFF + ((bits >> 16) & 1)", "bits + 0x8000",
    ),
    Mutant(
        "NaN of halves taken for infinity", "backends/rmsprop_numba/scalars.py", "test_halves.py -k ties",
        "0x7E00 if magnitude > 0x7F800000 else 0x7C00", "0x7C00",
    ),
    # Borders
    Mutant(
        "last element of each chunk left out", "backends/rmsprop_numba/kernels.py",
        "test_accuracy.py -k bits_of_one_thread",
        "min((chunk + 1) * CHUNK, v.size)", "min((chunk + 1) * CHUNK, v.size) - 1",
    ),
    Mutant(
        "one row of a matrix left out by threads", "backends/rmsprop_numba/kernels.py",
        "test_accuracy.py -k bits_of_one_thread",
        "for i in numba.prange(len(v)):", "for i in numba.prange(len(v) - 1):",
    ),
    Mutant(
        "rest of a block not squared", "backends/rmsprop_numba/kernels.py",
        "test_optimizer.py -k clipping_can_be_assigned",
        "for i in range(whole, g.size):", "for i in range(whole + 1, g.size):",
    ),
    Mutant(
        "lanes of squares in the middle left out", "backends/rmsprop_numba/kernels.py", "test_lists.py -k norms",
        "for start in range(many, whole, LANES):", "for start in range(many + LANES, whole, LANES):",
    ),
    Mutant(
        "only the last of a block looked at for NaN", "backends/rmsprop_numba/kernels.py",
        "test_nonfinite.py -k one_bad_element",
        "carried |= carry(block[i])", "carried = carry(block[i])",
    ),
    Mutant(
        "last block not looked at for NaN", "backends/rmsprop_numba/kernels.py",
        "test_nonfinite.py -k one_bad_element",
        "for start in range(0, g.size, BLOCK):", "for start in range(0, g.size - BLOCK, BLOCK):",
    ),
    Mutant(
        "large halves taken for infinite", "backends/rmsprop_numba/scalars.py", "test_nonfinite.py -k largest",
        "(x & 0x7C00) + 0x0400", "(x & 0x7800) + 0x0800",
    ),
    Mutant(
        "pieces of gradients read from their beginning", "backends/rmsprop_numba/list_kernels.py",
        "test_accuracy.py -k bits_of_one_thread",
        "stretch(gradients[k], start, size, v)", "stretch(gradients[k], 0, size, v)",
    ),
    Mutant(
        "last task of a list left out", "backends/rmsprop_numba/list_kernels.py",
        "test_accuracy.py -k bits_of_one_thread",
        '"""Update all pieces."""\n    for task in numba.prange(len(tasks) - 1)',
        '"""Update all pieces."""\n    for task in numba.prange(max(len(tasks) - 2, 1))',
    ),
    Mutant(
        "last block of each norm left out", "backends/rmsprop_numba/list_kernels.py", "test_lists.py -k norms",
        "range(starts[k], starts[k + 1])", "range(starts[k], starts[k + 1] - 1)",
    ),
    Mutant(
        "last instead of first gradient that is not finite", "backends/rmsprop_numba/list_kernels.py",
        "test_nonfinite.py -k names_the_first",
        "lowest = min(lowest, find_in_pieces(pieces[tasks[task] : tasks[task + 1]], gradients, g, found[0]))",
        "lowest = min(lowest, find_in_pieces(pieces[tasks[task] : tasks[task + 1]][::-1], gradients, g, "
        "found[0]))",
    ),
    Mutant(
        "sums of squares of one piece over those of another", "backends/rmsprop_numba/pieces.py",
        "test_lists.py -k norms",
        "block + start // BLOCK", "block",
    ),
    Mutant(
        "dtypes of several sizes taken together", "backends/rmsprop_numba/pieces.py",
        "test_lists.py -k bits_of_steps_that_check",
        "a.dtype.char for a in row", "a.dtype.kind for a in row",
    ),
    # Plans
    Mutant(
        "plan of another list used", "backends/rmsprop_numba/lists.py", "test_lists.py -k change_from_step",
        "if kept is None or not kept.is_of(plans):", "if kept is None or len(kept) != len(plans):",
    ),
    Mutant(
        "slots added since not noticed", "backends/rmsprop_numba/lists.py", "test_lists.py -k 'setting_changed'",
        "or slots != self._slots", "",
    ),
    Mutant(
        "constraint added since not noticed", "backends/rmsprop_numba/lists.py",
        "test_lists.py -k gets_a_constraint",
        "if variable.constraint is not None or not variable.trainable:", "if False:",
    ),
    Mutant(
        "numbers of the first step kept", "backends/rmsprop_numba/lists.py", "test_lists.py -k setting_changed",
        "if known is not hyper:", "if known is None:",
    ),
    Mutant(
        "multiplied by the loss scale in replays", "backends/rmsprop_numba/lists.py",
        "test_loss_scale.py -k scaled_gradients",
        "1.0 / hyper.loss_scale", "1.0 * hyper.loss_scale",
    ),
    Mutant(
        "plan of another formula used", "backends/rmsprop_numba/plans.py", "test_lists.py -k turned_off",
        " or plan.slots != hyper.slots", "",
    ),
    Mutant(
        "memory that was moved not noticed", "rmsprop/state/parameters.py", "test_hostile_input.py -k moved",
        "if self._address is not None and self.has_moved:", "if False:",
    ),
    # Headers: steps without checks in Python
    Mutant(
        "variables of replays not compared", "backends/rmsprop_numba/headers.py",
        "test_lists.py -k change_from_step",
        "if variable != key or word_at(array + DATA)", "if word_at(array + DATA)",
    ),
    Mutant(
        "place of variables not compared", "backends/rmsprop_numba/headers.py", "test_hostile_input.py -k moved",
        "word_at(array + DATA) != data or ", "",
    ),
    Mutant(
        "type of gradients not compared", "backends/rmsprop_numba/headers.py", "test_lists.py -k bad_list",
        " or word_at(gradient + TYPE) != expected[1]", "",
    ),
    Mutant(
        "length of pairs not compared", "backends/rmsprop_numba/headers.py", "test_lists.py -k bad_list",
        " or word_at(pair + LENGTH) != 2", "",
    ),
    Mutant(
        "dtype of gradients not compared", "backends/rmsprop_numba/headers.py", "test_lists.py -k bad_list",
        "or word_at(array + DTYPE) != like[1]", "",
    ),
    Mutant(
        "last axis of gradients not compared", "backends/rmsprop_numba/headers.py", "test_lists.py -k bad_list",
        "for axis in range(like[0]):", "for axis in range(like[0] - 1):",
    ),
    Mutant(
        "flags of arrays not compared", "backends/rmsprop_numba/headers.py",
        "test_lists.py -k 'spoilt or sparse_and_strided'",
        "int_at(array + FLAGS) & flags != flags", "False",
    ),
    Mutant(
        "gradients in the memory of variables replayed", "backends/rmsprop_numba/headers.py",
        "test_lists.py -k in_memory_that_is_updated",
        "if occupied[middle, 1] <= start:", "if occupied[middle, 0] <= start:",
    ),
    # Memory
    Mutant(
        "gradients in the memory of variables not copied", "backends/rmsprop_numba/aliases.py",
        "test_accuracy.py -k in_the_memory",
        "else array.copy()", "else array",
    ),
    Mutant(
        "views of variables taken for others' memory", "backends/rmsprop_numba/aliases.py",
        "test_accuracy.py -k in_the_memory",
        "if id(root) not in known and _owns_memory(root):", "if _owns_memory(root):",
    ),
    Mutant(
        "slots not among what is updated", "backends/rmsprop_numba/plans.py",
        "test_accuracy.py -k in_the_memory_of_a_slot",
        "(parameter.variable, *slots.values())", "(parameter.variable,)",
    ),
    Mutant(
        "copies taken for views", "backends/rmsprop_numba/layout.py", "test_accuracy.py -k any_layout",
        "if all([f.f_contiguous for f in flags]):", "if any([f.f_contiguous for f in flags]):",
    ),
    Mutant(
        "axes merged that are not one", "backends/rmsprop_numba/layout.py", "test_accuracy.py -k any_layout",
        "if shape and all(a.strides", "if shape and any(a.strides",
    ),
    Mutant(
        "imaginary parts beside real ones left out", "backends/rmsprop_numba/layout.py",
        "test_optimizer.py -k complex_as_real",
        "(*array.strides, array.itemsize // 2)", "(*array.strides, 0)",
    ),
    Mutant(
        "variables that are read-only updated", "backends/rmsprop_numba/variables.py",
        "test_bad_input.py -k read_only",
        "if not array.flags.writeable:", "if False:",
    ),
    # Rows
    Mutant(
        "row beyond the table written", "backends/rmsprop_numba/variables.py", "test_rows.py -k out_of_range",
        "indices.max() < rows", "indices.max() <= rows",
    ),
    Mutant(
        "highest bits of rows not sorted by", "backends/rmsprop_numba/row_kernels.py",
        "test_rows.py -k rising_order",
        "digit = (high + passes - 1) // passes", "digit = max(high // passes, 1)",
    ),
    Mutant(
        "more rows than fit beside their positions", "backends/rmsprop_numba/row_kernels.py",
        "test_rows.py -k refused",
        "if low + high > 63:", "if low + high > 65:",
    ),
    Mutant(
        "row updated once for each of its listings", "backends/rmsprop_numba/row_kernels.py",
        "test_rows.py -k order_of_the_listings",
        "if k > 0 and listed[k - 1] >> low == i:", "if False:",
    ),
    Mutant(
        "sum of a row begun with that of another", "backends/rmsprop_numba/row_kernels.py",
        "test_rows.py -k order_of_the_listings",
        "            total[:] = 0\n", "",
    ),
    Mutant(
        "row divided between two threads", "backends/rmsprop_numba/row_kernels.py",
        "test_rows.py -k layout_and_threads",
        "while 0 < k < len(listed) and", "while False and",
    ),
    Mutant(
        "values clipped after they were summed", "backends/rmsprop_numba/row_kernels.py",
        "test_optimizer.py -k before_duplicates",
        "width, v), limit, factor)\n"
        "            sweep(row_v, total, row_rms, row_momentum, row_mg, None, numbers, None, None)",
        "width, v), None, factor)\n"
        "            sweep(row_v, total, row_rms, row_momentum, row_mg, None, numbers, limit, None)",
    ),
    Mutant(
        "listed rows decaying twice", "backends/rmsprop_numba/rows.py", "test_reference.py -k trajectory",
        "numbers = numbers._replace(rho=1.0)", "pass",
    ),
    Mutant(
        "rows of odd layouts not decaying", "backends/rmsprop_numba/rows.py", "test_rows.py -k layout_and_threads",
        "for copy in copies[1:] if hyper.averages_decay else ():", "for copy in ():",
    ),
    Mutant(
        "rows from the last to the first read forwards", "backends/rmsprop_numba/rows.py",
        "test_rows.py -k layout_and_threads",
        "(address(a), a.strides[0])", "(address(a), abs(a.strides[0]))",
    ),
    Mutant(
        "halves of one row summed as integers", "backends/rmsprop_numba/rows.py",
        "test_rows.py -k layout_and_threads",
        'rms.dtype if variable.dtype.kind in "ui" else variable.dtype', "variable.dtype",
    ),
    # Slots in smaller dtypes
    Mutant(
        "NaN carried to zero by the dither", "backends/rmsprop_numba/codes.py",
        "test_compact_rounding.py -k nan_or_infinite",
        "min(as_bits(x if x > subnormal else subnormal), ANY_NAN)", "as_bits(x if x > subnormal else subnormal)",
    ),
    Mutant(
        "scale larger than need be", "backends/rmsprop_numba/codes.py",
        "test_compact_state.py -k beside_any_largest",
        "octave // 8 - 1", "octave // 2 - 1",
    ),
    Mutant(
        "bfloat16 cut off", "backends/rmsprop_numba/codes.py", "test_compact_rounding.py -k bias",
        "bits + np.uint32(dither >> np.uint32(16))", "bits",
    ),
    Mutant(
        "sign of codes lost", "backends/rmsprop_numba/codes.py", "test_compact_state.py -k documented_error",
        "np.uint32(code & np.uint32(127)) | sign", "np.uint32(code & np.uint32(127))",
    ),
    Mutant(
        "dithers the same in each step", "backends/rmsprop_numba/compact_step.py",
        "test_compact_rounding.py -k first_element",
        "COUNT * hyper.step + i", "i",
    ),
    Mutant(
        "codes of another scale kept", "backends/rmsprop_numba/block_kernels.py",
        "test_compact_state.py -k 2_percent",
        "if not fits(full_rms, largest, rms_scales, k):", "if fits(full_rms, largest, rms_scales, k):",
    ),
    Mutant(
        "blocks across the ends of rows", "backends/rmsprop_numba/block_kernels.py",
        "test_compact_state.py -k 'restored_goes_on'",
        "which * row + min(place + length, row)", "which * row + place + length",
    ),
    Mutant(
        "variance below what rounding hides", "backends/rmsprop_numba/block_kernels.py",
        "test_compact_state.py -k rounding_may_hide",
        "rms[j] = floor if rms[j] < floor else rms[j]", "rms[j] = rms[j]",
    ),
    Mutant(
        "copies of strided variables not put back", "backends/rmsprop_numba/compact_step.py",
        "test_compact_state.py -k any_layout",
        "if values is not variable:", "if False:",
    ),
    Mutant(
        "rows that share a scale updated alone", "backends/rmsprop_numba/compact_step.py",
        "test_compact_state.py -k short_rows",
        "elif division.row != width or", "elif",
    ),
    Mutant(
        "rows of 64 elements without scales of their own", "backends/rmsprop_numba/compact.py",
        "test_compact_state.py -k rows_that_are_not_listed",
        "width >= SHORTEST", "width > SHORTEST",
    ),
    Mutant(
        "what is read of a slot can be written to", "backends/rmsprop_numba/compact.py",
        "test_compact_state.py -k only_by_assign",
        "numbers.flags.writeable = False", "pass",
    ),
    # Threads and cache
    Mutant(
        "threads used in a forked child", "backends/rmsprop_numba/threads.py",
        "test_threads.py -k processes_started_after_use",
        "    if _is_forked:\n", "    if False:\n",
    ),
    Mutant(
        "workqueue used by two threads at once", "backends/rmsprop_numba/threads.py",
        "test_threads.py -k under_workqueue",
        "threading.active_count() == 1", "True",
    ),
    Mutant(
        "kernels for one thread taken for several", "backends/rmsprop_numba/caching.py",
        "test_environment.py -k several_threads",
        '"-".join([self._impl.filename_base, *options])', "self._impl.filename_base",
    ),
    Mutant(
        "kernels kept although what they call has changed", "backends/rmsprop_numba/caching.py",
        "test_environment.py -k has_changed",
        "numba.__version__, _sources()", "numba.__version__",
    ),
]  # fmt: skip
