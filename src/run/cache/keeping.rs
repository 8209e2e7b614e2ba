//! Results on their way into the cache: that a task has succeeded is known to other runs before its result is kept, and
//! whoever looks the task up in between waits for that.
//!
//! A lock of the kernel, one file for each task whose result is being kept: a run that is killed leaves none.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::key::Digest;

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
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = open().or_else(|_| fs::create_dir_all(folder).and_then(|()| open())).ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self { path, _file: file })
    }

    /// Waits until no other run is keeping the result of a task.
    pub(super) fn wait(folder: &Path, project: &Digest, task: &str) {
        if let Ok(file) = File::open(file(folder, project, task)) {
            let _ = flock(&file, FlockOperation::LockShared);
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        // Before it is unlocked: whoever opened it waits for this very file.
        let _ = fs::remove_file(&self.path);
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
