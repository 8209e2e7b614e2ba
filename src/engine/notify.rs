//! Tells others that a run is over: a command, a webhook, each tried again with growing waits.
//!
//! Blocks; whoever calls it can end it at any moment through a descriptor. Does not know what a run is, nor whether it was
//! told before.

#![expect(clippy::disallowed_methods, reason = "it starts the command, and measures how long that takes")]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::process;
use crate::spec::OnFinish;
use crate::units::Millis;

/// What is told, and where the command runs.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Variables of the command, besides ours.
    pub env: Vec<(String, String)>,
    /// What a webhook is sent: JSON.
    pub body: String,
    /// The same for the same end of the same run, so that a receiver can drop what it has had.
    pub key: String,
    /// The folder that the command runs in.
    pub cwd: PathBuf,
    /// Where what the command prints is added to.
    pub log: PathBuf,
}

/// Why somebody was not told.
#[derive(Debug, thiserror::Error)]
pub enum NotTold {
    /// It was ended from outside: nothing is known of the rest.
    #[error("it was ended before")]
    Ended,
    /// The command ended with something else than 0.
    #[error("the command ended with {0}")]
    Command(std::process::ExitStatus),
    /// The command cannot be started.
    #[error("the command cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// It took longer than it may.
    #[error("it took longer than {0}")]
    Late(Millis),
    /// The webhook answered that it will not have it.
    #[error("the address answered {0}")]
    Status(u16),
    /// The webhook is elsewhere: what is sent there is not sent on.
    #[error("the address answered {0}: it leads on to {1}, which is not followed; name that one")]
    Redirect(u16, String),
    /// The webhook was not reached.
    #[error("the address was not reached: {0}")]
    Unreached(String),
}

impl NotTold {
    /// Whether another try could help.
    const fn may_pass(&self) -> bool {
        match self {
            // What the client did wrong stays wrong, unless it came too early or too often.
            Self::Status(status) => matches!(status, 408 | 425 | 429 | 500..),
            Self::Command(_) | Self::Start(_) | Self::Late(_) | Self::Unreached(_) => true,
            Self::Redirect(..) | Self::Ended => false,
        }
    }
}

/// Tells everybody who is to be told. Returns when all were, or with the first who could not be after all tries; `ended`
/// becomes readable, or hangs up, when it is to stop.
///
/// # Errors
/// Who could not be told, and why.
pub fn tell(on_finish: &OnFinish, notice: &Notice, ended: &OwnedFd) -> Result<(), NotTold> {
    let command = on_finish.run.as_ref().map(|line| tries(on_finish, ended, || run(line, on_finish, notice, ended)));
    let webhook = on_finish
        .webhook
        .as_ref()
        .map(|url| tries(on_finish, ended, || post(url, on_finish.timeout, &notice.key, &notice.body)));
    command.into_iter().chain(webhook).collect()
}

/// Tries until it works, no other try could help, or there are no more.
fn tries(on_finish: &OnFinish, ended: &OwnedFd, mut once: impl FnMut() -> Result<(), NotTold>) -> Result<(), NotTold> {
    let mut wait = on_finish.backoff;
    for left in (0..=on_finish.retries).rev() {
        match once() {
            Err(error) if left > 0 && error.may_pass() => {
                tracing::warn!(%error, left, "the end of the run is told once more in {wait}");
            }
            done => return done,
        }
        if ready(&[ended], wait.as_std())? {
            return Err(NotTold::Ended);
        }
        wait = (wait + wait).min(on_finish.backoff_most);
    }
    Ok(())
}

/// Runs the command, and ends it with everything that it started where it takes too long.
fn run(line: &str, on_finish: &OnFinish, notice: &Notice, ended: &OwnedFd) -> Result<(), NotTold> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&notice.log)?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).current_dir(&notice.cwd).envs(notice.env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let mut group = Group { child: command.spawn()?, ended: false };
    let watched = process::watch(group.child.id()).map_err(std::io::Error::from)?;
    let limit = on_finish.timeout;
    let began = Instant::now();
    if !ready(&[&watched, ended], limit.as_std())? {
        return Err(NotTold::Late(limit));
    }
    if ready(&[&watched], Duration::ZERO)? {
        let status = group.end()?;
        tracing::debug!(%status, took = ?began.elapsed(), "the command that tells of the end has ended");
        return if status.success() { Ok(()) } else { Err(NotTold::Command(status)) };
    }
    Err(NotTold::Ended)
}

/// A child that leads a group, which ends with it.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    /// Ends what is left of the group, and returns how its leader ended.
    fn end(&mut self) -> std::io::Result<std::process::ExitStatus> {
        // Before the leader is waited for: until then its number is nobody else's.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.ended = true;
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}

/// Sends JSON to an address by POST, once. The key lets a receiver drop what it has had.
///
/// # Errors
/// Where it is not reached in time, or does not take it.
pub fn post(url: &str, timeout: Millis, key: &str, body: &str) -> Result<(), NotTold> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout.as_std()))
        // A POST would go on as a GET without its content.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("trainyard/", env!("CARGO_PKG_VERSION")))
        .build();
    let request = ureq::Agent::new_with_config(config).post(url).content_type("application/json");
    match request.header("Idempotency-Key", key).send(body) {
        Ok(answer) if answer.status().is_redirection() => {
            let to = answer.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            Err(NotTold::Redirect(answer.status().as_u16(), to.to_owned()))
        }
        Ok(_) => Ok(()),
        Err(ureq::Error::StatusCode(status)) => Err(NotTold::Status(status)),
        Err(ureq::Error::Timeout(_)) => Err(NotTold::Late(timeout)),
        Err(error) => Err(NotTold::Unreached(match error.to_string() {
            // The first bytes of an answer in plain text.
            words if words.contains("InvalidContentType") => "it does not speak TLS: is it http://?".to_owned(),
            words => words,
        })),
    }
}

/// Waits until one of the descriptors is readable or hangs up, but not longer than `wait`; returns whether one did.
fn ready(of: &[&OwnedFd], wait: Duration) -> Result<bool, NotTold> {
    let until = Instant::now() + wait;
    loop {
        let mut polled: Vec<PollFd<'_>> =
            of.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
        let left = until.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut polled, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(NotTold::Start(error.into())),
        }
    }
}
