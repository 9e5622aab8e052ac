// Whether this machine can run a library. Compiled for any x86-64, and first called: a CPU without the library's
// instructions must be able to ask.
#include <sys/syscall.h>
#include <unistd.h>

#include "poolkit_cpu_kernels.h"

namespace {

[[maybe_unused]] bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
}

[[maybe_unused]] bool has_avx512() {  // x86-64-v4
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

[[maybe_unused]] bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"); }

[[maybe_unused]] bool has_amx() {  // the tiles' state is large: Linux gives it to a process that asks, and some sandboxes refuse
    unsigned a = 7, b, c = 0, d;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    const unsigned bf16 = 1u << 22, tiles = 1u << 24, int8 = 1u << 25;
    const long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return has_avx512_bf16() && (~d & (bf16 | tiles | int8)) == 0 && syscall(SYS_arch_prctl, request, tile_data) == 0;
}

}  // namespace

int kernels_abi(void) { return KERNELS_ABI; }

int kernels_supported(void) {
    __builtin_cpu_init();
    return LIBRARY_SUPPORTED();
}
