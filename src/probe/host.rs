//! The host: its name, the CPUs and the memory that this process may use.
//!
//! A limit counts wherever it is set: in the affinity mask, in a control group, or by what the machine has.

use std::fs;
use std::path::Path;

use super::cgroup::{self, Controller, Version};
use crate::units::{Bytes, Cpus};

/// A host as far as we may use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name up to the first dot.
    pub name: String,
    /// CPUs that we may use: the affinity mask, and the tightest quota of our control groups.
    pub cpus: Cpus,
    /// CPUs that the machine has online; `None` if it does not say.
    pub cpus_online: Option<u32>,
    /// Memory that we may use: what the machine has, or the tightest limit of our control groups.
    pub memory: Bytes,
    /// Memory that is free to be used now, within the same limits.
    pub memory_available: Option<Bytes>,
}

impl Host {
    /// Reads what `root` holds of `proc` and `sys`, and asks the kernel for name and affinity.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let text = |path: &Path| fs::read_to_string(root.join(path.strip_prefix("/").unwrap_or(path))).ok();
        let online = text(Path::new("/sys/devices/system/cpu/online")).and_then(|list| count(&list));
        let meminfo = text(Path::new("/proc/meminfo")).unwrap_or_default();
        let groups = Groups::read(&text);
        let machine = field(&meminfo, "MemTotal").unwrap_or(Bytes::ZERO);
        let free = field(&meminfo, "MemAvailable");
        Self {
            name: name(),
            cpus: usable(affinity().or(online), groups.cpus),
            cpus_online: online,
            memory: groups.memory.map_or(machine, |limit| limit.min(machine)),
            memory_available: free.into_iter().chain(groups.memory_free).min(),
        }
    }
}

/// What our control groups leave us; `None` where they set no limit.
#[derive(Default)]
struct Groups {
    cpus: Option<Cpus>,
    memory: Option<Bytes>,
    memory_free: Option<Bytes>,
}

impl Groups {
    fn read(text: &dyn Fn(&Path) -> Option<String>) -> Self {
        let memberships = text(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let mounts = text(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        let folders = |controller| cgroup::folders(&memberships, &mounts, controller);
        let cpus = folders(Controller::Cpu).into_iter().filter_map(|(version, folder)| match version {
            Version::V1 => {
                cgroup::quota(&text(&folder.join("cpu.cfs_quota_us"))?, &text(&folder.join("cpu.cfs_period_us"))?)
            }
            Version::V2 => cgroup::cpu_max(&text(&folder.join("cpu.max"))?),
        });
        let memory: Vec<_> = folders(Controller::Memory)
            .into_iter()
            .filter_map(|(version, folder)| {
                let (limit, usage) = match version {
                    Version::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                    Version::V2 => ("memory.max", "memory.current"),
                };
                let limit = cgroup::memory_limit(&text(&folder.join(limit))?)?;
                let stat = text(&folder.join("memory.stat")).unwrap_or_default();
                let used = text(&folder.join(usage)).and_then(|usage| cgroup::memory_in_use(&usage, &stat, version));
                Some((limit, used.map(|used| limit - used)))
            })
            .collect();
        Self {
            cpus: cpus.min(),
            memory: memory.iter().map(|(limit, _)| *limit).min(),
            memory_free: memory.iter().filter_map(|(_, free)| *free).min(),
        }
    }
}

/// Returns the CPUs that a count and a quota leave; one where nothing is known, since we are running on it.
fn usable(count: Option<u32>, quota: Option<Cpus>) -> Cpus {
    let count = Cpus(u64::from(count.unwrap_or(1).max(1)) * Cpus::ONE.0);
    quota.map_or(count, |quota| quota.min(count))
}

/// Returns how many CPUs a list such as `0-3,8` names.
fn count(list: &str) -> Option<u32> {
    list.trim().split(',').try_fold(0_u32, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// Returns a field of `/proc/meminfo`, which writes KiB as `kB`.
fn field(meminfo: &str, name: &str) -> Option<Bytes> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| Bytes(kib.saturating_mul(1024)))
}

/// Returns those of some CPUs that this process may run on.
pub(super) fn ours(cpus: &[u32]) -> Vec<u32> {
    let Ok(mask) = rustix::thread::sched_getaffinity(None) else { return cpus.to_vec() };
    let is_ours =
        |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| cpu < rustix::thread::CpuSet::MAX_CPU && mask.is_set(cpu));
    cpus.iter().copied().filter(is_ours).collect()
}

/// Returns how many CPUs the affinity mask of this process holds.
fn affinity() -> Option<u32> {
    rustix::thread::sched_getaffinity(None).ok().map(|set| set.count())
}

/// Returns the host's name up to the first dot, with only what may stand in the name of a node.
fn name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let short = name.split('.').next().unwrap_or_default();
    let name: String = short.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root folder with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  1048576 kB\nMemFree: 1 kB\nMemAvailable:   524288 kB\n");

    #[test]
    fn a_control_group_of_version_2_limits_cpus_and_memory() {
        let root = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/a/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "536870912\n"),
            ("sys/fs/cgroup/a/b/memory.current", "402653184\n"),
            ("sys/fs/cgroup/a/b/memory.stat", "anon 1\ninactive_file 134217728\n"),
        ]);
        let host = Host::read(root.path());
        assert_eq!(host.cpus, Cpus(500));
        assert_eq!(host.memory, Bytes(512 << 20));
        assert_eq!(host.memory_available, Some(Bytes(256 << 20)));
    }

    #[test]
    fn a_control_group_of_version_1_limits_them_too() {
        let root = root(&[
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/box\n1:cpu:/\n0::/\n"),
            (
                "proc/self/mountinfo",
                "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n",
            ),
            ("cg/cpu/cpu.cfs_quota_us", "25000\n"),
            ("cg/cpu/cpu.cfs_period_us", "100000\n"),
            ("cg/memory/box/memory.limit_in_bytes", "268435456\n"),
            ("cg/memory/box/memory.usage_in_bytes", "1048576\n"),
            ("cg/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let host = Host::read(root.path());
        assert_eq!((host.cpus, host.memory), (Cpus(250), Bytes(256 << 20)));
        assert_eq!(host.memory_available, Some(Bytes(255 << 20)));
    }

    #[test]
    fn without_control_groups_the_machine_is_the_limit() {
        let root = root(&[MEMINFO, ("sys/devices/system/cpu/online", "0-3,8\n")]);
        let host = Host::read(root.path());
        assert_eq!((host.memory, host.memory_available), (Bytes::GIB, Some(Bytes(512 << 20))));
        assert_eq!(host.cpus_online, Some(5));
        assert!(host.cpus >= Cpus::ONE);
    }

    #[test]
    fn a_machine_that_says_nothing_is_unknown_and_not_empty() {
        let root = root(&[]);
        let host = Host::read(root.path());
        assert_eq!((host.cpus_online, host.memory_available), (None, None));
        assert!(host.cpus >= Cpus::ONE);
    }

    #[test]
    fn a_broken_cpu_list_is_unknown() {
        assert_eq!(count("0-"), None);
        assert_eq!(count("3-1"), None);
        assert_eq!(count(""), None);
    }
}
