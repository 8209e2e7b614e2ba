//! When running tasks will end, as far as one can tell: by what they say of themselves, by how long others of their
//! stage took in this run, and by what the plan says.
//!
//! Pure. Does not know why anyone asks.

use std::collections::HashMap;

use crate::fleet::{DeviceId, Fleet, NodeId};
use crate::graph::TaskId;
use crate::spec::Mode;
use crate::timing::Load;
use crate::units::Millis;

/// Index of a stage, and of one of its modes.
pub type Of = (usize, usize);

/// Below this part of its work a task's own word is too rough to extrapolate from, in millionths.
const TELLING: u64 = 20_000;

/// All of a task's work, in millionths.
const ALL: u64 = 1_000_000;

/// By how much tasks must have taken more or less time than planned before that is believed to be more than chance, in
/// thousandths.
const NOTABLE: u64 = 100;

/// What is known of durations.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// How long succeeded tasks of a stage took, and how long they should have, in milliseconds.
    took: HashMap<Of, (u64, u64)>,
    /// Tasks that run.
    running: HashMap<TaskId, Running>,
}

/// A running task: how far it said it was, in millionths and when (ms since the Unix epoch), from its start on.
#[derive(Clone, Copy, Debug)]
struct Running {
    started: Millis,
    first: (Millis, u64),
    last: (Millis, u64),
    /// Since when it is suspended: its times stand still. Those before are told as if it had never been.
    suspended: Option<Millis>,
}

impl Expect {
    /// Takes in that a task was started.
    pub fn started(&mut self, task: TaskId, at: Millis) {
        self.running.insert(task, Running { started: at, first: (at, 0), last: (at, 0), suspended: None });
    }

    /// Takes in that a task is suspended.
    pub fn suspended(&mut self, task: TaskId, at: Millis) {
        if let Some(running) = self.running.get_mut(&task) {
            running.suspended = Some(at);
        }
    }

    /// Takes in that a task goes on: what it was stopped for does not count.
    pub fn continued(&mut self, task: TaskId, at: Millis) {
        let Some(running) = self.running.get_mut(&task) else { return };
        let Some(since) = running.suspended.take() else { return };
        for time in [&mut running.started, &mut running.first.0, &mut running.last.0] {
            *time += at - since;
        }
    }

    /// Takes in that a running task has done this part of its work, 0 to 1.
    pub fn progressed(&mut self, task: TaskId, part: f64, now: Millis) {
        let Some(running) = self.running.get_mut(&task).filter(|_| (0.0..=1.0).contains(&part)) else { return };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
        let part = (part * 1e6).round() as u64;
        // What it said before it was stopped may be heard later.
        let now = running.now(now);
        // A bar that follows another begins anew.
        if part < running.last.1 {
            running.first = (now, part);
        }
        running.last = (now, part);
    }

    /// Takes in that a task has ended that was planned to take `planned`.
    pub fn ended(&mut self, task: TaskId, of: Of, at: Millis, planned: Option<Millis>, success: bool) {
        if let (Some(running), Some(planned), true) = (self.running.remove(&task), planned, success) {
            self.learn(of, running.now(at) - running.started, planned);
        }
    }

    /// Takes in how long a task took that was planned to take `planned`.
    pub fn learn(&mut self, of: Of, took: Millis, planned: Millis) {
        let sums = self.took.entry(of).or_default();
        *sums = (sums.0.saturating_add(took.0), sums.1.saturating_add(planned.0));
    }

    /// Whether a task of this stage has told how long it takes, in this run.
    #[must_use]
    pub fn is_learned(&self, of: Of) -> bool {
        self.took.contains_key(&of)
    }

    /// Returns how much longer tasks of a stage take than planned, in thousandths of the plan; `None` where none has
    /// ended yet or there is hardly a difference.
    #[must_use]
    pub fn factor(&self, of: Of) -> Option<u64> {
        let (took, planned) = *self.took.get(&of)?;
        let factor = u64::try_from(u128::from(took) * 1_000 / u128::from(planned.max(1))).unwrap_or(u64::MAX);
        (factor.abs_diff(1_000) > NOTABLE).then_some(factor)
    }

    /// Returns every [`Expect::factor`] that there is.
    #[must_use]
    pub fn factors(&self) -> HashMap<Of, u64> {
        self.took.keys().filter_map(|of| Some((*of, self.factor(*of)?))).collect()
    }

    /// Returns how long a task of a stage will take that is planned to take `planned`.
    #[must_use]
    pub fn duration(&self, of: Of, planned: Millis) -> Millis {
        self.factor(of).map_or(planned, |factor| scaled(planned, factor))
    }

    /// Returns when a running task will end: by its own word, or when it should have, and where that is past, after twice
    /// as long, and so on. Always later than `now`. One that is suspended is taken to go on at once.
    #[must_use]
    pub fn end(&self, task: TaskId, of: Of, planned: Millis, now: Millis) -> Millis {
        let running = self.running.get(&task);
        let ran_until = running.map_or(now, |running| running.now(now));
        self.end_of(running, of, planned, ran_until) + (now - ran_until)
    }

    fn end_of(&self, running: Option<&Running>, of: Of, planned: Millis, now: Millis) -> Millis {
        if let Some(end) = running.and_then(Running::end).filter(|end| *end > now) {
            return end;
        }
        let started = running.map_or(now, |running| running.started);
        let mut length = self.duration(of, planned).max(Millis(1));
        while started + length <= now && length.0 < u64::MAX / 2 {
            length = length + length;
        }
        (started + length).max(now + Millis(1))
    }
}

impl Running {
    /// Returns until when it has run.
    fn now(&self, now: Millis) -> Millis {
        self.suspended.map_or(now, |since| since.min(now))
    }

    /// Returns when all is done at the pace so far.
    fn end(&self) -> Option<Millis> {
        let (since, from) = self.first;
        let (at, part) = self.last;
        let done = part.checked_sub(from).filter(|done| *done >= TELLING)?;
        let left = u128::from((at - since).0) * u128::from(ALL - part) / u128::from(done);
        Some(at + Millis(u64::try_from(left).unwrap_or(u64::MAX)))
    }
}

/// Returns so many thousandths of a time.
#[must_use]
pub fn scaled(time: Millis, thousandths: u64) -> Millis {
    Millis(u64::try_from(u128::from(time.0) * u128::from(thousandths) / 1_000).unwrap_or(u64::MAX))
}

/// Returns how long a mode is planned to take in a place: on its slowest device.
#[must_use]
pub fn planned(mode: &Mode, fleet: &Fleet, node: NodeId, devices: &[DeviceId]) -> Millis {
    let on = |device: &DeviceId| Load::on_device(&mode.duration, &fleet.devices[device.index()]).time;
    let host = || Load::on_node(&mode.duration, &fleet.nodes[node.index()]).time;
    devices.iter().map(on).max().unwrap_or_else(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TaskId = TaskId(3);

    fn running_since(at: u64) -> Expect {
        let mut expect = Expect::default();
        expect.started(T, Millis(at));
        expect
    }

    fn end(expect: &Expect, now: u64) -> u64 {
        expect.end(T, (0, 0), Millis(100), Millis(now)).0
    }

    #[test]
    fn a_task_that_says_nothing_ends_as_planned_and_when_late_after_twice_as_long() {
        let expect = running_since(1_000);
        assert_eq!([1_000, 1_099, 1_100, 1_500].map(|now| end(&expect, now)), [1_100, 1_100, 1_200, 1_800]);
    }

    #[test]
    fn a_task_that_says_how_far_it_is_ends_by_its_own_word() {
        let mut expect = running_since(0);
        expect.progressed(T, 0.01, Millis(10));
        assert_eq!(end(&expect, 10), 100, "a hundredth is too rough");
        expect.progressed(T, 0.25, Millis(100));
        assert_eq!(end(&expect, 100), 400);
        // A bar that follows another counts from its own beginning.
        expect.progressed(T, 0.0, Millis(200));
        expect.progressed(T, 0.5, Millis(300));
        assert_eq!(end(&expect, 300), 400);
        expect.progressed(T, f64::NAN, Millis(310));
        assert_eq!(end(&expect, 310), 400);
    }

    #[test]
    fn others_of_its_stage_teach_how_long_a_task_takes() {
        let mut expect = running_since(0);
        expect.ended(T, (0, 0), Millis(105), Some(Millis(100)), true);
        assert_eq!(expect.factor((0, 0)), None, "that may be chance");
        expect.learn((0, 0), Millis(495), Millis(100));
        assert_eq!(expect.duration((0, 0), Millis(100)), Millis(300));
        assert_eq!(expect.duration((0, 1), Millis(100)), Millis(100));
    }

    #[test]
    fn what_failed_teaches_nothing() {
        let mut expect = running_since(0);
        expect.ended(T, (0, 0), Millis(900), Some(Millis(100)), false);
        assert!(!expect.is_learned((0, 0)));
    }

    #[test]
    fn the_time_for_which_a_task_is_suspended_does_not_count() {
        let mut expect = running_since(0);
        expect.progressed(T, 0.25, Millis(50));
        expect.suspended(T, Millis(60));
        assert_eq!([60, 500].map(|now| end(&expect, now)), [200, 640]);
        expect.continued(T, Millis(1_060));
        assert_eq!(end(&expect, 1_060), 1_200);
        expect.ended(T, (0, 0), Millis(1_200), Some(Millis(100)), true);
        assert_eq!(expect.duration((0, 0), Millis(100)), Millis(200));
    }

    #[test]
    fn the_longest_time_does_not_overflow() {
        let end = running_since(5).end(T, (0, 0), Millis(u64::MAX), Millis(9));
        assert!(end > Millis(9));
    }
}
