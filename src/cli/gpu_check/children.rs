//! Programs that checks start, and what ends them: a limit of their own, the end of all time, or a signal to this process.
//!
//! Each leads a process group, which is asked to end and then ended. What they print goes to files: a pipe could be held
//! open by what they leave behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::low_level;

use super::rows::{Kept, Rows, State, lock};
use crate::cli::{Exit, stops};
use crate::engine::process;

/// How long a program that was asked to end may take for it.
const GRACE: Duration = Duration::from_secs(5);

/// How long something may go on behind the end of all time that cannot be ended alone: a kernel, for instance.
const HANGS: Duration = Duration::from_secs(30);

impl Rows {
    /// Returns a folder of this run among temporary files, which goes when it ends.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn folder(&self) -> io::Result<PathBuf> {
        let mut kept = self.kept();
        if let Some(folder) = &kept.folder {
            return Ok(folder.clone());
        }
        let folder = std::env::temp_dir().join(format!("trainyard-gpu-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        kept.folder = Some(folder.clone());
        Ok(folder)
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// Where it cannot be started, or did not end in time and was ended.
    pub(super) fn run(&self, command: &mut Command, limit: Duration) -> io::Result<Output> {
        let limit = limit.min(self.left());
        let folder = self.folder()?;
        let (out, err) = (folder.join("stdout"), folder.join("stderr"));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut kept = self.kept();
        let mut child = command.process_group(0).spawn()?;
        kept.child = Some(child.id());
        drop(kept);
        let ended = match wait(child.id(), limit) {
            Ok(true) => Ok(()),
            Ok(false) => {
                end(child.id());
                let seconds = limit.as_secs_f64();
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("did not end within {seconds:.1} s, and was ended"),
                ))
            }
            Err(error) => {
                end(child.id());
                Err(error)
            }
        };
        // Its id is not another one's until it was waited for.
        let mut kept = self.kept();
        kept.child = None;
        let status = child.wait()?;
        drop(kept);
        ended?;
        Ok(Output { status, stdout: std::fs::read(out)?, stderr: std::fs::read(err)? })
    }

    /// Ends everything in good order on a signal, and what hangs when time is over.
    ///
    /// # Errors
    /// Where signals or threads are not to be had.
    pub(super) fn guard(&self) -> io::Result<()> {
        let heard = stops::heard()?;
        let (kept, ends) = (self.share(), self.ends() + HANGS);
        let watch = move || {
            let stopped = readable(heard.as_fd(), ends).unwrap_or(true);
            // Never given back: nothing is started or noted behind this.
            let mut kept = lock(&kept);
            low_level::exit(wind_up(&mut kept, stopped) as i32);
        };
        std::thread::Builder::new().name("guard".to_owned()).spawn(watch).map(drop)
    }
}

/// Ends what was started, says how far it came, and returns how to exit.
fn wind_up(kept: &mut Kept, stopped: bool) -> Exit {
    if let Some(child) = kept.child {
        end(child);
    }
    let (state, exit) = if stopped { (State::Stopped, Exit::Interrupted) } else { (State::Hung, Exit::StageFailed) };
    kept.end(state, "did not end in time, and hangs");
    if let Some(folder) = kept.folder.take() {
        // What is left of it lies among temporary files.
        drop(std::fs::remove_dir_all(folder));
    }
    exit
}

/// Waits for the end of a child, which stays to be waited for. Returns whether it came.
fn wait(child: u32, limit: Duration) -> io::Result<bool> {
    let end = process::watch(child)?;
    readable(end.as_fd(), Instant::now() + limit)
}

/// Has a process group end.
fn end(leader: u32) {
    process::signal_group(leader, Signal::TERM);
    // Whoever cannot be watched is ended at once.
    let _gone = wait(leader, GRACE);
    process::signal_group(leader, Signal::KILL);
}

/// Waits until there is something to read. Returns whether it came in time.
fn readable(fd: BorrowedFd<'_>, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let rows = Rows::new(Instant::now() + Duration::from_secs(3_600));
        let error = rows.run(Command::new("sleep").arg("100000"), Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        let echo = rows.run(Command::new("echo").arg("next"), Duration::from_secs(600)).unwrap();
        assert_eq!(echo.stdout, b"next\n");
        let folder = rows.folder().unwrap();
        drop(rows);
        assert!(!folder.exists());
    }
}
