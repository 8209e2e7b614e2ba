//! Notices that something in a folder has changed, by inotify; where a file system tells nothing, time has to do.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

/// Notices changes in a folder.
pub(super) struct Wake(Option<OwnedFd>);

impl Wake {
    /// Looks at a folder from now on.
    pub(super) fn on(folder: Option<&Path>) -> Self {
        let watch = || {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
            let changes = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
            inotify::add_watch(&fd, folder?, changes).ok()?;
            Some(fd)
        };
        Self(watch())
    }

    /// Whether changes are noticed at all.
    pub(super) const fn is_told(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for a change, but not longer than this; returns whether there was one.
    pub(super) fn wait(&self, most: Duration) -> bool {
        let Some(fd) = &self.0 else {
            pause(most);
            return false;
        };
        let changed = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timespec(most))).is_ok_and(|ready| ready > 0);
        // What changed does not matter; the events are only taken off the queue.
        let mut taken = [0; 4096];
        while changed && rustix::io::read(fd, &mut taken).is_ok_and(|bytes| bytes > 0) {}
        changed
    }
}

/// Waits with nothing to wait on but time.
pub(super) fn pause(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}

fn timespec(time: Duration) -> Timespec {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() }
}
