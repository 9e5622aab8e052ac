// Keys and values as the right sides of attention's products.
#pragma once
#include "memory.h"
#include "multiply.h"

namespace kernels {

// Keys and values of one head.
template <class S>
struct KeyRows {
    Panels<typename S::Element> keys, values;
    const float* factors = nullptr;  // of keys, or null
    int count = 0;
};

// Keys and values of one head as the right sides of products: key blocks `first` to `last - 1`.
template <class S>
class PackedKeys {
    using E = typename S::Element;
    static constexpr size_t BLOCK = 32 * 32 * sizeof(E);  // bytes of 32 keys by 32 dims

public:
    PackedKeys(int head_dim, int first, int last, Buffer<char>& keys, Buffer<char>& values)
        : head_dim_(head_dim), first_(first), last_(last), keys_(keys), values_(values) {
        const size_t bytes = (size_t)(last - first) * head_dim / 32 * BLOCK;
        keys_.reserve(bytes);
        values_.reserve(bytes);
    }

    const char* keys(int block) const { return keys_.data() + (size_t)(block - first_) * (head_dim_ / 32) * BLOCK; }
    // 32 dims of values, from dim 32 `part` on.
    const char* values(int part, int block) const {
        return values_.data() + ((size_t)part * (last_ - first_) + block - first_) * BLOCK;
    }

    void pack(const KeyRows<S>& prefix, const KeyRows<S>& own) {
        for (int block = first_; block < last_; block++) {
            pack_keys(prefix, own, block);
            pack_values(prefix, own, block);
        }
    }

private:
    int head_dim_, first_, last_;
    Buffer<char>& keys_;
    Buffer<char>& values_;

    static INLINE vf raw(const E* line) { return load(reinterpret_cast<const float*>(line)); }

    static INLINE vf key_line(const KeyRows<S>& rows, int key, int dim) {
        const E* line = rows.keys(key, dim);
        if (!rows.factors) return raw(line);
        alignas(64) E scaled[S::WIDTH];
        for (int i = 0; i < S::WIDTH; i += 16) store(scaled + i, load(line + i) * set(rows.factors[key]));
        return raw(scaled);
    }

    // (head_dim / WIDTH steps, 2 tiles of 16 keys, 16 rows of 4 bytes of each key)
    void pack_keys(const KeyRows<S>& prefix, const KeyRows<S>& own, int block) {
        char* to = const_cast<char*>(keys(block));
        for (int dim = 0; dim < head_dim_; dim += S::WIDTH)
            for (int tile = 0; tile < 2; tile++, to += 1024) {
                vf rows[16];
                for (int i = 0; i < 16; i++) {
                    const int key = block * 32 + tile * 16 + i, own_key = key - prefix.count;
                    rows[i] = own_key < 0           ? key_line(prefix, key, dim)
                              : own_key < own.count ? key_line(own, own_key, dim)
                                                    : set(0);
                }
                transpose(rows);
                for (int i = 0; i < 16; i++) store(reinterpret_cast<float*>(to + i * 64), rows[i]);
            }
    }

    static INLINE vf value_line(const KeyRows<S>& prefix, const KeyRows<S>& own, int key, int dim) {
        const int own_key = key - prefix.count;
        return own_key < 0 ? raw(prefix.values(key, dim)) : own_key < own.count ? raw(own.values(own_key, dim)) : set(0);
    }

    // (head_dim / 32, 32 / WIDTH steps of keys, 2 tiles of 16 dims, 16 rows of 4 bytes of each dim)
    void pack_values(const KeyRows<S>& prefix, const KeyRows<S>& own, int block) {
        constexpr int GROUP = 4 / sizeof(E);  // keys in a row of a tile
        for (int part = 0; part < head_dim_ / 32; part++) {
            char* to = const_cast<char*>(values(part, block));
            for (int i = 0; i < 32; i += GROUP) {
                const int key = block * 32 + i, dim = part * 32;
                float* line = reinterpret_cast<float*>(to + i / S::WIDTH * 2048 + i % S::WIDTH / GROUP * 64);
                vf first = value_line(prefix, own, key, dim), last;
                if constexpr (GROUP == 1)
                    last = value_line(prefix, own, key, dim + 16);
                else
                    interleave(first, value_line(prefix, own, key + 1, dim), first, last);
                store(line, first);
                store(line + 256, last);
            }
        }
    }
};

}  // namespace kernels
