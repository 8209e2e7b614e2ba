//! The driver's functions. Names, arguments and error codes are those of the CUDA driver API.

#![expect(clippy::disallowed_methods, reason = "events have a time")]

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::memory;
use crate::scene::{Card, LOG_VARIABLE};

const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const NOT_INITIALIZED: u32 = 3;
const NO_DEVICE: u32 = 100;
const INVALID_DEVICE: u32 = 101;
const INVALID_CONTEXT: u32 = 201;
const NO_BINARY_FOR_GPU: u32 = 209;
const INVALID_PTX: u32 = 218;
const UNSUPPORTED_PTX: u32 = 222;
const NOT_FOUND: u32 = 500;
const LAUNCH_FAILED: u32 = 719;
const TOO_LARGE: u32 = 720;

/// Threads of a multiprocessor.
const THREADS: c_int = 1_024;
/// Dynamic shared memory of a block, in bytes: without being asked for, and at most.
const SHARED: c_int = 49_152;
const SHARED_MOST: c_int = 232_448;

type Answer = Result<(), u32>;

static CALLS: AtomicU64 = AtomicU64::new(0);
static LAUNCHES: AtomicU32 = AtomicU32::new(0);
static STARTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The current context: the device's number + 1, or 0.
    static CONTEXT: Cell<usize> = const { Cell::new(0) };
    /// What the log says behind a call.
    static NOTE: Cell<Option<String>> = const { Cell::new(None) };
}

fn card() -> &'static Card {
    static CARD: OnceLock<Card> = OnceLock::new();
    CARD.get_or_init(Card::from_env)
}

/// Does what a function does, unless it is to fail, and logs it.
fn call(name: &str, body: impl FnOnce() -> Answer) -> u32 {
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    let card = card();
    let fails = card.fails.get(name).copied();
    let here = card.fails_at.filter(|(at, _)| *at == number).map(|(_, code)| code);
    let lost = card.lost_at.filter(|at| number >= *at).map(|_| LAUNCH_FAILED);
    let code = match fails.or(here).or(lost) {
        Some(code) => code,
        None if !STARTED.load(Ordering::Relaxed) && name != "cuInit" => NOT_INITIALIZED,
        None => body().err().unwrap_or(0),
    };
    let note = NOTE.take().unwrap_or_default();
    if let Some(path) = std::env::var_os(LOG_VARIABLE) {
        let line = format!("{name} {code} {note}");
        let file = OpenOptions::new().append(true).open(PathBuf::from(path));
        // A log that cannot be written shows as a test that fails.
        drop(file.and_then(|mut file| file.write_all(format!("{}\n", line.trim_end()).as_bytes())));
    }
    code
}

/// Writes an answer.
fn put<T>(to: *mut T, value: T) -> Answer {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller hands over a pointer to a value of this type.
    unsafe { to.write(value) };
    Ok(())
}

fn in_context() -> Answer {
    if CONTEXT.get() == 0 { Err(INVALID_CONTEXT) } else { Ok(()) }
}

fn ensure(holds: bool, otherwise: u32) -> Answer {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// A loaded PTX: the names of its kernels.
struct Module(Vec<String>);

/// A kernel.
struct Function {
    name: CString,
    shared: Cell<c_int>,
}

fn threads_fit(block: c_int, shared: usize) -> c_int {
    if (1..=THREADS).contains(&block) && shared <= SHARED_MOST as usize { THREADS / block } else { 0 }
}

macro_rules! driver {
    ($($name:ident($($argument:ident: $type:ty),*) $body:block)*) => {$(
        /// # Safety
        /// As the CUDA driver API says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
            call(stringify!($name), || -> Answer { $body })
        }
    )*};
}

driver! {
    cuInit(flags: c_uint) {
        ensure(flags == 0, INVALID_VALUE)?;
        ensure(card().count > 0, NO_DEVICE)?;
        STARTED.store(true, Ordering::Relaxed);
        Ok(())
    }
    cuDriverGetVersion(version: *mut c_int) { put(version, card().version) }
    cuDeviceGetCount(count: *mut c_int) { put(count, card().count) }
    cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        ensure((0..card().count).contains(&ordinal), INVALID_DEVICE)?;
        put(device, ordinal)
    }
    cuDeviceGetName(name: *mut c_char, length: c_int, device: c_int) {
        let text = format!("Emulated {device}");
        ensure(usize::try_from(length).is_ok_and(|length| length > text.len()), INVALID_VALUE)?;
        // SAFETY: the caller has so much room.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len());
            name.add(text.len()).write(0);
        }
        Ok(())
    }
    cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) { put(uuid, [device.to_le_bytes()[0]; 16]) }
    cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) { put(bytes, card().memory) }
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: c_int) {
        put(value, match attribute {
            33 if card().backwards => card().count - device,
            33 => 1 + device,
            34 | 50 => 0,
            16 => card().multiprocessors,
            75 => card().capability.0,
            76 => card().capability.1,
            97 => SHARED_MOST,
            _ => return Err(INVALID_VALUE),
        })
    }
    cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) {
        let number = usize::try_from(device).map_err(|_| INVALID_DEVICE)?;
        NOTE.set(Some(format!("card {number}")));
        put(context, std::ptr::without_provenance_mut(number + 1))
    }
    cuDevicePrimaryCtxRelease_v2(_device: c_int) {
        NOTE.set(Some(format!("{} bytes held", memory::held())));
        Ok(())
    }
    cuCtxSetCurrent(context: *mut c_void) {
        CONTEXT.set(context.addr());
        Ok(())
    }
    cuCtxSynchronize() { in_context() }
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        in_context()?;
        put(free, card().memory.saturating_sub(memory::held()))?;
        put(total, card().memory)
    }
    cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        in_context()?;
        ensure(bytes > 0, INVALID_VALUE)?;
        put(address, memory::allocate(bytes, card().memory).ok_or(OUT_OF_MEMORY)?)
    }
    cuMemFree_v2(address: u64) {
        in_context()?;
        ensure(memory::free(address), INVALID_VALUE)
    }
    cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        in_context()?;
        ensure(memory::holds(to, bytes), INVALID_VALUE)?;
        // SAFETY: the array is ours and as large; the caller answers for the host's side.
        unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), to as *mut u8, bytes) };
        Ok(())
    }
    cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        in_context()?;
        ensure(memory::holds(from, bytes), INVALID_VALUE)?;
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.cast::<u8>(), bytes) };
        Ok(())
    }
    cuMemsetD8_v2(to: u64, byte: u8, bytes: usize) {
        in_context()?;
        ensure(memory::holds(to, bytes), INVALID_VALUE)?;
        // SAFETY: the array is ours and as large.
        unsafe { std::ptr::write_bytes(to as *mut u8, byte, bytes) };
        Ok(())
    }
    cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) {
        in_context()?;
        // SAFETY: a text that ends in NUL.
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_str().map_err(|_| INVALID_PTX)?;
        let directive = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (version, target) = (directive(".version "), directive(".target "));
        // A driver for CUDA 12.0 takes PTX 8.0, and each later one a later version.
        let newest = (card().version / 1_000 - 4, card().version % 1_000 / 10);
        let own = version.and_then(|version| version.split_once('.'));
        let own = own.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        ensure(own.ok_or(INVALID_PTX)? <= newest, UNSUPPORTED_PTX)?;
        let wanted: c_int = target.and_then(|target| target.strip_prefix("sm_")?.parse().ok()).ok_or(INVALID_PTX)?;
        ensure(wanted <= card().capability.0 * 10 + card().capability.1, NO_BINARY_FOR_GPU)?;
        let names = text.lines().filter_map(|line| line.strip_prefix(".visible .entry ")?.strip_suffix('('));
        let names = Module(names.map(str::to_owned).collect());
        NOTE.set(Some(format!("sm_{wanted}")));
        put(module, Box::into_raw(Box::new(names)).cast())
    }
    cuModuleUnload(module: *mut c_void) {
        in_context()?;
        // SAFETY: made above, and given back once.
        drop(unsafe { Box::from_raw(module.cast::<Module>()) });
        Ok(())
    }
    cuModuleGetFunction(function: *mut *mut c_void, module: *mut c_void, name: *const c_char) {
        in_context()?;
        // SAFETY: made above; a text that ends in NUL.
        let (module, name) = unsafe { (&*module.cast::<Module>(), CStr::from_ptr(name)) };
        ensure(module.0.iter().any(|known| known.as_bytes() == name.to_bytes()), NOT_FOUND)?;
        // A function lives as long as the process here: nothing gives it back.
        put(function, Box::into_raw(Box::new(Function { name: name.to_owned(), shared: Cell::new(SHARED) })).cast())
    }
    cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, _function: *mut c_void) {
        put(value, if attribute == 4 { 32 } else { 0 })
    }
    cuFuncSetAttribute(function: *mut c_void, attribute: c_uint, value: c_int) {
        ensure(attribute == 8 && (0..=SHARED_MOST).contains(&value), INVALID_VALUE)?;
        // SAFETY: made above.
        unsafe { &*function.cast::<Function>() }.shared.set(value.max(SHARED));
        Ok(())
    }
    cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, _function: *mut c_void, block: c_int, shared: usize) {
        put(blocks, threads_fit(block, shared))
    }
    cuEventCreate(event: *mut *mut c_void, _flags: c_uint) {
        in_context()?;
        put(event, Box::into_raw(Box::new(None::<Instant>)).cast())
    }
    cuEventDestroy_v2(event: *mut c_void) {
        // SAFETY: made above, and given back once.
        drop(unsafe { Box::from_raw(event.cast::<Option<Instant>>()) });
        Ok(())
    }
    cuEventRecord(event: *mut c_void, _stream: *mut c_void) { put(event.cast(), Some(Instant::now())) }
    cuEventSynchronize(_event: *mut c_void) { in_context() }
    cuEventElapsedTime(millis: *mut f32, before: *mut c_void, behind: *mut c_void) {
        // SAFETY: made above.
        let times = unsafe { (before.cast::<Option<Instant>>().read(), behind.cast::<Option<Instant>>().read()) };
        let (Some(before), Some(behind)) = times else { return Err(INVALID_VALUE) };
        put(millis, behind.duration_since(before).as_secs_f32() * 1e3)
    }
}

/// # Safety
/// As the CUDA driver API says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    x: c_uint,
    y: c_uint,
    z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    _stream: *mut c_void,
    arguments: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> u32 {
    call("cuLaunchKernel", || launch(function, [x, y, z], [block_x, block_y, block_z], shared, arguments, false))
}

/// # Safety
/// As the CUDA driver API says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: *mut c_void,
    x: c_uint,
    y: c_uint,
    z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared: c_uint,
    _stream: *mut c_void,
    arguments: *mut *mut c_void,
) -> u32 {
    call("cuLaunchCooperativeKernel", || {
        launch(function, [x, y, z], [block_x, block_y, block_z], shared, arguments, true)
    })
}

/// # Safety
/// As the CUDA driver API says. Works before the driver is started and after a card is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(code: c_uint, text: *mut *const c_char) -> u32 {
    put(text, words(code).0.as_ptr()).err().unwrap_or(0)
}

/// # Safety
/// As [`cuGetErrorName`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(code: c_uint, text: *mut *const c_char) -> u32 {
    put(text, words(code).1.as_ptr()).err().unwrap_or(0)
}

fn launch(
    function: *mut c_void,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    arguments: *mut *mut c_void,
    cooperative: bool,
) -> Answer {
    in_context()?;
    // SAFETY: made by `cuModuleGetFunction`.
    let function = unsafe { &*function.cast::<Function>() };
    ensure(grid[1..] == [1, 1] && block[1..] == [1, 1] && grid[0] > 0, INVALID_VALUE)?;
    let fit = threads_fit(block[0].try_into().map_err(|_| INVALID_VALUE)?, shared as usize);
    ensure(fit > 0 && shared.cast_signed() <= function.shared.get(), INVALID_VALUE)?;
    ensure(!cooperative || grid[0].cast_signed() <= fit * card().multiprocessors, TOO_LARGE)?;
    NOTE.set(Some(format!("{} {} {} {shared}", function.name.to_string_lossy(), grid[0], block[0])));
    // Threads take their turns ascending, descending, and shuffled ever differently: a barrier that is missing shows.
    let turn = LAUNCHES.fetch_add(1, Ordering::Relaxed);
    let order = if turn % 3 < 2 { turn % 3 } else { turn };
    let how = kernels_cpu::Launch { grid: grid[0], block: block[0], shared_bytes: shared, cooperative, order };
    // SAFETY: the caller answers for the arguments; arrays are host memory.
    unsafe { kernels_cpu::launch(&function.name, how, arguments) }
}

/// The name of an error and what the driver says for it.
fn words(code: u32) -> (&'static CStr, &'static CStr) {
    match code {
        0 => (c"CUDA_SUCCESS", c"no error"),
        INVALID_VALUE => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        OUT_OF_MEMORY => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        NOT_INITIALIZED => (c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
        NO_DEVICE => (c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
        INVALID_DEVICE => (c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        INVALID_CONTEXT => (c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
        NO_BINARY_FOR_GPU => {
            (c"CUDA_ERROR_NO_BINARY_FOR_GPU", c"no kernel image is available for execution on the device")
        }
        INVALID_PTX => (c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed"),
        UNSUPPORTED_PTX => {
            (c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", c"the provided PTX was compiled with an unsupported toolchain.")
        }
        NOT_FOUND => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        LAUNCH_FAILED => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        TOO_LARGE => (c"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", c"too many blocks in cooperative launch"),
        803 => {
            (c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", c"system has unsupported display driver / cuda driver combination")
        }
        _ => (c"CUDA_ERROR_UNKNOWN", c"unknown error"),
    }
}
