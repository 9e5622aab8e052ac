// Weights of linear layers, packed in the order in which products read them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <vector>

#include "memory.h"
#include "multiply.h"
#include "threads.h"

namespace kernels {

// Without tiles, int8 inputs are multiplied as unsigned numbers, this much larger; a column's sum is corrected for it.
constexpr int INT8_OFFSET = on_tiles<Int8> ? 0 : 128;

// A packed linear layer. weights: (outputs / 32, steps, 2 tiles, 16 rows, 64 bytes).
struct Linear {
    int outputs = 0, inputs = 0;
    const char* weights = nullptr;
    const float* bias = nullptr;
    const float* scale = nullptr;         // int8: of each output
    const int32_t* correction = nullptr;  // int8: what INT8_OFFSET adds to each output
};

template <class T>
int steps_of(int inputs) {
    return (inputs + T::WIDTH - 1) / T::WIDTH;
}
template <class T>
size_t packed_bytes(size_t outputs, int inputs) {
    return outputs * steps_of<T>(inputs) * 64;
}

// The rows of a linear layer before they are packed, in any order: weights (inputs), biases and factors of outputs.
struct Rows {
    struct Row {
        const float* weight;
        float bias, factor;
    };
    int inputs;
    std::vector<Row> rows;

    // Row `i` of a matrix, scaled by `factor`.
    void add(const float* weight, const float* bias, int i, float factor = 1) {
        rows.push_back({weight + (size_t)i * inputs, bias ? bias[i] * factor : 0, factor});
    }
    void add_all(const float* weight, const float* bias, int count) {
        for (int i = 0; i < count; i++) add(weight, bias, i);
    }
};

// Memory for all that an encoder keeps. Packed weights stand in one piece, in their order of use: "the next weights" are
// those that follow.
class Arena {
public:
    void reserve(size_t bytes) { weights_.reserve(bytes); }

    char* take(size_t bytes) {
        char* taken = weights_.data() + used_;
        used_ += bytes;
        return taken;
    }

    template <class E>
    E* keep(size_t count) {
        Buffer<char> buffer(count * sizeof(E));
        kept_.push_back(std::move(buffer));
        return reinterpret_cast<E*>(kept_.back().data());
    }
    const float* copy(const float* from, size_t count) {
        return static_cast<const float*>(memcpy(keep<float>(count), from, count * sizeof(float)));
    }

    size_t bytes() const {
        size_t sum = weights_.bytes();
        for (const auto& buffer : kept_) sum += buffer.bytes();
        return sum;
    }

private:
    Buffer<char> weights_;
    size_t used_ = 0;
    std::deque<Buffer<char>> kept_;
};

inline bf16 rounded_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline int8_t rounded_to_int8(float x) { return (int8_t)std::max(-127.0f, std::min(127.0f, __builtin_rintf(x))); }

template <class T>
typename T::Element element_of(float x, float scale) {
    if constexpr (std::is_same_v<T, Float32>)
        return x * scale;
    else if constexpr (std::is_same_v<T, Bf16>)
        return rounded_to_bf16(x * scale);
    else
        return rounded_to_int8(x * scale);
}

// Packs one block of 32 outputs. scales: of outputs, what their weights are multiplied by.
template <class T>
void pack_block(const Rows::Row* rows, const float* scales, int inputs, typename T::Element* to) {
    constexpr int GROUP = 4 / sizeof(typename T::Element);  // inputs in 4 bytes
    for (int from = 0; from < steps_of<T>(inputs) * T::WIDTH; from += T::WIDTH)
        for (int tile = 0; tile < 32; tile += 16, to += 16 * T::WIDTH)
            for (int output = 0; output < 16; output++) {
                const float* weight = rows[tile + output].weight + from;
                for (int i = 0; i < std::min(T::WIDTH, inputs - from); i++)
                    to[i / GROUP * 16 * GROUP + output * GROUP + i % GROUP] =
                        element_of<T>(weight[i], scales[tile + output]);
            }
}

// int8: the largest weight of an output becomes 127.
inline void quantization(const Rows& from, float* scales, float* scale_of_outputs) {
    for (size_t n = 0; n < from.rows.size(); n++) {
        const Rows::Row& row = from.rows[n];
        float most = 1e-20f;
        for (int i = 0; i < from.inputs; i++) most = std::max(most, std::abs(row.weight[i]));
        scales[n] = 127 / most;
        scale_of_outputs[n] = most / 127 * row.factor;
    }
}

// What INT8_OFFSET adds to each output: so many times the sum of its packed weights.
inline void corrections(const char* packed, int outputs, int inputs, int32_t* to) {
    const int steps = steps_of<Int8>(inputs);
    for (int n = 0; n < outputs; n++) {
        const char* tile = packed + (size_t)n / 32 * steps * 2048 + n % 32 / 16 * 1024 + n % 16 * 4;
        int32_t sum = 0;
        for (int s = 0; s < steps; s++, tile += 2048)
            for (int i = 0; i < 64; i++) sum += (int8_t)tile[i / 4 * 64 + i % 4];
        to[n] = sum * INT8_OFFSET;
    }
}

template <class T>
Linear pack(Arena& arena, const Rows& from) {
    const int outputs = (int)from.rows.size();
    char* packed = arena.take(packed_bytes<T>(outputs, from.inputs));
    float* bias = arena.keep<float>(outputs);
    Linear linear{outputs, from.inputs, packed, bias, nullptr, nullptr};
    std::vector<float> scales(outputs);
    for (int n = 0; n < outputs; n++) {
        bias[n] = from.rows[n].bias;
        scales[n] = from.rows[n].factor;
    }
    if constexpr (std::is_same_v<T, Int8>) {
        float* scale_of_outputs = arena.keep<float>(outputs);
        quantization(from, scales.data(), scale_of_outputs);
        linear.scale = scale_of_outputs;
    }
    const size_t block = packed_bytes<T>(32, from.inputs);
    parallel(outputs / 32, [&](int i) {
        pack_block<T>(&from.rows[i * 32], &scales[i * 32], from.inputs,
                      reinterpret_cast<typename T::Element*>(packed + i * block));
    });
    if constexpr (std::is_same_v<T, Int8>) {
        int32_t* correction = arena.keep<int32_t>(outputs);
        corrections(packed, outputs, from.inputs, correction);
        linear.correction = correction;
    }
    return linear;
}

}  // namespace kernels
