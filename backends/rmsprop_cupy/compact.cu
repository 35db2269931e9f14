// The update of variables whose slots are codes: a block of threads for each block of codes, which never crosses the
// end of a row. A slot is read once and written once: its new numbers wait in registers until the scale is known.
//
// What has a dollar before it is filled in by compact_kernels.py. `locate` finds the block: it has `size` elements,
// of which the first has the index `start` in the variable.

#include <cupy/complex.cuh>
#include <cupy/float16.cuh>
#include <cupy/bfloat16.cuh>
$preamble
$codes
#define EACH $each  // elements of a thread at most
#define SLOTS $slots
#define COLUMNS $columns

extern "C" __global__ void __launch_bounds__($threads) $name($parameters) {
    typedef $real R;
    typedef Bits<R>::type B;
    __shared__ R scales[SLOTS];
    __shared__ B largest[SLOTS][$threads / 32];
    __shared__ word dithers[4];
    if (threadIdx.x >= 28 && threadIdx.x < 32) dithers[threadIdx.x - 28] = dither_of(threadIdx.x - 28, $step);
    $locate
    __syncthreads();
    const word stride = dithers[3];
    $begin
    #pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const int j = threadIdx.x + k * blockDim.x;
        if (j < size) {
            $gradient
            $update
        }
    }
    $end
}
