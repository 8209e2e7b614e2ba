//! How long a run still takes: the larger of what its critical path and its remaining work need.
//!
//! The planned duration of every task is corrected by how long finished tasks took against their plan, and a task that
//! says how far it is counts by its own word. Knows nothing of resources: how many tasks run at once is taken from the
//! plan. One event costs O(1) amortised, one estimate O(running tasks).

use super::tally::Running;
use crate::graph::{TaskGraph, TaskId};
use crate::plan::Plan;
use crate::run::event::{Event, Recorded, Role};
use crate::run::observer::View;
use crate::run::state::{Phase, RunState};
use crate::units::Millis;

/// Below this part of its work a task's own word is too rough to extrapolate from.
const TELLING: f64 = 0.02;

/// What is known of the time that is left.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    /// `[n_tasks]`, ms, by TaskId: planned duration.
    planned: Vec<u64>,
    /// `[n_tasks]`, ms, by TaskId: the longest planned path from the task's start to the end.
    tail: Vec<u64>,
    /// `[n_tasks]`: tasks by tail, the longest first; and the other way round, positions by TaskId.
    by_tail: Vec<TaskId>,
    position: Vec<u32>,
    /// No task before this position of `by_tail` waits.
    first: usize,
    /// Sum of the planned durations of waiting tasks, ms.
    waiting: u64,
    /// Planned durations of all tasks and the planned makespan, ms: their ratio is how many run at once.
    work: u64,
    makespan: u64,
    /// Sums over succeeded attempts, ms.
    took: u64,
    should_have_taken: u64,
}

impl Estimate {
    /// Makes the estimate of a run at its present state. O(tasks + edges).
    #[must_use]
    pub fn new(view: View<'_>) -> Self {
        let planned = planned_durations(view.plan);
        let tail = tails(view.graph, &planned);
        let mut by_tail: Vec<TaskId> = view.graph.ids().collect();
        by_tail.sort_by_key(|task| (std::cmp::Reverse(tail[task.index()]), *task));
        let mut position = vec![0; by_tail.len()];
        for (at, task) in (0..).zip(&by_tail) {
            position[task.index()] = at;
        }
        let waiting = view.graph.ids().filter(|task| waits(view.state, *task)).map(|task| planned[task.index()]).sum();
        let work = planned.iter().sum();
        let makespan = view.plan.makespan.0;
        Self { planned, tail, by_tail, position, waiting, work, makespan, ..Self::default() }
    }

    /// Takes an event in; `ended` is the attempt that it ended.
    pub fn recorded(&mut self, recorded: &Recorded, ended: Option<&Running>) {
        match &recorded.event {
            // Its task waits for nothing.
            Event::AttemptStarted { place, .. } if place.role == Role::Backup => {}
            Event::AttemptStarted { task, .. }
            | Event::TaskFailed { task, .. }
            | Event::TaskSkipped { task, .. }
            | Event::TaskCached { task, .. } => {
                self.waiting = self.waiting.saturating_sub(self.planned[task.index()]);
            }
            Event::AttemptFinished { task, outcome, .. } if outcome.is_success() => {
                if let Some(ended) = ended {
                    self.took += ended.ran(recorded.at).0;
                    self.should_have_taken += self.planned[task.index()];
                }
            }
            Event::AttemptFinished { .. } if ended.is_some_and(|ended| !ended.waits_again) => {}
            Event::AttemptFinished { task, .. } | Event::TaskReopened { task } => {
                // It waits again until the next event says what becomes of it.
                self.waiting += self.planned[task.index()];
                self.first = self.first.min(self.position[task.index()] as usize);
            }
            Event::AttemptSpawned { .. }
            | Event::TaskSuspended { .. }
            | Event::TaskContinued { .. }
            | Event::RetryPlanned { .. }
            | Event::Replanned { .. }
            | Event::StopRequested { .. }
            | Event::RunFinished { .. }
            | Event::FinishTold { .. }
            | Event::RunResumed { .. } => {}
        }
    }

    /// Returns how long the run still takes from `now`; `None` where the plan says nothing of durations.
    pub fn left(&mut self, state: &RunState, running: &[Running], now: Millis) -> Option<Millis> {
        if self.makespan == 0 {
            return None;
        }
        if state.stopping.is_some() {
            self.waiting = 0;
            self.first = self.by_tail.len();
        }
        while self.by_tail.get(self.first).is_some_and(|task| !waits(state, *task)) {
            self.first += 1;
        }
        let mut path = self.by_tail.get(self.first).map_or(0, |task| self.paced(self.tail[task.index()]));
        let mut work = self.paced(self.waiting);
        // Of two attempts of a task the first is asked; one whose task is done holds nothing up.
        let first = |one: &&Running| {
            let is_first = |other: &Running| other.task != one.task || other.role >= one.role;
            state.task(one.task).phase == Phase::Running && running.iter().all(is_first)
        };
        for running in running.iter().filter(first) {
            let i = running.task.index();
            let own = task_left(running, self.paced(self.planned[i]), now);
            path = path.max(own + self.paced(self.tail[i] - self.planned[i]));
            work += own;
        }
        // At once: work / makespan tasks, at least one.
        let shared = u128::from(work) * u128::from(self.makespan) / u128::from(self.work.max(self.makespan));
        Some(Millis(path.max(u64::try_from(shared).unwrap_or(u64::MAX))))
    }

    /// Corrects a planned time by how long finished tasks took against their plan.
    fn paced(&self, planned: u64) -> u64 {
        if self.should_have_taken == 0 {
            return planned;
        }
        let corrected = u128::from(planned) * u128::from(self.took) / u128::from(self.should_have_taken);
        u64::try_from(corrected).unwrap_or(u64::MAX)
    }
}

/// Returns how long a running attempt still takes by its own word; `None` where it does not say.
#[must_use]
pub fn by_own_word(running: &Running, now: Millis) -> Option<Millis> {
    let (since, from) = running.anew.unwrap_or((running.started, 0.0));
    let done = running.progress.progress?.min(1.0);
    let since_then = Some(done - from).filter(|part| *part >= TELLING)?;
    let elapsed = (running.until(now) - since).0 as f64;
    Some(Millis((elapsed * (1.0 - done) / since_then) as u64))
}

fn task_left(running: &Running, planned: u64, now: Millis) -> u64 {
    by_own_word(running, now).map_or_else(|| planned.saturating_sub(running.ran(now).0), |left| left.0)
}

fn waits(state: &RunState, task: TaskId) -> bool {
    matches!(state.task(task).phase, Phase::Waiting | Phase::Delayed(_))
}

fn planned_durations(plan: &Plan) -> Vec<u64> {
    plan.placed.iter().map(|placed| placed.ran().0).collect()
}

/// Returns the longest path from each task's start to the end, ms, by TaskId.
fn tails(graph: &TaskGraph, planned: &[u64]) -> Vec<u64> {
    let mut tail = vec![0; planned.len()];
    for task in graph.order.iter().rev() {
        let behind = graph.after.of(*task).iter().map(|edge| tail[edge.task.index()]).max().unwrap_or(0);
        tail[task.index()] = planned[task.index()] + behind;
    }
    tail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::fixture::{Scene, failed, finished, id, skipped, started};
    use crate::report::tally::Tally;
    use crate::run::observer::Progress;

    struct Watched {
        scene: Scene,
        tally: Tally,
        estimate: Estimate,
    }

    impl Watched {
        fn new(mut scene: Scene) -> Self {
            let first = scene.apply(0, started(0, 1));
            let mut tally = Tally::default();
            tally.recorded(scene.view(), &first);
            let estimate = Estimate::new(scene.view());
            Self { scene, tally, estimate }
        }

        fn tell(&mut self, at: u64, event: Event) {
            let recorded = self.scene.apply(at, event);
            let ended = self.tally.recorded(self.scene.view(), &recorded);
            self.estimate.recorded(&recorded, ended.as_ref());
        }

        fn left(&mut self, at: u64) -> u64 {
            let now = self.scene.time(at);
            self.estimate.left(&self.scene.state, &self.tally.running, now).expect("there is a plan").0
        }
    }

    #[test]
    fn a_chain_takes_the_sum_of_what_is_left() {
        let mut run = Watched::new(Scene::chain(&["a", "b", "c"]));
        assert_eq!(run.left(4), 26_000);
        run.tell(10, finished(0, 0));
        assert_eq!(run.left(10), 20_000);
    }

    #[test]
    fn tasks_that_took_twice_their_plan_double_what_is_left() {
        let mut run = Watched::new(Scene::chain(&["a", "b", "c"]));
        run.tell(20, finished(0, 0));
        assert_eq!(run.left(20), 40_000);
    }

    #[test]
    fn a_task_that_says_how_far_it_is_counts_by_its_own_word() {
        let mut run = Watched::new(Scene::chain(&["a", "b"]));
        run.tally.progressed(id(0), &Progress { progress: Some(0.25), ..Progress::default() });
        assert_eq!(run.left(8), 24_000 + 10_000);
    }

    #[test]
    fn a_bar_that_follows_another_counts_from_its_own_beginning() {
        let mut run = Watched::new(Scene::chain(&["a"]));
        let mut say = |at: u64, progress| {
            run.tally.ticked(run.scene.time(at));
            run.tally.progressed(id(0), &Progress { progress: Some(progress), ..Progress::default() });
        };
        say(100, 1.0);
        say(100, 0.0);
        say(110, 0.5);
        assert_eq!(run.left(110), 10_000);
    }

    #[test]
    fn a_failed_attempt_is_work_again_until_the_task_is_given_up() {
        let mut run = Watched::new(Scene::chain(&["a", "b"]));
        run.tell(5, finished(0, 1));
        assert_eq!(run.left(5), 20_000);
        run.tell(5, failed(0));
        run.tell(5, skipped(1, 0));
        assert_eq!(run.left(5), 0);
    }

    proptest! {
        /// The pointer into the order by tail and the running sums agree with a count from scratch at every moment.
        #[test]
        fn kept_up_event_by_event_it_equals_a_fresh_one(codes in prop::collection::vec(0_i32..2, 1..12)) {
            let names: Vec<String> = (0..codes.len()).map(|i| format!("t{i}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut run = Watched::new(Scene::side_by_side(&names));
            for (i, code) in codes.iter().enumerate() {
                if i > 0 {
                    run.tell(10 * i as u64, started(i, 1));
                }
                let at = 10 * (i as u64 + 1);
                run.tell(at, finished(i, *code));
                if *code != 0 {
                    run.tell(at, started(i, 2));
                    run.tell(at + 10, finished(i, 0));
                }
                let kept = run.left(at + 10);
                let mut fresh = Estimate::new(run.scene.view());
                (fresh.took, fresh.should_have_taken) = (run.estimate.took, run.estimate.should_have_taken);
                let now = run.scene.time(at + 10);
                prop_assert_eq!(Some(Millis(kept)), fresh.left(&run.scene.state, &run.tally.running, now));
            }
        }
    }
}
