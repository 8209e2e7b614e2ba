// List schedules for many candidates at once: each is an order in which tasks are placed, one after the other, each on the
// device where it ends first. Devices are shared as far as their memory goes.
//
// Units      ticks, all together below 2^31; any unit of memory, every amount below 2^29.
// Shapes     order [candidates][tasks]: tasks, sources before those that wait for them. offset [tasks + 1], source [edges].
//            time [tasks][devices], NEVER where a task cannot run; memory [tasks]; capacity [devices].
//            makespan [candidates], NEVER where some task fits on no device.
// Threads    tile = candidate, lane = device: `width` neighbouring lanes, 8, 16 or 32, at least as many as devices. A lane
//            keeps what runs on its device in SEATS registers; finishes lie in shared memory, [tasks] words a tile.
// Must equal batch::lists::makespan, bit for bit.

#include "device.cuh"

static const u32 NEVER = 0xffffffffu;
static const u32 SEATS = 4; // tasks that a device runs at the same time

KERNEL __launch_bounds__(128, 8) list_schedule(u32 tasks, u32 candidates, u32 devices, u32 width, const u16* __restrict__ order,
                                            const u32* __restrict__ offset, const u16* __restrict__ source,
                                            const u32* __restrict__ time, const u32* __restrict__ memory,
                                            const u32* __restrict__ capacity, u32* __restrict__ makespan) {
    u32 lane = threadIdx.x % width, tile = threadIdx.x / width;
    u32 mask = (width == LANES ? ALL_LANES : (1u << width) - 1) << (threadIdx.x % LANES / width * width);
    u32* finish = shared_memory<u32>() + (u64)tile * tasks;
    u32 candidate = blockIdx.x * (blockDim.x / width) + tile;
    const u16* next = order + (u64)min(candidate, candidates - 1) * tasks;
    u32 room = lane < devices ? capacity[lane] : 0;
    u32 until[SEATS], holds[SEATS];
#pragma unroll
    for (u32 k = 0; k < SEATS; k++) until[k] = holds[k] = 0;
    u32 latest = 0;
    for (u32 step = 0; step < tasks && latest != NEVER; step++) {
        u32 task = next[step], wants = memory[task];
        u32 ready = 0;
        for (u32 k = offset[task] + lane; k < offset[task + 1]; k += width) ready = max(ready, finish[source[k]]);
        ready = tile_max(mask, ready, width);
        u32 takes = lane < devices ? time[(u64)task * devices + lane] : NEVER;
        bool never = takes == NEVER || wants > room;
        // The first moment from `ready` on at which a seat is free and the memory suffices. What is placed counts as held
        // up to its end, also before its start: so nothing is ever held twice.
        u32 start = ready, seat = SEATS;
#pragma unroll
        for (u32 round = 0; round <= SEATS; round++) {
            u32 held = 0, first_end = NEVER, open = SEATS;
#pragma unroll
            for (u32 k = SEATS; k-- > 0;) {
                bool busy = until[k] > start;
                held += busy ? holds[k] : 0;
                first_end = busy ? min(first_end, until[k]) : first_end;
                open = busy ? open : k;
            }
            bool fits = open < SEATS && held + wants <= room;
            if (seat == SEATS && (fits || first_end == NEVER)) seat = open;
            if (seat == SEATS) start = first_end;
        }
        u64 key = never ? ~0ull : ((u64)(start + takes) << 32 | lane);
        u64 best = tile_min(mask, key, width);
        u32 end = best == ~0ull ? NEVER : (u32)(best >> 32);
        if (best == key && !never) {
#pragma unroll
            for (u32 k = 0; k < SEATS; k++)
                if (k == seat) until[k] = end, holds[k] = wants;
        }
        if (lane == 0) finish[task] = end;
        latest = max(latest, end);
        __syncwarp(mask);
    }
    if (lane == 0 && candidate < candidates) makespan[candidate] = latest;
}
