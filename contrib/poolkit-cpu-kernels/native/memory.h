// Memory that lies in whole cache lines, in large pages where there is much of it.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace kernels {

constexpr size_t CACHE_LINE = 64;

inline size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// An array that starts on a cache line, zeroed when it is allocated. It holds plain numbers: nothing is constructed.
template <class E>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t count) { reserve(count); }
    Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
        return *this;
    }
    ~Buffer() { free(data_); }

    // Makes room for `count` elements; what was in it is lost if it grows. Throws std::bad_alloc, and is then empty.
    void reserve(size_t count) {
        if (count <= count_) return;
        free(std::exchange(data_, nullptr));
        count_ = 0;
        const size_t page = count * sizeof(E) >= LARGE_PAGE ? LARGE_PAGE : CACHE_LINE;
        const size_t bytes = round_up(count * sizeof(E), page);
        data_ = static_cast<E*>(aligned_alloc(page, bytes));
        if (!data_) throw std::bad_alloc();
        if (page == LARGE_PAGE) madvise(data_, bytes, MADV_HUGEPAGE);
        memset(static_cast<void*>(data_), 0, bytes);
        count_ = count;
    }

    E* data() const { return data_; }
    size_t size() const { return count_; }
    size_t bytes() const { return count_ * sizeof(E); }
    E& operator[](size_t i) const { return data_[i]; }

private:
    static constexpr size_t LARGE_PAGE = 2 << 20;
    E* data_ = nullptr;
    size_t count_ = 0;
};

}  // namespace kernels
