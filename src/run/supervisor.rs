//! Carries a run out: decide, commit, tell, do; then wait for something to happen.
//!
//! What happens in one turn of the loop is applied as it happens and committed at once (group commit), before its
//! effect and before anyone is told: an attempt is on record before its process exists. Everything that is decided is decided
//! by [`super::decide`]; this file moves events and knows no rule of its own.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::warn;

use super::admission::{FRESH, Readings};
use super::cache::restore::Found;
use super::crash;
use super::decide::{Dispatcher, Waiting};
use super::engine::{Ended, Engine, Report, Stop};
use super::event::{Event, Place, Recorded, Role, RunEnd, StopReason};
use super::launch::{self, Ground};
use super::observer::{Observer, View};
use super::outcome::Outcome;
use super::peak::Peaks;
use super::ports::Ports;
use super::state::{Illegal, Phase, RunState};
use super::store::StoreError;
use crate::fleet::Fleet;
use crate::graph::{TaskGraph, TaskId};
use crate::plan::Plan;
use crate::spec::Pipeline;
use crate::units::{Bytes, Millis};

mod commit;
mod look;
mod record;
mod replan;

use commit::Locked;
pub use look::{FullDisk, Look, Looker, Question};
pub use record::{News, Record};
pub use replan::Replanner;

/// How often observers redraw.
const TICK: Duration = Duration::from_millis(100);

/// How often devices are looked at; a driver call costs a fraction of a millisecond per device.
const LOOK_EVERY: Millis = Millis(1_000);

/// How soon after a task has started on a device; from then on twice as long each time. So the peak of a short task is
/// seen as well.
const LOOK_FIRST: Millis = Millis(125);

/// How soon again where tasks have left devices, for which others may wait.
const LOOK_AGAIN: Millis = Millis(20);

/// How often observers hear why tasks wait, if that has changed.
const SAY_WHY_EVERY: Millis = Millis(1_000);

/// Why a run could not be carried on. Its tasks have been ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing can be recorded any more.
    #[error("the run was stopped because it could not be recorded")]
    Store(#[from] StoreError),
    /// A bug of ours.
    #[error("the run was stopped because it lost track of itself")]
    Illegal(#[from] Illegal),
}

/// What a run is made of.
pub struct Parts<'a> {
    /// What was written.
    pub pipeline: &'a Pipeline,
    /// Its tasks.
    pub graph: &'a TaskGraph,
    /// What it runs on.
    pub fleet: &'a Fleet,
    /// What is intended.
    pub plan: &'a Plan,
    /// Ids and folders.
    pub ground: &'a Ground,
    /// When the run was first started, ms since the Unix epoch.
    pub started: Millis,
    /// Decides what happens next.
    pub dispatcher: Dispatcher<'a>,
    /// Who watches.
    pub observers: Vec<Box<dyn Observer + 'a>>,
    /// What is known before anything is decided: tasks that are up to date.
    pub known: Vec<Event>,
    /// Plans the rest anew where the plan no longer holds.
    pub replanner: Replanner<'a>,
    /// Looks at the devices; asked only where the fleet has any.
    pub looker: Looker<'a>,
    /// The ports of tasks on several devices.
    pub ports: Ports,
    /// Looks for a disk that has less room than is to be kept free: nothing new is started while there is one.
    pub full_disk: Box<dyn FnMut() -> Option<FullDisk> + 'a>,
}

/// A run under way.
pub struct Supervisor<'a, E, R> {
    parts: Parts<'a>,
    engine: E,
    record: R,
    state: RunState,
    /// The state that observers know: that after the last event they were told.
    told: RunState,
    /// Applied and not committed yet: nobody has been told, and nothing follows from it outside.
    uncommitted: Vec<Recorded>,
    /// Committed, and observers have not been told yet.
    untold: Vec<Recorded>,
    clock: Clock,
    look: Look,
    /// When to look at the devices next.
    look_due: Millis,
    /// How long after that again.
    look_every: Millis,
    /// When to look at the disks next, when that was done last, and whether one was full then.
    disk_due: Millis,
    disk_looked: Millis,
    disk_is_full: bool,
    peaks: Peaks,
    /// When somebody was last seen to open a GPU.
    opened: Option<Millis>,
    /// What observers were last told of tasks that wait, and when they may be told again.
    waiting: (Vec<Waiting>, Millis),
    /// Attempts that were asked to leave their devices, and how they end by it.
    leaving: HashMap<(TaskId, Role), Outcome>,
    /// Attempts that were to be watched, and are not.
    unwatched: HashSet<(TaskId, Role)>,
    /// Who was said to be on a device that it was not given.
    strays: HashSet<TaskId>,
    /// Stages of which one was said to hold more than is reserved for it.
    beyond: HashSet<usize>,
    /// Set while somebody else has locked the record.
    locked: Option<Locked>,
    /// Attempts that the engine has started and not reported as ended: what must end before we leave.
    alive: usize,
}

/// Wall-clock time that cannot jump: read once, then counted by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Millis,
    origin: Instant,
}

impl Clock {
    /// Starts a clock that reads `epoch` now (ms since the Unix epoch).
    #[must_use]
    pub fn starting_at(epoch: Millis) -> Self {
        Self { epoch, origin: Instant::now() }
    }

    fn now(&self) -> Millis {
        self.epoch + Millis(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self, at: Millis) -> Instant {
        self.origin + (at - self.epoch).as_std()
    }
}

impl<'a, E: Engine, R: Record> Supervisor<'a, E, R> {
    /// Makes a supervisor that goes on from a state. Attempts that run in it are adopted. Of the last events before it,
    /// `untold`, observers hear first; `told` is the state before them.
    pub fn new(
        parts: Parts<'a>,
        engine: E,
        record: R,
        state: RunState,
        clock: Clock,
        (told, untold): (RunState, Vec<Recorded>),
    ) -> Self {
        Self {
            parts,
            engine,
            record,
            told,
            state,
            uncommitted: Vec::new(),
            untold,
            clock,
            look: Look::default(),
            look_due: Millis::ZERO,
            look_every: LOOK_EVERY,
            disk_due: Millis::ZERO,
            disk_looked: Millis::ZERO,
            disk_is_full: false,
            peaks: Peaks::default(),
            opened: None,
            waiting: (Vec::new(), Millis::ZERO),
            leaving: HashMap::new(),
            unwatched: HashSet::new(),
            strays: HashSet::new(),
            beyond: HashSet::new(),
            locked: None,
            alive: 0,
        }
    }

    /// Carries the run to its end. `stops` brings the user's wish to end it: gracefully first, then at once.
    ///
    /// # Errors
    /// Where the run cannot be recorded; everything it started has been ended then.
    pub async fn carry_out(&mut self, stops: &mut mpsc::UnboundedReceiver<Stop>) -> Result<RunEnd, RunError> {
        let ended = self.until_end(stops).await;
        if ended.is_err() {
            // The first error is the one to report.
            let _ = self.record.let_go();
            self.engine.stop(Stop::Gracefully);
            while self.alive > 0 {
                tokio::select! {
                    report = self.engine.next_report() => self.alive -= usize::from(matches!(report, Report::Ended(_))),
                    Some(stop) = stops.recv() => self.engine.stop(stop),
                }
            }
        }
        ended
    }

    async fn until_end(&mut self, stops: &mut mpsc::UnboundedReceiver<Stop>) -> Result<RunEnd, RunError> {
        self.adopt_running();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let known = std::mem::take(&mut self.parts.known);
        self.note(&known)?;
        // What is known before anything was read: of a card that is lost nothing is.
        self.end_what_cannot_stay()?;
        self.look_if_due();
        if self.parts.looker.is_asked() {
            // What is known of the devices so far is from before the plan.
            tokio::select! {
                look = self.parts.looker.answer() => self.on_look(look)?,
                Some(stop) = stops.recv() => self.on_stop(stop)?,
                () = sleep(FRESH.as_std()) => self.look.readings = Readings::unread(self.parts.fleet.devices.len()),
            }
        }
        loop {
            let now = self.clock.now();
            self.note_opens(now);
            self.look_at_disks(now);
            let mut decided = self.decide(now)?;
            let end = decided.pop_if(|event| matches!(event, Event::RunFinished { .. }));
            // At once: what comes while it is committed could make it impossible.
            self.note(&decided)?;
            if let Some(end) = end {
                self.commit_whatever_comes(stops).await?;
                // That may take its time.
                self.tell_facts();
                self.settle(stops).await;
                self.note(&[end])?;
            }
            crash::point("decided");
            self.commit_before_effects(stops).await?;
            crash::point("committed");
            self.start_attempts(&decided);
            if let Some((_, end)) = self.state.end {
                self.tell_facts();
                crash::point("told");
                return Ok(end);
            }
            // What was decided may lead to more at once.
            if decided.is_empty() && !self.look_up_tasks() {
                let due = self.next_due().map(|due| self.clock.instant(due));
                tokio::select! {
                    biased;
                    report = self.engine.next_report() => self.on_report(report)?,
                    Some(stop) = stops.recv() => self.on_stop(stop)?,
                    look = self.parts.looker.answer() => self.on_look(look)?,
                    revision = self.parts.replanner.answer() => self.on_revision(revision)?,
                    () = sleep_until(due.unwrap_or(Instant::now() + TICK)), if due.is_some() => {}
                    _ = tick.tick() => self.on_tick()?,
                }
            }
            while let Some(report) = self.engine.ready_report() {
                self.on_report(report)?;
            }
            self.look_if_due();
        }
    }

    /// Asks whether tasks are up to date whose turn it is; whether there was any that is not looked up but starts.
    fn look_up_tasks(&mut self) -> bool {
        let (engine, dispatcher) = (&mut self.engine, &mut self.parts.dispatcher);
        let mut any = false;
        for task in dispatcher.take_lookups() {
            if !engine.look_up(task) {
                dispatcher.runs(task);
                any = true;
            }
        }
        any
    }

    /// Waits until what follows from the ended attempts is done, unless the user will not wait.
    async fn settle(&mut self, stops: &mut mpsc::UnboundedReceiver<Stop>) {
        let impatient = async { while stops.recv().await.is_some_and(|stop| stop != Stop::Now) {} };
        tokio::select! {
            () = self.engine.settle() => return,
            () = impatient => {}
        }
        self.engine.stop(Stop::Now);
    }

    /// Has the engine attend to the attempts that an earlier orchestrator started.
    fn adopt_running(&mut self) {
        let now = self.clock.now();
        let Parts { pipeline, graph, fleet, ground, .. } = &self.parts;
        for (id, task) in (0..).map(TaskId).zip(&self.state.tasks) {
            for (number, attempt) in task.open() {
                let Some(process) = attempt.process else { continue };
                let of = (id, &graph.tasks[id.index()]);
                let mut launch =
                    launch::describe(ground, pipeline, fleet, of, number, (&attempt.place, Bytes::ZERO), None);
                launch.sentinel = Some(launch::sentinel(&ground.dir, &of.1.name, number));
                launch.stood = (now - attempt.started) - attempt.ran(now);
                self.engine.adopt(launch, process, now - attempt.started);
                self.alive += 1;
                if !attempt.pauses.is_empty() {
                    // Its sentinel may have let it go on, or what was last on record never have been done.
                    self.engine.suspend(id, attempt.place.role, attempt.is_suspended());
                }
            }
        }
    }

    /// Starts the attempts that were decided on, and suspends and continues those whose turn it is not, or is.
    fn start_attempts(&mut self, decided: &[Event]) {
        let by_uuid = self.look.lost.then(|| self.parts.fleet.clone().named_by_uuid());
        for event in decided {
            if let Event::TaskSuspended { task } | Event::TaskContinued { task } = event {
                self.engine.suspend(*task, Role::Main, matches!(event, Event::TaskSuspended { .. }));
                crash::point("turned");
            }
            let Event::AttemptStarted { task, number, place } = event else { continue };
            let port = (place.devices.len() > 1).then(|| self.parts.ports.take((*task, place.role))).flatten();
            let beside = self.parts.dispatcher.beside(place);
            let Parts { pipeline, graph, fleet, ground, .. } = &self.parts;
            let of = &graph.tasks[task.index()];
            let fleet = by_uuid.as_ref().unwrap_or(fleet);
            self.engine.start(launch::describe(ground, pipeline, fleet, (*task, of), *number, (place, beside), port));
            self.alive += 1;
            if !place.devices.is_empty() {
                self.look_every = LOOK_FIRST;
                self.look_due = self.look_due.min(self.clock.now() + LOOK_FIRST);
            }
            crash::point("spawned");
        }
    }

    fn on_report(&mut self, report: Report) -> Result<(), RunError> {
        match report {
            Report::Spawned { task, role, process } => self.note(&[Event::AttemptSpawned { task, role, process }])?,
            Report::HeldUp { task, role, reason } => {
                let now = self.clock.now();
                let name = &self.parts.graph.tasks[task.index()].name;
                if self.parts.dispatcher.cannot_start((task, role), reason.clone(), now) {
                    warn!(task = name, "it cannot be started yet, and nothing else is before it: {reason}");
                }
            }
            Report::Printed { task, role, output } => {
                self.tell_facts();
                self.tell(|observer, view| observer.printed(view, task, role, &output));
            }
            Report::Progressed { task, role, progress } => {
                if let (Role::Main, Some(part)) = (role, progress.progress) {
                    self.parts.dispatcher.progressed(task, part, self.clock.now());
                }
                self.tell_facts();
                self.tell(|observer, view| observer.progressed(view, task, role, &progress));
            }
            Report::LookedUp { task, found } => match found {
                Found::UpToDate(found) => self.note(&[Event::TaskCached { task, log: found.log }])?,
                Found::Runs => self.parts.dispatcher.runs(task),
                Found::BeingWritten => {
                    self.ask_what_others_hold()?;
                    self.parts.dispatcher.is_being_written(task, self.clock.now());
                }
            },
            Report::Ended(ended) => {
                crash::point("ended");
                self.alive -= 1;
                self.look_at_disks_again();
                self.parts.ports.give_back((ended.task, ended.role));
                let (task, mut remarks) = (ended.task, Vec::from_iter(ended.note.clone()));
                let attempt = self.state.task(ended.task).open_as(ended.role);
                let place = attempt.map(|attempt| attempt.place.clone()).unwrap_or_default();
                let left_device = !place.devices.is_empty();
                let event = self.finished(ended, &place, &mut remarks);
                self.note(&[event])?;
                if !remarks.is_empty() {
                    // They stand behind the line that tells how the attempt ended.
                    self.commit()?;
                    self.tell_facts();
                }
                for remark in remarks {
                    warn!(task = self.parts.graph.tasks[task.index()].name, "{remark}");
                }
                if left_device {
                    self.look_due = self.look_due.min(self.clock.now() + LOOK_AGAIN);
                }
            }
        }
        Ok(())
    }

    fn on_stop(&mut self, stop: Stop) -> Result<(), RunError> {
        if stop != Stop::No && self.state.stopping != Some(StopReason::Signal) {
            self.note(&[Event::StopRequested { reason: StopReason::Signal }])?;
        }
        self.engine.stop(stop);
        Ok(())
    }

    fn on_tick(&mut self) -> Result<(), RunError> {
        self.commit()?;
        self.tell_facts();
        let now = self.clock.now();
        if self.parts.dispatcher.waits_for_others() {
            self.ask_what_others_hold()?;
        }
        self.parts.looker.miss(now);
        self.tell_why_tasks_wait(now);
        self.replan_if_due();
        self.tell(|observer, view| observer.ticked(view, now));
        Ok(())
    }

    fn tell_why_tasks_wait(&mut self, now: Millis) {
        if now < self.waiting.1 {
            return;
        }
        let is_stopping = self.state.stopping.is_some();
        let waiting = || self.parts.dispatcher.waiting(now, &self.look.readings);
        let waiting = if is_stopping { Vec::new() } else { waiting() };
        if waiting != self.waiting.0 {
            self.tell(|observer, view| observer.waits(view, now, &waiting));
            self.waiting = (waiting, now + SAY_WHY_EVERY);
        }
    }

    /// Returns the fact that an attempt ended, with what was seen of it and of its devices; what is concluded from that
    /// alone is added to the remarks.
    fn finished(&mut self, ended: Ended, place: &Place, remarks: &mut Vec<String>) -> Event {
        let Ended { task, role, mut outcome, mut usage, logged, traced, turned_away, note: _ } = ended;
        self.note_opens(self.clock.now());
        let of = self.state.task(task);
        let beside = of.open_as(role.other()).map_or(&[][..], |attempt| &attempt.place.devices);
        let peak = self.peaks.take(task, beside, self.parts.fleet);
        let started = of.open_as(role).map_or(Millis::ZERO, |attempt| attempt.started);
        let life = (started, usage.ended.unwrap_or_else(|| self.clock.now()));
        let opened = self.opened.is_some_and(|at| at > started);
        usage.peak_gpu_memory = peak.as_ref().and_then(|peak| peak.needed(&outcome, place.devices.len(), life, opened));
        usage.hidden = self.unwatched.remove(&(task, role));
        if let Some((explained, remark)) = peak.and_then(|peak| peak.explain(&outcome, place.gpu_memory, traced)) {
            outcome = explained;
            remarks.push(remark);
        }
        outcome = self.parts.dispatcher.explain(outcome, place, usage.peak_gpu_memory);
        if turned_away {
            let (now, readings) = (self.clock.now(), &self.look.readings);
            let (of, place) = ((task, of), (place, usage.peak_gpu_memory));
            outcome = self.parts.dispatcher.explain_turned_away(outcome, of, place, (now, readings));
        }
        // One that ended well meanwhile has, and the user's wish to stop goes before ours to move.
        if let Some(displaced) = self.leaving.remove(&(task, role))
            && outcome == Outcome::Interrupted
            && self.state.stopping != Some(StopReason::Signal)
        {
            outcome = displaced;
        }
        if of.phase == Phase::Succeeded && (outcome.is_success() || outcome == Outcome::Interrupted) {
            outcome = Outcome::Outrun;
        }
        Event::AttemptFinished { task, role, outcome, usage, logged }
    }

    /// Returns when there is something to do even if nothing happens.
    fn next_due(&self) -> Option<Millis> {
        self.parts.dispatcher.next_due(&self.state).into_iter().chain(self.next_look()).min()
    }

    fn tell(&mut self, mut what: impl FnMut(&mut dyn Observer, View<'_>)) {
        let Parts { graph, fleet, plan, ground, observers, started, .. } = &mut self.parts;
        let view = View { run: &ground.run, graph, fleet, plan, state: &self.told, started: *started };
        for observer in observers {
            what(observer.as_mut(), view);
        }
    }
}
