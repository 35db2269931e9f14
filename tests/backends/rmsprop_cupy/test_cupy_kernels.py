"""The kernels for CuPy, compiled for each architecture; this needs neither a device nor a driver."""

import itertools
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

cupy = pytest.importorskip("cupy", reason="CuPy and its compiler are in the extra 'nvrtc'")
from cupy.cuda import nvrtc  # noqa: E402

from rmsprop_cupy import kernels, row_kernels, sorting, source, updates  # noqa: E402

HEADERS = [Path(cupy.__file__).parent / "_core/include", Path(cupy.cuda.get_cuda_path() or "", "include")]
try:
    is_complete = nvrtc.getVersion() >= (13, 0) and (HEADERS[1] / "cuda_fp16.h").is_file()
except RuntimeError:  # no library
    is_complete = False
if not is_complete:
    pytest.skip("NVRTC 13 and its headers are in the extra 'nvrtc'", allow_module_level=True)

ARCHITECTURES = (75, 80, 90, 100, 120)
DIALECTS = (75, 100)
"""Those for which the compiler writes PTX differently: for them all variants are looked at."""
VECTORS = kernels.Split(vector=4)


@cache
def windows_kernel(variant, options):
    """Return the kernel for windows of two axes."""
    return kernels.windows_kernel.__wrapped__(variant, options, 2)


@cache
def list_kernel(variant, options):
    """Return the kernel for lists, divided as they are."""
    return kernels.list_kernel.__wrapped__(variant, kernels.SPLIT, options)


MAKERS = (kernels.array_kernel, list_kernel, row_kernels.strided_kernel, windows_kernel)


class Layout(NamedTuple):
    """What CuPy tells the compiler of an array."""

    ndim: int
    contiguous: bool
    narrow: bool
    """Whether indices fit into 32 bits."""

    def __str__(self):
        return ", ".join(str(int(value)) for value in self)


FLAT, STRIDED, WIDE = Layout(1, True, True), Layout(3, False, True), Layout(1, True, False)


class Case(NamedTuple):
    """A kernel, and what it is made for."""

    kernel: Any
    variant: source.Variant
    layout: Layout

    def __str__(self):
        flags = [name for name, value in self.variant._asdict().items() if value is True]
        return " ".join([self.kernel.name, self.variant.dtype, *flags, *self.variant.terms, f"<{self.layout}>"])


def variants(dtype):
    """Return variants for a dtype, the simplest first and the richest last; the last two can be left out.

    They are all of those without options of the formula, and some with each option.
    """
    plain = [source.Variant(dtype, *values) for values in itertools.product((False, True), repeat=5)]
    of_average = ("ema", "one_minus_ema")
    optional = [
        *[v._replace(terms=(term,)) for v in (plain[0], plain[-1]) for term in ("weight_decay", "shrinkage")],
        *[plain[-1]._replace(terms=(term,), captured=False) for term in ("nesterov_mu", "mg_scale", "outer_rate")],
        plain[0]._replace(average=True, terms=of_average),
        plain[0]._replace(multiplied=True),
        plain[-1]._replace(guarded=True),
    ]
    terms = tuple([name for name in source.OPTIONAL if name != "shrinkage"])
    richest = plain[-1]._replace(guarded=True, terms=terms, average=True, multiplied=True)
    return [*plain, *optional, richest]


def fitting(variant, make):
    """Return a variant that there is of a kernel: one variable is given its numbers one by one."""
    return variant if make is list_kernel else variant._replace(multiplied=False)


def cases(chosen):
    """Return each kernel for flat arrays, the simplest and the richest for other layouts, too."""
    for variant, make in itertools.product(chosen, MAKERS):
        variant = fitting(variant, make)
        kernel = make(variant, ())
        others = (WIDE,) if takes_raw(kernel) else (STRIDED, WIDE)
        for layout in (FLAT, *others) if len(set(variant[1:6])) == 1 else (FLAT,):
            yield Case(kernel, variant, layout)


def is_array(kernel, parameter):
    """Tell whether a kernel is given an array for a parameter: all are but scalars."""
    return parameter.raw or not parameter.is_const or parameter is kernel.in_params[0]


def takes_raw(kernel):
    """Tell whether a kernel is given all arrays as they are, and not element by element."""
    return kernel.in_params[0].raw


def assembled(kernel, layout, name):
    """Return the source of an elementwise kernel, as CuPy makes it when the kernel is called.

    Layouts are those of arrays that the kernel reads element by element; raw ones are flat.
    """
    raw = FLAT._replace(narrow=layout.narrow)
    if takes_raw(kernel):
        layout = raw
    parameters, references = [], []
    for p in (*kernel.in_params, *kernel.out_params):
        const = "const " if p.is_const else ""
        if not is_array(kernel, p):
            parameters.append(f"{const}{p.ctype} {p.name}")
        elif p.raw:
            parameters.append(f"{const}CArray<{p.ctype}, {raw}> {p.name}")
        else:
            parameters.append(f"{const}CArray<{p.ctype}, {layout}> _raw_{p.name}")
            references.append(f"{const}{p.ctype} &{p.name} = _raw_{p.name}[_ind.get()];")
    parameters.append(f"CIndexer<{layout.ndim}, {int(layout.narrow)}> _ind")
    lines = "\n".join([*references, kernel.operation])
    return f"""
extern "C" __global__ void {name}({", ".join(parameters)}) {{
  {kernel.kwargs.get("loop_prep", "")};
  #pragma unroll 1
  CUPY_FOR(i, _ind.size()) {{
    _ind.set(i);
    {lines};
  }}
  ;
}}
"""


def unit(dtype, chosen):
    """Return one source of all kernels for a dtype, and the cases by the names that their kernels have there.

    They are compiled together since the headers take as long as a dozen kernels.
    """
    named = {f"{case.kernel.name}_{i}": case for i, case in enumerate(cases(chosen))}
    headers = ["complex.cuh", "carray.cuh", "atomics.cuh", "math_constants.h", "float16.cuh", "bfloat16.cuh"]
    terms = ("square((wide)gradient)",), ("nothing(given)",)
    norms = [
        kernels.norm_kernel(dtype, limited, term, ()) for limited, term in zip((False, True), terms, strict=True)
    ]
    raw = [*norms, kernels.norm_kernel(dtype, True, (*terms[0], *terms[1]), ()), kernels.factor_kernel()]
    parts = [f"#include <cupy/{header}>\n" for header in headers]
    preambles = dict.fromkeys(case.kernel.preamble for case in named.values())
    parts += [source.PREAMBLE, *[preamble.replace(source.PREAMBLE, "") for preamble in preambles]]
    parts += [assembled(case.kernel, case.layout, name) for name, case in named.items()]
    parts += [k.code.replace(source.PREAMBLE, "").replace(k.name, f"{k.name}_{i}") for i, k in enumerate(raw)]
    return "".join(parts), named


def compiled(code, architecture, read):
    """Return what NVRTC makes of a source with the options of CuPy."""
    cccl = [HEADERS[0] / "cupy/_cccl" / name for name in ("cub", "thrust", "libcudacxx")]
    options = [f"-I{folder}" for folder in (*cccl, *HEADERS)]
    program = nvrtc.createProgram(code, "kernels.cu", (), ())
    try:
        flags = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")
        nvrtc.compileProgram(program, (*options, *flags, f"-arch={architecture}"))
        return read(program)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def bodies(code, architecture):
    """Return the instructions of each kernel of a source by its name."""
    ptx = compiled(code, f"compute_{architecture}", nvrtc.getPTX).decode()
    assert ".func" not in ptx, "a function that is not inlined would go unseen"
    return dict(re.findall(r"\.entry (\w+)\(.*?\)\s*\{(.*?)\n\}", ptx, re.DOTALL))


def is_double(body):
    """Tell whether a kernel has instructions for double precision."""
    return re.search(r"\.f64\b", body) is not None


def accesses(body):
    """Count what a thread reads and writes in global memory for one element, by bytes.

    What comes before the loop over elements is done once.
    """
    _, loop = body.split('.pragma "nounroll"', 1)
    found = [code.split(".") for code in re.findall(r"\b(?:ld|st|atom|red)\.[\w.:]+", loop)]
    outside = [code for code in found if not {"param", "shared", "local"} & set(code)]
    return Counter(int(code[-1][1:]) // 8 * (2 if "v2" in code else 1) for code in outside)


def least(kernel, variant):
    """Return the accesses that an element needs, by bytes: one to the gradient, two to variable and each slot.

    Weight decay and Nesterov's momentum need none. Besides, a list looks up two numbers of its factor and, with
    multipliers, the learning rate at two places and weight decay; and in tables of 64-bit integers the number of
    elements, the first of them, position and address of the gradient, and the addresses of variable and slots.
    Windows compare two indices to those of all, and of those that overlap again. Three atomics note what is
    outside.
    """
    real = np.dtype(kernels.REAL[variant.dtype]).itemsize
    number = 2 * real if source.is_complex(variant) else real
    stored = cupy.dtype(variant.dtype).itemsize
    slots = [stored, real, *[number] * (variant.momentum + variant.centered + variant.average)]
    counted = Counter([stored, *slots, *slots])
    if kernel.name == "rmsprop_list":
        own = 1 + len({"weight_decay", "outer_rate"} & {*variant.terms}) if variant.multiplied else 0
        counted += Counter([*[8] * (4 + len(slots)), *[real] * (2 * variant.factor + own)])
    elif kernel.name == "rmsprop_windows":
        counted += Counter([8] * (2 * 3 + 3))
    return counted


@pytest.mark.parametrize("dtype", source.DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_access_memory_as_little_as_can_be_and_those_for_floats_have_no_double(architecture, dtype):
    every = variants(dtype)
    code, named = unit(dtype, every if architecture in DIALECTS else [every[0], every[-1]])
    found = bodies(code, architecture)
    real = kernels.REAL[dtype] is np.float64
    assert {str(c): is_double(found[name]) for name, c in named.items()} == {str(c): real for c in named.values()}
    # Of rows the compiler makes several loops, whose instructions can't be told apart.
    counted = {n: c for n, c in named.items() if c.kernel.name != "rmsprop_strided_rows"}
    assert {str(c): accesses(found[name]) for name, c in counted.items()} == {
        str(c): least(c.kernel, c.variant) for c in counted.values()
    }


@pytest.mark.parametrize("dtype", source.DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_assembler_accepts_the_richest_kernels(architecture, dtype):
    code, _ = unit(dtype, [variants(dtype)[-1]])
    assert compiled(code, f"sm_{architecture}", nvrtc.getCUBIN).startswith(b"\x7fELF")


@pytest.mark.parametrize("dtype", source.DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_assembler_accepts_kernels_that_are_given_a_structure_and_those_for_floats_have_no_double(
    architecture, dtype
):
    both = [variants(dtype)[0], variants(dtype)[-1]._replace(captured=False)]
    codes = [updates.code_of(v._replace(multiplied=False), None) for v in both]
    codes += [updates.code_of(v, split) for v in both for split in (kernels.SPLIT, VECTORS)]
    codes += [*[row_kernels.code_of(v._replace(average=False)) for v in both], sorting.code()]
    for code in codes:
        assert compiled(code, f"sm_{architecture}", nvrtc.getCUBIN).startswith(b"\x7fELF")
    ptx = [compiled(code, f"compute_{architecture}", nvrtc.getPTX).decode() for code in codes]
    assert {is_double(text) for text in ptx[:-1]} == {kernels.REAL[dtype] is np.float64}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rho * rms", "0.9 * rms"),
        ("over(times(g_, rate)", "over(times((float)g, rate)"),
    ],
)
def test_a_double_constant_and_a_second_read_are_noticed(old, new):
    variant = variants("float32")[0]
    kernel = kernels.array_kernel(variant, ())
    code, _ = unit("float32", [variant])
    sound, broken = [bodies(text, 75)["rmsprop_0"] for text in (code, code.replace(old, new, 1))]
    assert (accesses(sound), is_double(sound)) == (least(kernel, variant), False) == (Counter({4: 5}), False)
    assert (accesses(broken), is_double(broken)) != (Counter({4: 5}), False)


@pytest.mark.gpu
@pytest.mark.skipif(not cupy.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", source.DTYPES)
@pytest.mark.parametrize("layout", [FLAT, STRIDED], ids=["flat", "strided"])
def test_the_source_that_is_checked_is_the_one_that_cupy_compiles(make, dtype, layout):
    for variant in (variants(dtype)[0], variants(dtype)[-1]):
        kernel = make.__wrapped__(fitting(variant, make), ())  # a new one, which has compiled nothing
        arguments = []
        for p in (*kernel.in_params, *kernel.out_params):
            is_strided = layout is STRIDED and not p.raw
            array = cupy.zeros((2, 5, 4), p.dtype)[:, ::2, ::2] if is_strided else cupy.zeros(16, p.dtype)
            arguments.append(array if is_array(kernel, p) else 1)
        kernel(*arguments, **({"size": 1} if takes_raw(kernel) else {}))
        theirs = kernel.cached_code
        assert theirs[theirs.index('extern "C"') :].split() == assembled(kernel, layout, kernel.name).split()


@pytest.mark.parametrize(("dtype", "reads"), [("float32", 3), ("float64", 6), ("complex64", 5)])
def test_four_neighbours_come_from_memory_in_accesses_of_16_bytes(dtype, reads):
    ptx = compiled(updates.code_of(variants(dtype)[0], VECTORS), "compute_90", nvrtc.getPTX).decode()
    whole = Counter(re.findall(r"\b(ld|st)\.(?:global\.)?(?:v4\.[ubf]32|v2\.[ubf]64)", ptx))
    assert whole == {"ld": reads, "st": {"float32": 2, "float64": 4, "complex64": 3}[dtype]}
