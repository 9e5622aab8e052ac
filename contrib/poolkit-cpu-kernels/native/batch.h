// Batches as the encoder takes them: texts, and shares of them that one thread takes through all layers.
#pragma once
#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "poolkit_cpu_kernels.h"
#include "threads.h"

namespace kernels {

// Tokens that a thread takes through the layers at a time: their activations stay in its L2 cache.
#ifndef CHUNK
#define CHUNK 192
#endif

struct Text {
    int index;  // in the batch
    int first;  // token of the batch
    int length;
    int seen;     // so many of its tokens are keys
    int prefix;   // an earlier text, or -1
    int row = 0;  // in its share
};

struct Share {
    std::vector<Text> texts;
    int tokens = 0;

    void add(Text text) {
        text.row = tokens;
        tokens += text.length;
        texts.push_back(text);
    }
};

inline std::vector<Text> texts_of(const EncoderBatch& batch) {
    std::vector<Text> texts;
    for (int i = 0; i < batch.texts; i++) {
        const int first = batch.cu_seqlens[i], length = batch.cu_seqlens[i + 1] - first;
        const int seen = batch.seen ? std::clamp(batch.seen[i], 0, length) : length;
        texts.push_back({i, first, length, seen, batch.prefix ? batch.prefix[i] : -1});
    }
    return texts;
}

// Cuts texts into shares of about CHUNK tokens, or fewer where there are threads for more; the longest first. A text's
// states do not depend on it.
inline std::vector<Share> shares_of(const std::vector<Text>& texts) {
    constexpr long LEAST = 64;  // a thread is not woken for less
    long tokens = 0;
    for (const Text& text : texts) tokens += text.length;
    const int threads = threads_available();
    const long most = std::clamp<long>((tokens + threads - 1) / threads, LEAST, CHUNK);
    std::vector<Share> shares;
    for (const Text& text : texts) {
        if (text.length == 0) continue;
        if (shares.empty() || shares.back().tokens + text.length > most) shares.emplace_back();
        shares.back().add(text);
    }
    std::stable_sort(shares.begin(), shares.end(), [](const Share& a, const Share& b) { return a.tokens > b.tokens; });
    return shares;
}

// How many pieces the rows of a share are cut into: one of about a chunk is left whole, for one thread; a longer text goes
// through the products a chunk at a time, and all threads that are free take part.
inline int spans_of(int tokens) {
    constexpr int LONG = 256, LEAST = 128;  // tokens of a text that is worth other threads, and of a span
    const int chunks = std::max(1, (tokens + CHUNK / 2) / CHUNK);
    return tokens < LONG ? chunks : std::max(chunks, std::min(threads_available(), tokens / LEAST));
}

// Objects that threads take and give back, so that the memory in them is used again.
template <class W>
class FreeList {
public:
    class Lease {
    public:
        explicit Lease(FreeList& list) : list_(list), object_(list.take()) {}
        ~Lease() { list_.give_back(std::move(object_)); }
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        W& operator*() const { return *object_; }
        W* operator->() const { return object_.get(); }

    private:
        FreeList& list_;
        std::unique_ptr<W> object_;
    };

private:
    static constexpr size_t MOST = 64;  // objects that are kept

    std::vector<std::unique_ptr<W>> free_;

    std::unique_ptr<W> take() {
        {
            std::lock_guard<std::mutex> lock(process_mutex());
            if (!free_.empty()) {
                auto object = std::move(free_.back());
                free_.pop_back();
                return object;
            }
            free_.reserve(MOST);  // so that giving back cannot fail
        }
        return std::make_unique<W>();
    }

    void give_back(std::unique_ptr<W> object) {
        if (object->is_large()) return;
        std::lock_guard<std::mutex> lock(process_mutex());
        if (free_.size() < MOST) free_.push_back(std::move(object));
    }
};

}  // namespace kernels
