// The threads of a process that compute: callers and the workers that help them.
#pragma once
#include <mutex>
#include <type_traits>

namespace kernels {

// Threads that all calls together may use, callers included.
void set_threads(int threads);

// Threads that a call could use now: the caller and those that nobody else keeps busy. At least 1.
int threads_available();

// A lock that is free in the child of a fork, whoever held it in the parent. For short sections.
std::mutex& process_mutex();

using Task = void (*)(void* context, int i);
void run_tasks(int count, Task task, void* context);

// Calls f(0) … f(count - 1), each once, in any order, on this thread and on workers that are free; returns when all have
// ended. May be called within f. Throws std::bad_alloc if one of them did.
template <class F>
void parallel(int count, F&& f) {
    using Function = std::remove_reference_t<F>;
    run_tasks(
        count, [](void* context, int i) { (*static_cast<Function*>(context))(i); },
        const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace kernels
