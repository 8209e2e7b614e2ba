//! The end of processes that may not be our children: asked for first, forced after a grace.

#![expect(clippy::disallowed_methods, reason = "it is waited for outside the core")]

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::process;

/// How long killed processes may take to be gone: one in an uninterruptible system call takes as long as that does.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// So often it is looked for what killed processes have forked before; a fork bomb is not our task.
pub(super) const ROUNDS: usize = 10;

/// Ends processes: SIGTERM, the grace for all of them together, SIGKILL for what `left` finds then. In each further round that
/// is killed which the previous one forked before it died.
pub(super) fn end(processes: &[u32], grace: Duration, rounds: usize, mut left: impl FnMut() -> Vec<u32>) {
    for pid in processes {
        process::signal(*pid, Signal::TERM);
        // One that is suspended cannot hear of it before it goes on.
        process::signal(*pid, Signal::CONT);
    }
    wait_for(processes, grace);
    for _ in 0..rounds {
        let found = left();
        if found.is_empty() {
            return;
        }
        for pid in &found {
            process::signal(*pid, Signal::KILL);
        }
        wait_for(&found, KILLED_WITHIN);
    }
}

fn wait_for(pids: &[u32], at_most: Duration) {
    let until = Instant::now() + at_most;
    for pid in pids {
        let Ok(watched) = process::watch(*pid) else { continue };
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        let _ = poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&left));
    }
}
