"""How files are written: all or not at all, beside the steps, and many in a directory."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rmsprop import CheckpointError, CheckpointManager, RMSprop
from rmsprop.checkpoints import atomic, saving

PROGRAM = Path(__file__).parent / "programs" / "killed.py"


def example(number=1):
    opt, w = RMSprop(), np.full((50, 20), number, np.float64)
    opt.build([w])
    opt.iterations.assign(number)
    return opt, w


def number_in(path):
    return int(RMSprop.load(path).iterations)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


# All or not at all


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_killed_leaves_the_old_or_the_new_state(tmp_path):
    code = f"import runpy; print(runpy.run_path({str(PROGRAM)!r})['run'](15, {str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("([], "), done
    assert done.stdout.endswith(", 0)\n")


def test_unfinished_files_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    dead, other = tmp_path / f".dead{atomic.SUFFIX}", tmp_path / ".other"
    dead.write_bytes(b"x")
    other.write_bytes(b"x")
    opt, w = example()
    with atomic.replacing(str(tmp_path / "slow")) as file:
        file.write(b"living")
        opt.save(tmp_path / "quick", [w])
        assert os.path.exists(file.name)
    assert sorted(os.listdir(tmp_path)) == [".other", "quick", "slow"]
    assert (tmp_path / "slow").read_bytes() == b"living"


def test_an_unfinished_file_that_is_swept_before_it_is_locked_is_begun_anew(path, monkeypatch):
    lock, swept = atomic._lock, []

    def late(file):
        if not swept:
            swept.append(file.name)
            atomic.sweep(str(path.parent))
        lock(file)

    monkeypatch.setattr(atomic, "_lock", late)
    with atomic.replacing(str(path)) as file:
        file.write(b"x")
    assert os.listdir(path.parent) == [path.name]
    assert swept != [file.name]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_an_error_of_the_disk_leaves_the_old_file_and_names_it(function, path, monkeypatch):
    opt, w = example(1)
    opt.save(path, [w])

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opt.iterations.assign(2)
    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(OSError, match="No space left") as caught:
            opt.save(path, [w])
    assert caught.value.filename == str(path)
    assert os.listdir(path.parent) == [path.name]
    assert number_in(path) == 1


@pytest.mark.skipif(atomic.fcntl is None, reason="Windows does not do so for directories")
def test_the_file_is_on_the_disk_before_it_takes_its_name_and_the_name_before_the_save_ends(path, monkeypatch):
    opt, w = example()
    seen, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor):
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (seen.append("name"), replace(*paths)))
    opt.save(path, [w])
    assert seen == ["file", "name", "folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_disk_that_is_full_leaves_the_old_file(path):
    code = f"""
import numpy as np, resource, rmsprop
opt, w = rmsprop.RMSprop(), np.ones(100_000)
opt.build([w])
opt.save({str(path)!r}, [w])
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
opt.iterations.assign(9)
try:
    opt.save({str(path)!r}, [w])
except OSError as error:
    print(error.filename)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}\n"
    assert os.listdir(path.parent) == [path.name]
    assert number_in(path) == 0


def test_a_file_is_sound_even_if_an_array_changes_while_it_is_written(path, monkeypatch):
    opt, w = example()
    replacing = atomic.replacing

    @contextmanager
    def changing(path):
        with replacing(path) as file:
            write = file.write

            def changed(data):
                w[...] += 1  # as another thread might do
                write(data)

            yield SimpleNamespace(write=changed)

    monkeypatch.setattr(saving, "replacing", changing)
    opt.save(path, [w])
    assert number_in(path) == 1


def test_an_interrupt_leaves_nothing_behind(path):
    with pytest.raises(KeyboardInterrupt), atomic.replacing(str(path)) as file:
        file.write(b"x")
        raise KeyboardInterrupt
    assert os.listdir(path.parent) == []


def test_permissions_are_those_that_open_would_give(tmp_path):
    opt, w = example()
    old = os.umask(0o027)
    try:
        opt.save(tmp_path / "new", [w])
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o640
    os.chmod(tmp_path / "new", 0o604)
    opt.save(tmp_path / "new", [w])
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) == 0o604


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    for number in (1, 2):
        opt, w = example(number)
        opt.save(tmp_path / "link", [w])
        assert (tmp_path / "link").is_symlink()
        assert number_in(tmp_path / "elsewhere" / "file") == number
    assert os.listdir(tmp_path / "elsewhere") == ["file"]


@pytest.mark.parametrize("form", [str, os.fsencode, Path])
def test_paths_may_be_given_in_each_form(form, path):
    opt, w = example(4)
    opt.save(form(path), [w])
    assert number_in(form(path)) == 4
    opt.restore(form(path), [w])


def test_directories_are_not_replaced(tmp_path):
    opt, w = example()
    with pytest.raises(IsADirectoryError):
        opt.save(tmp_path, [w])
    with pytest.raises(FileNotFoundError):
        opt.save(tmp_path / "nowhere" / "file", [w])
    assert os.listdir(tmp_path) == []


def pipe(path):
    os.mkfifo(path)


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(path))


def terminal(path):
    main, other = os.openpty()
    path.symlink_to(os.ttyname(other))
    return lambda: (os.close(main), os.close(other))


def end_of_a_pipe(path):
    read, write = os.pipe()
    path.symlink_to(f"/dev/fd/{write}")
    return lambda: (os.close(read), os.close(write))


@pytest.mark.parametrize("make", [pipe, socket_at, terminal, end_of_a_pipe])
@pytest.mark.parametrize("wait", [True, False])
def test_what_is_no_regular_file_is_neither_replaced_nor_opened(make, wait, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = tmp_path / "it"
    close = make(path.relative_to(tmp_path) if make is socket_at else path) or (lambda: None)
    opt, w = example()
    before = os.lstat(path)
    for save in (opt.save, lambda *_, wait: CheckpointManager(path).save(opt, [w], wait=wait)):
        with pytest.raises(OSError, match="regular file|exists|Not a directory") as caught:
            saving = save(path, [w], wait=wait)
            saving.wait()
        assert os.fspath(path) in caught.value.filename
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert os.listdir(tmp_path) == ["it"]
    with pytest.raises(CheckpointError, match="no regular file"):
        opt.restore(path, [w])
    close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_an_error_that_names_the_file(path):
    opt, w = example()
    path.parent.chmod(0o500)
    with pytest.raises(PermissionError) as caught:
        opt.save(path, [w])
    assert caught.value.filename == str(path)


# Beside the steps


@pytest.fixture
def held(monkeypatch):
    """Keep files from being written until the event is set."""
    event, sweep = threading.Event(), atomic.sweep

    def wait(folder):
        assert event.wait(30)
        sweep(folder)

    monkeypatch.setattr(atomic, "sweep", wait)
    yield event
    event.set()


def test_a_save_in_the_background_keeps_the_state_that_was(path, held):
    opt, w = RMSprop(momentum=0.9), np.ones((30, 40))[::2, ::-1]
    opt.apply_gradients([(np.ones_like(w), w)])
    kept, weights = w.copy(), opt.get_weights()
    saving = opt.save(path, [w], wait=False)
    opt.apply_gradients([(np.ones_like(w), w)])
    assert not path.exists()
    held.set()
    saving.wait()
    again, v = RMSprop(momentum=0.9), np.zeros((15, 40))
    again.restore(path, [v])
    assert v.tobytes() == kept.tobytes()
    assert all((a == b).all() for a, b in zip(again.get_weights(), weights, strict=True))


def test_a_save_in_8_bits_goes_on_in_the_background_too(path, held):
    opt, w = RMSprop(state_dtype="uint8"), np.ones((3, 70), np.float32)
    opt.build([w])
    opt.set_weights([np.array(5), np.full((3, 70), 0.5)])
    saving = opt.save(path, [w], wait=False)
    opt.set_weights([np.array(6), np.full((3, 70), 0.25)])
    held.set()
    saving.wait()
    assert number_in(path) == 5
    assert (RMSprop.load(path).get_weights()[1] == 0.5).all()


def test_the_next_save_waits_for_the_one_in_the_background(path, held, monkeypatch):
    begun, sweep = [], atomic.sweep
    monkeypatch.setattr(atomic, "sweep", lambda folder: (begun.append(folder), sweep(folder)))
    opt, w = example(1)
    opt.save(path, [w], wait=False)
    opt.iterations.assign(2)
    thread = threading.Thread(target=opt.save, args=(path, [w]))
    thread.start()
    thread.join(0.1)
    assert len(begun) <= 1
    held.set()
    thread.join()
    assert number_in(path) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_that_it_can_not_wait_for_a_save_and_can_save(tmp_path):
    code = f"""
import os, threading, numpy as np
from rmsprop import RMSprop
from rmsprop.checkpoints import atomic
os.chdir({str(tmp_path)!r})
event, sweep = threading.Event(), atomic.sweep
atomic.sweep = lambda folder: (event.wait(30), sweep(folder))
opt, w = RMSprop(), np.ones(3)
saving = opt.save("parents", [w], wait=False)
if os.fork() == 0:
    event.set()
    try:
        saving.wait()
    except RuntimeError as error:
        print(error, flush=True)
    opt.save("childs", [w])
    os._exit(0)
os.wait()
print(os.path.exists("parents"), os.path.exists("childs"))
event.set()
saving.wait()
print(os.path.exists("parents"))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told, *others = done.stdout.splitlines()
    assert "its forked child" in told
    assert others == ["False True", "True"]


def test_an_error_in_the_background_is_raised_once_by_whoever_asks_next(tmp_path):
    opt, w = example()
    nowhere = tmp_path / "nowhere" / "file"
    saving = opt.save(nowhere, [w], wait=False)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        saving.wait()
    saving.wait()
    opt.save(tmp_path / "file", [w])
    for ask in (lambda: opt.save(tmp_path / "file", [w]), lambda: opt.restore(tmp_path / "file", [w])):
        opt.save(nowhere, [w], wait=False)
        with pytest.raises(FileNotFoundError) as caught:
            ask()
        assert caught.value.__notes__ == ["It was raised by a save in the background."]
        ask()


@pytest.mark.parametrize("at", [1, 2])
def test_an_error_of_the_disk_that_is_told_only_once_is_raised(path, monkeypatch, at):
    RMSprop().save(path, [np.ones(3)])
    before, calls, fsync = path.read_bytes(), [], os.fsync

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) == at:
            raise OSError(errno.EIO, "the disk fails")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="the disk fails"):
        RMSprop().save(path, [np.ones(5_000_000)])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("when", ["in the background", "at exit", "at exit, with threads"])
def test_a_save_at_the_end_of_the_interpreter_is_complete(tmp_path, when):
    path = tmp_path / "w"
    code = f"""
import atexit, numpy as np, rmsprop
opt, w = rmsprop.RMSprop(), np.arange(10_000_000.)
if {when == "at exit, with threads"}:
    import concurrent.futures.thread
if {when.startswith("at exit")}:
    atexit.register(opt.save, {str(path)!r}, [w])
else:
    opt.save({str(path)!r}, [w], wait=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    w = np.zeros(10_000_000)
    RMSprop().restore(path, [w])
    assert w[-1] == w.size - 1


def test_the_end_of_the_program_waits_for_the_background_and_tells_its_errors(tmp_path):
    code = f"""
import numpy as np, rmsprop, sys
opt, other, w = rmsprop.RMSprop(), rmsprop.RMSprop(), np.ones(1_000_000)
opt.build([w])
opt.save({str(tmp_path / "file")!r}, [w], wait=False)
other.save({str(tmp_path / "nowhere" / "file")!r}, [w], wait=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert number_in(tmp_path / "file") == 0
    assert "a save in the background failed, and nobody waited for it" in done.stderr
    assert "FileNotFoundError" in done.stderr


# Many in a directory


def names(manager):
    return [os.path.basename(path) for path in manager.checkpoints]


def test_a_manager_saves_every_so_many_steps_and_keeps_the_latest(tmp_path):
    manager = CheckpointManager(tmp_path / "new" / "folder", max_to_keep=2, every=3)
    assert manager.latest is None
    opt, w = example()
    paths = []
    for number in range(1, 13):
        opt.iterations.assign(number)
        paths.append(manager.save(opt, [w]))
    assert [i + 1 for i, p in enumerate(paths) if p] == [3, 6, 9, 12]
    assert names(manager) == ["checkpoint-000003-step-9.safetensors", "checkpoint-000004-step-12.safetensors"]
    assert manager.latest == paths[-1] == manager.checkpoints[-1]
    assert number_in(manager.latest) == 12


def test_a_manager_misses_no_checkpoint_when_steps_are_counted_in_leaps(tmp_path):
    manager = CheckpointManager(tmp_path, max_to_keep=None, every=3)
    opt, w = example()
    for number in range(1, 12, 2):
        opt.iterations.assign(number)
        manager.save(opt, [w])
    assert [number_in(path) for path in manager.checkpoints] == [3, 7, 9]


def test_the_latest_is_what_was_saved_last_also_after_going_back(tmp_path):
    opt, w = example()
    for number in (10, 20, 30):
        opt.iterations.assign(number)
        CheckpointManager(tmp_path).save(opt, [w])
    manager = CheckpointManager(tmp_path, max_to_keep=3)
    opt.restore(manager.checkpoints[0], [w])
    opt.iterations.assign(11)
    manager.save(opt, [w])
    assert [number_in(path) for path in manager.checkpoints] == [20, 30, 11]
    assert number_in(CheckpointManager(tmp_path).latest) == 11


def test_a_manager_leaves_other_files_alone(tmp_path):
    for name in ("notes.txt", "checkpoint-1-step-1.safetensors.bak", "checkpoint-x-step-1.safetensors"):
        (tmp_path / name).write_bytes(b"mine")
    manager, (opt, w) = CheckpointManager(tmp_path, max_to_keep=1), example()
    for _ in range(2):
        opt.iterations.assign_add(1)
        manager.save(opt, [w])
    assert len(os.listdir(tmp_path)) == 4


def test_a_manager_takes_only_regular_files_for_checkpoints(tmp_path):
    os.mkfifo(tmp_path / "checkpoint-000001-step-1.safetensors")
    (tmp_path / "checkpoint-000002-step-1.safetensors").mkdir()
    opt, w = example()
    manager = CheckpointManager(tmp_path, max_to_keep=1)
    assert manager.latest is None
    for _ in range(2):
        manager.save(opt, [w])
        opt.apply_gradients([(np.ones(w.shape), w)])
    assert [name[:17] for name in names(manager)] == ["checkpoint-000004"]
    opt.restore(manager.latest, [w])
    assert len(os.listdir(tmp_path)) == 3


def test_a_manager_removes_old_checkpoints_only_when_the_new_one_is_there(tmp_path, held):
    manager, (opt, w) = CheckpointManager(tmp_path, max_to_keep=1), example()
    held.set()
    manager.save(opt, [w])
    held.clear()
    opt.iterations.assign(2)
    saving = manager.save(opt, [w], wait=False)
    assert number_in(manager.latest) == 1
    held.set()
    saving.wait()
    assert [number_in(path) for path in manager.checkpoints] == [2]
    opt.iterations.assign(3)
    manager.save(opt, [w], wait=False)
    opt.iterations.assign(4)
    manager.save(opt, [w])
    assert names(manager) == ["checkpoint-000004-step-4.safetensors"]


def test_a_save_that_failed_is_due_again_at_the_next_step(tmp_path, monkeypatch):
    manager, (opt, w) = CheckpointManager(tmp_path, every=10), example(10)

    def full(file, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opt.iterations.assign(9)
    manager.save(opt, [w])
    opt.iterations.assign(10)
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "_complete", full)
        with pytest.raises(OSError, match="No space"):
            manager.save(opt, [w])
    opt.iterations.assign(11)
    assert number_in(manager.save(opt, [w])) == 11


def test_no_other_thread_takes_a_step_while_a_manager_saves(tmp_path):
    class Watched(dict):
        def __getitem__(self, key):
            def look():
                is_free.append(opt._state.lock.acquire(blocking=False))
                if is_free[-1]:
                    opt._state.lock.release()

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            return super().__getitem__(key)

    is_free, (opt, w) = [], example()
    CheckpointManager(tmp_path).save(opt, Watched(w=w))
    assert is_free == [False]


@pytest.mark.parametrize("bad", [{"max_to_keep": 0}, {"every": 0}, {"every": 1.5}, {"max_to_keep": True}], ids=str)
def test_a_manager_refuses_numbers_that_keep_nothing(bad, tmp_path):
    with pytest.raises(ValueError, match="whole number from 1 on"):
        CheckpointManager(tmp_path, **bad)
