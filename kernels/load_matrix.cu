// The load matrix L = T / P, rounded up: how long every task takes on every device.
//
// Units      T, L: milliseconds. P: speed relative to the device that durations are declared for.
// Shapes     duration [tasks], whole [devices], fraction [devices], load [devices][stride], fastest [tasks],
//            total [devices], chosen [devices]. `stride` is `tasks` rounded up to a multiple of four.
// Shared     fastest_device: 12 bytes for each of the first `held` devices, whose sums a block keeps to itself until its end.
// Threads    load_matrix: one thread for four neighbouring tasks, all devices one after the other, so that every store of
//            a warp is 512 bytes in a row. fastest_device: one thread for one task, grid-stride; nothing is materialised.
// Must equal timing::loads::matrix and timing::loads::fastest, bit for bit.
//
// 1 / P is given as a whole part and a fraction in units of 2^-64, cut off. The host has proven for every device that
// what was cut off is too small to change the rounded result (timing::loads::Reciprocal), and that nothing exceeds 32 bits.

#include "device.cuh"

// The time of one task on one device: duration * (whole + fraction / 2^64), rounded up.
__device__ __forceinline__ u32 time_on(u32 duration, u32 whole, u64 fraction) {
    u64 low = (u64)duration * (u32)fraction;
    u64 high = (u64)duration * (u32)(fraction >> 32) + (low >> 32);
    bool remainder = ((u32)high | (u32)low) != 0;
    return duration * whole + (u32)(high >> 32) + (remainder ? 1u : 0u);
}

KERNEL load_matrix(u32 tasks, u32 devices, u32 stride, const u32* __restrict__ duration, const u32* __restrict__ whole,
                   const u64* __restrict__ fraction, u32* __restrict__ load) {
    u64 first = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (first >= tasks) return;
    // `duration` is padded to `stride` like every row of `load`.
    uint4 times = *reinterpret_cast<const uint4*>(duration + first);
    for (u32 device = 0; device < devices; device++) {
        u32 w = whole[device];
        u64 f = fraction[device];
        uint4 row = make_uint4(time_on(times.x, w, f), time_on(times.y, w, f), time_on(times.z, w, f), time_on(times.w, w, f));
        // Nobody reads it back soon: it need not push anything out of the cache.
        __stcs(reinterpret_cast<uint4*>(load + (u64)device * stride + first), row);
    }
}

// The fastest device of every task, the first among equals, and what each device gets if all tasks go where they are
// fastest: how long in total, and how many.
KERNEL fastest_device(u32 tasks, u32 devices, u32 held, const u32* __restrict__ duration, const u32* __restrict__ whole,
                      const u64* __restrict__ fraction, u16* __restrict__ fastest, u64* total, u32* chosen) {
    u64* held_total = shared_memory<u64>();
    u32* held_chosen = reinterpret_cast<u32*>(held_total + held);
    for (u32 device = threadIdx.x; device < held; device += blockDim.x) {
        held_total[device] = 0;
        held_chosen[device] = 0;
    }
    __syncthreads();
    u32 threads = gridDim.x * blockDim.x;
    u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    // All lanes of a warp go round equally often: the sums below need every one of them.
    for (u64 base = thread - threadIdx.x % LANES; base < tasks; base += threads) {
        u64 task = base + threadIdx.x % LANES;
        bool inside = task < tasks;
        u32 time = inside ? duration[task] : 0;
        u32 best = 0, least = 0xffffffffu;
        for (u32 device = 0; device < devices; device++) {
            u32 here = time_on(time, whole[device], fraction[device]);
            if (here < least) {
                least = here;
                best = device;
            }
        }
        if (inside) fastest[task] = (u16)best;
        for (u32 device = 0; device < devices; device++) {
            bool mine = inside && best == device;
            u32 votes = __ballot_sync(ALL_LANES, mine);
            if (votes == 0) continue;
            u64 sum = warp_sum(mine ? (u64)least : 0);
            if (threadIdx.x % LANES == 0) {
                bool is_held = device < held;
                atomicAdd((is_held ? held_total : total) + device, sum);
                atomicAdd((is_held ? held_chosen : chosen) + device, (u32)__popc(votes));
            }
        }
    }
    __syncthreads();
    for (u32 device = threadIdx.x; device < held; device += blockDim.x) {
        if (held_chosen[device] == 0) continue;
        atomicAdd(total + device, held_total[device]);
        atomicAdd(chosen + device, held_chosen[device]);
    }
}
