// Vectors of 16 floats on AVX-512.
#pragma once
#include "simd_halves.h"

namespace kernels {

typedef __m512 vf;

INLINE vf set(float x) { return _mm512_set1_ps(x); }
INLINE vf load(const float* p) { return _mm512_loadu_ps(p); }
INLINE vf load(const bf16* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
INLINE void store(float* p, vf v) { _mm512_storeu_ps(p, v); }

// 16 floats to bf16, to the nearest and ties to even.
INLINE __m256i to_bf16(vf v) {
#ifdef __AVX512BF16__
    return (__m256i)_mm512_cvtneps_pbh(v);
#else
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
#endif
}
INLINE void store(bf16* p, vf v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(v)); }

INLINE vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }
INLINE vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf abs(vf a) { return _mm512_abs_ps(a); }
INLINE vf reciprocal_estimate(vf a) { return _mm512_rcp14_ps(a); }  // relative error 2^-14
template <int i>
INLINE __m256 half(vf v) {
    return _mm512_maskz_extractf32x8_ps(0xff, v, i);
}
INLINE float total(vf v) { return total(_mm256_add_ps(half<0>(v), half<1>(v))); }
INLINE float largest(vf v) { return largest(_mm256_max_ps(half<0>(v), half<1>(v))); }

INLINE vf round(vf v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf within_normal_exponents(vf t) { return t; }  // the next function needs no limits
INLINE vf times_power_of_two(vf v, vf exponent) { return _mm512_scalef_ps(v, exponent); }

INLINE vf zero_unless(Mask mask, vf v) { return _mm512_maskz_mov_ps(mask, v); }
INLINE vf max_where(Mask mask, vf a, vf b) { return _mm512_mask_max_ps(a, mask, a, b); }  // else a

// 16 rows of 16 4-byte elements: rows become columns. They are only moved, so they may hold anything.
INLINE void transpose(vf* rows) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_castps_si512(rows[i]);
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        t[8 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xdd);
    }
    for (int i = 0; i < 16; i++) rows[i] = _mm512_castsi512_ps(r[i]);
}

// The elements of two rows of 32, alternately: those of the first 16 columns to `first`, of the last 16 to `last`.
INLINE void interleave(vf a, vf b, vf& first, vf& last) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    const __m512i x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
    first = _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, low, y));
    last = _mm512_castsi512_ps(_mm512_permutex2var_epi16(x, high, y));
}

INLINE vf from_int(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
INLINE vf from_int(const int32_t* p, const int32_t* less) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_loadu_si512(p), _mm512_loadu_si512(less)));
}
INLINE __m128i to_int8(vf v) { return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)); }

}  // namespace kernels
