// The one function that differs by instruction set:
//
//     multiply<T>(a, lda, next, b, steps, c, ldc, rows, more, meanwhile)
//
// C (rows <= 32; 32 columns; float, or int32 for Int8; rows `ldc` numbers apart) = A x B over `steps` steps of 64 bytes.
// A: rows `lda` bytes apart, steps `next` bytes apart. B: two tiles a step, end to end; row i of a tile holds the i-th 4
// bytes of inputs of each of 16 outputs. With `more`, C is added to. `meanwhile(i)`, once for each step: other work, which
// the vector units do while tiles multiply.
//
// Each sum is taken in the order of the inputs, whatever the number of rows: a row has the same bits in any block, and in
// any number of calls with `more`. With tiles, A is read and C written in whole tiles of 16 rows.
#pragma once
#include "elements.h"

#if defined(__AMX_TILE__) || defined(EMULATE_TILES)
#define HAS_TILES 1
#endif
#if HAS_TILES || (defined(__AVX512BF16__) && defined(__AVX512VNNI__))
#define HAS_BF16_AND_INT8 1
#endif

#include "multiply_vectors.h"
#if HAS_TILES
#include "multiply_tiles.h"
#else
namespace kernels {
struct Tiles {  // there are none to set up
    ~Tiles() {}
};
template <class T>
constexpr bool on_tiles = false;
}  // namespace kernels
#endif

namespace kernels {

template <class T, class Meanwhile>
INLINE void multiply(const void* a, long lda, long next, const void* b, int steps, void* c, long ldc, int rows, bool more,
                     Meanwhile&& meanwhile) {
#if HAS_TILES
    if constexpr (on_tiles<T>) {
        if (rows > 16)
            multiply_tiles<T, true>(a, lda, next, b, steps, c, ldc, more, meanwhile);
        else
            multiply_tiles<T, false>(a, lda, next, b, steps, c, ldc, more, meanwhile);
        return;
    } else
#endif
        multiply_vectors<T>(a, lda, next, b, steps, c, ldc, rows, more, meanwhile);
}

}  // namespace kernels
