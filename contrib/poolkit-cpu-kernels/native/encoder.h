// The encoder: a batch of texts end to end, without padding, through all layers.
//
// A thread takes some texts, about CHUNK tokens, through all layers, then takes the next: what lies between layers stays in
// its cache, and threads wait for one another only at the end. A long text is cut into spans of rows for the products, and
// into heads and blocks of queries for attention, which all threads take part in. Each row is computed by itself in a fixed
// order, so that its bits do not depend on any of this.
#pragma once
#include <atomic>
#include <memory>

#include "activations.h"
#include "attention.h"
#include "batch.h"
#include "prefix.h"

namespace kernels {

// What the C calls hold. It is freed when nobody holds it: neither the caller nor a run that is under way.
class Encoder {
public:
    virtual ~Encoder() = default;
    virtual int add_layer(const LayerTensors& tensors) = 0;
    virtual int run(const EncoderBatch& batch, float* hidden) = 0;
    virtual size_t bytes() const = 0;

    void hold() { holders_++; }
    void release() {
        if (--holders_ == 0) delete this;
    }

private:
    std::atomic<int> holders_{1};
};

template <class T>
class EncoderOf final : public Encoder {
    using S = typename T::State;
    using E = typename S::Element;

public:
    EncoderOf(const EncoderSpec& spec, const EncoderTensors& tensors) : model_(spec, tensors) {}

    int add_layer(const LayerTensors& tensors) override {
        if ((int)model_.layers.size() == model_.spec.layers) return UNSUPPORTED;
        model_.add_layer(tensors);
        is_causal_ &= tensors.after == 0;
        return OK;
    }
    size_t bytes() const override { return model_.bytes(); }

    int run(const EncoderBatch& batch, float* hidden) override {
        if ((int)model_.layers.size() != model_.spec.layers) return UNSUPPORTED;
        const std::vector<Text> texts = texts_of(batch);
        if (!are_prefixes_supported(texts)) return UNSUPPORTED;
        const Run run{batch, hidden, prefixes_of(texts)};
        if (!are_positions_supported(run, texts)) return UNSUPPORTED;
        // First the texts that others continue, then those.
        std::vector<Text> first, then;
        for (const Text& text : texts) (text.prefix < 0 ? first : then).push_back(text);
        run_texts(run, first);
        run_texts(run, then);
        return OK;
    }

private:
    Model<T> model_;
    bool is_causal_ = true;
    FreeList<Activations<T>> activations_;
    FreeList<Scratch<T>> scratch_;

    struct Run {
        const EncoderBatch& batch;
        float* hidden;
        std::vector<std::unique_ptr<Prefix<S>>> prefixes;  // of each text that others continue; the others have none

        const Prefix<S>* prefix_of(const Text& text) const {
            return text.prefix < 0 ? nullptr : prefixes[text.prefix].get();
        }
    };
    using Lease = typename FreeList<Scratch<T>>::Lease;

    // Rows of a share that a thread takes through the products at a time.
    struct Span {
        const Run& run;
        const Share& share;
        Activations<T>& activations;
        Scratch<T>& scratch;
        int first, count;
        Panels<E> intermediate;

        Panels<E> x() const { return activations.x.from(first); }
        Panels<E> qkv() const { return activations.qkv.from(first); }
        Sums y() const { return activations.y.from(first); }
        QuantizedRows quantized() const { return activations.quantized.from(first); }
    };

    // A prefix is an earlier text without one of its own.
    bool are_prefixes_supported(const std::vector<Text>& texts) const {
        for (const Text& text : texts)
            if (text.prefix >= 0 && (!is_causal_ || text.prefix >= text.index || texts[text.prefix].prefix >= 0))
                return false;
        return true;
    }
    // The tables of rope reach as far as the texts.
    bool are_positions_supported(const Run& run, const std::vector<Text>& texts) const {
        for (const Text& text : texts)
            for (int i = 0; i < text.length; i++) {
                const int position = position_of(run, text, i);
                if (position < 0 || position >= model_.rope_positions) return false;
            }
        return true;
    }
    std::vector<std::unique_ptr<Prefix<S>>> prefixes_of(const std::vector<Text>& texts) const {
        std::vector<std::unique_ptr<Prefix<S>>> prefixes(texts.size());
        for (const Text& text : texts)
            if (text.prefix >= 0 && !prefixes[text.prefix])
                prefixes[text.prefix] = std::make_unique<Prefix<S>>(model_.spec, texts[text.prefix].seen);
        return prefixes;
    }

    void run_texts(const Run& run, const std::vector<Text>& texts) {
        const std::vector<Share> shares = shares_of(texts);
        parallel((int)shares.size(), [&](int i) { run_share(run, shares[i]); });
    }

    void run_share(const Run& run, const Share& share) {
        typename FreeList<Activations<T>>::Lease lease(activations_);
        Activations<T>& activations = *lease;
        const int spans = spans_of(share.tokens);
        const int size = (int)round_up((share.tokens + spans - 1) / spans, 32);
        activations.reserve(model_, share.tokens, size < share.tokens);
        place(run, share, activations);
        auto for_spans = [&](auto&& f) {
            parallel((share.tokens + size - 1) / size, [&](int i) {
                Lease scratch(scratch_);
                f(make_span(run, share, activations, *scratch, i * size, size));
            });
        };
        const std::vector<Layer>& layers = model_.layers;
        for_spans([&](const Span& span) {
            embed_span(span);
            before_attention(span, layers[0]);
        });
        for (size_t i = 0; i < layers.size(); i++) {
            attend(run, share, activations, layers[i], size < share.tokens);
            for_spans([&](const Span& span) {
                const bool is_last = i + 1 == layers.size();
                after_attention(span, layers[i], is_last);
                if (is_last)
                    finish(span);
                else
                    before_attention(span, layers[i + 1]);
            });
        }
    }

    static int position_of(const Run& run, const Text& text, int i) {
        if (run.batch.positions) return run.batch.positions[text.first + i];
        const Prefix<S>* prefix = run.prefix_of(text);
        return i + (prefix ? prefix->count() : 0);
    }
    void place(const Run& run, const Share& share, Activations<T>& activations) {
        for (const Text& text : share.texts)
            for (int i = 0; i < text.length; i++) activations.positions[text.row + i] = position_of(run, text, i);
    }

    Span make_span(const Run& run, const Share& share, Activations<T>& activations, Scratch<T>& scratch, int first,
                   int size) {
        const EncoderSpec& spec = model_.spec;
        const int count = std::min(size, share.tokens - first);
        const size_t rows = round_up(count, 64) + 32;
        scratch.tokens = std::max(scratch.tokens, count);
        scratch.sums.reserve(rows * 32);
        if (spec.norm_qk || std::is_same_v<T, Int8>) scratch.largest.reserve(rows * 16);
        if (spec.order == ORDER_SANDWICH) scratch.residual.reserve(rows * spec.hidden);
        if (std::is_same_v<T, Int8>) {
            scratch.scales.reserve(rows);
            scratch.quantized.reserve(rows * round_up(spec.intermediate, 64));
        }
        // Where all rows are one span, the FFN's middle takes the place of queries, keys and values: less cache is better.
        if (count == share.tokens) return {run, share, activations, scratch, first, count, activations.qkv};
        scratch.intermediate.reserve(rows * spec.intermediate);
        return {run, share, activations, scratch, first, count, {scratch.intermediate.data(), (long)rows}};
    }

    // ---------------------------------------------------------------------------------------------- rows

    void embed_span(const Span& span) {
        const EncoderSpec& spec = model_.spec;
        for (const Text& text : span.share.texts) {
            const int first = std::max(span.first, text.row),
                      last = std::min(span.first + span.count, text.row + text.length);
            for (int row = first; row < last; row++) {
                if (spec.table_dtype == DTYPE_FLOAT32)
                    embed_token<float>(span, text.first + row - text.row, row);
                else
                    embed_token<bf16>(span, text.first + row - text.row, row);
            }
        }
        norm_rows(span, model_.embedding_norm, spec.embedding, true, false);
        if (!model_.projection.weights) return;
        product<S>(span.x(), span.count, model_.projection, span.scratch.sums.data(),
                   StoreSums<S>{{model_.projection, nullptr}, span.y()});
        norm_rows(span, {}, spec.hidden, false, false);
    }

    template <class Table>
    void embed_token(const Span& span, int token, int row) {
        const EncoderBatch& batch = span.run.batch;
        const size_t columns = model_.spec.embedding;
        auto entry = [&](const void* table, int index) {
            return table ? static_cast<const Table*>(table) + index * columns : nullptr;
        };
        embed(entry(model_.words, batch.token_ids[token]), model_.spec.embedding_scale,
              entry(model_.types, batch.types ? batch.types[token] : 0),
              entry(model_.positions, span.activations.positions[row]), (int)columns, span.activations.y, row);
    }

    // x = norm(y); with `back` y too; with `quantize` int8 rows too, where there are any.
    void norm_rows(const Span& span, const Norm& norm, int columns, bool back, bool quantize) {
        const QuantizedRows quantized = quantize ? span.quantized() : QuantizedRows{};
        for (int row = 0; row < span.count; row++) normalize(span.y(), row, columns, norm, span.x(), back, quantized);
    }

    void before_attention(const Span& span, const Layer& layer) {
        const EncoderSpec& spec = model_.spec;
        if (spec.order != ORDER_POST) norm_rows(span, layer.attention_norm, spec.hidden, false, false);
        const Outputs<S> outputs(layer.qkv, nullptr);
        int32_t* sums = span.scratch.sums.data();
        if (!layer.rope && !layer.qk_norm_weights)
            return product<S>(span.x(), span.count, layer.qkv, sums, StoreStates<S>{outputs, span.qkv()});
        const Activations<T>& activations = span.activations;
        product<S>(span.x(), span.count, layer.qkv, sums,
                   StoreHeads<S>{outputs, span.qkv(), model_.head_blocks.data(), spec.head_dim, layer.rope,
                                 &activations.positions[span.first], layer.qk_norm_weights, span.scratch.largest.data(),
                                 activations.factors.data() + span.first, activations.pitch, spec.epsilon});
    }

    void after_attention(const Span& span, const Layer& layer, bool is_last) {
        const EncoderSpec& spec = model_.spec;
        add_product(span, layer.output, span.qkv(), attended_rows(span), layer.after_attention);
        norm_rows(span, spec.order == ORDER_POST ? layer.attention_norm : layer.ffn_norm, spec.hidden, false, true);
        activate(span, layer.up);
        add_product(span, layer.down, span.intermediate, intermediate_rows(span), layer.after_ffn);
        if (spec.order == ORDER_POST) norm_rows(span, layer.ffn_norm, spec.hidden, is_last, false);
    }

    // y = x W + what it is added to. For int8, `quantized` stands for x.
    void add_product(const Span& span, const Linear& linear, Panels<E> x, QuantizedRows quantized, const Norm& after) {
        const auto input = input_of(x, quantized);
        const Outputs<T> outputs(linear, quantized.scales);
        int32_t* sums = span.scratch.sums.data();
        if (model_.spec.order == ORDER_POST)
            return product<T>(input, span.count, linear, sums, AddResidual<T, Panels<E>>{outputs, span.y(), span.x()});
        if (model_.spec.order == ORDER_PRE)
            return product<T>(input, span.count, linear, sums, AddResidual<T, Sums>{outputs, span.y(), span.y()});
        const Sums z{span.scratch.residual.data(), (long)round_up(span.count, 64) + 32};
        product<T>(input, span.count, linear, sums, StoreSums<T>{outputs, z});
        for (int row = 0; row < span.count; row++) add_normed(span.y(), z, row, model_.spec.hidden, after);
    }

    static auto input_of(Panels<E> x, QuantizedRows quantized) {
        if constexpr (std::is_same_v<T, Int8>)
            return quantized.x;
        else
            return x;
    }

    // The FFN's first product, activated.
    void activate(const Span& span, const Linear& up) {
        constexpr Accuracy accuracy = S::accuracy;
        switch (model_.spec.activation) {
            case ACTIVATION_GELU:
                return activate_with<Gelu<accuracy>>(span, up);
            case ACTIVATION_GELU_TANH:
                return activate_with<GeluTanh<accuracy>>(span, up);
            case ACTIVATION_SILU:
                return activate_with<Silu<accuracy>>(span, up);
            default:
                return activate_with<Relu<accuracy>>(span, up);
        }
    }
    template <class Activation>
    void activate_with(const Span& span, const Linear& up) {
        const QuantizedRows quantized = span.quantized();
        const auto input = input_of(span.x(), quantized);
        const Outputs<T> outputs(up, quantized.scales);
        const LargestOfRows<T> largest{span.scratch.largest.data()};
        int32_t* sums = span.scratch.sums.data();
        if (model_.spec.gated)
            product<T>(input, span.count, up, sums, StoreGated<T, Activation>{outputs, span.intermediate, largest});
        else
            product<T>(input, span.count, up, sums, StoreActivated<T, Activation>{outputs, span.intermediate, largest});
    }

    // Attention's outputs as int8.
    QuantizedRows attended_rows(const Span& span) {
        const QuantizedRows rows = span.quantized();
        if constexpr (std::is_same_v<T, Int8>)
            for (int row = 0; row < span.count; row++) quantize_row(span.qkv(), row, model_.query_columns(), rows);
        return rows;
    }
    // The FFN's middle as int8.
    QuantizedRows intermediate_rows(const Span& span) {
        const Scratch<T>& scratch = span.scratch;
        const QuantizedRows rows{{scratch.quantized.data(), (long)round_up(span.count, 64) + 32}, scratch.scales.data()};
        if constexpr (std::is_same_v<T, Int8>)
            for (int row = 0; row < span.count; row++)
                quantize_row(span.intermediate, row, model_.spec.intermediate,
                             largest(load(scratch.largest.data() + row * 16)), rows);
        return rows;
    }

    void finish(const Span& span) {
        const int columns = model_.spec.hidden;
        if (model_.spec.order != ORDER_POST) norm_rows(span, model_.final_norm, columns, true, false);
        for (const Text& text : span.share.texts) {
            const int first = std::max(span.first, text.row),
                      last = std::min(span.first + span.count, text.row + text.length);
            for (int row = first; row < last; row++) {
                float* to = span.run.hidden + (size_t)(text.first + row - text.row) * columns;
                for (int i = 0; i < columns; i += 16) store(to + i, load(span.activations.y, row, i));
            }
        }
    }

    // ---------------------------------------------------------------------------------------------- attention

    // The part of attention that a thread takes at a time: blocks of queries of the heads that share keys.
    struct Part {
        const Text* text;
        int kv_head, first_block, last_block;
    };

    void attend(const Run& run, const Share& share, Activations<T>& activations, const Layer& layer, bool in_parallel) {
        constexpr int BLOCKS = 16;  // of a part, where there are many
        std::vector<Part> parts;
        for (const Text& text : share.texts) {
            const int blocks = (text.length + 31) / 32, step = in_parallel ? BLOCKS : blocks;
            for (int head = 0; head < model_.spec.kv_heads; head++)
                for (int block = 0; block < blocks; block += step)
                    parts.push_back({&text, head, block, std::min(block + step, blocks)});
        }
        if (in_parallel)
            return parallel((int)parts.size(), [&](int i) {
                Lease scratch(scratch_);
                attend_part(run, activations, layer, parts[i], *scratch);
            });
        Lease scratch(scratch_);
        for (const Part& part : parts) attend_part(run, activations, layer, part, *scratch);
    }

    void attend_part(const Run& run, Activations<T>& activations, const Layer& layer, const Part& part,
                     Scratch<T>& scratch) {
        const EncoderSpec& spec = model_.spec;
        const Text& text = *part.text;
        const int layer_index = (int)(&layer - model_.layers.data());
        const Prefix<S>* prefix = run.prefix_of(text);
        const KeyRows<S> prefix_rows = prefix ? prefix->rows(layer_index, part.kv_head) : KeyRows<S>{};
        const View view{text.length,       prefix_rows.count + text.length,
                        prefix_rows.count, prefix_rows.count + text.seen,
                        layer.before,      layer.after};
        const std::vector<Piece> pieces = plan(view, part.first_block, part.last_block);
        int first = view.key_blocks(), last = 0;
        for (const Piece& piece : pieces) {
            first = std::min(first, piece.first);
            last = std::max(last, piece.last);
        }
        scratch.tokens = std::max(scratch.tokens, 32 * (last - first));
        auto factors = [&](int head) {
            return spec.norm_qk ? activations.factors.data() + head * activations.pitch + text.row : nullptr;
        };
        const int keys = model_.query_columns() + part.kv_head * spec.head_dim;
        const KeyRows<S> own{activations.qkv.from(text.row, keys),
                             activations.qkv.from(text.row, keys + model_.key_columns()), factors(spec.heads + part.kv_head),
                             text.length};
        Prefix<S>* continued = run.prefixes[text.index].get();
        if (continued && part.first_block == 0) continued->save(layer_index, part.kv_head, own);
        PackedKeys<S> packed(spec.head_dim, first, last, scratch.attention.keys, scratch.attention.values);
        packed.pack(prefix_rows, own);
        const int group = spec.heads / spec.kv_heads;
        for (int head = part.kv_head * group; head < (part.kv_head + 1) * group; head++) {
            const PositionBias bias =
                spec.reach ? PositionBias{model_.position_bias + (size_t)head * (2 * spec.reach + 1), spec.reach}
                           : PositionBias{};
            HeadAttention<S>(activations.qkv.from(text.row, head * spec.head_dim), factors(head), view, spec.head_dim, bias,
                             pieces, packed, scratch.attention)
                .run();
        }
    }
};

}  // namespace kernels
