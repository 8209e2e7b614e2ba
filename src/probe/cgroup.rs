//! What the control groups of a process allow it: which folders to read, and what their files say.
//!
//! Both versions of cgroups and machines that mix them. All of it works on text; [`host`](super::host) reads the files.

use std::path::{Path, PathBuf};

use crate::units::{Bytes, Cpus};

/// The two generations of the interface, whose files differ in name and in content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// What limits us, of which a machine may hold each in another hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// How many processes there are.
    Pids,
}

impl Controller {
    const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// A hierarchy as it is mounted: `root` of it appears at `point`.
struct Mount<'a> {
    version: Version,
    root: &'a str,
    point: &'a str,
    options: &'a str,
}

/// Returns the folders whose limits apply to a process, its own group first and then every group around it.
///
/// `memberships` is the text of `/proc/self/cgroup`, `mounts` that of `/proc/self/mountinfo`.
#[must_use]
pub fn folders(memberships: &str, mounts: &str, controller: Controller) -> Vec<(Version, PathBuf)> {
    let mut found = Vec::new();
    for mount in mounts.lines().filter_map(mount) {
        if mount.version == Version::V1 && !mount.options.split(',').any(|word| word == controller.word()) {
            continue;
        }
        let Some(path) = membership(memberships, mount.version, controller) else { continue };
        // A container that sees only its own part of the hierarchy has it mounted with that part as the root.
        let below = Path::new(path).strip_prefix(mount.root).unwrap_or(Path::new("")).to_path_buf();
        let below: PathBuf =
            below.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
        for part in below.ancestors() {
            found.push((mount.version, Path::new(mount.point).join(part)));
        }
    }
    found
}

/// Reads one line of `mountinfo`: `36 35 98:0 ROOT POINT rw,noatime … - TYPE SOURCE OPTIONS`.
fn mount(line: &str) -> Option<Mount<'_>> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let version = match kind.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    Some(Mount { version, root, point, options: kind.nth(1).unwrap_or("") })
}

/// Returns our path in a hierarchy: lines are `4:memory:/path`, and `0::/path` for version 2.
fn membership(memberships: &str, version: Version, controller: Controller) -> Option<&str> {
    memberships.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match version {
            Version::V1 => controllers.split(',').any(|word| word == controller.word()),
            Version::V2 => controllers.is_empty(),
        };
        ours.then_some(path)
    })
}

/// Returns the CPUs that `cpu.max` (`"200000 100000"`, `"max 100000"`) allows; `None` without a limit.
#[must_use]
pub fn cpu_max(text: &str) -> Option<Cpus> {
    let mut words = text.split_whitespace();
    quota(words.next()?, words.next()?)
}

/// Returns the CPUs that a quota per period allows, both in microseconds; `None` without a limit (`max`, `-1`).
#[must_use]
pub fn quota(quota: &str, period: &str) -> Option<Cpus> {
    let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (period > 0).then(|| Cpus(quota.saturating_mul(Cpus::ONE.0) / period))
}

/// Returns the limit in `memory.max` or `memory.limit_in_bytes`; `None` without one.
#[must_use]
pub fn memory_limit(text: &str) -> Option<Bytes> {
    // Version 1 writes "no limit" as the largest whole number of pages: no machine has 2^60 bytes.
    text.trim().parse().ok().filter(|limit| *limit < 1 << 60).map(Bytes)
}

/// Returns what of the memory in use is not page cache that the kernel would give up at once.
///
/// `usage` is `memory.current` or `memory.usage_in_bytes`, `stat` is `memory.stat`.
#[must_use]
pub fn memory_in_use(usage: &str, stat: &str, version: Version) -> Option<Bytes> {
    let word = match version {
        Version::V1 => "total_inactive_file",
        Version::V2 => "inactive_file",
    };
    let usage: u64 = usage.trim().parse().ok()?;
    let cache = stat.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok());
    Some(Bytes(usage.saturating_sub(cache.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2_MOUNTS: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const MIXED_MOUNTS: &str = "\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    fn paths(found: Vec<(Version, PathBuf)>) -> Vec<String> {
        found.into_iter().map(|(_, path)| path.display().to_string()).collect()
    }

    #[test]
    fn every_group_around_ours_is_read() {
        let found = folders("0::/user.slice/job.scope", V2_MOUNTS, Controller::Memory);
        let want = ["/sys/fs/cgroup/user.slice/job.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup/"];
        assert_eq!(paths(found), want);
    }

    #[test]
    fn a_controller_of_version_1_is_found_by_name() {
        let memberships = "4:memory:/box\n1:cpu,cpuacct:/\n0::/";
        let memory = folders(memberships, MIXED_MOUNTS, Controller::Memory);
        assert_eq!(memory[0], (Version::V1, PathBuf::from("/sys/fs/cgroup/memory/box")));
        let cpu = folders(memberships, MIXED_MOUNTS, Controller::Cpu);
        assert_eq!(cpu[0], (Version::V1, PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/")));
    }

    #[test]
    fn a_container_mounts_its_part_as_the_root() {
        let mounts = "9 8 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let found = folders("4:memory:/docker/abc", mounts, Controller::Memory);
        assert_eq!(paths(found), ["/sys/fs/cgroup/memory/"]);
    }

    #[test]
    fn a_path_outside_the_mount_falls_back_to_its_root() {
        let found = folders("0::/../other", V2_MOUNTS, Controller::Cpu);
        assert!(paths(found).contains(&"/sys/fs/cgroup/".to_owned()));
    }

    #[test]
    fn no_limit_is_not_zero() {
        assert_eq!(cpu_max("max 100000"), None);
        assert_eq!(quota("-1", "100000"), None);
        assert_eq!(memory_limit("max\n"), None);
        assert_eq!(memory_limit("9223372036854771712\n"), None);
    }

    #[test]
    fn limits_are_read_exactly() {
        assert_eq!(cpu_max("150000 100000\n"), Some(Cpus(1500)));
        assert_eq!(memory_limit("1073741824\n"), Some(Bytes::GIB));
        assert_eq!(memory_in_use("500\n", "anon 300\ninactive_file 150\n", Version::V2), Some(Bytes(350)));
        assert_eq!(memory_in_use("500\n", "inactive_file 1\ntotal_inactive_file 100\n", Version::V1), Some(Bytes(400)));
    }
}
