#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <condition_variable>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace kernels {
namespace {

struct Job {
    Job(int count, Task task, void* context) : task(task), context(context), count(count) {}

    const Task task;
    void* const context;
    const int count;
    int next = 0;     // the first task that nobody has taken
    int helpers = 0;  // workers in it
    bool failed = false;
    std::condition_variable done;  // no helper is left

    bool has_tasks() const { return next < count; }
};

int cpus() {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

// Workers take tasks of any job while fewer threads than the budget are busy. A caller never waits for a thread to
// become free: it runs its own tasks, and a worker makes room for it when its task ends.
class Pool {
public:
    std::mutex mutex;

    void set_budget(int threads) {
        std::lock_guard<std::mutex> lock(mutex);
        budget_ = std::max(1, threads);
    }

    int available() {
        std::lock_guard<std::mutex> lock(mutex);
        return std::max(1, budget_ - busy_ + (is_busy ? 1 : 0));
    }

    void run(Job& job) {
        std::unique_lock<std::mutex> lock(mutex);
        const bool outermost = !is_busy;
        enter(outermost);
        if (job.count > 1) {
            jobs_.push_back(&job);
            wake(job.count - 1);
        }
        take_tasks(job, lock, [] { return true; });
        if (job.helpers > 0) {
            busy_--;  // this thread only waits
            wake(1);
            job.done.wait(lock, [&] { return job.helpers == 0; });
            busy_++;
        }
        leave(outermost);
        if (job.failed) throw std::bad_alloc();
    }

    // In the child of a fork this thread is the only one.
    void restart() {
        new (&mutex) std::mutex;
        new (&work_) std::condition_variable;
        jobs_.clear();
        workers_ = idle_ = busy_ = 0;
    }

private:
    static thread_local bool is_busy;  // this thread runs tasks, and is counted

    std::condition_variable work_;
    std::vector<Job*> jobs_;  // with tasks that nobody has taken
    int budget_ = cpus();
    int busy_ = 0;     // threads that run tasks
    int workers_ = 0;  // threads of the pool
    int idle_ = 0;     // those that wait

    void enter(bool outermost) {
        if (!outermost) return;
        is_busy = true;
        busy_++;
    }

    void leave(bool outermost) {
        if (!outermost) return;
        is_busy = false;
        busy_--;
        wake(1);
    }

    // Wakes or starts workers for up to `tasks` tasks, as far as the budget goes.
    void wake(int tasks) {
        if (jobs_.empty()) return;
        int wanted = std::min(tasks, budget_ - busy_);
        for (; wanted > 0 && wanted > idle_ && workers_ < budget_ - 1; wanted--)
            if (!start_worker()) break;
        for (wanted = std::min(wanted, idle_); wanted > 0; wanted--) work_.notify_one();
    }

    bool start_worker() {
        sigset_t all, old;  // signals are for the threads of the program
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        bool started = true;
        try {
            std::thread([this] { work(); }).detach();
            workers_++;
        } catch (const std::system_error&) {
            started = false;  // the process may have no more threads: the callers do all
        }
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
        return started;
    }

    void work() {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            if (jobs_.empty() || busy_ >= budget_) {
                idle_++;
                work_.wait(lock);
                idle_--;
                continue;
            }
            Job& job = *jobs_.back();
            enter(true);
            job.helpers++;
            take_tasks(job, lock, [&] { return busy_ <= budget_; });
            leave(true);
            if (--job.helpers == 0) job.done.notify_one();
        }
    }

    template <class Condition>
    void take_tasks(Job& job, std::unique_lock<std::mutex>& lock, Condition&& may_go_on) {
        while (job.has_tasks() && may_go_on()) {
            const int i = job.next++;
            if (!job.has_tasks()) forget(job);
            lock.unlock();
            bool failed = false;
            try {
                job.task(job.context, i);
            } catch (const std::bad_alloc&) {
                failed = true;
            }
            lock.lock();
            if (failed) {
                job.failed = true;
                job.next = job.count;
                forget(job);
            }
        }
    }

    void forget(Job& job) { jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end()); }
};

thread_local bool Pool::is_busy = false;

// Never destroyed: workers may run until the process ends.
Pool& pool() {
    static Pool* const pool = [] {
        auto* made = new Pool;
        pthread_atfork([] { kernels::process_mutex().lock(); }, [] { kernels::process_mutex().unlock(); },
                       [] { kernels::pool().restart(); });
        return made;
    }();
    return *pool;
}

}  // namespace

void set_threads(int threads) { pool().set_budget(threads); }
int threads_available() { return pool().available(); }
std::mutex& process_mutex() { return pool().mutex; }

void run_tasks(int count, Task task, void* context) {
    if (count <= 0) return;
    Job job(count, task, context);
    pool().run(job);
}

}  // namespace kernels
