//! The CUDA kernels, run on the CPU, against the functions of `timing` that they must equal: by `==`. Emulated: their logic
//! is tested here, neither their speed nor a device.

mod load_matrix;
mod ptx;
mod search;
mod timing;

use std::ffi::{CStr, c_void};

use kernels_cpu::Launch;

/// The orders in which threads take their turns: ascending, descending, shuffled.
const ORDERS: [u32; 3] = [0, 1, 7];

/// Runs a kernel that must not fail.
///
/// # Safety
/// As for [`kernels_cpu::launch`].
unsafe fn launch(name: &CStr, how: Launch, params: &mut [*mut c_void]) {
    // SAFETY: the caller's.
    let done = unsafe { kernels_cpu::launch(name, how, params.as_mut_ptr()) };
    assert_eq!(done, Ok(()), "{name:?}");
}

/// Points to every argument, as `cuLaunchKernel` takes them: numbers by their address, arrays by the address of theirs.
macro_rules! params {
    ($($argument:expr),* $(,)?) => {
        [$((&raw const $argument).cast_mut().cast::<std::ffi::c_void>()),*]
    };
}
pub(crate) use params;
