//! Why nothing was done at a place: nobody carried the run out, something was ready and had no room, everything waited for a task elsewhere, or
//! there was nothing left to do.
//!
//! A reading of the record, after the fact: what was ready is what all its predecessors had succeeded for. Does not know
//! amounts, so "no room" is memory, CPUs or `--jobs` alike.

use super::json::Header;
use super::timeline::{Span, is_host, places};
use crate::graph::TaskId;
use crate::run::event::Role;
use crate::run::state::{Phase, RunState};
use crate::run::store::TaskHeader;

/// A span of time in which nothing was done at a place, ms from the start of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Its beginning.
    pub from: u64,
    /// Its end.
    pub to: u64,
    /// Why.
    pub cause: Cause,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody carried the run out, until it was resumed.
    Away,
    /// Something was ready, but memory, CPUs or `--jobs` left no room for it.
    Room,
    /// Something waited to be tried again.
    Retry,
    /// What comes next waited for this task.
    Waits(String),
    /// Nothing was left for the place.
    Nothing,
}

impl Cause {
    /// Returns the cause in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Away => "the run had ended and was resumed later".into(),
            Self::Room => "waiting for room (memory, CPUs or --jobs)".into(),
            Self::Retry => "waiting to try again".into(),
            Self::Waits(task) => format!("waiting for {task}"),
            Self::Nothing => "nothing to do".into(),
        }
    }

    /// Returns the stable word of traces.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Room => "room",
            Self::Retry => "retry",
            Self::Waits(_) => "dependency",
            Self::Nothing => "nothing",
        }
    }
}

/// When a task could start, when it did and where it belongs. Never is `u64::MAX`.
struct Candidate {
    on_host: bool,
    ready: u64,
    start: u64,
    /// The predecessor that ended last, or has not ended.
    held_up_by: Option<TaskId>,
    /// From a failed attempt to the next one.
    retries: Vec<(u64, u64)>,
}

/// When tasks could have started and when they did.
pub(super) struct History<'a> {
    tasks: &'a [TaskHeader],
    candidates: Vec<Candidate>,
    /// When nobody carried the run out.
    away: Vec<(u64, u64)>,
}

impl<'a> History<'a> {
    pub(super) fn new(header: &Header<'_>, tasks: &'a [TaskHeader], state: &RunState) -> Self {
        let since = |at: crate::units::Millis| (at - header.started).0;
        let done: Vec<u64> = state
            .tasks
            .iter()
            .map(|task| match (task.phase, task.telling().and_then(|(_, attempt)| attempt.ended.as_ref())) {
                (Phase::Succeeded, Some(ended)) => since(ended.at),
                _ => u64::MAX,
            })
            .collect();
        let candidate = |(task, happened): (&TaskHeader, &crate::run::state::TaskState)| {
            let done_at = |task: &TaskId| done.get(task.index()).copied().unwrap_or(0);
            let held_up_by = task.after.iter().copied().max_by_key(done_at);
            let planned_on_host = task.places.first().is_none_or(|place| is_host(place));
            let on_host = happened.attempts.first().map_or(planned_on_host, |first| is_host(&places(first)[0]));
            let attempts = &happened.attempts;
            let main: Vec<_> = attempts.iter().filter(|attempt| attempt.place.role == Role::Main).collect();
            let gap = |pair: &[&crate::run::state::Attempt]| {
                Some((since(pair[0].ended.as_ref()?.at), since(pair[1].started)))
            };
            let never = matches!(happened.phase, Phase::Skipped | Phase::Succeeded | Phase::Failed);
            Candidate {
                on_host,
                ready: held_up_by.map_or(0, |task| done_at(&task)),
                start: match attempts.first() {
                    Some(first) => since(first.started),
                    // Skipped: it was never going to fill a gap.
                    None if never => 0,
                    None => u64::MAX,
                },
                held_up_by,
                retries: main.windows(2).filter_map(gap).collect(),
            }
        };
        let away = state.away.iter().map(|(from, to)| (since(*from), since(*to))).collect();
        Self { tasks, away, candidates: tasks.iter().zip(&state.tasks).map(candidate).collect() }
    }

    /// Returns the gaps between what was done at a place from the run's start to its `end`, each with its cause.
    pub(super) fn idle(&self, place: &str, done: &[Span], end: u64) -> Vec<Idle> {
        let on_host = is_host(place);
        let of_kind: Vec<&Candidate> =
            self.candidates.iter().filter(|candidate| candidate.on_host == on_host).collect();
        let mut changes: Vec<u64> = of_kind.iter().flat_map(|one| [one.ready, one.start]).collect();
        changes.extend(of_kind.iter().flat_map(|one| &one.retries).flat_map(|(from, to)| [*from, *to]));
        changes.extend(self.away.iter().flat_map(|(from, to)| [*from, *to]));
        changes.sort_unstable();
        changes.dedup();
        let mut all: Vec<Idle> = Vec::new();
        for (from, to) in gaps(done, end) {
            let first = changes.partition_point(|at| *at <= from);
            let inside = changes[first..].iter().copied().take_while(|at| *at < to);
            let mut at = from;
            for next in inside.chain([to]) {
                let cause = self.cause(&of_kind, at);
                match all.last_mut() {
                    Some(last) if last.to == at && last.cause == cause => last.to = next,
                    _ => all.push(Idle { from: at, to: next, cause }),
                }
                at = next;
            }
        }
        all
    }

    fn cause(&self, of_kind: &[&Candidate], at: u64) -> Cause {
        if self.away.iter().any(|(from, to)| *from <= at && at < *to) {
            return Cause::Away;
        }
        if of_kind.iter().any(|one| one.ready <= at && at < one.start) {
            return Cause::Room;
        }
        if of_kind.iter().any(|one| one.retries.iter().any(|(from, to)| *from <= at && at < *to)) {
            return Cause::Retry;
        }
        // Of what is still to come, that which came first says what was waited for.
        match of_kind.iter().filter(|one| one.start > at).min_by_key(|one| (one.start, one.ready)) {
            Some(next) => next.held_up_by.map_or(Cause::Room, |task| {
                Cause::Waits(self.tasks.get(task.index()).map_or_else(String::new, |task| task.name.clone()))
            }),
            None => Cause::Nothing,
        }
    }
}

/// Returns the times from 0 to `end` that no span covers.
fn gaps(done: &[Span], end: u64) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = done.iter().map(|span| (span.from, span.to)).collect();
    spans.sort_unstable();
    let mut gaps = Vec::new();
    let mut at = 0;
    for (from, to) in spans {
        if from > at {
            gaps.push((at, from.min(end)));
        }
        at = at.max(to);
    }
    if at < end {
        gaps.push((at, end));
    }
    gaps
}
