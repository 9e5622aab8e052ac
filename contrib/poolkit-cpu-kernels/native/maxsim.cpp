// MaxSim (late interaction): for each document the sum, over a query's vectors, of the largest product with any of the
// document's vectors. Documents are read where they lie, end to end, 32 rows at a time. A block may hold the end of one
// document and the start of the next, so that nothing is padded; a row's products do not depend on its place in a block.
#include <algorithm>
#include <limits>

#include "status.h"
#include "weights.h"

namespace kernels {
namespace {

constexpr int ROWS_A_TASK = 1024;

// How documents are multiplied. With tiles, floats are split into two bf16 numbers, x = high + low but for 2^-17 of it, and
// three of the four products are taken. Without bf16 products, bf16 documents are widened.
template <class Stored>
struct Multiplied {
    using Type = Float32;
    static constexpr bool is_split = false;
};
#if HAS_BF16_AND_INT8
template <>
struct Multiplied<bf16> {
    using Type = Bf16;
    static constexpr bool is_split = false;
};
#endif
#if HAS_TILES
template <>
struct Multiplied<float> {
    using Type = Bf16;
    static constexpr bool is_split = true;
};
#endif

float widened(bf16 x) {
    const uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

// A query's vectors, 32 to a block, in the order in which products read them.
template <class T>
class PackedQuery {
public:
    const int vectors, dim;

    PackedQuery(const float* query, int vectors, int dim, bool is_split) : vectors(vectors), dim(dim) {
        const Buffer<float> zeros(dim);
        arena_.reserve(packed_bytes<T>(round_up(vectors, 32), dim) * (is_split ? 2 : 1));
        high_ = pack_part(query, zeros.data());
        if (!is_split) return;
        Buffer<float> low((size_t)vectors * dim);
        for (size_t i = 0; i < low.size(); i++) low[i] = query[i] - widened(rounded_to_bf16(query[i]));
        low_ = pack_part(low.data(), zeros.data());
    }

    int blocks() const { return (vectors + 31) / 32; }
    int steps() const { return steps_of<T>(dim); }
    const char* high(int block) const { return high_ + packed_bytes<T>(32, dim) * block; }
    const char* low(int block) const { return low_ + packed_bytes<T>(32, dim) * block; }

private:
    Arena arena_;
    const char *high_ = nullptr, *low_ = nullptr;

    const char* pack_part(const float* part, const float* zeros) {
        Rows rows{dim, {}};
        rows.add_all(part, nullptr, vectors);
        while (rows.rows.size() % 32 != 0) rows.add(zeros, nullptr, 0);
        return pack<T>(arena_, rows).weights;
    }
};

template <class Stored>
struct Documents {
    const Stored* rows;
    const int32_t* cu_seqlens;
};

// Products of 32 rows of documents with 32 vectors of a query.
template <class Stored>
class Block {
    using M = Multiplied<Stored>;
    using T = typename M::Type;
    using E = typename T::Element;

public:
    alignas(64) float sums[32 * 32];

    explicit Block(const PackedQuery<T>& query)
        : query_(query), columns_(query.steps() * T::WIDTH), high_((size_t)32 * columns_), low_(M::is_split ? (size_t)32 * columns_ : 0) {}

    void multiply_rows(const Stored* rows, int count, int block) {
        const char* a = reinterpret_cast<const char*>(high_.data());
        const char* ahead = reinterpret_cast<const char*>(rows + (size_t)32 * query_.dim);
        const int lines_a_step = 32 * (int)sizeof(Stored) * query_.dim / 64 / std::max(1, query_.steps());
        const auto fetch_next_rows = [&](int) {  // documents mostly come from memory, and the CPU does not guess these reads
            for (int i = 0; i < lines_a_step; i++, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T0);
        };
        if (can_be_read_in_place(count)) a = reinterpret_cast<const char*>(rows);
        else copy(rows, count);
        add(a, query_.high(block), count, false, fetch_next_rows);
        if (!M::is_split) return;
        const auto nothing = [](int) {};
        add(a, query_.low(block), count, true, nothing);
        add(reinterpret_cast<const char*>(low_.data()), query_.high(block), count, true, nothing);
    }

private:
    const PackedQuery<T>& query_;
    const int columns_;  // of the copies: whole steps
    Buffer<E> high_, low_;

    bool can_be_read_in_place(int count) const {
        if (!std::is_same_v<Stored, E> || query_.dim != columns_) return false;
        return !on_tiles<T> || count % 16 == 0;  // a tile must not reach past the last row
    }

    void copy(const Stored* rows, int count) {
        const int dim = query_.dim, whole = dim / 16 * 16;
        for (int row = 0; row < count; row++) {
            const Stored* from = rows + (size_t)row * dim;
            const size_t to = (size_t)row * columns_;
            for (int i = 0; i < whole; i += 16) copy_16(load(from + i), to + i);
            if (whole == dim) continue;
            Stored rest[16] = {};
            memcpy(rest, from + whole, (dim - whole) * sizeof(Stored));
            copy_16(load(rest), to + whole);
        }
    }
    void copy_16(vf x, size_t to) {
        store(&high_[to], x);
        if constexpr (M::is_split) store(&low_[to], x - load(&high_[to]));
    }

    template <class Meanwhile>
    void add(const char* a, const char* b, int count, bool more, const Meanwhile& meanwhile) {
        multiply<T>(a, columns_ * (long)sizeof(E), 64, b, query_.steps(), sums, 32, count, more, meanwhile);
    }
};

// Adds to the scores of documents first to last - 1 what 32 of the query's vectors give.
template <class Stored, class T>
void add_scores(const PackedQuery<T>& query, int query_block, const Documents<Stored>& documents, int first, int last, Block<Stored>& block, float* scores) {
    const int32_t* cu_seqlens = documents.cu_seqlens;
    const int vectors = query.vectors - query_block * 32;
    const auto mask_of = [](int count) { return (Mask)(count >= 16 ? 0xffff : (1 << std::max(count, 0)) - 1); };
    const Mask low_mask = mask_of(vectors), high_mask = mask_of(vectors - 16);
    int start = cu_seqlens[first], end = start;  // rows of the block
    for (int document = first; document < last; document++) {
        const int stop = cu_seqlens[document + 1];
        if (stop == cu_seqlens[document]) continue;
        vf low = set(-std::numeric_limits<float>::infinity()), high = low;
        vf not_finite = set(0);  // NaN where a product is not finite: comparing alone would lose it
        for (int row = cu_seqlens[document]; row < stop;) {
            if (row == end) {
                start = row;
                end = std::min(start + 32, cu_seqlens[last]);
                block.multiply_rows(documents.rows + (size_t)start * query.dim, end - start, query_block);
            }
            for (const int here = std::min(stop, end); row < here; row++) {
                const float* sums = block.sums + (row - start) * 32;
                const vf a = load(sums), b = load(sums + 16);
                low = max(low, a);
                high = max(high, b);
                not_finite = fma(a, set(0), fma(b, set(0), not_finite));
            }
        }
        scores[document] += total(zero_unless(low_mask, low) + zero_unless(high_mask, high)) + total(not_finite);
    }
}

// Documents of about ROWS_A_TASK rows together: where each task's start, and the end.
std::vector<int> tasks_of(const int32_t* cu_seqlens, int count) {
    std::vector<int> starts{0};
    for (int document = 1; document < count; document++)
        if (cu_seqlens[document] - cu_seqlens[starts.back()] >= ROWS_A_TASK) starts.push_back(document);
    starts.push_back(count);
    return starts;
}

template <class Stored>
void score(const float* query, int vectors, int dim, const Documents<Stored>& documents, int count, float* scores) {
    using M = Multiplied<Stored>;
    std::fill(scores, scores + count, 0.0f);
    if (vectors == 0 || count == 0) return;
    const PackedQuery<typename M::Type> packed(query, vectors, dim, M::is_split);
    const std::vector<int> tasks = tasks_of(documents.cu_seqlens, count);
    parallel((int)tasks.size() - 1, [&](int i) {
        Tiles tiles;
        Block<Stored> block(packed);
        for (int query_block = 0; query_block < packed.blocks(); query_block++)
            add_scores(packed, query_block, documents, tasks[i], tasks[i + 1], block, scores);
    });
}

}  // namespace
}  // namespace kernels

int maxsim(const float* query, int vectors, int dim, const void* documents, int dtype, const int32_t* cu_seqlens, int count, float* scores) {
    using kernels::bf16;
    return kernels::status_of([&]() -> int {
        if (dtype == DTYPE_FLOAT32) kernels::score<float>(query, vectors, dim, {static_cast<const float*>(documents), cu_seqlens}, count, scores);
        else if (dtype == DTYPE_BFLOAT16) kernels::score<bf16>(query, vectors, dim, {static_cast<const bf16*>(documents), cu_seqlens}, count, scores);
        else return UNSUPPORTED;
        return OK;
    });
}
