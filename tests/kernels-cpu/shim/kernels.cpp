// All kernels in one unit, and the call that starts one by name.
#include "cuda_cpu.hpp"

#include "load_matrix.cu"
RUNS_ON_CPU(load_matrix);
RUNS_ON_CPU(fastest_device);

#include "timing.cu"
RUNS_ON_CPU(longest_levels);
RUNS_ON_CPU(longest_dataflow);
RUNS_ON_CPU(transfer_chunks);
RUNS_ON_CPU(transfer_scan);
RUNS_ON_CPU(transfer_finish);
RUNS_ON_CPU(slack);


#include "batch_timing.cu"
RUNS_ON_CPU(batch_timing);

#include "list_schedule.cu"
RUNS_ON_CPU(list_schedule);

#include "sgs.cu"
RUNS_ON_CPU(sgs);

// On a device every file is a program of its own: two of them may give a constant the same name.
namespace calibrate {
#include "calibrate.cu"
RUNS_ON_CPU(fused_multiply_adds);
RUNS_ON_CPU(copy_words);
} // namespace calibrate

namespace search {
#include "search.cu"
RUNS_ON_CPU(ant_orders);
RUNS_ON_CPU(swarm_orders);
RUNS_ON_CPU(children);
RUNS_ON_CPU(neighbours);
RUNS_ON_CPU(settle);
RUNS_ON_CPU(leaders);
RUNS_ON_CPU(fade);
RUNS_ON_CPU(leave);
RUNS_ON_CPU(scatter);
RUNS_ON_CPU(fly);
} // namespace search

// Arguments as cuLaunchKernel takes them. Returns 0; 500 (CUDA_ERROR_NOT_FOUND) for a name that is not known; 1
// (CUDA_ERROR_INVALID_VALUE) for a size that no device takes.
extern "C" int kernels_cpu_launch(const char* name, unsigned grid, unsigned block, unsigned shared_bytes, int cooperative,
                                  unsigned order, void** params) {
    auto kernel = cuda_cpu::kernels().find(name);
    if (kernel == cuda_cpu::kernels().end()) return 500;
    if (grid == 0 || block == 0 || block > 1024 || shared_bytes > 227 * 1024) return 1;
    kernel->second(params, {{grid, 1, 1}, {block, 1, 1}, shared_bytes, order, cooperative != 0});
    return 0;
}
