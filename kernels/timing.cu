// The critical path method: when each task can end at the earliest, and, on the graph turned round, how long it is from
// the start of a task to the end of everything.
//
// Units      ticks: a common divisor of all durations; every path is shorter than 2^31 of them (timing::ticks).
// Shapes     Tasks stand in the order of timing::layout: by level, within a level by falling number of sources, cut into
//            slices of at most 32 tasks of one level. slice_task [slices + 1], slice_slot [slices + 1],
//            source [slots]: the places of the tasks that must end before. A slice of several tasks gives each one a
//            lane and column-major slots; a slice of one task spreads its sources over all lanes. NONE fills up.
//            duration, finish [tasks], by place. level_slice [levels + 1]. latest [1]: the largest finish, zero before.
// Threads    longest_levels, longest_dataflow: a warp a slice, grid-stride, all blocks resident (cooperative launch).
//            transfer_*: see there. slack: one thread a task.
// Must equal timing::Timing::new, bit for bit: finish = earliest finish; on the graph turned round makespan - finish =
//            latest start.
//
// `finish` is preset to NOT_READY by the host: a value that no path can have is its own flag.

#include "device.cuh"

static const u32 NONE = 0xffffffffu;
static const u32 NOT_READY = 0xffffffffu;
static const u32 AT_ONCE = 4; // loads in flight per lane: the gather is bound by latency, not by arithmetic

// The largest finish among a lane's sources of a slice. Waits for those that are not there yet.
__device__ __forceinline__ u32 longest_source(u32 from, u32 to, const u32* __restrict__ source, const u32* finish) {
    u32 longest = 0;
    for (u32 slot = from + threadIdx.x % LANES; slot < to; slot += AT_ONCE * LANES) {
        u32 place[AT_ONCE], value[AT_ONCE];
#pragma unroll
        for (u32 k = 0; k < AT_ONCE; k++) place[k] = slot + k * LANES < to ? source[slot + k * LANES] : NONE;
        bool waiting;
        do {
            waiting = false;
#pragma unroll
            for (u32 k = 0; k < AT_ONCE; k++) {
                value[k] = place[k] == NONE ? 0 : load_shared_word(finish + place[k]);
                waiting |= value[k] == NOT_READY;
            }
            if (waiting) let_others_run();
        } while (waiting);
#pragma unroll
        for (u32 k = 0; k < AT_ONCE; k++) longest = max(longest, value[k]);
    }
    return longest;
}

// Times the tasks of one slice; returns the finish of this lane's task, or zero.
__device__ __forceinline__ u32 time_slice(u32 slice, const u32* __restrict__ slice_task, const u32* __restrict__ slice_slot,
                                          const u32* __restrict__ source, const u32* __restrict__ duration, u32* finish) {
    u32 first = slice_task[slice], tasks = slice_task[slice + 1] - first;
    u32 longest = longest_source(slice_slot[slice], slice_slot[slice + 1], source, finish);
    if (tasks == 1) longest = tile_max(ALL_LANES, longest, LANES);
    u32 lane = threadIdx.x % LANES;
    if (lane >= tasks) return 0;
    u32 end = longest + duration[first + lane];
    store_shared_word(finish + first + lane, end);
    return end;
}

// Wide and shallow graphs: a barrier across the device behind every level. `arrived` starts at zero.
KERNEL __launch_bounds__(512, 2)
    longest_levels(u32 levels, const u32* __restrict__ level_slice, const u32* __restrict__ slice_task,
                   const u32* __restrict__ slice_slot, const u32* __restrict__ source, const u32* __restrict__ duration,
                   u32* finish, u32* latest, u32* arrived) {
    u32 warps = gridDim.x * blockDim.x / LANES;
    u32 warp = (blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    u32 largest = 0;
    for (u32 level = 0; level < levels; level++) {
        for (u32 slice = level_slice[level] + warp; slice < level_slice[level + 1]; slice += warps)
            largest = max(largest, time_slice(slice, slice_task, slice_slot, source, duration, finish));
        grid_barrier(arrived, gridDim.x * (level + 1));
    }
    largest = tile_max(ALL_LANES, largest, LANES);
    if (threadIdx.x % LANES == 0) atomicMax(latest, largest);
}

// Graphs of middling depth: no barrier, every task waits for its own sources. It cannot hang: slices are taken in
// topological order, all warps are resident, and no lane waits for another of its slice, since a slice is one level.
KERNEL __launch_bounds__(512, 2)
    longest_dataflow(u32 slices, const u32* __restrict__ slice_task, const u32* __restrict__ slice_slot,
                     const u32* __restrict__ source, const u32* __restrict__ duration, u32* finish, u32* latest) {
    u32 warps = gridDim.x * blockDim.x / LANES;
    u32 largest = 0;
    for (u32 slice = (blockIdx.x * blockDim.x + threadIdx.x) / LANES; slice < slices; slice += warps)
        largest = max(largest, time_slice(slice, slice_task, slice_slot, source, duration, finish));
    largest = tile_max(ALL_LANES, largest, LANES);
    if (threadIdx.x % LANES == 0) atomicMax(latest, largest);
}

// Deep and narrow graphs: the order is cut into chunks where few tasks before the cut are still waited for (at most 31:
// the live ones). A path through a chunk starts at a live task or inside; so the chunks can be timed at the same time,
// each for 32 starts, and be joined afterwards, in (max, +) arithmetic (timing::chunks).
//
// A length is held as length + 1, zero where there is no path: no sentinel can grow into a real length.
//
// chunk_task [chunks + 1]; offset [tasks + 1], reference [edges]: a place, or ~index of a live task; carried
// [chunks][32]: what becomes live task k of the next chunk, in the same code, NONE where there are fewer;
// path [tasks][32]: the longest path to a task's end from live task k, in lane 31 from inside the chunk;
// matrix [chunks][32 from][32 to]; start [chunks + 1][32]: the finish of every live task.

static const u32 INSIDE = 31;                     // the lane of paths that start inside the chunk
static const int NO_REFERENCE = -2147483647 - 1;  // as `carried` writes NONE

// The path of this lane to what a reference names.
__device__ __forceinline__ u32 path_to(int reference, u32 lane, const u32* path) {
    if (reference >= 0) return path[(u64)reference * LANES + lane];
    return reference != NO_REFERENCE && (u32)~reference == lane ? 1u : 0u;
}

// A warp a chunk; lane k follows the paths from live task k. No lane reads what another has written.
KERNEL __launch_bounds__(128) transfer_chunks(u32 chunks, const u32* __restrict__ chunk_task, const u32* __restrict__ offset,
                                              const int* __restrict__ reference, const int* __restrict__ carried,
                                              const u32* __restrict__ duration, u32* path, u32* __restrict__ matrix) {
    u32 chunk = (blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    u32 lane = threadIdx.x % LANES;
    if (chunk >= chunks) return;
    for (u32 task = chunk_task[chunk]; task < chunk_task[chunk + 1]; task++) {
        u32 longest = lane == INSIDE ? 1u : 0u;
        for (u32 edge = offset[task]; edge < offset[task + 1]; edge++)
            longest = max(longest, path_to(reference[edge], lane, path));
        path[(u64)task * LANES + lane] = longest == 0 ? 0 : longest + duration[task];
    }
    for (u32 to = 0; to < LANES; to++)
        matrix[((u64)chunk * LANES + lane) * LANES + to] = path_to(carried[chunk * LANES + to], lane, path);
}

// One warp walks the chunks: lane k holds the finish of live task k. The next matrix is loaded while this one is used.
KERNEL __launch_bounds__(32) transfer_scan(u32 chunks, const u32* __restrict__ matrix, u32* __restrict__ start) {
    u32 lane = threadIdx.x;
    u32 now = lane == INSIDE ? 1u : 0u;
    u32 next[LANES];
    start[lane] = now;
#pragma unroll
    for (u32 k = 0; k < LANES; k++) next[k] = chunks == 0 ? 0 : matrix[k * LANES + lane];
    for (u32 chunk = 0; chunk < chunks; chunk++) {
        u32 reached = 0;
        const u32* ahead = matrix + (u64)(chunk + 1 < chunks ? chunk + 1 : chunk) * LANES * LANES;
#pragma unroll
        for (u32 k = 0; k < LANES; k++) {
            u32 before = __shfl_sync(ALL_LANES, now, (int)k);
            if (before != 0 && next[k] != 0) reached = max(reached, before + next[k] - 1);
            next[k] = ahead[k * LANES + lane];
        }
        now = lane == INSIDE ? 1u : reached;
        start[(u64)(chunk + 1) * LANES + lane] = now;
    }
}

// A warp a task, grid-stride: joins the paths inside a chunk with the finishes of its live tasks. chunk_of [tasks].
KERNEL __launch_bounds__(256) transfer_finish(u32 tasks, const u32* __restrict__ chunk_of, const u32* __restrict__ path,
                                              const u32* __restrict__ start, u32* __restrict__ finish, u32* latest) {
    u32 warps = gridDim.x * blockDim.x / LANES;
    u32 lane = threadIdx.x % LANES;
    u32 largest = 0;
    for (u32 task = (blockIdx.x * blockDim.x + threadIdx.x) / LANES; task < tasks; task += warps) {
        u32 inside = path[(u64)task * LANES + lane], before = start[(u64)chunk_of[task] * LANES + lane];
        u32 end = inside == 0 || before == 0 ? 0 : before + inside - 2;
        end = tile_max(ALL_LANES, end, LANES);
        if (lane == 0) finish[task] = end;
        largest = max(largest, end);
    }
    if (lane == 0) atomicMax(latest, largest);
}

// Earliest start, latest start and slack of every task, by TaskId. forward, backward [tasks]: the place of a task in the
// two layouts; finish, tail: what the kernels above made of them; duration by TaskId; makespan [1].
KERNEL __launch_bounds__(256)
    slack(u32 tasks, const u32* __restrict__ forward, const u32* __restrict__ backward, const u32* __restrict__ finish,
          const u32* __restrict__ tail, const u32* __restrict__ duration, const u32* __restrict__ makespan,
          u32* __restrict__ earliest_start, u32* __restrict__ latest_start, u32* __restrict__ slack_of) {
    u32 threads = gridDim.x * blockDim.x;
    for (u32 task = blockIdx.x * blockDim.x + threadIdx.x; task < tasks; task += threads) {
        u32 early = finish[forward[task]] - duration[task];
        u32 late = *makespan - tail[backward[task]];
        earliest_start[task] = early;
        latest_start[task] = late;
        slack_of[task] = late - early;
    }
}
