//! How many attempts this process can attend to at once, by what the system lets it have.

use std::fs::read_to_string;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

use super::process;
use crate::probe::cgroup::{self, Controller};
use crate::spec::Action;

/// Descriptors of one attempt: its process, its output and its log, and one more while it starts.
const FILES_EACH: u64 = 4;

/// Descriptors for everything else: the record, devices, the terminal.
const OWN_FILES: u64 = 64;

/// Processes that are left to the user.
const OWN_PROCESSES: u64 = 16;

/// What is too scarce for as many attempts as were wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Scarce {
    /// Open files.
    #[error(
        "this process may have {limit} files open (`ulimit -n`), and needs {OWN_FILES} and {FILES_EACH} for each task"
    )]
    Files {
        /// How many it may have.
        limit: u64,
    },
    /// Processes of the user.
    #[error("the user may have {limit} processes (`ulimit -u`), {OWN_PROCESSES} of which are left free")]
    Processes {
        /// How many the user may have.
        limit: u64,
    },
    /// Processes of all users in our control group.
    #[error("{used} of the {limit} processes that this container or control group may have are there (`pids.max`)")]
    Group {
        /// How many there may be.
        limit: u64,
        /// How many there are.
        used: u64,
    },
}

/// Returns how many of the wanted attempts there is room for at once, and why not for all. Raises the limit of open
/// files as far as that takes and the system lets it.
pub fn for_attempts(wanted: u64, processes_each: u64) -> (u64, Option<Scarce>) {
    let limit = files(wanted.saturating_mul(FILES_EACH).saturating_add(OWN_FILES));
    let by_files = limit.map(|limit| (limit.saturating_sub(OWN_FILES) / FILES_EACH, Scarce::Files { limit }));
    let root = Path::new("/");
    let own = getuid();
    // The kernel keeps no such limit on root.
    let of_user = getrlimit(Resource::Nproc).current.filter(|_| !own.is_root());
    let by_user = of_user.map(|limit| (limit, threads_of(root, own.as_raw()), Scarce::Processes { limit }));
    let by_groups = groups(root).into_iter().map(|(limit, used)| (limit, used, Scarce::Group { limit, used }));
    let by_processes = by_user.into_iter().chain(by_groups).map(|(limit, used, scarce)| {
        let free = limit.saturating_sub(used).saturating_sub(OWN_PROCESSES);
        (free / processes_each, scarce)
    });
    let least = by_files.into_iter().chain(by_processes).min_by_key(|(most, _)| *most);
    least.filter(|(most, _)| *most < wanted).map_or((wanted, None), |(most, scarce)| (most, Some(scarce)))
}

/// Returns how many files may be open, raised towards what is needed; `None` without a limit.
fn files(needed: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    let raised = maximum.map_or(needed, |maximum| needed.min(maximum));
    // No further than needed: programs that close every descriptor there could be take long where there are many.
    let allowed = raised > current && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok();
    Some(if allowed { raised } else { current })
}

/// Returns how many threads the processes of a user have: that is what the kernel counts. `root` holds `proc`.
fn threads_of(root: &Path, user: u32) -> u64 {
    let proc = root.join("proc");
    let threads = |pid: u32| {
        let folder = proc.join(pid.to_string());
        folder.metadata().ok().filter(|found| found.uid() == user)?;
        let status = read_to_string(folder.join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse::<u64>().ok())
    };
    process::pids_in(&proc).filter_map(threads).sum()
}

/// Returns the limits of our control group and of those around it, and how many processes each has. `root` holds `proc`.
fn groups(root: &Path) -> Vec<(u64, u64)> {
    let text = |name: &str| read_to_string(root.join(name)).unwrap_or_default();
    let folders = cgroup::folders(&text("proc/self/cgroup"), &text("proc/self/mountinfo"), Controller::Pids);
    let number = |folder: &Path, name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // Without a limit it is the word `max`.
    let limit =
        |(_, folder): &(_, std::path::PathBuf)| Some((number(folder, "pids.max")?, number(folder, "pids.current")?));
    folders.iter().filter_map(limit).collect()
}

/// Whether the system has no process, file or memory to spare now. That is no fault of what was to be started: it can be
/// tried again.
pub(super) fn is_scarce(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE))
}

/// Returns how many processes an action needs at once at least: a shell stays beside each command that it starts.
#[must_use]
pub fn processes_of(action: &Action) -> u64 {
    match action {
        Action::Shell(line) => {
            let pipes = line.text.replace("||", "").matches('|').count();
            2 + u64::try_from(pipes).unwrap_or(0)
        }
        Action::Exec(_) | Action::Op { .. } => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Located;

    #[test]
    fn threads_of_the_user_are_counted_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        for (pid, threads) in [("1", 3), ("22", 4), ("self", 100)] {
            let folder = root.path().join("proc").join(pid);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("status"), format!("Name:\tx\nThreads:\t{threads}\nx:\t1\n")).unwrap();
        }
        let own = std::fs::metadata(root.path()).unwrap().uid();
        assert_eq!(threads_of(root.path(), own), 7);
        assert_eq!(threads_of(root.path(), own + 1), 0);
    }

    #[test]
    fn a_shell_counts_beside_what_it_starts() {
        let shell = |line: &str| Action::Shell(Located { text: line.to_owned(), ..Located::default() });
        let of = |line| processes_of(&shell(line));
        assert_eq!([of("true"), of("a || b"), of("a | b | c")], [2, 2, 4]);
        assert_eq!(processes_of(&Action::Exec(Vec::new())), 1);
    }

    #[test]
    fn the_limits_of_all_control_groups_around_us_count() {
        let root = tempfile::tempdir().unwrap();
        let groups_at = root.path().join("pids");
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        std::fs::create_dir_all(groups_at.join("box/job")).unwrap();
        let mount = format!("35 31 0:32 / {} rw - cgroup cgroup rw,pids", groups_at.display());
        std::fs::write(root.path().join("proc/self/mountinfo"), mount).unwrap();
        std::fs::write(root.path().join("proc/self/cgroup"), "8:pids:/box/job\n").unwrap();
        for (folder, limit, used) in [("box/job", "max", "5"), ("box", "100", "42")] {
            std::fs::write(groups_at.join(folder).join("pids.max"), limit).unwrap();
            std::fs::write(groups_at.join(folder).join("pids.current"), used).unwrap();
        }
        assert_eq!(groups(root.path()), [(100, 42)]);
    }
}
