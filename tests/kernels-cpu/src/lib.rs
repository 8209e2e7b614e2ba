//! Starts the kernels of `kernels/*.cu` on the CPU, thread by thread, to test their logic without a device.
//!
//! Whatever comes from here is emulated: it says nothing about speed, about a driver, or about the order in which a
//! device makes stores visible.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, PoisonError};

// SAFETY: the signature of `shim/kernels.cpp`.
unsafe extern "C" {
    fn kernels_cpu_launch(
        name: *const c_char,
        grid: c_uint,
        block: c_uint,
        shared_bytes: c_uint,
        cooperative: c_int,
        order: c_uint,
        params: *mut *mut c_void,
    ) -> c_int;
}

/// How a kernel is started.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Blocks.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Whether all blocks run at the same time.
    pub cooperative: bool,
    /// In which order threads take their turns: 0 ascending, 1 descending, otherwise the seed of a shuffle.
    pub order: u32,
}

/// The shim keeps the running kernel in globals: one at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// Runs a kernel to its end; an error is a `CUresult`.
///
/// # Safety
/// Each of `params` points to a value of the type that the kernel takes there, and what those point to is as large as
/// the kernel takes it to be.
pub unsafe fn launch(name: &CStr, how: Launch, params: *mut *mut c_void) -> Result<(), u32> {
    let _alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let Launch { grid, block, shared_bytes, cooperative, order } = how;
    // SAFETY: the caller answers for `params`; nobody else is in the shim.
    let code =
        unsafe { kernels_cpu_launch(name.as_ptr(), grid, block, shared_bytes, cooperative.into(), order, params) };
    if code == 0 { Ok(()) } else { Err(code.unsigned_abs()) }
}
