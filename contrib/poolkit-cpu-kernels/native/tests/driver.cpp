// Runs a library's calls on arrays of exactly the sizes that they ask for, for the sanitizers to watch: lengths around tiles
// and blocks, windows, prefixes, each kind of layer. Checks that states are finite and that a text has the same bits alone.
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "../poolkit_cpu_kernels.h"

namespace {

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

void expect(bool holds, const std::string& what) {
    if (holds) return;
    std::fprintf(stderr, "failed: %s\n", what.c_str());
    std::exit(1);
}

uint32_t state = 1;
float random_number() {  // -1 to 1
    state = state * 1664525 + 1013904223;
    return (float)(state >> 8) / (1 << 23) - 1;
}
Floats random_numbers(size_t count, float size = 0.1f, float around = 0) {
    Floats numbers(count);
    for (float& x : numbers) x = around + size * random_number();
    return numbers;
}
std::vector<uint16_t> to_bf16(const Floats& numbers) {
    std::vector<uint16_t> halves(numbers.size());
    for (size_t i = 0; i < numbers.size(); i++) {
        uint32_t bits;
        memcpy(&bits, &numbers[i], 4);
        halves[i] = (uint16_t)(bits >> 16);
    }
    return halves;
}
Ints ends_of(const Ints& lengths) {
    Ints ends{0};
    for (int length : lengths) ends.push_back(ends.back() + length);
    return ends;
}

// ------------------------------------------------------------------------------------------------ encoders

constexpr int WORDS = 50, POSITIONS = 300, TYPES = 2;

struct Kind {
    const char* name;
    EncoderSpec spec;
    bool rope;
    int before, after;
};

EncoderSpec spec_of(int hidden, int heads, int kv_heads) {
    return {hidden, hidden, heads, kv_heads, 32, 96, 2, NORM_LAYER, ORDER_POST, ACTIVATION_GELU, 0, 0, 0, DTYPE_FLOAT32, DTYPE_FLOAT32, 1e-6f, 1};
}

std::vector<Kind> kinds() {
    Kind bert{"BERT", spec_of(64, 2, 2), false, INT_MAX, INT_MAX};
    Kind electra{"ELECTRA", spec_of(96, 3, 3), false, INT_MAX, INT_MAX};
    electra.spec.embedding = 64;
    electra.spec.table_dtype = DTYPE_BFLOAT16;
    Kind mpnet{"MPNet", spec_of(64, 2, 2), false, INT_MAX, INT_MAX};
    mpnet.spec.reach = 20;
    mpnet.spec.activation = ACTIVATION_RELU;
    Kind modernbert{"ModernBERT", spec_of(64, 2, 2), true, 8, 8};
    modernbert.spec.order = ORDER_PRE;
    modernbert.spec.gated = 1;
    Kind qwen{"Qwen3", spec_of(96, 4, 2), true, INT_MAX, 0};
    qwen.spec.head_dim = 64;
    qwen.spec.norm = NORM_RMS;
    qwen.spec.order = ORDER_PRE;
    qwen.spec.activation = ACTIVATION_SILU;
    qwen.spec.gated = qwen.spec.norm_qk = 1;
    Kind gemma{"Gemma 3", qwen.spec, true, 16, 0};
    gemma.spec.order = ORDER_SANDWICH;
    gemma.spec.activation = ACTIVATION_GELU_TANH;
    gemma.spec.embedding_scale = 8;
    return {bert, electra, mpnet, modernbert, qwen, gemma};
}

// Calls encoder_new and encoder_add_layer. The arrays of a layer live for one call, those of the tables as long as this.
class Model {
public:
    Model(const Kind& kind, int dtype) : kind_(kind), spec_(kind.spec) {
        spec_.dtype = dtype;
        const size_t columns = spec_.embedding;
        const Floats words = random_numbers(WORDS * columns), positions = random_numbers(POSITIONS * columns), types = random_numbers(TYPES * columns);
        EncoderTensors tensors{};
        tensors.words = keep(words);
        if (!kind.rope) tensors.positions = keep(positions);
        tensors.types = keep(types);
        const Floats norm = random_numbers(columns, 0.1f, 1), bias = random_numbers(columns), final_norm = random_numbers(spec_.hidden, 0.1f, 1);
        tensors.norm_weight = norm.data();
        tensors.norm_bias = bias.data();
        if (spec_.order != ORDER_POST) tensors.final_norm_weight = final_norm.data();
        const Floats projection = random_numbers(columns * spec_.hidden), projection_bias = random_numbers(spec_.hidden);
        if (spec_.embedding != spec_.hidden) {
            tensors.projection_weight = projection.data();
            tensors.projection_bias = projection_bias.data();
        }
        const Floats position_bias = random_numbers((size_t)spec_.heads * (2 * spec_.reach + 1));
        if (spec_.reach) tensors.position_bias = position_bias.data();
        expect(encoder_new(&spec_, &tensors, &encoder_) == OK, std::string("encoder_new of ") + kind.name);
        const Floats rope = random_numbers((size_t)POSITIONS * spec_.head_dim, 1);
        for (int layer = 0; layer < spec_.layers; layer++) add_layer(rope);
        expect(encoder_bytes(encoder_) > 0, "encoder_bytes");
    }
    ~Model() { encoder_free(encoder_); }
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    // `more` has what EncoderBatch may have beside the texts.
    Floats run(const Ints& token_ids, const Ints& lengths, EncoderBatch more = {}) const {
        const Ints ends = ends_of(lengths);
        Floats hidden(token_ids.size() * spec_.hidden, NAN);
        more.token_ids = token_ids.data();
        more.cu_seqlens = ends.data();
        more.texts = (int32_t)lengths.size();
        expect(encoder_run(encoder_, &more, hidden.data()) == OK, "encoder_run");
        for (float x : hidden) expect(std::isfinite(x), std::string("finite states of ") + kind_.name);
        return hidden;
    }

    int hidden() const { return spec_.hidden; }
    bool is_causal() const { return kind_.after == 0; }

private:
    const Kind kind_;
    EncoderSpec spec_;
    void* encoder_ = nullptr;
    std::vector<Floats> tables_;
    std::vector<std::vector<uint16_t>> half_tables_;

    const void* keep(const Floats& table) {
        if (spec_.table_dtype == DTYPE_FLOAT32) {
            tables_.push_back(table);
            return tables_.back().data();
        }
        half_tables_.push_back(to_bf16(table));
        return half_tables_.back().data();
    }

    void add_layer(const Floats& rope) {
        std::vector<Floats> arrays;
        arrays.reserve(32);
        auto make = [&](size_t count, float around = 0) {
            arrays.push_back(random_numbers(count, 0.1f, around));
            return arrays.back().data();
        };
        const size_t hidden = spec_.hidden, inner = spec_.intermediate, q = (size_t)spec_.heads * spec_.head_dim, kv = (size_t)spec_.kv_heads * spec_.head_dim;
        LayerTensors t{};
        t.q_weight = make(q * hidden);
        t.q_bias = make(q);
        t.k_weight = make(kv * hidden);
        t.v_weight = make(kv * hidden);
        t.v_bias = make(kv);
        t.output_weight = make(hidden * q);
        t.output_bias = make(hidden);
        t.up_weight = make(inner * hidden);
        t.up_bias = make(inner);
        if (spec_.gated) t.gate_weight = make(inner * hidden);
        t.down_weight = make(hidden * inner);
        t.attention_norm_weight = make(hidden, 1);
        t.ffn_norm_weight = make(hidden, 1);
        if (spec_.norm == NORM_LAYER) t.ffn_norm_bias = make(hidden);
        if (spec_.order == ORDER_SANDWICH) {
            t.after_attention_weight = make(hidden, 1);
            t.after_ffn_weight = make(hidden, 1);
        }
        if (spec_.norm_qk) {
            t.q_norm_weight = make(spec_.head_dim, 1);
            t.k_norm_weight = make(spec_.head_dim, 1);
        }
        if (kind_.rope) {
            t.rope = rope.data();
            t.rope_positions = POSITIONS;
        }
        t.scale = 1 / std::sqrt((float)spec_.head_dim);
        t.before = kind_.before;
        t.after = kind_.after;
        expect(encoder_add_layer(encoder_, &t) == OK, std::string("encoder_add_layer of ") + kind_.name);
    }
};

Ints random_tokens(int count) {
    Ints token_ids(count);
    for (int& id : token_ids) id = (int)((random_number() + 1) / 2 * (WORDS - 1));
    return token_ids;
}

bool same_bits(const float* a, const float* b, size_t count) { return memcmp(a, b, count * sizeof(float)) == 0; }

void check_batch(const Model& model, const Ints& lengths) {
    const Ints ends = ends_of(lengths), token_ids = random_tokens(ends.back());
    const Floats hidden = model.run(token_ids, lengths);
    for (size_t i = 0; i < lengths.size(); i++) {
        const Floats alone = model.run(Ints(token_ids.begin() + ends[i], token_ids.begin() + ends[i + 1]), {lengths[i]});
        expect(same_bits(&hidden[(size_t)ends[i] * model.hidden()], alone.data(), alone.size()), "the same bits alone and in a batch");
    }
}

void check_extras(const Model& model) {
    const Ints lengths{40, 3, 33, 5}, token_ids = random_tokens(81), seen{33, 1, 32, 5}, prefix{-1, 0, 0, -1};
    Ints types(81), positions(81);
    for (int i = 0; i < 81; i++) {
        types[i] = i % TYPES;
        positions[i] = POSITIONS - 81 + i;
    }
    EncoderBatch more{};
    more.types = types.data();
    more.positions = positions.data();
    more.seen = seen.data();
    model.run(token_ids, lengths, more);
    if (!model.is_causal()) return;
    more.seen = nullptr;
    more.prefix = prefix.data();
    model.run(token_ids, lengths, more);
}

void check_threads(const Model& model) {
    const Ints lengths{100, 7, 280, 64}, token_ids = random_tokens(451);
    const Floats expected = model.run(token_ids, lengths);
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; i++)
        threads.emplace_back([&] {
            const Floats hidden = model.run(token_ids, lengths);
            expect(same_bits(hidden.data(), expected.data(), hidden.size()), "the same bits on several threads");
        });
    for (auto& thread : threads) thread.join();
}

void check_encoders() {
    const Ints awkward{1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65};
    Ints all;
    for (int length = 1; length <= 65; length++) all.push_back(length);
    for (int dtype : {DTYPE_FLOAT32, DTYPE_BFLOAT16, DTYPE_INT8}) {
        if (!(kernels_dtypes() >> dtype & 1)) continue;
        for (const Kind& kind : kinds()) {
            const Model model(kind, dtype);
            check_batch(model, dtype == DTYPE_FLOAT32 ? all : awkward);
            check_extras(model);
            check_threads(model);
        }
    }
}

// ------------------------------------------------------------------------------------------------ linear layers, MaxSim

void check_linear(int outputs, int inputs) {
    const Floats weight = random_numbers((size_t)outputs * inputs), bias = random_numbers(outputs);
    void* linear;
    expect(linear_new(weight.data(), bias.data(), outputs, inputs, &linear) == OK, "linear_new");
    for (int rows : {1, 33, 65}) {
        const Floats x = random_numbers((size_t)rows * inputs);
        Floats y((size_t)rows * outputs, NAN);
        expect(linear_run(linear, x.data(), rows, y.data()) == OK, "linear_run");
        for (int row = 0; row < rows; row++)
            for (int output = 0; output < outputs; output++) {
                double sum = bias[output];
                for (int i = 0; i < inputs; i++) sum += (double)x[(size_t)row * inputs + i] * weight[(size_t)output * inputs + i];
                expect(std::abs(y[(size_t)row * outputs + output] - sum) < 1e-5, "linear layers");
            }
    }
    linear_free(linear);
}

void check_maxsim(int vectors, int dim) {
    const Ints ends = ends_of({1, 0, 2, 15, 16, 17, 31, 32, 33, 65, 1100, 3});
    const Floats query = random_numbers((size_t)vectors * dim), documents = random_numbers((size_t)ends.back() * dim);
    const std::vector<uint16_t> halves = to_bf16(documents);
    for (int dtype : {DTYPE_FLOAT32, DTYPE_BFLOAT16}) {
        const void* rows = dtype == DTYPE_FLOAT32 ? (const void*)documents.data() : halves.data();
        Floats scores(ends.size() - 1, NAN);
        expect(maxsim(query.data(), vectors, dim, rows, dtype, ends.data(), (int)scores.size(), scores.data()) == OK, "maxsim");
        for (size_t i = 0; i < scores.size(); i++) {
            double score = 0;
            for (int v = 0; v < vectors && ends[i] < ends[i + 1]; v++) {
                double most = -INFINITY;
                for (int row = ends[i]; row < ends[i + 1]; row++) {
                    double sum = 0;
                    for (int d = 0; d < dim; d++) sum += (double)query[(size_t)v * dim + d] * documents[(size_t)row * dim + d];
                    most = std::max(most, sum);
                }
                score += most;
            }
            expect(std::abs(scores[i] - score) < vectors * (dtype == DTYPE_FLOAT32 ? 1e-4 : 1e-2), "MaxSim");
        }
    }
}

}  // namespace

int main() {
    if (!kernels_supported()) {
        std::puts("not run: this machine lacks the library's instructions");
        return 0;
    }
    kernels_set_threads(3);
    check_encoders();
    for (int outputs : {1, 33, 520})
        for (int inputs : {1, 31, 64}) check_linear(outputs, inputs);
    for (int vectors : {1, 16, 33})
        for (int dim : {1, 31, 64}) check_maxsim(vectors, dim);
    std::puts("passed");
    return 0;
}
