//! Arrays in a device's memory. Copies wait until they are done.

use std::marker::PhantomData;

use cudarc::driver::sys;

use super::device::Device;
use super::driver::{CudaError, check};

/// Whole numbers as kernels take them: every pattern of bits is one.
///
/// # Safety
/// No padding, no invalid patterns, the same size and order of bytes as on the device.
pub unsafe trait Word: Copy + Default + 'static {}

// SAFETY: plain numbers of fixed width.
unsafe impl Word for u8 {}
// SAFETY: as above.
unsafe impl Word for u16 {}
// SAFETY: as above.
unsafe impl Word for u32 {}
// SAFETY: as above.
unsafe impl Word for i32 {}
// SAFETY: as above.
unsafe impl Word for u64 {}

/// An array on a device, freed when dropped. An empty one takes no memory.
#[derive(Debug)]
pub struct Buffer<'d, T> {
    pub(super) address: sys::CUdeviceptr,
    length: usize,
    device: PhantomData<(&'d Device, T)>,
}

impl<T: Word> Buffer<'_, T> {
    pub(super) fn new(length: usize) -> Result<Self, CudaError> {
        let mut address = 0;
        let bytes = length.saturating_mul(size_of::<T>());
        if bytes > 0 {
            // SAFETY: called through a device only, whose context is current.
            check("get memory on the CUDA device", unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) })?;
        }
        Ok(Self { address, length, device: PhantomData })
    }

    /// Returns how many values it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    const fn bytes(&self) -> usize {
        self.length * size_of::<T>()
    }

    /// Sets every byte.
    ///
    /// # Errors
    /// Of the driver.
    pub fn fill(&mut self, byte: u8) -> Result<(), CudaError> {
        if self.is_empty() {
            return Ok(());
        }
        // SAFETY: so many bytes are there.
        check("write to the CUDA device", unsafe { sys::cuMemsetD8_v2(self.address, byte, self.bytes()) })
    }

    /// Copies values into it, from its start.
    ///
    /// # Errors
    /// Of the driver.
    ///
    /// # Panics
    /// When there are more values than it holds.
    pub fn write(&mut self, values: &[T]) -> Result<(), CudaError> {
        assert!(values.len() <= self.length, "{} values into an array of {}", values.len(), self.length);
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: so many bytes are there on both sides.
        let code = unsafe { sys::cuMemcpyHtoD_v2(self.address, values.as_ptr().cast(), size_of_val(values)) };
        check("copy to the CUDA device", code)
    }

    /// Copies all of it to the host, once what was started before has ended.
    ///
    /// # Errors
    /// Of the driver; what went wrong in a kernel shows here, too.
    pub fn read(&self) -> Result<Vec<T>, CudaError> {
        self.read_part(0, self.length)
    }

    /// As [`read`](Self::read), `length` values from the one at `from` on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Panics
    /// When it holds fewer.
    pub fn read_part(&self, from: usize, length: usize) -> Result<Vec<T>, CudaError> {
        assert!(from + length <= self.length, "{length} values from {from} on of {}", self.length);
        let mut values = vec![T::default(); length];
        if !values.is_empty() {
            let address = self.address + (from * size_of::<T>()) as u64;
            // SAFETY: so many bytes are there on both sides.
            let code = unsafe { sys::cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), address, size_of_val(&values[..])) };
            check("copy from the CUDA device", code)?;
        }
        Ok(values)
    }
}

impl<T> Drop for Buffer<'_, T> {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: ours and not used any more. Freeing waits for kernels that use it. Errors: see `Device`.
            let _gone = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}
