// The tile instructions: the CPU's, or with -DEMULATE_TILES plain C that does the same, so that a machine with AVX-512
// alone can test what is around them: packing, tails, masks, epilogues.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace kernels {

#ifndef EMULATE_TILES

// Sets up eight tiles of 16 rows of 64 bytes on this thread, and lets go of them at the end: then a switch of threads has
// nothing to save.
class Tiles {
public:
    Tiles() {
        struct alignas(64) Config {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        };
        static constexpr Config config;
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

#else

struct Tiles {
    ~Tiles() {}
};

namespace emulated {

alignas(64) inline thread_local char tile[8][16][64];

inline float widen(uint16_t bf16) {
    const uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline void load(int t, const void* from, long stride) {
    for (int row = 0; row < 16; row++) memcpy(tile[t][row], (const char*)from + row * stride, 64);
}
inline void store(int t, void* to, long stride) {
    for (int row = 0; row < 16; row++) memcpy((char*)to + row * stride, tile[t][row], 64);
}
inline void multiply_bf16(int c, int a, int b) {
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < 16; n++)
                for (int i = 0; i < 2; i++)
                    ((float*)tile[c][m])[n] +=
                        widen(((uint16_t*)tile[a][m])[2 * k + i]) * widen(((uint16_t*)tile[b][k])[2 * n + i]);
}
inline void multiply_int8(int c, int a, int b) {
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < 16; n++)
                for (int i = 0; i < 4; i++)
                    ((int32_t*)tile[c][m])[n] += ((int8_t*)tile[a][m])[4 * k + i] * ((int8_t*)tile[b][k])[4 * n + i];
}

}  // namespace emulated

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#define _tile_zero(t) memset(::kernels::emulated::tile[t], 0, 1024)
#define _tile_loadd ::kernels::emulated::load
#define _tile_stream_loadd ::kernels::emulated::load
#define _tile_stored ::kernels::emulated::store
#define _tile_dpbf16ps ::kernels::emulated::multiply_bf16
#define _tile_dpbssd ::kernels::emulated::multiply_int8

#endif

}  // namespace kernels
