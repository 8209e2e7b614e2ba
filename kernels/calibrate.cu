// How much a device does in a time: chains of fused multiply-adds that nothing else waits for, and copies in its memory.
//
// Units      floats of 32 bits, as patterns of bits in `sum`; words of 16 bytes.
// Shapes     sum [threads]: what each thread's chains come to, so that no work can be left out. from, to [words].
// Threads    fused_multiply_adds: any grid of whole blocks; every thread does CHAINS * STEPS * rounds of them.
//            copy_words: any grid; every thread takes a word in as many as there are threads.
// Must equal cuda::pace::chains, bit for bit; a copy is what it was copied from.

#include "device.cuh"

static const u32 CHAINS = 8; // enough in flight to hide how long one takes
static const u32 STEPS = 16; // of each chain in a round: the loop's own work is small beside them
static const u32 AT_ONCE = 4; // words of a thread that are under way together

KERNEL __launch_bounds__(256) fused_multiply_adds(u32 rounds, u32* __restrict__ sum) {
    float chain[CHAINS];
#pragma unroll
    for (u32 c = 0; c < CHAINS; c++) chain[c] = (float)(threadIdx.x + c);
    for (u32 round = 0; round < rounds; round++) {
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
#pragma unroll
            for (u32 c = 0; c < CHAINS; c++) chain[c] = fmaf(chain[c], 0.5f, 1.0f);
        }
    }
    u32 bits = 0;
#pragma unroll
    for (u32 c = 0; c < CHAINS; c++) bits += __float_as_uint(chain[c]);
    sum[blockIdx.x * blockDim.x + threadIdx.x] = bits;
}

KERNEL copy_words(u64 words, const uint4* __restrict__ from, uint4* __restrict__ to) {
    u64 threads = (u64)gridDim.x * blockDim.x;
    u64 word = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    for (; word + (AT_ONCE - 1) * threads < words; word += AT_ONCE * threads) {
        uint4 held[AT_ONCE];
#pragma unroll
        for (u32 k = 0; k < AT_ONCE; k++) held[k] = __ldcs(from + word + k * threads);
#pragma unroll
        for (u32 k = 0; k < AT_ONCE; k++) __stcs(to + word + k * threads, held[k]);
    }
    for (; word < words; word += threads) __stcs(to + word, __ldcs(from + word));
}
