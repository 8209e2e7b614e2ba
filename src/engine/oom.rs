//! Whether an attempt that failed ran out of memory: by what it printed, or by what the kernel counted.
//!
//! Frameworks say it in many words and exit with 1, 101 or 134; the kernel kills with signal 9 and says nothing to the
//! process, but counts. What was measured on the devices is not known here. Also heard is whether a device was busy: one
//! that lets in one process at a time turns the others away with a message.

use std::sync::LazyLock;

use memchr::memmem::Finder;

mod kills;
mod trace;
mod words;

pub(in crate::engine) use kills::Kills;
use trace::{Heard, Traces};

use crate::run::launch::QUOTED;

/// Which memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// That of a device: the n-th of those that the attempt sees, if it said which.
    Device(Option<usize>),
    /// That of what it computes on, a device or the host: JAX has the same words for both.
    Computing,
    /// The host's.
    Host,
}

/// One of these is in every line that matters.
const RARE: [&str; 15] = [
    "emory",
    "allocate request",
    "bytes for new constant",
    "OUT_OF_MEMORY",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "OOM when",
    "Dst tensor",
    "bad_alloc",
    "navailable",
    "DEVICE_UNAVAILABLE",
    "executable batch size",
    "Traceback",
    "xception",
    "Error",
];

/// Searches for them, made once.
static FINDERS: LazyLock<[Finder<'static>; RARE.len()]> = LazyLock::new(|| RARE.map(Finder::new));

/// How much may be printed after the message by an attempt that ends of it: traces of many processes are long.
pub(super) const BEHIND: u64 = 1 << 20;

/// The most that is kept of a line that goes on.
const LINE: usize = 16 << 10;

/// Reads along what an attempt prints, for words that say that memory ran out.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// How much was printed before `rest`.
    read: u64,
    /// A line that has only begun.
    rest: Vec<u8>,
    device: Option<Said>,
    host: Option<Said>,
    turned_away: Option<Said>,
    traces: Traces,
    /// Where the last text ends that is no blank.
    end: u64,
}

/// A message about want of memory, or that a device is busy.
#[derive(Clone, Copy, Debug)]
struct Said {
    at: u64,
    /// Where its line ends.
    end: u64,
    /// The n-th device, if it was named.
    device: Option<usize>,
    /// Whether it may as well have been the host.
    computing: bool,
    /// Whether the program said that it goes on.
    goes_on: bool,
}

impl Listener {
    /// Takes in what was printed next.
    pub(super) fn hear(&mut self, output: &[u8]) {
        let Some(end) = memchr::memrchr2(b'\n', b'\r', output) else {
            return self.hold_back(output);
        };
        let (lines, rest) = output.split_at(end + 1);
        if self.rest.is_empty() {
            self.hear_lines(lines);
        } else {
            let mut joined = std::mem::take(&mut self.rest);
            joined.extend_from_slice(lines);
            self.hear_lines(&joined);
        }
        self.hold_back(rest);
    }

    /// Returns which memory ran out, by all that was printed.
    pub(super) fn verdict(&mut self) -> Option<Memory> {
        let rest = std::mem::take(&mut self.rest);
        self.hear_lines(&rest);
        let device = self.recent(self.device).map(|said| match said {
            Said { computing: true, device: None, .. } => Memory::Computing,
            Said { device, .. } => Memory::Device(device),
        });
        device.or(self.recent(self.host).map(|_| Memory::Host))
    }

    /// Whether a device was said to be busy, by all that was heard before the verdict.
    pub(super) fn was_turned_away(&self) -> bool {
        self.recent(self.turned_away).is_some()
    }

    /// Leaves out what was said long ago, or by one that has gone on.
    fn recent(&self, said: Option<Said>) -> Option<Said> {
        // Who says that he goes on, and says more then, has gone on.
        let went_on = |said: &Said| said.goes_on && said.end < self.end;
        said.filter(|said| self.read - said.at <= BEHIND && !went_on(said))
    }

    /// Whether the trace of an exception was printed.
    pub(super) const fn has_trace(&self) -> bool {
        self.traces.any
    }

    fn hold_back(&mut self, output: &[u8]) {
        self.rest.extend_from_slice(output);
        if self.rest.len() > 2 * LINE {
            let begun = std::mem::take(&mut self.rest);
            let (heard, rest) = begun.split_at(begun.len() - LINE);
            self.hear_lines(heard);
            self.rest = rest.to_vec();
        }
    }

    /// Looks closer at the lines that have any of the rare words.
    fn hear_lines(&mut self, text: &[u8]) {
        let mut lines: Vec<usize> = Vec::new();
        for finder in FINDERS.iter() {
            let mut from = 0;
            while let Some(at) = finder.find(&text[from..]) {
                let at = from + at;
                lines.push(memchr::memrchr2(b'\n', b'\r', &text[..at]).map_or(0, |before| before + 1));
                from = memchr::memchr2(b'\n', b'\r', &text[at..]).map_or(text.len(), |behind| at + behind);
            }
        }
        lines.sort_unstable();
        lines.dedup();
        for start in lines {
            let end = memchr::memchr2(b'\n', b'\r', &text[start..]).map_or(text.len(), |length| start + length);
            let line = text[start..end].trim_ascii_end();
            let at = self.read + start as u64;
            self.hear_line(&String::from_utf8_lossy(line), (at, at + line.len() as u64));
        }
        if let Some(last) = text.iter().rposition(|byte| !byte.is_ascii_whitespace()) {
            self.end = self.read + last as u64 + 1;
        }
        self.read += text.len() as u64;
    }

    /// Forgets what was said, but for what is to be kept.
    fn keep(&mut self, is_kept: impl Fn(&Said) -> bool) {
        for said in [&mut self.device, &mut self.host, &mut self.turned_away] {
            *said = said.filter(&is_kept);
        }
    }

    fn hear_line(&mut self, line: &str, (at, end): (u64, u64)) {
        if is_quoted(line) {
            return;
        }
        match self.traces.hear(line, at) {
            // It went on, and ends of something else; what the trace ends with may say otherwise.
            Some(Heard::Trace) => self.keep(|said| !said.goes_on),
            Some(Heard::Mistake { traced_from }) => self.keep(|said| said.at > traced_from),
            None => {}
        }
        let goes_on = words::goes_on(line);
        if words::is_turned_away(line) {
            self.turned_away = Some(Said { at, end, device: None, computing: false, goes_on });
        }
        let Some(memory) = words::recognise(line) else { return };
        let (said, device) = match memory {
            Memory::Device(device) => (&mut self.device, device),
            Memory::Computing => (&mut self.device, None),
            Memory::Host => (&mut self.host, None),
        };
        // Of several processes the first is followed by the others, some of which name no device.
        let stands = said.is_some_and(|said| at - said.at <= BEHIND && !said.goes_on && (goes_on || device.is_none()));
        let device = if stands { said.and_then(|said| said.device) } else { device };
        let computing = memory == Memory::Computing && said.is_none_or(|said| said.computing);
        *said = Some(Said { at, end, device, computing, goes_on: goes_on && !stands });
    }
}

/// Whether a run within the attempt quotes what a task of its own has printed: that task ran out of memory, and was helped by
/// that run as far as anything helps. Frames of tables and traces begin with the bar.
fn is_quoted(line: &str) -> bool {
    line.find(QUOTED).is_some_and(|at| at > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages as the programs print them, and whose memory it was.
    const KNOWN: [(&str, Memory); 53] = [
        ("│ OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. │", Memory::Device(None)),
        ("ERROR: LoadError: Out of GPU memory trying to allocate 10.000 GiB", Memory::Device(None)),
        ("RuntimeError: No executable batch size found, reached zero.", Memory::Device(None)),
        ("Resource exhausted: failed to allocate memory [Op:Add]", Memory::Device(None)),
        ("Detected at node x\nFailed to allocate memory for the batch of component 0", Memory::Host),
        ("InternalError: Dst tensor is not initialized.", Memory::Device(None)),
        ("thrust::system_error: parallel_for failed: out of memory", Memory::Device(None)),
        ("Error: out of memory (cudaError 2)", Memory::Device(None)),
        ("xgboost.core.XGBoostError: Memory allocation error on worker 0: bad", Memory::Device(None)),
        (
            "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 4294967296",
            Memory::Computing,
        ),
        ("RuntimeError: Triton Error [CUDA]: out of memory", Memory::Device(None)),
        ("RuntimeError: CUDA driver error: out of memory", Memory::Device(None)),
        (
            "ValueError: Free memory on device (10.2/23.99 GiB) on startup is less than desired GPU memory utilization \
             (0.9, 21.59 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            Memory::Device(None),
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when \
             initializing the engine.",
            Memory::Device(None),
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is \
             needed, which is larger than the available KV cache memory (3.21 GiB). Based on",
            Memory::Device(None),
        ),
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: 0.8",
            Memory::Device(None),
        ),
        ("INTERNAL: Failed to allocate 4294967296 bytes for new constant", Memory::Computing),
        ("CUDA out of memory. Consider reducing the batch size\nbye\n", Memory::Device(None)),
        (
            "InternalError: CUDA runtime implicit initialization on GPU:0 failed. Status: out of memory",
            Memory::Device(Some(0)),
        ),
        ("CUDA Runtime Error: out of memory", Memory::Device(None)),
        ("[LightGBM] [Fatal] [CUDA] out of memory /src/cuda/cuda_utils.cu 12", Memory::Device(None)),
        ("RuntimeError: cuFFT error: CUFFT_ALLOC_FAILED", Memory::Device(None)),
        ("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(h)`", Memory::Device(None)),
        ("ResourceExhaustedError: Out of memory error on GPU 1. Cannot allocate 2GB", Memory::Device(Some(1))),
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
            Memory::Computing,
        ),
        (
            "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 70368744177664 bytes.",
            Memory::Computing,
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
        ("GPUassert: out of memory k.cu 31", Memory::Device(None)),
        ("cudaMalloc failed: out of memory", Memory::Device(None)),
        (
            "ggml_backend_cuda: allocating 5000.00 MiB on device 0: cudaMalloc failed: out of memory",
            Memory::Device(None),
        ),
        ("CUDA Error: out of memory", Memory::Device(None)),
        ("ncclUnhandledCudaError: Call to CUDA function failed. Cuda failure 2 out of memory", Memory::Device(None)),
        ("NCCL WARN Cuda failure 2 'out of memory'", Memory::Device(None)),
        (
            "XlaRuntimeError: RESOURCE_EXHAUSTED: Failed to allocate request for 2.0GiB (2147483648B) on device ordinal 1",
            Memory::Device(Some(1)),
        ),
        (
            "ResourceExhaustedError: {{function_node __wrapped}} failed to allocate memory [Op:Mul]",
            Memory::Device(None),
        ),
        ("ResourceExhaustedError: Out of memory while trying to allocate 5 bytes", Memory::Device(None)),
        ("CUDA error at main.cu:12 code=2(cudaErrorMemoryAllocation) \"cudaMalloc(&p, n)\"", Memory::Device(None)),
        ("MemoryError: std::bad_alloc: out_of_memory: CUDA error at: /rmm/mr/device.hpp", Memory::Device(None)),
        ("torch.OutOfMemoryError: HIP out of memory.", Memory::Device(None)),
        ("Traceback\nMemoryError\n", Memory::Host),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 1.00 TiB for an array", Memory::Host),
        ("terminate called after throwing an instance of 'std::bad_alloc'", Memory::Host),
    ];

    fn heard(pieces: &[&[u8]]) -> Option<Memory> {
        let mut listener = Listener::default();
        pieces.iter().for_each(|piece| listener.hear(piece));
        listener.verdict()
    }

    #[test]
    fn out_of_memory_is_told_apart_by_whose_memory_it_was() {
        for (message, memory) in KNOWN {
            assert_eq!(heard(&[message.as_bytes()]), Some(memory), "{message}");
            let pieces: Vec<&[u8]> = message.as_bytes().chunks(3).collect();
            assert_eq!(heard(&pieces), Some(memory), "{message}, in pieces");
        }
    }

    #[test]
    fn other_failures_are_not_taken_for_it() {
        for message in [
            "Segmentation fault",
            "RuntimeError: CUDA error: device-side assert triggered",
            "Tip: on CUDA out of memory, lower the batch size\nValueError: bad shape",
            "memory: 3 GiB",
            "If you see CUDA out of memory errors, lower --batch-size\nFileNotFoundError: train.csv",
            "CUDA out of memory. Retrying with batch size 8\nTraceback (most recent call last):\nKeyError: 'x'\n",
            "WARNING: CUDA out of memory; continuing\nTraceback (most recent call last):\nKeyError: 'x'\n",
            "WARNING batch 3: CUDA out of memory; continuing with smaller batch\nKeyError: foo\n",
            "CUDA out of memory. Retrying with batch size 8\nassertion failed: shape mismatch",
            "OOM: torch.OutOfMemoryError: CUDA out of memory., skipping batch\n\nValueError: bad",
            "",
            "Batch size 64 failed: CUDA out of memory, trying batch size 32\nepoch 2 loss .4\nerror: loss is NaN\n",
            "failed   n: attempt 3 ended after 1s: out of memory on box/gpu0\n  │ torch.OutOfMemoryError: CUDA out of memory.",
            "n │ torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "train.py:9: UserWarning: this may lead to CUDA out of memory errors\nTypeError: foo",
            "CUDA out of memory, retrying with batch 8\nstep 9\nTraceback (most recent call last):\nKeyError: 'x'\n",
        ] {
            assert_eq!(heard(&[message.as_bytes()]), None, "{message}");
        }
    }

    #[test]
    fn who_was_turned_away_by_a_busy_device_says_so() {
        let heard = |text: &str| {
            let mut listener = Listener::default();
            text.as_bytes().chunks(7).for_each(|piece| listener.hear(piece));
            (listener.verdict(), listener.was_turned_away())
        };
        for message in [
            "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be",
            "torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable\n",
            "CUDA error at main.cu:12 code=46(cudaErrorDevicesUnavailable) \"cudaSetDevice(0)\"",
            "DriverError(CUDA_ERROR_DEVICE_UNAVAILABLE, \"CUDA-capable device(s) is/are busy or unavailable\")",
            "INTERNAL: failed call to cuDevicePrimaryCtxRetain: CUDA_ERROR_DEVICE_UNAVAILABLE",
        ] {
            assert_eq!(heard(message), (None, true), "{message}");
        }
        for message in [
            "the service is unavailable",
            "Tip: where a device is busy or unavailable, wait\nKeyError: 'x'",
            "CUDA-capable device(s) is/are busy or unavailable, will retry\nValueError: bad shape",
            "CUDA-capable device(s) is/are busy or unavailable, retrying\nTraceback (most recent call last):\nKeyError",
        ] {
            assert_eq!(heard(message), (None, false), "{message}");
        }
    }

    #[test]
    fn what_is_printed_after_the_message_does_not_hide_it() {
        let message = b"[rank3]: torch.OutOfMemoryError: CUDA out of memory. GPU 3 has a total capacity of\n";
        let trace = b"[rank2]: Traceback (most recent call last):\n[rank2]:   File \"train.py\", line 9, in main\n";
        let mut pieces: Vec<&[u8]> = vec![message];
        pieces.extend(std::iter::repeat_n(&trace[..], 1_000));
        assert_eq!(heard(&pieces), Some(Memory::Device(Some(3))));
        pieces.push(b"[rank0]: RuntimeError: CUDA error: out of memory\n");
        assert_eq!(heard(&pieces), Some(Memory::Device(Some(3))), "the others follow it");
        let endless = vec![b'.'; usize::try_from(BEHIND).unwrap()];
        pieces.extend([&endless[..], b"\nKeyError\n"]);
        assert_eq!(heard(&pieces), None, "it has long gone on");
    }

    #[test]
    fn who_goes_on_with_less_and_runs_out_again_ran_out() {
        let text =
            "CUDA out of memory, retrying\nTraceback (most recent call last):\nRuntimeError: CUDA out of memory.";
        assert_eq!(heard(&[text.as_bytes()]), Some(Memory::Device(None)));
        assert_eq!(heard(&[b"CUDA out of memory, halving the batch\n"]), Some(Memory::Device(None)));
    }

    #[test]
    fn a_mistake_is_no_want_of_memory_whatever_was_said_before() {
        let trace =
            |last: &str| format!("Traceback (most recent call last):\n  File \"t.py\", line 3\n    f()\n{last}\n");
        let oom = trace("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.");
        let host = trace("MemoryError");
        let mistake = trace("ValueError: bad labels");
        let handling = "\nDuring handling of the above exception, another exception occurred:\n\n";
        let cause = "\nThe above exception was the direct cause of the following exception:\n\n";
        let doc = "faq.txt: \"RuntimeError: CUDA out of memory. Tried to allocate\" tokens=12\n";
        for mistaken in [
            format!("{oom}INFO with batch 8\nepoch 1\n{mistake}"),
            format!("{host}epoch 1\n{}", trace("AssertionError")),
            format!("{doc}step 1\n{}", trace("KeyError: 3")),
            format!("{oom}epoch 1\n{}{handling}{mistake}", trace("OSError: gone")),
        ] {
            assert_eq!(heard(&[mistaken.as_bytes()]), None, "{mistaken}");
        }
        let ranks = mistake.lines().map(|line| format!("[rank0]: {line}\n")).collect::<String>();
        for (what, behind) in [
            ("it was raised on the way out", format!("{handling}{mistake}")),
            ("it was said in other words", format!("{cause}{mistake}")),
            (
                "a destructor fell",
                format!("Exception ignored in: <function X.__del__>\n{}", trace("AttributeError: x")),
            ),
            ("a thread fell", format!("Exception in thread Thread-1:\n{mistake}")),
            (
                "a launcher says whose end it saw",
                trace("subprocess.CalledProcessError: Command '['python']' returned 1"),
            ),
            ("another rank follows", ranks),
            ("it is only logged", "ValueError: bad labels\n".to_string()),
        ] {
            let text = format!("{}{behind}", oom);
            let expected = Some(Memory::Device(None));
            assert_eq!(heard(&[text.as_bytes()]), expected, "{what}: {text}");
        }
        let first = format!("{}{mistake}{oom}", trace("KeyError: 3"));
        assert_eq!(heard(&[first.as_bytes()]), Some(Memory::Device(None)), "the last one counts");
    }
}
