// What the kernel for windows asks: where elements lie, in which windows, and which window is the first of them.
//
// N is the number of axes. A window is given by its start, an index for each axis.

template <int N> __device__ inline bool lies_inside(
    const long long* start, const long long (&patch)[N], const long long (&shape)[N]) {
    for (int axis = 0; axis < N; ++axis)
        if (start[axis] < 0 || start[axis] > shape[axis] - patch[axis]) return false;
    return true;
}
// Tell whether another window lies inside of the variable, and overlaps.
template <int N> __device__ inline bool is_beside(
    const long long* start, const long long* other, const long long (&patch)[N], const long long (&shape)[N]) {
    for (int axis = 0; axis < N; ++axis) {
        const long long first = other[axis], distance = first - start[axis];
        if (first < 0 || first > shape[axis] - patch[axis]) return false;
        if (distance <= -patch[axis] || distance >= patch[axis]) return false;
    }
    return true;
}
// Find the index of a window's element in the variable; tell whether the window has so many elements.
template <int N> __device__ inline bool locate(
    long long (&index)[N], long long element, const long long* start, const long long (&patch)[N]) {
    for (int axis = N - 1; axis >= 0; --axis) {
        index[axis] = start[axis] + element % patch[axis];
        element /= patch[axis];
    }
    return element == 0;
}
// Return which of a window's elements has an index in the variable, -1 if none has.
template <int N> __device__ inline long long element_at(
    const long long (&index)[N], const long long* start, const long long (&patch)[N]) {
    long long element = 0;
    for (int axis = 0; axis < N; ++axis) {
        const long long distance = index[axis] - start[axis];
        if (distance < 0 || distance >= patch[axis]) return -1;
        element = element * patch[axis] + distance;
    }
    return element;
}
template <int N> __device__ inline long long place_of(const long long (&index)[N], const long long (&shape)[N]) {
    long long place = 0;
    for (int axis = 0; axis < N; ++axis) place = place * shape[axis] + index[axis];
    return place;
}
// Call `add` with each window that has an element, and with its place there, in the order of windows, if `window` is
// the first of them; tell whether it is. A block takes part as a whole, with elements of the same window, of which it
// looks for those beside it together: as many at a time as it has threads. A bit of `near` stands for each.
template <int N, typename Add> __device__ inline bool added_by_first(
    bool is_first, const long long window, const long long* start, const long long windows, const long long* starts,
    const long long (&index)[N], const long long (&patch)[N], const long long (&shape)[N], const Add add) {
    __shared__ unsigned int near[32];
    for (long long base = 0; base < windows; base += blockDim.x) {
        __syncthreads();
        for (int word = threadIdx.x; word < 32; word += blockDim.x) near[word] = 0;
        __syncthreads();
        const long long mine = base + threadIdx.x;
        if (mine < windows && is_beside(start, &starts[mine * N], patch, shape))
            atomicOr(&near[threadIdx.x / 32], 1u << threadIdx.x % 32);
        __syncthreads();
        for (int word = 0; 32 * word < blockDim.x; ++word)
            for (unsigned int left = near[word]; left && is_first; left &= left - 1) {
                const long long other = base + 32 * word + __clz(__brev(left));
                const long long element = element_at(index, &starts[other * N], patch);
                if (element < 0) continue;
                is_first = other >= window;
                if (is_first) add(other, element);
            }
    }
    return is_first;
}
