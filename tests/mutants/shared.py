"""Faults in what all backends share: the optimizer, its settings, variables and tapes."""

from machinery import Mutant

MUTANTS = [
    # The step
    Mutant(
        "failed constraint not undone", "rmsprop/step/groups.py", "test_weights.py -k undoes_the_step",
        "        journal.undo()\n", "",
    ),
    Mutant(
        "steps within steps taken", "rmsprop/optimizer.py", "test_threads.py -k step_within_a_step",
        "state.occupied = STEPPING", "pass",
    ),
    Mutant(
        "step under way for ever after an error", "rmsprop/optimizer.py",
        "test_bad_input.py -k 'bad_gradient_is_named'",
        "                return step(self._settings, grads_and_vars, experimental_aggregate_gradients)\n"
        "            finally:\n",
        "                result = step(self._settings, grads_and_vars, experimental_aggregate_gradients)\n"
        "            except ZeroDivisionError:\n"
        "                raise\n"
        "            else:\n"
        "                state.occupied = None\n                return result\n            if True:\n",
    ),
    Mutant(
        "schedules one step ahead", "rmsprop/step/take.py", "test_optimizer.py -k decay_goes_on",
        "return int(iterations.count)", "return int(iterations.count) + 1",
    ),
    Mutant(
        "replayed steps not counted", "rmsprop/step/take.py", "test_lists.py -k is_replayed",
        "    state.iterations.take()\n", "",
    ),
    Mutant(
        "arrays not looked at again after the user's code has run", "rmsprop/step/take.py",
        "test_hostile_input.py -k changes_the_variables_meanwhile",
        "if settings.constant is None:", "if False:",
    ),
    Mutant(
        "lists not looked at again after the user's code has run", "rmsprop/step/take.py",
        "test_lists.py -k moves_a_gradient",
        "        accepted = replay.accept(given, needed)\n", "",
    ),
    Mutant(
        "variable given twice", "rmsprop/step/take.py", "test_bad_input.py -k same_variable_twice",
        "if len(pairs) > 1 and len({id(p.key) for p in parameters}) < len(pairs):", "if False:",
    ),
    Mutant(
        "aggregator after the transformers", "rmsprop/step/take.py", "test_optimizer.py -k pairs_in_turn",
        "(aggregator, *functions)", "(*functions, aggregator)",
    ),
    Mutant(
        "tapes not told of steps", "rmsprop/step/take.py", "test_minimize.py -k a_step_inside_of_a_tape",
        "        tell_tapes(*plan.variables)", "        pass",
    ),
    Mutant(
        "tapes not told of replayed steps", "rmsprop/step/take.py", "test_minimize.py -k replayed_step_inside",
        "        tell_tapes(*[variable for _, variable in given])", "        pass",
    ),
    Mutant(
        "shapes of gradients not compared", "rmsprop/step/take.py", "test_bad_input.py -k bad_gradient",
        "and gradient.shape == parameter.shape", "and gradient.size == array.size",
    ),
    Mutant(
        "centered without its slot", "rmsprop/formula.py", "test_reference.py -k trajectory",
        "lambda needs: needs.centered)", "lambda needs: needs.centered and not needs.momentum)",
    ),
    Mutant(
        "step that is left out counted as taken", "rmsprop/state/iterations.py",
        "test_nonfinite.py -k one_bad_element",
        "self.skipped += 1", "self.count[()] += 1",
    ),
    # Gradients that are not finite, loss scale, clipping
    Mutant(
        "infinities that were clipped taken for numbers", "rmsprop/norms.py",
        "test_nonfinite.py -k before_they_are_clipped",
        "if magnitudes is None or hyper.clipvalue is not None:", "if magnitudes is None:",
    ),
    Mutant(
        "last instead of first bad gradient of several libraries", "rmsprop/step/nonfinite.py",
        "test_nonfinite.py -k mixed_lists",
        "return min(found)", "return max(found)",
    ),
    Mutant(
        "scale doubled one step early", "rmsprop/state/loss_scale.py", "test_loss_scale.py -k doubled_after",
        "elif self._counter + 1 >= self.dynamic_growth_steps:",
        "elif self._counter + 2 >= self.dynamic_growth_steps:",
    ),
    Mutant(
        "steps in a row counted on over an overflow", "rmsprop/state/loss_scale.py",
        "test_loss_scale.py -k halved",
        "max(self._scale / 2, 1.0), 0", "max(self._scale / 2, 1.0), self._counter",
    ),
    Mutant(
        "scale halved below 1", "rmsprop/state/loss_scale.py", "test_loss_scale.py -k halved",
        "max(self._scale / 2, 1.0)", "self._scale / 2",
    ),
    Mutant(
        "scale growing without end", "rmsprop/state/loss_scale.py", "test_loss_scale.py -k grows_no_further",
        "min(self._scale * 2, max(self._scale, LARGEST))", "self._scale * 2",
    ),
    Mutant(
        "limits not scaled", "rmsprop/settings/settings.py", "test_loss_scale.py -k scaled_gradients",
        "numbers[name] *= scale", "pass",
    ),
    Mutant(
        "weights of the loss not scaled", "rmsprop/tapes/losses.py",
        "test_loss_scale.py -k differentiate_the_scaled_loss",
        "else np.asarray(weights)) * scale", "else np.asarray(weights))",
    ),
    Mutant(
        "multiplied by the loss scale", "rmsprop/norms.py", "test_loss_scale.py -k other_libraries",
        "(count,), 1.0 / loss_scale", "(count,), 1.0 * loss_scale",
    ),
    Mutant(
        "norm of all gradients as it was before each was clipped", "rmsprop/norms.py",
        "test_optimizer.py -k both_norms_apply",
        "parts = [f * f * s for", "parts = [s for",
    ),
    # Settings
    Mutant(
        "settings of the first step kept", "rmsprop/settings/rows.py", "test_lists.py -k setting_changed",
        "            settings.constant = None\n", "",
    ),
    Mutant(
        "decay of the first step kept", "rmsprop/settings/settings.py", "test_optimizer.py -k decay",
        '            or bool(values["decay"])\n', "",
    ),
    Mutant(
        "settings made while they are read lost", "rmsprop/settings/rows.py",
        "test_threads.py -k setting_made_while",
        "with settings.state.lock:", "if True:",
    ),
    Mutant(
        "momentum of 0 forgets that there was one", "rmsprop/settings/rows.py",
        "test_optimizer.py -k momentum_assigned_later",
        "settings.has_momentum or not is_zero", "not is_zero",
    ),
    Mutant(
        "epsilon of 0", "rmsprop/settings/checks.py", "test_optimizer.py -k no_epsilon",
        "return given or DEFAULT_EPSILON", "return given",
    ),
    Mutant(
        "epsilon that vanishes in single precision", "rmsprop/settings/checks.py",
        "test_optimizer.py -k bad_arguments",
        "if 0.0 < given < SMALLEST_EPSILON:", "if False:",
    ),
    Mutant(
        "decay multiplied", "rmsprop/settings/settings.py", "test_optimizer.py -k decay",
        "rate / (1.0 + decay * calls)", "rate * (1.0 - decay * calls)",
    ),
    Mutant(
        "numbers out of range taken from callables", "rmsprop/settings/checks.py",
        "test_bad_input.py -k bad_hyperparameter",
        "if type(setting) is float and low <= setting <= high:", "if type(setting) is float:",
    ),
    Mutant(
        "config that is given changed", "rmsprop/settings/keras_config.py",
        "test_optimizer.py -k does_not_change_its_argument",
        "settings = {key: unwrapped(value) for key, value in config.items()}", "settings = config",
    ),
    Mutant(
        "dtype of slots changed once there are any", "rmsprop/settings/rows.py",
        "test_compact_state.py -k fixed_by_the_first_slot",
        "if self.decides_on_slots and settings.state.slot_names", "if False and settings",
    ),
    # Dtypes
    Mutant(
        "halves computed in halves", "rmsprop/arrays/dtypes.py", "test_weights.py -k half_precision",
        '"float16": "float32"', '"float16": "float16"',
    ),
    Mutant(
        "complex average of squares", "rmsprop/formula.py", "test_weights.py -k complex",
        "if self.averages_squares and not complex_as_real", "if not self.averages_squares and not complex_as_real",
    ),
    Mutant(
        "imaginary parts dropped", "rmsprop/arrays/dtypes.py", "test_bad_input.py -k bad_gradient",
        "gradient in COMPUTE and (is_complex(variable) or not is_complex(gradient))", "gradient in COMPUTE",
    ),
    # Gradients
    Mutant(
        "constraint and sparse gradient together", "rmsprop/step/gradients.py",
        "test_bad_input.py -k constraint_excludes",
        "if parameter.variable.constraint is not None:", "if False:",
    ),
    Mutant(
        "rows of another width", "rmsprop/step/gradients.py", "test_bad_input.py -k bad_sparse_gradient",
        "if tuple(values.shape) != expected:", "if len(values) != len(indices):",
    ),
    Mutant(
        "rows out of range", "rmsprop/step/gradients.py", "test_rows.py -k out_of_range",
        "is_checked = validate or not backend.reports_misses", "is_checked = validate",
    ),
    Mutant(
        "dense_shape not compared", "rmsprop/step/gradients.py", "test_bad_input.py -k bad_sparse_gradient",
        "if gradient.dense_shape is not None and", "if False and",
    ),
    Mutant(
        "masks lost", "rmsprop/step/gradients.py", "test_bad_input.py -k bad_gradient",
        "    refuse_subclass(array, what)\n", "",
    ),
    # Variables
    Mutant(
        "memory shared with known variables", "rmsprop/state/recognition.py", "test_lists.py -k bad_list",
        "self._check_disjoint([*[p for p in self if not p.is_gone], *new])", "self._check_disjoint(new)",
    ),
    Mutant(
        "strides that were changed", "rmsprop/state/parameters.py", "test_bad_input.py -k strides_were_changed",
        "if self._strides is not None and", "if False and",
    ),
    Mutant(
        "plans of lists kept without end", "rmsprop/backends.py", "test_lists.py -k ever_another_order",
        "sum(lengths) > max(PLANNED, 4 * max(lengths))", "False",
    ),
    Mutant(
        "newest instead of oldest plan forgotten", "rmsprop/backends.py", "test_lists.py -k ever_another_order",
        "del self[next(iter(self))], lengths[0]", "del self[next(reversed(self))], lengths[0]",
    ),
    Mutant(
        "interleaved variables taken for overlapping", "rmsprop/arrays/memory.py",
        "test_bad_input.py -k interleaved",
        "np.shares_memory(", "np.may_share_memory(",
    ),
    Mutant(
        "elements that share memory with each other", "rmsprop/arrays/memory.py",
        "test_bad_input.py -k bad_variable",
        "if stride < reach + array.itemsize:", "if stride < array.itemsize:",
    ),
    Mutant(
        "overlap with all but the last array overlooked", "rmsprop/arrays/memory.py",
        "test_bad_input.py -k begins_before_others",
        "open_ones = [(end, j) for end, j in open_ones if end > start]", "open_ones = open_ones[-1:]",
    ),
    Mutant(
        "initial values shared", "rmsprop/variables/variable.py", "test_variable.py -k copied_and_converted",
        "asarray(initial, dtype=dtype, copy=True)", "asarray(initial, dtype=dtype)",
    ),
    Mutant(
        "value of another shape assigned", "rmsprop/variables/variable.py", "test_variable.py -k assignment",
        "if tuple(new.shape) != self.shape:", "if False:",
    ),
    Mutant(
        "array of a variable replaced", "rmsprop/variables/variable.py", "test_bad_input.py -k cannot_be_replaced",
        "old is not value and is_updated_in_place(old)", "False",
    ),
    Mutant(
        "subtracted the wrong way round", "rmsprop/variables/variable.py", "test_variable.py -k assignment",
        "self.array - self._converted(delta)", "self._converted(delta) - self.array",
    ),
    Mutant(
        "copies that are views", "rmsprop/arrays/libraries.py", "test_weights.py -k are_copies",
        "return np.asarray(array).copy()", "return np.asarray(array)",
    ),
    # Weights
    Mutant(
        "slots by variable instead of by name", "rmsprop/state/state.py", "test_weights.py -k order_of_keras",
        "for name in names for owner in owners if",
        "for owner in owners for name in names if",
    ),
    Mutant(
        "weights of another shape", "rmsprop/state/weights.py", "test_weights.py -k do_not_fit",
        "if new.shape != weight.shape:", "if new.size != weight.array.size:",
    ),
    Mutant(
        "negative average of squares", "rmsprop/formula.py", "test_weights.py -k do_not_fit",
        "if self.averages_squares and any(", "if False and any(",
    ),
    Mutant(
        "iterations replaced once there are slots", "rmsprop/state/state.py",
        "test_weights.py -k replaced_only_before",
        "        if self.slot_names:\n", "        if False:\n",
    ),
    Mutant(
        "negative number of steps", "rmsprop/state/iterations.py", "test_weights.py -k do_not_fit",
        "not 0 <= value <= LARGEST", "not value <= LARGEST",
    ),
    Mutant(
        "number of steps that is not whole", "rmsprop/state/iterations.py", "test_weights.py -k do_not_fit",
        " or value != int(value)", "",
    ),
    Mutant(
        "steps that were left out forgotten by copies", "rmsprop/state/iterations.py",
        "test_nonfinite.py -k kept_by_copies",
        "(self.array, self.name, self.skipped)", "(self.array, self.name)",
    ),
    Mutant(
        "loss scale lost with iterations that are replaced", "rmsprop/state/state.py",
        "test_loss_scale.py -k keep_the_scale",
        "self.attach(loss_scale)\n", "pass\n",
    ),
    # Locks
    Mutant(
        "weights read in the middle of a step", "rmsprop/locks.py",
        "test_threads.py -k waits_for_the_step_under_way",
        "with self._state.lock:\n            return method", "if True:\n            return method",
    ),
    Mutant(
        "steps taken while being pickled", "rmsprop/locks.py", "test_threads.py -k steps_while_it_is_pickled",
        "if int(self._state.iterations.array) != self._count:", "if False:",
    ),
    Mutant(
        "torn state used in a forked child", "rmsprop/locks.py", "test_threads.py -k fork_waits",
        "owner.lock = Torn()", "owner.lock = threading.RLock()",
    ),
    # Tapes
    Mutant(
        "gradients not conjugated", "rmsprop/tapes/autograd_tape.py", "test_minimize.py -k complex_gradients",
        "np.conj(gradient) if np.iscomplexobj(gradient) else gradient", "gradient",
    ),
    Mutant(
        "traced values in the memory of variables", "rmsprop/tapes/autograd_tape.py",
        "test_minimize.py -k two_losses",
        "Traced.root(array.copy(),", "Traced.root(array,",
    ),
    Mutant(
        "gradients by earlier values left out", "rmsprop/tapes/autograd_tape.py",
        "test_minimize.py -k assignment_inside",
        "sum(parts[1:], parts[0])", "parts[-1]",
    ),
    Mutant(
        "assignments inside of tapes overlooked", "rmsprop/tapes/recorder.py",
        "test_minimize.py -k assignment_inside",
        "self._assigned.add(id(source))", "pass",
    ),
    Mutant(
        "variables followed that are not trainable", "rmsprop/tapes/recorder.py",
        "test_minimize.py -k watching_decides",
        "self._watch_accessed and variable.trainable", "self._watch_accessed",
    ),
    Mutant(
        "tapes within tapes", "rmsprop/tapes/recorder.py", "test_minimize.py -k nested_in_time",
        "if recording.get() is not None:", "if False:",
    ),
    Mutant(
        "gradients of PyTorch in memory of the weights", "rmsprop/tapes/torch_tape.py",
        "test_torch_tape.py -k share_no_memory",
        "if _memory(dense) in taken or 0 in dense.stride():", "if 0 in dense.stride():",
    ),
    # Schedules
    Mutant(
        "stairs rounded up", "rmsprop/schedules/decays.py", "test_schedules.py -k values",
        "_power(self.decay_rate, math.floor(p) if", "_power(self.decay_rate, math.ceil(p) if",
    ),
    Mutant(
        "boundary that belongs to the value after it", "rmsprop/schedules/decays.py",
        "test_schedules.py -k piecewise",
        "bisect_left(self.boundaries, step)", "bisect_left(self.boundaries, step + 1)",
    ),
    Mutant(
        "cycle that ends one step early", "rmsprop/schedules/decays.py", "test_schedules.py -k polynomial_cycle",
        "max(1, math.ceil(p))", "max(1, math.floor(p) + 1)",
    ),
    Mutant(
        "decay that begins with the warm-up", "rmsprop/schedules/decays.py", "test_schedules.py -k values",
        "step, peak = step - self.warmup_steps, self.warmup_target", "peak = self.warmup_target",
    ),
    Mutant(
        "restarts one step late by rounding", "rmsprop/schedules/decays.py", "test_schedules.py -k very_step",
        "math.floor(done + 1e-9)", "math.floor(done)",
    ),
    Mutant(
        "no steps of decay", "rmsprop/schedules/arguments.py", "test_schedules.py -k bad_argument",
        "if number <= 0:", "if number < 0:",
    ),
    Mutant(
        "boundaries that are the same", "rmsprop/schedules/arguments.py", "test_schedules.py -k bad_argument",
        "low >= high for", "low > high for",
    ),
    Mutant(
        "class of one's own taken for the one of that name", "rmsprop/schedules/serialization.py",
        "test_schedules.py -k named_like_a_built_in",
        'str(module).partition(".")[0] in ("keras", "tf_keras")', "True",
    ),
]  # fmt: skip
