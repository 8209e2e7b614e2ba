//! What the real machine is: NVML, `/proc`, cgroups. Unknown is a value, never zero.
