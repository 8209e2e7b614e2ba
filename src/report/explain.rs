//! Why one task is where it is: what it waits for, in numbers, and how its attempts went.
//!
//! Pure. Says only what is known: what a task needs comes from its pipeline file, which may have changed since.

use std::path::Path;

use serde::Serialize;

use super::json::{self, Header, rfc3339};
use super::reasons::{self, Noted};
use super::{text, wording};
use crate::graph::{TaskGraph, TaskId};
use crate::run::admission::{HeldBy, Short, Why};
use crate::run::decide::{At, Reason, Waiting};
use crate::run::outcome::{Cause, Outcome};
use crate::run::state::{Attempt, Ended, Phase, RunState, TaskState};
use crate::units::{Bytes, Millis};

mod several;
#[cfg(test)]
mod tests;

pub use several::several;

/// What the explanation rests on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The run.
    pub header: Header<'a>,
    /// `[n_tasks]`, by TaskId.
    pub names: &'a [String],
    /// What happened.
    pub state: &'a RunState,
    /// The task that is asked about.
    pub task: TaskId,
    /// What needs what; `None` if the pipeline file does not tell any more.
    pub graph: Option<&'a TaskGraph>,
    /// What tasks wait for, as the process that carries the run out last noted it.
    pub noted: Option<&'a Noted>,
    /// Why its sentinel cannot start it yet, and since when.
    pub unstarted: Option<(String, Millis)>,
    /// The run's folder.
    pub dir: &'a Path,
    /// Whether a file exists: the log of an attempt that runs.
    pub exists: fn(&Path) -> bool,
    /// ms since the Unix epoch.
    pub now: Millis,
}

/// Why a task is where it is. The keys of its JSON are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    run: String,
    task: String,
    state: &'static str,
    /// `needs`, `room`, `disk`, `start`, `output`, `jobs`, `held`, `turn`, `look`, `back-off`, `stopping`, `interrupted`, `running`, `succeeded`, `failed`,
    /// `skipped`.
    why: &'static str,
    /// The same for people.
    words: String,
    /// Tasks that have to succeed first, and their states.
    needs: Vec<Need>,
    /// Since when it is refused, for `room`, `disk`, `start`, `output`, `jobs` and `held`.
    since: Option<String>,
    /// Tasks with the same request that go first.
    ahead: Option<usize>,
    /// From when on room is kept for it, for `room`.
    kept_from: Option<String>,
    nodes: Vec<At<Short>>,
    devices: Vec<At<Why>>,
    /// What other runs hold of what it waits for.
    runs: Vec<HeldBy>,
    /// When it is tried again, for `back-off`.
    not_before: Option<String>,
    attempts: Vec<json::Try>,
    #[serde(skip)]
    history: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Need {
    task: String,
    state: &'static str,
}

impl Explanation {
    /// Explains a task.
    #[must_use]
    pub fn of(facts: &Facts<'_>) -> Self {
        let task = facts.state.task(facts.task);
        let name = &facts.names[facts.task.index()];
        let mut explanation = Self {
            run: facts.header.run.to_owned(),
            task: name.clone(),
            state: json::task_word(task.phase, facts.header.alive),
            why: "",
            words: String::new(),
            needs: Vec::new(),
            since: None,
            ahead: None,
            kept_from: None,
            nodes: Vec::new(),
            devices: Vec::new(),
            runs: Vec::new(),
            not_before: None,
            attempts: json::attempts(
                &facts.header,
                name,
                task,
                facts.dir,
                json::Files { exists: &facts.exists, heard: &|_| None },
            ),
            history: history(facts, task),
        };
        explanation.say(facts, task);
        explanation.history.extend(replanned(facts, task, &explanation.devices));
        explanation
    }

    fn say(&mut self, facts: &Facts<'_>, task: &TaskState) {
        let over = facts.state.end.is_some() || !facts.header.alive;
        (self.why, self.words) = match task.phase {
            Phase::Succeeded => ("succeeded", "it is done".to_owned()),
            Phase::Cached => ("cached", "it was up to date: nothing that it depends on had changed".to_owned()),
            Phase::Failed => ("failed", format!("it failed: {}", last_ending(task))),
            Phase::Skipped => ("skipped", skipped(facts)),
            _ if over => ("interrupted", interrupted(facts)),
            Phase::Running => match self.unstarted(facts, task) {
                Some(said) => said,
                None => ("running", running(facts, task)),
            },
            Phase::Waiting | Phase::Delayed(_) if facts.state.stopping.is_some() => {
                ("stopping", "the run is stopping: nothing new is started".to_owned())
            }
            // Who was not let in waits for room elsewhere meanwhile.
            Phase::Delayed(until) if until > facts.now && !is_noted(facts) => {
                self.not_before = Some(rfc3339(until));
                let left = wording::seconds(until - facts.now);
                let before = match task.telling().and_then(|(_, attempt)| attempt.ended.as_ref()) {
                    Some(Ended { outcome: Outcome::Displaced { .. }, .. }) => "it had to leave its place",
                    _ => "its last attempt failed",
                };
                let raised = task.raise.map_or_else(String::new, |raise| format!(", {}", wording::raised(&raise)));
                ("back-off", format!("{before}; it is tried again in {left}{raised}"))
            }
            Phase::Waiting if task.is_to_be_judged() => ("look", looked_at(task)),
            Phase::Waiting | Phase::Delayed(_) => return self.say_what_it_waits_for(facts),
        };
    }

    fn say_what_it_waits_for(&mut self, facts: &Facts<'_>) {
        if let Some(graph) = facts.graph {
            let open = graph.before.of(facts.task).iter().map(|edge| edge.task);
            let open = open.filter(|task| !facts.state.task(*task).phase.is_done());
            let state = |task: TaskId| json::task_word(facts.state.task(task).phase, facts.header.alive);
            let need = |task: TaskId| Need { task: facts.names[task.index()].clone(), state: state(task) };
            self.needs = open.map(need).collect();
        }
        let noted = facts.noted.into_iter().flat_map(|noted| &noted.waiting);
        let mut noted = noted.filter_map(|waiting| Some((waiting, place_in(waiting, facts.task)?)));
        (self.why, self.words) = match (self.needs.as_slice(), noted.next()) {
            ([], Some((waiting, ahead))) => {
                let since = match waiting.reason {
                    // That others like it start does not make it wait anew.
                    Reason::Jobs { .. } | Reason::Held { .. } | Reason::Room { .. } => {
                        ready_since(facts).map_or(waiting.since, |ready| ready.min(waiting.since))
                    }
                    Reason::Disk { .. } | Reason::Start { .. } | Reason::Locked { .. } | Reason::Output { .. } => {
                        waiting.since
                    }
                };
                (self.since, self.ahead) = (Some(rfc3339(since)), Some(ahead));
                self.say_reason(&waiting.reason, facts.now - since, ahead)
            }
            ([], None) if facts.graph.is_some() => ("turn", "it is ready and waits for its turn".to_owned()),
            ([], None) => {
                ("needs", "it waits; for what is not known: its pipeline file has changed since, or is gone".to_owned())
            }
            (needs, _) => ("needs", needs_words(needs)),
        };
    }

    /// Says why the attempt that was decided on has no process yet, where that is so.
    fn unstarted(&mut self, facts: &Facts<'_>, task: &TaskState) -> Option<(&'static str, String)> {
        if let Some((words, since)) = &facts.unstarted {
            self.since = Some(rfc3339(*since));
            return Some(self.say_reason(&Reason::Start { words: words.clone() }, facts.now - *since, 0));
        }
        task.open().find(|(_, attempt)| attempt.process.is_none())?;
        let noted = facts.noted.into_iter().flat_map(|noted| &noted.waiting);
        let mut noted = noted.filter(|waiting| matches!(waiting.reason, Reason::Start { .. }));
        let waiting = noted.find(|waiting| place_in(waiting, facts.task).is_some())?;
        self.since = Some(rfc3339(waiting.since));
        Some(self.say_reason(&waiting.reason, facts.now - waiting.since, 0))
    }

    fn say_reason(&mut self, why: &Reason, waited: Millis, ahead: usize) -> (&'static str, String) {
        let word = match why {
            Reason::Jobs { .. } => "jobs",
            Reason::Held { .. } => "held",
            Reason::Room { nodes, devices, runs, kept_from, .. } => {
                (self.nodes, self.devices, self.runs) = (nodes.clone(), devices.clone(), runs.clone());
                self.kept_from = kept_from.filter(|_| ahead == 0).map(rfc3339);
                "room"
            }
            Reason::Disk { .. } => "disk",
            Reason::Start { .. } => "start",
            Reason::Locked { .. } => "locked",
            Reason::Output { path, run } => {
                self.runs = vec![HeldBy { run: run.clone(), holds: path.clone() }];
                "output"
            }
        };
        let behind = match ahead {
            0 => reasons::kept(why),
            1 => "; a task that asks for the same goes first".to_owned(),
            ahead => format!("; {ahead} tasks that ask for the same go first"),
        };
        (word, format!("{}{behind}; for {} now", reasons::reason(why), wording::seconds(waited)))
    }

    /// Returns it for people, several lines.
    #[must_use]
    pub fn text(&self) -> String {
        let mut shown = format!(
            "{} of run {}: {}\n{}\n",
            text::visible(&self.task),
            text::visible(&self.run),
            self.state,
            self.words
        );
        if !self.history.is_empty() {
            shown.push('\n');
        }
        for line in &self.history {
            shown.push_str(line);
            shown.push('\n');
        }
        shown
    }
}

/// Returns since when nothing of the run itself keeps a waiting task from being started; `None` where that is not known.
fn ready_since(facts: &Facts<'_>) -> Option<Millis> {
    let needs = facts.graph?.before.of(facts.task).iter().map(|edge| facts.state.task(edge.task).done_at);
    let done: Option<Vec<Millis>> = needs.collect();
    let last = facts.state.task(facts.task).attempts.last().map(|attempt| attempt.ended.as_ref().map(|ended| ended.at));
    let resumed = facts.state.away.last().map(|(_, back)| *back);
    let mut ready = done?.into_iter().chain(last.flatten()).chain(resumed).fold(facts.header.started, Millis::max);
    if let Phase::Delayed(until) = facts.state.task(facts.task).phase {
        ready = ready.max(until);
    }
    Some(ready)
}

/// Whether it was told what a task waits for.
fn is_noted(facts: &Facts<'_>) -> bool {
    facts.noted.into_iter().flat_map(|noted| &noted.waiting).any(|waiting| place_in(waiting, facts.task).is_some())
}

/// Returns how many tasks go before one; `None` if it is not among those listed.
fn place_in(waiting: &Waiting, task: TaskId) -> Option<usize> {
    waiting.tasks.iter().position(|other| *other == task)
}

fn needs_words(needs: &[Need]) -> String {
    const NAMED: usize = 5;
    let one = |need: &Need| format!("{} ({})", text::visible(&need.task), need.state);
    let mut words = needs.iter().take(NAMED).map(one).collect::<Vec<_>>().join(", ");
    if needs.len() > NAMED {
        words.push_str(&format!(" and {} more", needs.len() - NAMED));
    }
    format!("it needs {words} to succeed first")
}

fn skipped(facts: &Facts<'_>) -> String {
    facts.state.task(facts.task).skipped_for.map_or_else(
        || "it was not run: the run was stopped before".to_owned(),
        |cause| format!("it was not run: it needs {}, which failed", text::visible(&facts.names[cause.index()])),
    )
}

fn interrupted(facts: &Facts<'_>) -> String {
    format!(
        "the run is over and it is not done; `trainyard resume {}` goes on with it",
        text::visible(facts.header.run)
    )
}

fn running(facts: &Facts<'_>, task: &TaskState) -> String {
    let one = |(number, attempt): (u32, &Attempt)| {
        let since = wording::seconds(attempt.ran(facts.now));
        let turn = if attempt.is_suspended() {
            let waits = wording::seconds(facts.now - attempt.since());
            format!(", suspended for {waits} while others have their turn")
        } else {
            String::new()
        };
        format!("attempt {number} has run for {since}{}{turn}", held(attempt))
    };
    let all: Vec<_> = task.open().map(one).collect();
    if all.is_empty() { "it runs".to_owned() } else { all.join("; beside it ") }
}

/// Says what an attempt holds: ` on box/gpu0, 6.0 GiB reserved`.
fn held(attempt: &Attempt) -> String {
    let place = &attempt.place;
    if place.devices.is_empty() {
        return String::new();
    }
    let memory = match place.gpu_memory {
        Bytes::ZERO => "kept for it alone".to_owned(),
        memory => format!("{memory} reserved"),
    };
    format!(" on {}, {memory}", text::visible(&place.devices.join(", ")))
}

fn last_ending(task: &TaskState) -> String {
    let last = task.telling().and_then(|(_, attempt)| Some((attempt, attempt.ended.as_ref()?)));
    let untried = || "it was never tried".to_owned();
    let ended = last.map_or_else(untried, |(attempt, ended)| wording::ending_in_numbers(attempt, ended));
    match &task.lacks {
        Some(lacks) => {
            format!("{ended}; {}; `trainyard resume` tries it where there is a place", wording::unplaced(lacks))
        }
        None => ended,
    }
}

/// Returns a line for each attempt that has ended.
fn history(facts: &Facts<'_>, task: &TaskState) -> Vec<String> {
    let line = |(number, attempt): (usize, &Attempt)| {
        let words = match &attempt.ended {
            Some(ended) => {
                let took = attempt.ran(ended.at);
                let ending = wording::ending_in_numbers(attempt, ended);
                let peak = ended.usage.peak_gpu_memory.filter(|_| ended.outcome == Outcome::Succeeded);
                let peak = peak.map_or_else(String::new, |peak| format!(", {peak} of GPU memory seen"));
                format!("{ending} after {took}{peak}")
            }
            None if facts.header.alive => return None,
            None => "interrupted with the run".to_owned(),
        };
        let raised = attempt.raise.map_or_else(String::new, |raise| format!(", {}", wording::raised(&raise)));
        Some(format!("attempt {number}{}{raised}: {words}", held(attempt)))
    };
    (1..).zip(&task.attempts).filter_map(line).collect()
}

/// Says where a waiting task stands in an order that is not the planned one, and where it is to go, unless that has fallen
/// out since. `lacks` is what it found wrong with devices.
fn replanned(facts: &Facts<'_>, task: &TaskState, lacks: &[At<Why>]) -> Option<String> {
    let revised = facts.state.revised.as_ref().filter(|_| !task.phase.is_final() && task.phase != Phase::Running)?;
    let at = revised.order.iter().position(|other| *other == facts.task)?;
    let waits = |task: &&TaskId| matches!(facts.state.task(**task).phase, Phase::Waiting | Phase::Delayed(_));
    let ahead = revised.order[..at].iter().filter(waits).count();
    let is_out = |id: &String| {
        let here = |at: &At<Why>| at.place == *id && matches!(at.lacks, Why::Fault { .. });
        lacks.iter().any(here) || left(task).is_some_and(|left| left == id)
    };
    let intent = revised.moved.get(&facts.task).filter(|intent| !intent.devices.iter().any(is_out));
    let devices = intent.map(|intent| intent.devices.join(", "));
    let on = devices.filter(|devices| !devices.is_empty());
    let on = on.map_or_else(String::new, |devices| format!(", on {}", text::visible(&devices)));
    let first = match ahead {
        0 => "it goes first".to_owned(),
        1 => "a task that waits goes first".to_owned(),
        more => format!("{more} tasks that wait go first"),
    };
    Some(format!("replanned: {first}{on}"))
}

/// Says why it is not decided yet what becomes of a task whose attempt failed.
fn looked_at(task: &TaskState) -> String {
    match task.telling().and_then(|(_, attempt)| attempt.ended.as_ref()) {
        Some(Ended { outcome: Outcome::OutOfMemory { device: Some(device) }, .. }) => {
            format!(
                "it ran out of memory, and it is looked whether others hold that of {}: a driver may give back late",
                text::visible(device)
            )
        }
        _ => "its last attempt failed, and what becomes of it is about to be decided".to_owned(),
    }
}

/// Returns the device that a task had to leave last, as it fell out.
fn left(task: &TaskState) -> Option<&String> {
    let (_, attempt) = task.telling()?;
    let Outcome::Displaced { device, cause: Cause::Unfit { .. } } = &attempt.ended.as_ref()?.outcome else {
        return None;
    };
    Some(device)
}
