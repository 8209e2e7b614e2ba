//! A child that lives in our memory until its program is loaded, while the thread that started it waits.
//!
//! That is how `posix_spawn` starts one as well: no page table is copied, however much we hold. Done here, it takes
//! seventy system calls less: signals that do nothing special need not be asked for, no stack is mapped for each child, and
//! the descriptor that tells of its end comes with it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::process;

/// Bytes that the child's few calls have room in: each takes some hundred.
const STACK: usize = 16 << 10;

/// What a child does before its program is loaded, in this order, and that program.
pub(super) struct Begin<'a> {
    /// Signals that are to do what they usually do.
    pub(super) usual: &'a [c_int],
    /// The process group that it belongs to.
    pub(super) group: Group,
    /// What it reads from.
    pub(super) input: BorrowedFd<'a>,
    /// What it prints to, in both ways.
    pub(super) output: BorrowedFd<'a>,
    /// Where it runs.
    pub(super) cwd: &'a CStr,
    /// The file of the program.
    pub(super) program: &'a CStr,
    /// The program's arguments, behind what it is called.
    pub(super) args: Strings<'a>,
    /// Its environment.
    pub(super) env: Strings<'a>,
}

/// The process group that a child belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// A new one, which it leads.
    Own,
    /// A new one in a session of its own. Where whoever started a group dies, the kernel sends SIGHUP to it if one of it is
    /// stopped: only within a session.
    Session,
    /// That of this process.
    Ours,
}

/// Pointers to strings, and a null pointer behind them.
pub(super) struct Strings<'a> {
    pointers: Vec<*const c_char>,
    /// The strings outlive them.
    strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> FromIterator<&'a CStr> for Strings<'a> {
    fn from_iter<I: IntoIterator<Item = &'a CStr>>(strings: I) -> Self {
        let pointers = strings.into_iter().map(CStr::as_ptr).chain(std::iter::once(std::ptr::null()));
        Self { pointers: pointers.collect(), strings: std::marker::PhantomData }
    }
}

/// What parent and child share.
struct Shared<'a> {
    begin: &'a Begin<'a>,
    /// The kernel's descriptor of the child, written before it runs; -1 where the kernel knows none.
    watched: c_int,
    /// Why the program is not loaded; 0 while nothing is wrong.
    error: c_int,
}

#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "the child's")] [MaybeUninit<u8>; STACK]);

/// Starts a process, and returns its number and what becomes readable when it has ended. Once it returns, the program is
/// loaded.
///
/// # Errors
/// The system's reason why it is not; nothing is left then.
pub(super) fn start(begin: &Begin<'_>) -> io::Result<(u32, OwnedFd)> {
    let mut stack = Stack([MaybeUninit::uninit(); STACK]);
    let mut shared = Shared { begin, watched: -1, error: 0 };
    let shared = &raw mut shared;
    // No handler of ours may run in the child.
    let blocked = Blocked::all();
    // SAFETY: the stack grows down from its end, which is within or just behind the object; it and what is shared outlive the
    // child's use of our memory, since this thread waits until then (`CLONE_VFORK`). `begin` does what a child may do that
    // has our memory, and returns only to end the process.
    let pid = unsafe {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let watched = &raw mut (*shared).watched;
        libc::clone(child, (&raw mut stack).add(1).cast(), flags, shared.cast(), watched)
    };
    let failed = io::Error::last_os_error();
    drop(blocked);
    let Ok(pid) = u32::try_from(pid) else { return Err(failed) };
    // SAFETY: the child has left our memory; a descriptor that the kernel opened for us is nobody else's.
    let (error, watched) = unsafe {
        let Shared { watched, error, .. } = shared.read_volatile();
        (error, (watched >= 0).then(|| OwnedFd::from_raw_fd(watched)))
    };
    match watched {
        Some(watched) if error == 0 => Ok((pid, watched)),
        _ => {
            process::await_end(pid);
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// All signals, kept away from this thread until it is dropped.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn all() -> Self {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both calls initialise what they are given, and cannot fail with these arguments.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// The child, on a stack of its own in our memory: it takes no memory and no lock.
extern "C" fn child(shared: *mut c_void) -> c_int {
    let shared = shared.cast::<Shared<'_>>();
    // SAFETY: the parent waits, so that nobody else uses it.
    unsafe {
        let error = if (*shared).watched < 0 { libc::ENOSYS } else { load((*shared).begin) };
        (&raw mut (*shared).error).write_volatile(error);
        libc::_exit(127)
    }
}

/// Does what is to be done and loads the program; returns only why it could not.
///
/// # Safety
/// Only for a child of [`start`].
unsafe fn load(begin: &Begin<'_>) -> c_int {
    let Begin { usual, group, input, output, cwd, program, args, env } = begin;
    let done = |result: c_int| result != -1;
    // SAFETY: plain system calls; sets are initialised before they are used, all strings end with a zero byte, and both
    // arrays with a null pointer.
    unsafe {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        let mut default = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        default.sa_sigaction = libc::SIG_DFL;
        let all_done =
            usual.iter().all(|signal| done(libc::sigaction(*signal, &raw const default, std::ptr::null_mut())))
                && match group {
                    Group::Own => done(libc::setpgid(0, 0)),
                    Group::Session => done(libc::setsid()),
                    Group::Ours => true,
                }
                && done(libc::dup2(input.as_raw_fd(), 0))
                && done(libc::dup2(output.as_raw_fd(), 1))
                && done(libc::dup2(output.as_raw_fd(), 2))
                && done(libc::chdir(cwd.as_ptr()))
                && done(libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()));
        if all_done {
            libc::execve(program.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr());
        }
        *libc::__errno_location()
    }
}
