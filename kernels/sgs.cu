// Serial schedule generation for the resource-constrained project scheduling problem (RCPSP), for many candidates at once:
// each is an order in which tasks are placed, every one as early as its sources and the resources let it.
//
// Units      ticks. Four resources of up to 32,767 units are packed into a word, 16 bits each; the highest bit of each is a
//            guard: it is set in the profile, and a subtraction that would go below zero clears it.
// Shapes     order [candidates][tasks]: tasks, sources before those that wait for them. offset [tasks + 1], source [edges].
//            duration [tasks]; need [tasks], packed; capacity, packed; horizon: all durations one after the other.
//            makespan [candidates].
// Threads    warp = candidate: the lanes look at 32 ticks of the profile at once. Shared memory a warp: the profile,
//            [horizon + 32] words of 64 bits, then finishes, [tasks] words of 32.
// Must equal batch::sgs::makespan, bit for bit.
// Source: Kolisch, "Serial and parallel resource-constrained project scheduling methods revisited", 1996.

#include "device.cuh"

static const u64 GUARDS = 0x8000800080008000ull;

KERNEL __launch_bounds__(128) sgs(u32 tasks, u32 candidates, u32 horizon, u64 capacity, const u16* __restrict__ order,
                                  const u32* __restrict__ offset, const u16* __restrict__ source,
                                  const u32* __restrict__ duration, const u64* __restrict__ need,
                                  u32* __restrict__ makespan) {
    u32 lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    u32 ticks = horizon + LANES;
    // Words of 64 bits first, so that they are aligned.
    u64* profile = shared_memory<u64>() + (u64)warp * (ticks + (tasks + 1) / 2);
    u32* finish = reinterpret_cast<u32*>(profile + ticks);
    u32 candidate = blockIdx.x * (blockDim.x / LANES) + warp;
    if (candidate >= candidates) return;
    for (u32 tick = lane; tick < ticks; tick += LANES) profile[tick] = capacity | GUARDS;
    __syncwarp(ALL_LANES);
    const u16* next = order + (u64)candidate * tasks;
    u32 latest = 0;
    for (u32 step = 0; step < tasks; step++) {
        u32 task = next[step], takes = duration[task];
        u64 wants = need[task];
        u32 start = 0;
        for (u32 k = offset[task] + lane; k < offset[task + 1]; k += LANES) start = max(start, finish[source[k]]);
        start = tile_max(ALL_LANES, start, LANES);
        // `fitting` ticks from `start` on are known to have room; the next look is at those behind them.
        for (u32 fitting = 0; fitting < takes;) {
            u32 look = start + fitting;
            u32 room = __ballot_sync(ALL_LANES, ((profile[look + lane] - wants) & GUARDS) == GUARDS);
            u32 run = room == ALL_LANES ? LANES : (u32)__ffs((int)~room) - 1;
            fitting += run;
            if (run == LANES || fitting >= takes) continue;
            // Behind the ticks without room that follow.
            u32 behind = room >> run;
            u32 gap = behind == 0 ? LANES - run : (u32)__ffs((int)behind) - 1;
            start = look + run + gap;
            fitting = 0;
        }
        // Others have read their ticks before they are changed.
        __syncwarp(ALL_LANES);
        for (u32 tick = start + lane; tick < start + takes; tick += LANES) profile[tick] -= wants;
        u32 end = start + takes;
        if (lane == 0) finish[task] = end;
        latest = max(latest, end);
        __syncwarp(ALL_LANES);
    }
    if (lane == 0) makespan[candidate] = latest;
}
