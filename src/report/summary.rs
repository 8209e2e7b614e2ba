//! The last words of a run: what became of every stage, what took longest, and what to do next.

use std::path::Path;

use super::paint::{Colour, Tone};
use super::table::{Cell, Column, Table};
use super::{text, wording};
use crate::run::event::RunEnd;
use crate::run::state::{Phase, RunState, TaskState};
use crate::units::{Bytes, Millis};

/// How many of the longest tasks are named.
const SLOWEST: usize = 3;

/// A finished run.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// The run's id.
    pub run: &'a str,
    /// `[n_tasks]`, by TaskId.
    pub names: &'a [&'a str],
    /// What happened.
    pub state: &'a RunState,
    /// When it was first started, ms since the Unix epoch.
    pub started: Millis,
    /// Where the logs are.
    pub logs: &'a Path,
    /// The state folder, where commands would not find it by themselves.
    pub elsewhere: Option<&'a Path>,
}

/// What became of the tasks of one stage.
#[derive(Default)]
struct StageTotals {
    tasks: usize,
    succeeded: usize,
    cached: usize,
    failed: usize,
    skipped: usize,
    attempts: usize,
    time: Millis,
    peak_memory: Option<Bytes>,
}

impl StageTotals {
    fn add(&mut self, task: &TaskState) {
        self.tasks += 1;
        self.attempts += task.attempts.len();
        self.time += time(task);
        let peaks = task.attempts.iter().filter_map(|attempt| attempt.ended.as_ref()?.usage.peak_memory);
        self.peak_memory = self.peak_memory.max(peaks.max());
        match task.phase {
            Phase::Succeeded => self.succeeded += 1,
            Phase::Cached => self.cached += 1,
            Phase::Failed => self.failed += 1,
            Phase::Skipped => self.skipped += 1,
            Phase::Waiting | Phase::Delayed(_) | Phase::Running => {}
        }
    }
}

/// Returns the stage's name of a task's name: what stands before its point of the matrix.
#[must_use]
pub fn stage_of(task: &str) -> &str {
    task.split('[').next().unwrap_or(task)
}

/// Returns the time that all attempts of a task took together.
fn time(task: &TaskState) -> Millis {
    task.attempts.iter().filter_map(|attempt| Some(attempt.ran(attempt.ended.as_ref()?.at))).sum()
}

/// Returns the summary, several lines, for a terminal of `columns`.
#[must_use]
pub fn summary(finished: &Finished<'_>, colour: Colour, columns: Option<usize>) -> String {
    if is_idle(finished.state) {
        return last_line(finished, colour) + "\n";
    }
    let mut lines = stages(finished).render(colour, columns);
    if let Some(slowest) = slowest(finished) {
        lines.push_str(&format!("\n{slowest}\n"));
    }
    lines.push_str(&format!("\n{}\n", last_line(finished, colour)));
    lines.push_str(&format!("logs: {}\n", text::visible(&finished.logs.to_string_lossy())));
    if let Some(failed) = first_failed(finished) {
        lines.push_str(&logs_hint(finished.run, failed, finished.elsewhere));
    }
    lines
}

/// Whether there was nothing to do: every task was up to date.
#[must_use]
pub fn is_idle(state: &RunState) -> bool {
    let succeeded = matches!(state.end, Some((_, RunEnd::Succeeded)));
    succeeded && state.tasks.iter().all(|task| task.phase == Phase::Cached && task.attempts.is_empty())
}

/// Returns the one line that says how the run ended.
#[must_use]
pub fn last_line(finished: &Finished<'_>, colour: Colour) -> String {
    let Finished { run, state, .. } = finished;
    if is_idle(state) {
        let all = match state.tasks.len() {
            1 => "the task is".to_owned(),
            n => format!("all {n} tasks are"),
        };
        return format!("{}: {all} up to date", colour.paint(Tone::Good, "nothing to do"));
    }
    let (verb, tone) = match state.end {
        Some((_, RunEnd::Succeeded)) => ("succeeded", Tone::Good),
        Some((_, RunEnd::Failed)) => ("failed", Tone::Bad),
        Some((_, RunEnd::Interrupted)) | None => ("was interrupted", Tone::Uneasy),
    };
    let count = |wanted: fn(&Phase) -> bool| state.tasks.iter().filter(|task| wanted(&task.phase)).count();
    let stopped = state.tasks.iter().filter(|task| !task.phase.is_final() && !task.attempts.is_empty()).count();
    let counts = wording::counts(&[
        (count(|phase| *phase == Phase::Succeeded), "succeeded"),
        (count(|phase| *phase == Phase::Cached), "cached"),
        (count(|phase| *phase == Phase::Failed), "failed"),
        (count(|phase| *phase == Phase::Skipped), "skipped"),
        (stopped, "stopped"),
        (count(|phase| !phase.is_final()) - stopped, "not run"),
    ]);
    let has_begun = state.tasks.iter().any(|task| !task.attempts.is_empty());
    let after = state.took(finished.started).filter(|_| has_begun);
    let after = after.map_or_else(String::new, |took| format!(" after {took}"));
    let counts = if counts.is_empty() { String::new() } else { format!(": {counts}") };
    format!("run {run} {}{after}{counts}", colour.paint(tone, verb))
}

fn stages(finished: &Finished<'_>) -> Table {
    // The tasks of a stage follow one another, so a change of the name begins the next stage.
    let mut stages: Vec<(&str, StageTotals)> = Vec::new();
    for (name, task) in finished.names.iter().zip(&finished.state.tasks) {
        let stage = stage_of(name);
        if stages.last().is_none_or(|(last, _)| *last != stage) {
            stages.push((stage, StageTotals::default()));
        }
        if let Some((_, totals)) = stages.last_mut() {
            totals.add(task);
        }
    }
    let mut table = Table::new([
        Column::left("stage").that_gives_way(),
        Column::right("tasks"),
        Column::right("succeeded"),
        Column::right("cached"),
        Column::right("failed"),
        Column::right("skipped"),
        Column::right("attempts"),
        Column::right("time"),
        Column::right("peak memory"),
    ]);
    for (stage, totals) in stages {
        table.row([
            stage.into(),
            totals.tasks.into(),
            some(totals.succeeded, Tone::Good),
            some(totals.cached, Tone::Good),
            some(totals.failed, Tone::Bad),
            some(totals.skipped, Tone::Uneasy),
            some(totals.attempts, Tone::Plain),
            if totals.attempts == 0 { Cell::default() } else { totals.time.into() },
            totals.peak_memory.map_or_else(Cell::default, Cell::from),
        ]);
    }
    table
}

/// Returns a count, or an empty cell for none: what is unusual then stands out.
fn some(count: usize, tone: Tone) -> Cell {
    if count == 0 { Cell::default() } else { Cell::new(count, tone) }
}

/// Returns the line that names the longest tasks; `None` where there are too few for it to say anything.
fn slowest(finished: &Finished<'_>) -> Option<String> {
    let mut tried: Vec<(Millis, &str)> = finished
        .names
        .iter()
        .zip(&finished.state.tasks)
        .filter(|(_, task)| !task.attempts.is_empty())
        .map(|(name, task)| (time(task), *name))
        .collect();
    if tried.len() <= SLOWEST {
        return None;
    }
    tried.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let named: Vec<String> =
        tried.iter().take(SLOWEST).map(|(time, name)| format!("{} {time}", text::visible(name))).collect();
    Some(format!("slowest: {}", named.join(", ")))
}

fn first_failed<'a>(finished: &Finished<'a>) -> Option<&'a str> {
    let failed = finished.state.tasks.iter().position(failed_with_output)?;
    finished.names.get(failed).copied()
}

/// Whether a task failed and its last attempt printed something.
#[must_use]
pub fn failed_with_output(task: &TaskState) -> bool {
    let last = task.attempts.last().and_then(|attempt| attempt.ended.as_ref());
    task.phase == Phase::Failed && last.is_some_and(|ended| ended.logged)
}

/// Returns the line that says how to read a task's output.
#[must_use]
pub fn logs_hint(run: &str, task: &str, elsewhere: Option<&Path>) -> String {
    let state = elsewhere.map(|dir| format!(" --state {}", shell_word(&dir.to_string_lossy()))).unwrap_or_default();
    format!("its output: trainyard logs {} {}{state}\n", shell_word(run), shell_word(task))
}

/// Returns a word as one would type it to a shell, quoted where it has to be.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/=,:+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", text::visible(word).replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Scene, failed, finished, over, retry, skipped, started};
    use crate::run::event::Event;

    fn shown(scene: &Scene) -> String {
        let names: Vec<&str> = scene.graph.tasks.iter().map(|task| task.name.as_str()).collect();
        let finished = Finished {
            started: scene.view().started,
            run: "r1",
            names: &names,
            state: &scene.state,
            logs: Path::new("/w/.trainyard/r1"),
            elsewhere: None,
        };
        summary(&finished, Colour::Never, Some(80))
    }

    #[test]
    fn a_failed_run_says_where_to_look() {
        let mut scene = Scene::chain(&["clean", "train[lr=0.1]", "train[lr=1]", "best"]);
        for (at, event) in [
            (0, started(0, 1)),
            (2, finished(0, 0)),
            (2, started(1, 1)),
            (62, finished(1, 0)),
            (62, started(2, 1)),
            (65, finished(2, 3)),
            (65, retry(2, Millis(0))),
            (66, started(2, 2)),
            (80, finished(2, 3)),
            (80, failed(2)),
            (80, skipped(3, 2)),
            (80, over(RunEnd::Failed)),
        ] {
            scene.apply(at, event);
        }
        insta::assert_snapshot!(shown(&scene), @"
        stage  tasks  succeeded  failed  skipped  attempts   time  peak memory
        clean      1          1                          1     2s     64.0 MiB
        train      2          1       1                  3  1m17s     64.0 MiB
        best       1                           1

        run r1 failed after 1m20s: 2 succeeded, 1 failed, 1 skipped
        logs: /w/.trainyard/r1
        its output: trainyard logs r1 'train[lr=1]'
        ");
    }

    #[test]
    fn only_a_task_that_printed_something_is_pointed_to() {
        let silent = |task| {
            let mut finished = finished(task, 1);
            if let Event::AttemptFinished { logged, .. } = &mut finished {
                *logged = false;
            }
            finished
        };
        let mut scene = Scene::chain(&["a", "b"]);
        for (at, event) in [(0, started(0, 1)), (0, started(1, 1)), (1, silent(0)), (1, failed(0))] {
            scene.apply(at, event);
        }
        assert!(!shown(&scene).contains("its output"), "{}", shown(&scene));
        scene.apply(1, finished(1, 1));
        scene.apply(1, failed(1));
        assert!(shown(&scene).ends_with("its output: trainyard logs r1 b\n"), "{}", shown(&scene));
    }

    #[test]
    fn a_run_in_which_nothing_ran_is_summed_up_too() {
        let mut scene = Scene::chain(&["clean"]);
        scene.apply(0, over(RunEnd::Interrupted));
        insta::assert_snapshot!(shown(&scene), @"
        stage  tasks
        clean      1

        run r1 was interrupted: 1 not run
        logs: /w/.trainyard/r1
        ");
    }

    #[test]
    fn a_hint_names_the_state_folder_where_it_would_not_be_found() {
        let hint = logs_hint("r1", "train", Some(Path::new("my pipelines/.trainyard")));
        assert_eq!(hint, "its output: trainyard logs r1 train --state 'my pipelines/.trainyard'\n");
    }

    #[test]
    fn a_name_is_quoted_for_the_shell_where_it_has_to_be() {
        assert_eq!(shell_word("clean"), "clean");
        assert_eq!(shell_word("train[lr=0.1]"), "'train[lr=0.1]'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }
}
