//! Processes that the kernel killed for want of memory: it says nothing to them, but counts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::probe::cgroup::{self, Controller, Version};

/// The kernel's count of processes that it killed for want of memory: in our control group if it counts, else on the
/// whole machine.
#[derive(Debug)]
pub(in crate::engine) struct Kills {
    /// Kept open: the count is read before every attempt.
    file: Option<File>,
}

impl Kills {
    /// Finds out where to read. `root` holds `proc`.
    pub(in crate::engine) fn new(root: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
        let (groups, mounts) = (text("proc/self/cgroup"), text("proc/self/mountinfo"));
        let own = cgroup::folders(&groups, &mounts, Controller::Memory).into_iter().next();
        let counter = own.map(|(version, folder)| {
            folder.join(match version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            })
        });
        let candidates = counter.into_iter().chain([root.join("proc/vmstat")]);
        let mut open = candidates.filter_map(|file| File::open(file).ok());
        Self { file: open.find(|file| count(file).is_some()) }
    }

    /// Returns the count now; `None` where the kernel does not tell.
    pub(in crate::engine) fn count(&self) -> Option<u64> {
        count(self.file.as_ref()?)
    }
}

/// Reads the line `oom_kill N`, which all three files have.
fn count(file: &File) -> Option<u64> {
    let (mut text, mut length) = ([0; 16 << 10], 0);
    // The kernel writes it anew for whoever reads from its beginning.
    loop {
        match file.read_at(&mut text[length..], u64::try_from(length).ok()?).ok()? {
            0 => return None,
            read => length += read,
        }
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let mut whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        if let Some(count) = whole.find_map(|line| line.strip_prefix("oom_kill ")) {
            return count.trim().parse().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_read_from_our_group_before_the_machine() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/vmstat", "pgfault 12\noom_kill 41\n");
        assert_eq!(Kills::new(root.path()).count(), Some(41));
        let point = root.path().join("cg").display().to_string();
        write("proc/self/cgroup", "0::/job\n");
        write("proc/self/mountinfo", &format!("29 23 0:26 / {point} rw - cgroup2 cgroup2 rw\n"));
        write("cg/job/memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n");
        let kills = Kills::new(root.path());
        assert_eq!(kills.count(), Some(2));
        write("cg/job/memory.events", "oom_kill 3\n");
        assert_eq!(kills.count(), Some(3));
        assert_eq!(Kills::new(Path::new("/no/such/root")).count(), None);
    }
}
