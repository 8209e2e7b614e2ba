// Enough of CUDA C to run the kernels of this project on the CPU, to test their logic. C++17, no dependencies.
//
// Threads are fibers. One runs until it meets a barrier, a warp primitive or a loop that waits, then another one, in an
// order that the caller chooses (0 ascending, 1 descending, otherwise shuffled by that seed). So a missing barrier gives a
// wrong result in one of the orders, the same one every time. A barrier that not all reach, a lane that is missing
// from the mask of a warp primitive, and waiting for something that never comes end the process with a message.
// Blocks of an ordinary launch run one after another; those of a cooperative launch at the same time.
// Not modelled: caches and the order in which stores become visible, warps in lockstep, time.
#pragma once
#include <cmath>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct Index { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static Index threadIdx, blockIdx, blockDim, gridDim;
using std::max;
using std::min;

namespace cuda_cpu {

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, Waiting, Ended };

struct Thread {
    jmp_buf where;
    bool started;
    State state;
    unsigned mask;       // of the warp primitive that it stands at
    unsigned offers;     // how often it has shown something to the other lanes
    uint64_t offered[2]; // what it showed last, and before that: who has it may be one primitive ahead of who reads it
    unsigned block, index;
};

constexpr size_t STACK = 64 * 1024;      // kernels here need some hundred bytes
constexpr unsigned PATIENCE = 100000;    // rounds in which all threads only wait: then nothing will ever come
static std::vector<Thread> threads;
static std::vector<std::vector<unsigned char>> shared; // per block that is running
static jmp_buf scheduler;
static unsigned current;
static void (*body)(void*);
static void* arguments;

[[noreturn]] inline void die(const char* what) {
    std::fprintf(stderr, "kernel on the CPU: %s (block %u, thread %u)\n", what, blockIdx.x, threadIdx.x);
    std::abort();
}

inline Thread& self() { return threads[current]; }

inline void stop(State why) {
    self().state = why;
    if (_setjmp(self().where) == 0) _longjmp(scheduler, 1);
}

static void enter() {
    body(arguments);
    self().state = State::Ended;
    _longjmp(scheduler, 1);
}

static void resume(unsigned thread, unsigned first_block, char* stacks) {
    current = thread;
    Thread& t = threads[thread];
    blockIdx = {first_block + t.block, 0, 0};
    threadIdx = {t.index, 0, 0};
    t.state = State::Ready;
    if (_setjmp(scheduler)) return;
    if (t.started) _longjmp(t.where, 1);
    t.started = true;
    ucontext_t first;
    getcontext(&first);
    first.uc_stack.ss_sp = stacks + thread * STACK;
    first.uc_stack.ss_size = STACK;
    first.uc_link = nullptr;
    makecontext(&first, enter, 0);
    setcontext(&first);
}

// Lets those go on whose barrier everyone has reached; returns whether there were any.
static bool release(unsigned blocks, unsigned size) {
    bool released = false;
    for (unsigned block = 0; block < blocks; block++) {
        Thread* in_block = &threads[block * size];
        unsigned at_barrier = 0, ended = 0;
        for (unsigned i = 0; i < size; i++) {
            at_barrier += in_block[i].state == State::AtBlockBarrier;
            ended += in_block[i].state == State::Ended;
        }
        if (at_barrier != 0 && at_barrier + ended == size) {
            if (ended != 0) die("__syncthreads is not reached by all threads of the block");
            for (unsigned i = 0; i < size; i++) in_block[i].state = State::Ready;
            released = true;
        }
        for (unsigned i = 0; i < size; i++) {
            if (in_block[i].state != State::AtWarpBarrier) continue;
            unsigned warp = i / 32 * 32, mask = in_block[i].mask;
            if (!(mask >> (i - warp) & 1)) die("a lane is not in the mask of its own warp primitive");
            bool all = true;
            for (unsigned lane = 0; lane < 32; lane++)
                if (mask >> lane & 1)
                    all &= warp + lane < size && in_block[warp + lane].state == State::AtWarpBarrier &&
                           in_block[warp + lane].mask == mask;
            if (!all) continue;
            for (unsigned lane = 0; lane < 32; lane++)
                if (mask >> lane & 1) in_block[warp + lane].state = State::Ready;
            released = true;
        }
    }
    return released;
}

// Runs blocks that are resident together, to their end.
static void run(unsigned first_block, unsigned blocks, unsigned size, size_t shared_bytes, unsigned order) {
    unsigned n = blocks * size;
    // Kept from launch to launch: fresh pages cost more than most kernels here.
    static char* stacks = nullptr;
    static size_t mapped = 0;
    if (n * STACK > mapped) {
        if (stacks != nullptr) munmap(stacks, mapped);
        mapped = n * STACK;
        void* fresh = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fresh == MAP_FAILED) die("no memory for the stacks");
        stacks = static_cast<char*>(fresh);
    }
    threads.assign(n, Thread{});
    shared.assign(blocks, std::vector<unsigned char>(shared_bytes + 16, 0xCD)); // not zeroed on a device either
    std::vector<unsigned> turn(n);
    for (unsigned i = 0; i < n; i++) {
        threads[i].block = i / size;
        threads[i].index = i % size;
        turn[i] = order == 1 ? n - 1 - i : i;
    }
    uint64_t random = order * 0x9E3779B97F4A7C15ull;
    for (unsigned i = n; order > 1 && i > 1; i--) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        std::swap(turn[i - 1], turn[random % i]);
    }
    for (unsigned patience = PATIENCE;;) {
        bool moved = false, alive = false;
        for (unsigned thread : turn) {
            if (threads[thread].state != State::Ready && threads[thread].state != State::Waiting) continue;
            resume(thread, first_block, stacks);
            moved |= threads[thread].state != State::Waiting;
        }
        moved |= release(blocks, size);
        for (const Thread& thread : threads) alive |= thread.state != State::Ended;
        if (!alive) break;
        patience = moved ? PATIENCE : patience - 1;
        if (patience == 0) die("deadlock: what the threads wait for never comes");
    }
}

struct Launch { Index grid, block; size_t shared_bytes; unsigned order; bool cooperative; };

static void launch(const Launch& how) {
    gridDim = how.grid;
    blockDim = how.block;
    unsigned at_once = how.cooperative ? how.grid.x : 1;
    for (unsigned block = 0; block < how.grid.x; block += at_once)
        run(block, at_once, how.block.x, how.shared_bytes, how.order);
}

template <class... A> struct Call {
    void (*kernel)(A...);
    std::tuple<A...> values;
};

template <class... A> void call(void* call) {
    auto* it = static_cast<Call<A...>*>(call);
    std::apply(it->kernel, it->values);
}

template <class... A, size_t... I>
void launch_with(void (*kernel)(A...), void** params, const Launch& how, std::index_sequence<I...>) {
    Call<A...> it{kernel, std::tuple<A...>(*static_cast<A*>(params[I])...)};
    body = call<A...>;
    arguments = &it;
    launch(how);
}

using Launcher = void (*)(void** params, const Launch&);
inline std::map<std::string, Launcher>& kernels() {
    static std::map<std::string, Launcher> all;
    return all;
}

template <auto kernel> struct Registered;
template <class... A, void (*kernel)(A...)> struct Registered<kernel> {
    static void start(void** params, const Launch& how) {
        launch_with(kernel, params, how, std::index_sequence_for<A...>{});
    }
};

inline void let_others_run() { stop(State::Waiting); }
inline void* shared_memory() {
    auto address = reinterpret_cast<uintptr_t>(shared[self().block].data());
    return reinterpret_cast<void*>((address + 15) / 16 * 16);
}
inline void warp_barrier(unsigned mask) {
    self().mask = mask;
    stop(State::AtWarpBarrier);
}
// Shows a value to the lanes of the mask; returns which of its values that is, once they have shown theirs.
inline unsigned offer(unsigned mask, uint64_t value) {
    unsigned number = ++self().offers;
    self().offered[number % 2] = value;
    warp_barrier(mask);
    return number;
}
// What a lane has shown. Nobody gets two primitives ahead of the lanes of his mask, so one mask has to serve a kernel.
inline uint64_t offered(unsigned lane, unsigned number) {
    const Thread& from = threads[current / 32 * 32 + lane];
    if (from.offers - number > 1) die("lanes meet that have not been through the same warp primitives");
    return from.offered[number % 2];
}
inline uint64_t exchange(unsigned mask, uint64_t value, unsigned lane) {
    unsigned number = offer(mask, value);
    if (!(mask >> lane & 1)) die("a shuffle from a lane that is not in the mask");
    return offered(lane, number);
}

} // namespace cuda_cpu

#define RUNS_ON_CPU(name) static const bool name##_is_known = (cuda_cpu::kernels()[#name] = cuda_cpu::Registered<name>::start, true)

inline unsigned lane_of_self() { return threadIdx.x % 32; }
inline void __syncthreads() { cuda_cpu::stop(cuda_cpu::State::AtBlockBarrier); }
inline void __syncwarp(unsigned mask = ~0u) { cuda_cpu::warp_barrier(mask); }
inline void __threadfence() {}
template <class T> T __shfl_sync(unsigned mask, T value, int lane) { return T(cuda_cpu::exchange(mask, uint64_t(value), unsigned(lane) & 31)); }
template <class T> T __shfl_xor_sync(unsigned mask, T value, int with) { return T(cuda_cpu::exchange(mask, uint64_t(value), lane_of_self() ^ unsigned(with))); }
inline unsigned __ballot_sync(unsigned mask, bool vote) {
    unsigned votes = 0, number = cuda_cpu::offer(mask, vote);
    for (unsigned lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) votes |= unsigned(cuda_cpu::offered(lane, number)) << lane;
    return votes;
}
template <class T> T atomicAdd(T* address, T value) { T old = *address; *address += value; return old; }
template <class T> T atomicMax(T* address, T value) { T old = *address; *address = max(old, value); return old; }
template <class T> T atomicOr(T* address, T value) { T old = *address; *address |= value; return old; }
template <class T> T __ldcs(const T* address) { return *address; }
template <class T> void __stcs(T* address, T value) { *address = value; }
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz((unsigned)bits); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
