"""The kernels, compiled by CuPy when they are first used."""

from functools import cache
from typing import Any

import cupy
import numpy as np

from rmsprop.clipping import RANGES, SMALLEST
from rmsprop.formula import SLOTS, needed_slots
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
    names = needed_slots(variant.momentum, variant.centered)
    return [(variant.dtype, "v"), *((real if SLOTS[name].averages_squares else number, name) for name in names)]


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
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
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
        loop_prep=source.factor(variant, "which"),
    )


@cache
def norm_kernel(dtype: str, clipvalue: bool, terms: tuple[str, ...], options: tuple[str, ...]) -> Any:
    """Return the kernel for sums over gradients in double precision, by one block of threads each.

    Of its `terms`, ``"square((wide)gradient)"`` is that of norms, after clipping by value, and
    ``"nothing(given)"`` makes NaN of a sum if a gradient is not finite. Where a sum of squares is beyond the range
    that is used of double precision, there is a second one beside it, of squares of scaled numbers.
    """
    variant = Variant(dtype, False, False, clipvalue, False)
    stored, number, real = source.storage_type(dtype), source.number_type(dtype), source.real_type(dtype)
    code = f"""
#include <cupy/complex.cuh>
#include <cupy/float16.cuh>
#include <cupy/bfloat16.cuh>
{source.PREAMBLE}
{SUMS}
extern "C" __global__ void rmsprop_norm(
    const unsigned long long* table, const unsigned long long* gradients, double* sums, const {real} limit,
    const double least) {{
    typedef {"complex<double>" if source.is_complex(variant) else "double"} wide;
    __shared__ double shared[{THREADS}];
    const unsigned long long* row = table + 3 * (long long)blockIdx.x;
    const {stored}* g = (const {stored}*)gradients[row[2]] + row[1];
    double total = 0;
    for (int lane = threadIdx.x; lane < row[0]; lane += blockDim.x) {{
        const {number} given = ({number})g[lane], gradient = {source.limited(variant, "given")};
        total += {" + ".join(terms)};
    }}
    total = added(shared, total, threadIdx.x, blockDim.x);
    if (threadIdx.x == 0) sums[2 * blockIdx.x] = total;
    if (total < LARGE && total >= least || isnan(total)) return;
    const double scale = total < least ? UNIT : 1 / UNIT;
    total = 0;
    for (int lane = threadIdx.x; lane < row[0]; lane += blockDim.x) {{
        const {number} given = ({number})g[lane];
        total += square(times((wide){source.limited(variant, "given")}, scale));
    }}
    total = added(shared, total, threadIdx.x, blockDim.x);
    if (threadIdx.x == 0) sums[2 * blockIdx.x + 1] = total;
}}
"""
    return cupy.RawKernel(code, "rmsprop_norm", options=options)


SUMS = (
    f"""
#ifndef RMSPROP_SUMS
#define RMSPROP_SUMS
#define UNIT {RANGES["float64"].scale.hex()}
"""
    + """
#define LARGE 0x1p900
__device__ inline double added(double* shared, const double mine, const int lane, const int size) {
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
#endif
"""
)


@cache
def factor_kernel() -> Any:
    """Return the kernel that makes norms and clipping factors of the sums, in one block of threads.

    The rules are those of `rmsprop.clipping`; a limit below 0 stands for none. Factors come in both precisions,
    the two numbers of each next to each other. With `left_out`, the first of all is NaN if a norm is not finite,
    and the step is counted there as one that is left out. A team of threads adds up the sums of one gradient, so
    that neither many gradients nor a large one take long. Only if squares are beyond LARGE or below `least`, sums
    are looked at again, for those of scaled numbers.
    """
    code = (
        f"#define THREADS {FACTOR_THREADS}\n#define SMALLEST {SMALLEST.hex()}\n"
        "#define TEAM 32\n#define TINY 0x1p-1022\n"
        + SUMS
        + """
__device__ double largest(double* shared, const double mine) {
    shared[threadIdx.x] = mine;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] = fmax(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    __syncthreads();
    const double found = shared[0];
    __syncthreads();
    return found;
}
__device__ double shrunk(const double norm, const double limit) {
    if (limit <= 0) return limit < 0;
    return norm <= limit ? 1.0 : limit / norm;  // NaN stays
}
__device__ double shortened(const double norm, const double limit) {
    return limit < 0 || !(norm > limit) ? norm : limit;
}
template <typename R> __device__ void write(R* pair, const double factor, const double tail) {
    pair[0] = factor;
    pair[1] = tail;
}
extern "C" __global__ void __launch_bounds__(THREADS) rmsprop_factor(
    const double* sums, const long long* starts, const long long* order, const int count,
    const double clipnorm, const double global_clipnorm, const double loss_scale, const double least,
    double* squares, double* norms, double* factors, float* narrow, unsigned long long* left_out) {
    __shared__ double shared[THREADS];
    __shared__ int is_any_beyond;
    const int lane = threadIdx.x % TEAM, team = threadIdx.x / TEAM;
    if (threadIdx.x == 0) is_any_beyond = 0;
    double total = 0;
    for (int first = 0; first < count; first += THREADS / TEAM) {
        const int i = first + team;
        double square = 0;
        if (i < count) for (long long k = starts[i] + lane; k < starts[i + 1]; k += TEAM) square += sums[2 * k];
        square = added(&shared[team * TEAM], square, lane, TEAM);
        if (i >= count || lane > 0) continue;
        const double norm = sqrt(square), factor = shrunk(norm, clipnorm);
        squares[order[i]] = square;
        norms[order[i]] = norm;
        total += factor >= SMALLEST ? factor * factor * square : nan("");
        if (square >= LARGE || square < least) is_any_beyond = 1;
    }
    __syncthreads();
    for (int first = 0; is_any_beyond && first < count; first += THREADS / TEAM) {
        const int i = first + team;
        const double before = i < count ? squares[order[i]] : 0;
        const bool is_small = before < least;
        double square = 0;
        if (i < count) for (long long k = starts[i] + lane; k < starts[i + 1]; k += TEAM)
            square += is_small || sums[2 * k] >= LARGE ? sums[2 * k + 1] : sums[2 * k] / UNIT / UNIT;
        square = added(&shared[team * TEAM], square, lane, TEAM);
        if (i < count && lane == 0 && (before >= LARGE || is_small))
            norms[order[i]] = is_small ? sqrt(square) / UNIT : sqrt(square) * UNIT;
    }
    __syncthreads();
    double norm = 0, shared_factor = 1;  // those of all together
    if (global_clipnorm >= 0) {
        total = added(shared, total, threadIdx.x, THREADS);
        norm = sqrt(total);
        if (!(total >= 0x1p-960 && isfinite(total))) {  // nor are all factors large enough for their squares
            double most = 0, sum = 0;
            for (int i = threadIdx.x; i < count; i += THREADS) most = fmax(most, shortened(norms[i], clipnorm));
            most = largest(shared, most);
            const double unit = most > 0 && isfinite(most) ? most : 1;
            for (int i = threadIdx.x; i < count; i += THREADS) {
                const double part = shortened(norms[i], clipnorm) / unit;
                sum += part * part;
            }
            norm = unit * sqrt(added(shared, sum, threadIdx.x, THREADS));
        }
        shared_factor = isfinite(norm) ? shrunk(norm, global_clipnorm) : nan("");
    }
    double unknown = norm - norm;  // or NaN
    if (left_out) {
        for (int i = threadIdx.x; i < count; i += THREADS) unknown += norms[i] - norms[i];
        unknown = added(shared, unknown, threadIdx.x, THREADS);
        if (isnan(unknown) && threadIdx.x == 0) atomicAdd_system(left_out, 1ull);
    }
    for (int i = threadIdx.x; i < count; i += THREADS) {
        const bool vanished = norms[i] == 0;  // as may the squares of what is far below its limit, which has
        const double whole = vanished ? 1 : norms[i];  // the factor of a norm of 1
        double target = vanished ? 1 : shortened(norms[i], clipnorm);
        const double ratio = global_clipnorm / norm;  // of the two ways to write it, one keeps its digits
        if (norm > global_clipnorm && global_clipnorm >= 0)
            target = ratio >= TINY ? target * ratio : target / norm * global_clipnorm;
        const bool is_kept = target >= whole;
        target /= loss_scale;
        double factor = shrunk(norms[i], clipnorm) / loss_scale * shared_factor, tail = 1;
        if (!(factor >= SMALLEST)) {
            factor = is_kept ? 1 / loss_scale : target / whole;
            tail = factor >= SMALLEST ? 1 : factor >= TINY ? SMALLEST : TINY;
            factor = factor >= TINY ? factor / tail : target / TINY / whole;
        }
        if (isfinite(norms[i])) norms[i] += unknown;
        write(&factors[2 * i], factor + unknown, tail);
        write(&narrow[2 * i], factor + unknown, tail);
    }
}
"""
    )
    return cupy.RawKernel(code, "rmsprop_factor")


@cache
def list_kernel(variant: Variant, options: tuple[str, ...]) -> Any:
    """Return the kernel for many contiguous arrays; see `rmsprop_cupy.lists` for its table."""
    slots = _slots(variant)
    columns = 3 + len(slots)
    types = [source.storage_type(dtype) for dtype, _ in slots]
    body = [
        f"const unsigned long long* row = &table[i / {CHUNK} * {columns}];",
        f"const int lane = i % {CHUNK};",
        source.factor(variant, "row[2]"),
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
    and reported in `misses`, see `rmsprop_cupy.counters`.
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
        loop_prep=source.preparation(variant) + source.factor(variant, "which"),
        options=options,
    )
