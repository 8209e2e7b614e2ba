//! The life of one attempt: its output to the log, its limits, its end, and the end of whatever it leaves behind.
//!
//! Knows one process group and nothing of other attempts.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::clock::{Clock, PROGRESS_EVERY};
use super::group::OwnGroup;
use super::heard::Heard;
use super::hold::Hold;
use super::log::Log;
use super::oom::{Kills, Memory};
use super::process::{self, Reaped, Status};
use super::sentinel::{self, How};
use super::strays::{self, Awaited};
use crate::progress::Progress;
use crate::run::engine::{Ended, Launch, Report, Stop};
use crate::run::event::Process;
use crate::run::outcome::{Outcome, Usage};
use crate::units::Bytes;

/// For how long after a stage was told to end by a signal its orchestrator may be told the same.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Room for one piece of output.
type Piece = [MaybeUninit<u8>; 16 << 10];

/// One attempt from spawn to end.
pub(super) struct Attempt {
    pub(super) launch: Launch,
    /// The attempt's process and what is in its group.
    pub(super) group: OwnGroup,
    /// Our own peak memory after the spawn: what the child is counted with at least.
    pub(super) own_peak: Bytes,
    pub(super) exit: Exit,
    /// Both of its output streams, until they are closed.
    pub(super) output: Option<pipe::Receiver>,
    /// The same once it is closed at the other end.
    pub(super) closed: Option<pipe::Receiver>,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) hold: Hold,
    pub(super) reports: mpsc::Sender<Report>,
    /// Whether printed output is reported.
    pub(super) mirror: bool,
    pub(super) log: Log,
    pub(super) clock: Clock,
    pub(super) heard: Heard,
    /// Where the kernel counts what it kills for want of memory, and how many that were when the attempt started.
    pub(super) kills: Arc<Kills>,
    pub(super) killed_before: Option<u64>,
    /// Which children of ours are attempts.
    pub(super) awaited: Arc<Awaited>,
    /// Whether we were told to end by what tells all of a machine.
    pub(super) told: Arc<AtomicBool>,
}

/// What is wanted of an attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish {
    pub(super) stop: Stop,
    pub(super) suspended: bool,
}

/// What tells of the end of an attempt's process.
pub(super) enum Exit {
    /// It is a child of ours.
    OfChild(AsyncFd<OwnedFd>),
    /// A sentinel that an earlier orchestrator started; nothing to wait for where it has ended.
    OfStranger(Option<AsyncFd<OwnedFd>>),
}

impl Exit {
    /// Waits until the process may have ended.
    async fn readable(&self) {
        if let Self::OfChild(watched) | Self::OfStranger(Some(watched)) = self {
            let _ = watched.readable().await;
        }
    }
}

impl Attempt {
    /// Attends to the attempt until nothing of it runs, and reports its end. Boxed, what is large about it is moved once.
    pub(super) async fn attend(mut self: Box<Self>) {
        let reaped = self.until_exit().await;
        let were_told = self.told.load(Ordering::Relaxed);
        self.drain().await;
        let record = self.launch.sentinel.as_ref().and_then(|path| sentinel::read(path));
        let began = record.as_ref().and_then(|record| record.began);
        let sentinel = record.and_then(|record| record.ended);
        let output_open = self.output.is_some() || sentinel.as_ref().is_some_and(|ended| ended.output_open);
        let holders = sentinel.as_ref().map(|ended| ended.holders.as_slice()).unwrap_or_default();
        if sentinel.as_ref().is_some_and(|ended| ended.asked) {
            self.clock.ending.get_or_insert((Outcome::Interrupted, Instant::now() + self.launch.limits.grace.as_std()));
        }
        let survivors = self.end_survivors(output_open, holders).await;
        self.hear_of_a_stop(reaped.status, were_told).await;
        self.drain().await;
        while self.is_adopted() && self.read_along().await {}
        self.log.finish();
        let last = self.heard.end(Instant::now());
        self.report_progress(last).await;
        let outcome = match sentinel.as_ref().map(|ended| &ended.how) {
            Some(How::NotStarted(reason)) => Outcome::SpawnFailed { reason: reason.clone() },
            Some(How::TimedOut(limit)) => Outcome::TimedOut { limit: *limit },
            // The sentinel itself may have been killed after that.
            Some(how @ (How::Exited(_) | How::Signalled(_))) => self.outcome(how.status()),
            None => self.outcome(reaped.status),
        };
        let log_error = sentinel.as_ref().and_then(|ended| ended.log_error.clone());
        // A stage that is killed is told by its sentinel as well.
        let unwatched = self.launch.sentinel.is_some() && sentinel.is_none() && reaped.status == Status::Signalled(9);
        let who = if unwatched { "its sentinel was killed, and" } else { "it" };
        let note = match (survivors, self.log.error().map(ToString::to_string).or(log_error)) {
            (_, Some(error)) => Some(format!("the log is cut short: {error}")),
            (0, None) => None,
            (1, None) => Some(format!("{who} left a process behind, which was ended")),
            (n, None) => Some(format!("{who} left {n} processes behind, which were ended")),
        };
        let peak_memory = match &sentinel {
            Some(ended) => ended.peak_memory,
            None => Some(reaped.peak_memory).filter(|peak| *peak > self.own_peak),
        };
        // One of ours ends before our eyes.
        let ended = sentinel.as_ref().filter(|_| self.is_adopted()).and_then(|ended| ended.at);
        let log_cut = self.log.cut().or(sentinel.as_ref().and_then(|ended| ended.log_cut));
        let usage = Usage { peak_memory, survivors, began, ended, log_cut, ..Usage::default() };
        let Launch { task, role, .. } = self.launch;
        let (logged, traced, turned_away) = (self.log.is_used(), self.log.has_trace(), self.log.was_turned_away());
        let ended = Ended { task, role, outcome, usage, logged, traced, turned_away, note };
        // A closed channel means that the supervisor is gone, and nobody is left to tell.
        let _ = self.reports.send(Report::Ended(ended)).await;
        // What starts in its place goes before closing and freeing what is left.
        yield_now().await;
    }

    /// Copies output and keeps the limits until the process itself has ended.
    async fn until_exit(&mut self) -> Reaped {
        loop {
            let wake = self.next_deadline();
            tokio::select! {
                biased;
                () = self.exit.readable() => if let Some(reaped) = self.reap() {
                    return reaped;
                },
                // Before its output, which may never be empty.
                () = sleep_until(wake) => if self.is_there() {
                    self.on_time(Instant::now()).await;
                },
                changed = self.wish.changed() => if self.is_there() {
                    self.obey(changed.is_ok());
                },
                () = readable(self.output.as_ref()) => self.copy_output().await,
            }
        }
    }

    /// Returns how the process ended, if it has.
    fn reap(&mut self) -> Option<Reaped> {
        if !self.is_adopted() {
            let reaped = process::reap(self.group.pid())?;
            self.group.has_lost_leader();
            self.awaited.forget(self.group.pid());
            return Some(reaped);
        }
        // Not a child of ours, its end is what its sentinel wrote; one that wrote nothing was killed.
        let ended = self.launch.sentinel.as_ref().and_then(|path| sentinel::read(path)?.ended);
        let status = ended.map_or(Status::Signalled(libc::SIGKILL), |ended| ended.how.status());
        Some(Reaped { status, peak_memory: Bytes::ZERO })
    }

    /// Whether its number is its own: somebody else may have taken an adopted one off the process table.
    fn is_there(&self) -> bool {
        !self.is_adopted() || self.group.is_led()
    }

    const fn is_adopted(&self) -> bool {
        matches!(self.exit, Exit::OfStranger(_))
    }

    /// Takes in what an adopted attempt has printed, from its log; returns whether there was anything.
    async fn read_along(&mut self) -> bool {
        let Some(output) = self.log.catch_up() else { return false };
        let now = Instant::now();
        self.clock.printed = Some(now);
        self.heard.output(&output, now);
        if self.mirror {
            let Launch { task, role, .. } = self.launch;
            let _ = self.reports.send(Report::Printed { task, role, output }).await;
        }
        true
    }

    /// Takes in one piece of output.
    async fn copy_output(&mut self) {
        if let Some(piece) = self.take_in(|output, buffer| output.try_io(|| read(output, buffer))) {
            self.mirror(piece).await;
        }
    }

    /// Takes in one piece of output, if there is any, and returns what is to be reported of it. Its buffer is not kept
    /// while others have their turn.
    fn take_in(
        &mut self,
        read: impl for<'b> FnOnce(&pipe::Receiver, &'b mut Piece) -> io::Result<&'b mut [u8]>,
    ) -> Option<Vec<u8>> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        match read(self.output.as_ref()?, &mut buffer) {
            Ok([]) => self.closed = self.output.take(),
            Ok(piece) => {
                let now = Instant::now();
                if self.launch.sentinel.is_none() || !sentinel::is_not_yet(piece) {
                    self.clock.printed = Some(now);
                }
                self.log.write(piece);
                self.heard.output(piece, now);
                return Some(if self.mirror { piece.to_vec() } else { Vec::new() });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.output = None,
        }
        None
    }

    async fn mirror(&self, output: Vec<u8>) {
        if self.mirror {
            let Launch { task, role, .. } = self.launch;
            let _ = self.reports.send(Report::Printed { task, role, output }).await;
        }
    }

    /// Takes in the output that is there, without waiting for more.
    async fn drain(&mut self) {
        // A pipe holds at most 1 MiB for an ordinary user; a survivor that goes on printing must not keep us.
        for _ in 0..64 {
            // The reactor may not have seen yet what is there.
            match self.take_in(read) {
                Some(piece) => self.mirror(piece).await,
                None => return,
            }
        }
    }

    /// When something must be done next, whatever the process does.
    fn next_deadline(&self) -> Instant {
        if let Some((_, kill_at)) = &self.clock.ending {
            return (*kill_at).min(self.clock.look_at_progress);
        }
        if let Some(look_again) = self.hold.next() {
            return look_again.min(self.clock.look_at_progress);
        }
        let limit = self.clock.next_limit(&self.launch.limits);
        limit.map_or(self.clock.look_at_progress, |(at, _)| at.min(self.clock.look_at_progress))
    }

    async fn on_time(&mut self, now: Instant) {
        if now >= self.clock.look_at_progress {
            self.clock.look_at_progress = now + PROGRESS_EVERY;
            self.awaited.bury_now_and_then(now);
            while self.is_adopted() && self.read_along().await {}
            let progress = self.heard.look(now);
            self.report_progress(progress).await;
        }
        if let Some((_, kill_at)) = &mut self.clock.ending {
            if now >= *kill_at {
                self.group.signal(&[Signal::KILL]);
                // A process in an uninterruptible system call dies late; the signal is not sent twice a moment.
                *kill_at = now + Duration::from_secs(1);
                self.clock.killed = true;
            }
            return;
        }
        self.hold.look_again(now);
        // While it stands still its time does too.
        if self.hold.is_held() {
            return;
        }
        let sentinel = self.launch.sentinel.as_deref().map(|record| (record, self.group.pid()));
        if let Some(limit) = self.clock.passed(&self.launch.limits, sentinel, now) {
            self.end_it(Outcome::TimedOut { limit }, now);
        }
    }

    /// Does what the run asks for; a run that is gone asks for the end.
    fn obey(&mut self, run_is_there: bool) {
        let gone = Wish { stop: Stop::Now, suspended: false };
        let wish = if run_is_there { *self.wish.borrow() } else { gone };
        let now = Instant::now();
        match wish.stop {
            Stop::No if wish.suspended && self.clock.ending.is_none() => self.hold.stop(now),
            Stop::No => self.go_on(now),
            Stop::Gracefully => self.end_it(Outcome::Interrupted, now),
            Stop::Now => {
                self.note_asked();
                let why = self.clock.ending.take().map_or(Outcome::Interrupted, |(why, _)| why);
                self.clock.ending = Some((why, now));
            }
        }
    }

    /// Lets it go on; for how long it stood still does not count for its limits.
    fn go_on(&mut self, now: Instant) {
        let stood = self.hold.go_on(now);
        self.clock.started += stood;
        self.clock.printed = self.clock.printed.map(|printed| now.min(printed + stood));
    }

    fn end_it(&mut self, why: Outcome, now: Instant) {
        if self.clock.ending.is_none() {
            self.note_asked();
            self.group.signal(&[Signal::TERM]);
            if self.hold.is_held() {
                // Only what goes on hears of it.
                self.go_on(now);
            }
            self.clock.ending = Some((why, now + self.launch.limits.grace.as_std()));
        }
    }

    /// Notes that it is asked to end, for the process that finds its sentinel's record.
    fn note_asked(&self) {
        self.launch.sentinel.iter().for_each(|record| sentinel::note_asked(record));
    }

    /// Takes in that the run is to stop, a moment after the process ended so. A machine that is shut down tells all processes
    /// alike to end, in no order: a task that heard of it before us was interrupted, and so was one that ended after we had, even well.
    async fn hear_of_a_stop(&mut self, status: Status, were_told: bool) {
        let is_told = were_told || status.is_as_by_shutdown();
        if !is_told || self.clock.ending.is_some() || matches!(self.exit, Exit::OfStranger(None)) {
            return;
        }
        let until = Instant::now() + SHUTDOWN;
        // A run that is gone has stopped as well.
        if timeout_at(until, self.wish.wait_for(|wish| wish.stop != Stop::No)).await.is_ok() {
            self.clock.ending = Some((Outcome::Interrupted, until));
        }
    }

    /// Ends what the process left behind, and returns how many processes that were.
    ///
    /// There is something where its group has members or its output is still held open; both together miss only a
    /// process that left the group and closed its output, which the end of the run looks for. `holders`: what held its
    /// output open when its sentinel looked.
    async fn end_survivors(&mut self, output_open: bool, holders: &[Process]) -> u32 {
        if !output_open && !self.group_runs() {
            return 0;
        }
        let left = self.survivors(holders);
        for pid in &left {
            process::signal(*pid, Signal::TERM);
            process::signal(*pid, Signal::CONT);
        }
        self.group.signal(&[Signal::TERM, Signal::CONT]);
        let now = Instant::now();
        // What is ended has one grace, with all that belongs to it.
        let until = match &self.clock.ending {
            _ if self.clock.killed => now,
            Some((_, kill_at)) => *kill_at,
            None => now + self.launch.limits.grace.as_std(),
        };
        tokio::select! {
            () = process::wait_for(&left, until) => {}
            () = asked_for_now(&mut self.wish) => {}
        }
        self.group.signal(&[Signal::KILL]);
        // A process that forked while it was being ended is found by a second look.
        let more = self.survivors(holders);
        for pid in &more {
            process::signal(*pid, Signal::KILL);
        }
        process::wait_for(&more, Instant::now() + Duration::from_secs(5)).await;
        self.awaited.bury();
        // What we end in the midst of its work has not left anything behind.
        if self.clock.ending.is_some() {
            return 0;
        }
        let newcomers = more.iter().filter(|pid| !left.contains(pid)).count();
        u32::try_from(left.len() + newcomers).unwrap_or(u32::MAX)
    }

    /// Whether something of the attempt's group runs.
    fn group_runs(&mut self) -> bool {
        self.group.may_run() && {
            // An orphan that has ended stays in the group until it is buried, by us or, slowly, by others.
            self.awaited.bury();
            self.group.runs()
        }
    }

    /// Returns what carries the attempt's marks, and what carries none and holds its output open.
    fn survivors(&self, holders: &[Process]) -> Vec<u32> {
        let mut found = process::find_marked(&self.launch.marks);
        let holding = self.output.as_ref().map(strays::holding).unwrap_or_default();
        let holders = holders.iter().filter(|process| process::is_alive(**process)).map(|process| process.pid);
        for pid in holding.into_iter().chain(holders) {
            if !found.contains(&pid) {
                found.push(pid);
            }
        }
        found
    }

    fn outcome(&mut self, status: Status) -> Outcome {
        if let Some((why, _)) = self.clock.ending.take() {
            return why;
        }
        if let Some(memory) = self.ran_out_of(status) {
            let devices = &self.launch.devices;
            let device = match memory {
                Memory::Device(index) => index.and_then(|index| devices.get(index)).or(devices.first()).cloned(),
                Memory::Computing => devices.first().cloned(),
                Memory::Host => None,
            };
            return Outcome::OutOfMemory { device };
        }
        match status {
            Status::Exited(0) => broken_promise(&self.launch.outputs).unwrap_or(Outcome::Succeeded),
            Status::Exited(code) => Outcome::Exited { code },
            Status::Signalled(signal) => Outcome::Signalled { signal },
        }
    }

    /// Returns the memory for want of which the attempt failed, if that was why.
    fn ran_out_of(&mut self, status: Status) -> Option<Memory> {
        if status == Status::Exited(0) {
            return None;
        }
        // A shell tells the signal that ended its command by this code.
        let killed = matches!(status, Status::Signalled(9) | Status::Exited(137));
        let by_kernel = killed && self.kills.count() > self.killed_before;
        // A task that has no device of ours may have run out of somebody else's: more of what we can give does not help.
        let said = self.log.ran_out_of();
        let is_given = |memory: &Memory| !matches!(memory, Memory::Device(_)) || !self.launch.devices.is_empty();
        let said = said.filter(is_given);
        said.or(by_kernel.then_some(Memory::Host))
    }

    async fn report_progress(&self, progress: Option<Progress>) {
        if let Some(progress) = progress {
            let Launch { task, role, .. } = self.launch;
            let _ = self.reports.send(Report::Progressed { task, role, progress }).await;
        }
    }
}

/// Returns how an attempt failed some of whose outputs are not there, or not within the project.
fn broken_promise(outputs: &[(String, PathBuf)]) -> Option<Outcome> {
    let mut missing = outputs.iter().filter(|(_, path)| !path.exists()).map(|(name, _)| name.clone());
    if let Some(path) = missing.next() {
        return Some(Outcome::OutputMissing { path, leads_to: None, also: missing.collect() });
    }
    outputs.iter().find_map(|(name, path)| {
        let real = path.canonicalize().ok()?;
        let project = path.ancestors().nth(Path::new(name).components().count())?.canonicalize().ok()?;
        let leads_to = (!real.starts_with(project)).then(|| real.display().to_string());
        leads_to.map(|to| Outcome::OutputMissing { path: name.clone(), leads_to: Some(to), also: Box::default() })
    })
}

/// Waits until the attempt is to end at once.
async fn asked_for_now(wish: &mut watch::Receiver<Wish>) {
    // A run that is gone asks for it as well.
    let _ = wish.wait_for(|wish| wish.stop == Stop::Now).await;
}

/// Reads what is there.
fn read<'b>(output: &pipe::Receiver, buffer: &'b mut Piece) -> io::Result<&'b mut [u8]> {
    Ok(rustix::io::read(output, &mut buffer[..])?.0)
}

/// Waits until there is output to read; for ever where the stream is closed.
async fn readable(output: Option<&pipe::Receiver>) {
    match output {
        Some(output) => {
            let _ = output.readable().await;
        }
        None => std::future::pending().await,
    }
}
