"""Faults in what handles tensors and other memory that is shared."""

from machinery import Mutant

MUTANTS = [
    Mutant(
        "stale view: memory of a variable not compared", "backends/rmsprop_shared/exchange.py",
        "test_changes.py -k 'other_memory'",
        "or words[DATA] + words[OFFSET] != like[0]:", "or False:",
    ),
    Mutant(
        "stale view: twins kept for other memory", "backends/rmsprop_shared/twins.py",
        "test_changes.py -k 'other_memory'",
        "return bool(self._facts == facts)", "return True",
    ),
    Mutant(
        "strides of a variable not compared", "backends/rmsprop_shared/exchange.py",
        "test_changes.py -k 'another_order'",
        "if word_at(words[STRIDES] + 8 * axis) != like[3 + ndim + axis]:", "if False:",
    ),
    Mutant(
        "gaps of a gradient not seen", "backends/rmsprop_shared/exchange.py",
        "test_changes.py -k 'gradients_of_every_kind'",
        "if n != 1 and word_at(words[STRIDES] + 8 * axis) != stride:", "if False:",
    ),
    Mutant(
        "shape not compared", "backends/rmsprop_shared/exchange.py",
        "test_changes.py -k 'none_of_the_variables'",
        "if word_at(words[SHAPE] + 8 * axis) != like[3 + axis]:", "if False:",
    ),
    Mutant(
        "dtype not compared", "backends/rmsprop_shared/exchange.py",
        "test_changes.py -k 'gradients_of_every_kind'",
        " or words[KIND] != like[2]:", " or (words[KIND] & 0xFF) != (like[2] & 0xFF):",
    ),
    Mutant(
        "version not counted by a step", "backends/rmsprop_shared/steps.py",
        "test_changes.py -k 'not_recorded_but and 0'",
        "            refresh = take()\n        self.changed(arrays)", "            refresh = take()",
    ),
    Mutant(
        "version not counted by a step that is replayed", "backends/rmsprop_shared/replays.py",
        "test_changes.py -k 'not_recorded_but and 3'",
        "            self._backend.changed(self._arrays)", "            pass",
    ),
    Mutant(
        "conjugate and negative gradients replayed", "backends/rmsprop_shared/replays.py",
        "test_tensors.py -k 'lazily'",
        "return found if self._backend.are_plain(given, self._complex) else None", "return found",
    ),
    Mutant(
        "gradient in the memory of a variable replayed", "backends/rmsprop_shared/exchange.py",
        "test_tensors.py -k 'memory_of_a_variable'",
        "or headers.is_occupied(occupied, start, start + size)", "or False",
    ),
    Mutant(
        "shared memory not looked for again", "backends/rmsprop_shared/steps.py",
        "test_changes.py -k 'come_to_share'",
        "if moved and (overlap", "if False and (overlap",
    ),
    Mutant(
        "former memory recognised", "rmsprop/state/recognition.py",
        "test_modules.py -k 'former_memory'",
        "and _lies_at(known, key):", ":",
    ),
    Mutant(
        "assignments recorded", "rmsprop/arrays/libraries.py",
        "test_changes.py -k 'assignments_slots'",
        'import_module("torch").no_grad() if _is_torch(array) else nullcontext()', "nullcontext()",
    ),
    Mutant(
        "slots made in inference mode", "backends/rmsprop_shared/tensors.py",
        "test_changes.py -k 'inference_mode_go_on'",
        "with torch.inference_mode(False):", "with torch.no_grad():",
    ),
    Mutant(
        "tensors computed from others updated", "backends/rmsprop_shared/tensors.py",
        "test_changes.py -k 'cannot_be_updated'",
        "if tensor.requires_grad and not tensor.is_leaf:", "if False:",
    ),
]  # fmt: skip
