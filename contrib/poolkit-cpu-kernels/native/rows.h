// What is done row by row: embeddings, norms, quantization.
#pragma once
#include "poolkit_cpu_kernels.h"
#include "weights.h"

namespace kernels {

struct Norm {
    const float *weight = nullptr, *bias = nullptr;  // no weight: no norm
    float epsilon = 0;
    bool rms = false;
};

struct RowStatistics {
    vf mean, inverse_deviation;
};

INLINE RowStatistics statistics(Sums y, long row, int columns, const Norm& norm) {
    vf mean = set(0);
    if (!norm.rms) {
        vf sum = set(0);
        for (int i = 0; i < columns; i += 16) sum = sum + load(y, row, i);
        mean = set(total(sum) / columns);
    }
    vf squares = set(0);
    for (int i = 0; i < columns; i += 16) {
        const vf d = load(y, row, i) - mean;
        squares = fma(d, d, squares);
    }
    return {mean, set(1 / __builtin_sqrtf(total(squares) / columns + norm.epsilon))};
}

// Calls take(column, low, high) for each 32 columns of a row, normed.
template <class Take>
INLINE void for_normed(Sums y, long row, int columns, const Norm& norm, Take&& take) {
    if (!norm.weight) {
        for (int i = 0; i < columns; i += 32) take(i, load(y, row, i), load(y, row, i + 16));
        return;
    }
    const RowStatistics s = statistics(y, row, columns, norm);
    auto normed = [&](int i) {
        return fma((load(y, row, i) - s.mean) * s.inverse_deviation, load(norm.weight + i), load(norm.bias + i));
    };
    for (int i = 0; i < columns; i += 32) take(i, normed(i), normed(i + 16));
}

struct QuantizedRows {  // int8 rows and their scales, where there are any
    Panels<int8_t> x;
    float* scales = nullptr;

    explicit operator bool() const { return scales != nullptr; }
    QuantizedRows from(long row) const { return *this ? QuantizedRows{x.from(row), scales + row} : *this; }
};

#if HAS_BF16_AND_INT8
// y = round(x 127 / largest) of columns `column` to `column + 15`.
INLINE void quantize(vf x, vf factor, Panels<int8_t> y, long row, int column) {
    const __m128i bytes =
        _mm_xor_si128(to_int8(x * factor), _mm_set1_epi8((char)INT8_OFFSET));  // + 128 flips the sign's bit
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y(row, column)), bytes);
}
INLINE vf quantization_factor(float largest) { return set(largest > 0 ? 127 / largest : 0); }

inline void quantize_row(Panels<bf16> x, long row, int columns, float largest, QuantizedRows y) {
    const vf factor = quantization_factor(largest);
    for (int i = 0; i < columns; i += 16) quantize(load(x, row, i), factor, y.x, row, i);
    y.scales[row] = largest / 127;
}
inline void quantize_row(Panels<bf16> x, long row, int columns, QuantizedRows y) {
    vf most = set(0);
    for (int i = 0; i < columns; i += 16) most = max(most, abs(load(x, row, i)));
    quantize_row(x, row, columns, largest(most), y);
}
#endif

// x = norm(y), in `quantized` too where there is one; with `back` y takes it as well.
template <class E>
inline void normalize(Sums y, long row, int columns, const Norm& norm, Panels<E> x, bool back, QuantizedRows quantized) {
    vf most = set(0);
    for_normed(y, row, columns, norm, [&](int i, vf low, vf high) {
        store(x, row, i, low, high);
        if (quantized) most = max(most, max(abs(low), abs(high)));
    });
#if HAS_BF16_AND_INT8
    if (quantized) {
        const float size = largest(most);
        const vf factor = quantization_factor(size);
        for_normed(y, row, columns, norm, [&](int i, vf low, vf high) {
            quantize(low, factor, quantized.x, row, i);
            quantize(high, factor, quantized.x, row, i + 16);
        });
        quantized.scales[row] = size / 127;
    }
#endif
    if (back && norm.weight) for_normed(y, row, columns, norm, [&](int i, vf low, vf high) { store(y, row, i, low, high); });
}

// y += norm(z).
inline void add_normed(Sums y, Sums z, long row, int columns, const Norm& norm) {
    for_normed(z, row, columns, norm,
               [&](int i, vf low, vf high) { store(y, row, i, load(y, row, i) + low, load(y, row, i + 16) + high); });
}

// y = words scale + types + positions. Tables: (rows, columns) of E; the last two may be null.
template <class E>
inline void embed(const E* word, float scale, const E* type, const E* position, int columns, Sums y, long row) {
    for (int i = 0; i < columns; i += 16) {
        vf v = load(word + i) * set(scale);
        if (type) v = v + load(type + i);
        if (position) v = v + load(position + i);
        store(y(row, i), v);
    }
}

}  // namespace kernels
