// The C calls of encoders, and of the library.
#include "encoder.h"
#include "status.h"
#include "threads.h"

namespace kernels {
namespace {

bool has_code_for(const EncoderSpec& s, const EncoderTensors& t) {
    const auto is_whole = [](int n) { return n > 0 && n % 32 == 0; };
    if (!is_whole(s.hidden) || !is_whole(s.embedding) || !is_whole(s.head_dim) || !is_whole(s.intermediate)) return false;
    if (s.heads < 1 || s.kv_heads < 1 || s.heads % s.kv_heads != 0 || s.layers < 1) return false;
    if (s.embedding != s.hidden && !t.projection_weight) return false;
    return !(s.norm_qk && s.reach);  // a bias is added to scores before a head's factors
}

Encoder* make_encoder(const EncoderSpec& spec, const EncoderTensors& tensors) {
    switch (spec.dtype) {
        case DTYPE_FLOAT32:
            return new EncoderOf<Float32>(spec, tensors);
#if HAS_BF16_AND_INT8
        case DTYPE_BFLOAT16:
            return new EncoderOf<Bf16>(spec, tensors);
        case DTYPE_INT8:
            return new EncoderOf<Int8>(spec, tensors);
#endif
        default:
            return nullptr;
    }
}

}  // namespace
}  // namespace kernels

using kernels::Encoder;

int kernels_dtypes(void) {
#if HAS_BF16_AND_INT8
    return 1 << DTYPE_FLOAT32 | 1 << DTYPE_BFLOAT16 | 1 << DTYPE_INT8;
#else
    return 1 << DTYPE_FLOAT32;
#endif
}

void kernels_set_threads(int threads) { kernels::set_threads(threads); }

int encoder_new(const EncoderSpec* spec, const EncoderTensors* tensors, void** encoder) {
    return kernels::status_of([&]() -> int {
        if (!kernels::has_code_for(*spec, *tensors)) return UNSUPPORTED;
        *encoder = kernels::make_encoder(*spec, *tensors);
        return *encoder ? OK : UNSUPPORTED;
    });
}

int encoder_add_layer(void* encoder, const LayerTensors* tensors) {
    return kernels::status_of([&] { return static_cast<Encoder*>(encoder)->add_layer(*tensors); });
}

int64_t encoder_bytes(void* encoder) { return (int64_t)static_cast<Encoder*>(encoder)->bytes(); }

int encoder_run(void* encoder, const EncoderBatch* batch, float* hidden) {
    auto* held = static_cast<Encoder*>(encoder);
    held->hold();
    const int status = kernels::status_of([&] { return held->run(*batch, hidden); });
    held->release();
    return status;
}

void encoder_free(void* encoder) { static_cast<Encoder*>(encoder)->release(); }
