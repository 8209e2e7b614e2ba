//! Kernels: which files there are, and how one is started.

use std::ffi::{CString, c_int, c_void};

use cudarc::driver::sys::{self, CUfunction_attribute};

use super::device::Device;
use super::driver::{CudaError, check};
use super::memory::Buffer;

/// The files of `kernels/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `batch_timing.cu`.
    BatchTiming,
    /// `calibrate.cu`.
    Calibrate,
    /// `list_schedule.cu`.
    ListSchedule,
    /// `load_matrix.cu`.
    LoadMatrix,
    /// `search.cu`.
    Search,
    /// `sgs.cu`.
    Sgs,
    /// `timing.cu`.
    Timing,
}

/// The PTX of a file for an architecture.
macro_rules! ptx {
    ($architecture:literal, $file:literal) => {
        include_str!(concat!("../../kernels/ptx/", $architecture, "/", $file, ".ptx"))
    };
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BatchTiming,
        Self::Calibrate,
        Self::ListSchedule,
        Self::LoadMatrix,
        Self::Search,
        Self::Sgs,
        Self::Timing,
    ];

    /// Returns the names of the kernels that a device of this compute capability gets.
    pub fn kernels(self, capability: (u32, u32)) -> impl Iterator<Item = &'static str> {
        self.ptx(capability).lines().filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('))
    }

    /// Returns the newest PTX that a device of this compute capability takes.
    pub(super) const fn ptx(self, capability: (u32, u32)) -> &'static str {
        match (self, capability.0 >= 9) {
            (Self::BatchTiming, true) => ptx!("compute_90", "batch_timing"),
            (Self::BatchTiming, false) => ptx!("compute_70", "batch_timing"),
            (Self::Calibrate, true) => ptx!("compute_90", "calibrate"),
            (Self::Calibrate, false) => ptx!("compute_70", "calibrate"),
            (Self::ListSchedule, true) => ptx!("compute_90", "list_schedule"),
            (Self::ListSchedule, false) => ptx!("compute_70", "list_schedule"),
            (Self::LoadMatrix, true) => ptx!("compute_90", "load_matrix"),
            (Self::LoadMatrix, false) => ptx!("compute_70", "load_matrix"),
            (Self::Search, true) => ptx!("compute_90", "search"),
            (Self::Search, false) => ptx!("compute_70", "search"),
            (Self::Sgs, true) => ptx!("compute_90", "sgs"),
            (Self::Sgs, false) => ptx!("compute_70", "sgs"),
            (Self::Timing, true) => ptx!("compute_90", "timing"),
            (Self::Timing, false) => ptx!("compute_70", "timing"),
        }
    }
}

/// How many threads a kernel is started with, and what a block of them shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
    /// Whether all blocks must run at the same time.
    pub cooperative: bool,
}

impl Launch {
    /// Returns an ordinary launch without dynamic shared memory of at least one thread for each of `threads`.
    #[must_use]
    pub const fn of(threads: u32, block: u32) -> Self {
        let blocks = threads.div_ceil(block);
        Self { grid: if blocks == 0 { 1 } else { blocks }, block, shared: 0, cooperative: false }
    }
}

/// What can be handed to a kernel.
pub trait Argument {
    /// Returns the address of the value that the kernel takes: a number, or the address of an array.
    fn address(&self) -> *const c_void;
}

impl Argument for u32 {
    fn address(&self) -> *const c_void {
        (&raw const *self).cast()
    }
}

impl Argument for u64 {
    fn address(&self) -> *const c_void {
        (&raw const *self).cast()
    }
}

impl<T> Argument for Buffer<'_, T> {
    fn address(&self) -> *const c_void {
        (&raw const self.address).cast()
    }
}

/// A kernel that is loaded on a device.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'d> {
    function: sys::CUfunction,
    device: &'d Device,
}

impl<'d> Kernel<'d> {
    pub(super) fn find(device: &'d Device, module: sys::CUmodule, name: &str) -> Result<Self, CudaError> {
        let name = CString::new(name).expect("names of kernels have no NUL");
        let mut function = std::ptr::null_mut();
        // SAFETY: a module of the current context and a text that ends in NUL.
        let code = unsafe { sys::cuModuleGetFunction(&raw mut function, module, name.as_ptr()) };
        check("find a kernel", code)?;
        Ok(Self { function, device })
    }

    /// Returns how many blocks of this shape the device runs at the same time, at most as many as asked for.
    ///
    /// # Errors
    /// Of the driver; a shape that does not fit at all is one.
    pub fn resident(&self, block: u32, shared: u32, most: u32) -> Result<u32, CudaError> {
        let mut blocks: c_int = 0;
        let (threads, bytes) = (c_int::try_from(block).unwrap_or(c_int::MAX), shared as usize);
        // SAFETY: a function of the current context.
        let code =
            unsafe { sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&raw mut blocks, self.function, threads, bytes) };
        check("ask how many blocks fit", code)?;
        let on_each = u32::try_from(blocks).unwrap_or(0);
        // A kernel that fits nowhere is refused by the launch, in the driver's words.
        Ok(on_each.saturating_mul(self.device.about().multiprocessors).min(most).max(1))
    }

    /// Lets blocks have so much dynamic shared memory: needed beyond 48 KiB.
    ///
    /// # Errors
    /// Of the driver, where the device has less.
    pub fn allow_shared(&self, bytes: u32) -> Result<(), CudaError> {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
        // SAFETY: a function of the current context.
        check("give a kernel more shared memory", unsafe { sys::cuFuncSetAttribute(self.function, attribute, bytes) })
    }

    /// Returns how many registers a thread takes, and how many bytes it spills.
    ///
    /// # Errors
    /// Of the driver.
    pub fn registers(&self) -> Result<(u32, u32), CudaError> {
        let ask = |attribute| {
            let mut value: c_int = 0;
            // SAFETY: a function of the current context.
            check("ask what a kernel needs", unsafe {
                sys::cuFuncGetAttribute(&raw mut value, attribute, self.function)
            })?;
            Ok::<_, CudaError>(u32::try_from(value).unwrap_or(0))
        };
        let spilled = ask(CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?;
        Ok((ask(CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?, spilled))
    }

    /// Starts it behind what was started before; does not wait.
    ///
    /// # Errors
    /// Of the driver. What goes wrong while it runs shows in a later call.
    ///
    /// # Safety
    /// The arguments are those that the kernel takes, in its order, and arrays are as large as it says.
    pub unsafe fn start(&self, launch: Launch, arguments: &[&dyn Argument]) -> Result<(), CudaError> {
        let Launch { grid, block, shared, cooperative } = launch;
        let mut addresses: Vec<*mut c_void> = arguments.iter().map(|argument| argument.address().cast_mut()).collect();
        let (stream, addresses) = (std::ptr::null_mut(), addresses.as_mut_ptr());
        // SAFETY: the caller answers for the arguments; the driver copies them before it returns.
        let code = unsafe {
            if cooperative {
                sys::cuLaunchCooperativeKernel(self.function, grid, 1, 1, block, 1, 1, shared, stream, addresses)
            } else {
                let none = std::ptr::null_mut();
                sys::cuLaunchKernel(self.function, grid, 1, 1, block, 1, 1, shared, stream, addresses, none)
            }
        };
        check("start a kernel", code)
    }
}
