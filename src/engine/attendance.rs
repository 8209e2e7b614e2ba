//! Whether anybody attends to a run, told by a lock that the kernel lets go of with the last process that holds it.
//!
//! Process numbers mean something within one PID namespace only. The lock is seen from every container that shares the
//! kernel and the state folder. Whoever carries a run out, ends what is left of it or watches an attempt of it shares the
//! lock; whoever asks takes none.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::run::launch;

/// A share of the lock on a run: held until it and all copies of its descriptor are closed.
#[derive(Debug)]
pub struct Share(File);

impl Share {
    /// Takes a share of the lock on the run whose folder this is; of a record that was copied or tidied alone the folder is
    /// made anew. A file system without locks is no error: nobody can tell then.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn take(run: &Path) -> io::Result<Self> {
        let path = launch::attended(run);
        std::fs::create_dir_all(run)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", run.display())))?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Err(error) = ask(&file, libc::F_OFD_SETLK, libc::F_RDLCK) {
            tracing::debug!(%error, "that this run is attended to cannot be seen from other containers");
        }
        Ok(Self(file))
    }

    /// Returns a descriptor that holds the same share.
    ///
    /// # Errors
    /// Where there are too many descriptors.
    pub(super) fn copy(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

/// Whether somebody has a share of the lock on the run whose folder this is; `None` where that cannot be told.
#[must_use]
pub fn is_attended(run: &Path) -> Option<bool> {
    match File::open(launch::attended(run)) {
        // It is there before a run is recorded that starts anything.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
        Ok(file) => Some(ask(&file, libc::F_OFD_GETLK, libc::F_WRLCK).ok()? != libc::F_UNLCK),
    }
}

/// Asks for a lock of this kind on the whole file, or who is in its way; returns the kind that the kernel answers.
fn ask(file: &File, command: libc::c_int, kind: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: zero is valid for the plain struct, which outlives the call; the descriptor is open.
    let (answer, lock) = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        (libc::fcntl(file.as_raw_fd(), command, &raw mut lock), lock)
    };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(lock.l_type.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_attended_to_until_the_last_share_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(is_attended(dir.path()), Some(false));
        let one = Share::take(dir.path()).unwrap();
        let two = Share::take(dir.path()).unwrap();
        let copy = one.copy().unwrap();
        drop(one);
        assert_eq!(is_attended(dir.path()), Some(true));
        drop(two);
        assert_eq!(is_attended(dir.path()), Some(true), "asking takes no share, and a copy is one");
        drop(copy);
        assert_eq!(is_attended(dir.path()), Some(false));
    }
}
