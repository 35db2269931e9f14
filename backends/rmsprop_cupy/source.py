"""The text of the CUDA kernels: the formula of RMSprop, once, for all of them."""

from typing import NamedTuple

from rmsprop.formula import MULTIPLIED, OPTIONAL, Numbers

COMPUTE = {"float16": "float", "bfloat16": "float", "float32": "float", "float64": "double"}
DTYPES = (*COMPUTE, "complex64", "complex128")
CUPY_TYPE = {"float": "float32", "double": "float64"}


class Variant(NamedTuple):
    """The case that a kernel is compiled for."""

    dtype: str
    """Dtype of the variable, by its NumPy name."""
    momentum: bool
    centered: bool
    clipvalue: bool
    factor: bool
    captured: bool = False
    """Whether the scalars lie in the device's memory, for a CUDA graph that would freeze arguments."""
    guarded: bool = False
    """Whether a factor of NaN means to leave out the step."""
    terms: tuple[str, ...] = ()
    """Those of the optional numbers that the formula has."""
    average: bool = False
    """Whether the variable is averaged."""
    multiplied: bool = False
    """Whether variables of a list have scalars of their own, in the device's memory."""


def is_complex(variant: Variant) -> bool:
    """Tell whether the variable is complex."""
    return variant.dtype.startswith("complex")


def real_type(dtype: str) -> str:
    """Return the C type of the computation's real numbers."""
    return {"complex64": "float", "complex128": "double"}.get(dtype) or COMPUTE[dtype]


def number_type(dtype: str) -> str:
    """Return the C type of gradients, ``mg`` and ``momentum`` in the computation."""
    real = real_type(dtype)
    return f"complex<{real}>" if dtype.startswith("complex") else real


def storage_type(dtype: str) -> str:
    """Return the C type of stored elements."""
    return {"float32": "float", "float64": "double"}.get(dtype) or {
        "complex64": "complex<float>",
        "complex128": "complex<double>",
    }.get(dtype, dtype)


PREAMBLE = """
template <typename R> __device__ inline R square(const R x) { return x * x; }
template <typename R> __device__ inline R square(const complex<R> x) {
    return x.real() * x.real() + x.imag() * x.imag();
}
template <typename R> __device__ inline R nothing(const R x) { return x * 0; }  // or NaN, if x is not finite
template <typename R> __device__ inline R nothing(const complex<R> x) { return x.real() * 0 + x.imag() * 0; }
template <typename R> __device__ inline R times(const R x, const R factor) { return x * factor; }
template <typename R> __device__ inline complex<R> times(const complex<R> x, const R factor) {
    return complex<R>(x.real() * factor, x.imag() * factor);
}
template <typename R> __device__ inline R over(const R x, const R divisor) { return x / divisor; }
template <typename R> __device__ inline complex<R> over(const complex<R> x, const R divisor) {
    return complex<R>(x.real() / divisor, x.imag() / divisor);
}
template <typename R> __device__ inline R clipped(const R x, const R limit) {
    return x > limit ? limit : (x < -limit ? -limit : x);  // NaN stays
}
template <typename R> __device__ inline complex<R> clipped(const complex<R> x, const R limit) {
    const R modulus = hypot(x.real(), x.imag());
    if (!(modulus > limit)) return x;
    const R factor = limit / modulus, smallest = sizeof(R) == 4 ? R(1.17549435e-38f) : R(2.2250738585072014e-308);
    if (factor >= smallest) return times(x, factor);
    const R part = isinf(modulus) ? R(0.25) : R(1);  // the modulus of a quarter is not infinite
    const R real = x.real() * part, imag = x.imag() * part, length = isinf(modulus) ? hypot(real, imag) : modulus;
    return complex<R>(real / length * limit, imag / length * limit);
}
__device__ inline void report(long long* misses, const long long number) {
    atomicAdd((unsigned long long*)&misses[0], 1ull);
    atomicMin(&misses[1], number);
    atomicMax(&misses[2], number);
}
"""

VECTORS = """
template <typename T, int N> struct Vector {  // neighbours, as one access to memory where their address allows it
    struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Whole { unsigned int words[sizeof(T) * N / 4]; };
    T x[N];
    __device__ static bool is_whole(const T& first, const int count) {
        return count == N && (size_t)&first % alignof(Whole) == 0;
    }
    __device__ Vector(const T& first, const int count) {
        if (is_whole(first, count)) {
            const Whole whole = *(const Whole*)&first;
            memcpy(x, &whole, sizeof(whole));
        } else {
            for (int k = 0; k < count; ++k) x[k] = (&first)[k];
        }
    }
    __device__ void write(T& first, const int count) const {
        if (is_whole(first, count)) {
            Whole whole;
            memcpy(&whole, x, sizeof(whole));
            *(Whole*)&first = whole;
        } else {
            for (int k = 0; k < count; ++k) (&first)[k] = x[k];
        }
    }
};
"""

SCALARS = (*Numbers._fields, "limit")
"""All scalars of kernels: the numbers of the formula, and the limit of clipping by value."""


def scalars_of(variant: Variant) -> list[str]:
    """Return the names of the scalars that a kernel uses, in the order of its arguments."""
    is_used = {
        **{name: name in variant.terms for name in OPTIONAL},
        "mu": variant.momentum,
        "limit": variant.clipvalue,
    }
    return [name for name in SCALARS if is_used.get(name, True)]


def shared_scalars(variant: Variant) -> list[str]:
    """Return the names of those that are the same for all variables of a list."""
    return [name for name in scalars_of(variant) if not (variant.multiplied and name in SCALARS[:MULTIPLIED])]


def scalar_parameters(variant: Variant) -> str:
    """Return the declaration of a kernel's arguments that are numbers, and of the array that holds some or all."""
    real = CUPY_TYPE[real_type(variant.dtype)]
    arrays = [f"raw {real} numbers"] if variant.captured or variant.multiplied else []
    return ", ".join(arrays + [f"{real} {name}" for name in shared_scalars(variant) if not variant.captured])


def preparation(variant: Variant) -> str:
    """Return the statements before a kernel's loop: they read what is the same for all elements."""
    return _read(variant, shared_scalars(variant), "") if variant.captured else ""


def own_scalars(variant: Variant, which: str) -> str:
    """Return the statements that read what is a variable's own, which has this place in the list."""
    names = [name for name in scalars_of(variant) if name not in shared_scalars(variant)]
    return _read(variant, names, f"{which} * {len(SCALARS)} + ")


def _read(variant: Variant, names: list[str], first: str) -> str:
    real = real_type(variant.dtype)
    return "\n".join(f"const {real} {name} = numbers[{first}{SCALARS.index(name)}];" for name in names)


def limited(variant: Variant, gradient: str) -> str:
    """Return the expression of a gradient that is clipped by value and scaled by `factor` and `tail`."""
    expression = f"({number_type(variant.dtype)})({gradient})"
    if variant.clipvalue:
        expression = f"clipped({expression}, limit)"
    return f"times(times({expression}, factor), tail)" if variant.factor else expression


def factor(variant: Variant, which: str) -> str:
    """Return the statement that reads the two numbers of the factor at a place, if there are any."""
    real = real_type(variant.dtype)
    return (
        f"const {real} factor = factors[2 * {which}], tail = factors[2 * {which} + 1];" if variant.factor else ""
    )


def formula(variant: Variant) -> str:
    """Return the statements that update a variable v and its slots by a `gradient`; see `rmsprop.formula`.

    These are references. Each is read once, into a local: after a store, the compiler would have to read it again.
    """
    real, number = real_type(variant.dtype), number_type(variant.dtype)
    has = {name: name in variant.terms for name in OPTIONAL}
    lines = [
        f"const {number} before = ({number})v;",
        f"const {number} g_ = gradient{' + times(before, weight_decay)' if has['weight_decay'] else ''};",
        f"const {real} new_rms = rho * rms + one_minus_rho * square(g_);",
        "rms = new_rms;",
        f"{real} variance = new_rms;",
    ]
    if variant.centered:
        lines += [
            f"const {number} new_mg = times(({number})mg, rho) + times(g_, one_minus_rho);",
            "mg = new_mg;",
            f"variance = new_rms - square({'times(new_mg, mg_scale)' if has['mg_scale'] else 'new_mg'});",
            "if (variance < 0) variance = 0;  // by rounding",
            "if (isinf(new_rms)) variance = new_rms;  // and so may be the square of the mean",
        ]
    root = "sqrt(variance + epsilon_inside) + epsilon_outside"
    lines.append(f"{number} step = over(times(g_, rate), {root});")
    if variant.momentum:
        lines += [
            f"const {number} new_momentum = times(({number})momentum, mu) + step;",
            "momentum = new_momentum;",
            f"step = {'step + times(new_momentum, nesterov_mu)' if has['nesterov_mu'] else 'new_momentum'};",
        ]
    change = "times(step, outer_rate)" if has["outer_rate"] else "step"
    change += " + times(before, shrinkage)" if has["shrinkage"] else ""
    lines += [f"const {storage_type(variant.dtype)} after = before - ({change});", "v = after;"]
    if variant.average:
        mean = f"times(({number})average, ema) + times(({number})after, one_minus_ema)"
        lines.append(f"average = {mean};")
    return "\n".join(lines)


def guard(variant: Variant) -> str:
    """Return what comes before statements that belong to the step, so that it can be left out."""
    return "if (factor == factor)" if variant.guarded else ""
