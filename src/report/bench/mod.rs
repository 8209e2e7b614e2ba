//! How policies compare: what each makes of a pipeline on a fleet, as a table, CSV, JSON and an HTML page.
//!
//! Does not make plans, carries none out, and does not measure time.

use serde::Serialize;

use super::paint::{Colour, Tone};
use super::plan::{amount, percent_at_most};
use super::table::{Cell, Column, Table};
use super::text;
use crate::plan::usage::Usage;
use crate::plan::{Objective, Plan};
use crate::units::Millis;

pub mod arrivals;
mod csv;
mod html;
mod live;
mod svg;

pub use csv::{csv, quoted};
pub use html::{page, replays};
pub use live::{Done, Live};
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
    /// What plans were to be good for, and are compared by.
    pub objective: Objective,
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
    /// How its plans did, where they were carried out.
    pub live: Option<Vec<Live>>,
}

/// One plan.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The seed.
    pub seed: u64,
    /// When its last task ends.
    pub makespan: Millis,
    /// What the objective makes of it, in its unit; the makespan, where that is the objective.
    pub value: u128,
    /// No plan has a value under this.
    pub value_bound: u128,
    /// No plan can end before this.
    pub lower_bound: Millis,
    /// What `lower_bound` rests on.
    pub bound_by: &'static str,
    /// Whether its tasks take turns: its bounds then hold for all plans, and those of others not for it.
    pub takes_turns: bool,
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
        let Plan { makespan, lower_bound, bound_by, takes_turns, evaluations, .. } = *plan;
        let (value, value_bound) = plan.measured();
        Self { seed, makespan, value, value_bound, lower_bound, bound_by, takes_turns, evaluations, planning_us, usage }
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
    /// What plans are compared by; the figures behind it are in milliseconds, for energy in thousandths of a joule.
    objective: &'static str,
    objective_value: Option<u64>,
    objective_least: Option<u64>,
    objective_most: Option<u64>,
    objective_bound: Option<u64>,
    /// Of the median value over the best bound of all policies.
    gap: Option<f64>,
    /// How many of the trials are proven optimal by it.
    optimal: usize,
    gpu_memory_use: Option<f64>,
    gpu_share_use: Option<f64>,
    fragmentation: Option<f64>,
    planning_us: Option<u64>,
    evaluations: Option<u64>,
    /// How its plans did; absent where none was carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<live::LiveRow<'a>>,
}

impl Row<'_> {
    fn spread(&self) -> Option<f64> {
        spread(self.objective_least, self.objective_most, self.objective_value)
    }
}

impl Comparison {
    /// Returns the trials whose bounds hold for a plan: for one whose tasks take turns those of its like only.
    fn bounding(&self, takes_turns: bool) -> impl Iterator<Item = &Trial> {
        let trials = self.entries.iter().filter_map(|entry| entry.trials.as_ref().ok()).flatten();
        trials.filter(move |trial| trial.takes_turns || !takes_turns)
    }

    /// Returns the largest lower bound that any policy brought for plans whose tasks take turns or do not, and what it rests
    /// on.
    fn bound(&self, takes_turns: bool) -> Option<(Millis, &'static str)> {
        // Of equal bounds the first is named.
        self.bounding(takes_turns)
            .map(|trial| (trial.lower_bound, trial.bound_by))
            .reduce(|best, one| if one.0 > best.0 { one } else { best })
    }

    /// Returns the largest value that any policy proved no plan to be under.
    fn value_bound(&self, takes_turns: bool) -> Option<u64> {
        self.bounding(takes_turns).map(|trial| counted(trial.value_bound)).max()
    }

    /// Whether the tasks of some plan take turns.
    fn some_take_turns(&self) -> bool {
        self.bounding(true).next().is_some()
    }

    /// Returns one row for each policy, in the order in which they were asked for.
    #[must_use]
    pub fn rows(&self) -> Vec<Row<'_>> {
        let bounds = [false, true].map(|turns| self.bound(turns).zip(self.value_bound(turns)));
        let takes_turns = |entry: &Entry| entry.trials.iter().flatten().any(|trial| trial.takes_turns);
        self.entries.iter().map(|entry| self.row(entry, bounds[usize::from(takes_turns(entry))])).collect()
    }

    fn row<'a>(&'a self, entry: &'a Entry, bounds: Option<((Millis, &'a str), u64)>) -> Row<'a> {
        let trials = entry.trials.as_deref().unwrap_or_default();
        let median_of = |value: fn(&Trial) -> u64| median(trials.iter().map(value).collect());
        let part_of =
            |value: fn(&Usage) -> Option<f64>| median_part(trials.iter().filter_map(|trial| value(&trial.usage)));
        let makespans = || trials.iter().map(|trial| trial.makespan.0);
        let values = || trials.iter().map(|trial| counted(trial.value));
        let (makespan, value) = (median_of(|trial| trial.makespan.0), median_of(|trial| counted(trial.value)));
        let ((bound, value_bound), has_plan) = (bounds.unzip(), makespan.is_some());
        let is_best = |value: &u64| Some(*value) == value_bound;
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
            lower_bound_ms: bound.filter(|_| has_plan).map(|(bound, _)| bound.0),
            bound_by: bound.filter(|_| has_plan).map(|(_, by)| by),
            objective: self.objective.name(),
            objective_value: value,
            objective_least: values().min(),
            objective_most: values().max(),
            objective_bound: value_bound.filter(|_| has_plan),
            gap: value.zip(value_bound).map(|(value, bound)| ratio(value - bound, bound)),
            optimal: values().filter(is_best).count(),
            gpu_memory_use: part_of(|usage| usage.memory),
            gpu_share_use: part_of(|usage| usage.share),
            fragmentation: part_of(|usage| usage.fragmentation),
            planning_us: median_of(|trial| trial.planning_us),
            evaluations: median_of(|trial| trial.evaluations),
            live: live::row(entry),
        }
    }

    /// Returns the comparison as a table under a line that says of what, at most `most` columns wide where it may give
    /// way.
    #[must_use]
    pub fn text(&self, colour: Colour, most: Option<usize>) -> String {
        let by = self.by();
        let mut table = Table::new([
            Column::left("policy").that_gives_way(),
            Column::right(by.unwrap_or("makespan")),
            Column::right("spread"),
            Column::right("gap"),
            Column::right("makespan"),
            Column::right("memory"),
            Column::right("share"),
            Column::right("fragments"),
            Column::right("planning"),
            Column::right("schedules"),
            Column::left(""),
        ]);
        let rows = self.rows();
        let best = rows.iter().filter_map(|row| row.objective_value).min();
        for row in &rows {
            if let Some(error) = row.error {
                let cells = std::iter::once(row.policy.into()).chain(std::iter::repeat_n(Cell::default(), 9));
                table.row(cells.chain([Cell::new(error, Tone::Bad)]));
                continue;
            }
            let tone = if row.objective_value == best { Tone::Strong } else { Tone::Plain };
            let percent = |part: Option<f64>| part.map_or(String::new(), percent);
            let makespan = row.makespan_ms.filter(|_| by.is_some());
            table.row([
                Cell::new(row.policy, tone),
                Cell::new(row.objective_value.map_or(String::new(), |value| self.amount(value)), tone),
                row.spread().map_or(String::new(), self::percent).into(),
                row.gap.map_or(String::new(), percent_at_most).into(),
                makespan.map_or(String::new(), |ms| Millis(ms).to_string()).into(),
                percent(row.gpu_memory_use).into(),
                percent(row.gpu_share_use).into(),
                percent(row.fragmentation).into(),
                row.planning_us.map_or(String::new(), micros).into(),
                row.evaluations.map_or(String::new(), |count| count.to_string()).into(),
                if row.optimal > 0 && row.optimal == row.seeds { "optimal".into() } else { Cell::default() },
            ]);
        }
        let live = live::text(self, colour, most);
        colour.paint(Tone::Strong, &self.title()) + "\n" + &table.render(colour, most) + &live
    }

    /// Says what was compared, in one line.
    fn title(&self) -> String {
        let devices = match self.devices {
            0 => "no GPU".to_owned(),
            1 => "1 GPU".to_owned(),
            n => format!("{n} GPUs"),
        };
        let (pipeline, fleet) = (text::visible(&self.pipeline), text::visible(&self.fleet));
        let bound = match self.by() {
            None => {
                let bound = |turns, plan: &str| {
                    let bound = self.bound(turns);
                    bound.map_or(String::new(), |(bound, by)| format!("; no {plan} ends before {bound} ({by})"))
                };
                match self.some_take_turns() {
                    false => bound(false, "plan"),
                    true => bound(true, "plan") + &bound(false, "plan without turns"),
                }
            }
            Some(_) => {
                let bound = self.value_bound(self.some_take_turns()).map(|bound| self.amount(bound));
                let words = bound.map_or(String::new(), |bound| format!("; no plan is under {bound}"));
                format!("; by {}{words}", self.objective)
            }
        };
        let tasks = if self.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", self.tasks) };
        format!("{pipeline} on {fleet}: {tasks}, {devices}{bound}")
    }

    /// Returns what the column of the objective is called, where that is not the makespan.
    const fn by(&self) -> Option<&'static str> {
        match self.objective {
            Objective::Makespan => None,
            Objective::WeightedCompletion => Some("weighted"),
            Objective::Energy => Some("energy"),
        }
    }

    fn amount(&self, value: u64) -> String {
        amount(self.objective, value.into())
    }
}

/// Returns all comparisons as JSON: a list of rows.
#[must_use]
pub fn rows(comparisons: &[Comparison]) -> Vec<Row<'_>> {
    comparisons.iter().flat_map(Comparison::rows).collect()
}

/// How far the values lie apart, as a part of the median; `None` where there is one only or all are equal.
fn spread(least: Option<u64>, most: Option<u64>, median: Option<u64>) -> Option<f64> {
    let (least, most) = least.zip(most)?;
    (most > least).then(|| ratio(most - least, median.unwrap_or(most)))
}

/// JSON has room for 64 bits: what is beyond is no value of a real plan.
fn counted(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// Halfway between the two middle ones where their number is even.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    let middle = |from: usize| values.get(from / 2).copied();
    Some(u64::midpoint(middle(values.len().checked_sub(1)?)?, middle(values.len())?))
}

/// The same for parts.
fn median_part(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = |from: usize| values.get(from / 2).copied();
    Some(f64::midpoint(middle(values.len().checked_sub(1)?)?, middle(values.len())?))
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
        0..1_000 => format!("{us}µs"),
        1_000..1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.2}s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests;
