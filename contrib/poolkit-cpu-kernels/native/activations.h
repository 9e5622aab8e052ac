// The buffers of a pass: of a share of a batch, and of a thread.
#pragma once
#include <algorithm>

#include "attention.h"
#include "model.h"

namespace kernels {

constexpr int LARGE = 2048;  // buffers for more tokens are freed after use

// The activations of a share.
template <class T>
struct Activations {
    using E = typename T::State::Element;

    int tokens = 0;
    Buffer<E> x_buffer, qkv_buffer;
    Buffer<float> y_buffer, scales, factors;
    Buffer<int8_t> quantized_buffer;
    Buffer<int32_t> positions;
    Panels<E> x, qkv;  // normed; queries, keys and values, then attention's outputs in place of queries
    Sums y;            // what is normed next, and the residual
    QuantizedRows quantized;
    long pitch;

    // has_spans: the FFN's middle has buffers elsewhere.
    void reserve(const Model<T>& model, int count, bool has_spans) {
        const EncoderSpec& spec = model.spec;
        tokens = std::max(tokens, count);
        // 32 more than a multiple of 64 cache lines: the panels of a row then spread over the sets of the cache. The last tile
        // of rows stays within the panel.
        pitch = round_up(count, 64) + 32;
        const size_t rows = pitch, columns = std::max(spec.hidden, spec.embedding);
        x_buffer.reserve(rows * columns);
        y_buffer.reserve(rows * columns);
        qkv_buffer.reserve(rows * std::max(model.qkv_columns(), has_spans ? 0 : spec.intermediate));
        positions.reserve(rows);
        if (spec.norm_qk) factors.reserve(rows * (spec.heads + spec.kv_heads));
        x = {x_buffer.data(), pitch};
        qkv = {qkv_buffer.data(), pitch};
        y = {y_buffer.data(), pitch};
        if (std::is_same_v<T, Int8>) {
            scales.reserve(rows);
            quantized_buffer.reserve(rows * round_up(std::max(spec.hidden, model.query_columns()), 64));
            quantized = {{quantized_buffer.data(), pitch}, scales.data()};
        }
    }
    bool is_large() const { return tokens > LARGE; }
};

// What one thread needs for a span of rows, or for a part of attention.
template <class T>
struct Scratch {
    using E = typename T::State::Element;

    int tokens = 0;
    Buffer<E> intermediate;
    Buffer<float> residual, largest, scales;
    Buffer<int32_t> sums;
    Buffer<int8_t> quantized;
    AttentionScratch attention;

    bool is_large() const { return tokens > LARGE; }
};

}  // namespace kernels
