//! This machine as an engine: every attempt a process group of its own, started without forking our memory.
//!
//! Between fork and exec a child has our memory itself, not a copy: with one every start would copy the orchestrator's page
//! tables.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::affinity::Affinity;
use super::clock::Clock;
use super::group::OwnGroup;
use super::heard::Heard;
use super::hold::Hold;
use super::log::Log;
use super::oom::Kills;
use super::pending::{Pending, Refusal, Unstarted};
use super::process::{self, Starts, kill_and_reap};
use super::room::is_scarce;
use super::sentinel::Watch;
use super::silence::Silence;
use super::spawn::{Group, Inherited};
use super::strays::Awaited;
use super::supervise::{Attempt, Exit, Wish};
use crate::graph::TaskId;
use crate::run::engine::{Ended, Engine, Launch, Report, Stop};
use crate::run::event::{Process, Role};
use crate::run::outcome::Outcome;
use crate::units::Millis;

/// Reports that wait for the supervisor: a stage that floods its output is slowed down, not buffered.
const REPORTS: usize = 64;

/// Runs attempts as processes of this machine. Must live within a tokio runtime.
#[derive(Debug)]
pub struct Local {
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// What became of starting attempts, to be reported before anything else about them.
    begun: VecDeque<Report>,
    wishes: HashMap<(TaskId, Role), watch::Sender<Wish>>,
    mirror: bool,
    inherited: Inherited,
    starts: Starts,
    kills: Arc<Kills>,
    awaited: Arc<Awaited>,
    /// Whether this process was told to end by what tells all of a machine.
    told: Arc<AtomicBool>,
    /// Whether no attempt has written of its progress yet, where that can be told.
    silence: OnceCell<Option<Arc<Silence>>>,
    /// Attempts that the system has no process for.
    pending: Pending,
    /// How everything was asked to end.
    stop: Stop,
}

impl Local {
    /// Makes an engine; with `mirror` it reports what attempts print. `told` is set once this process was told to end by a
    /// signal that all get when a machine is shut down.
    ///
    /// # Errors
    /// Where the system lacks what every attempt is given.
    pub fn new(mirror: bool, told: Arc<AtomicBool>) -> io::Result<Self> {
        Ok(Self {
            reports: mpsc::channel(REPORTS),
            begun: VecDeque::new(),
            wishes: HashMap::new(),
            mirror,
            inherited: Inherited::new()?,
            starts: Starts::default(),
            kills: Arc::new(Kills::new(Path::new("/"))),
            awaited: Arc::default(),
            told,
            silence: OnceCell::new(),
            pending: Pending::new(),
            stop: Stop::No,
        })
    }

    /// Starts an attempt. Returns it with the reason where there is no process to be had for it now.
    fn try_to_start(&mut self, (launch, wish): Unstarted) -> Option<(Unstarted, String)> {
        let (task, role) = (launch.task, launch.role);
        match self.begin(&launch) {
            Ok(begun) => {
                self.begun.push_back(Report::Spawned { task, role, process: begun.identity });
                tokio::spawn(self.attempt((launch, wish), begun).attend());
            }
            Err(Refusal { reason, is_scarce: true }) => return Some(((launch, wish), reason)),
            Err(Refusal { reason, is_scarce: false }) => {
                let note = Some(format!("it could not be started: {reason}"));
                self.never_began(&launch, Outcome::SpawnFailed { reason }, note);
            }
        }
        None
    }

    /// Starts attempts that had to wait, until the system refuses one again.
    fn start_pending(&mut self) {
        while let Some(next) = self.pending.next() {
            if let Some((next, _)) = self.try_to_start(next) {
                return self.pending.refuse(next);
            }
        }
    }

    /// Ends what was to start and is not wanted any more.
    fn give_up_pending(&mut self) {
        for launch in self.pending.unwanted() {
            self.never_began(&launch, Outcome::Interrupted, None);
        }
    }

    fn never_began(&mut self, launch: &Launch, outcome: Outcome, note: Option<String>) {
        self.wishes.remove(&(launch.task, launch.role));
        self.begun.push_back(Report::Ended(Ended::never_began(launch, outcome, note)));
    }

    /// Starts the process of an attempt.
    fn begin(&self, launch: &Launch) -> Result<Begun, Refusal> {
        prepare(launch)?;
        let silence = self.silence.get_or_init(|| Silence::of(launch.events.parent()?).ok().map(Arc::new)).clone();
        let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
        let (reader, writer) = pipe.map_err(|error| Refusal::of(&error, ToString::to_string))?;
        let killed_before = self.kills.count();
        let (pid, (identity, exit)) = self.awaited.start(|| spawn((&self.inherited, &self.starts), launch, writer))?;
        let (exit, output) = watch_child(exit, reader).inspect_err(|_| {
            kill_and_reap(pid);
            self.awaited.forget(pid);
        })?;
        Ok(Begun { identity, exit, output, killed_before, silence })
    }

    /// Returns an attempt that has its process.
    fn attempt(&self, (launch, wish): Unstarted, begun: Begun) -> Box<Attempt> {
        let Begun { identity, exit, output, killed_before, silence, .. } = begun;
        Box::new(Attempt {
            group: OwnGroup::of(identity, launch.marks.clone()),
            own_peak: process::own_peak_memory(),
            exit: Exit::OfChild(exit),
            output: Some(output),
            closed: None,
            wish,
            reports: self.reports.0.clone(),
            mirror: self.mirror,
            log: match launch.sentinel {
                Some(_) => Log::kept_by_sentinel(launch.log.clone()),
                None => Log::new(launch.log.clone(), launch.limits.log),
            },
            clock: Clock::start(Instant::now()),
            hold: Hold::new(&launch, identity.pid),
            heard: Heard::new(Instant::now(), launch.events.clone(), launch.progress.clone()).unless(silence),
            kills: Arc::clone(&self.kills),
            killed_before,
            awaited: Arc::clone(&self.awaited),
            told: Arc::clone(&self.told),
            launch,
        })
    }

    /// Attends to an attempt that an earlier orchestrator started.
    fn take_on(&self, launch: Launch, sentinel: Process, age: Millis, wish: watch::Receiver<Wish>) -> Box<Attempt> {
        // Where it is not the recorded one any more, it has ended and its record tells how.
        let watched = process::watch_async(sentinel.pid).ok().filter(|_| process::is_alive(sentinel));
        // The clock on the wall may have been set meanwhile.
        let age = process::age(sentinel).unwrap_or(age);
        let now = Instant::now();
        let mut log = Log::kept_by_sentinel(launch.log.clone());
        log.skip_to_end();
        let clock = Clock::go_on(now, (age - launch.stood).as_std(), log.is_used());
        Box::new(Attempt {
            group: OwnGroup::of(sentinel, launch.marks.clone()),
            own_peak: process::own_peak_memory(),
            exit: Exit::OfStranger(watched),
            output: None,
            closed: None,
            wish,
            reports: self.reports.0.clone(),
            mirror: self.mirror,
            log,
            clock,
            hold: Hold::new(&launch, sentinel.pid),
            heard: Heard::go_on(
                now.checked_sub(age.as_std()).unwrap_or(now),
                launch.events.clone(),
                launch.progress.clone(),
            ),
            kills: Arc::clone(&self.kills),
            killed_before: self.kills.count(),
            awaited: Arc::clone(&self.awaited),
            told: Arc::clone(&self.told),
            launch,
        })
    }

    /// Forgets an attempt that has ended.
    fn note_end(&mut self, report: &Report) {
        if let Report::Ended(ended) = report {
            self.wishes.remove(&(ended.task, ended.role));
            self.pending.take_heart();
            self.start_pending();
        }
    }
}

impl Engine for Local {
    fn start(&mut self, launch: Launch) {
        if self.stop != Stop::No {
            return self.never_began(&launch, Outcome::Interrupted, None);
        }
        let (task, role) = (launch.task, launch.role);
        let (stop, stopped) = watch::channel(Wish::default());
        self.wishes.insert((task, role), stop);
        if let Some((attempt, reason)) = self.try_to_start((launch, stopped)) {
            self.pending.push(attempt);
            self.begun.push_back(Report::HeldUp { task, role, reason });
        }
    }

    fn adopt(&mut self, launch: Launch, sentinel: Process, age: Millis) {
        let (stop, stopped) = watch::channel(Wish::default());
        self.wishes.insert((launch.task, launch.role), stop);
        tokio::spawn(self.take_on(launch, sentinel, age, stopped).attend());
    }

    async fn next_report(&mut self) -> Report {
        loop {
            if let Some(report) = self.begun.pop_front() {
                return report;
            }
            let due = self.pending.due();
            tokio::select! {
                biased;
                report = self.reports.1.recv() => {
                    let report = report.expect("a sender is held by `self`");
                    self.note_end(&report);
                    return report;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.start_pending(),
            }
        }
    }

    fn ready_report(&mut self) -> Option<Report> {
        if let Some(report) = self.begun.pop_front() {
            return Some(report);
        }
        let report = self.reports.1.try_recv().ok()?;
        self.note_end(&report);
        Some(report)
    }

    fn stop(&mut self, how: Stop) {
        self.stop = how.max(self.stop);
        self.wishes.values().for_each(|wish| ask(wish, how));
        self.give_up_pending();
    }

    fn stop_task(&mut self, task: TaskId, role: Role, how: Stop) {
        if let Some(wish) = self.wishes.get(&(task, role)) {
            ask(wish, how);
        }
        self.give_up_pending();
    }

    fn suspend(&mut self, task: TaskId, role: Role, suspended: bool) {
        if let Some(wish) = self.wishes.get(&(task, role)) {
            wish.send_modify(|now| now.suspended = suspended);
        }
    }
}

/// Asks an attempt to end, unless it was asked as urgently before.
fn ask(wish: &watch::Sender<Wish>, how: Stop) {
    wish.send_if_modified(|now| {
        let more = how > now.stop;
        now.stop = how.max(now.stop);
        more
    });
}

/// Makes the folders and the job file that the attempt needs.
fn prepare(launch: &Launch) -> Result<(), Refusal> {
    for folder in &launch.folders {
        let words = |error: &io::Error| format!("cannot make the folder {}: {error}", folder.display());
        fs::create_dir_all(folder).map_err(|error| Refusal::of(&error, words))?;
    }
    if let Some((path, text)) = &launch.job {
        let words = |error: &io::Error| format!("cannot write {}: {error}", path.display());
        fs::write(path, text).map_err(|error| Refusal::of(&error, words))?;
    }
    Ok(())
}

/// A process that was just started.
struct Begun {
    identity: Process,
    exit: AsyncFd<OwnedFd>,
    output: pipe::Receiver,
    killed_before: Option<u64>,
    silence: Option<Arc<Silence>>,
}

/// Starts the process; the child has the only other end of the output then. Returns what becomes readable with its end as
/// well.
fn spawn(
    (inherited, starts): (&Inherited, &Starts),
    launch: &Launch,
    output: OwnedFd,
) -> Result<(u32, (Process, OwnedFd)), Refusal> {
    let _near = Affinity::narrow(&launch.cpus);
    let ((pid, exit), identity) = starts.of(|| begin(inherited, launch, output)).map_err(|error| {
        let words = |error: &io::Error| {
            if is_scarce(error) || launch.cwd.is_dir() {
                format!("`{}`: {error}", launch.program)
            } else {
                format!("its folder {} does not exist", launch.cwd.display())
            }
        };
        Refusal::of(&error, words)
    })?;
    // Unreaped, it is there to be looked at even if it has ended already.
    let unseen = || Refusal { reason: "/proc cannot be read".to_owned(), is_scarce: false };
    let identity = identity.ok_or_else(unseen).inspect_err(|_| kill_and_reap(pid))?;
    Ok((pid, (identity, exit)))
}

/// Starts the program of an attempt, or its sentinel, which starts it then: in a session of its own, where what is stopped
/// hears no SIGHUP when this process dies.
fn begin(inherited: &Inherited, launch: &Launch, output: OwnedFd) -> io::Result<(u32, OwnedFd)> {
    let Some(record) = &launch.sentinel else { return inherited.spawn(launch, output.as_fd()) };
    let file = launch.cwd.join(inherited.find(launch)?);
    let args = Watch::args(record, launch, &file);
    let own = std::env::current_exe()?;
    let launch = Launch { program: own.display().to_string(), args, ..bare(launch) };
    inherited.spawn_file(&own, &launch, output.as_fd(), Group::Session)
}

/// Returns where and with what environment an attempt runs, and nothing else of it.
fn bare(launch: &Launch) -> Launch {
    Launch { cwd: launch.cwd.clone(), env: launch.env.clone(), ..Launch::default() }
}

/// Waits from here on for the child's end and output.
fn watch_child(exit: OwnedFd, output: OwnedFd) -> Result<(AsyncFd<OwnedFd>, pipe::Receiver), Refusal> {
    let exit = process::await_readable(exit).map_err(|error| Refusal::of(&error, ToString::to_string))?;
    // It is the end of a new pipe to read from: no need to ask what it is.
    let opened = rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).map_err(io::Error::from);
    let opened = opened.and_then(|()| pipe::Receiver::from_owned_fd_unchecked(output));
    let output = opened.map_err(|error| Refusal::of(&error, ToString::to_string))?;
    Ok((exit, output))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "this test is about processes")]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn nothing_begins_that_is_started_after_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        let launch = Launch {
            program: "touch".to_owned(),
            args: vec![made.display().to_string()],
            cwd: dir.path().to_owned(),
            log: dir.path().join("a.log"),
            ..Launch::default()
        };
        let mut engine = Local::new(false, Arc::default()).unwrap();
        engine.stop(Stop::Gracefully);
        engine.start(launch);
        let Report::Ended(ended) = engine.next_report().await else { panic!("it has begun") };
        assert_eq!((ended.outcome, made.exists()), (Outcome::Interrupted, false));
    }

    #[tokio::test]
    async fn what_has_the_number_of_a_sentinel_that_ended_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut cat = Command::new("cat");
        cat.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut stranger = cat.spawn().unwrap();
        let there = process::identify(stranger.id()).unwrap();
        let sentinel = Process { started: there.started + 1, ..there };
        let record = dir.path().join("a.1.json");
        let ended =
            serde_json::json!({"how": {"exited": 0}, "peak_memory": null, "output_open": false, "log_error": null});
        std::fs::write(&record, serde_json::json!({"sentinel": sentinel, "ended": ended}).to_string()).unwrap();
        let launch = Launch {
            marks: vec![format!("TRAINYARD_TEST_ADOPTED={}", std::process::id())],
            log: dir.path().join("a.log"),
            sentinel: Some(record),
            ..Launch::default()
        };
        let mut engine = Local::new(false, Arc::default()).unwrap();
        engine.adopt(launch, sentinel, Millis(7));
        let Report::Ended(ended) = engine.next_report().await else { panic!("it has ended") };
        assert_eq!((ended.outcome, ended.usage.survivors), (Outcome::Succeeded, 0));
        let mut line = String::new();
        let _ = writeln!(stranger.stdin.as_mut().unwrap(), "there");
        BufReader::new(stranger.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        drop(stranger.stdin.take());
        stranger.wait().unwrap();
    }
}
