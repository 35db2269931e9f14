// Encodings of slots in fewer bits; what they are is told in rmsprop_numba/codes.py, and the same names are there.
//
// R is the type of reals: float or double. C is that of codes: short, unsigned char or signed char.

#define OCTAVE (1u << 23)
#define UNSIGNED (0x40000000u - (32u << 23))
#define SIGNED (0x40000000u - (16u << 23))
#define TWO 0x40000000u
#define INFINITE 0x7F800000u
#define ANY_NAN 0x7FF00000u
#define NEAREST 0x80000000u

typedef unsigned int word;
typedef unsigned long long wide_word;

__device__ inline word bits_of(const float x) { return __float_as_uint(x); }
__device__ inline wide_word bits_of(const double x) { return __double_as_longlong(x); }
template <typename R> struct Bits { typedef word type; };
template <> struct Bits<double> { typedef wide_word type; };

__device__ inline float magnitude_of(const word code, const word zero) {
    const word bits = (code << 20) + (zero + OCTAVE);
    const float x = __uint_as_float(bits >= TWO ? bits | INFINITE : bits);
    const float subnormal = x + x - __uint_as_float(zero + 2 * OCTAVE);
    return x < subnormal ? x : subnormal;
}
template <typename R> __device__ inline R decoded(const short code, const R) {
    return __uint_as_float((word)(unsigned short)code << 16);
}
template <typename R> __device__ inline R decoded(const unsigned char code, const R scale) {
    return magnitude_of(code, UNSIGNED) * scale;
}
template <typename R> __device__ inline R decoded(const signed char code, const R scale) {
    const word sign = ((word)code << 24) & 0x80000000u;
    return __uint_as_float(bits_of(magnitude_of(code & 127, SIGNED)) | sign) * scale;
}

// What divides by twice a scale: two factors, as one alone may be a subnormal number, which a device takes for zero.
template <typename R> struct Divisor {
    R head, tail;
    __device__ Divisor() {}
    __device__ Divisor(const R scale) {
        const bool is_large = sizeof(R) == 4 && scale >= R(0x1p126);
        head = (is_large ? R(2) : R(0.5)) / scale;
        tail = is_large ? R(0.25) : R(1);
    }
};
__device__ inline word code_of(const float x, const word zero, const word dither) {
    const float subnormal = x * 0.5f + __uint_as_float(zero);
    const word bits = min(bits_of(x > subnormal ? x : subnormal), ANY_NAN);
    return (bits + (dither >> 12)) >> 20;
}
template <typename R> __device__ inline void encode(short& code, const R x, const Divisor<R>, const word dither) {
    const word bits = bits_of((float)x);
    code = (bits & 0x7FFFFFFFu) > INFINITE ? 0x7FC0 : (bits + (dither >> 16)) >> 16;
}
template <typename R>
__device__ inline void encode(unsigned char& code, const R x, const Divisor<R> by, const word dither) {
    code = code_of((float)(x * by.tail * by.head), UNSIGNED, dither);
}
template <typename R>
__device__ inline void encode(signed char& code, const R x, const Divisor<R> by, const word dither) {
    const word bits = bits_of((float)(x * by.tail * by.head)), sign = (bits & 0x80000000u) >> 24;
    code = (code_of(__uint_as_float(bits & 0x7FFFFFFFu), SIGNED, dither) & 127) | sign;
}

// Elements of an array of codes: of complex numbers, each has two.
template <typename C> struct __align__(2 * sizeof(C)) Pair { C real, imag; };
template <typename C, typename R>
__device__ inline void read(R& x, const C* codes, const int j, const R scale) { x = decoded(codes[j], scale); }
template <typename C, typename R>
__device__ inline void read(complex<R>& x, const C* codes, const int j, const R scale) {
    const Pair<C> pair = ((const Pair<C>*)codes)[j];
    x = complex<R>(decoded(pair.real, scale), decoded(pair.imag, scale));
}
// `dither` is that of the first code, `stride` what each further one has more.
template <typename C, typename R> __device__ inline void write(
    const R x, C* codes, const int j, const Divisor<R> by, const word dither, const word stride) {
    encode(codes[j], x, by, dither + j * stride);
}
template <typename C, typename R> __device__ inline void write(
    const complex<R> x, C* codes, const int j, const Divisor<R> by, const word dither, const word stride) {
    Pair<C> pair;
    encode(pair.real, x.real(), by, dither + 2 * j * stride);
    encode(pair.imag, x.imag(), by, dither + (2 * j + 1) * stride);
    ((Pair<C>*)codes)[j] = pair;
}

// The scale of a block, of which each thread knows the bits of the largest magnitude that it has seen.
template <typename R> __device__ inline typename Bits<R>::type finite_bits(const R x) {
    typedef typename Bits<R>::type B;
    const B bits = bits_of(x) & (~B(0) >> 1), infinity = sizeof(R) == 4 ? B(INFINITE) : B(0x7FFull << 52);
    return bits < infinity ? bits : 0;
}
template <typename R> __device__ inline typename Bits<R>::type finite_bits(const complex<R> x) {
    return max(finite_bits(x.real()), finite_bits(x.imag()));
}
template <typename B> __device__ inline B largest_of_warp(B mine) {
    for (int distance = 16; distance > 0; distance /= 2)
        mine = max(mine, __shfl_xor_sync(0xFFFFFFFFu, mine, distance));
    return mine;
}
template <typename B> __device__ inline B largest_of_block(const B* of_warps) {
    B largest = 0;
    for (int k = 0; k < blockDim.x / 32; ++k) largest = max(largest, of_warps[k]);
    return largest;
}
__device__ inline float scale_of(const word largest) {
    const word rounded = (max(largest, OCTAVE) + OCTAVE / 8 - 1) & INFINITE;
    return __uint_as_float(min(rounded, INFINITE - OCTAVE));
}
__device__ inline double scale_of(const wide_word largest) {
    const wide_word octave = 1ull << 52, infinity = 0x7FFull << 52;
    const wide_word rounded = (max(largest, octave) + octave / 8 - 1) & infinity;
    return __longlong_as_double(min(rounded, infinity - octave));
}

// The hash of a number, see rmsprop/variables/compact.py.
__device__ inline word displacement(const wide_word number) {
    wide_word bits = (number + 1) * 0x9E3779B97F4A7C15ull;
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9ull;
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EBull;
    return bits >> 32 ^ bits >> 63;
}
// The dither of the first code of each of three slots in a step, and, as the last, what further codes have more.
__device__ inline word dither_of(const int which, const wide_word step) {
    return which < 3 ? displacement(3 * step + which) : displacement(~1ull - step) | 1;
}
