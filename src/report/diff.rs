//! Two runs beside each other: what their tasks are made of, what became of them, how long they took, and their last
//! figures.
//!
//! Tasks belong together by name. Pure: what is known of a run is given.

use serde::Serialize;

use super::definition::{self, Change, Definition};
use super::json::{Header, outcome_code, state_word, task_word};
use super::paint::{Colour, Tone};
use super::table::{Cell, Column, Table};
use super::{text, wording};
use crate::progress::record::Record;
use crate::progress::value;
use crate::run::state::{RunState, TaskState};
use crate::run::store::TaskHeader;
use crate::units::Millis;

/// A difference in time is told from this part of it on, in percent, and from [`LEAST`] on: less is noise.
const TELLING: u64 = 10;
const LEAST: u64 = 100;

/// One of the two runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Side {
    /// Its id.
    pub run: String,
    /// Its state, as `show --json` spells it.
    pub state: String,
    /// How long it went on; unknown while it runs.
    pub took_ms: Option<u64>,
    /// `--set`, in order.
    pub set: Vec<String>,
    #[serde(skip)]
    tasks: Vec<(String, OfTask)>,
    #[serde(skip)]
    definition: Option<Definition>,
}

/// What became of a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OfTask {
    /// Its state, as `show --json` spells it.
    pub state: String,
    /// How many times it was tried.
    pub attempts: usize,
    /// How the last attempt ended.
    pub outcome: Option<String>,
    /// How long the last attempt took.
    pub time_ms: Option<u64>,
    /// The last value of every figure, by name.
    pub figures: serde_json::Map<String, serde_json::Value>,
}

/// A task in both runs; `None` where a run does not have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The task's name.
    pub name: String,
    /// In the first run.
    pub a: Option<OfTask>,
    /// In the second run.
    pub b: Option<OfTask>,
    /// What differs of its definition; unknown where a run was recorded by an earlier version.
    pub changes: Option<Vec<Change>>,
}

/// Two runs. Keys are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// The first run.
    pub a: Side,
    /// The second run.
    pub b: Side,
    /// All tasks of both, in the order of the first.
    pub tasks: Vec<Pair>,
}

impl Side {
    /// Describes a run; `heard` says what is known of the progress of a task's attempt.
    #[must_use]
    pub fn new(
        header: &Header<'_>,
        tasks: &[TaskHeader],
        state: &RunState,
        heard: impl Fn(&str, u32) -> Option<Record>,
    ) -> Self {
        let of = |(task, happened): (&TaskHeader, &TaskState)| {
            let (number, last) = happened.telling().unzip();
            let record = number.and_then(|number| heard(&task.name, number)).unwrap_or_default();
            let last_value =
                |series: &crate::progress::series::Series| Some((series.name.clone(), value::to_json(series.last()?)));
            let of = OfTask {
                state: task_word(happened.phase, header.alive).to_owned(),
                attempts: happened.attempts.len(),
                outcome: last.and_then(|last| outcome_code(last, header.alive)),
                time_ms: last.and_then(|last| Some(last.ran(last.ended.as_ref()?.at).0)),
                figures: record.series.iter().filter_map(last_value).collect(),
            };
            (task.name.clone(), of)
        };
        Self {
            run: header.run.to_owned(),
            state: state_word(state.end, header.alive).to_owned(),
            took_ms: state.took(header.started).map(|took| took.0),
            set: Vec::new(),
            tasks: tasks.iter().zip(&state.tasks).map(of).collect(),
            definition: None,
        }
    }

    /// Adds what its tasks are made of, as far as that is known, and its `--set`.
    #[must_use]
    pub fn made_of(self, definition: Option<Definition>, set: Vec<String>) -> Self {
        Self { definition, set, ..self }
    }
}

/// Puts two runs beside each other.
#[must_use]
pub fn diff(mut a: Side, mut b: Side) -> Diff {
    let mut others: Vec<(String, Option<OfTask>)> =
        std::mem::take(&mut b.tasks).into_iter().map(|(name, of)| (name, Some(of))).collect();
    let place: std::collections::HashMap<String, usize> =
        others.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
    let definitions = a.definition.take().zip(b.definition.take());
    let changes = |name: &str| definitions.as_ref().map(|(a, b)| a.changes(b, name));
    let mut tasks: Vec<Pair> = Vec::new();
    for (name, of) in std::mem::take(&mut a.tasks) {
        let other = place.get(&name).and_then(|&i| others[i].1.take());
        tasks.push(Pair { changes: changes(&name), name, a: Some(of), b: other });
    }
    let only =
        |(name, of): (String, Option<OfTask>)| Some(Pair { changes: changes(&name), name, a: None, b: Some(of?) });
    tasks.extend(others.into_iter().filter_map(only));
    Diff { a, b, tasks }
}

impl Pair {
    /// Whether there is anything to tell.
    fn has_changed(&self) -> bool {
        let (Some(a), Some(b)) = (&self.a, &self.b) else { return true };
        let slower = || a.time_ms.zip(b.time_ms).is_some_and(|(a, b)| is_telling(a, b));
        self.changes.as_ref().is_some_and(|changes| !changes.is_empty())
            || a.state != b.state
            || a.outcome != b.outcome
            || a.attempts != b.attempts
            || slower()
            || steady(&a.figures).ne(steady(&b.figures))
    }
}

/// Returns the figures that say what came out, not how fast.
fn steady(figures: &serde_json::Map<String, serde_json::Value>) -> impl Iterator<Item = (&String, &serde_json::Value)> {
    figures.iter().filter(|(name, _)| !(name.contains("/s") || name.contains("second") || name.contains("runtime")))
}

fn is_telling(a: u64, b: u64) -> bool {
    a.abs_diff(b) >= LEAST && a.abs_diff(b) * 100 >= a.max(b) * TELLING
}

/// Returns what changed for people, several lines.
#[must_use]
pub fn shown(diff: &Diff, colour: Colour, columns: Option<usize>) -> String {
    let side = |side: &Side| {
        let took = side.took_ms.map_or_else(String::new, |took| format!(", took {}", Millis(took)));
        format!("{}: {}{took}", text::visible(&side.run), side.state)
    };
    let mut shown = format!("a  {}\nb  {}\n\n", side(&diff.a), side(&diff.b));
    let tasks = diff.tasks.iter().filter_map(|pair| Some((pair.name.as_str(), pair.changes.as_deref()?)));
    let made_of = definition::shown((&diff.a.set, &diff.b.set), tasks);
    if !made_of.is_empty() {
        shown.push_str(&format!("{made_of}\n"));
    }
    if diff.tasks.iter().any(|pair| pair.changes.is_none()) {
        shown.push_str("whether their definitions differ is not known: the pipeline file of one was not kept\n\n");
    }
    let changed: Vec<&Pair> = diff.tasks.iter().filter(|pair| pair.has_changed()).collect();
    if !changed.is_empty() {
        shown.push_str(&table(&changed).render(colour, columns));
        shown.push('\n');
    }
    let same = diff.tasks.len() - changed.len();
    let counts = wording::counts(&[(changed.len(), "changed"), (same, "alike")]);
    shown + &format!("{}: {counts}\n", wording::plural(diff.tasks.len(), "task"))
}

fn table(changed: &[&Pair]) -> Table {
    let mut table = Table::new([
        Column::left("task").that_gives_way(),
        Column::left("ended"),
        Column::right("time a"),
        Column::right("time b"),
        Column::right("change"),
        Column::left("figures").that_gives_way(),
    ]);
    for pair in changed {
        let (a, b) = (pair.a.as_ref(), pair.b.as_ref());
        let times = (a.and_then(|a| a.time_ms), b.and_then(|b| b.time_ms));
        let time = |time: Option<u64>| time.map_or_else(Cell::default, |time| Millis(time).into());
        table.row([
            pair.name.as_str().into(),
            ended(a, b),
            time(times.0),
            time(times.1),
            times.0.zip(times.1).map_or_else(Cell::default, |(a, b)| change(a, b)),
            figures(a, b).into(),
        ]);
    }
    table
}

fn ended(a: Option<&OfTask>, b: Option<&OfTask>) -> Cell {
    let word = |of: &OfTask| of.outcome.clone().unwrap_or_else(|| of.state.clone());
    match (a, b) {
        (Some(a), Some(b)) if word(a) == word(b) => word(b).into(),
        (Some(a), Some(b)) => {
            let tone = if b.state == "succeeded" { Tone::Good } else { Tone::Bad };
            Cell::new(format!("{} → {}", word(a), word(b)), tone)
        }
        (Some(_), None) => Cell::new("only in a", Tone::Uneasy),
        (None, _) => Cell::new("only in b", Tone::Uneasy),
    }
}

fn change(a: u64, b: u64) -> Cell {
    if !is_telling(a, b) {
        return Cell::default();
    }
    let percent = (100 * a.abs_diff(b)).checked_div(a);
    let percent = percent.map_or_else(String::new, |percent| format!("{percent}%"));
    if b > a { Cell::new(format!("+{percent}"), Tone::Bad) } else { Cell::new(format!("-{percent}"), Tone::Good) }
}

/// Returns the figures that differ: `loss 0.5 → 0.25`.
fn figures(a: Option<&OfTask>, b: Option<&OfTask>) -> String {
    let (Some(a), Some(b)) = (a, b) else { return String::new() };
    let both = steady(&b.figures).filter_map(|(name, now)| Some((name, a.figures.get(name)?, now)));
    let words =
        both.filter(|(_, before, now)| before != now).map(|(name, before, now)| format!("{name} {before} → {now}"));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Scene, finished, over, started};
    use super::*;
    use crate::progress::series::Book;
    use crate::run::event::RunEnd;

    /// A run whose tasks take that many seconds each; the loss of all is the same.
    fn side(names: &[&str], seconds: u64, code: i32, loss: f64) -> Side {
        let mut scene = Scene::chain(names);
        for task in 0..names.len() {
            let at = seconds * task as u64;
            scene.apply(at, started(task, 1));
            scene.apply(at + seconds, finished(task, code));
        }
        scene.apply(seconds * names.len() as u64, over(RunEnd::Succeeded));
        let header = Header { run: "r1", name: None, pipeline: "digits", started: scene.time(0), alive: false };
        let tasks: Vec<TaskHeader> =
            names.iter().map(|name| TaskHeader { name: (*name).into(), ..TaskHeader::default() }).collect();
        Side::new(&header, &tasks, &scene.state, |name, _| {
            let mut book = Book::default();
            book.push("loss", 0, None, loss);
            book.push("it/s", 0, None, seconds as f64);
            (name == "train").then(|| Record { series: book.series().to_vec(), ..Record::default() })
        })
        .made_of(Some(Definition::default()), Vec::new())
    }

    #[test]
    fn a_run_of_which_the_definition_is_not_known_says_so() {
        let unknown = side(&["train"], 10, 0, 0.5).made_of(None, Vec::new());
        assert!(shown(&diff(unknown, side(&["train"], 10, 0, 0.5)), Colour::Never, None).contains("is not known"));
    }

    #[test]
    fn only_what_changed_is_told() {
        let diff = diff(side(&["clean", "train", "old"], 10, 0, 0.5), side(&["clean", "train", "new"], 10, 0, 0.25));
        insta::assert_snapshot!(shown(&diff, Colour::Never, None), @"
        a  r1: succeeded, took 30s
        b  r1: succeeded, took 30s

        task   ended      time a  time b  figures
        train  succeeded     10s     10s  loss 0.5 → 0.25
        old    only in a     10s
        new    only in b             10s

        4 tasks: 3 changed, 1 alike
        ");
    }

    #[test]
    fn a_longer_time_and_another_ending_are_changes() {
        let diff = diff(side(&["clean"], 10, 0, 0.5), side(&["clean"], 15, 1, 0.5));
        insta::assert_snapshot!(shown(&diff, Colour::Never, None), @"
        a  r1: succeeded, took 10s
        b  r1: succeeded, took 15s

        task   ended                 time a  time b  change
        clean  succeeded → exited:1     10s     15s    +50%

        1 task: 1 changed
        ");
    }

    #[test]
    fn two_runs_that_went_alike_say_so() {
        let diff = diff(side(&["train"], 10, 0, 0.5), side(&["train"], 10, 0, 0.5));
        assert!(shown(&diff, Colour::Never, None).ends_with("\n\n1 task: 1 alike\n"));
    }
}
