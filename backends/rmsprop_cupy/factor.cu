// Norms and clipping factors of the sums that norm.cu makes, by one block of threads.
//
// The rules are those of rmsprop.clipping; a limit below 0 stands for none. Factors come in both precisions, the two
// numbers of each next to each other. With `left_out`, the first of all is NaN if a norm is not finite, and the step
// is counted there as one that is left out; how many these are is written to `skipped`, too. A team of threads adds up the sums of one gradient, so that neither many
// gradients nor a large one take long. Only if squares are beyond LARGE or below `least`, sums are looked at again,
// for those of scaled numbers. What has a dollar before it is filled in by kernels.py.

#define THREADS $threads
#define SMALLEST $smallest
#define TEAM 32
#define TINY 0x1p-1022
$sums
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
    double* squares, double* norms, double* factors, float* narrow, unsigned long long* left_out,
    unsigned long long* skipped) {
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
        if (skipped && threadIdx.x == 0) *skipped = *(volatile unsigned long long*)left_out;
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
