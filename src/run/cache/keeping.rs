//! Results on their way into the cache and back: that a task has succeeded is known to other runs before its result is
//! kept, and whoever looks the task up in between waits for that; and nobody writes an output while it is being put back.
//!
//! Locks of the kernel, one file for each: a run that is killed holds none.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::key::Digest;

/// Held while an output is being put back.
#[derive(Debug)]
pub(super) struct PuttingBack {
    path: PathBuf,
    _file: File,
}

impl PuttingBack {
    /// Waits until nobody else puts an output of a project folder back, and keeps others from it; `None` where nothing can
    /// be locked.
    pub(super) fn begin(folder: &Path, root: &Digest, output: &str) -> Option<Self> {
        let path = file(folder, root, output);
        loop {
            let file = open(folder, &path)?;
            flock(&file, FlockOperation::LockExclusive).ok()?;
            // Whoever held it has removed it: it may be another one by now.
            let is_held = fs::metadata(&path).ok().zip(file.metadata().ok());
            if is_held.is_some_and(|(there, own)| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
                return Some(Self { path, _file: file });
            }
        }
    }

    /// Waits until nobody puts an output back.
    pub(super) fn wait(folder: &Path, root: &Digest, output: &str) {
        wait(&file(folder, root, output));
    }
}

impl Drop for PuttingBack {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Held while a result is being kept.
#[derive(Debug)]
pub(super) struct Keeping {
    path: PathBuf,
    _file: File,
}

impl Keeping {
    /// Begins to keep the result of a task of a project; `None` where another run is at it, or nothing can be locked: the
    /// result may then be made again, which is all that can happen.
    pub(super) fn begin(folder: &Path, project: &Digest, task: &str) -> Option<Self> {
        let path = file(folder, project, task);
        let file = open(folder, &path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self { path, _file: file })
    }

    /// Returns the tasks of a project whose results a process began to keep that is gone.
    pub(super) fn left<'n>(folder: &Path, project: &Digest, tasks: impl Iterator<Item = &'n str>) -> HashSet<&'n str> {
        if fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none()) {
            return HashSet::new();
        }
        let is_left = |task: &&str| {
            File::open(file(folder, project, task))
                .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
        };
        tasks.filter(is_left).collect()
    }

    /// Waits until no other run is keeping the result of a task.
    pub(super) fn wait(folder: &Path, project: &Digest, task: &str) {
        wait(&file(folder, project, task));
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        // Before it is unlocked: whoever opened it waits for this very file.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(folder: &Path, path: &Path) -> Option<File> {
    let open = || OpenOptions::new().create(true).truncate(false).write(true).open(path);
    open().or_else(|_| fs::create_dir_all(folder).and_then(|()| open())).ok()
}

fn wait(lock: &Path) {
    if let Ok(file) = File::open(lock) {
        let _ = flock(&file, FlockOperation::LockShared);
    }
}

fn file(folder: &Path, project: &Digest, task: &str) -> PathBuf {
    folder.join(Digest::of(format!("{project}\0{task}").as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_waits_until_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, project) = (dir.path().join("keeping"), Digest::of(b"p"));
        Keeping::wait(&folder, &project, "t");
        let keeping = Keeping::begin(&folder, &project, "t").unwrap();
        assert!(Keeping::begin(&folder, &project, "t").is_none());
        Keeping::wait(&folder, &project, "another");
        let kept = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                Keeping::wait(&folder, &project, "t");
                kept.load(std::sync::atomic::Ordering::SeqCst)
            });
            // Whether it waits already or not: it must not come back before this.
            kept.store(true, std::sync::atomic::Ordering::SeqCst);
            drop(keeping);
            assert!(waiter.join().unwrap());
        });
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
