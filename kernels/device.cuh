// What all kernels share: the widths of integers, loads that see other blocks' stores, reductions within a warp, and
// dynamic shared memory. The only file that knows that kernels also run on the CPU in tests (CUDA_ON_CPU).
// Built for compute_70, so that nothing here needs a newer instruction.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void

static const u32 LANES = 32;              // threads of a warp
static const u32 ALL_LANES = 0xffffffffu; // mask of a whole warp

// A load and a store of one word that other blocks write and read while this one runs. They go past the first-level
// cache, which is not coherent. One word is written at once, so a value may be its own flag: no fence is needed.
__device__ __forceinline__ u32 load_shared_word(const u32* address) {
#ifdef CUDA_ON_CPU
    return *address;
#else
    u32 value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
#endif
}

__device__ __forceinline__ void store_shared_word(u32* address, u32 value) {
#ifdef CUDA_ON_CPU
    *address = value;
#else
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
#endif
}

// Stands in every loop that waits for another thread. Polling is what is wanted on a device; on the CPU the others
// have to be let in.
__device__ __forceinline__ void let_others_run() {
#ifdef CUDA_ON_CPU
    cuda_cpu::let_others_run();
#endif
}

// Waits for all blocks of a cooperative launch. `arrived` is a counter in global memory that started at zero; `goal` is
// the number of blocks times how often this was called, this time included. What was stored before is visible behind.
__device__ __forceinline__ void grid_barrier(u32* arrived, u32 goal) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (load_shared_word(arrived) < goal) let_others_run();
        __threadfence();
    }
    __syncthreads();
}

// The largest, or smallest, value of the lanes in `mask`: a tile of `width` neighbouring lanes, a power of two.
__device__ __forceinline__ u32 tile_max(u32 mask, u32 value, u32 width) {
    for (u32 step = width / 2; step > 0; step /= 2) value = max(value, __shfl_xor_sync(mask, value, (int)step));
    return value;
}

__device__ __forceinline__ u64 tile_min(u32 mask, u64 value, u32 width) {
    for (u32 step = width / 2; step > 0; step /= 2) value = min(value, __shfl_xor_sync(mask, value, (int)step));
    return value;
}

__device__ __forceinline__ u64 warp_sum(u64 value) {
    for (u32 step = LANES / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, (int)step);
    return value;
}

// The dynamic shared memory of the block, aligned for 16-byte words.
template <class T> __device__ __forceinline__ T* shared_memory() {
#ifdef CUDA_ON_CPU
    return static_cast<T*>(cuda_cpu::shared_memory());
#else
    extern __shared__ uint4 words[];
    return reinterpret_cast<T*>(words);
#endif
}
