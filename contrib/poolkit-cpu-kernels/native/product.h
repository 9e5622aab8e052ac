// Products of activations with packed weights, and what is done with their rows.
#pragma once
#include "weights.h"

namespace kernels {

// Steps that a product takes at a time, so that their weights stay in the nearest cache while the rows pass.
#ifndef DEPTH
#define DEPTH 16
#endif

// A x W' for `rows` rows, 32 columns at a time. Each finished row of 32 sums goes to epilogue.row(sums, row, column); the
// epilogue of one block of rows runs while the tiles multiply the next. unfinished: (rows, 32), sums between two depths.
template <class T, class Epilogue>
__attribute__((noinline)) void product(Panels<typename T::Element> a, int rows, const Linear& linear, int32_t* unfinished,
                                       const Epilogue& epilogue) {
    Tiles tiles;
    alignas(64) int32_t finished[2][32 * 32];
    const int steps = steps_of<T>(linear.inputs), blocks = (rows + 31) / 32;
    const int depths = blocks > 1 ? (steps + DEPTH - 1) / DEPTH : 1, depth = (steps + depths - 1) / depths;
    const int32_t* waiting = nullptr;  // sums that wait for their epilogue, and where they belong
    int waiting_row = 0, waiting_column = 0, waiting_rows = 0, turn = 0;
    const char* weights = linear.weights;
    for (int column = 0; column < linear.outputs; column += 32)
        for (int from = 0, count; from < steps; from += count, weights += (size_t)count * 2048) {
            count = std::min(depth, steps - from);
            const bool is_last = from + count == steps;
            const int rows_a_step = (32 + count - 1) / count;                               // of the epilogue
            const int lines_a_step = (count * 32 + blocks * count - 1) / (blocks * count);  // of the next weights
            const char* ahead = weights + (size_t)count * 2048;
            for (int row = 0; row < rows; row += 32) {
                const int here = std::min(32, rows - row);
                auto meanwhile = [&](int i) {
                    for (int j = 0; j < lines_a_step; j++, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T1);
                    const int end = std::min(waiting_rows, (i + 1) * rows_a_step);
                    for (int r = i * rows_a_step; r < end; r++)
                        epilogue.row(waiting + r * 32, waiting_row + r, waiting_column);
                };
                int32_t* sums = depths == 1 ? finished[turn ^= 1] : unfinished + row * 32;
                multiply<T>(a(row, from * T::WIDTH), 64, a.pitch * 64, weights, count, sums, 32, here, from > 0, meanwhile);
                waiting = sums;
                waiting_row = row;
                waiting_column = column;
                waiting_rows = is_last ? here : 0;
            }
        }
    for (int r = 0; r < waiting_rows; r++) epilogue.row(waiting + r * 32, waiting_row + r, waiting_column);
}

// Sums of a product as outputs of the layer, 16 at a time.
template <class T>
struct Outputs {
    const float* bias;
    Outputs(const Linear& linear, const float*) : bias(linear.bias) {}
    INLINE vf at(const int32_t* sums, int, int column) const {
        return load(reinterpret_cast<const float*>(sums)) + load(bias + column);
    }
};
#if HAS_BF16_AND_INT8
template <>
struct Outputs<Int8> {
    const float *bias, *scale, *scale_of_rows;
    const int32_t* correction;
    Outputs(const Linear& linear, const float* scale_of_rows)
        : bias(linear.bias), scale(linear.scale), scale_of_rows(scale_of_rows), correction(linear.correction) {}
    INLINE vf at(const int32_t* sums, int row, int column) const {
        const vf sum = INT8_OFFSET ? from_int(sums, correction + column) : from_int(sums);
        return fma(sum * load(scale + column), set(scale_of_rows[row]), load(bias + column));
    }
};
#endif

}  // namespace kernels
