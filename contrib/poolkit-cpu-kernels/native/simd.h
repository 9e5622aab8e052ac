// Vectors of 16 floats and what is computed on them, alike on AVX-512 and AVX2.
#pragma once
#ifdef __AVX512F__
#include "simd_avx512.h"
#else
#include "simd_avx2.h"
#endif

namespace kernels {

// Functions come at two accuracies: about 1e-7 for models in float32, and a small part of bf16's rounding for the others.
enum class Accuracy { BF16, FLOAT32 };

// 2^t. Relative error: 7.5e-5, a fiftieth of bf16's rounding, or 1e-7.
template <Accuracy accuracy>
INLINE vf exp2(vf t) {
    t = within_normal_exponents(t);
    const vf n = round(t), f = t - n;
    if (accuracy == Accuracy::BF16) {
        vf p = fma(set(0.05517162712728688f), f, set(0.24261114318942725f));
        p = fma(p, f, set(0.6932609953016198f));
        return times_power_of_two(fma(p, f, set(0.9999280725105812f)), n);
    }
    constexpr float coefficients[5] = {0.009675541682251744f, 0.05550713291700496f, 0.24022119717698193f,
                                       0.6931469670515191f, 1.0000000716558086f};
    vf p = set(0.001327646719184285f);
    for (float c : coefficients) p = fma(p, f, set(c));
    return times_power_of_two(p, n);
}

// x / 2 (1 + erf(x / sqrt 2)).
template <Accuracy accuracy>
struct Gelu {
    static INLINE vf of(vf x) { return accuracy == Accuracy::BF16 ? polynomial(x) : abramowitz_stegun(x); }

private:
    // erf as x times a polynomial in x^2 on |x| < 4.4. Absolute error 2.5e-5.
    static INLINE vf polynomial(vf x) {
        constexpr float coefficients[8] = {-7.513236223e-09f, 3.483408437e-07f, -9.452791060e-06f, 1.686173896e-04f,
                                           -2.110170995e-03f, 1.928666012e-02f, -1.321537972e-01f, 7.975237082e-01f};
        const vf near = max(min(x, set(4.4f)), set(-4.4f)), square = near * near;
        vf p = set(7.145230578e-11f);
        for (float c : coefficients) p = fma(p, square, set(c));
        const vf half = x * set(0.5f);
        return fma(half, p * near, half);
    }

    // Handbook of Mathematical Functions, 7.1.26: absolute error of erf 1.5e-7.
    static INLINE vf abramowitz_stegun(vf x) {
        constexpr float coefficients[4] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
        const vf size = abs(x), t = set(1) / fma(set(0.23164190f), size, set(1));  // 0.3275911 / sqrt 2
        vf p = set(1.061405429f);
        for (float c : coefficients) p = fma(p, t, set(c));
        const vf tail = p * t * exp2<accuracy>(x * x * set(-0.72134752f));  // 1 - erf |x|
        return max(x, set(0)) - set(0.5f) * size * tail;
    }
};

// x / (1 + e^-(slope x)). Relative error 1.4e-4 or 3e-7.
template <Accuracy accuracy>
INLINE vf sloped_silu(vf x, vf slope) {
    const vf divisor = set(1) + exp2<accuracy>(x * slope * set(-1.44269504f));
#ifdef __AVX512F__
    if (accuracy == Accuracy::BF16) return x * reciprocal_estimate(divisor);
#endif
    return x / divisor;
}
template <Accuracy accuracy>
struct Silu {
    static INLINE vf of(vf x) { return sloped_silu<accuracy>(x, set(1)); }
};

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): a SiLU whose slope depends on x.
template <Accuracy accuracy>
struct GeluTanh {
    static INLINE vf of(vf x) { return sloped_silu<accuracy>(x, fma(x * x, set(0.0713548162f), set(1.5957691216f))); }
};

template <Accuracy accuracy>
struct Relu {
    static INLINE vf of(vf x) { return max(x, set(0)); }
};

}  // namespace kernels
