//! One device with a context of this process on it.
//!
//! The context and everything in it goes when the [`Device`] is dropped: a context takes some hundred MiB that a training
//! may need.

use std::cell::RefCell;
use std::ffi::{CString, c_int};

use cudarc::driver::sys::{self, CUdevice_attribute};

use super::driver::{CudaError, check, start};
use super::kernels::{Kernel, Source};
use super::memory::{Buffer, Word};
use super::stopwatch::Stopwatch;
use crate::units::Bytes;

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// `NVIDIA H200`.
    pub name: String,
    /// `GPU-…`, as NVML writes it.
    pub uuid: String,
    /// The CUDA version that the driver speaks: 12080 is 12.8.
    pub driver: u32,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// All of its memory.
    pub memory: Bytes,
    /// Dynamic shared memory that a block can be given, in bytes.
    pub shared_memory: u32,
}

/// A device that can be computed on.
#[derive(Debug)]
pub struct Device {
    handle: sys::CUdevice,
    about: About,
    modules: RefCell<Vec<(Source, sys::CUmodule)>>,
}

impl Device {
    /// Opens a device, counted by PCI address among those that this process may see: as tasks are told theirs, and
    /// whatever order the driver has been asked for.
    ///
    /// # Errors
    /// Where there is no driver or no such device, or where it cannot be used.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let handle = find(ordinal)?;
        let about = about(handle)?;
        if about.capability < (7, 0) {
            return Err(CudaError::OldDevice { name: about.name, capability: about.capability });
        }
        let mut context = std::ptr::null_mut();
        // SAFETY: a handle that the driver gave.
        check("make a CUDA context", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, handle) })?;
        // From here on the context is released, whatever happens.
        let device = Self { handle, about, modules: RefCell::default() };
        // SAFETY: a context that the driver gave.
        check("enter the CUDA context", unsafe { sys::cuCtxSetCurrent(context) })?;
        Ok(device)
    }

    /// Returns what the device is that [`open`](Self::open) would open: nothing is taken of it.
    ///
    /// # Errors
    /// Where there is no driver or no such device.
    pub fn look(ordinal: usize) -> Result<About, CudaError> {
        about(find(ordinal)?)
    }

    /// Returns what it is.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// Returns its free memory and all of it.
    ///
    /// # Errors
    /// Of the driver.
    pub fn memory(&self) -> Result<(Bytes, Bytes), CudaError> {
        let (mut free, mut total) = (0_usize, 0_usize);
        // SAFETY: the context is current on this thread: a device cannot be sent to another.
        check("ask for the free memory", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok((Bytes(free as u64), Bytes(total as u64)))
    }

    /// Waits until everything that was started has ended.
    ///
    /// # Errors
    /// What went wrong in a kernel shows here.
    pub fn wait(&self) -> Result<(), CudaError> {
        // SAFETY: the context is current.
        check("wait for the CUDA device", unsafe { sys::cuCtxSynchronize() })
    }

    /// Makes an array of `length` values that are not written yet.
    ///
    /// # Errors
    /// Of the driver; too little memory is one of them.
    pub fn array<T: Word>(&self, length: usize) -> Result<Buffer<'_, T>, CudaError> {
        Buffer::new(length)
    }

    /// Makes an array of `length` values, every byte of which is `byte`.
    ///
    /// # Errors
    /// Of the driver; too little memory is one of them.
    pub fn filled<T: Word>(&self, length: usize, byte: u8) -> Result<Buffer<'_, T>, CudaError> {
        let mut array = self.array(length)?;
        array.fill(byte)?;
        Ok(array)
    }

    /// Makes an array of these values.
    ///
    /// # Errors
    /// Of the driver; too little memory is one of them.
    pub fn upload<T: Word>(&self, values: &[T]) -> Result<Buffer<'_, T>, CudaError> {
        let mut array = self.array(values.len())?;
        array.write(values)?;
        Ok(array)
    }

    /// Finds a kernel; the first of a file has the driver compile the file.
    ///
    /// # Errors
    /// Where the driver does not take the PTX.
    pub fn kernel(&self, source: Source, name: &str) -> Result<Kernel<'_>, CudaError> {
        let known = self.modules.borrow().iter().find(|(known, _)| *known == source).map(|(_, module)| *module);
        let module = match known {
            Some(module) => module,
            None => self.load(source)?,
        };
        Kernel::find(self, module, name)
    }

    fn load(&self, source: Source) -> Result<sys::CUmodule, CudaError> {
        let text = CString::new(source.ptx(self.about.capability)).expect("PTX is text without NUL");
        let mut module = std::ptr::null_mut();
        // SAFETY: a text that ends in NUL.
        let code = unsafe { sys::cuModuleLoadData(&raw mut module, text.as_ptr().cast()) };
        check("load the kernels", code)?;
        self.modules.borrow_mut().push((source, module));
        Ok(module)
    }

    /// Makes a stopwatch.
    ///
    /// # Errors
    /// Of the driver.
    pub fn stopwatch(&self) -> Result<Stopwatch<'_>, CudaError> {
        Stopwatch::new()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Nothing can be done about errors here; on a lost card every call returns one.
        for (_, module) in self.modules.get_mut().drain(..) {
            // SAFETY: loaded by us and not used any more: kernels borrow the device.
            let _gone = unsafe { sys::cuModuleUnload(module) };
        }
        // SAFETY: no context is a context; ours is released once, as it was retained once.
        let _gone =
            unsafe { (sys::cuCtxSetCurrent(std::ptr::null_mut()), sys::cuDevicePrimaryCtxRelease_v2(self.handle)) };
    }
}

const ASK: &str = "ask what the CUDA device is";

/// Returns the device with this number, counted by PCI address.
fn find(ordinal: usize) -> Result<sys::CUdevice, CudaError> {
    start()?;
    let mut count: c_int = 0;
    // SAFETY: the driver is initialised; the pointers of all calls in this file are to live values.
    check("count the CUDA devices", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
    let mut devices = (0..count).map(by_address).collect::<Result<Vec<_>, _>>()?;
    devices.sort_unstable();
    devices.get(ordinal).map(|(_, handle)| *handle).ok_or(CudaError::NoDevice(ordinal))
}

/// Returns the device with this number, as the driver counts, behind its PCI address: domain, bus, slot.
fn by_address(number: c_int) -> Result<([u32; 3], sys::CUdevice), CudaError> {
    let mut handle = 0;
    // SAFETY: the pointer is to a live value.
    check("find the CUDA device", unsafe { sys::cuDeviceGet(&raw mut handle, number) })?;
    let address = [
        attribute(handle, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
        attribute(handle, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
        attribute(handle, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
    ];
    Ok((address, handle))
}

fn attribute(handle: sys::CUdevice, attribute: CUdevice_attribute) -> Result<u32, CudaError> {
    let mut value: c_int = 0;
    // SAFETY: a handle that the driver gave.
    check(ASK, unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, handle) })?;
    Ok(u32::try_from(value).unwrap_or(0))
}

/// Asks what a device is.
fn about(handle: sys::CUdevice) -> Result<About, CudaError> {
    let mut name = [0_u8; 128];
    // SAFETY: the length is that of the array.
    check(ASK, unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), 128, handle) })?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: a handle that the driver gave; so below.
    check(ASK, unsafe { sys::cuDeviceGetUuid(&raw mut uuid, handle) })?;
    let hex: String = uuid.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (mut memory, mut driver) = (0_usize, 0);
    // SAFETY: as above.
    check(ASK, unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory, handle) })?;
    // SAFETY: no preconditions.
    check(ASK, unsafe { sys::cuDriverGetVersion(&raw mut driver) })?;
    Ok(About {
        name: String::from_utf8_lossy(name).into_owned(),
        uuid: format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]),
        driver: u32::try_from(driver).unwrap_or(0),
        capability: (
            attribute(handle, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(handle, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(handle, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1),
        memory: Bytes(memory as u64),
        shared_memory: attribute(handle, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}
