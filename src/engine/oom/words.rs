//! The words by which programs say that memory ran out, and whose, or that a device is busy: one line by itself.

use super::Memory;

/// Words of PyTorch, libtorch, TensorFlow, CUDA's libraries, CuPy, RMM, Paddle, XGBoost, vLLM, SGLang, Accelerate, Julia and
/// raw CUDA.
const DEVICE: [&str; 24] = [
    "CUDA out of memory",
    "HIP out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "OOM when allocating tensor",
    "Dst tensor is not initialized",
    "Memory allocation error on worker",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "CURAND_STATUS_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "cupy.cuda.memory.OutOfMemoryError",
    "out_of_memory: CUDA error",
    "Out of memory error on GPU",
    "on startup is less than desired GPU memory utilization",
    "No available memory for the cache blocks",
    "larger than the available KV cache memory",
    "Not enough memory. Please try to increase --mem-fraction-static",
    "No executable batch size found",
    "Out of GPU memory",
];

/// Words of JAX and ONNX Runtime.
const COMPUTING: [&str; 4] = [
    "RESOURCE_EXHAUSTED: Out of memory",
    "RESOURCE_EXHAUSTED: Failed to allocate request",
    "bytes for new constant",
    "Failed to allocate memory for requested buffer of size",
];

/// What a line says besides "out of memory" that is about a device, in small letters: of CUDA's own text, with the call or
/// the name of a macro before it, of Thrust's, NCCL's, Triton's and LightGBM's.
const BESIDE: [&str; 10] = [
    "cuda error",
    "cudaerror",
    "parallel_for failed",
    "cuda driver error",
    "cuda runtime",
    "gpuassert",
    "cuda failure",
    "triton error [cuda]",
    "[cuda] out of memory",
    "cudamalloc",
];

/// The names of TensorFlow's error, in Python and in C++.
const EXHAUSTED_NAMES: [&str; 2] = ["ResourceExhaustedError", "Resource exhausted:"];

/// What a line of TensorFlow's says besides the name of the error.
const EXHAUSTED: [&str; 2] = ["failed to allocate memory", "Out of memory while trying to allocate"];

/// Words of PyTorch's CPU allocator, TensorFlow's batches of data, Python, Java, C++ and Rust.
const HOST: [&str; 6] = [
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "Failed to allocate memory for the batch of component",
    "MemoryError",
    "std::bad_alloc",
    "memory allocation of",
];

/// Words of CUDA, and the names that its runtime and its driver have for the same error: 46 of both. PyTorch and others pass
/// them on.
const BUSY: [&str; 3] = ["busy or unavailable", "cudaErrorDevicesUnavailable", "CUDA_ERROR_DEVICE_UNAVAILABLE"];

/// Words of a program that goes on with less, in small letters.
const GOES_ON: [&str; 11] = [
    "retrying",
    "will retry",
    "trying again",
    "trying batch",
    "trying with",
    "reducing",
    "halving",
    "skipping",
    "falling back",
    "continuing",
    "going on",
];

/// Words of one that only says what its user could do, in small letters.
const ASKS: [&str; 5] = ["consider", "please", "try", "should", "by"];

/// How a line begins that gives advice, whatever goes wrong, in small letters.
const ADVICE: [&str; 5] = ["tip:", "hint:", "note:", "if you ", "in case of "];

/// Whether a line says that a device is busy, and lets no other process in.
pub(super) fn is_turned_away(line: &str) -> bool {
    BUSY.iter().any(|words| line.contains(words)) && !is_advice(&line.to_ascii_lowercase())
}

/// Whether a line in small letters gives advice, or warns of what may come.
fn is_advice(small: &str) -> bool {
    ADVICE.iter().any(|words| small.trim_start().starts_with(words)) || small.contains("userwarning: ")
}

/// Recognises a line that says that memory ran out.
pub(super) fn recognise(line: &str) -> Option<Memory> {
    let small = line.to_ascii_lowercase();
    if is_advice(&small) {
        return None;
    }
    // TensorFlow has the same words for both memories, and names the place.
    if line.contains("OOM when allocating tensor") && line.contains("device:CPU:") {
        return Some(Memory::Host);
    }
    let any = |words: &[&str]| words.iter().any(|words| line.contains(words));
    let raw = || small.contains("out of memory") && BESIDE.iter().any(|words| small.contains(words));
    let exhausted = || any(&EXHAUSTED_NAMES) && any(&EXHAUSTED);
    if any(&DEVICE) || raw() || exhausted() {
        return Some(Memory::Device(device_named(line)));
    }
    if any(&COMPUTING) {
        return Some(device_named(line).map_or(Memory::Computing, |device| Memory::Device(Some(device))));
    }
    any(&HOST).then_some(Memory::Host)
}

/// Whether a line that says that memory ran out says besides that the program goes on.
pub(super) fn goes_on(line: &str) -> bool {
    let small = line.to_ascii_lowercase();
    let asks = || small.split(|c: char| !c.is_alphanumeric()).any(|word| ASKS.contains(&word));
    GOES_ON.iter().any(|words| small.contains(words)) && !asks()
}

/// Returns the device that a message names: `GPU 1 has a total capacity …`, `(GPU 1; …`, `device:GPU:1`.
fn device_named(message: &str) -> Option<usize> {
    ["GPU:", "device ordinal ", "GPU "].iter().find_map(|before| {
        let (_, behind) = message.split_once(before)?;
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}
