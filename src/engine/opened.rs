//! Which of our tasks have begun to use a GPU, told by what their processes have open: the only sign there is where a
//! driver hides who holds memory. And whether anybody has opened one at all: who has not holds none of its memory, not even
//! for a moment at which nobody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::process;

/// Returns of each task that has processes whether any of them has a GPU open, ascending; `task` says whose a process is.
/// A task with a process that we may not look into, and with no GPU open elsewhere, is left out.
#[must_use]
pub fn by_task<T: Copy + Ord>(task: impl Fn(u32) -> Option<T>) -> Vec<(T, bool)> {
    let (mut opened, mut closed_to_us) = (BTreeMap::new(), BTreeSet::new());
    for (task, pid) in process::table().filter_map(|(pid, _)| Some((task(pid)?, pid))) {
        match has_gpu_open(pid) {
            Some(open) => *opened.entry(task).or_insert(false) |= open,
            // One that has just ended has nothing open.
            None if process::identify(pid).is_some() => drop(closed_to_us.insert(task)),
            None => {}
        }
    }
    opened.into_iter().filter(|(task, open)| *open || !closed_to_us.contains(task)).collect()
}

/// Whether a process has a GPU open, without which it holds no memory of one; `None` where we may not look.
fn has_gpu_open(pid: u32) -> Option<bool> {
    let opened = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let links = opened.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut names = links.filter_map(|to| to.file_name().map(|name| name.to_string_lossy().into_owned()));
    Some(names.any(|name| is_gpu(&name)))
}

/// Whether a file is a GPU by its name: its folder is another one where a driver runs in a container of its own. Under
/// WSL all GPUs are one file.
fn is_gpu(name: &str) -> bool {
    let number = name.strip_prefix("nvidia");
    name == "dxg"
        || number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Notices that a GPU is opened, whoever does it.
#[derive(Debug)]
pub struct Opens(OwnedFd);

impl Opens {
    /// Watches the GPUs in a folder, `/dev`; `None` where there are none, or the system has no watch to spare.
    #[must_use]
    pub fn of(folder: &Path) -> Option<Self> {
        let entries = fs::read_dir(folder).ok()?.flatten();
        let gpus: Vec<_> = entries.filter(|entry| is_gpu(&entry.file_name().to_string_lossy())).collect();
        if gpus.is_empty() {
            return None;
        }
        let watched = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        for gpu in gpus {
            inotify::add_watch(&watched, gpu.path(), WatchFlags::OPEN).ok()?;
        }
        Some(Self(watched))
    }

    /// Whether one was opened since this was asked last.
    #[must_use]
    pub fn any(&self) -> bool {
        let (mut any, mut events) = (false, [0; 4096]);
        while rustix::io::read(&self.0, &mut events).is_ok_and(|bytes| bytes > 0) {
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_known_by_its_number() {
        for name in ["nvidia0", "nvidia15", "dxg"] {
            assert!(is_gpu(name), "{name}");
        }
        for name in ["nvidia", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"] {
            assert!(!is_gpu(name), "{name}");
        }
    }

    #[test]
    fn a_process_is_its_task_s_and_says_whether_it_has_a_gpu_open() {
        let own = std::process::id();
        let of_own = |pid| (pid == own).then_some(7);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(by_task(of_own), [(7, false)]);
        let _open = fs::File::create(folder.path().join("nvidia0")).unwrap();
        assert_eq!(by_task(of_own), [(7, true)]);
    }

    #[test]
    fn a_gpu_that_is_opened_for_a_moment_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Opens::of(folder.path()).is_none());
        for name in ["nvidia1", "nvidiactl"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let opens = Opens::of(folder.path()).unwrap();
        fs::read(folder.path().join("nvidiactl")).unwrap();
        assert!(!opens.any());
        fs::read(folder.path().join("nvidia1")).unwrap();
        assert!(opens.any() && !opens.any());
    }
}
