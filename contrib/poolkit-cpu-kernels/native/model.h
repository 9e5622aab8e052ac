// Models as tables, and their packed weights.
#pragma once
#include <map>
#include <vector>

#include "epilogues.h"
#include "rows.h"

namespace kernels {

constexpr float LOG2_E = 1.44269504088896f;

struct Layer {
    Linear qkv, output, up, down;
    Norm attention_norm, ffn_norm, after_attention, after_ffn;
    const float* qk_norm_weights = nullptr;
    const float* rope = nullptr;
    int before = 0, after = 0;
};

// A model whose products are of T.
template <class T>
class Model {
    using S = typename T::State;

public:
    Model(const EncoderSpec& spec, const EncoderTensors& tensors)
        : spec(spec), words(tensors.words), positions(tensors.positions), types(tensors.types) {
        arena_.reserve(weight_bytes());
        embedding_norm = norm(tensors.norm_weight, tensors.norm_bias, spec.embedding);
        final_norm = norm(tensors.final_norm_weight, tensors.final_norm_bias, spec.hidden);
        if (tensors.projection_weight) {
            Rows rows{spec.embedding, {}};
            rows.add_all(tensors.projection_weight, tensors.projection_bias, spec.hidden);
            projection = pack<S>(arena_, rows);
        }
        if (spec.reach) position_bias = scaled(tensors.position_bias, (size_t)spec.heads * (2 * spec.reach + 1), LOG2_E);
        for (int column = 0; column < qkv_columns(); column += 32) {
            const int head = column / spec.head_dim;
            head_blocks.push_back({column % spec.head_dim, head < spec.heads + spec.kv_heads ? head : HeadBlock::VALUES});
        }
    }

    void add_layer(const LayerTensors& tensors) {
        const int hidden = spec.hidden;
        Layer layer;
        Rows output{query_columns(), {}}, down{spec.intermediate, {}};
        output.add_all(tensors.output_weight, tensors.output_bias, hidden);
        down.add_all(tensors.down_weight, tensors.down_bias, hidden);
        layer.qkv = pack<S>(arena_, qkv_rows(tensors));
        layer.output = pack<T>(arena_, output);
        layer.up = pack<T>(arena_, up_rows(tensors));
        layer.down = pack<T>(arena_, down);
        layer.attention_norm = norm(tensors.attention_norm_weight, tensors.attention_norm_bias, hidden);
        layer.ffn_norm = norm(tensors.ffn_norm_weight, tensors.ffn_norm_bias, hidden);
        layer.after_attention = norm(tensors.after_attention_weight, nullptr, hidden);
        layer.after_ffn = norm(tensors.after_ffn_weight, nullptr, hidden);
        if (spec.norm_qk) layer.qk_norm_weights = qk_norm_weights(tensors);
        if (tensors.rope) layer.rope = rope(tensors.rope, tensors.rope_positions);
        constexpr int ALL = 1 << 29;  // sums of it are within an int
        layer.before = std::min(tensors.before, ALL);
        layer.after = std::min(tensors.after, ALL);
        layers.push_back(layer);
    }

    const EncoderSpec spec;
    const void *const words, *const positions, *const types;
    Norm embedding_norm, final_norm;
    Linear projection;
    const float* position_bias = nullptr;  // in units of log 2
    int rope_positions = 1 << 29;          // that all layers have
    std::vector<Layer> layers;
    std::vector<HeadBlock> head_blocks;

    int query_columns() const { return spec.heads * spec.head_dim; }
    int key_columns() const { return spec.kv_heads * spec.head_dim; }
    int qkv_columns() const { return query_columns() + 2 * key_columns(); }
    size_t bytes() const { return arena_.bytes(); }

private:
    Arena arena_;
    std::map<const float*, const float*> ropes_;  // packed tables by the caller's

    size_t weight_bytes() const {
        const size_t up = (size_t)(spec.gated ? 2 : 1) * spec.intermediate;
        const size_t layer = packed_bytes<S>(qkv_columns(), spec.hidden) + packed_bytes<T>(spec.hidden, query_columns()) +
                             packed_bytes<T>(up, spec.hidden) + packed_bytes<T>(spec.hidden, spec.intermediate);
        return layer * spec.layers + packed_bytes<S>(spec.hidden, spec.embedding);
    }

    Norm norm(const float* weight, const float* bias, int columns) {
        if (!weight) return {};
        const float* zeros_or_bias = bias ? arena_.copy(bias, columns) : arena_.keep<float>(columns);
        return {arena_.copy(weight, columns), zeros_or_bias, spec.epsilon, spec.norm == NORM_RMS};
    }

    const float* scaled(const float* from, size_t count, float factor) {
        float* to = arena_.keep<float>(count);
        for (size_t i = 0; i < count; i++) to[i] = from[i] * factor;
        return to;
    }

    // The order of a head's dims: where they are rotated, 16 of the first half, then the 16 that they rotate with, and so on.
    std::vector<int> head_order(bool is_rotated) const {
        std::vector<int> order;
        const int half = spec.head_dim / 2;
        for (int i = 0; i < spec.head_dim; i++) order.push_back(is_rotated ? i / 32 * 16 + i % 16 + i % 32 / 16 * half : i);
        return order;
    }

    // Scores are taken as powers of two: what scales them is in the queries' weights, or in those of the queries' norm.
    Rows qkv_rows(const LayerTensors& t) const {
        Rows rows{spec.hidden, {}};
        const std::vector<int> order = head_order(t.rope);
        for (int head = 0; head < spec.heads; head++)
            for (int dim : order)
                rows.add(t.q_weight, t.q_bias, head * spec.head_dim + dim, spec.norm_qk ? 1 : t.scale * LOG2_E);
        for (int head = 0; head < spec.kv_heads; head++)
            for (int dim : order) rows.add(t.k_weight, t.k_bias, head * spec.head_dim + dim);
        rows.add_all(t.v_weight, t.v_bias, key_columns());
        return rows;
    }

    const float* qk_norm_weights(const LayerTensors& t) {
        float *weights = arena_.keep<float>(query_columns() + key_columns()), *to = weights;
        const std::vector<int> order = head_order(t.rope);
        for (int head = 0; head < spec.heads + spec.kv_heads; head++)
            for (int dim : order) *to++ = head < spec.heads ? t.q_norm_weight[dim] * t.scale * LOG2_E : t.k_norm_weight[dim];
        return weights;
    }

    // Gated: 16 gates, then the 16 outputs that they multiply, and so on.
    Rows up_rows(const LayerTensors& t) const {
        Rows rows{spec.hidden, {}};
        if (!spec.gated)
            rows.add_all(t.up_weight, t.up_bias, spec.intermediate);
        else
            for (int from = 0; from < spec.intermediate; from += 16) {
                for (int i = from; i < from + 16; i++) rows.add(t.gate_weight, t.gate_bias, i);
                for (int i = from; i < from + 16; i++) rows.add(t.up_weight, t.up_bias, i);
            }
        return rows;
    }

    // From (positions, head_dim / 2 cosines and as many sines) to 16 cosines and their 16 sines, and so on.
    const float* rope(const float* table, int count) {
        rope_positions = std::min(rope_positions, count);
        const float*& packed = ropes_[table];
        if (packed) return packed;
        float* to = arena_.keep<float>((size_t)count * spec.head_dim);
        packed = to;
        const std::vector<int> order = head_order(true);
        for (int position = 0; position < count; position++, table += spec.head_dim)
            for (int dim : order) *to++ = table[dim];
        return packed;
    }
};

}  // namespace kernels
