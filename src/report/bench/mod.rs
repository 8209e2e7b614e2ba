//! How policies compare: what each makes of a pipeline on a fleet, as a table, CSV, JSON and an HTML page.
//!
//! Does not make plans and does not measure time.

use serde::Serialize;

use super::paint::{Colour, Tone};
use super::table::{Cell, Column, Table};
use super::text;
use crate::plan::Plan;
use crate::plan::usage::Usage;
use crate::units::Millis;

mod csv;
mod html;
mod svg;

pub use csv::csv;
pub use html::page;
pub use svg::Gantt;

/// What was compared: a pipeline on a fleet by several policies.
#[derive(Debug)]
pub struct Comparison {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its tasks.
    pub tasks: usize,
    /// The fleet's name.
    pub fleet: String,
    /// Its devices.
    pub devices: usize,
    /// One for each policy.
    pub entries: Vec<Entry>,
    /// The best plan as a chart.
    pub chart: Option<Gantt>,
}

/// What one policy made of it.
#[derive(Debug)]
pub struct Entry {
    /// The policy.
    pub policy: String,
    /// One for each seed, or why there is no plan.
    pub trials: Result<Vec<Trial>, String>,
}

/// One plan.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The seed.
    pub seed: u64,
    /// When its last task ends.
    pub makespan: Millis,
    /// No plan can end before this.
    pub lower_bound: Millis,
    /// What `lower_bound` rests on.
    pub bound_by: &'static str,
    /// Schedules that were tried.
    pub evaluations: u64,
    /// How long planning took, in microseconds.
    pub planning_us: u64,
    /// What it makes of the devices.
    pub usage: Usage,
}

impl Trial {
    /// Takes what is compared from a plan.
    #[must_use]
    pub fn new(seed: u64, plan: &Plan, planning_us: u64, usage: Usage) -> Self {
        let Plan { makespan, lower_bound, bound_by, evaluations, .. } = *plan;
        Self { seed, makespan, lower_bound, bound_by, evaluations, planning_us, usage }
    }
}

/// A policy's trials in one row: medians, and how far they lie apart. The keys of the JSON are these names.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    pipeline: &'a str,
    tasks: usize,
    fleet: &'a str,
    devices: usize,
    policy: &'a str,
    seeds: usize,
    /// Why there is no plan; everything behind it is then absent.
    error: Option<&'a str>,
    makespan_ms: Option<u64>,
    makespan_least_ms: Option<u64>,
    makespan_most_ms: Option<u64>,
    lower_bound_ms: Option<u64>,
    bound_by: Option<&'a str>,
    /// Of the median makespan over the best bound of all policies.
    gap: Option<f64>,
    /// How many of the trials are proven optimal by it.
    optimal: usize,
    gpu_memory_use: Option<f64>,
    gpu_share_use: Option<f64>,
    fragmentation: Option<f64>,
    planning_us: Option<u64>,
    evaluations: Option<u64>,
}

impl Comparison {
    /// Returns the largest lower bound that any policy brought, and what it rests on.
    fn bound(&self) -> Option<(Millis, &'static str)> {
        let trials = self.entries.iter().filter_map(|entry| entry.trials.as_ref().ok()).flatten();
        // Of equal bounds the first is named.
        trials
            .map(|trial| (trial.lower_bound, trial.bound_by))
            .reduce(|best, one| if one.0 > best.0 { one } else { best })
    }

    /// Returns one row for each policy, in the order in which they were asked for.
    #[must_use]
    pub fn rows(&self) -> Vec<Row<'_>> {
        let bound = self.bound();
        self.entries.iter().map(|entry| self.row(entry, bound)).collect()
    }

    fn row<'a>(&'a self, entry: &'a Entry, bound: Option<(Millis, &'a str)>) -> Row<'a> {
        let trials = entry.trials.as_deref().unwrap_or_default();
        let median_of = |value: fn(&Trial) -> u64| median(trials.iter().map(value).collect());
        let part_of =
            |value: fn(&Usage) -> Option<f64>| median_part(trials.iter().filter_map(|trial| value(&trial.usage)));
        let makespans = || trials.iter().map(|trial| trial.makespan.0);
        let makespan = median_of(|trial| trial.makespan.0);
        let is_best = |trial: &&Trial| bound.is_some_and(|(bound, _)| trial.makespan == bound);
        Row {
            pipeline: &self.pipeline,
            tasks: self.tasks,
            fleet: &self.fleet,
            devices: self.devices,
            policy: &entry.policy,
            seeds: trials.len(),
            error: entry.trials.as_ref().err().map(String::as_str),
            makespan_ms: makespan,
            makespan_least_ms: makespans().min(),
            makespan_most_ms: makespans().max(),
            lower_bound_ms: bound.filter(|_| makespan.is_some()).map(|(bound, _)| bound.0),
            bound_by: bound.filter(|_| makespan.is_some()).map(|(_, by)| by),
            gap: makespan.zip(bound).map(|(makespan, (bound, _))| ratio(makespan - bound.0, bound.0)),
            optimal: trials.iter().filter(is_best).count(),
            gpu_memory_use: part_of(|usage| usage.memory),
            gpu_share_use: part_of(|usage| usage.share),
            fragmentation: part_of(|usage| usage.fragmentation),
            planning_us: median_of(|trial| trial.planning_us),
            evaluations: median_of(|trial| trial.evaluations),
        }
    }

    /// Returns the comparison as a table under a line that says of what, at most `most` columns wide where it may give
    /// way.
    #[must_use]
    pub fn text(&self, colour: Colour, most: Option<usize>) -> String {
        let mut table = Table::new([
            Column::left("policy").that_gives_way(),
            Column::right("makespan"),
            Column::right("spread"),
            Column::right("gap"),
            Column::right("memory"),
            Column::right("share"),
            Column::right("fragments"),
            Column::right("planning"),
            Column::right("schedules"),
            Column::left(""),
        ]);
        let rows = self.rows();
        let best = rows.iter().filter_map(|row| row.makespan_ms).min();
        for row in &rows {
            if let Some(error) = row.error {
                let cells = std::iter::once(row.policy.into()).chain(std::iter::repeat_n(Cell::default(), 8));
                table.row(cells.chain([Cell::new(error, Tone::Bad)]));
                continue;
            }
            let tone = if row.makespan_ms == best { Tone::Strong } else { Tone::Plain };
            let percent = |part: Option<f64>| part.map_or(String::new(), percent);
            table.row([
                Cell::new(row.policy, tone),
                Cell::new(row.makespan_ms.map_or(String::new(), |ms| Millis(ms).to_string()), tone),
                spread(row).map_or(String::new(), self::percent).into(),
                percent(row.gap).into(),
                percent(row.gpu_memory_use).into(),
                percent(row.gpu_share_use).into(),
                percent(row.fragmentation).into(),
                row.planning_us.map_or(String::new(), micros).into(),
                row.evaluations.map_or(String::new(), |count| count.to_string()).into(),
                if row.optimal > 0 && row.optimal == row.seeds { "optimal".into() } else { Cell::default() },
            ]);
        }
        colour.paint(Tone::Strong, &self.title()) + "\n" + &table.render(colour, most)
    }

    /// Says what was compared, in one line.
    fn title(&self) -> String {
        let devices = match self.devices {
            0 => "no GPU".to_owned(),
            1 => "1 GPU".to_owned(),
            n => format!("{n} GPUs"),
        };
        let (pipeline, fleet) = (text::visible(&self.pipeline), text::visible(&self.fleet));
        let bound = self.bound().map_or(String::new(), |(bound, by)| format!("; no plan ends before {bound} ({by})"));
        let tasks = if self.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", self.tasks) };
        format!("{pipeline} on {fleet}: {tasks}, {devices}{bound}")
    }
}

/// Returns all comparisons as JSON: a list of rows.
#[must_use]
pub fn rows(comparisons: &[Comparison]) -> Vec<Row<'_>> {
    comparisons.iter().flat_map(Comparison::rows).collect()
}

/// How far the makespans lie apart, as a part of the median; `None` where there is one only or all are equal.
fn spread(row: &Row<'_>) -> Option<f64> {
    let (least, most) = row.makespan_least_ms.zip(row.makespan_most_ms)?;
    (most > least).then(|| ratio(most - least, row.makespan_ms.unwrap_or(most)))
}

/// The lower of the two middle ones where their number is even: a value that was really seen.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The same for parts.
fn median_part(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// Writes a time of planning with three digits.
#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.2}s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests;
