//! One recorded fact as one line for people.
//!
//! A failed attempt is told together with what follows from it, a retry or the end of its task, since the fact alone
//! does not say how bad it is.

use std::path::Path;

use super::paint::{Colour, Tone};
use super::{summary, tail, text, wording};
use crate::graph::TaskId;
use crate::run::event::{Event, Place, Recorded, Role, StopReason};
use crate::run::launch::{self, QUOTED};
use crate::run::observer::View;
use crate::run::outcome::Outcome;
use crate::run::raise;
use crate::run::state::{Attempt, Ended, Phase};
use crate::units::Millis;

/// How many tasks that are up to date are named.
const MOST_NAMED: usize = 4;

/// How many lines of its output a failed task leaves.
const LAST_LINES: usize = 10;

/// The most columns of such a line: a few rows of a terminal. Of a longer one, beginning and end.
const LONGEST_LINE: usize = 240;

/// Lines of the answer that are shown at most: it must not scroll the summary away.
const MOST_OF_AN_ANSWER: usize = 40;

/// A line: a word that says what happened, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What the word means.
    pub tone: Tone,
    /// `started`, `done`, `failed`, …
    pub verb: &'static str,
    /// The rest, safe for a terminal.
    pub text: String,
}

impl Line {
    /// Returns the line with its word in colour, the texts of several lines aligned.
    #[must_use]
    pub fn render(&self, colour: Colour) -> String {
        format!("{} {}", colour.paint(self.tone, &format!("{:<8}", self.verb)), self.text)
    }
}

/// Returns the line for a fact; `None` where it is told with another one, or not worth a line.
#[must_use]
pub fn line(view: View<'_>, recorded: &Recorded) -> Option<Line> {
    let (tone, verb, text) = match &recorded.event {
        Event::AttemptStarted { task, number, place } => {
            let again = if *number > 1 { format!(", attempt {number}") } else { String::new() };
            let beside = if place.role == Role::Backup { ", beside the first one" } else { "" };
            (Tone::Active, "started", format!("{}{}{again}{beside}", name(view, *task), on(place)))
        }
        Event::AttemptFinished { task, outcome: Outcome::Succeeded, .. } => {
            let time = last_attempt(view, *task).map_or(Millis::ZERO, |(_, attempt, ended)| attempt.ran(ended.at));
            (Tone::Good, "done", format!("{} in {time}", name(view, *task)))
        }
        Event::AttemptFinished { task, role, outcome: Outcome::Outrun, .. } => {
            let number = view.state.task(*task).last_as(*role).map_or(0, |(number, _)| number);
            let ended = wording::ending(&Outcome::Outrun);
            (Tone::Faint, "ended", format!("{}, attempt {number}: {ended}", name(view, *task)))
        }
        Event::AttemptFinished { task, outcome: Outcome::Interrupted, .. } => {
            (Tone::Uneasy, "stopped", name(view, *task))
        }
        Event::RetryPlanned { task, not_before, raise } => {
            // Rounded, so that jitter does not show as 999ms.
            let wait = (*not_before - recorded.at).0;
            let unit = if wait < 500 { 10 } else { 100 };
            let wait = Millis(wait.div_ceil(unit) * unit);
            let raised = raise.map_or_else(String::new, |raise| format!(", {}", wording::raised(&raise)));
            let ended = how_it_ended(view, *task, recorded.at);
            let is_busy = view.state.task(*task).last_outcome().is_some_and(|last| last.busy().next().is_some());
            let elsewhere = if is_busy && view.fleet.devices.len() > 1 { ", elsewhere once there is room" } else { "" };
            (Tone::Uneasy, "retry", format!("{}: {ended}; again in {wait}{raised}{elsewhere}", name(view, *task)))
        }
        Event::TaskFailed { task, lacks } => {
            let no_more = raise::no_more(&view.state.task(*task).attempts, view.fleet);
            let no_more = no_more.map(|why| format!("; {}", wording::no_more(why))).unwrap_or_default();
            let lacks = lacks.as_ref().map(|lacks| format!("; {}", wording::unplaced(lacks))).unwrap_or_default();
            let ended = how_it_ended(view, *task, recorded.at);
            (Tone::Bad, "failed", format!("{}: {ended}{no_more}{lacks}", name(view, *task)))
        }
        Event::TaskSkipped { task, because: Some(cause) } => {
            (Tone::Uneasy, "skipped", format!("{}: it needs {}, which failed", name(view, *task), name(view, *cause)))
        }
        Event::RunResumed { adopted } => {
            let done = format!("{} of {} tasks are done", done(view), view.graph.len());
            let on =
                if adopted.is_empty() { String::new() } else { format!(", {} went on by themselves", adopted.len()) };
            (Tone::Active, "resumed", format!("{done}{on}"))
        }
        Event::Replanned { because, before, after, order, .. } => {
            let why = wording::because(because, |task| view.graph.tasks[task.index()].name.as_str());
            let next: Vec<String> = order.iter().take(MOST_NAMED).map(|task| name(view, *task)).collect();
            let gain = if after < before { format!("; {after} left instead of {before}") } else { String::new() };
            let next = next.join(", ");
            (Tone::Uneasy, "replanned", format!("{}{gain}; next: {next}", text::visible(&why)))
        }
        Event::TaskReopened { task } => {
            (Tone::Uneasy, "again", format!("{}: what it made is gone, and others need it", name(view, *task)))
        }
        Event::StopRequested { reason } => {
            let tone = if *reason == StopReason::Signal { Tone::Uneasy } else { Tone::Bad };
            (tone, "stopping", wording::stopping(*reason).to_owned())
        }
        Event::FinishTold { failed: Some(why) } => {
            (Tone::Uneasy, "untold", format!("that the run is over: {}", text::visible(why)))
        }
        // What follows from the end of the first one is told with it; from this one nothing does.
        Event::AttemptFinished { task, role: Role::Backup, outcome, .. } if !outcome.is_success() => {
            let number = view.state.task(*task).last_as(Role::Backup).map_or(0, |(number, _)| number);
            (Tone::Uneasy, "ended", format!("{}, attempt {number}: {}", name(view, *task), wording::ending(outcome)))
        }
        // The run's summary counts those; its end is the summary.
        Event::AttemptFinished { .. }
        | Event::AttemptSpawned { .. }
        // Turns come and go: pictures and the timeline show them.
        | Event::TaskSuspended { .. }
        | Event::TaskContinued { .. }
        | Event::TaskSkipped { because: None, .. }
        | Event::TaskCached { .. }
        | Event::RunFinished { .. }
        | Event::FinishTold { failed: None } => return None,
    };
    Some(Line { tone, verb, text })
}

/// Returns the line for tasks that are up to date; `None` where there are none.
#[must_use]
pub fn cached(view: View<'_>, tasks: &[TaskId]) -> Option<Line> {
    let named: Vec<String> = tasks.iter().take(MOST_NAMED).map(|task| name(view, *task)).collect();
    let more = match tasks.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!tasks.is_empty()).then(|| Line { tone: Tone::Good, verb: "cached", text: named.join(", ") + &more })
}

/// Returns what a failed task leaves: its last lines and where the whole log is. Reads the log's end.
#[must_use]
pub fn last_words(view: View<'_>, task: TaskId, dir: &Path) -> Vec<String> {
    let Some((number, _, ended)) = last_attempt(view, task) else { return Vec::new() };
    if !ended.logged {
        return vec!["  it printed nothing".into()];
    }
    let log = launch::log(dir, &view.graph.tasks[task.index()].name, number);
    let lines = tail::last_lines(&log, LAST_LINES).unwrap_or_else(|error| vec![format!("cannot be read: {error}")]);
    let mut words: Vec<String> =
        lines.iter().map(|line| format!("  {QUOTED}{}", text::fit_middle(line, LONGEST_LINE))).collect();
    words.extend(ended.usage.log_cut.map(|cut| format!("  {}", wording::log_cut(cut))));
    words.push(format!("  log: {}", text::visible(&log.to_string_lossy())));
    words
}

/// Returns what the run's one last task printed, or had printed when it was made: usually the answer that the run was for.
#[must_use]
pub fn answer(view: View<'_>, dir: &Path) -> Vec<String> {
    let mut last = view.graph.ids().filter(|task| view.graph.after.of(*task).is_empty());
    let (Some(task), None) = (last.next(), last.next()) else { return Vec::new() };
    let state = view.state.task(task);
    if state.phase == Phase::Cached {
        // `dir` is `STATE/runs/RUN`.
        let log = state.cached_log.as_ref().zip(dir.ancestors().nth(2)).map(|(log, state)| state.join(log));
        return log.map_or_else(Vec::new, |log| last_of(view, task, &log));
    }
    match last_attempt(view, task) {
        Some((number, _, ended)) if ended.outcome.is_success() && ended.logged => {
            let log = launch::log(dir, &view.graph.tasks[task.index()].name, number);
            last_of(view, task, &log)
        }
        _ => Vec::new(),
    }
}

/// Returns the end of an answer, and where all of it is to be had if that is not all.
fn last_of(view: View<'_>, task: TaskId, log: &Path) -> Vec<String> {
    // A log that cannot be read is no answer; the summary says where it should be.
    let mut lines = tail::last_lines(log, MOST_OF_AN_ANSWER + 1).unwrap_or_default();
    if lines.len() > MOST_OF_AN_ANSWER {
        let name = summary::shell_word(&view.graph.tasks[task.index()].name);
        lines[0] = format!("... (all of it: trainyard logs {} {name})", view.run);
    }
    lines
}

/// Returns everything said at the end of a run: the answer, then the summary. `elsewhere` as in
/// [`summary::Finished`].
#[must_use]
pub fn closing(view: View<'_>, dir: &Path, elsewhere: Option<&Path>, colour: Colour, columns: Option<usize>) -> String {
    let names: Vec<&str> = view.graph.tasks.iter().map(|task| task.name.as_str()).collect();
    let View { run, state, started, .. } = view;
    let finished = summary::Finished { run, names: &names, state, started, logs: &dir.join("logs"), elsewhere };
    let mut closing = String::new();
    for line in answer(view, dir) {
        closing.push_str(&line);
        closing.push('\n');
    }
    if !closing.is_empty() {
        closing.push('\n');
    }
    closing + &summary::summary(&finished, colour, columns)
}

fn name(view: View<'_>, task: TaskId) -> String {
    text::visible(&view.graph.tasks[task.index()].name).into_owned()
}

fn done(view: View<'_>) -> usize {
    view.state.tasks.iter().filter(|task| task.phase.is_done()).count()
}

fn on(place: &Place) -> String {
    if place.devices.is_empty() { String::new() } else { format!(" on {}", text::visible(&place.devices.join(", "))) }
}

fn last_attempt(view: View<'_>, task: TaskId) -> Option<(u32, &Attempt, &Ended)> {
    let (number, attempt) = view.state.tasks[task.index()].telling()?;
    Some((number, attempt, attempt.ended.as_ref()?))
}

/// Says how the attempt went that had ended by then: facts are told a little later, and another may run already.
fn how_it_ended(view: View<'_>, task: TaskId, by: Millis) -> String {
    let attempts = view.state.task(task).attempts.iter().enumerate().rev();
    let attempts = attempts.filter(|(_, attempt)| attempt.place.role == Role::Main);
    let mut ended = attempts.filter_map(|(number, attempt)| Some((number + 1, attempt, attempt.ended.as_ref()?)));
    match ended.find(|(_, _, ended)| ended.at <= by) {
        Some((number, attempt, ended)) => {
            let after = attempt.ran(ended.at);
            format!("attempt {number} ended after {after}: {}", wording::ending_in_numbers(attempt, ended))
        }
        None => "it was never tried".into(),
    }
}
