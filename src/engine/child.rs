//! A new process by `clone` within our memory: the thread sleeps until the child has loaded its program, and no page
//! table is copied.
//!
//! It is what `posix_spawn` does, with two differences. The child begins on the CPU that the sleeping thread leaves: the
//! kernel by itself may queue it behind another child while a CPU idles. And the CPUs of its program are set in the child.
//! Between clone and exec the child makes system calls and nothing else.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

/// What a child becomes.
pub(super) struct Child<'a> {
    /// The program's file.
    pub(super) file: &'a CStr,
    /// Its arguments, behind which a null pointer stands.
    pub(super) argv: *const *const c_char,
    /// Its environment, likewise.
    pub(super) envp: *const *const c_char,
    /// Its working directory.
    pub(super) cwd: &'a CStr,
    /// Where both its output streams go; above 2.
    pub(super) output: RawFd,
    /// Whether it leads a process group of its own.
    pub(super) leads: bool,
    /// Signals that do to it what they usually do.
    pub(super) usual: &'a [c_int],
    /// The CPUs of this thread, given back to it when the child is started; `None` where they are not known.
    pub(super) ours: Option<CpuSet>,
    /// The CPUs that the child may use, where they are others.
    pub(super) cpus: Option<CpuSet>,
}

/// Memory for a child until it has its program's own.
#[derive(Debug)]
#[repr(C, align(16))]
pub(super) struct Stack([MaybeUninit<u8>; 64 << 10]);

impl Stack {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self([MaybeUninit::uninit(); 64 << 10]))
    }
}

/// What a child sees, and what it tells before it ends for want of a program.
struct Shared<'a> {
    child: &'a Child<'a>,
    error: AtomicI32,
}

impl Child<'_> {
    /// Starts it, and waits until it has loaded its program.
    ///
    /// # Errors
    /// The system's reason why there is no process, or why it could not load its program.
    pub(super) fn start(&self, stack: &mut Stack) -> io::Result<libc::pid_t> {
        let shared = Shared { child: self, error: AtomicI32::new(0) };
        let mut signals = MaybeUninit::uninit();
        // SAFETY: the first set is initialised before it is used; the second is written to by the call.
        let signals = unsafe {
            let mut all = MaybeUninit::uninit();
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), signals.as_mut_ptr());
            signals.assume_init()
        };
        if self.ours.is_some() {
            let mut here = CpuSet::new();
            here.set(sched_getcpu());
            let _ = sched_setaffinity(None, &here);
        }
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let top = std::ptr::from_mut(stack).wrapping_add(1).cast();
        // SAFETY: the stack is ours alone and its end aligned; this thread sleeps until the child has left it and
        // what `shared` refers to.
        let pid = unsafe { libc::clone(run, top, flags, std::ptr::from_ref(&shared).cast_mut().cast()) };
        let failed = io::Error::last_os_error();
        if let Some(ours) = &self.ours {
            let _ = sched_setaffinity(None, ours);
        }
        // SAFETY: the set was filled in above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const signals, std::ptr::null_mut()) };
        if pid == -1 {
            return Err(failed);
        }
        match shared.error.load(Ordering::Relaxed) {
            0 => Ok(pid),
            error => {
                // SAFETY: it is our child, has ended, and nobody else knows of it.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                Err(io::Error::from_raw_os_error(error))
            }
        }
    }
}

/// What the child does: it becomes its program, or says why it cannot.
extern "C" fn run(shared: *mut c_void) -> c_int {
    // SAFETY: `start` passes it and sleeps until we are done with it.
    let shared = unsafe { &*shared.cast::<Shared<'_>>() };
    shared.error.store(become_program(shared), Ordering::Relaxed);
    // SAFETY: it only ends this process.
    unsafe { libc::_exit(127) }
}

/// Returns why not.
fn become_program(shared: &Shared<'_>) -> c_int {
    let child = shared.child;
    // SAFETY: all that is pointed to is live and initialised; the calls are such as may be made in a child like this.
    unsafe {
        let usual: libc::sigaction = std::mem::zeroed();
        for signal in child.usual {
            // It refuses those that the C library needs for itself; exec resets what we handle in any case.
            libc::sigaction(*signal, &raw const usual, std::ptr::null_mut());
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let failed = (child.leads && libc::setpgid(0, 0) == -1)
            || null == -1
            || libc::dup2(null, 0) == -1
            || libc::dup2(child.output, 1) == -1
            || libc::dup2(child.output, 2) == -1
            || libc::chdir(child.cwd.as_ptr()) == -1;
        if !failed {
            if let Some(cpus) = child.cpus.as_ref().or(child.ours.as_ref()) {
                let _ = sched_setaffinity(None, cpus);
            }
            let mut none = MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
            libc::execve(child.file.as_ptr(), child.argv, child.envp);
        }
        *libc::__errno_location()
    }
}
