//! What is running and how much is done, kept up event by event: no event costs more than the tasks that run.

use crate::graph::{TaskGraph, TaskId};
use crate::run::event::{Event, Recorded, Role};
use crate::run::observer::{Progress, View};
use crate::run::state::{Phase, RunState};
use crate::units::Millis;

/// A running attempt, as an observer knows it.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// The task.
    pub task: TaskId,
    /// Which of its attempts.
    pub role: Role,
    /// Of one that has ended: whether its task waits again.
    pub waits_again: bool,
    /// When the attempt started, ms since the Unix epoch; later by as long as it has been suspended.
    pub started: Millis,
    /// Since when it is suspended.
    pub suspended: Option<Millis>,
    /// What it last said of itself.
    pub progress: Progress,
    /// Since when (ms since the Unix epoch) and from what part on its progress only rises, if it ever fell: another bar
    /// began then, and the time before it says nothing of this one.
    pub anew: Option<(Millis, f64)>,
}

impl Running {
    /// Returns until when it has run.
    #[must_use]
    pub fn until(&self, now: Millis) -> Millis {
        self.suspended.map_or(now, |since| since.min(now))
    }

    /// Returns for how long it has run.
    #[must_use]
    pub fn ran(&self, now: Millis) -> Millis {
        self.until(now) - self.started
    }
}

/// Counts of a run and its running attempts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Tasks that are done.
    pub succeeded: usize,
    /// Tasks that were up to date.
    pub cached: usize,
    /// Tasks that failed for good.
    pub failed: usize,
    /// Tasks that will not run.
    pub skipped: usize,
    /// Attempts after a task's first.
    pub retries: usize,
    /// The earliest start of an attempt, ms since the Unix epoch.
    pub started: Option<Millis>,
    /// Running attempts, the longest running first.
    pub running: Vec<Running>,
    /// The latest time that is known, ms since the Unix epoch.
    now: Millis,
    primed: bool,
}

impl Tally {
    /// Takes an event in and returns the attempt that it ended.
    pub fn recorded(&mut self, view: View<'_>, recorded: &Recorded) -> Option<Running> {
        if !self.primed {
            // A resumed run has a past: the view's state holds it, this event included.
            *self = Self { now: recorded.at, ..Self::of(view.graph, view.state) };
            return None;
        }
        self.now = self.now.max(recorded.at);
        match &recorded.event {
            Event::AttemptStarted { task, number, place } => {
                self.started = self.started.or(Some(recorded.at));
                self.retries += usize::from(*number > 1 && place.role == Role::Main);
                let (task, role) = (*task, place.role);
                self.running.push(Running { task, role, started: recorded.at, ..Running::default() });
                None
            }
            Event::AttemptFinished { task, role, outcome, .. } => {
                let is_it = |running: &Running| running.task == *task && running.role == *role;
                let mut ended = self.running.remove(self.running.iter().position(is_it)?);
                ended.waits_again = view.state.task(*task).phase == Phase::Waiting;
                self.succeeded += usize::from(outcome.is_success());
                Some(ended)
            }
            Event::TaskSuspended { task } => {
                let running = self.running_mut(*task, Role::Main)?;
                running.suspended = Some(recorded.at);
                None
            }
            Event::TaskContinued { task } => {
                let running = self.running_mut(*task, Role::Main)?;
                let stood = running.suspended.take().map_or(Millis::ZERO, |since| recorded.at - since);
                running.started += stood;
                if let Some((since, _)) = &mut running.anew {
                    *since += stood;
                }
                None
            }
            Event::TaskFailed { .. } => {
                self.failed += 1;
                None
            }
            Event::TaskSkipped { .. } => {
                self.skipped += 1;
                None
            }
            Event::TaskCached { .. } => {
                self.cached += 1;
                None
            }
            // It was counted as done when the run's past was.
            Event::TaskReopened { task } => {
                let was_cached = view.state.task(*task).attempts.is_empty();
                let count = if was_cached { &mut self.cached } else { &mut self.succeeded };
                *count = count.saturating_sub(1);
                None
            }
            // What failed or was skipped is open again.
            Event::RunResumed { .. } => {
                *self = Self { now: self.now, ..Self::of(view.graph, view.state) };
                None
            }
            Event::AttemptSpawned { .. }
            | Event::RetryPlanned { .. }
            | Event::Replanned { .. }
            | Event::StopRequested { .. }
            | Event::RunFinished { .. }
            | Event::FinishTold { .. } => None,
        }
    }

    /// Takes in what time it is.
    pub fn ticked(&mut self, now: Millis) {
        self.now = self.now.max(now);
    }

    /// Takes in what a task says of itself; what it leaves out stays as it was. Returns whether anything is new.
    pub fn progressed(&mut self, task: TaskId, said: &Progress) -> bool {
        self.progressed_as(Role::Main, task, said)
    }

    /// Takes in what one of a task's attempts says of itself.
    pub fn progressed_as(&mut self, role: Role, task: TaskId, said: &Progress) -> bool {
        let now = self.now;
        let Some(running) = self.running_mut(task, role) else { return false };
        if let (Some(before), Some(after)) = (running.progress.progress, said.progress)
            && after < before
        {
            running.anew = Some((now, after));
        }
        let known = said.clone().or(&running.progress);
        let is_new = known != running.progress;
        running.progress = known;
        is_new
    }

    fn running_mut(&mut self, task: TaskId, role: Role) -> Option<&mut Running> {
        self.running.iter_mut().find(|running| running.task == task && running.role == role)
    }

    /// Returns how many tasks of a run wait, by its state.
    #[must_use]
    pub fn waiting(&self, state: &RunState) -> usize {
        let runs = |running: &&Running| state.task(running.task).phase == Phase::Running && !self.is_beside(running);
        state.tasks.len() - state.settled - self.running.iter().filter(runs).count()
    }

    /// Whether another attempt of its task runs that was first.
    #[must_use]
    pub fn is_beside(&self, running: &Running) -> bool {
        running.role == Role::Backup
            && self.running.iter().any(|other| other.task == running.task && other.role == Role::Main)
    }

    /// Counts a state that others made.
    fn of(graph: &TaskGraph, state: &RunState) -> Self {
        let mut tally = Self { primed: true, ..Self::default() };
        for (task, now) in graph.ids().zip(&state.tasks) {
            let main = now.attempts.iter().filter(|attempt| attempt.place.role == Role::Main).count();
            tally.retries += main.saturating_sub(1);
            let first = now.attempts.first().map(|attempt| attempt.started);
            tally.started = [tally.started, first].into_iter().flatten().min();
            for (_, attempt) in now.open() {
                let started = attempt.since() - attempt.ran(attempt.since());
                let (role, suspended) = (attempt.place.role, attempt.is_suspended().then(|| attempt.since()));
                tally.running.push(Running { task, role, started, suspended, ..Running::default() });
            }
            match now.phase {
                Phase::Waiting | Phase::Delayed(_) | Phase::Running => {}
                Phase::Succeeded => tally.succeeded += 1,
                Phase::Cached => tally.cached += 1,
                Phase::Failed => tally.failed += 1,
                Phase::Skipped => tally.skipped += 1,
            }
        }
        tally.running.sort_by_key(|running| running.started);
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Scene, failed, finished, over, skipped, started};
    use crate::run::event::RunEnd;

    #[test]
    fn counts_follow_the_events() {
        let mut scene = Scene::chain(&["clean", "train", "best"]);
        let mut tally = Tally::default();
        for (at, event) in [
            (0, started(0, 1)),
            (5, finished(0, 0)),
            (5, started(1, 1)),
            (9, finished(1, 3)),
            (10, started(1, 2)),
            (12, finished(1, 3)),
            (12, failed(1)),
            (12, skipped(2, 1)),
        ] {
            let recorded = scene.apply(at, event);
            tally.recorded(scene.view(), &recorded);
        }
        let counts = (tally.succeeded, tally.failed, tally.skipped, tally.retries, tally.running.len());
        assert_eq!(counts, (1, 1, 1, 1, 0));
    }

    #[test]
    fn a_resumed_run_is_counted_from_its_past() {
        let mut scene = Scene::chain(&["clean", "train"]);
        for (at, event) in [(7, started(0, 1)), (9, finished(0, 0))] {
            scene.apply(at, event);
        }
        let recorded = scene.apply(100, started(1, 1));
        let mut tally = Tally::default();
        tally.recorded(scene.view(), &recorded);
        assert_eq!((tally.succeeded, tally.running.len(), tally.started), (1, 1, Some(scene.time(7))));
    }

    #[test]
    fn what_failed_counts_no_more_once_the_run_goes_on() {
        let mut scene = Scene::chain(&["clean", "train"]);
        let mut tally = Tally::default();
        for event in [
            started(0, 1),
            finished(0, 3),
            failed(0),
            skipped(1, 0),
            over(RunEnd::Failed),
            Event::RunResumed { adopted: Vec::new() },
            started(0, 2),
            finished(0, 0),
        ] {
            let recorded = scene.apply(1, event);
            tally.recorded(scene.view(), &recorded);
        }
        assert_eq!((tally.succeeded, tally.failed, tally.skipped, tally.running.len()), (1, 0, 0, 0));
    }

    #[test]
    fn what_a_task_leaves_out_stays_as_it_was() {
        let mut tally = Tally { running: vec![Running::default()], ..Tally::default() };
        tally.progressed(TaskId(0), &Progress { loss: Some(0.5), phase: Some("fit".into()), ..Progress::default() });
        tally.progressed(TaskId(0), &Progress { progress: Some(0.25), ..Progress::default() });
        let known = &tally.running[0].progress;
        assert_eq!((known.progress, known.loss, known.phase.as_deref()), (Some(0.25), Some(0.5), Some("fit")));
    }
}
