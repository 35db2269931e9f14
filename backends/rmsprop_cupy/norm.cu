// Sums over gradients in double precision, in a fixed order, by one block of threads for each row of a table.
//
// Where a sum of squares is beyond the range that is used of double precision, there is a second one beside it, of
// squares of scaled numbers. What has a dollar before it is filled in by kernels.py; `limited` is what is made of
// `given` by clipping it by value.

#include <cupy/complex.cuh>
#include <cupy/float16.cuh>
#include <cupy/bfloat16.cuh>
$preamble
$sums
extern "C" __global__ void rmsprop_norm(
    const unsigned long long* table, const unsigned long long* gradients, double* sums, const $real limit,
    const double least) {
    typedef $wide wide;
    __shared__ double shared[$threads];
    const unsigned long long* row = table + 3 * (long long)blockIdx.x;
    const $stored* g = (const $stored*)gradients[row[2]] + row[1];
    double total = 0;
    for (int lane = threadIdx.x; lane < row[0]; lane += blockDim.x) {
        const $number given = ($number)g[lane], gradient = $limited;
        total += $terms;
    }
    total = added(shared, total, threadIdx.x, blockDim.x);
    if (threadIdx.x == 0) sums[2 * blockIdx.x] = total;
    if (total < LARGE && total >= least || isnan(total)) return;
    const double scale = total < least ? UNIT : 1 / UNIT;
    total = 0;
    for (int lane = threadIdx.x; lane < row[0]; lane += blockDim.x) {
        const $number given = ($number)g[lane];
        total += square(times((wide)$limited, scale));
    }
    total = added(shared, total, threadIdx.x, blockDim.x);
    if (threadIdx.x == 0) sums[2 * blockIdx.x + 1] = total;
}
