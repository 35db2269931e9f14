"""A step that fails for lack of stack or memory, at whatever point, leaves no trace; the next one works."""

import os
import subprocess
import sys

import array_api_strict
import numpy as np
import pytest

from rmsprop import IndexedSlices, RMSprop, Variable
from rmsprop.backends import backend_of

ONE = [((7,), "float32")]
DTYPES = [((7,), "float32"), ((4, 2), "float64"), ((3,), "complex64"), ((2,), "float16")]


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape, dtype in shapes]


def dense(shapes, **settings):
    return RMSprop(0.1, **settings), [*zip(drawn(shapes, 1), drawn(shapes), strict=True)]


def strided(**settings):
    shapes = [((4, 6), "float32"), ((2, 3, 4), "float64"), ((5, 2), "complex64")]
    pairs = [(g[..., ::2], v[..., ::2]) for g, v in zip(drawn(shapes, 1), drawn(shapes), strict=True)]
    return RMSprop(0.1, **settings), [(g.astype(g.dtype, order="F"), v) for g, v in pairs]


def sparse(**settings):
    tables = drawn([((6, 4), "float32"), ((5, 3), "float64"), ((4, 6), "float32")])
    tables[2] = tables[2][:, ::2]
    rows = [np.array([1, 3, 1]), np.array([0]), np.array([2, 0])]
    return RMSprop(0.1, **settings), [
        (IndexedSlices(np.ones((len(i), t.shape[1]), t.dtype), i), t) for t, i in zip(tables, rows, strict=True)
    ]


def compact(**settings):
    shapes = [((3, 70), "float32"), ((70,), "float64")]
    optimizer, pairs = dense(shapes, **settings)
    table = drawn([((3, 70), "float32")], 2)[0]
    return optimizer, [*pairs, (IndexedSlices(table[:2].copy(), np.array([2, 0])), table)]


def variables(make=np.asarray, **settings):
    shapes = [((3,), "float32"), ((2, 2), "float64")]
    values = [Variable(make(a)) for a in drawn(shapes)]
    return RMSprop(0.1, **settings), [*zip(map(make, drawn(shapes, 1)), values, strict=True)]


def constrained(**settings):
    optimizer, pairs = variables(**settings)
    pairs[1][1].constraint = lambda array: deep(6, lambda: array * 0.5)
    return optimizer, pairs


def several_libraries(**settings):
    optimizer, pairs = variables(array_api_strict.asarray, **settings)
    return optimizer, [*pairs, *dense(DTYPES)[1]]


KINDS = {
    "one array": lambda: dense(ONE),
    "one array, raise": lambda: dense(ONE, nonfinite="raise", global_clipnorm=0.5),
    "dtypes": lambda: dense(DTYPES, momentum=0.9, centered=True),
    "dtypes, clipped": lambda: dense(DTYPES, clipvalue=0.4, clipnorm=0.5),
    "strided": strided,
    "strided, centered": lambda: strided(centered=True, clipnorm=0.5),
    "sparse": sparse,
    "sparse, not lazy": lambda: sparse(lazy=False, centered=True),
    "bfloat16": lambda: compact(state_dtype="bfloat16", momentum=0.9),
    "uint8": lambda: compact(state_dtype="uint8", centered=True),
    "constraint": constrained,
    "constraint, uint8": lambda: constrained(state_dtype="uint8", momentum=0.9),
    "another library": lambda: variables(array_api_strict.asarray, momentum=0.9),
    "several libraries": lambda: several_libraries(momentum=0.9, clipnorm=0.5),
}


def deep(frames, function):
    """Call a function below so many others."""
    return function() if frames == 0 else deep(frames - 1, function)


def state(optimizer, pairs):
    """Return the bytes of all that a step can change."""
    arrays = [v.numpy() if isinstance(v, Variable) else v for _, v in pairs]
    kept = [getattr(w, "parts", None) or {"array": w.array} for w in optimizer.weights]
    slots = [part for parts in kept for part in parts.values()]
    return [np.asarray(a).tobytes() for a in (*arrays, *slots)]


def frames_left():
    """Return how many more calls within each other the recursion limit allows."""

    def count(n):
        try:
            return count(n + 1)
        except RecursionError:
            return n

    return count(0)


@pytest.mark.parametrize("is_repeated", [False, True], ids=["first step", "later step"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_too_little_stack_leaves_no_trace(kind, is_repeated):
    def ready():
        optimizer, pairs = KINDS[kind]()
        optimizer.build([v for _, v in pairs])
        for _ in range(2 * is_repeated):  # the second one is what makes a replay of the third
            optimizer.apply_gradients(pairs)
        return optimizer, pairs

    optimizer, pairs = ready()
    optimizer.apply_gradients(pairs)  # compiles all that is needed
    expected, outcomes = state(optimizer, pairs), set()
    available = frames_left()
    for left in range(4, 120):
        optimizer, pairs = ready()
        before = state(optimizer, pairs)
        try:
            deep(available - left, lambda: optimizer.apply_gradients(pairs))  # noqa: B023
        except RecursionError:
            assert state(optimizer, pairs) == before, f"a trace with {left} frames left"
            outcomes.add("failed")
            optimizer.apply_gradients(pairs)
        else:
            outcomes.add("taken")
        assert state(optimizer, pairs) == expected
        if outcomes == {"failed", "taken"} and left > 100:
            break
    assert outcomes == {"failed", "taken"}


FIRST_STEP = """
import sys
import numpy as np
from rmsprop import IndexedSlices, RMSprop

def deep(frames, function):
    return function() if frames == 0 else deep(frames - 1, function)

def steps():
    for settings in ({}, {"state_dtype": "uint8"}):
        opt = RMSprop(0.1, clipnorm=0.5, **settings)
        pairs = [(np.ones(3, kind), np.ones(3, kind)) for kind in ("f4", "f8")]
        opt.build([v for _, v in pairs])
        yield opt, [*pairs]

failures = 0
for left in [*range(20, 200, 20), *range(60, 20, -7)]:
    for opt, pairs in steps():
        try:
            deep(sys.getrecursionlimit() - left, lambda: opt.apply_gradients(pairs))
        except RecursionError:
            assert all((v == 1).all() for _, v in pairs) and not any(w.any() for w in opt.get_weights()), left
            failures += 1
        else:
            assert all((v != 1).all() for _, v in pairs) and int(opt.iterations) == 1
assert failures
for opt, pairs in steps():
    opt.apply_gradients(pairs)
    assert all((v != 1).all() for _, v in pairs)
sys.setrecursionlimit(150)
table = np.ones((2, 2))
try:
    RMSprop().apply_gradients([(IndexedSlices(table.copy(), np.array([0, 1])), table)])
except RecursionError as error:
    assert "sys.setrecursionlimit" in str(error), error
sys.setrecursionlimit(1000)
RMSprop().apply_gradients([(IndexedSlices(table.copy(), np.array([0, 1])), table)])
assert (table != 1).all()
"""


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"RMSPROP_CACHE": ""} | environment,  # all is compiled anew
        capture_output=True,
        text=True,
    )


def test_the_first_step_of_a_process_with_too_little_stack_leaves_no_trace_and_later_ones_work():
    done = run(FIRST_STEP)
    assert done.returncode == 0, done.stderr


def test_without_compilation_steps_are_refused_by_name():
    done = run(
        "import numpy as np, rmsprop; rmsprop.RMSprop().apply_gradients([(np.ones(2), np.ones(2))])",
        NUMBA_DISABLE_JIT="1",
    )
    assert "NUMBA_DISABLE_JIT" in done.stderr.splitlines()[-1], done.stderr


def test_nothing_is_compiled_once_a_step_has_been_prepared(monkeypatch):
    from numba.core import event

    backend, compiled = backend_of(np.ones(1)), []

    class Listener(event.Listener):
        def on_start(self, happening):
            if is_prepared:
                compiled.append(happening.data)

        def on_end(self, happening):
            pass

    prepare = backend.prepare
    is_prepared = False

    def prepared(*given):
        nonlocal is_prepared
        take = prepare(*given)
        is_prepared = True
        return take

    monkeypatch.setattr(backend, "prepare", prepared)
    with event.install_listener("numba:compile", Listener()):
        for kind in KINDS.values():
            optimizer, pairs = kind()
            is_prepared = False
            optimizer.apply_gradients(pairs)
    assert not compiled


LITTLE_MEMORY = """
import resource
import numpy as np
from rmsprop import IndexedSlices, RMSprop, Variable

N, hard = 500, resource.getrlimit(resource.RLIMIT_AS)[1]  # arrays of 2 MB

def lists():
    def table(order="C"):
        return np.ones((N, N), order=order)
    rows = IndexedSlices(table()[1:], np.arange(1, N))
    small = np.ones(3, np.float32), np.ones(3, np.float32)
    yield {}, [small, (rows, table("F"))]
    yield {"lazy": False}, [(rows, table("F")), small]
    yield {"state_dtype": "uint8"}, [small, (table("F"), table("F"))]
    yield {"clipnorm": 1.0}, [small, (table("F")[::2], table()[::2])]
    constrained = Variable(np.ones((N, N)))
    constrained.constraint = lambda array: array * 2.0
    yield {}, [small, (table(), constrained)]

def state(opt, pairs):
    arrays = [v.array if isinstance(v, Variable) else v for _, v in pairs]
    slots = [list((getattr(w, "parts", None) or {"array": w.array}).values()) for w in opt.weights]
    return [hash(a.tobytes()) for a in (*arrays, *sum(slots, []))]

def size():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))

failed = []
for settings, pairs in lists():
    opt = RMSprop(0.1, **settings)
    opt.apply_gradients(pairs)
    failures, before, hoard = 0, state(opt, pairs), []
    resource.setrlimit(resource.RLIMIT_AS, (size(), hard))
    try:
        while True:  # what malloc has kept to be used again
            hoard.append(np.empty(1 << 18, np.uint8))
    except MemoryError:
        pass
    for extra in range(1 << 18, 40 << 20, 3 << 19):
        resource.setrlimit(resource.RLIMIT_AS, (size() + extra, hard))
        try:
            opt.apply_gradients(pairs)
        except MemoryError:
            failures += 1
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        assert state(opt, pairs) == before, (settings, extra)
    failed.append(failures > 0)  # some need hardly more than malloc has
    assert int(opt.iterations) == 2
    now = state(opt, pairs)
    assert not any(a == b for a, b in zip(now, before)), settings

assert sum(failed) >= 3, failed
w = np.ones(3, np.complex64)  # whose kernels are not compiled yet
opt = RMSprop(0.1)
opt.build([w])
resource.setrlimit(resource.RLIMIT_AS, (size() + (8 << 20), hard))  # no room for another stack
try:
    opt.apply_gradients([(w.copy(), w)])
except (RuntimeError, MemoryError):
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    assert (w == 1).all() and int(opt.iterations) == 0
    opt.apply_gradients([(w.copy(), w)])
finally:  # or there was the stack of an earlier thread, which the C library has kept
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert (w != 1).all() and int(opt.iterations) == 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read as Linux tells it")
def test_a_step_with_too_little_memory_leaves_no_trace():
    done = run(LITTLE_MEMORY)
    assert done.returncode == 0, done.stderr


NO_MEMORY = f"""
import re, runpy
from rmsprop_numba import block_kernels, kernels, list_kernels, row_kernels

for kind in runpy.run_path({__file__!r})["KINDS"].values():
    optimizer, pairs = kind()
    optimizer.apply_gradients(pairs)
of_arrays, of_rows = [kernels.sweep, kernels.sweep_matrix], [row_kernels.sweep_rows, row_kernels.decay]
for kernel in (*of_arrays, *of_rows, list_kernels.sweep_list, block_kernels.sweep_blocks):
    assert kernel.signatures
    for text in kernel.inspect_llvm().values():
        assert not re.search(r"(call|invoke)[^\\n]*NRT_(MemInfo_)?[Aa]lloc", text), kernel
"""


def test_kernels_that_change_variables_get_no_memory():
    done = run(NO_MEMORY)  # of kernels from the cache, Numba does not have the text
    assert done.returncode == 0, done.stderr


def test_a_constraint_that_raises_puts_back_the_codes_of_slots_to_the_bit():
    for settings in ({"state_dtype": "uint8"}, {"state_dtype": "bfloat16", "centered": True, "momentum": 0.9}):
        optimizer, pairs = variables(**settings)
        for _ in range(3):
            optimizer.apply_gradients(pairs)
        before = state(optimizer, pairs)
        pairs[0][1].constraint = lambda array: 1 / 0
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                optimizer.apply_gradients(pairs)
            assert state(optimizer, pairs) == before
