//! Recorded runs for people: the list of runs, and one run with its tasks.
//!
//! Pure: the time zone and the terminal's width are arguments. Does not know where the record is.

use std::path::Path;

use jiff::tz::TimeZone;

use super::json::{Header, outcome_code, state_word, task_word};
use super::paint::{Colour, Tone};
use super::table::{Cell, Column, Table};
use super::{summary, text, wording};
use crate::run::event::{Place, RunEnd};
use crate::run::outcome::Outcome;
use crate::run::state::{Attempt, RunState, TaskState};
use crate::units::{Bytes, Millis};

/// One run in the list.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// What is known from its start.
    pub header: Header<'a>,
    /// How many tasks it has.
    pub tasks: usize,
    /// When and how it ended.
    pub end: Option<(Millis, RunEnd)>,
    /// For how long nobody carried it out.
    pub away: Millis,
}

/// Returns the list of runs as a table. `now` is for those that still run.
#[must_use]
pub fn runs(runs: &[Listed<'_>], now: Millis, zone: &TimeZone) -> Table {
    let mut table = Table::new([
        // An id is there to be copied.
        Column::left("run"),
        Column::left("name"),
        Column::left("pipeline").that_gives_way(),
        Column::left("state"),
        Column::right("tasks"),
        Column::left("started"),
        Column::right("time"),
    ]);
    for Listed { header, tasks, end, away } in runs {
        let state = state_word(*end, header.alive);
        let until = end.map(|(at, _)| at).or(header.alive.then_some(now));
        table.row([
            header.run.into(),
            header.name.map_or_else(Cell::default, Cell::from),
            header.pipeline.into(),
            Cell::new(state, tone(state)),
            (*tasks).into(),
            // The year is in the id.
            local(header.started, zone, "%b %d %H:%M").into(),
            until.map_or_else(Cell::default, |until| (until - header.started - *away).into()),
        ]);
    }
    table
}

/// Returns one run with its tasks, several lines. `elsewhere` is the state folder, where commands would not find it by
/// themselves.
#[must_use]
pub fn run(
    header: &Header<'_>,
    names: &[String],
    state: &RunState,
    elsewhere: Option<&Path>,
    zone: &TimeZone,
    colour: Colour,
    columns: Option<usize>,
) -> String {
    let word = state_word(state.end, header.alive);
    let took = state.took(header.started).map_or_else(String::new, |took| format!(", took {took}"));
    let mut shown = format!(
        "run {}{} of {}: {}, started {}{took}\n\n",
        text::visible(header.run),
        header.name.map_or_else(String::new, |name| format!(", {},", text::visible(name))),
        text::visible(header.pipeline),
        colour.paint(tone(word), word),
        local(header.started, zone, "%Y-%m-%d %H:%M:%S"),
    );
    shown.push_str(&tasks(header, names, state).render(colour, columns));
    let told: Vec<String> = names.iter().zip(&state.tasks).flat_map(|(name, task)| out_of_memory(name, task)).collect();
    if !told.is_empty() {
        shown.push_str(&format!("\nout of memory\n{}", told.concat()));
    }
    let unplaced = |(name, task): (&String, &TaskState)| {
        let lacks = text::visible(task.lacks.as_ref()?);
        Some(format!("  {}: {lacks}\n", text::visible(name)))
    };
    let unplaced: Vec<String> = names.iter().zip(&state.tasks).filter_map(unplaced).collect();
    if !unplaced.is_empty() {
        shown.push_str(&format!("\nno place\n{}", unplaced.concat()));
    }
    let cut: Vec<String> = names.iter().zip(&state.tasks).flat_map(|(name, task)| cut_short(name, task)).collect();
    if !cut.is_empty() {
        shown.push_str(&format!("\n{}", cut.concat()));
    }
    if let Some(failed) = state.tasks.iter().position(summary::failed_with_output) {
        shown.push('\n');
        shown.push_str(&summary::logs_hint(header.run, &names[failed], elsewhere));
    }
    shown
}

fn tasks(header: &Header<'_>, names: &[String], state: &RunState) -> Table {
    let mut table = Table::new([
        Column::left("task").that_gives_way(),
        Column::left("state"),
        Column::right("start"),
        Column::right("time"),
        Column::right("attempts"),
        Column::left("where"),
        Column::left("limit"),
        Column::right("peak memory"),
        Column::right("peak GPU"),
        Column::left("ended"),
    ]);
    let mut nodes = state.tasks.iter().flat_map(|task| &task.attempts).map(|attempt| &attempt.place.node);
    let first = nodes.next();
    let several_nodes = nodes.any(|node| Some(node) != first);
    for (name, task) in names.iter().zip(&state.tasks) {
        let word = task_word(task.phase, header.alive);
        let last = task.telling().map(|(_, attempt)| attempt);
        let ended = last.and_then(|attempt| attempt.ended.as_ref());
        table.row([
            name.into(),
            Cell::new(word, tone(word)),
            last.map_or_else(Cell::default, |last| {
                format!("+{}", wording::seconds(last.started - header.started)).into()
            }),
            last.zip(ended).map_or_else(Cell::default, |(last, ended)| last.ran(ended.at).into()),
            if task.attempts.is_empty() { Cell::default() } else { task.attempts.len().into() },
            last.map_or_else(Cell::default, |last| place(&last.place, several_nodes).into()),
            last.and_then(|last| wording::limit(last, false)).map_or_else(Cell::default, Cell::from),
            peak(task, |ended| ended.usage.peak_memory),
            peak(task, |ended| ended.usage.peak_gpu_memory),
            unusual_end(task, header.alive).map_or_else(Cell::default, Cell::from),
        ]);
    }
    table
}

/// Returns a line for each attempt that ran out of memory: what it had, and what the next one asked for.
fn out_of_memory(name: &str, task: &TaskState) -> Vec<String> {
    let line = |(number, attempt): (usize, &Attempt)| {
        let ended = attempt.ended.as_ref()?;
        let Outcome::OutOfMemory { .. } = ended.outcome else { return None };
        let next =
            task.attempts.get(number).map_or(task.raise, |next| next.raise).filter(|next| Some(*next) != attempt.raise);
        let next = next.map_or_else(String::new, |raise| format!("; then {}", wording::raised(&raise)));
        let ended = wording::ending_in_numbers(attempt, ended);
        Some(format!("  {}, attempt {number}: {ended}{next}\n", text::visible(name)))
    };
    (1..).zip(&task.attempts).filter_map(line).collect()
}

/// Returns a line for each attempt whose log is cut short.
fn cut_short(name: &str, task: &TaskState) -> Vec<String> {
    let line = |(number, attempt): (usize, &Attempt)| {
        let cut = wording::log_cut(attempt.ended.as_ref()?.usage.log_cut?);
        Some(format!("{}, attempt {number}: {cut}\n", text::visible(name)))
    };
    (1..).zip(&task.attempts).filter_map(line).collect()
}

/// Returns the largest reading over all attempts.
fn peak(task: &TaskState, of: impl Fn(&crate::run::state::Ended) -> Option<Bytes>) -> Cell {
    let peaks = task.attempts.iter().filter_map(|attempt| of(attempt.ended.as_ref()?));
    peaks.max().map_or_else(Cell::default, Cell::from)
}

/// Returns the devices; on the host its name, where there are several.
fn place(place: &Place, several_nodes: bool) -> String {
    match place.devices.as_slice() {
        [] if several_nodes => place.node.clone(),
        devices => devices.join(","),
    }
}

/// Returns the last attempt's outcome where the task's state does not say it already.
fn unusual_end(task: &TaskState, alive: bool) -> Option<String> {
    let (_, last) = task.telling()?;
    let succeeded = last.ended.as_ref().is_some_and(|ended| ended.outcome.is_success());
    outcome_code(last, alive).filter(|_| !succeeded)
}

/// Returns what a state's word means.
fn tone(word: &str) -> Tone {
    match word {
        "succeeded" | "cached" => Tone::Good,
        "failed" => Tone::Bad,
        "running" => Tone::Active,
        "interrupted" | "skipped" => Tone::Uneasy,
        _ => Tone::Faint,
    }
}

/// Returns a time in the given zone.
fn local(time: Millis, zone: &TimeZone, format: &str) -> String {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    time.to_zoned(zone.clone()).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Scene, failed, finished, over, skipped, started, started_on_gpu};

    fn header(started: Millis, alive: bool) -> Header<'static> {
        Header { run: "20261120-210000-digits-4f2a", name: None, pipeline: "digits", started, alive }
    }

    fn shown(scene: &Scene, alive: bool) -> String {
        let names: Vec<String> = scene.graph.tasks.iter().map(|task| task.name.clone()).collect();
        run(&header(scene.time(0), alive), &names, &scene.state, None, &TimeZone::UTC, Colour::Never, Some(100))
    }

    #[test]
    fn a_run_is_shown_with_what_became_of_every_task() {
        let mut scene = Scene::chain(&["clean", "train[lr=0.1]", "best"]);
        for (at, event) in [
            (0, started(0, 1)),
            (2, finished(0, 0)),
            (2, started_on_gpu(1, 1)),
            (80, finished(1, 3)),
            (80, failed(1)),
            (80, skipped(2, 1)),
            (80, over(RunEnd::Failed)),
        ] {
            scene.apply(at, event);
        }
        insta::assert_snapshot!(shown(&scene, false), @"
        run 20261120-210000-digits-4f2a of digits: failed, started 2026-11-20 21:00:00, took 1m20s

        task           state      start   time  attempts  where     peak memory  ended
        clean          succeeded    +0s     2s         1               64.0 MiB
        train[lr=0.1]  failed       +2s  1m18s         1  box/gpu0     64.0 MiB  exited:3
        best           skipped

        its output: trainyard logs 20261120-210000-digits-4f2a 'train[lr=0.1]'
        ");
    }

    #[test]
    fn a_run_whose_process_is_gone_shows_nothing_as_running() {
        let mut scene = Scene::chain(&["clean"]);
        scene.apply(0, started(0, 1));
        insta::assert_snapshot!(shown(&scene, true), @"
        run 20261120-210000-digits-4f2a of digits: running, started 2026-11-20 21:00:00

        task   state    start  attempts
        clean  running    +0s         1
        ");
        insta::assert_snapshot!(shown(&scene, false), @"
        run 20261120-210000-digits-4f2a of digits: interrupted, started 2026-11-20 21:00:00

        task   state    start  attempts  ended
        clean  waiting    +0s         1  interrupted
        ");
    }

    #[test]
    fn runs_are_listed_with_state_and_time() {
        let scene = Scene::chain(&["clean"]);
        let listed = |alive, end| Listed { header: header(scene.time(0), alive), tasks: 3, end, away: Millis::ZERO };
        let ended = listed(false, Some((scene.time(65), RunEnd::Succeeded)));
        let table = runs(&[listed(true, None), ended, listed(false, None)], scene.time(70), &TimeZone::UTC);
        insta::assert_snapshot!(table, @"
        run                          pipeline  state        tasks  started        time
        20261120-210000-digits-4f2a  digits    running          3  Nov 20 21:00  1m10s
        20261120-210000-digits-4f2a  digits    succeeded        3  Nov 20 21:00  1m05s
        20261120-210000-digits-4f2a  digits    interrupted      3  Nov 20 21:00
        ");
    }
}
