//! A file system for SQLite that does what the usual one does, until the n-th write or sync is to fail.
//!
//! Stands in for the usual one in this process; only files below a folder that was armed are looked at.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, Once, OnceLock};

use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_WRITE, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs,
    sqlite3_vfs_find, sqlite3_vfs_register,
};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write, by an error of the device.
    Write,
    /// A sync.
    Sync,
    /// A write, since the disk is full.
    Full,
}

/// A fault to come, in a folder.
struct Armed {
    folder: PathBuf,
    fault: Fault,
    /// Operations until then.
    left: u32,
    /// Whether all that follow fail as well.
    lasting: bool,
    met: bool,
}

static ARMED: Mutex<Vec<Armed>> = Mutex::new(Vec::new());
static USUAL: OnceLock<Usual> = OnceLock::new();

/// The file system of the platform.
struct Usual(*mut sqlite3_vfs);

// SAFETY: SQLite's own, which lives for ever and may be called from any thread.
unsafe impl Send for Usual {}
// SAFETY: as above.
unsafe impl Sync for Usual {}

/// What is kept behind the usual file system's own part of a file.
#[repr(C)]
struct Behind {
    usual: *const sqlite3_io_methods,
    ours: sqlite3_io_methods,
    /// Owned; freed with the file.
    folder: *mut PathBuf,
}

/// Has the n-th operation of this kind in a folder fail.
pub(crate) fn arm(folder: &Path, fault: Fault, nth: u32, lasting: bool) {
    install();
    ARMED.lock().unwrap().push(Armed { folder: folder.to_owned(), fault, left: nth, lasting, met: false });
}

/// Lets everything succeed again, and returns whether the fault was met.
pub(crate) fn disarm(folder: &Path) -> bool {
    let mut armed = ARMED.lock().unwrap();
    let at = armed.iter().position(|armed| armed.folder == folder).unwrap();
    armed.swap_remove(at).met
}

/// Whether an operation of this kind is to fail now.
fn fails(folder: &Path, is: impl Fn(Fault) -> bool) -> Option<Fault> {
    let mut armed = ARMED.lock().unwrap();
    let armed = armed.iter_mut().find(|armed| armed.folder == folder && is(armed.fault))?;
    let now = armed.left == 1 || (armed.left == 0 && armed.lasting);
    armed.left = armed.left.saturating_sub(1);
    armed.met |= now;
    now.then_some(armed.fault)
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the usual file system is there; ours is a copy of it that lives for ever, with room behind each file.
        unsafe {
            let usual = sqlite3_vfs_find(ptr::null());
            assert!(USUAL.set(Usual(usual)).is_ok());
            let ours = Box::leak(Box::new(ptr::read(usual)));
            ours.szOsFile = offset() + c_int::try_from(size_of::<Behind>()).unwrap();
            ours.zName = c"faults".as_ptr();
            ours.pNext = ptr::null_mut();
            ours.xOpen = Some(open);
            assert_eq!(sqlite3_vfs_register(ours, 1), 0);
        }
    });
}

/// Where [`Behind`] begins in a file: behind the usual part, aligned.
fn offset() -> c_int {
    // SAFETY: set once, and lives for ever.
    let usual = unsafe { (*USUAL.get().unwrap().0).szOsFile };
    let align = c_int::try_from(align_of::<Behind>()).unwrap();
    (usual + align - 1) / align * align
}

/// # Safety
/// The file was opened by [`open`].
unsafe fn behind(file: *mut sqlite3_file) -> *mut Behind {
    // SAFETY: there is room for it behind the usual part, see `install`.
    unsafe { file.cast::<u8>().add(usize::try_from(offset()).unwrap()).cast() }
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let usual = USUAL.get().unwrap().0;
    // SAFETY: the arguments are SQLite's own; the usual file system fills its part of the file, and we ours behind it.
    unsafe {
        let opened = (*usual).xOpen.unwrap()(usual, name, file, flags, out);
        if opened != 0 || (*file).pMethods.is_null() || name.is_null() {
            return opened;
        }
        let path = PathBuf::from(CStr::from_ptr(name).to_string_lossy().into_owned());
        let folder = Box::into_raw(Box::new(path.parent().unwrap().to_owned()));
        let methods = (*file).pMethods;
        let mut ours = ptr::read(methods);
        ours.xWrite = Some(write);
        ours.xSync = Some(sync);
        ours.xClose = Some(close);
        let own = behind(file);
        ptr::write(own, Behind { usual: methods, ours, folder });
        (*file).pMethods = &raw const (*own).ours;
        opened
    }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, data: *const c_void, size: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: the file was opened above, and the arguments are SQLite's own.
    unsafe {
        let own = behind(file);
        match fails(&*(*own).folder, |fault| fault != Fault::Sync) {
            Some(Fault::Full) => SQLITE_FULL,
            Some(Fault::Write) => {
                // Half of it is written before the device gives up.
                (*(*own).usual).xWrite.unwrap()(file, data, size / 2, at);
                SQLITE_IOERR_WRITE
            }
            Some(Fault::Sync) | None => (*(*own).usual).xWrite.unwrap()(file, data, size, at),
        }
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as in `write`.
    unsafe {
        let own = behind(file);
        match fails(&*(*own).folder, |fault| fault == Fault::Sync) {
            Some(_) => SQLITE_IOERR_FSYNC,
            None => (*(*own).usual).xSync.unwrap()(file, flags),
        }
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: as in `write`; nothing of ours is used afterwards.
    unsafe {
        let own = behind(file);
        drop(Box::from_raw((*own).folder));
        (*(*own).usual).xClose.unwrap()(file)
    }
}
