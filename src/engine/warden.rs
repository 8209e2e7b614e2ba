//! The end of everything a run started, should the orchestrator die without being able to end it.
//!
//! A second small process waits on a pipe that only the orchestrator holds open. When the pipe closes without a
//! farewell, it ends all processes that carry the run's mark. (A parent-death signal would have to be set between
//! fork and exec, for every task, and would miss grandchildren.)

#![expect(clippy::disallowed_methods, reason = "a process is started here")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tracing::warn;

use super::attendance::Share;
use super::end::{ROUNDS, end};
use super::{process, strays};
use crate::run::event::Process;

/// What the orchestrator says before it closes the pipe in peace.
const FAREWELL: &[u8] = b"done";

/// The orchestrator's end of the arrangement.
#[derive(Debug)]
pub struct Warden {
    child: Child,
}

impl Warden {
    /// Starts a warden over all processes that carry `mark` (`NAME=value`) in their environment. It has its own part of the
    /// lock on the run, and of that on the `ports` of its tasks.
    ///
    /// # Errors
    /// Where this program cannot start itself a second time.
    pub fn start(mark: &str, grace: Duration, attended: &Share, ports: Option<File>) -> std::io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["warden", mark, &grace.as_millis().to_string()])
            .stdin(Stdio::piped())
            // It prints nothing: what it ends is attended to until it has.
            .stdout(attended.copy()?)
            .stderr(ports.map_or_else(Stdio::null, Stdio::from))
            // A Ctrl-C at the terminal is not for it.
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// Returns its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the warden home: everything has ended.
    pub fn dismiss(mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            let _ = pipe.write_all(FAREWELL);
        }
        let _ = self.child.wait();
    }
}

/// Waits for the orchestrator's farewell or death on standard input, and after a death ends what it left: what carries the
/// mark, what is in a group that such a process leads, and what is below those. What tasks had orphaned without the mark, in
/// groups of its own, is nobody's child any more, and not found.
pub fn watch(mark: &str, grace: Duration) {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let mut said = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut said);
    if read.is_ok() && said == FAREWELL {
        return;
    }
    end_marked(mark, grace);
}

/// Ends all marked processes: SIGTERM, the grace, SIGKILL; again for those that were forked meanwhile.
pub fn end_marked(mark: &str, grace: Duration) {
    end_marked_but(mark, &[], grace);
}

/// Ends what is left of a run that is over, at once, and says which processes of tasks that was. `orphans` returns those
/// that need no mark.
pub fn end_leftovers(mark: &str, orphans: impl Fn() -> Vec<u32>) {
    end_all(mark, &[], Duration::ZERO, orphans, |found| {
        let of_tasks = found.iter().filter(|pid| !is_sentinel(**pid)).map(u32::to_string);
        let pids = of_tasks.collect::<Vec<_>>().join(", ");
        if !pids.is_empty() {
            warn!("what tasks had left behind is ended: process {pids}");
        }
    });
}

/// Whether a process is one of our sentinels, which is about to go and none of a task's. A run that a task has left behind has
/// the same program.
fn is_sentinel(pid: u32) -> bool {
    let exe = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let begins = |line: Vec<u8>| line.split(|byte| *byte == 0).nth(1) == Some(b"sentinel");
    exe(&pid.to_string()) == exe("self") && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(begins)
}

/// Like [`end_marked`], but spares processes that carry all of the marks of one of these attempts.
pub fn end_marked_but(mark: &str, spared: &[Vec<String>], grace: Duration) {
    end_all(mark, spared, grace, Vec::new, |_| {});
}

fn end_all(
    mark: &str,
    spared: &[Vec<String>],
    grace: Duration,
    orphans: impl Fn() -> Vec<u32>,
    found: impl FnOnce(&[u32]),
) {
    let marks = [mark.to_owned()];
    // What carries no mark, and is not found any more once its parent has ended.
    let mut unmarked: Vec<Process> = Vec::new();
    let mut find = || {
        let mut left = process::find_marked(&marks);
        left.retain(|pid| !spared.iter().any(|marks| process::is_marked(*pid, marks)));
        let mut others = orphans();
        // A marked one that leads a group lives: no stranger has its number.
        others.extend(strays::unmarked_beside(&left));
        if !left.is_empty() || !others.is_empty() {
            others.extend(strays::unmarked_below(&[left.as_slice(), &others].concat()));
        }
        unmarked.retain(|process| process::is_alive(*process));
        let new = others.into_iter().filter_map(process::identify);
        for process in new.collect::<Vec<_>>() {
            if !unmarked.contains(&process) {
                unmarked.push(process);
            }
        }
        left.extend(unmarked.iter().map(|process| process.pid));
        left
    };
    let left = find();
    found(&left);
    end(&left, grace, ROUNDS, find);
}
