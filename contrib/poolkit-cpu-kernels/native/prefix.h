// Texts that others continue.
#pragma once
#include <cstring>

#include "packed_keys.h"
#include "poolkit_cpu_kernels.h"

namespace kernels {

// Keys and values of a text that others continue, for all layers.
template <class S>
class Prefix {
    using E = typename S::Element;

public:
    Prefix(const EncoderSpec& spec, int count)
        : count_(count),
          kv_heads_(spec.kv_heads),
          head_dim_(spec.head_dim),
          keys_values_((size_t)spec.layers * spec.kv_heads * 2 * spec.head_dim * count),
          factors_(spec.norm_qk ? (size_t)spec.layers * spec.kv_heads * count : 0) {}

    int count() const { return count_; }

    KeyRows<S> rows(int layer, int head) const {
        const size_t index = (size_t)layer * kv_heads_ + head, columns = (size_t)head_dim_ * count_;
        E* keys = keys_values_.data() + index * 2 * columns;
        const float* factors = factors_.data() ? factors_.data() + index * count_ : nullptr;
        return {{keys, count_}, {keys + columns, count_}, factors, count_};
    }

    void save(int layer, int head, const KeyRows<S>& from) {
        const KeyRows<S> to = rows(layer, head);
        for (int column = 0; column < head_dim_; column += S::WIDTH) {
            memcpy(to.keys(0, column), from.keys(0, column), (size_t)count_ * CACHE_LINE);
            memcpy(to.values(0, column), from.values(0, column), (size_t)count_ * CACHE_LINE);
        }
        if (to.factors) memcpy(const_cast<float*>(to.factors), from.factors, count_ * sizeof(float));
    }

private:
    int count_, kv_heads_, head_dim_;
    Buffer<E> keys_values_;  // (layers, kv_heads, keys and values) in panels
    Buffer<float> factors_;  // (layers, kv_heads, count)
};

}  // namespace kernels
