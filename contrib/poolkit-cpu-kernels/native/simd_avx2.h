// Vectors of 16 floats on AVX2, as two halves.
#pragma once
#include "simd_halves.h"

namespace kernels {

struct vf {
    __m256 low, high;
};

INLINE vf operator+(vf a, vf b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
INLINE vf operator-(vf a, vf b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
INLINE vf operator*(vf a, vf b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
INLINE vf operator/(vf a, vf b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }

INLINE vf set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vf load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE __m256 load_8(const bf16* p) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
INLINE vf load(const bf16* p) { return {load_8(p), load_8(p + 8)}; }
INLINE void store(float* p, vf v) {
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}

INLINE vf fma(vf a, vf b, vf c) { return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)}; }
INLINE vf fms(vf a, vf b, vf c) { return {_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)}; }
INLINE vf max(vf a, vf b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
INLINE vf min(vf a, vf b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
INLINE vf abs(vf a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}

INLINE float total(vf v) { return total(_mm256_add_ps(v.low, v.high)); }
INLINE float largest(vf v) { return largest(_mm256_max_ps(v.low, v.high)); }

INLINE __m256 round_8(__m256 v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf round(vf v) { return {round_8(v.low), round_8(v.high)}; }

INLINE vf within_normal_exponents(vf t) { return max(min(t, set(127)), set(-126)); }
// `exponent` is whole, and the result is a normal number: 2^exponent is added to the exponent's bits.
INLINE __m256 times_power_of_two(__m256 v, __m256 exponent) {
    const __m256i shifted = _mm256_slli_epi32(_mm256_cvtps_epi32(exponent), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), shifted));
}
INLINE vf times_power_of_two(vf v, vf exponent) {
    return {times_power_of_two(v.low, exponent.low), times_power_of_two(v.high, exponent.high)};
}

// All bits of each element whose bit in `mask` is set.
INLINE __m256 wide_mask(unsigned mask) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)mask), bits), bits));
}
INLINE vf zero_unless(Mask mask, vf v) {
    return {_mm256_and_ps(wide_mask(mask), v.low), _mm256_and_ps(wide_mask(mask >> 8), v.high)};
}
INLINE vf max_where(Mask mask, vf a, vf b) {  // else a
    const vf most = max(a, b);
    return {_mm256_blendv_ps(a.low, most.low, wide_mask(mask)), _mm256_blendv_ps(a.high, most.high, wide_mask(mask >> 8))};
}

INLINE void transpose_8(__m256* r) {
    __m256 t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

// 16 rows of 16 4-byte elements: rows become columns.
INLINE void transpose(vf* rows) {
    __m256 quarters[4][8];  // upper left, upper right, lower left, lower right
    for (int i = 0; i < 8; i++) {
        quarters[0][i] = rows[i].low;
        quarters[1][i] = rows[i].high;
        quarters[2][i] = rows[i + 8].low;
        quarters[3][i] = rows[i + 8].high;
    }
    for (auto& quarter : quarters) transpose_8(quarter);
    for (int i = 0; i < 8; i++) {
        rows[i] = {quarters[0][i], quarters[2][i]};
        rows[i + 8] = {quarters[1][i], quarters[3][i]};
    }
}

}  // namespace kernels
