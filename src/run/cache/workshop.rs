//! Where copies are written before they are whole: a folder for each process, below `tmp/` of the cache. A lock of the kernel
//! holds it as long as the process lives: what nobody holds was left behind, and is removed by whoever comes next.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::run::files::tree::remove_all;
use crate::run::lock::is_at;

/// The folder of this process, made when it is needed.
#[derive(Debug)]
pub(super) struct Workshop {
    /// Of all processes.
    dir: PathBuf,
    held: Mutex<(Option<Held>, u64)>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    _lock: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Workshop {
    pub(super) fn new(cache: &Path) -> Self {
        Self { dir: cache.join("tmp"), held: Mutex::default() }
    }

    /// Returns the path of a file or folder that is to be made, where only this process writes.
    ///
    /// # Errors
    /// Where the folder cannot be made.
    pub(super) fn place(&self) -> io::Result<PathBuf> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, next) = &mut *held;
        *next += 1;
        if let Some(held) = held.as_ref().filter(|held| held.path.is_dir()) {
            return Ok(held.path.join(next.to_string()));
        }
        // There was none, or somebody has removed the cache; the next one may have the same name.
        *held = None;
        let path = held.insert(self.hold()?).path.join(next.to_string());
        Ok(path)
    }

    /// The same, if that can be renamed into a folder.
    pub(super) fn place_for(&self, folder: &Path) -> Option<PathBuf> {
        let place = self.place().ok()?;
        let is_same = fs::metadata(place.parent()?).ok()?.dev() == fs::metadata(folder).ok()?.dev();
        is_same.then_some(place)
    }

    fn hold(&self) -> io::Result<Held> {
        fs::create_dir_all(&self.dir)?;
        // Another process may have our number, in a namespace of its own or before us.
        for n in 0_u64.. {
            let path = self.dir.join(format!("{}-{n}", std::process::id()));
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            let Ok(lock) = File::open(&path) else { continue };
            // Where nothing can be locked, the process's number has to do.
            let _ = lock.lock();
            if is_at(&path, &lock) {
                return Ok(Held { path, _lock: lock });
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Removes what processes that are gone have left.
    ///
    /// # Errors
    /// Where something cannot be read or removed; the rest is removed all the same.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut swept = Ok(());
        for entry in entries {
            let entry = entry?;
            let Ok(file) = File::open(entry.path()) else { continue };
            let is_left = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(_)) => {
                    let name = entry.file_name().into_string().unwrap_or_default();
                    !Path::new("/proc").join(name.split('-').next().unwrap_or_default()).exists()
                }
            };
            if is_left {
                swept = swept.and(remove_all(&entry.path()));
            }
        }
        swept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_stays_and_what_was_left_behind_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, later) = (Workshop::new(folder.path()), Workshop::new(folder.path()));
        let place = ours.place().unwrap();
        fs::write(&place, "half").unwrap();
        assert!(ours.place().unwrap() != place && later.place().unwrap().parent() != place.parent());
        let left = folder.path().join("tmp").join(format!("{}-77", std::process::id()));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("1"), "half of one who had our number").unwrap();
        fs::write(folder.path().join("tmp/1-0"), "a file").unwrap();
        later.sweep().unwrap();
        assert!(place.exists() && !left.exists() && !folder.path().join("tmp/1-0").exists());
        drop((ours, later));
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn whoever_removes_the_cache_takes_nothing_from_the_next_copy() {
        let folder = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(folder.path());
        let first = workshop.place().unwrap();
        fs::remove_dir_all(folder.path().join("tmp")).unwrap();
        assert!(workshop.place_for(folder.path()).unwrap().parent().unwrap().is_dir() && !first.exists());
    }
}
