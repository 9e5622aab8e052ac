// Products on vectors: FMA for floats, vdpbf16ps for pairs of bf16, vpdpbusd for groups of four int8.
#pragma once
#include <algorithm>
#include <array>
#include <utility>

#include "elements.h"

namespace kernels {

#ifdef __AVX512F__

// What 16 sums are held in, and how they take 4 bytes of inputs, of which A's are alike in all 16 places.
template <class T>
struct VectorSums;
template <>
struct VectorSums<Float32> {
    using V = __m512;
    static INLINE V zero() { return _mm512_setzero_ps(); }
    static INLINE V load(const char* p) { return _mm512_loadu_ps(p); }
    static INLINE void store(char* p, V v) { _mm512_storeu_ps(p, v); }
    static INLINE V broadcast(const char* p) { return _mm512_set1_ps(*reinterpret_cast<const float*>(p)); }
    static INLINE V add_product(V sum, V a, V b) { return _mm512_fmadd_ps(a, b, sum); }
};
#ifdef __AVX512BF16__
template <>
struct VectorSums<Bf16> : VectorSums<Float32> {
    static INLINE V add_product(V sum, V a, V b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};
#endif
#ifdef __AVX512VNNI__
template <>
struct VectorSums<Int8> {
    using V = __m512i;
    static INLINE V zero() { return _mm512_setzero_si512(); }
    static INLINE V load(const char* p) { return _mm512_loadu_si512(p); }
    static INLINE void store(char* p, V v) { _mm512_storeu_si512(p, v); }
    static INLINE V broadcast(const char* p) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }
    static INLINE V add_product(V sum, V a, V b) {
        asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));  // for the intrinsic gcc 12 copies sums to memory
        return sum;
    }
};
#endif

constexpr int ROWS_AT_ONCE = 14;  // 28 sums, 2 of B and one of A in 32 registers

// R rows. LDA: bytes between A's rows, 0 if only `lda` says.
template <class T, int R, int LDA>
__attribute__((noinline)) void multiply_rows(const char* a, long lda, long next, const char* b, int steps, char* c, long ldc,
                                             bool more) {
    using S = VectorSums<T>;
    typename S::V sums[R][2];
    if (LDA) lda = LDA;
    for (int r = 0; r < R; r++) {
        sums[r][0] = more ? S::load(c + r * ldc) : S::zero();
        sums[r][1] = more ? S::load(c + r * ldc + 64) : S::zero();
    }
    for (int i = 0; i < steps; i++, a += next, b += 2048)
        for (int k = 0; k < 16; k++) {
            const auto b0 = S::load(b + k * 64), b1 = S::load(b + 1024 + k * 64);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                const auto x = S::broadcast(a + r * lda + k * 4);
                sums[r][0] = S::add_product(sums[r][0], x, b0);
                sums[r][1] = S::add_product(sums[r][1], x, b1);
            }
        }
    for (int r = 0; r < R; r++) {
        S::store(c + r * ldc, sums[r][0]);
        S::store(c + r * ldc + 64, sums[r][1]);
    }
}

#else

constexpr int ROWS_AT_ONCE = 6;  // 12 sums, 2 of B and one of A in 16 registers

// R rows, 16 columns at a time.
template <class T, int R, int LDA>
__attribute__((noinline)) void multiply_rows(const char* a, long lda, long next, const char* b, int steps, char* c, long ldc,
                                             bool more) {
    static_assert(T::WIDTH == 16, "AVX2 multiplies floats alone");
    if (LDA) lda = LDA;
    for (int tile = 0; tile < 2; tile++, b += 1024, c += 64) {
        __m256 sums[R][2];
        for (int r = 0; r < R; r++) {
            float* from = reinterpret_cast<float*>(c + r * ldc);
            sums[r][0] = more ? _mm256_loadu_ps(from) : _mm256_setzero_ps();
            sums[r][1] = more ? _mm256_loadu_ps(from + 8) : _mm256_setzero_ps();
        }
        const char *step_a = a, *step_b = b;
        for (int i = 0; i < steps; i++, step_a += next, step_b += 2048)
            for (int k = 0; k < 16; k++) {
                const float* line = reinterpret_cast<const float*>(step_b + k * 64);
                const __m256 b0 = _mm256_load_ps(line), b1 = _mm256_load_ps(line + 8);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const __m256 x = _mm256_broadcast_ss(reinterpret_cast<const float*>(step_a + r * lda + k * 4));
                    sums[r][0] = _mm256_fmadd_ps(x, b0, sums[r][0]);
                    sums[r][1] = _mm256_fmadd_ps(x, b1, sums[r][1]);
                }
            }
        for (int r = 0; r < R; r++) {
            float* to = reinterpret_cast<float*>(c + r * ldc);
            _mm256_storeu_ps(to, sums[r][0]);
            _mm256_storeu_ps(to + 8, sums[r][1]);
        }
    }
}

#endif

using MultiplyRows = void (*)(const char* a, long lda, long next, const char* b, int steps, char* c, long ldc, bool more);

template <class T, int LDA, size_t... R>
constexpr std::array<MultiplyRows, sizeof...(R)> multiply_rows_table(std::index_sequence<R...>) {
    return {multiply_rows<T, (int)R + 1, LDA>...};
}

template <class T, class Meanwhile>
INLINE void multiply_vectors(const void* a, long lda, long next, const void* b, int steps, void* c, long ldc, int rows,
                             bool more, Meanwhile&& meanwhile) {
    using Rows = std::make_index_sequence<ROWS_AT_ONCE>;
    static constexpr auto in_panels = multiply_rows_table<T, 64>(Rows());
    static constexpr auto anywhere = multiply_rows_table<T, 0>(Rows());
    const auto& table = lda == 64 ? in_panels : anywhere;
    const char* A = static_cast<const char*>(a);
    char* C = static_cast<char*>(c);
    int done = 0;  // steps that `meanwhile` has had
    for (int blocks = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, left = rows; blocks > 0; blocks--) {
        const int count = (left + blocks - 1) / blocks;
        table[count - 1](A, lda, next, static_cast<const char*>(b), steps, C, ldc * 4, more);
        A += count * lda;
        C += count * ldc * 4;
        left -= count;
        for (const int end = steps - steps * left / rows; done < end; done++) meanwhile(done);
    }
}

}  // namespace kernels
