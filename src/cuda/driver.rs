//! The driver's library: whether it is there, whether it has what is called, and what its errors mean.

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUresult};

/// Every function that this room calls. The bindings look a function up when it is first called, and panic where it is
/// missing.
const CALLED: [&str; 33] = [
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
    "cuMemcpyDtoD_v2",
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

/// Finds the driver and initialises it, once; later calls return what the first one found.
///
/// # Errors
/// Where there is no driver, where it lacks something, or where it does not start.
pub fn start() -> Result<(), CudaError> {
    static FOUND: OnceLock<Result<(), CudaError>> = OnceLock::new();
    FOUND.get_or_init(|| guarded(find)).clone()
}

fn find() -> Result<(), CudaError> {
    // SAFETY: loads the driver's library, whose initialisers have no preconditions.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
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
