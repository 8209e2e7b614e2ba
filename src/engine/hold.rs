//! Stops everything that an attempt has started, and lets it go on: SIGSTOP, which no program can refuse, and SIGCONT.
//!
//! An attempt's sentinel is spared: it goes on attending. It is told by a file beside its record who has stopped its attempt,
//! so that it lets it go on should that orchestrator die: nothing is left standing still that nobody would continue. Without a
//! sentinel the run's warden sees to that. Does not know whose turn it is.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use super::process;
use crate::run::engine::Launch;
use crate::run::event::Process;

/// How soon after it was stopped it is looked whether something of it runs after all, for it may have been about to start a
/// process; then after twice as long each time, up to the longest.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LOOK_LATEST: Duration = Duration::from_secs(2);

/// In how many rounds processes are looked for that were started while others were being stopped.
const ROUNDS: u32 = 3;

/// What can be stopped of an attempt, and whether it is.
#[derive(Debug)]
pub(super) struct Hold {
    marks: Vec<String>,
    /// Its process group, which its sentinel leads where it has one.
    group: u32,
    note: Option<PathBuf>,
    held: Option<Held>,
}

/// Since when it stands still, and when to look again.
#[derive(Clone, Copy, Debug)]
struct Held {
    since: Instant,
    again: Instant,
    wait: Duration,
}

impl Hold {
    /// Makes one of an attempt that runs in a process group.
    pub(super) fn new(launch: &Launch, group: u32) -> Self {
        let note = launch.sentinel.as_deref().map(note);
        Self { marks: launch.marks.clone(), group, note, held: None }
    }

    /// Whether it stands still.
    pub(super) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Returns when to look after it again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.held.map(|held| held.again)
    }

    /// Stops everything.
    pub(super) fn stop(&mut self, now: Instant) {
        if self.held.is_none() {
            let _ = self.stop_all();
            self.held = Some(Held { since: now, again: now + LOOK_AGAIN, wait: LOOK_AGAIN });
        }
    }

    /// Lets everything go on, and returns for how long it stood still.
    pub(super) fn go_on(&mut self, now: Instant) -> Duration {
        self.continue_all();
        if let Some(note) = &self.note {
            let _ = fs::remove_file(note);
            process::signal(self.group, Signal::CONT);
        }
        self.held.take().map_or(Duration::ZERO, |held| now.saturating_duration_since(held.since))
    }

    /// Stops what has appeared or was continued by others meanwhile.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.held.is_none_or(|held| now < held.again) {
            return;
        }
        let any = self.stop_all();
        if let Some(held) = &mut self.held {
            held.wait = if any { LOOK_AGAIN } else { LOOK_LATEST.min(held.wait + held.wait) };
            held.again = now + held.wait;
        }
    }

    /// Stops everything, if its sentinel can be told; whether anything ran.
    fn stop_all(&self) -> bool {
        if self.tell_sentinel().is_err() {
            // Nobody would let it go on if we died: it runs until that is on record.
            return true;
        }
        if self.note.is_none() {
            // All at once: no member can start another one meanwhile.
            process::signal_group(self.group, Signal::STOP);
        }
        let mut any = false;
        for _ in 0..ROUNDS {
            let running: Vec<u32> = self.members().filter(|member| !member.stands).map(|member| member.pid).collect();
            any |= !running.is_empty();
            if running.is_empty() {
                break;
            }
            running.into_iter().for_each(|pid| process::signal(pid, Signal::STOP));
        }
        any
    }

    fn continue_all(&self) {
        process::signal_group(self.group, Signal::CONT);
        self.members().for_each(|member| process::signal(member.pid, Signal::CONT));
    }

    fn members(&self) -> impl Iterator<Item = process::Member> {
        let sentinel = self.note.is_some().then_some(self.group);
        let is_meant = move |member: &process::Member| {
            sentinel.is_none_or(|sentinel| member.pid != sentinel && !is_about_to_begin(member.pid, sentinel))
        };
        process::members(&self.marks, self.group).into_iter().filter(is_meant)
    }

    /// Writes down who stops the attempt, before it does, unless that is written already.
    fn tell_sentinel(&self) -> std::io::Result<()> {
        let Some(note) = &self.note else { return Ok(()) };
        let own = process::identify(std::process::id()).ok_or(std::io::ErrorKind::NotFound)?;
        let text = serde_json::to_vec(&own)?;
        if fs::read(note).is_ok_and(|written| written == text) {
            return Ok(());
        }
        // The sentinel may not have made the folder of its record yet.
        fs::create_dir_all(note.parent().unwrap_or(Path::new(".")))?;
        let fresh = note.with_added_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, note)?;
        process::signal(self.group, Signal::CONT);
        Ok(())
    }
}

/// Whether a child of a sentinel has not loaded its program yet. Its sentinel waits for that, and could not hear of anything
/// until then: it is stopped a moment later.
fn is_about_to_begin(pid: u32, sentinel: u32) -> bool {
    let program = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
    process::parent(pid) == Some(sentinel) && program(&pid.to_string()) == program("self")
}

/// Returns where it stands who has stopped an attempt with this record.
fn note(record: &Path) -> PathBuf {
    record.with_added_extension("held")
}

/// What a sentinel knows of whoever has stopped its attempt.
#[derive(Debug)]
pub(super) struct Holder {
    note: PathBuf,
    /// Ends with it.
    watched: Option<OwnedFd>,
}

/// What a sentinel finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nobody has stopped the attempt.
    Nobody,
    /// Somebody has who is there.
    Somebody,
    /// Whoever has is gone.
    Gone,
}

impl Holder {
    /// Makes one for the attempt of a record.
    pub(super) fn of(record: &Path) -> Self {
        Self { note: note(record), watched: None }
    }

    /// Returns what becomes readable when whoever has stopped the attempt ends.
    pub(super) const fn watched(&self) -> Option<&OwnedFd> {
        self.watched.as_ref()
    }

    /// Looks who has stopped the attempt, and watches him. Of one who is gone nothing is left to be found.
    pub(super) fn look(&mut self) -> Found {
        self.watched = None;
        let holder = fs::read(&self.note).ok().and_then(|text| serde_json::from_slice::<Process>(&text).ok());
        let Some(holder) = holder else { return Found::Nobody };
        // Watched first: one that ends in between is seen to have ended.
        let watched = process::watch(holder.pid).ok().filter(|_| process::is_alive(holder));
        self.watched = watched;
        if self.watched.is_some() {
            return Found::Somebody;
        }
        let _ = fs::remove_file(&self.note);
        Found::Gone
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests are about processes")]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that answers what it is told, and a child of its own in a session of its own that does nothing.
    fn shell(mark: &str) -> (Child, Launch) {
        let (name, value) = mark.split_once('=').unwrap();
        let line = "setsid sleep 1000 >/dev/null 2>&1 & while read word; do echo $word $!; done";
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env(name, value).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = shell.spawn().unwrap();
        (child, Launch { marks: vec![mark.to_owned()], ..Launch::default() })
    }

    fn stands(pid: u32, marks: &[String]) -> bool {
        process::members(marks, 0).iter().any(|member| member.pid == pid && member.stands)
    }

    #[test]
    fn everything_of_an_attempt_is_stopped_and_goes_on_also_what_left_its_group() {
        let (mut child, launch) = shell(&format!("TRAINYARD_TEST_HOLD={}", std::process::id()));
        let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut words = child.stdin.take().unwrap();
        let mut ask = |word: &str| writeln!(words, "{word}").unwrap();
        ask("one");
        let apart = answers.next().unwrap().unwrap().split_once(' ').unwrap().1.parse::<u32>().unwrap();
        // It left before its program was loaded, or does so now: its mark is there in any case.
        let mut hold = Hold::new(&launch, child.id());
        hold.stop(Instant::now());
        while ![child.id(), apart].iter().all(|pid| stands(*pid, &launch.marks)) {
            hold.look_again(Instant::now() + LOOK_LATEST);
        }
        ask("two");
        hold.go_on(Instant::now());
        assert!(answers.next().unwrap().unwrap().starts_with("two"));
        while stands(apart, &launch.marks) {
            std::thread::yield_now();
        }
        hold.stop(Instant::now());
        process::signal(apart, Signal::KILL);
        process::signal_group(child.id(), Signal::TERM);
        hold.go_on(Instant::now());
        child.wait().unwrap();
    }

    #[test]
    fn a_sentinel_learns_who_has_stopped_its_attempt_and_that_he_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("a.1.json");
        let mut holder = Holder::of(&record);
        assert_eq!(holder.look(), Found::Nobody);
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = process::identify(child.id()).unwrap();
        fs::write(note(&record), serde_json::to_vec(&process).unwrap()).unwrap();
        assert_eq!((holder.look(), holder.watched().is_some()), (Found::Somebody, true));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((holder.look(), holder.watched().is_some()), (Found::Gone, false));
        assert_eq!(holder.look(), Found::Nobody);
    }
}
