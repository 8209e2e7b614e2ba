//! How many attempts this process can attend to at once, by what the system lets it have.

use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use std::os::unix::fs::MetadataExt;

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
    #[error("this process may have {limit} files open (`ulimit -n`)")]
    Files {
        /// How many it may have.
        limit: u64,
    },
    /// Processes.
    #[error("the user may have {limit} processes (`ulimit -u`)")]
    Processes {
        /// How many the user may have.
        limit: u64,
    },
}

/// Returns how many of the wanted attempts there is room for at once, and why not for all. Raises the limit of open
/// files as far as that takes and the system lets it.
pub fn for_attempts(wanted: u64, processes_each: u64) -> (u64, Option<Scarce>) {
    let limit = files(wanted.saturating_mul(FILES_EACH).saturating_add(OWN_FILES));
    let by_files = limit.map(|limit| (limit.saturating_sub(OWN_FILES) / FILES_EACH, Scarce::Files { limit }));
    let by_processes = processes().map(|(limit, used)| {
        let free = limit.saturating_sub(used).saturating_sub(OWN_PROCESSES);
        (free / processes_each, Scarce::Processes { limit })
    });
    let least = [by_files, by_processes].into_iter().flatten().min_by_key(|(most, _)| *most);
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

/// Returns how many processes the user may have, and has; `None` without a limit.
fn processes() -> Option<(u64, u64)> {
    let limit = getrlimit(Resource::Nproc).current?;
    let own = getuid();
    if own.is_root() {
        return None;
    }
    let ours = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        (entry.metadata().ok()?.uid() == own.as_raw()).then_some(())
    };
    let used = std::fs::read_dir("/proc").ok()?.filter_map(ours).count();
    Some((limit, u64::try_from(used).unwrap_or(u64::MAX)))
}
