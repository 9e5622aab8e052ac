// What the C calls return: exceptions end here.
#pragma once
#include <new>

#include "poolkit_cpu_kernels.h"

namespace kernels {

template <class F>
int status_of(F&& f) {
    try {
        return f();
    } catch (const std::bad_alloc&) {
        return OUT_OF_MEMORY;
    }
}

}  // namespace kernels
