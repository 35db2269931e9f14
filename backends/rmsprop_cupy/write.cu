// The encoding of numbers, each by the nearest that has a code, with a block of threads for each block of codes.
//
// What has a dollar before it is filled in by compact.py.

#include <cupy/complex.cuh>
$codes
extern "C" __global__ void rmsprop_write(
    const $real* reals, $code* codes, $real* scales, const long long row, const long long length,
    const long long per_row) {
    typedef Bits<$real>::type B;
    __shared__ B of_warps[32];
    const long long place = blockIdx.x % per_row * length, start = blockIdx.x / per_row * row + place;
    const long long size = min(length, row - place);
    B largest = 0;
    for (long long j = threadIdx.x; j < size; j += blockDim.x) largest = max(largest, finite_bits(reals[start + j]));
    largest = largest_of_warp(largest);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = largest;
    __syncthreads();
    const $real scale = scale_of(largest_of_block(of_warps));
    if (scales && threadIdx.x == 0) scales[blockIdx.x] = scale;
    for (long long j = threadIdx.x; j < size; j += blockDim.x)
        write(reals[start + j], codes + start, j, Divisor<$real>(scale), NEAREST, 0u);
}
