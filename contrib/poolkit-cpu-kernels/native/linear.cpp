// Linear layers in float32 of any sizes: poolers and heads after the encoder.
#include <algorithm>

#include "product.h"
#include "status.h"

namespace kernels {
namespace {

constexpr int ROWS_A_TASK = 64, OUTPUTS_A_TASK = 512;

class LinearLayer {
public:
    LinearLayer(const float* weight, const float* bias, int outputs, int inputs) : outputs_(outputs), no_weight_(inputs) {
        Rows rows{inputs, {}};
        rows.add_all(weight, bias, outputs);
        while (rows.rows.size() % 32 != 0) rows.add(no_weight_.data(), nullptr, 0);
        arena_.reserve(packed_bytes<Float32>(rows.rows.size(), inputs));
        linear_ = pack<Float32>(arena_, rows);
    }

    void run(const float* x, int rows, float* y) const {
        const int columns = (linear_.outputs + OUTPUTS_A_TASK - 1) / OUTPUTS_A_TASK;
        parallel((rows + ROWS_A_TASK - 1) / ROWS_A_TASK * columns, [&](int i) {
            const int row = i / columns * ROWS_A_TASK;
            run_part(x + (size_t)row * linear_.inputs, std::min(ROWS_A_TASK, rows - row), i % columns * OUTPUTS_A_TASK, y + (size_t)row * outputs_);
        });
    }

private:
    const int outputs_;
    Buffer<float> no_weight_;  // of the outputs that fill the last block
    Arena arena_;
    Linear linear_;

    struct StoreRows {
        const float* bias;
        float* y;
        int outputs, first;  // column 0 of the product is output `first`

        INLINE void row(const int32_t* sums, int row, int column) const {
            column += first;
            float* to = y + (size_t)row * outputs + column;
            const int left = outputs - column;
            for (int i = 0; i < 32 && i < left; i += 16) {
                const vf value = load(reinterpret_cast<const float*>(sums) + i) + load(bias + column + i);
                if (left - i >= 16) {
                    store(to + i, value);
                } else {
                    float rest[16];
                    store(rest, value);
                    memcpy(to + i, rest, (left - i) * sizeof(float));
                }
            }
        }
    };

    // Outputs from `first` on, of some rows; y: the first of these rows, whole.
    void run_part(const float* x, int rows, int first, float* y) const {
        const Linear part{std::min(OUTPUTS_A_TASK, linear_.outputs - first), linear_.inputs,
                          linear_.weights + packed_bytes<Float32>(first, linear_.inputs), linear_.bias, nullptr, nullptr};
        const size_t pitch = round_up(rows, 32);
        Buffer<float> in_panels(pitch * steps_of<Float32>(linear_.inputs) * Float32::WIDTH);
        Buffer<int32_t> sums(pitch * 32);
        const Panels<float> panels{in_panels.data(), (long)pitch};
        for (int row = 0; row < rows; row++)
            for (int i = 0; i < linear_.inputs; i += Float32::WIDTH)
                memcpy(panels(row, i), x + (size_t)row * linear_.inputs + i, std::min(Float32::WIDTH, linear_.inputs - i) * sizeof(float));
        product<Float32>(panels, rows, part, sums.data(), StoreRows{linear_.bias, y, outputs_, first});
    }
};

}  // namespace
}  // namespace kernels

using kernels::LinearLayer;

int linear_new(const float* weight, const float* bias, int outputs, int inputs, void** linear) {
    return kernels::status_of([&] {
        *linear = new LinearLayer(weight, bias, outputs, inputs);
        return OK;
    });
}

int linear_run(void* linear, const float* x, int rows, float* y) {
    return kernels::status_of([&] {
        static_cast<const LinearLayer*>(linear)->run(x, rows, y);
        return OK;
    });
}

void linear_free(void* linear) { delete static_cast<LinearLayer*>(linear); }
