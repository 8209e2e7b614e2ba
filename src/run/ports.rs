//! Ports for the rendezvous of tasks on several devices, of which no two tasks ever have the same, whichever of this
//! user's runs they belong to.
//!
//! A port that the system hands out as free is one that any program may be handed in the next moment, before the task has
//! bound it. So ours lie below the range from which the system hands out, and whoever takes one says so by a lock on its
//! byte of a file that all runs of a user share; the lock goes with the last process that has the file open. So it goes with
//! our warden, who ends our tasks where we died, and a port is free no earlier than the task that had it. A port is taken by a
//! lock that nobody else may have beside it, and kept by one that the task's sentinel has as well, who may outlive us.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::graph::TaskId;
use crate::run::event::Role;

/// Below 32768, where Linux begins to hand out ports of its own accord (`ip_local_port_range`).
const FIRST: u16 = 21_000;
const COUNT: u16 = 8_000;

/// The ports of a run's tasks.
#[derive(Debug, Default)]
pub struct Ports {
    /// What other runs lock too; without it only this run's own tasks are kept apart.
    shared: Option<File>,
    taken: HashMap<(TaskId, Role), u16>,
    /// Where to go on looking, so that a port which was just given back rests for a while.
    next: u16,
}

impl Ports {
    /// Shares ports with whoever has opened the same file.
    #[must_use]
    pub fn open(shared: Option<PathBuf>) -> Self {
        let open = |path: &Path| {
            std::fs::create_dir_all(path.parent()?).ok()?;
            OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path).ok()
        };
        // Where no file can be shared, runs at least do not begin at the same port.
        let next = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
        Self { shared: shared.as_deref().and_then(open), next, ..Self::default() }
    }

    /// Returns a descriptor that keeps all ports taken that are, and will be, until it is closed or they are given back;
    /// `None` where no file is shared.
    #[must_use]
    pub fn copy(&self) -> Option<File> {
        self.shared.as_ref().and_then(|file| file.try_clone().ok())
    }

    /// Takes a port for an attempt; `None` if none is left.
    pub(super) fn take(&mut self, attempt: (TaskId, Role)) -> Option<u16> {
        let found = (0..COUNT).map(|step| (self.next + step) % COUNT).find(|offset| {
            let port = FIRST + offset;
            // In this order: a lock of our own would not keep us from another one.
            !self.taken.values().any(|taken| *taken == port) && self.lock(port, libc::F_WRLCK) && {
                let is_free = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
                self.lock(port, if is_free { libc::F_RDLCK } else { libc::F_UNLCK });
                is_free
            }
        })?;
        self.next = (found + 1) % COUNT;
        self.taken.insert(attempt, FIRST + found);
        Some(FIRST + found)
    }

    /// Gives back what an attempt had, if it had one.
    pub(super) fn give_back(&mut self, attempt: (TaskId, Role)) {
        if let Some(port) = self.taken.remove(&attempt) {
            self.lock(port, libc::F_UNLCK);
        }
    }

    /// Locks the byte of a port in some way, or unlocks it; returns whether that was possible. Without a file all is.
    fn lock(&self, port: u16, kind: libc::c_int) -> bool {
        self.shared.as_ref().is_none_or(|file| lock(file, port, kind).is_ok())
    }
}

/// A port that a task was given, and the file in which whoever has it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port.
    pub number: u16,
    /// The file; without one nobody can say so.
    pub file: Option<PathBuf>,
}

impl Port {
    /// Keeps others from taking the port, besides whoever does already, until what is returned is dropped.
    ///
    /// # Errors
    /// Where there is no such file, or somebody is about to take the port.
    pub fn keep(&self) -> io::Result<Option<File>> {
        let Some(path) = &self.file else { return Ok(None) };
        let file = File::open(path)?;
        lock(&file, self.number, libc::F_RDLCK).map(|()| Some(file))
    }
}

fn lock(file: &File, port: u16, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: plain numbers, for which zeroes are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_whence) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short);
    (lock.l_start, lock.l_len) = (port.into(), 1);
    // SAFETY: an open file and a live lock, which the call only reads.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(task: u32) -> (TaskId, Role) {
        (TaskId(task), Role::Main)
    }

    #[test]
    fn no_two_attempts_of_any_run_have_the_same_port() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Some(dir.path().join("state/ports"));
        let mut runs = [Ports::open(shared.clone()), Ports::open(shared)];
        let mut taken = std::collections::BTreeSet::new();
        for task in 0..20 {
            for run in &mut runs {
                assert!(taken.insert(run.take(attempt(task)).unwrap()));
            }
        }
        assert!(taken.iter().all(|port| (FIRST..FIRST + COUNT).contains(port)));
    }

    #[test]
    fn a_port_that_is_given_back_or_whose_run_is_gone_can_be_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let shared = Some(dir.path().join("ports"));
        let mut first = Ports::open(shared.clone());
        let port = first.take(attempt(0)).unwrap();
        let second = Ports::open(shared);
        assert!(!second.lock(port, libc::F_WRLCK));
        first.give_back(attempt(0));
        first.give_back(attempt(7));
        assert!(second.lock(port, libc::F_WRLCK));
        let other = first.take(attempt(1)).unwrap();
        assert!(other != port && !second.lock(other, libc::F_WRLCK));
        drop(first);
        assert!(second.lock(other, libc::F_WRLCK));
    }

    #[test]
    fn a_port_is_kept_by_whoever_outlives_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("ports"));
        let mut first = Ports::open(file.clone());
        let number = first.take(attempt(0)).unwrap();
        let sentinel = Port { number, file: file.clone() }.keep().unwrap();
        drop(first);
        let mut second = Ports::open(file);
        assert!(!second.lock(number, libc::F_WRLCK));
        second.next = number - FIRST;
        assert_ne!(second.take(attempt(0)), Some(number));
        drop(sentinel);
        assert!(second.lock(number, libc::F_WRLCK));
    }

    #[test]
    fn whoever_has_a_copy_keeps_what_is_taken_until_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("ports"));
        let (mut first, second) = (Ports::open(file.clone()), Ports::open(file));
        let warden = first.copy().unwrap();
        let (kept, given_back) = (first.take(attempt(0)).unwrap(), first.take(attempt(1)).unwrap());
        first.give_back(attempt(1));
        drop(first);
        assert!(second.lock(given_back, libc::F_WRLCK) && !second.lock(kept, libc::F_WRLCK));
        drop(warden);
        assert!(second.lock(kept, libc::F_WRLCK));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_passed_over() {
        let mut ports = Ports::open(None);
        let listen = |offset| Some((offset, TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + offset)).ok()?));
        let (offset, _listener) = (0..COUNT).rev().find_map(listen).unwrap();
        ports.next = offset;
        assert_ne!(ports.take(attempt(0)), Some(FIRST + offset));
    }
}
