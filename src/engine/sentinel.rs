//! A small process around one attempt that outlives the orchestrator: it keeps the log, waits for the end of the stage,
//! and records that end, so that a run which is resumed learns how an attempt ended that nobody was there to see.
//!
//! Once the orchestrator is gone it keeps the stage's time limits as well.
//!
//! It leads the attempt's process group, so that what is sent to the group reaches the stage; it blocks all signals
//! itself. Started only for runs that are to survive their orchestrator: it costs a process more for each attempt.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};

use super::attendance::Share;
use super::hold::{self, Holder};
use super::log::Log;
use super::overtime::Overtime;
use super::process::{self, Reaped, Status};
use super::spawn::{Group, Inherited};
use super::strays;
use crate::probe::clock;
use crate::run::crash;
use crate::run::engine::Launch;
use crate::run::event::Process;
use crate::run::files::Digest;
use crate::run::files::since::{AsLeft, Marks};
use crate::run::outcome::{Limit, LogCut};
use crate::run::ports::Port;
use crate::spec::Limits;
use crate::units::{Bytes, Millis};

mod next;
mod patience;
mod signals;

use next::Next;
pub(super) use patience::is_not_yet;
use patience::{begin_once_there_is_room, start_once_there_is_room};
use signals::Signals;

/// What a sentinel has written down of its attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The sentinel.
    pub sentinel: Process,
    /// The time that the stage has between SIGTERM and SIGKILL; the usual one in records of earlier versions.
    #[serde(default = "usual_grace")]
    pub grace: Millis,
    /// How the stage ended, once it has.
    pub ended: Option<Ended>,
    /// Why the stage could not be started yet, where the system had no process for it: what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// When the stage could begin, ms since the Unix epoch, where it had to wait for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Millis>,
}

impl Record {
    /// What a sentinel writes that has only begun.
    const fn of(sentinel: Process, grace: Millis) -> Self {
        Self { sentinel, grace, ended: None, waits_for: None, began: None }
    }
}

fn usual_grace() -> Millis {
    Limits::default().grace
}

/// How a stage ended under its sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub how: How,
    /// Peak resident memory, where it is known.
    pub peak_memory: Option<Bytes>,
    /// Whether processes that it left still held its output open.
    pub output_open: bool,
    /// Why its log is cut short, if it is.
    pub log_error: Option<String>,
    /// The same in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_cut: Option<LogCut>,
    /// What held its output open without being one of its own group, as far as that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Process>,
    /// When, ms since the Unix epoch; not known of records of earlier versions.
    #[serde(default)]
    pub at: Option<Millis>,
    /// The marks of what it made, as it was then, where nobody else was there to look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<Digest>,
    /// Whether somebody had just asked for that with nobody there, as by a shutdown: what it made may be a part.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
}

impl Ended {
    /// Returns how it left what it made; `None` of records of earlier versions.
    #[must_use]
    pub fn left(&self) -> Option<AsLeft> {
        Some(AsLeft { at: self.at?, marks: self.marks })
    }
}

/// The end of a stage's own process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It called exit.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
    /// It never was: the system's reason.
    NotStarted(String),
    /// The sentinel ended it, nobody else being there to keep its time limit.
    TimedOut(Limit),
}

impl How {
    /// Returns it as the end of a process; one that never was has the code that a shell gives for that.
    pub(super) const fn status(&self) -> Status {
        match self {
            Self::Exited(code) => Status::Exited(*code),
            Self::Signalled(signal) => Status::Signalled(*signal),
            Self::NotStarted(_) => Status::Exited(127),
            Self::TimedOut(_) => Status::Signalled(libc::SIGTERM),
        }
    }
}

/// What became of an attempt whose orchestrator is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its sentinel lives, or has recorded its end.
    Kept(Process),
    /// Nobody knows how it ended, or it never began.
    Lost,
}

/// Returns the note that an attempt was asked to end: what becomes of it then is no end of its own.
fn asked(record: &Path) -> PathBuf {
    record.with_extension("asked")
}

/// Notes that an attempt is about to be asked to end by its orchestrator, whose own record may be out of reach.
pub fn note_asked(record: &Path) {
    // Where there is no room for that, it is taken as it ends.
    let _ = fs::File::create(asked(record));
}

/// Whether an attempt was asked to end, by its orchestrator or with nobody there.
#[must_use]
pub fn was_asked(record: &Path) -> bool {
    asked(record).exists() || read(record).is_some_and(|record| record.ended.is_some_and(|ended| ended.asked))
}

/// Returns the end of an attempt that came to it by itself.
#[must_use]
pub fn own_end(record: &Path) -> Option<Ended> {
    read(record)?.ended.filter(|_| !was_asked(record))
}

/// Looks for an attempt by the record of its sentinel. `same_boot`: whether the host has not been restarted since. One that
/// was told to end before that, by a signal, is lost: it was interrupted.
#[must_use]
pub fn find(record: &Path, same_boot: bool) -> Found {
    // The order matters: one that ends in between has written its record before.
    let alive = read(record).filter(|record| same_boot && process::is_alive(record.sentinel));
    let is_own =
        |Ended { how, .. }: &Ended| same_boot || matches!(how, How::TimedOut(_)) || !how.status().is_as_by_shutdown();
    match alive.or_else(|| read(record).filter(|record| record.ended.as_ref().is_some_and(is_own))) {
        Some(record) => Found::Kept(record.sentinel),
        None => Found::Lost,
    }
}

/// Reads a record; `None` where there is none that can be read.
#[must_use]
pub fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Returns the longest time that a stage has to end by itself whose sentinel is alive and keeps its record in `folder`;
/// `None` where there is none.
#[must_use]
pub fn longest_grace(folder: &Path) -> Option<Millis> {
    let records = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| read(&entry.path()));
    records.filter(|record| process::is_alive(record.sentinel)).map(|record| record.grace).max()
}

/// What a sentinel is told.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Where to record.
    pub record: PathBuf,
    /// Where the output goes.
    pub log: PathBuf,
    /// Most that is kept of it, and the time that the stage has.
    pub limits: Limits,
    /// The port that the stage was given.
    pub port: Option<Port>,
    /// What it is to make, absolute.
    pub outputs: Vec<PathBuf>,
    /// The file of the program.
    pub file: PathBuf,
    /// What the program is called, and its arguments.
    pub words: Vec<String>,
}

impl Watch {
    /// Returns the arguments that make this program the sentinel of an attempt, whose program is this file.
    #[must_use]
    pub(super) fn args(record: &Path, launch: &Launch, file: &Path) -> Vec<String> {
        let paths = [record, &launch.log, file].map(|path| path.to_string_lossy().into_owned());
        let words = std::iter::once(&launch.program).chain(&launch.args).cloned();
        let Limits { timeout, idle_timeout, first_output_timeout, grace, log } = launch.limits;
        let times = [
            ("--timeout", timeout),
            ("--idle-timeout", idle_timeout),
            ("--first-output-timeout", first_output_timeout),
            ("--grace", Some(grace)),
        ];
        let times = times.into_iter().filter_map(|(name, time)| Some([name.to_owned(), time?.0.to_string()])).flatten();
        let log = std::iter::once(log.0.to_string());
        let port = launch.port.iter().filter_map(|port| Some((port.number.to_string(), port.file.as_ref()?)));
        let port = port.flat_map(|(number, file)| {
            ["--port".to_owned(), number, "--ports".to_owned(), file.to_string_lossy().into_owned()]
        });
        // What is made in a place of its own is moved from there by the process that attends.
        let outputs = launch.outputs.iter().filter(|_| launch.staging.is_none());
        let outputs = outputs.flat_map(|(_, path)| ["--output".to_owned(), path.to_string_lossy().into_owned()]);
        let args =
            std::iter::once("sentinel".to_owned()).chain(paths).chain(log).chain(times).chain(port).chain(outputs);
        args.chain(["--".to_owned()]).chain(words).collect()
    }
}

/// Starts the stage, attends to it until it has ended, and returns how this process is to end: as the stage did.
///
/// # Errors
/// Where there is nothing to watch with: no pipe, no record.
pub fn watch(watch: Watch) -> io::Result<Status> {
    Signals::block();
    strays::adopt_orphans();
    // Of an attempt of this number that a power loss has taken from the record.
    let _ = fs::remove_file(asked(&watch.record));
    let own = process::identify(std::process::id()).ok_or(io::Error::other("/proc cannot be read"))?;
    // `RUN/attempts/NAME.json`: seen from other containers, it is attended to until this process ends.
    let _attended = watch.record.ancestors().nth(2).map(Share::take);
    // Nobody else may be told that the port is free, whoever of us dies first; where it cannot be kept, it is still free.
    let _port = watch.port.as_ref().and_then(|port| port.keep().ok());
    let begun = Record::of(own, watch.limits.grace);
    let next = match begin_once_there_is_room(&watch, &begun)? {
        Ok(next) => next,
        Err(signal) => return Ok(Status::Signalled(signal)),
    };
    crash::point("sentinel-begun");
    let mut log = Log::new(watch.log.clone(), watch.limits.log);
    let (ended, heard) = match start_once_there_is_room(&watch, &begun, &mut log) {
        Ok((pid, signals, output)) => {
            crash::point("sentinel-spawned");
            let own_peak = process::own_peak_memory();
            let (overtime, holder) = (Overtime::start(watch.limits), Holder::of(&watch.record));
            let mut attended = Attended { log: &mut log, output: Some(output), heard: true, overtime, holder, signals };
            let Reaped { status, peak_memory } = attended.until_exit(pid)?;
            let at = Some(clock::now());
            attended.drain();
            attended.log.finish();
            let (output_open, heard) = (attended.output.is_some(), attended.heard);
            let holders = attended.output.as_ref().map(strays::holding).unwrap_or_default();
            let holders = holders.into_iter().filter_map(process::identify).collect();
            let how = match (attended.overtime.ended_for(), status) {
                (Some(limit), _) => How::TimedOut(limit),
                (None, Status::Exited(code)) => How::Exited(code),
                (None, Status::Signalled(signal)) => How::Signalled(signal),
            };
            let asked = attended.overtime.ended_for().is_none() && attended.signals.asked_within(watch.limits.grace);
            let peak_memory = Some(peak_memory).filter(|peak| *peak > own_peak);
            let log_error = log.error().map(ToString::to_string);
            let log_cut = log.cut();
            (Ended { how, peak_memory, output_open, log_error, log_cut, holders, at, marks: None, asked }, heard)
        }
        Err(how) => {
            let asked = matches!(how, How::Signalled(_));
            let (holders, at) = (Vec::new(), Some(clock::now()));
            let (peak_memory, output_open, log_error, log_cut) = (None, false, None, None);
            (Ended { how, peak_memory, output_open, log_error, log_cut, holders, at, marks: None, asked }, true)
        }
    };
    crash::point("sentinel-ended");
    let status = ended.how.status();
    // While the orchestrator listens, it learns of the end whatever becomes of this file; alone, nobody else knows.
    let orphaned = !heard || nobody_listens();
    let ended = Ended { asked: ended.asked && orphaned, ..ended };
    let holds = |pid: u32| ended.holders.iter().any(|holder| holder.pid == pid);
    let spared = |pid: u32| strays::is_daemon(pid) && !holds(pid);
    let marks = || (orphaned && !watch.outputs.is_empty()).then(|| Marks::of_all(watch.outputs.clone()).digest());
    // When the stage began is noted there where it had to wait for that.
    let begun = read(&watch.record).map_or(begun, |noted| Record { waits_for: None, ..noted });
    let recorded = Record { ended: Some(Ended { marks: marks(), ..ended.clone() }), ..begun };
    let written = next.write(&recorded, orphaned);
    crash::point("sentinel-recorded");
    // With this process their last parent goes that knows where they come from. What they still wrote belongs to the attempt:
    // it has ended when they have.
    if orphaned && strays::end_adopted(watch.limits.grace.as_std(), spared) && written.is_ok() {
        let ended = Some(Ended { at: Some(clock::now()), marks: marks(), ..ended.clone() });
        let later = Next::reserve(&watch.record).and_then(|next| next.write(&Record { ended, ..recorded }, true));
        // Where there is no room, the attempt has ended a little sooner.
        drop(later);
    }
    // The full disk that keeps the record away is told by the orchestrator, which still sees how this process ends.
    if orphaned { written.map(|()| status) } else { Ok(status) }
}

/// Ends this process as the stage ended.
pub fn end_as(status: Status) -> i32 {
    match status {
        Status::Exited(code) => code,
        Status::Signalled(signal) => {
            // SAFETY: plain system calls on values; the set is initialised before it is used. No core is dumped twice.
            unsafe {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
                libc::signal(signal, libc::SIG_DFL);
                let mut only = std::mem::zeroed();
                libc::sigemptyset(&raw mut only);
                libc::sigaddset(&raw mut only, signal);
                libc::sigprocmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
                libc::raise(signal);
            }
            128 + signal
        }
    }
}

/// Starts the stage in this process's group; the stage holds the only other end of the output. Returns what tells of
/// its end as well.
fn start(watch: &Watch) -> io::Result<(u32, Signals, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (program, args) = watch.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let launch = Launch { program: program.clone(), args: args.to_vec(), cwd: ".".into(), ..Launch::default() };
    let signals = Signals::listen()?;
    let (pid, _) = Inherited::new()?.spawn_file(&watch.file, &launch, writer.as_fd(), Group::Ours)?;
    Ok((pid, signals, reader))
}

/// A stage that runs, its log, and whether the orchestrator still takes what it prints.
struct Attended<'a> {
    log: &'a mut Log,
    output: Option<OwnedFd>,
    heard: bool,
    overtime: Overtime,
    /// The process that has stopped it.
    holder: Holder,
    signals: Signals,
}

impl Attended<'_> {
    fn until_exit(&mut self, pid: u32) -> io::Result<Reaped> {
        // It may have been said before anybody listened.
        let mut told = true;
        loop {
            // What ends or is told from here on makes it readable again.
            told |= self.signals.hear(pid);
            while let Some((ended, reaped)) = process::reap_any() {
                if ended == pid {
                    // All are told to end at once, this process perhaps a moment later.
                    self.signals.hear(pid);
                    return Ok(reaped);
                }
            }
            if std::mem::take(&mut told) {
                self.look_who_holds();
            }
            let wait = self.overtime.wait(nobody_listens);
            let mut all = vec![PollFd::new(&self.signals, PollFlags::IN)];
            let others = [self.output.as_ref(), self.holder.watched()];
            all.extend(others.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
            poll(&mut all, wait.as_ref())?;
            let is_output = usize::from(self.output.is_some());
            let there = all[1..=is_output].iter().any(|fd| !fd.revents().is_empty());
            told |= all[1 + is_output..].iter().any(|fd| !fd.revents().is_empty());
            drop(all);
            if there {
                self.copy();
            }
        }
    }

    /// Lets the stage go on if the process that has stopped it is gone.
    fn look_who_holds(&mut self) {
        match self.holder.look() {
            hold::Found::Nobody => self.overtime.stand(false),
            hold::Found::Somebody => self.overtime.stand(true),
            hold::Found::Gone => self.overtime.go_on(),
        }
    }

    /// Takes in the output that is there, without waiting for more; a process left behind must not keep us.
    fn drain(&mut self) {
        for _ in 0..64 {
            let Some(output) = &self.output else { return };
            let mut probe = [PollFd::new(output, PollFlags::IN)];
            if !poll(&mut probe, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
                return;
            }
            self.copy();
        }
    }

    fn copy(&mut self) {
        let Some(output) = &self.output else { return };
        let mut buffer = [0; 16 << 10];
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => self.output = None,
            Ok(n) => {
                self.overtime.has_printed();
                self.log.write(&buffer[..n]);
                self.heard = self.heard && io::stdout().lock().write_all(&buffer[..n]).is_ok();
                self.heard = self.heard && io::stdout().lock().flush().is_ok();
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => self.output = None,
        }
    }
}

/// Whether the orchestrator has closed its end of our output.
fn nobody_listens() -> bool {
    let out = io::stdout();
    let mut probe = [PollFd::new(&out, PollFlags::OUT)];
    poll(&mut probe, Some(&Timespec::default())).is_ok_and(|_| probe[0].revents().contains(PollFlags::ERR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_ended_a_stage_before_the_host_was_restarted_is_no_end_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let sentinel = Process { pid: u32::MAX, started: 7 };
        let found = |how, same_boot| {
            let ended = serde_json::json!({"how": how, "peak_memory": null, "output_open": false, "log_error": null});
            let ended: Ended = serde_json::from_value(ended).unwrap();
            let record = Record { ended: Some(ended), ..Record::of(sentinel, Millis(7)) };
            Next::reserve(&path).unwrap().write(&record, false).unwrap();
            (find(&path, same_boot), own_end(&path).is_some())
        };
        for how in [How::Signalled(15), How::Signalled(1), How::Exited(143)] {
            assert_eq!(found(how.clone(), true), (Found::Kept(sentinel), true));
            assert_eq!(found(how, false), (Found::Lost, true));
        }
        for how in [How::Signalled(9), How::Exited(0), How::Exited(1)] {
            assert_eq!(found(how, false), (Found::Kept(sentinel), true));
        }
        note_asked(&path);
        assert_eq!((found(How::Exited(0), true).1, was_asked(&path)), (false, true));
    }

    #[test]
    fn only_who_is_there_has_a_grace() {
        let dir = tempfile::tempdir().unwrap();
        let own = process::identify(std::process::id()).unwrap();
        let gone = Process { started: own.started + 1, ..own };
        assert_eq!(longest_grace(dir.path()), None);
        for (name, sentinel, grace) in [("a", own, 40_000), ("b", own, 7), ("c", gone, 90_000)] {
            let path = dir.path().join(name).with_extension("json");
            Next::reserve(&path).unwrap().write(&Record::of(sentinel, Millis(grace)), false).unwrap();
        }
        assert_eq!(longest_grace(dir.path()), Some(Millis(40_000)));
        let earlier = format!("{{\"sentinel\":{}}}", serde_json::to_string(&own).unwrap());
        fs::write(dir.path().join("c.json"), earlier).unwrap();
        fs::remove_file(dir.path().join("a.json")).unwrap();
        assert_eq!(longest_grace(dir.path()), Some(Limits::default().grace));
    }
}
