//! The driver's library: whether it is there, whether it has what is called, and what its errors mean.

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use cudarc::driver::sys::{self, CUresult};

/// Every function that this room calls. The bindings look a function up when it is first called, and panic where it is
/// missing.
const CALLED: [&str; 32] = [
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetUuid",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchCooperativeKernel",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoD_v2",
    "cuMemsetD8_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
];

/// Looked up like the others, but too long for the line above.
const OCCUPANCY: &str = "cuOccupancyMaxActiveBlocksPerMultiprocessor";

/// The CUDA version that the PTX is built for, as drivers give theirs: its PTX is refused by those that speak less. The
/// first driver that speaks it is 525.
const LEAST_VERSION: c_int = 12_000;

/// Why a device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no library.
    #[error("no CUDA driver is installed")]
    NoDriver,
    /// There is one that is of no use.
    #[error("the CUDA driver cannot be loaded: {0}")]
    NoLibrary(String),
    /// It has not answered in time.
    #[error("the CUDA driver has not started within {} s", .0.as_secs())]
    Silent(Duration),
    /// It is there, and others need it.
    #[error("{0}")]
    NotToSpare(String),
    /// The library lacks a function.
    #[error("the CUDA driver is too old: it has no {0}; driver 525 or newer is needed")]
    Old(&'static str),
    /// The driver does not take the kernels.
    #[error(
        "the CUDA driver is too old: it speaks CUDA {}.{}, and the kernels need 12.0; driver 525 or newer is needed",
        .0 / 1_000, .0 % 1_000 / 10
    )]
    OldDriver(u32),
    /// The driver is there, but no device, or not so many.
    #[error("there is no CUDA device {0}")]
    NoDevice(usize),
    /// The device is older than the kernels.
    #[error("{name} has compute capability {}.{}, and the kernels need 7.0", capability.0, capability.1)]
    OldDevice {
        /// The device's name.
        name: String,
        /// Its compute capability.
        capability: (u32, u32),
    },
    /// A call failed.
    #[error("cannot {doing}: {words} ({name})")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// The error's name: `CUDA_ERROR_OUT_OF_MEMORY`.
        name: String,
        /// The driver's words for it.
        words: String,
    },
    /// It computes something else than the CPU.
    #[error("the CUDA device {0} wrongly")]
    Wrong(&'static str),
    /// The bindings gave up: a last resort that nothing here should lead to.
    #[error("the CUDA bindings gave up: {0}")]
    GaveUp(String),
}

impl CudaError {
    /// Whether the device had too little free memory.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Failed { name, .. } if name == "CUDA_ERROR_OUT_OF_MEMORY")
    }
}

/// What [`start`] found.
static FOUND: OnceLock<Result<(), CudaError>> = OnceLock::new();

/// Finds the driver and initialises it, once; later calls return what the first one found.
///
/// # Errors
/// Where there is no driver, where it lacks something, or where it does not start.
pub fn start() -> Result<(), CudaError> {
    FOUND.get_or_init(|| guarded(find)).clone()
}

/// As [`start`], and gives up where that takes too long: a card that falls off the bus can hold its driver up for ever.
/// Whoever gets that must not call this room again: it would wait.
///
/// # Errors
/// As [`start`], and where it is not done in time; nobody waits a second time.
pub fn start_within(limit: Duration) -> Result<(), CudaError> {
    static IS_SILENT: AtomicBool = AtomicBool::new(false);
    if let Some(found) = FOUND.get() {
        return found.clone();
    }
    if IS_SILENT.load(Ordering::Relaxed) {
        return Err(CudaError::Silent(limit));
    }
    let started = within(limit, start);
    IS_SILENT.store(matches!(started, Err(CudaError::Silent(_))), Ordering::Relaxed);
    started
}

/// Does something on a thread of its own, which is left behind where it takes too long.
fn within(limit: Duration, work: impl FnOnce() -> Result<(), CudaError> + Send + 'static) -> Result<(), CudaError> {
    let (done, is_done) = mpsc::channel();
    let spawned = thread::Builder::new().name("cuda".to_owned()).spawn(move || drop(done.send(work())));
    spawned.map_err(|error| CudaError::GaveUp(format!("no thread: {error}")))?;
    is_done.recv_timeout(limit).unwrap_or(Err(CudaError::Silent(limit)))
}

fn find() -> Result<(), CudaError> {
    // SAFETY: loads the driver's library, whose initialisers have no preconditions.
    if !unsafe { sys::is_culib_present() } {
        return Err(why_not_loaded());
    }
    // SAFETY: as above; it is there, so this does not panic.
    let library = unsafe { sys::culib() };
    for name in CALLED.into_iter().chain([OCCUPANCY]) {
        // SAFETY: the symbol is looked at, not called.
        if unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err() {
            return Err(CudaError::Old(name));
        }
    }
    // SAFETY: no preconditions.
    let code = unsafe { sys::cuInit(0) };
    if code == CUresult::CUDA_ERROR_NO_DEVICE {
        return Err(CudaError::NoDevice(0));
    }
    check("start the CUDA driver", code)?;
    let mut version = 0;
    // SAFETY: the pointer is to a live value.
    check("ask for the driver's version", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
    if version < LEAST_VERSION {
        return Err(CudaError::OldDriver(u32::try_from(version).unwrap_or(0)));
    }
    Ok(())
}

/// Tells a driver that is not there from one that does not load: of another architecture, say, or half removed.
fn why_not_loaded() -> CudaError {
    const NAME: &CStr = c"libcuda.so.1";
    // SAFETY: loads the driver's library, as above; the words are read before this thread asks the loader again.
    let words = unsafe {
        if !libc::dlopen(NAME.as_ptr(), libc::RTLD_LAZY).is_null() {
            return CudaError::GaveUp("the library was not found, and then it was".to_owned());
        }
        let words = libc::dlerror();
        if words.is_null() {
            return CudaError::NoDriver;
        }
        CStr::from_ptr(words).to_string_lossy().into_owned()
    };
    // Another name is that of a library which this one needs.
    let is_absent = words.contains("libcuda.so.1") && words.contains("No such file");
    if is_absent { CudaError::NoDriver } else { CudaError::NoLibrary(words) }
}

/// Makes an error of what a call returned.
pub(super) fn check(doing: &'static str, code: CUresult) -> Result<(), CudaError> {
    if code == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let text = |get: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: writes a pointer to a static text, or nothing.
        let known = unsafe { get(code, &raw mut text) };
        if known != CUresult::CUDA_SUCCESS || text.is_null() {
            return format!("error {}", code as u32);
        }
        // SAFETY: a text that ends in NUL and is never freed.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    Err(CudaError::Failed { doing, name: text(sys::cuGetErrorName), words: text(sys::cuGetErrorString) })
}

/// Does something with a device; a panic within becomes an error.
///
/// # Errors
/// What `work` returns, and what it panics with.
pub fn guarded<T, E: From<CudaError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        Err(CudaError::GaveUp(text.to_owned()).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_left_behind() {
        let (never, wait) = mpsc::channel::<()>();
        let limit = Duration::from_millis(1);
        let found = within(limit, move || {
            // Until the test is over.
            wait.recv().or(Ok(()))
        });
        assert_eq!(found, Err(CudaError::Silent(limit)));
        drop(never);
        assert_eq!(within(Duration::from_secs(600), || Err(CudaError::NoDriver)), Err(CudaError::NoDriver));
    }
}
