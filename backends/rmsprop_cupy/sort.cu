// The rows that sparse gradients list, in rising order, those of one row in the order of the list.
//
// This is a radix sort of all gradients at once, by eight bits of the row at a time and from the lowest on. A block
// of threads counts the digits of a tile of a gradient, and once all are counted it moves the elements of the tile to
// their places. Each element is a row above `low` bits of its position. What rows.py writes about each gradient
// stands in the table. What has a dollar before it is filled in by kernels.py.

#include <cupy/complex.cuh>
$preamble
#define THREADS $threads
#define TILE $tile
#define DIGITS 256
#define WARPS (THREADS / 32)
$columns
typedef unsigned long long word;
__device__ inline const word* gradient_of(const word* table, const int gradients, const int column, const word place) {
    int low = 0, high = gradients - 1;  // the last one that begins at this place, or before
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (table[middle * COLUMNS + column] <= place) low = middle; else high = middle - 1;
    }
    return table + low * COLUMNS;
}
__device__ inline long long index_at(const word* own, const long long position) {
    const void* at = (const char*)own[INDICES] + position * (long long)own[STRIDE];
    switch (own[KIND]) {
        case 0: return *(const signed char*)at;
        case 1: return *(const short*)at;
        case 2: return *(const int*)at;
        case 3: return *(const long long*)at;
        case 4: return *(const unsigned char*)at;
        case 5: return *(const unsigned short*)at;
        case 6: return *(const unsigned int*)at;
    }
    const word index = *(const word*)at, most = ~0ull >> 1;
    return index < most ? index : most;  // beyond the rows of any variable
}
extern "C" __global__ void rmsprop_sort_count(
    const word* table, const int gradients, word* elements, unsigned* counts, const int low, const int shift,
    const int is_first) {
    __shared__ unsigned found[DIGITS];
    const word* own = gradient_of(table, gradients, FIRST_TILE, blockIdx.x);
    const long long count = own[COUNT], height = own[HEIGHT], start = (blockIdx.x - own[FIRST_TILE]) * TILE;
    for (int digit = threadIdx.x; digit < DIGITS; digit += THREADS) found[digit] = 0;
    __syncthreads();
    for (long long k = start + threadIdx.x; k < count && k < start + TILE; k += THREADS) {
        word* element = elements + own[FIRST] + k;
        if (is_first) {
            const long long index = index_at(own, k);
            const bool is_there = index >= 0 && index < height;
            if (!is_there) report((long long*)own[MISSES], index);
            *element = (word)(is_there ? index : height) << low | k;
        }
        atomicAdd(&found[*element >> shift & (DIGITS - 1)], 1u);
    }
    __syncthreads();
    for (int digit = threadIdx.x; digit < DIGITS; digit += THREADS)
        counts[(long long)blockIdx.x * DIGITS + digit] = found[digit];
}
extern "C" __global__ void rmsprop_sort_move(
    const word* table, const int gradients, const word* elements, word* moved, const unsigned* counts, const int shift) {
    __shared__ unsigned starts[DIGITS], sums[DIGITS], of_warps[WARPS][DIGITS];
    const word* own = gradient_of(table, gradients, FIRST_TILE, blockIdx.x);
    const long long count = own[COUNT], first = own[FIRST], tile = blockIdx.x - own[FIRST_TILE];
    const long long tiles = (count + TILE - 1) / TILE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, digit = threadIdx.x;  // a thread for each digit
    unsigned before = 0, all = 0;
    for (long long k = 0; k < tiles; ++k) {
        const unsigned here = counts[(own[FIRST_TILE] + k) * DIGITS + digit];
        if (k < tile) before += here;
        all += here;
    }
    sums[digit] = all;
    for (int reach = 1; reach < DIGITS; reach *= 2) {
        __syncthreads();
        const unsigned below = digit >= reach ? sums[digit - reach] : 0;
        __syncthreads();
        sums[digit] += below;
    }
    starts[digit] = sums[digit] - all + before;
    for (long long begin = tile * TILE; begin < count && begin < (tile + 1) * TILE; begin += THREADS) {
        for (int k = 0; k < WARPS; ++k) of_warps[k][digit] = 0;
        __syncthreads();
        const bool is_there = begin + threadIdx.x < count;
        const word element = is_there ? elements[first + begin + threadIdx.x] : 0;
        const int mine = element >> shift & (DIGITS - 1);
        unsigned alike = __ballot_sync(~0u, is_there);  // those lanes of the warp that have the same digit
        for (int bit = 0; bit < 8; ++bit) {
            const bool is_set = mine >> bit & 1;
            const unsigned set = __ballot_sync(~0u, is_set);
            alike &= is_set ? set : ~set;
        }
        const int rank = __popc(alike & ((1u << lane) - 1));
        if (is_there && rank == 0) of_warps[warp][mine] = __popc(alike);
        __syncthreads();
        for (int k = 0; k < WARPS; ++k) {
            const unsigned here = of_warps[k][digit];
            of_warps[k][digit] = starts[digit];
            starts[digit] += here;
        }
        __syncthreads();
        if (is_there) moved[first + of_warps[warp][mine] + rank] = element;
        __syncthreads();
    }
}
