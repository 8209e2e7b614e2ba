//! What a sentinel hears by signals, all of which it blocks: that children have ended, that somebody has stopped the stage or
//! lets it go on, and that all is asked to end.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use tokio::time::Instant;

use super::super::process;
use crate::units::Millis;

/// What is listened for: the end of a child, SIGCONT for whatever has changed who holds the stage, and SIGTERM, which all
/// processes get when a machine is shut down.
const HEARD: [libc::c_int; 3] = [libc::SIGCHLD, libc::SIGCONT, libc::SIGTERM];

type Info = [u8; size_of::<libc::signalfd_siginfo>()];

/// Signals to this process.
#[derive(Debug)]
pub(super) struct Signals {
    fd: OwnedFd,
    /// When somebody else than the stage has asked for the end last.
    asked: Option<Instant>,
}

impl Signals {
    /// Keeps all signals away from this process; the stage starts with none blocked.
    pub(super) fn block() {
        // SAFETY: the set is initialised before it is used; no handler is installed.
        unsafe {
            // Where it is ignored, children vanish without a word.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            let mut all = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        }
    }

    /// Opens what becomes readable when there is something to hear.
    pub(super) fn listen() -> io::Result<Self> {
        // SAFETY: the set is initialised before it is used, and the descriptor is nobody else's.
        let fd = unsafe {
            let mut those = std::mem::zeroed();
            libc::sigemptyset(&raw mut those);
            for signal in HEARD {
                libc::sigaddset(&raw mut those, signal);
            }
            match libc::signalfd(-1, &raw const those, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        Ok(Self { fd, asked: None })
    }

    /// Takes in what there is to hear, and returns whether there was anything. Before `stage` and others are taken off the
    /// process table, which tells whose children they are.
    pub(super) fn hear(&mut self, stage: u32) -> bool {
        let mut is_any = false;
        let mut info: Info = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.fd, &mut info).is_ok() {
            is_any = true;
            let (signal, by) = (
                number(&info, offset_of!(libc::signalfd_siginfo, ssi_signo)),
                number(&info, offset_of!(libc::signalfd_siginfo, ssi_pid)),
            );
            // Many a script ends what it has started by a signal to all of its group, of which this is one.
            if signal == libc::SIGTERM.cast_unsigned() && by != stage && !is_of_ours(by) {
                self.asked = Some(Instant::now());
            }
        }
        is_any
    }

    /// Whether somebody else than the stage has asked for the end no longer ago than that.
    pub(super) fn asked_within(&self, time: Millis) -> bool {
        self.asked.is_some_and(|at| at.elapsed() <= time.as_std())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a process descends from this one.
fn is_of_ours(pid: u32) -> bool {
    let own = std::process::id();
    process::find_kin(pid, |pid| (pid == own).then_some(())).is_some()
}

fn number(info: &Info, at: usize) -> u32 {
    info[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}
