// Softmax of one row of scores.
#pragma once
#include <algorithm>

#include "elements.h"

namespace kernels {

// A row of scores, in units of log 2 and to be multiplied by `factor`, becomes weights in its own place; keys outside
// `begin` to `end - 1` get 0. Weights are relative to 2^top, which rises to the largest score. Returns their sum.
// LEFT: begin may be above 0.
template <class S, bool LEFT>
INLINE float softmax(float* scores, int width, int begin, int end, float factor, float& top) {
    auto* weights = reinterpret_cast<typename S::Element*>(scores);
    auto clear = [&](int from, int to) {
        for (int j = from; j < to; j += 32) store(weights + j, set(0), set(0));
    };
    if (end <= begin) {
        clear(0, width);
        return 0;
    }
    // The last 32 keys are masked, and with LEFT the first 32, which may be the same.
    const int from = LEFT ? begin & ~31 : 0, to = (end + 31) & ~31, inner = LEFT ? from + 32 : 0, last = to - 32;
    const bool has_last = !LEFT || last > from;
    const uint32_t in_last = ~0u >> (to - end), in_first = LEFT ? (~0u << (begin - from)) & (has_last ? ~0u : in_last) : 0;

    vf most[2] = {set(-1e30f), set(-1e30f)};
    auto raise = [&](int j, uint32_t mask) {
        most[0] = max_where((Mask)mask, most[0], load(scores + j));
        most[1] = max_where((Mask)(mask >> 16), most[1], load(scores + j + 16));
    };
    if (LEFT) raise(from, in_first);
    for (int j = inner; j < last; j += 32) {
        most[0] = max(most[0], load(scores + j));
        most[1] = max(most[1], load(scores + j + 16));
    }
    if (has_last) raise(last, in_last);
    top = std::max(top, factor * largest(max(most[0], most[1])));

    vf sums[2] = {set(0), set(0)};
    auto weight = [&](int j) { return exp2<S::accuracy>(fms(load(scores + j), set(factor), set(top))); };
    auto put = [&](int j, vf low, vf high) {
        sums[0] = sums[0] + low;
        sums[1] = sums[1] + high;
        store(weights + j, low, high);
    };
    auto put_masked = [&](int j, uint32_t mask) {
        put(j, zero_unless((Mask)mask, weight(j)), zero_unless((Mask)(mask >> 16), weight(j + 16)));
    };
    if (LEFT) {
        clear(0, from);
        put_masked(from, in_first);
    }
    for (int j = inner; j < last; j += 32) put(j, weight(j), weight(j + 16));
    if (has_last) put_masked(last, in_last);
    clear(to, width);
    return total(sums[0] + sums[1]);
}

}  // namespace kernels
