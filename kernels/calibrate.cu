// How much arithmetic a device does in a time: chains of fused multiply-adds that nothing else waits for.
//
// Units      floats of 32 bits, as patterns of bits in `sum`.
// Shapes     sum [threads]: what each thread's chains come to, so that no work can be left out.
// Threads    fused_multiply_adds: any grid of whole blocks; every thread does CHAINS * STEPS * rounds of them.
// Must equal cuda::pace::chains, bit for bit.

#include "device.cuh"

static const u32 CHAINS = 8; // enough in flight to hide how long one takes
static const u32 STEPS = 16; // of each chain in a round: the loop's own work is small beside them

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
