//! Locks of the kernel on files that are there only while somebody holds them: who is killed holds none.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How soon again it is looked whether a lock is free, by those who may give up.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// A lock that is held. Its file goes with it.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
    _file: File,
    stays: bool,
}

impl LockFile {
    /// Waits until nobody else holds it, and takes it. The folder that it is in is made where there is none.
    ///
    /// # Errors
    /// Where there can be no such file, or it cannot be locked.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            file.lock()?;
            if is_at(path, &file) {
                return Ok(Self::of(path, file));
            }
        }
    }

    /// The same, but gives up once it `is_off`.
    ///
    /// # Errors
    /// As [`LockFile::take`]; [`io::ErrorKind::WouldBlock`] where it gave up.
    pub(super) fn take_unless(path: &Path, is_off: impl Fn() -> bool) -> io::Result<Self> {
        loop {
            match Self::take_if_free(path)? {
                Some(taken) => return Ok(taken),
                None if is_off() => return Err(io::ErrorKind::WouldBlock.into()),
                None => wait_a_little(ASK_AGAIN),
            }
        }
    }

    /// Takes it, unless somebody else holds it.
    ///
    /// # Errors
    /// As [`LockFile::take`].
    pub(super) fn take_if_free(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) if is_at(path, &file) => return Ok(Some(Self::of(path, file))),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn of(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), _file: file, stays: false }
    }

    /// Gives it back as who is killed does: its file is left.
    pub(super) fn leave(mut self) {
        self.stays = true;
    }

    /// Waits until nobody holds it, or until it `is_off`. Returns whether nobody does.
    pub(super) fn wait_unless(path: &Path, is_off: impl Fn() -> bool) -> bool {
        let Ok(file) = File::open(path) else { return true };
        while let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
            if is_off() {
                return false;
            }
            wait_a_little(ASK_AGAIN);
        }
        true
    }

    /// Whether somebody took it who is gone and could not remove it.
    pub(super) fn is_left(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // While it is locked: whoever waits for it sees that it is gone and takes a new one.
        if !self.stays {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel lets nobody wait for a lock who may give up")]
fn wait_a_little(time: Duration) {
    thread::sleep(time);
}

fn open(path: &Path) -> io::Result<File> {
    let open = || File::options().create(true).append(true).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).and_then(|()| open())
        }
        (opened, _) => opened,
    }
}

/// Locks a file that stays; returns whether it could within so many milliseconds.
///
/// # Errors
/// Where it cannot be locked.
pub(super) fn lock_within(file: &File, patience: u32) -> io::Result<bool> {
    for _ in 0..patience {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) => wait_a_little(Duration::from_millis(1)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// Whether a file that is open is the one of this name: whoever held its lock may have removed it.
pub(super) fn is_at(path: &Path, file: &File) -> bool {
    let own = rustix::fs::fstat(file).ok().map(|file| (file.st_dev, file.st_ino));
    own.is_some() && own == identity(path)
}

/// Returns what tells the file of a name from every other one.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    rustix::fs::stat(path).ok().map(|file| (file.st_dev, file.st_ino))
}

/// Returns the process that has locked a file as a whole; `None` where nobody has who can be seen from here.
pub(super) fn holder(path: &Path) -> Option<u32> {
    let file = rustix::fs::stat(path).ok()?;
    let (major, minor) = (rustix::fs::major(file.st_dev), rustix::fs::minor(file.st_dev));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.st_ino);
    // `1: FLOCK  ADVISORY  WRITE 708 08:01:1049 0 EOF`; who only waits for it stands behind an arrow.
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let of_file = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let pid = (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&wanted.as_str())).then_some(fields[4])?;
        pid.parse().ok().filter(|pid| *pid > 0)
    };
    locks.lines().find_map(of_file)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_waits_waits_until_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, another) = (dir.path().join("locks/a"), dir.path().join("locks/b"));
        LockFile::wait_unless(&path, || false);
        let held = LockFile::take_if_free(&path).unwrap().unwrap();
        assert!(LockFile::take_if_free(&path).unwrap().is_none() && !LockFile::is_left(&path));
        LockFile::wait_unless(&another, || false);
        let given_back = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                LockFile::wait_unless(&path, || false);
                given_back.load(Ordering::SeqCst)
            });
            let taker = scope.spawn(|| {
                let _taken = LockFile::take(&path).unwrap();
                given_back.load(Ordering::SeqCst)
            });
            // Whether they wait already or not: they must not come back before this.
            given_back.store(true, Ordering::SeqCst);
            drop(held);
            assert!(waiter.join().unwrap() && taker.join().unwrap());
        });
        assert_eq!(fs::read_dir(dir.path().join("locks")).unwrap().count(), 0);
    }

    #[test]
    fn who_may_give_up_does_so_while_somebody_else_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let held = LockFile::take_if_free(&path).unwrap().unwrap();
        assert!(!LockFile::wait_unless(&path, || true) && LockFile::take_unless(&path, || true).is_err());
        drop(held);
        assert!(LockFile::wait_unless(&path, || true) && LockFile::take_unless(&path, || true).is_ok());
    }

    #[test]
    fn one_alone_holds_it_however_often_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, inside) = (dir.path().join("a"), AtomicBool::new(false));
        let enter = || {
            assert!(!inside.swap(true, Ordering::SeqCst));
            inside.store(false, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _waited = LockFile::take_unless(&path, || false).unwrap();
                        enter();
                    }
                    for _ in 0..200 {
                        if let Some(_free) = LockFile::take_if_free(&path).unwrap() {
                            enter();
                        }
                    }
                });
            }
        });
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_process_held_is_left_and_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(!LockFile::is_left(&path));
        fs::write(&path, "").unwrap();
        assert!(LockFile::is_left(&path));
        LockFile::take_if_free(&path).unwrap().unwrap().leave();
        assert!(LockFile::is_left(&path) && LockFile::take_if_free(&path).unwrap().is_some());
        assert!(!path.exists());
    }
}
