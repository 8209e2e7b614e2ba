// The longest path of one graph for many candidates at once: each chooses a duration for every task.
//
// Units      ticks: a common divisor of all durations; every path is shorter than 2^31 of them.
// Shapes     tape [words]: for each task in topological order the row that its finish goes to, the number of its sources,
//            and their rows. Rows are used again behind the last task that reads them (batch::tape).
//            times [tasks][kinds], in the order of the tape; choice [tasks][candidates]: which of them;
//            makespan [candidates].
// Threads    lane = candidate: a warp walks the whole tape for 32 candidates and never waits for another. Its rows lie in
//            shared memory, [rows][32] words a warp: whatever the graph, neighbouring lanes read neighbouring words.
// Must equal batch::timing::makespans, bit for bit.

#include "device.cuh"

KERNEL __launch_bounds__(128) batch_timing(u32 tasks, u32 candidates, u32 kinds, u32 rows, const u16* __restrict__ tape,
                                           const u32* __restrict__ times, const u8* __restrict__ choice,
                                           u32* __restrict__ makespan) {
    u32 lane = threadIdx.x % LANES;
    u32* finish = shared_memory<u32>() + (u64)(threadIdx.x / LANES) * rows * LANES + lane;
    u32 candidate = blockIdx.x * blockDim.x + threadIdx.x;
    // Lanes without a candidate do the last one's work: they cost nothing, and no lane has to be asked.
    u32 own = min(candidate, candidates - 1);
    u32 longest = 0;
    u32 kind = tasks == 0 ? 0 : choice[own];
    for (u32 task = 0; task < tasks; task++) {
        // The next choice is on its way while this task is timed.
        u32 next = task + 1 < tasks ? choice[(u64)(task + 1) * candidates + own] : 0;
        u32 row = tape[0], sources = tape[1];
        tape += 2;
        u32 start = 0, k = 0;
        for (; k + 4 <= sources; k += 4) {
            u32 a = finish[tape[k] * LANES], b = finish[tape[k + 1] * LANES];
            u32 c = finish[tape[k + 2] * LANES], d = finish[tape[k + 3] * LANES];
            start = max(start, max(max(a, b), max(c, d)));
        }
        for (; k < sources; k++) start = max(start, finish[tape[k] * LANES]);
        tape += sources;
        u32 end = start + times[(u64)task * kinds + kind];
        finish[row * LANES] = end;
        longest = max(longest, end);
        kind = next;
    }
    if (candidate < candidates) makespan[candidate] = longest;
}
