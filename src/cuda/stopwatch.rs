//! How long a device was busy, by its own clock: events before and behind the work.

use std::marker::PhantomData;

use cudarc::driver::sys;

use super::device::Device;
use super::driver::{CudaError, check};

/// Measures work on a device to half a microsecond.
#[derive(Debug)]
pub struct Stopwatch<'d> {
    events: [sys::CUevent; 2],
    device: PhantomData<&'d Device>,
}

impl Stopwatch<'_> {
    pub(super) fn new() -> Result<Self, CudaError> {
        let mut watch = Self { events: [std::ptr::null_mut(); 2], device: PhantomData };
        for event in &mut watch.events {
            // SAFETY: called through a device only, whose context is current.
            check("make a CUDA event", unsafe { sys::cuEventCreate(event, 0) })?;
        }
        Ok(watch)
    }

    /// Starts the work and returns how long the device took for it, in nanoseconds.
    ///
    /// # Errors
    /// Of the work and of the driver.
    pub fn time<E: From<CudaError>>(&self, work: impl FnOnce() -> Result<(), E>) -> Result<u64, E> {
        let [before, behind] = self.events;
        // SAFETY: events of the current context, on the stream that kernels are started on.
        check("record a CUDA event", unsafe { sys::cuEventRecord(before, std::ptr::null_mut()) })?;
        work()?;
        // SAFETY: as above.
        check("record a CUDA event", unsafe { sys::cuEventRecord(behind, std::ptr::null_mut()) })?;
        // SAFETY: as above.
        check("wait for a CUDA event", unsafe { sys::cuEventSynchronize(behind) })?;
        let mut millis = 0_f32;
        // SAFETY: both are recorded.
        check("read a CUDA event", unsafe { sys::cuEventElapsedTime(&raw mut millis, before, behind) })?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "what the driver measures in milliseconds"
        )]
        let nanos = (f64::from(millis) * 1e6).round() as u64;
        Ok(nanos)
    }
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        for event in self.events.into_iter().filter(|event| !event.is_null()) {
            // SAFETY: ours and not used any more.
            let _gone = unsafe { sys::cuEventDestroy_v2(event) };
        }
    }
}
