"""The kernels, compiled by CuPy when they are first used."""

from functools import cache
from typing import Any

import cupy
import numpy as np

from rmsprop_cupy import source
from rmsprop_cupy.source import Variant

OPTIONS: tuple[str, ...] = ()
"""Options of the compiler; the tests switch the fusing of multiplications and additions off."""

REAL = {name: np.dtype(source.CUPY_TYPE[source.real_type(name)]).type for name in source.DTYPES}
"""For each dtype of a variable, the scalar type of its arithmetic."""

THREADS = 256
"""Threads of a block that sums up squares."""

FACTOR_THREADS = 1_024
"""Threads of the block that makes factors of the sums."""

CHUNK = 1_024
"""Elements that one row of the table of `list_kernel` stands for."""


def _real(variant: Variant) -> str:
    """Return the dtype of slots, scalars and factors; a double one would cost a kernel for floats its speed."""
    return source.CUPY_TYPE[source.real_type(variant.dtype)]


def _slots(variant: Variant) -> list[tuple[str, str]]:
    """Return dtype and name of what a kernel updates."""
    real = _real(variant)
    number = variant.dtype if source.is_complex(variant) else real
    slots = [(variant.dtype, "v"), (real, "r")]
    return slots + [(number, "mom")] * variant.momentum + [(number, "mg")] * variant.centered


def _own_factor(variant: Variant) -> str:
    return f"const {source.real_type(variant.dtype)} factor = factors[which];" if variant.factor else ""


@cache
def array_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for one array of any strides."""
    factor = f"raw {_real(variant)} factors, int32 which, " if variant.factor else ""
    return cupy.ElementwiseKernel(
        f"{variant.dtype} g, {factor}{source.scalar_parameters(variant)}",
        ", ".join(f"{dtype} {name}" for dtype, name in _slots(variant)),
        f"{source.guard(variant)} {{\n"
        f"const {source.number_type(variant.dtype)} gradient = {source.limited(variant, 'g')};\n"
        + source.formula(variant)
        + "\n}",
        "rmsprop",
        preamble=source.PREAMBLE,
        loop_prep=source.preparation(variant) + _own_factor(variant),
        options=options,
    )


@cache
def decay_kernel(variant: Variant) -> Any:
    """Return the kernel that lets an average decay unless the step is left out."""
    real = _real(variant)
    return cupy.ElementwiseKernel(
        f"raw {real} factors, int32 which, {real} rho",
        "T average",
        f"{source.guard(variant)} average = times(average, rho);",
        "rmsprop_decay",
        preamble=source.PREAMBLE,
        loop_prep=_own_factor(variant),
    )


@cache
def norm_kernel(dtype: str, clipvalue: bool, terms: tuple[str, ...], options: tuple[str, ...]) -> Any:
    """Return the kernel for sums over gradients in double precision, by one block of threads each.

    Of its `terms`, ``"square((wide)gradient)"`` is that of norms, after clipping by value, and
    ``"nothing(given)"`` makes NaN of a sum if a gradient is not finite.
    """
    variant = Variant(dtype, False, False, clipvalue, False)
    stored, number, real = source.storage_type(dtype), source.number_type(dtype), source.real_type(dtype)
    code = f"""
#include <cupy/complex.cuh>
#include <cupy/float16.cuh>
#include <cupy/bfloat16.cuh>
{source.PREAMBLE}
extern "C" __global__ void rmsprop_norm(
    const unsigned long long* table, const unsigned long long* gradients, double* sums, const {real} limit) {{
    typedef {"complex<double>" if source.is_complex(variant) else "double"} wide;
    __shared__ double shared[{THREADS}];
    const unsigned long long* row = table + 3 * (long long)blockIdx.x;
    const {stored}* g = (const {stored}*)gradients[row[2]] + row[1];
    double total = 0;
    for (int lane = threadIdx.x; lane < row[0]; lane += blockDim.x) {{
        const {number} given = ({number})g[lane], gradient = {source.limited(variant, "given")};
        total += {" + ".join(terms)};
    }}
    shared[threadIdx.x] = total;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {{
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }}
    if (threadIdx.x == 0) sums[blockIdx.x] = shared[0];
}}
"""
    return cupy.RawKernel(code, "rmsprop_norm", options=options)


@cache
def factor_kernel() -> Any:
    """Return the kernel that makes squared norms and clipping factors of the sums, in one block of threads.

    The rules are those of `rmsprop.clipping`; a limit below 0 stands for none. Factors come in both precisions.
    With `left_out`, all are NaN if a norm is not finite, and the step is counted there as one that is left out.
    A team of threads adds up the sums of one gradient, so that neither many gradients nor a large one take long.
    """
    code = (
        f"#define THREADS {FACTOR_THREADS}\n#define TEAM 32"
        + """
__device__ double shrunk(const double norm, const double limit) {
    if (limit <= 0) return limit < 0;
    return norm <= limit ? 1.0 : limit / norm;  // NaN stays
}
__device__ double added(double* shared, const double mine, const int lane, const int size) {
    shared[lane] = mine;
    for (int half = size / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) shared[lane] += shared[lane + half];
    }
    __syncthreads();
    const double sum = shared[0];
    __syncthreads();
    return sum;
}
extern "C" __global__ void __launch_bounds__(THREADS) rmsprop_factor(
    const double* sums, const long long* starts, const long long* order, const int count,
    const double clipnorm, const double global_clipnorm, const double loss_scale,
    double* squares, double* factors, float* narrow, unsigned long long* left_out) {
    __shared__ double shared[THREADS];
    const int lane = threadIdx.x % TEAM, team = threadIdx.x / TEAM;
    double total = 0, all = 0;
    for (int first = 0; first < count; first += THREADS / TEAM) {
        const int i = first + team;
        double square = 0;
        if (i < count) for (long long k = starts[i] + lane; k < starts[i + 1]; k += TEAM) square += sums[k];
        square = added(&shared[team * TEAM], square, lane, TEAM);
        if (i >= count || lane > 0) continue;
        const double factor = shrunk(sqrt(square), clipnorm);
        squares[order[i]] = square;
        factors[order[i]] = factor / loss_scale;
        narrow[order[i]] = factor / loss_scale;
        total += factor * factor * square;
        all += square;
    }
    if (left_out) {
        all = added(shared, all, threadIdx.x, THREADS);
        if (!isfinite(all)) {
            for (int i = threadIdx.x; i < count; i += THREADS) factors[i] = narrow[i] = nan("");
            if (threadIdx.x == 0) atomicAdd_system(left_out, 1ull);
            return;
        }
    }
    if (global_clipnorm < 0) return;
    const double norm = sqrt(added(shared, total, threadIdx.x, THREADS));
    const double factor = isfinite(norm) ? shrunk(norm, global_clipnorm) : norm - norm;  // infinity becomes NaN
    for (int i = threadIdx.x; i < count; i += THREADS) {
        factors[order[i]] *= factor;
        narrow[order[i]] = factors[order[i]];
    }
}
"""
    )
    return cupy.RawKernel(code, "rmsprop_factor")


@cache
def list_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for many contiguous arrays; see `rmsprop_cupy.lists` for its table."""
    real = source.real_type(variant.dtype)
    slots = _slots(variant)
    columns = 3 + len(slots)
    types = [source.storage_type(dtype) for dtype, _ in slots]
    body = [
        f"const unsigned long long* row = &table[i / {CHUNK} * {columns}];",
        f"const int lane = i % {CHUNK};",
        f"const {real} factor = factors[row[2]];" if variant.factor else "",
        f"if (lane < row[0]) {source.guard(variant)} {{",
        f"const {types[0]} g = (({types[0]}*)gradients[row[2]])[row[1] + lane];",
        *[
            f"{kind}& {name} = (({kind}*)row[{column}])[lane];"
            for column, (kind, (_, name)) in enumerate(zip(types, slots, strict=True), 3)
        ],
        f"const {source.number_type(variant.dtype)} gradient = {source.limited(variant, 'g')};",
        source.formula(variant),
        "}",
    ]
    factor = f"raw {_real(variant)} factors, " if variant.factor else ""
    return cupy.ElementwiseKernel(
        # CuPy defines the half types only for kernels that have an argument of them: hence `sample`.
        f"raw {variant.dtype} sample, raw uint64 gradients, {factor}{source.scalar_parameters(variant)}",
        "raw uint64 table",
        "\n".join(body),
        "rmsprop_list",
        preamble=source.PREAMBLE,
        loop_prep=source.preparation(variant),
        options=options,
    )


@cache
def rows_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for sparse gradients.

    There is a thread for each listed row and column. The first of equal rows, which are neighbours in `ordered`,
    adds up the gradients of all of them in their order, so that the sum always has the same bits, those of the
    CPU; a row that is listed very often so takes that many turns of one thread. Rows beyond `height` are left out,
    and reported in `misses`, see `rmsprop_cupy.misses`.
    """
    factor = f"raw {_real(variant)} factors, int32 which, " if variant.factor else ""
    number = source.number_type(variant.dtype)
    lines = [
        "const long long first = i / columns, column = i % columns, row = ordered[first];",
        "if (row < 0 || row >= height) {",
        "if (column == 0) {",
        "atomicAdd((unsigned long long*)&misses[0], 1ull);",
        "atomicMin((long long*)&misses[1], row);",
        "atomicMax((long long*)&misses[2], row);",
        "}",
        f"}} else if (first == 0 || ordered[first - 1] != row) {source.guard(variant)} {{",
        f"{number} gradient = 0;",
        "for (long long k = first; k < listed && ordered[k] == row; ++k)",
        f"gradient = gradient + {source.limited(variant, 'values[order[k] * columns + column]')};",
        "const long long element = row * columns + column;",
        *[f"auto& {name} = {name}_table[element];" for _, name in _slots(variant)],
        source.formula(variant),
        "}",
    ]
    tables = ", ".join(f"raw {dtype} {name}_table" for dtype, name in _slots(variant))
    return cupy.ElementwiseKernel(
        f"raw {variant.dtype} values, raw int64 order, raw int64 ordered, int64 listed, int64 columns, "
        f"int64 height, {factor}{source.scalar_parameters(variant)}",
        f"raw int64 misses, {tables}",
        "\n".join(lines),
        "rmsprop_rows",
        preamble=source.PREAMBLE,
        loop_prep=source.preparation(variant) + _own_factor(variant),
        options=options,
    )
