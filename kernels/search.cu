// Search among orders of tasks, for thousands of candidates at once: the moves of a genetic algorithm, of simulated
// annealing, of ant colonies and of particle swarms. How good an order is, list_schedule.cu and sgs.cu say.
//
// Units      makespans and temperatures in ticks, below 2^31, NEVER where there is none yet. Keys, trails and tables are
//            fixed point with 16 bits behind the point unless they say otherwise (batch::search::tables). No floats.
// Shapes     order, child [candidates][tasks]: tasks, sources before those that wait for them. offset [tasks + 1] and
//            source [edges]: who comes before a task; next_offset [tasks + 1] and target [edges]: who waits for it.
//            trail [blocks][tasks]; key, velocity, best [candidates][tasks]; found, makespan [candidates].
// Threads    warp = candidate where orders are made or copied; a thread for each value where values are all alike; one
//            block for `leaders`.
// Randomness counters, not states (Philox): what is drawn depends on the seed, the purpose, the generation, the candidate
//            and the number of the draw, so that no thread depends on another and the CPU draws the same.
// Must equal the functions of batch::search of the same names, bit for bit.
// Sources: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011 (Philox4x32-10); Hartmann, "A competitive
// genetic algorithm for resource-constrained project scheduling", 1998 (two-point crossover of activity lists);
// Kirkpatrick et al., 1983; Dorigo and Gambardella, "Ant colony system", 1997; Kennedy and Eberhart, 1995.

#include "device.cuh"

static const u32 NEVER = 0xffffffffu;

// What numbers are drawn for: no two kernels see the same ones.
static const u32 FOR_PLACES = 1, FOR_CHILDREN = 2, FOR_NEIGHBOURS = 3, FOR_CHANCE = 4, FOR_FIRST = 5, FOR_FLIGHT = 6;

static const u32 LEAST_TRAIL = 1311;    // 0.02: nothing is out of the question
static const u32 FADES = 5243;          // 0.08 of a trail goes in a generation
static const u32 TEMPERS = 8;           // ants that follow chance wholly, by a half, and so on to a 128th
static const int WHOLE_KEY = 1 << 20;   // keys of particles have 20 bits behind the point
static const int SPREAD = 157286;       // 0.15: how far particles lie apart at first, and how fast one may fly
static const long long INERTIA = 47776; // 0.729
static const long long PULL = 97911;    // 1.494

struct Draw {
    u32 a, b, c, d;
};

// Philox4x32-10.
__device__ __forceinline__ Draw draw(u64 seed, u32 purpose, u32 generation, u32 candidate, u32 number) {
    Draw at = {number, candidate, generation, purpose};
    u32 low = (u32)seed, high = (u32)(seed >> 32);
#pragma unroll
    for (u32 round = 0; round < 10; round++) {
        u64 p = (u64)0xD2511F53u * at.a, q = (u64)0xCD9E8D57u * at.c;
        at = {(u32)(q >> 32) ^ at.b ^ low, (u32)q, (u32)(p >> 32) ^ at.d ^ high, (u32)p};
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
    return at;
}

// A number below `end`.
__device__ __forceinline__ u32 below(u32 drawn, u32 end) { return (u32)((u64)drawn * end >> 32); }

__device__ __forceinline__ u32 bits_before(u32 lane) { return (1u << lane) - 1; }

__device__ __forceinline__ u32 warp_of_grid() { return blockIdx.x * (blockDim.x / LANES) + threadIdx.x / LANES; }

// ---- orders from keys ----

// Builds an order: of the tasks that are ready, the one with the smallest key comes next, the first among equals. `key` is
// asked when a task becomes ready and again when the place enters another of `blocks` equal parts of the order.
// Shared memory a warp: [tasks] words for sources that are missing, [tasks] for keys, [tasks] half words for what is ready.
template <class Key>
__device__ __forceinline__ void build(u32 tasks, u32 blocks, const u32* __restrict__ offset,
                                      const u32* __restrict__ next_offset, const u16* __restrict__ target,
                                      u32* shared, u16* out, Key key) {
    u32 lane = threadIdx.x % LANES;
    u32* missing = shared;
    u32* keys = missing + tasks;
    u16* ready = reinterpret_cast<u16*>(keys + tasks);
    u32 n_ready = 0, block = 0;
    for (u32 first = 0; first < tasks; first += LANES) {
        u32 task = first + lane;
        u32 sources = task < tasks ? offset[task + 1] - offset[task] : NEVER;
        if (task < tasks) missing[task] = sources;
        u32 votes = __ballot_sync(ALL_LANES, sources == 0);
        u32 slot = n_ready + __popc(votes & bits_before(lane));
        if (sources == 0) ready[slot] = (u16)task, keys[slot] = key(task, 0);
        n_ready += __popc(votes);
    }
    __syncwarp(ALL_LANES);
    for (u32 place = 0; place < tasks; place++) {
        u32 now = place * blocks / tasks;
        if (now != block) {
            block = now;
            for (u32 slot = lane; slot < n_ready; slot += LANES) keys[slot] = key(ready[slot], block);
            __syncwarp(ALL_LANES);
        }
        u64 least = ~0ull;
        for (u32 slot = lane; slot < n_ready; slot += LANES)
            least = min(least, (u64)keys[slot] << 32 | (u32)ready[slot] << 16 | slot);
        least = tile_min(ALL_LANES, least, LANES);
        u32 task = (u32)least >> 16, slot = (u32)least & 0xffff;
        n_ready -= 1;
        __syncwarp(ALL_LANES);
        if (lane == 0) {
            out[place] = (u16)task;
            ready[slot] = ready[n_ready];
            keys[slot] = keys[n_ready];
        }
        __syncwarp(ALL_LANES);
        u32 end = next_offset[task + 1];
        for (u32 first = next_offset[task]; first < end; first += LANES) {
            u32 reader = first + lane < end ? target[first + lane] : 0;
            // An edge may be there twice, in two lanes.
            bool is_ready = first + lane < end && atomicAdd(&missing[reader], NEVER) == 1;
            u32 votes = __ballot_sync(ALL_LANES, is_ready);
            u32 slot = n_ready + __popc(votes & bits_before(lane));
            if (is_ready) ready[slot] = (u16)reader, keys[slot] = key(reader, block);
            n_ready += __popc(votes);
        }
        __syncwarp(ALL_LANES);
    }
}

// The logarithm of a trail to the base of 2; `fraction` [256] has that of a mantissa.
__device__ __forceinline__ u32 logarithm(u32 value, const u32* __restrict__ fraction) {
    u32 zeros = (u32)__clz((int)value);
    return (31 - zeros) << 16 | fraction[(value << zeros) >> 23 & 255];
}

// Signed keys in the order of unsigned ones.
__device__ __forceinline__ u32 sortable(int key) { return (u32)key ^ 0x80000000u; }

// Ants: a task's key is what chance gives it, less what the trail at this part of the order and its urgency promise: so
// the smallest key wins an exponential race, and each task is as likely to come next as its weight says.
KERNEL __launch_bounds__(128) ant_orders(u32 tasks, u32 candidates, u32 blocks, u64 seed, u32 generation,
                                         const u32* __restrict__ offset, const u32* __restrict__ next_offset,
                                         const u16* __restrict__ target, const u32* __restrict__ trail,
                                         const u32* __restrict__ bias, const u32* __restrict__ race,
                                         const u32* __restrict__ fraction, u16* __restrict__ child) {
    u32 candidate = warp_of_grid();
    if (candidate >= candidates) return;
    u32* shared = shared_memory<u32>() + (u64)(threadIdx.x / LANES) * (2 * tasks + (tasks + 1) / 2);
    u32 temper = candidate % TEMPERS;
    build(tasks, blocks, offset, next_offset, target, shared, child + (u64)candidate * tasks, [&](u32 task, u32 block) {
        u32 chance = draw(seed, FOR_PLACES, generation, candidate, block << 16 | task).a;
        int key = ((int)race[chance >> 20] >> temper) + (int)bias[task];
        return sortable(key - (int)logarithm(trail[(u64)block * tasks + task], fraction));
    });
}

// Particles: a task's key is the particle's.
KERNEL __launch_bounds__(128) swarm_orders(u32 tasks, u32 candidates, const u32* __restrict__ offset,
                                           const u32* __restrict__ next_offset, const u16* __restrict__ target,
                                           const u32* __restrict__ key, u16* __restrict__ child) {
    u32 candidate = warp_of_grid();
    if (candidate >= candidates) return;
    u32* shared = shared_memory<u32>() + (u64)(threadIdx.x / LANES) * (2 * tasks + (tasks + 1) / 2);
    const u32* own = key + (u64)candidate * tasks;
    build(tasks, 1, offset, next_offset, target, shared, child + (u64)candidate * tasks,
          [&](u32 task, u32) { return sortable((int)own[task]); });
}

// ---- orders from orders ----

__device__ __forceinline__ bool is_marked(const u32* marks, u32 task) { return marks[task / 32] >> task % 32 & 1; }

// Moves the task at a drawn place to another one between the last of its sources and the first that waits for it.
// `marks` [tasks] bits are clear before and behind it.
__device__ __forceinline__ void shift(u32 tasks, const u32* __restrict__ offset, const u16* __restrict__ source,
                                      const u32* __restrict__ next_offset, const u16* __restrict__ target,
                                      u32* marks, u16* order, u32 which, u32 where) {
    u32 lane = threadIdx.x % LANES;
    u32 at = below(which, tasks), task = order[at];
    for (u32 k = offset[task] + lane; k < offset[task + 1]; k += LANES)
        atomicOr(&marks[source[k] / 32], 1u << source[k] % 32);
    for (u32 k = next_offset[task] + lane; k < next_offset[task + 1]; k += LANES)
        atomicOr(&marks[target[k] / 32], 1u << target[k] % 32);
    __syncwarp(ALL_LANES);
    u32 first = at;
    for (bool open = true; open && first > 0;) {
        u32 votes = __ballot_sync(ALL_LANES, lane < first && is_marked(marks, order[lane < first ? first - 1 - lane : 0]));
        u32 clear = votes == 0 ? LANES : (u32)__ffs((int)votes) - 1;
        open = votes == 0;
        first -= min(clear, first);
    }
    u32 last = at;
    for (bool open = true; open && last + 1 < tasks;) {
        u32 place = last + 1 + lane;
        u32 votes = __ballot_sync(ALL_LANES, place < tasks && is_marked(marks, order[min(place, tasks - 1)]));
        u32 clear = votes == 0 ? LANES : (u32)__ffs((int)votes) - 1;
        open = votes == 0;
        last = min(last + clear, tasks - 1);
    }
    __syncwarp(ALL_LANES);
    for (u32 k = offset[task] + lane; k < offset[task + 1]; k += LANES) marks[source[k] / 32] = 0;
    for (u32 k = next_offset[task] + lane; k < next_offset[task + 1]; k += LANES) marks[target[k] / 32] = 0;
    __syncwarp(ALL_LANES);
    if (first == last) return;
    u32 to = first + below(where, last - first);
    to += to >= at;
    // Those between move up by one, a warp at a time, from the end that the task leaves.
    u32 between = to > at ? to - at : at - to;
    for (u32 done = 0; done < between; done += LANES) {
        bool moves = done + lane < between;
        u32 to_here = to > at ? at + done + lane : at - done - lane;
        u16 moved = moves ? order[to > at ? to_here + 1 : to_here - 1] : 0;
        __syncwarp(ALL_LANES);
        if (moves) order[to_here] = moved;
        __syncwarp(ALL_LANES);
    }
    if (lane == 0) order[to] = (u16)task;
    __syncwarp(ALL_LANES);
}

__device__ __forceinline__ u32* clear_marks(u32 tasks) {
    u32 words = (tasks + 31) / 32;
    u32* marks = shared_memory<u32>() + (u64)(threadIdx.x / LANES) * words;
    for (u32 word = threadIdx.x % LANES; word < words; word += LANES) marks[word] = 0;
    __syncwarp(ALL_LANES);
    return marks;
}

// Copies tasks of an order that are not marked to `out`, in their order, and marks them: at most `most`. Returns how many.
__device__ __forceinline__ u32 take(u32 tasks, const u16* __restrict__ from, u32* marks, u16* out, u32 most) {
    u32 lane = threadIdx.x % LANES, taken = 0;
    for (u32 first = 0; first < tasks && taken < most; first += LANES) {
        u32 task = first + lane < tasks ? from[first + lane] : 0;
        bool is_new = first + lane < tasks && !is_marked(marks, task);
        u32 votes = __ballot_sync(ALL_LANES, is_new);
        u32 place = taken + __popc(votes & bits_before(lane));
        __syncwarp(ALL_LANES);
        if (is_new && place < most) {
            out[place] = (u16)task;
            atomicOr(&marks[task / 32], 1u << task % 32);
        }
        taken = min(taken + __popc(votes), most);
        __syncwarp(ALL_LANES);
    }
    return taken;
}

// The genetic algorithm: a child has the beginning of its father, then what comes first in its mother, then the rest as in
// its father; up to three of its tasks are shifted. The father is the candidate in whose place the child may come, the
// mother the better of two that are drawn.
KERNEL __launch_bounds__(128) children(u32 tasks, u32 candidates, u64 seed, u32 generation,
                                       const u32* __restrict__ offset, const u16* __restrict__ source,
                                       const u32* __restrict__ next_offset, const u16* __restrict__ target,
                                       const u16* __restrict__ order, const u32* __restrict__ makespan, u16* child) {
    u32 candidate = warp_of_grid();
    if (candidate >= candidates) return;
    u32 lane = threadIdx.x % LANES;
    Draw drawn = draw(seed, FOR_CHILDREN, generation, candidate, 0);
    u32 one = below(drawn.a, candidates), other = below(drawn.b, candidates);
    const u16* father = order + (u64)candidate * tasks;
    const u16* mother = order + (u64)(makespan[other] < makespan[one] ? other : one) * tasks;
    u32 cut = below(drawn.c, tasks + 1), end = below(drawn.d, tasks + 1);
    u32 begin = min(cut, end);
    end = max(cut, end);
    u16* own = child + (u64)candidate * tasks;
    u32* marks = clear_marks(tasks);
    take(tasks, father, marks, own, begin);
    take(tasks, mother, marks, own + begin, end - begin);
    take(tasks, father, marks, own + end, tasks - end);
    __syncwarp(ALL_LANES);
    for (u32 word = lane; word < (tasks + 31) / 32; word += LANES) marks[word] = 0;
    __syncwarp(ALL_LANES);
    u32 shifts = draw(seed, FOR_CHILDREN, generation, candidate, 1).a % 4;
    for (u32 number = 0; number < shifts; number++) {
        Draw moved = draw(seed, FOR_CHILDREN, generation, candidate, 2 + number);
        shift(tasks, offset, source, next_offset, target, marks, own, moved.a, moved.b);
    }
}

// Simulated annealing: a neighbour has one or two tasks of the candidate's own order shifted.
KERNEL __launch_bounds__(128) neighbours(u32 tasks, u32 candidates, u64 seed, u32 generation,
                                         const u32* __restrict__ offset, const u16* __restrict__ source,
                                         const u32* __restrict__ next_offset, const u16* __restrict__ target,
                                         const u16* __restrict__ order, u16* child) {
    u32 candidate = warp_of_grid();
    if (candidate >= candidates) return;
    u16* own = child + (u64)candidate * tasks;
    for (u32 place = threadIdx.x % LANES; place < tasks; place += LANES) own[place] = order[(u64)candidate * tasks + place];
    u32* marks = clear_marks(tasks);
    u32 shifts = 1 + draw(seed, FOR_NEIGHBOURS, generation, candidate, 0).a % 2;
    for (u32 number = 0; number < shifts; number++) {
        Draw moved = draw(seed, FOR_NEIGHBOURS, generation, candidate, 1 + number);
        shift(tasks, offset, source, next_offset, target, marks, own, moved.a, moved.b);
    }
}

// ---- who stays ----

// A child takes the place of its candidate if it is longer by no more than chance allows at this temperature: Metropolis'
// rule, with the draw made first (`gap` [4096]: exponentially distributed). At zero it must not be longer. The particle's
// keys, `keys` of them or none, are copied with the order.
KERNEL __launch_bounds__(128) settle(u32 tasks, u32 keys, u32 candidates, u64 seed, u32 generation, u32 temperature,
                                     const u32* __restrict__ gap, const u16* __restrict__ child,
                                     const u32* __restrict__ found, const u32* __restrict__ key, u16* __restrict__ order,
                                     u32* makespan, u32* __restrict__ best) {
    u32 candidate = warp_of_grid(), lane = threadIdx.x % LANES;
    if (candidate >= candidates) return;
    u32 chance = draw(seed, FOR_CHANCE, generation, candidate, 0).a;
    u64 slack = (u64)temperature * gap[chance >> 20] >> 16;
    u32 is = found[candidate], was = makespan[candidate];
    __syncwarp(ALL_LANES);
    if (is > was + slack) return;
    u64 row = (u64)candidate * tasks, key_row = (u64)candidate * keys;
    for (u32 place = lane; place < tasks; place += LANES) order[row + place] = child[row + place];
    for (u32 task = lane; task < keys; task += LANES) best[key_row + task] = key[key_row + task];
    if (lane == 0) makespan[candidate] = is;
}

// The `wanted` candidates with the shortest makespans, the first among equals, at most as many as there are; behind them
// their makespans.
KERNEL __launch_bounds__(256) leaders(u32 candidates, u32 wanted, const u32* __restrict__ makespan, u32* __restrict__ leader) {
    u64* of_warp = shared_memory<u64>();
    u64 last = 0;
    for (u32 k = 0; k < wanted; k++) {
        u64 least = ~0ull;
        for (u32 candidate = threadIdx.x; candidate < candidates; candidate += blockDim.x) {
            u64 own = (u64)makespan[candidate] << 32 | candidate;
            if (k == 0 || own > last) least = min(least, own);
        }
        least = tile_min(ALL_LANES, least, LANES);
        if (threadIdx.x % LANES == 0) of_warp[threadIdx.x / LANES] = least;
        __syncthreads();
        for (u32 warp = 0; warp < blockDim.x / LANES; warp++) least = min(least, of_warp[warp]);
        __syncthreads();
        last = least;
        if (threadIdx.x == 0) leader[k] = (u32)least, leader[wanted + k] = (u32)(least >> 32);
    }
}

// ---- trails and flight ----

KERNEL __launch_bounds__(256) fade(u32 values, u32* trail) {
    u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= values) return;
    u32 was = trail[at];
    trail[at] = max(was - (u32)((u64)was * FADES >> 16), LEAST_TRAIL);
}

// Each of `n_leaders` leaves `gain` where its tasks are.
KERNEL __launch_bounds__(256) leave(u32 tasks, u32 blocks, u32 n_leaders, u32 gain, const u32* __restrict__ leader,
                                    const u16* __restrict__ order, u32* trail) {
    u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= tasks * n_leaders) return;
    u32 place = at % tasks, block = place * blocks / tasks;
    u32 task = order[(u64)leader[at / tasks] * tasks + place];
    atomicAdd(&trail[block * tasks + task], gain);
}

// A number from -SPREAD / 2 to SPREAD / 2.
__device__ __forceinline__ int spread(u32 drawn) { return (int)below(drawn, SPREAD + 1) - SPREAD / 2; }

// Particles start around one of `bases` [bases][tasks], the first of each just there, all with a small velocity.
KERNEL __launch_bounds__(256) scatter(u32 tasks, u32 candidates, u32 bases, u64 seed, const u32* __restrict__ base,
                                      u32* __restrict__ key, u32* __restrict__ velocity) {
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (u64)tasks * candidates) return;
    u32 task = (u32)(at % tasks), candidate = (u32)(at / tasks);
    Draw drawn = draw(seed, FOR_FIRST, 0, candidate, task);
    u32 around = base[candidate % bases * tasks + task];
    key[at] = around + (u32)(candidate < bases ? 0 : spread(drawn.a));
    velocity[at] = (u32)(spread(drawn.b) / 4);
}

// Particles fly on, pulled to where they were best and to where the best of all was: the first of `leader`.
KERNEL __launch_bounds__(256) fly(u32 tasks, u32 candidates, u64 seed, u32 generation, const u32* __restrict__ leader,
                                  const u32* __restrict__ best, u32* __restrict__ key, u32* __restrict__ velocity) {
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= (u64)tasks * candidates) return;
    u32 task = (u32)(at % tasks), candidate = (u32)(at / tasks);
    Draw drawn = draw(seed, FOR_FLIGHT, generation, candidate, task);
    long long is = (int)key[at], speed = (int)velocity[at];
    long long own = ((PULL * (drawn.a >> 16)) >> 16) * ((int)best[at] - is);
    long long common = ((PULL * (drawn.b >> 16)) >> 16) * ((int)best[(u64)leader[0] * tasks + task] - is);
    speed = (INERTIA * speed + own + common) >> 16;
    speed = min(max(speed, (long long)-SPREAD), (long long)SPREAD);
    is = min(max(is + speed, (long long)-WHOLE_KEY), (long long)(2 * WHOLE_KEY));
    key[at] = (u32)(int)is;
    velocity[at] = (u32)(int)speed;
}
