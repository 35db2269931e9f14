"""Faults in checkpoints."""

from machinery import Mutant

MUTANTS = [
    # Files
    Mutant(
        "digest not compared", "rmsprop/checkpoints/layout.py", "test_checkpoint_files.py -k single_bit",
        "if content[-DIGEST_SIZE:].tobytes() != found:", "if False:",
    ),
    Mutant(
        "last byte not in the digest", "rmsprop/checkpoints/layout.py", "test_checkpoints.py -k state_alone",
        "min(begin + PIECE, end)", "min(begin + PIECE, end - 1)",
    ),
    Mutant(
        "file that changes while it is read", "rmsprop/checkpoints/layout.py",
        "test_checkpoint_files.py -k changed_in_place",
        "content[8 : 8 + len(header)].tobytes() != header", "False",
    ),
    Mutant(
        "header with a name twice", "rmsprop/checkpoints/layout.py", "test_checkpoint_files.py -k forgeries",
        "if _dumped(entries) != header:", "if False:",
    ),
    Mutant(
        "bytes behind the end", "rmsprop/checkpoints/layout.py",
        "test_checkpoint_files.py -k right_one_is_refused",
        "if size != 8 + len(header) + begin:", "if size < 8 + len(header) + begin:",
    ),
    Mutant(
        "arrays anywhere in the file", "rmsprop/checkpoints/layout.py", "test_checkpoint_files.py -k forgeries",
        'if entry["data_offsets"] != [begin, begin + kind.nbytes]:', "if False:",
    ),
    Mutant(
        "later version read", "rmsprop/checkpoints/layout.py", "test_checkpoint_files.py -k forgeries",
        "if version not in VERSIONS:", "if version is None:",
    ),
    Mutant(
        "negative number of steps in a file", "rmsprop/checkpoints/records.py",
        "test_checkpoint_files.py -k counted_on",
        '    check_count(array, "iterations")\n', "",
    ),
    Mutant(
        "slots of another dtype", "rmsprop/checkpoints/records.py",
        "test_checkpoint_files.py -k slots_of_another_dtype",
        "or not _is_called(array, dtype)", "",
    ),
    Mutant(
        "kind of codes not compared", "rmsprop/checkpoints/records.py",
        "test_checkpoint_files.py -k codes_of_another_kind",
        "if given != expected:", "if False:",
    ),
    # Writing
    Mutant(
        "file not brought to the disk", "rmsprop/checkpoints/atomic.py",
        "test_checkpoint_writing.py -k error_of_the_disk",
        "os.fsync(file.fileno())", "pass",
    ),
    Mutant(
        "name not brought to the disk", "rmsprop/checkpoints/atomic.py",
        "test_checkpoint_writing.py -k before_it_takes_its_name",
        "        _sync(folder)\n", "",
    ),
    Mutant(
        "unfinished file left behind", "rmsprop/checkpoints/atomic.py",
        "test_checkpoint_writing.py -k disk_that_is_full",
        "os.unlink(file.name)", "pass",
    ),
    Mutant(
        "unfinished files of the living removed", "rmsprop/checkpoints/atomic.py",
        "test_checkpoint_writing.py -k of_the_living",
        "            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "",
    ),
    Mutant(
        "unfinished files of the dead left", "rmsprop/checkpoints/atomic.py",
        "test_checkpoint_writing.py -k of_the_dead",
        "        sweep(folder)\n", "",
    ),
    Mutant(
        "permissions lost", "rmsprop/checkpoints/atomic.py", "test_checkpoint_writing.py -k permissions",
        "os.chmod(file.name, mode)", "pass",
    ),
    Mutant(
        "link replaced", "rmsprop/checkpoints/atomic.py", "test_checkpoint_writing.py -k a_link_stays",
        "os.path.realpath(path)", "os.path.abspath(path)",
    ),
    Mutant(
        "pieces in the order in which their hashes are ready", "rmsprop/checkpoints/digests.py",
        "test_checkpoint_files.py -k digests_of_its_pieces", "popleft()())", "pop()())",
    ),
    Mutant(
        "error of the disk lost", "rmsprop/checkpoints/atomic.py",
        "test_checkpoint_writing.py -k told_only_once", "        if task is not None:\n            task()\n", "",
    ),
    Mutant(
        "no save without threads", "rmsprop/checkpoints/helpers.py",
        "test_checkpoint_writing.py -k end_of_the_interpreter",
        "except RuntimeError:  # at", "except ValueError:  # at",
    ),
    Mutant(
        "no save without the library of threads", "rmsprop/checkpoints/helpers.py",
        "test_checkpoint_writing.py -k end_of_the_interpreter",
        "except RuntimeError:  # which", "except ValueError:  # which",
    ),
    Mutant(
        "saved in the background without a copy", "rmsprop/checkpoints/saving.py",
        "test_checkpoint_writing.py -k background_keeps",
        "tensor.read(True)", "tensor.read(False)",
    ),
    Mutant(
        "error in the background raised again and again", "rmsprop/checkpoints/background.py",
        "test_checkpoint_writing.py -k raised_once",
        "error, self._error = self._error, None", "error = self._error",
    ),
    Mutant(
        "two saves in the background at once", "rmsprop/checkpoints/saving.py",
        "test_checkpoint_writing.py -k next_save_waits",
        "    background.settle(settings.state)\n", "",
    ),
    Mutant(
        "one checkpoint too few kept", "rmsprop/checkpoints/manager.py",
        "test_checkpoint_writing.py -k keeps_the_latest",
        "self.checkpoints[: -self.max_to_keep]", "self.checkpoints[: 1 - self.max_to_keep]",
    ),
    Mutant(
        "checkpoints missed by leaps", "rmsprop/checkpoints/manager.py", "test_checkpoint_writing.py -k in_leaps",
        "step // self.every != self._seen // self.every", "step % self.every == 0",
    ),
    Mutant(
        "steps taken while a manager saves", "rmsprop/checkpoints/manager.py",
        "test_checkpoint_writing.py -k while_a_manager_saves",
        "with optimizer._settings.state.lock:", "if True:",
    ),
    Mutant(
        "checkpoint numbered like another", "rmsprop/checkpoints/manager.py",
        "test_checkpoint_writing.py -k keeps_the_latest",
        "default=0) + 1", "default=1)",
    ),
    # Restoring
    Mutant(
        "what can fail changed last", "rmsprop/checkpoints/restoring.py",
        "test_checkpoints.py -k 'at_the_last_variable or fails_in_the_middle'",
        "key=lambda change: change.func in (_copy, _copy_parts)",
        "key=lambda change: change.func not in (_copy, _copy_parts)",
    ),
    Mutant(
        "slots that came later kept", "rmsprop/checkpoints/restoring.py", "test_checkpoints.py -k came_later",
        "        changes += _resets(settings, parameter, checkpoint.records[name], checkpoint.source)\n",
        "        pass\n",
    ),
    Mutant(
        "variables of another dtype restored", "rmsprop/checkpoints/restoring.py",
        "test_checkpoints.py -k does_not_fit",
        "if (dtype, shape) != (record.dtype, record.shape):", "if shape != record.shape:",
    ),
    Mutant(
        "state of other variables kept", "rmsprop/checkpoints/restoring.py",
        "test_checkpoints.py -k state_of_another_variable",
        "        if id(parameter) not in restored:\n", "        if False:\n",
    ),
    Mutant(
        "other settings overlooked", "rmsprop/checkpoints/settings.py", "test_checkpoints.py -k does_not_fit",
        "if own.get(name) != settings.get(name):", "if name not in own:",
    ),
    Mutant(
        "variables of one name saved once", "rmsprop/variables/nested.py", "test_checkpoints.py -k one_name",
        "while name in found:", "while False:",
    ),
    Mutant(
        "counter of the loss scale lost", "rmsprop/checkpoints/numbers.py",
        "test_checkpoints.py -k loss_scale_come_back",
        "[scale.scale, scale.dynamic_counter]", "[scale.scale, 0]",
    ),
    Mutant(
        "complex numbers held as one", "rmsprop/checkpoints/tensors.py", "test_checkpoints.py -k recorded_file",
        "return PAIRS[self.dtype], (*self.shape, 2)", "return PAIRS[self.dtype], (2, *self.shape)",
    ),
]  # fmt: skip
