//! Whether nobody has written into a folder yet: to ask that costs a thirtieth of looking for a file by its name.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// A folder that is watched until something appears in it.
#[derive(Debug)]
pub(super) struct Silence {
    folder: PathBuf,
    watched: OwnedFd,
    broken: AtomicBool,
}

impl Silence {
    /// Watches a folder from here on.
    ///
    /// # Errors
    /// Where it cannot be watched: the system watches only so many.
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let watched = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let appears = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&watched, folder, appears)?;
        // What appears while this looks is told as well.
        let broken = fs::read_dir(folder)?.next().is_some();
        Ok(Self { folder: folder.to_owned(), watched, broken: AtomicBool::new(broken) })
    }

    /// Whether there is surely nothing at this path: it lies in the folder, in which nothing has ever been.
    pub(super) fn covers(&self, path: &Path) -> bool {
        if !self.broken.load(Ordering::Relaxed) {
            let nothing = rustix::io::read(&self.watched, &mut [0; 512]) == Err(rustix::io::Errno::AGAIN);
            self.broken.store(!nothing, Ordering::Relaxed);
        }
        !self.broken.load(Ordering::Relaxed) && path.parent() == Some(self.folder.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_silent_until_anything_is_written_there() {
        let dir = tempfile::tempdir().unwrap();
        let silence = Silence::of(dir.path()).unwrap();
        assert!(silence.covers(&dir.path().join("a")));
        assert!(!silence.covers(&dir.path().join("sub/a")));
        fs::write(dir.path().join("b"), "").unwrap();
        assert!(!silence.covers(&dir.path().join("a")));
        fs::remove_file(dir.path().join("b")).unwrap();
        assert!(!silence.covers(&dir.path().join("a")), "it may be read before it is looked for");
    }

    #[test]
    fn a_folder_that_had_files_or_was_replaced_is_not_silent() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("events");
        assert!(Silence::of(&folder).is_err());
        fs::create_dir(&folder).unwrap();
        let silence = Silence::of(&folder).unwrap();
        fs::rename(&folder, dir.path().join("old")).unwrap();
        assert!(!silence.covers(&folder.join("a")));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), "").unwrap();
        assert!(!Silence::of(&folder).unwrap().covers(&folder.join("a")));
    }
}
