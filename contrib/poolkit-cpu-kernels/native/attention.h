// Attention of one head: 32 queries at a time against all keys that they see.
#pragma once
#include <algorithm>
#include <vector>

#include "packed_keys.h"
#include "softmax.h"

namespace kernels {

// Most keys that a block of queries takes at once. More are taken in pieces, with a running softmax.
constexpr int KEYS = 2048;

// Which keys the queries of a text see. Keys count from the first of the prefix, or where there is none of the text.
struct View {
    int queries, keys;  // keys: those of the prefix and the text's own
    int prefix;         // keys before the first query's own
    int limit;          // keys from here on are seen by none
    int before, after;  // how far a query sees

    int begin(int query) const { return std::max(0, prefix + query - before); }
    int end(int query) const { return std::min(limit, prefix + query + after + 1); }
    int key_blocks() const { return (keys + 31) / 32; }
    int query_blocks() const { return (queries + 31) / 32; }
};

// Queries from 32 `block` on against key blocks `first` to `last - 1`; with `opens` the first of these queries' pieces, with
// `closes` the last.
struct Piece {
    int block, first, last;
    bool opens, closes;
};

// Pieces of some blocks of queries. What a query's piece holds depends on its text and its place there, and on no neighbour.
inline std::vector<Piece> plan(const View& view, int first_block, int last_block) {
    const int blocks = view.key_blocks(), widest = (int)std::min<long>(view.keys, (long)view.before + view.after + 64);
    const int step = widest <= KEYS ? blocks : KEYS / 32;
    std::vector<Piece> pieces;
    for (int from = 0; from < blocks; from += step)
        for (int block = first_block; block < last_block; block++) {
            // A block that sees nothing has a piece all the same: its outputs are zeros.
            const int begin = std::min(view.begin(32 * block) / 32, blocks - 1);
            const int end = std::max(begin + 1, (view.end(std::min(32 * block + 31, view.queries - 1)) + 31) / 32);
            const int first = std::max(from, begin), last = std::min(from + step, end);
            if (first < last) pieces.push_back({block, first, last, first == begin, last == end});
        }
    return pieces;
}

// What one thread needs for attention.
struct AttentionScratch {
    Buffer<char> keys, values;  // of one head, as tiles
    Buffer<float> scores, sums, top, total, bias;
};

// Biases of one head by distance, in units of log 2 (MPNet): (2 reach + 1), by key minus query plus reach.
struct PositionBias {
    const float* by_distance = nullptr;
    int reach = 0;
};

// One head of some blocks of queries against packed keys. The outputs take the queries' place.
template <class S>
class HeadAttention {
    using E = typename S::Element;
    static constexpr bool OVERLAPS = on_tiles<S>;  // scores of the next piece are made while vectors take the softmax

public:
    // factors: of queries, or null. Queries come multiplied by the scale and by log2 e.
    HeadAttention(Panels<E> queries, const float* factors, const View& view, int head_dim, PositionBias bias,
                  const std::vector<Piece>& pieces, const PackedKeys<S>& packed, AttentionScratch& scratch)
        : queries_(queries),
          factors_(factors),
          view_(view),
          head_dim_(head_dim),
          pieces_(pieces),
          packed_(packed),
          scratch_(scratch) {
        scratch.scores.reserve((OVERLAPS ? 2 : 1) * SCORES);
        first_row_ = pieces.front().block * 32;
        const int rows = (pieces.back().block + 1) * 32 - first_row_;
        if (std::any_of(pieces.begin(), pieces.end(), [](const Piece& p) { return !is_whole(p); })) {
            scratch.sums.reserve((size_t)rows * head_dim);
            scratch.top.reserve(rows);
            scratch.total.reserve(rows);
        }
        if (bias.by_distance) spread(bias, rows);
    }

    void run() {
        Tiles tiles;
        if (OVERLAPS) make_scores(0, 0, width(0));
        for (int n = 0; n < (int)pieces_.size(); n++) {
            if (!OVERLAPS) make_scores(n, 0, width(n));
            take_softmax(n);
            for (int part = 0; part < head_dim_ / 32; part++) take_values(n, part);
        }
    }

private:
    static constexpr size_t SCORES = 32 * (KEYS + 16);

    const Panels<E> queries_;
    const float* const factors_;
    const View& view_;
    const int head_dim_;
    const std::vector<Piece>& pieces_;
    const PackedKeys<S>& packed_;
    AttentionScratch& scratch_;
    int first_row_;                 // of the pieces; scratch counts from it
    const float* bias_ = nullptr;   // of the first row's key 0; of any row: one less for each row
    float fade_[32], inverse_[32];  // of the piece's rows: what earlier sums are multiplied by, what all sums are at the end

    static bool is_whole(const Piece& piece) { return piece.opens && piece.closes; }
    int rows(const Piece& piece) const { return std::min(32, view_.queries - piece.block * 32); }
    int width(int n) const { return n < (int)pieces_.size() ? pieces_[n].last - pieces_[n].first : 0; }  // in key blocks
    float* scores(int n) const { return scratch_.scores.data() + (OVERLAPS ? n & 1 : 0) * SCORES; }
    // Rows of many scores must not share sets of the cache.
    long score_stride(int n) const { return width(n) * 32 + (width(n) >= 16 ? 16 : 0); }

    // All distances from a query of the pieces to a key that it may see, in one line.
    void spread(PositionBias bias, int rows) {
        const int first = view_.prefix + first_row_, keys = view_.key_blocks() * 32;
        scratch_.bias.reserve(keys + rows);
        float* line = scratch_.bias.data();
        bias_ = line + rows;
        for (int i = 0; i < keys + rows; i++) {
            const int distance = i - rows - first;  // of key i - rows to the first query
            line[i] = bias.by_distance[std::clamp(distance, -bias.reach, bias.reach) + bias.reach];
        }
    }

    // Scores of piece `n` against its key blocks `from` to `to - 1`, counted from its first.
    void make_scores(int n, int from, int to) {
        const Piece& piece = pieces_[n];
        for (int j = from; j < to; j++)
            multiply<S>(queries_(piece.block * 32, 0), 64, queries_.pitch * 64, packed_.keys(piece.first + j),
                        head_dim_ / S::WIDTH, scores(n) + j * 32, score_stride(n), rows(piece), false, [](int) {});
    }

    void take_softmax(int n) {
        const Piece& piece = pieces_[n];
        const int count = rows(piece), next = OVERLAPS ? width(n + 1) : 0;
        for (int r = 0; r < count; r++) {
            if (OVERLAPS) make_scores(n + 1, r * next / count, (r + 1) * next / count);
            take_softmax_of_row(n, r);
        }
    }

    void take_softmax_of_row(int n, int r) {
        const Piece& piece = pieces_[n];
        const int query = piece.block * 32 + r, row = query - first_row_, zero = piece.first * 32, keys = width(n) * 32;
        const int begin = std::max(0, view_.begin(query) - zero), end = std::min(keys, view_.end(query) - zero);
        float* s = scores(n) + r * score_stride(n);
        if (bias_)
            for (int j = 0; j < keys; j += 16) store(s + j, load(s + j) + load(bias_ - row + zero + j));
        const float factor = factors_ ? factors_[query] : 1, was = piece.opens ? -1e30f : scratch_.top[row];
        float top = was;
        float sum =
            begin > 0 ? softmax<S, true>(s, keys, begin, end, factor, top) : softmax<S, false>(s, keys, 0, end, factor, top);
        if (!is_whole(piece)) {
            fade_[r] = piece.opens ? 0 : __builtin_exp2f(was - top);
            if (!piece.opens) sum += scratch_.total[row] * fade_[r];
            scratch_.top[row] = top;
            scratch_.total[row] = sum;
        }
        inverse_[r] = sum > 0 ? 1 / sum : 0;
    }

    // Weights by 32 dims of values.
    void take_values(int n, int part) {
        const Piece& piece = pieces_[n];
        alignas(64) float sums[32 * 32];
        multiply<S>(scores(n), score_stride(n) * 4, 64, packed_.values(part, piece.first), width(n) * 32 / S::WIDTH, sums,
                    32, rows(piece), false, [](int) {});
        for (int r = 0; r < rows(piece); r++) {
            vf low = load(sums + r * 32), high = load(sums + r * 32 + 16);
            if (!is_whole(piece) && !add_to_earlier(piece, r, part, low, high)) continue;
            store(queries_, piece.block * 32 + r, part * 32, low * set(inverse_[r]), high * set(inverse_[r]));
        }
    }

    // Whether the sums are complete.
    INLINE bool add_to_earlier(const Piece& piece, int r, int part, vf& low, vf& high) {
        float* earlier = scratch_.sums.data() + (size_t)(piece.block * 32 + r - first_row_) * head_dim_ + part * 32;
        if (!piece.opens) {
            low = fma(load(earlier), set(fade_[r]), low);
            high = fma(load(earlier + 16), set(fade_[r]), high);
        }
        if (!piece.closes) store(earlier, low, high);
        return piece.closes;
    }
};

}  // namespace kernels
