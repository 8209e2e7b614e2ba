//! Whether an attempt that failed ran out of memory: by what it printed, or by what the kernel counted.
//!
//! Frameworks say it in many words and exit with 1, 101 or 134; the kernel kills with signal 9 and says nothing to the
//! process, but counts. What was measured on the devices is not known here.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::probe::cgroup::{self, Controller, Version};

/// Which memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// That of a device: the n-th of those that the attempt sees, if it said which.
    Device(Option<usize>),
    /// The host's.
    Host,
}

/// Words of PyTorch, libtorch, JAX, TensorFlow, cuBLAS, cuDNN, CuPy and raw CUDA.
const DEVICE: [&str; 11] = [
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "OOM when allocating tensor",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "torch.OutOfMemoryError",
    "torch.cuda.OutOfMemoryError",
    "cupy.cuda.memory.OutOfMemoryError",
    "RESOURCE_EXHAUSTED: Out of memory",
];

/// Words of PyTorch's CPU allocator, Python, Java, C++ and Rust.
const HOST: [&str; 5] = [
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MemoryError",
    "std::bad_alloc",
    "memory allocation of",
];

/// Recognises what an attempt prints when memory runs out. `output` is the end of its log.
pub(super) fn recognise(output: &[u8]) -> Option<Memory> {
    let text = String::from_utf8_lossy(output);
    // TensorFlow has the same words for both memories, and names the place.
    let on_cpu = text.contains("OOM when allocating tensor") && text.contains("device:CPU:");
    if let Some(at) = DEVICE.iter().filter_map(|words| text.find(words)).min().filter(|_| !on_cpu) {
        Some(Memory::Device(device_named(&text[at..])))
    } else if on_cpu || HOST.iter().any(|words| text.contains(words)) {
        Some(Memory::Host)
    } else {
        None
    }
}

/// Returns the device that a message names: `GPU 1 has a total capacity …`, `(GPU 1; …`, `device:GPU:1`.
fn device_named(message: &str) -> Option<usize> {
    let message = message.lines().next()?;
    ["device:GPU:", "GPU "].iter().find_map(|before| {
        let (_, behind) = message.split_once(before)?;
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

/// The kernel's count of processes that it killed for want of memory: in our control group if it counts, else on the
/// whole machine.
#[derive(Debug)]
pub(super) struct Kills {
    /// Kept open: the count is read before every attempt.
    file: Option<File>,
}

impl Kills {
    /// Finds out where to read. `root` holds `proc`.
    pub(super) fn new(root: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
        let (groups, mounts) = (text("proc/self/cgroup"), text("proc/self/mountinfo"));
        let own = cgroup::folders(&groups, &mounts, Controller::Memory).into_iter().next();
        let counter = own.map(|(version, folder)| {
            folder.join(match version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            })
        });
        let candidates = counter.into_iter().chain([root.join("proc/vmstat")]);
        let mut open = candidates.filter_map(|file| File::open(file).ok());
        Self { file: open.find(|file| count(file).is_some()) }
    }

    /// Returns the count now; `None` where the kernel does not tell.
    pub(super) fn count(&self) -> Option<u64> {
        count(self.file.as_ref()?)
    }
}

/// Reads the line `oom_kill N`, which all three files have.
fn count(file: &File) -> Option<u64> {
    let (mut text, mut length) = ([0; 16 << 10], 0);
    // The kernel writes it anew for whoever reads from its beginning.
    loop {
        match file.read_at(&mut text[length..], u64::try_from(length).ok()?).ok()? {
            0 => break,
            read => length += read,
        }
    }
    let text = std::str::from_utf8(&text[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages as the programs print them, and whose memory it was.
    const KNOWN: [(&str, Memory); 17] = [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of \
             79.15 GiB of which 1.20 GiB is free.",
            Memory::Device(Some(1)),
        ),
        (
            "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.75 GiB total capacty; 14.6 GiB \
             already allocated)",
            Memory::Device(Some(0)),
        ),
        ("torch.cuda.OutOfMemoryError: Allocation on device", Memory::Device(None)),
        ("RuntimeError: CUDA error: out of memory", Memory::Device(None)),
        (
            "thread 'main' panicked: called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to",
            Memory::Device(None),
        ),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`", Memory::Device(None)),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", Memory::Device(None)),
        (
            "jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 86.89GiB.",
            Memory::Device(None),
        ),
        (
            "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 70368744177664 bytes.",
            Memory::Device(None),
        ),
        (
            "ResourceExhaustedError: OOM when allocating tensor with shape[8,9] and type float on \
             /job:localhost/replica:0/task:0/device:GPU:3 by allocator GPU_3_bfc",
            Memory::Device(Some(3)),
        ),
        (
            "ResourceExhaustedError: OOM when allocating tensor with shape[8] on \
             /job:localhost/replica:0/task:0/device:CPU:0 by allocator cpu",
            Memory::Host,
        ),
        ("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")", Memory::Device(None)),
        ("cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 8,589,934,592 bytes", Memory::Device(None)),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to \
             allocate 1 bytes. Error code 12 (Cannot allocate memory)",
            Memory::Host,
        ),
        ("Traceback\nMemoryError\n", Memory::Host),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1.00 TiB for an array", Memory::Host),
        ("terminate called after throwing an instance of 'std::bad_alloc'", Memory::Host),
    ];

    #[test]
    fn out_of_memory_is_told_apart_by_whose_memory_it_was() {
        for (message, memory) in KNOWN {
            assert_eq!(recognise(message.as_bytes()), Some(memory), "{message}");
        }
    }

    #[test]
    fn other_failures_are_not_taken_for_it() {
        for message in
            ["Segmentation fault", "RuntimeError: CUDA error: device-side assert triggered", "memory: 3 GiB", ""]
        {
            assert_eq!(recognise(message.as_bytes()), None, "{message}");
        }
    }

    #[test]
    fn the_kernels_count_is_read_from_our_group_before_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/vmstat", "pgfault 12\noom_kill 41\n");
        assert_eq!(Kills::new(root.path()).count(), Some(41));
        let point = root.path().join("cg").display().to_string();
        write("proc/self/cgroup", "0::/job\n");
        write("proc/self/mountinfo", &format!("29 23 0:26 / {point} rw - cgroup2 cgroup2 rw\n"));
        write("cg/job/memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n");
        let kills = Kills::new(root.path());
        assert_eq!(kills.count(), Some(2));
        write("cg/job/memory.events", "oom_kill 3\n");
        assert_eq!(kills.count(), Some(3));
        assert_eq!(Kills::new(Path::new("/no/such/root")).count(), None);
    }
}
