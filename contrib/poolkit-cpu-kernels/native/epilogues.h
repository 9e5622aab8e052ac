// Epilogues: where the rows of a product go, and what becomes of them on the way.
#pragma once
#include "product.h"

namespace kernels {

template <class T>
using StatePanels = Panels<typename T::State::Element>;

template <class T>
struct StoreStates {
    Outputs<T> outputs;
    StatePanels<T> y;
    INLINE void row(const int32_t* sums, int row, int column) const {
        store(y, row, column, outputs.at(sums, row, column), outputs.at(sums + 16, row, column + 16));
    }
};

template <class T>
struct StoreSums {
    Outputs<T> outputs;
    Sums y;
    INLINE void row(const int32_t* sums, int row, int column) const {
        store(y, row, column, outputs.at(sums, row, column), outputs.at(sums + 16, row, column + 16));
    }
};

// y = outputs + residual, which is the normed input of the block, or y itself.
template <class T, class Residual>
struct AddResidual {
    Outputs<T> outputs;
    Sums y;
    Residual residual;
    INLINE void row(const int32_t* sums, int row, int column) const {
        const vf low = outputs.at(sums, row, column) + load(residual, row, column);
        const vf high = outputs.at(sums + 16, row, column + 16) + load(residual, row, column + 16);
        store(y, row, column, low, high);
    }
};

// Largest sizes in each row, in 16 parts: (rows, 16). Kept where the row is quantized next.
template <class T>
struct LargestOfRows {
    float* largest;
    INLINE void take(int row, bool is_first, vf sizes) const {
        if constexpr (std::is_same_v<T, Int8>)
            store(largest + row * 16, is_first ? sizes : max(sizes, load(largest + row * 16)));
    }
};

template <class T, class Activation>
struct StoreActivated {
    Outputs<T> outputs;
    StatePanels<T> y;
    LargestOfRows<T> largest;
    INLINE void row(const int32_t* sums, int row, int column) const {
        const vf low = Activation::of(outputs.at(sums, row, column)),
                 high = Activation::of(outputs.at(sums + 16, row, column + 16));
        store(y, row, column, low, high);
        largest.take(row, column == 0, max(abs(low), abs(high)));
    }
};

// A block holds 16 gates, then the 16 outputs that they multiply: y has half as many columns.
template <class T, class Activation>
struct StoreGated {
    Outputs<T> outputs;
    StatePanels<T> y;
    LargestOfRows<T> largest;
    INLINE void row(const int32_t* sums, int row, int column) const {
        const vf v = Activation::of(outputs.at(sums, row, column)) * outputs.at(sums + 16, row, column + 16);
        store(y(row, column / 2), v);
        largest.take(row, column == 0, abs(v));
    }
};

// A block of 32 outputs of queries, keys and values: its first dim in its head, and the head among those of queries and
// keys. Values have no head.
struct HeadBlock {
    int dim, head;
    static constexpr int VALUES = -1;
};

// Queries, keys and values; queries and keys are rotated by their positions (rope), where there is a table. A block holds
// 16 dims of a head's first half, then the 16 that they rotate with.
//
// Where queries and keys are normed, what multiplies a whole head is left to attention: `factors`, (heads, pitch).
template <class T>
struct StoreHeads {
    Outputs<T> outputs;
    Panels<typename T::Element> y;
    const HeadBlock* blocks;
    int head_dim;
    const float* rope;          // (positions, head_dim): for each block 16 cosines, then 16 sines; or null
    const int32_t* positions;   // of rows
    const float* norm_weights;  // (heads of queries and keys, head_dim), or null
    float* squares;             // (rows, 16): unfinished sums
    float* factors;
    long pitch;
    float epsilon;

    INLINE void row(const int32_t* sums, int row, int column) const {
        vf low = outputs.at(sums, row, column), high = outputs.at(sums + 16, row, column + 16);
        const HeadBlock block = blocks[column / 32];
        if (block.head != HeadBlock::VALUES) {
            if (norm_weights) norm(row, column, block, low, high);
            if (rope) rotate(rope + (size_t)positions[row] * head_dim + block.dim, low, high);
        }
        store(y, row, column, low, high);
    }

private:
    INLINE void norm(int row, int column, HeadBlock block, vf& low, vf& high) const {
        vf sum = fma(low, low, high * high);
        if (block.dim > 0) sum = sum + load(squares + row * 16);
        if (block.dim + 32 < head_dim)
            store(squares + row * 16, sum);
        else
            factors[block.head * pitch + row] = 1 / __builtin_sqrtf(total(sum) / head_dim + epsilon);
        low = low * load(norm_weights + column);
        high = high * load(norm_weights + column + 16);
    }
    static INLINE void rotate(const float* cosines_sines, vf& low, vf& high) {
        const vf cosine = load(cosines_sines), sine = load(cosines_sines + 16), first = low;
        low = fms(low, cosine, high * sine);
        high = fma(high, cosine, first * sine);
    }
};

}  // namespace kernels
