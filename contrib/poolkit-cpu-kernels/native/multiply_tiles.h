// Products on AMX tiles.
#pragma once
#include "elements.h"
#include "tiles.h"

namespace kernels {

template <class T>
constexpr bool on_tiles = sizeof(typename T::Element) < 4;

// Tiles 0-3 are C, 4-5 A, 6-7 B; TALL: 32 rows, else 16.
template <class T, bool TALL, class Meanwhile>
INLINE void multiply_tiles(const void* a, long lda, long next, const void* b, int steps, void* c, long ldc, bool more,
                           Meanwhile&& meanwhile) {
#define MULTIPLY(c, a, b)             \
    do {                              \
        if constexpr (T::WIDTH == 64) \
            _tile_dpbssd(c, a, b);    \
        else                          \
            _tile_dpbf16ps(c, a, b);  \
    } while (0)
    asm volatile("" ::: "memory");  // gcc's tile loads do not say that they read memory
    const char *A = static_cast<const char*>(a), *B = static_cast<const char*>(b);
    char* const C = static_cast<char*>(c);
    const long row = ldc * 4;
    if (more) {
        _tile_loadd(0, C, row);
        _tile_loadd(1, C + 64, row);
        if (TALL) {
            _tile_loadd(2, C + 16 * row, row);
            _tile_loadd(3, C + 16 * row + 64, row);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        if (TALL) {
            _tile_zero(2);
            _tile_zero(3);
        }
    }
    for (int i = 0; i < steps; i++) {
        _tile_loadd(6, B, 64);
        _tile_stream_loadd(4, A, lda);  // "stream": past the L1 cache, which B shall keep
        MULTIPLY(0, 4, 6);
        _tile_loadd(7, B + 1024, 64);
        MULTIPLY(1, 4, 7);
        if (TALL) {
            _tile_stream_loadd(5, A + 16 * lda, lda);
            MULTIPLY(2, 5, 6);
            MULTIPLY(3, 5, 7);
        }
        A += next;
        B += 2048;
        meanwhile(i);
    }
    _tile_stored(0, C, row);
    _tile_stored(1, C + 64, row);
    if (TALL) {
        _tile_stored(2, C + 16 * row, row);
        _tile_stored(3, C + 16 * row + 64, row);
    }
    asm volatile("" ::: "memory");
#undef MULTIPLY
}

}  // namespace kernels
