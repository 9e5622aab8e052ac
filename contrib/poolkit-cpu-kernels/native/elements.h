// The kinds of elements that are multiplied, and how activations lie in memory.
#pragma once
#include "simd.h"

namespace kernels {

// A step of a product takes 64 bytes, a cache line, of each row: WIDTH elements. States (what is normed, attended, added)
// are held in State. LIBRARY_… macros and the compiler's own say which kinds a library has.
struct Float32 {
    using Element = float;
    using State = Float32;
    static constexpr int WIDTH = 16;
    static constexpr Accuracy accuracy = Accuracy::FLOAT32;
};
struct Bf16 {
    using Element = bf16;
    using State = Bf16;
    static constexpr int WIDTH = 32;
    static constexpr Accuracy accuracy = Accuracy::BF16;
};
struct Int8 {
    using Element = int8_t;
    using State = Bf16;
    static constexpr int WIDTH = 64;
    static constexpr Accuracy accuracy = Accuracy::BF16;
};

// A matrix in panels of WIDTH columns, (columns / WIDTH, pitch, WIDTH): 16 rows of a panel are a tile in one piece, and an
// epilogue writes whole cache lines one after another.
template <class E, int PANEL = 64 / (int)sizeof(E)>
struct Panels {
    static constexpr int WIDTH = PANEL;
    E* data = nullptr;
    long pitch = 0;  // rows between one panel and the next

    INLINE E* operator()(long row, int column) const {
        return data + (column / WIDTH * pitch + row) * WIDTH + column % WIDTH;
    }
    INLINE Panels from(long row) const { return {data + row * WIDTH, pitch}; }
    INLINE Panels from(long row, int column) const { return {(*this)(row, column), pitch}; }
};
using Sums = Panels<float, 32>;  // float32 matrices outside products: two cache lines a row

template <class E>
INLINE vf load(Panels<E> x, long row, int column) {
    return load(x(row, column));
}
INLINE vf load(Sums x, long row, int column) { return load(x(row, column)); }

// Columns `column` to `column + 31`, which starts a block of 32.
INLINE void store(Panels<float> x, long row, int column, vf low, vf high) {
    store(x(row, column), low);
    store(x(row, column + 16), high);
}
INLINE void store(Sums x, long row, int column, vf low, vf high) {
    float* to = x(row, column);
    store(to, low);
    store(to + 16, high);
}
#ifdef __AVX512F__
INLINE void store(bf16* p, vf low, vf high) {
#ifdef __AVX512BF16__
    _mm512_storeu_si512(p, (__m512i)_mm512_cvtne2ps_pbh(high, low));
#else
    store(p, low);
    store(p + 16, high);
#endif
}
INLINE void store(Panels<bf16> x, long row, int column, vf low, vf high) { store(x(row, column), low, high); }
#endif
INLINE void store(float* p, vf low, vf high) {
    store(p, low);
    store(p + 16, high);
}

}  // namespace kernels
