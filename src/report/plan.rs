//! A plan as JSON and as a table: where and when every task is to run, and how good that is.
//!
//! Keys of the JSON are stable; times are whole milliseconds, memory is in bytes. Does not know how the plan was found.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::paint::{Colour, Tone};
use super::table::{Cell, Column, Table};
use super::{gantt, text, wording};
use crate::fleet::{Device, DeviceId, Fleet};
use crate::graph::{TaskGraph, TaskId};
use crate::plan::{Objective, Placed, Plan, wanted_memory};
use crate::run::admission;
use crate::run::learn::{Basis, Numbers, Origins};
use crate::run::limit;
use crate::spec::{Gpus, MemoryLimit, Mode, Pipeline};
use crate::timing::{LoadMatrix, Timing};
use crate::units::{Bytes, Millis};

/// A plan with all that its views need.
#[derive(Clone, Copy, Debug)]
pub struct Sheet<'a> {
    /// What was planned.
    pub pipeline: &'a Pipeline,
    /// Its tasks.
    pub graph: &'a TaskGraph,
    /// For what it was planned.
    pub fleet: &'a Fleet,
    /// The plan.
    pub plan: &'a Plan,
    /// Where the pipeline's numbers come from.
    pub origins: &'a Origins,
    /// Earliest and latest times with every task at its shortest duration.
    pub timing: &'a Timing,
    /// Whether an MPS server limits memory there.
    pub mps: bool,
    /// The load matrix, if it is to be shown.
    pub loads: Option<&'a LoadMatrix>,
}

/// The plan as JSON shows it.
#[derive(Serialize)]
struct Whole<'a> {
    pipeline: &'a str,
    fleet: &'a str,
    policy: &'a str,
    makespan_ms: u64,
    lower_bound_ms: u64,
    bound_by: &'a str,
    optimal: bool,
    gap: f64,
    objective: &'static str,
    /// In milliseconds, for energy in thousandths of a joule.
    objective_value: u128,
    objective_bound: u128,
    /// Why the exact search was given up, where it broke down.
    #[serde(skip_serializing_if = "Option::is_none")]
    exact_given_up: Option<&'a str>,
    critical_path: Vec<&'a str>,
    devices: Vec<DeviceView<'a>>,
    tasks: Vec<TaskView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_matrix: Option<LoadView<'a>>,
}

/// Writes what an objective counts: a time, or energy in joules.
pub(super) fn amount(objective: Objective, value: u128) -> String {
    match objective {
        Objective::Energy => format!("{} J", value.div_ceil(1_000)),
        Objective::Makespan | Objective::WeightedCompletion => {
            Millis(u64::try_from(value).unwrap_or(u64::MAX)).to_string()
        }
    }
}

#[derive(Serialize)]
struct DeviceView<'a> {
    id: &'a str,
    model: &'a str,
    memory_bytes: u64,
    /// What nobody holds now, of a device of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_free_bytes: Option<u64>,
    speed: f64,
}

#[derive(Serialize)]
struct TaskView<'a> {
    name: &'a str,
    stage: &'a str,
    duration_ms: u64,
    duration_from: &'static str,
    /// How many attempts the duration was learned from; `null` if it was not.
    duration_runs: Option<u32>,
    earliest_start_ms: u64,
    earliest_finish_ms: u64,
    latest_start_ms: u64,
    latest_finish_ms: u64,
    slack_ms: u64,
    critical: bool,
    mode: usize,
    node: &'a str,
    devices: Vec<&'a str>,
    /// Device memory on each device; `null` where none is asked for by its size.
    gpu_memory_bytes: Option<u64>,
    /// As `duration_from`; `null` where no device memory is asked for.
    gpu_memory_from: Option<&'static str>,
    gpu_memory_runs: Option<u32>,
    memory_limit: &'static str,
    start_ms: u64,
    finish_ms: u64,
    /// When it runs, from and to; left out where that is all the time from start to finish.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    segments: &'a [(Millis, Millis)],
}

#[derive(Serialize)]
struct LoadView<'a> {
    devices: &'a [String],
    tasks: Vec<&'a str>,
    ms: &'a [Vec<Option<Millis>>],
}

impl<'a> Sheet<'a> {
    /// Returns the plan as one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let plan = self.plan;
        let whole = Whole {
            pipeline: &self.pipeline.name,
            fleet: &self.fleet.name,
            policy: &plan.policy,
            makespan_ms: plan.makespan.0,
            lower_bound_ms: plan.lower_bound.0,
            bound_by: plan.bound_by,
            optimal: plan.is_optimal(),
            gap: plan.gap(),
            objective: plan.objective.name(),
            objective_value: plan.measured().0,
            objective_bound: plan.measured().1,
            exact_given_up: plan.given_up.as_deref(),
            critical_path: self.timing.critical_path(self.graph).into_iter().map(|task| self.name(task)).collect(),
            devices: self.fleet.devices.iter().map(device_view).collect(),
            tasks: self.graph.ids().map(|task| self.task_view(task)).collect(),
            load_matrix: self.loads.map(|loads| LoadView {
                devices: &loads.rows,
                tasks: self.graph.ids().map(|task| self.name(task)).collect(),
                ms: &loads.times,
            }),
        };
        serde_json::to_string(&whole).expect("a view of plain values")
    }

    /// Returns the plan as a table, a chart and a summary, for people; at most `most` columns wide where they may give
    /// way.
    #[must_use]
    pub fn text(&self, colour: Colour, most: Option<usize>) -> String {
        let mut out = self.table().render(colour, most);
        let hidden = self.graph.len().saturating_sub(ROWS);
        if hidden > 0 {
            writeln!(out, "… and {hidden} tasks more; --json shows all").expect("a String takes everything");
        }
        out.push('\n');
        out.push_str(&gantt::chart(self, most.unwrap_or(COLUMNS)));
        out.push('\n');
        if let Some(loads) = self.loads {
            out.push_str(&self.load_table(loads).render(colour, most));
            out.push('\n');
        }
        out.push_str(&self.summary());
        out
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            Column::left("task").that_gives_way(),
            Column::left("where").that_gives_way(),
            Column::right("start"),
            Column::right("finish"),
            Column::right("duration"),
            Column::right("slack alone"),
            Column::right("GPU memory"),
            Column::left(""),
        ]);
        let mut order: Vec<_> = self.graph.ids().collect();
        order.sort_unstable_by_key(|task| self.plan.rank[task.index()]);
        for task in order.into_iter().take(ROWS) {
            let placed = self.placed(task);
            let critical = self.timing.is_critical(task);
            let tone = if critical { Tone::Strong } else { Tone::Plain };
            table.row([
                Cell::new(self.name(task), tone),
                self.place(placed).into(),
                placed.start.into(),
                placed.finish.into(),
                placed.ran().into(),
                self.timing.slack(task).into(),
                self.memory_cell(task),
                self.remarks(task, critical).into(),
            ]);
        }
        table
    }

    /// What is worth saying of a task besides its numbers.
    fn remarks(&self, task: TaskId, critical: bool) -> String {
        let mode = self.mode(task);
        let Numbers { duration, gpu_memory, beyond, .. } = self.numbers(task);
        let remarks = [
            critical.then(|| "critical".to_owned()),
            match duration {
                Basis::Declared => None,
                Basis::Learned { runs } => Some(format!("duration from {}", wording::plural(runs as usize, "attempt"))),
                Basis::Default => Some("default duration".to_owned()),
            },
            match gpu_memory {
                None | Some(Basis::Declared) => None,
                Some(Basis::Learned { runs }) => {
                    let attempts = wording::plural(runs as usize, "attempt");
                    Some(beyond.map_or_else(
                        || format!("memory from {attempts}"),
                        |seen| format!("all of a GPU: {seen} seen in {attempts}"),
                    ))
                }
                Some(Basis::Default) => Some("memory not known yet".to_owned()),
            },
            match self.limit(task) {
                (_, true) => Some(format!("limit {}", wording::NOT_WATCHED)),
                (MemoryLimit::None, false) => None,
                (limit, false) => Some(format!("limit {}", limit.word())),
            },
            mode.fallback.then(|| "on the CPU: no GPU could hold it".to_owned()),
            Some(self.placed(task).segments.len())
                .filter(|turns| *turns > 0)
                .map(|turns| wording::plural(turns, "turn")),
        ];
        remarks.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// One line a task: its durations, ascending, each with the places that have it.
    fn load_table(&self, loads: &LoadMatrix) -> Table {
        let mut table = Table::new([Column::left("task").that_gives_way(), Column::left("load")]);
        for task in self.graph.ids().take(ROWS) {
            let mut places: BTreeMap<Millis, Vec<&str>> = BTreeMap::new();
            for (place, times) in loads.rows.iter().zip(&loads.times) {
                if let Some(time) = times[task.index()] {
                    places.entry(time).or_default().push(place);
                }
            }
            let parts = places.into_iter().map(|(time, places)| format!("{time} on {}", places.join(" ")));
            table.row([self.name(task).into(), parts.collect::<Vec<_>>().join(", ").into()]);
        }
        table
    }

    /// What the plan is worth, in a few lines.
    fn summary(&self) -> String {
        let plan = self.plan;
        let path = self.timing.critical_path(self.graph);
        let mut out = String::new();
        let mut line = |words: String| writeln!(out, "{words}").expect("a String takes everything");
        line(format!("makespan       {} by {}", plan.makespan, plan.policy));
        let distance = match (plan.is_optimal(), plan.gap()) {
            (true, _) => "proven optimal".to_owned(),
            (false, gap) => {
                let worse = if plan.objective == Objective::Makespan { "longer" } else { "worse" };
                format!("the plan is at most {} {worse} than the best one", percent_at_most(gap))
            }
        };
        let held: Bytes = self.held_by_others().map(|(_, _, held)| held).sum();
        let uses_devices = plan.placed.iter().any(|placed| !placed.devices.is_empty());
        let others = (uses_devices && held > Bytes::ZERO)
            .then(|| format!("others give back the {held} of GPU memory that they hold"));
        let smaller = self.may_take_smaller().then(|| "tasks get by with all of a smaller GPU".to_owned());
        let unless: Vec<String> = others.into_iter().chain(smaller).collect();
        let distance = if unless.is_empty() { distance } else { format!("{distance}, unless {}", unless.join(" or ")) };
        if plan.objective == Objective::Makespan {
            line(format!("lower bound    {} by {}: {distance}", plan.lower_bound, plan.bound_by));
        } else {
            let (value, bound) = (amount(plan.objective, plan.value), amount(plan.objective, plan.value_bound));
            line(format!("{:<14} {value}", plan.objective.name().split('-').next().unwrap_or_default()));
            line(format!("lower bound    {bound}: {distance}"));
        }
        if let Some(reason) = &plan.given_up {
            line(format!("exact search   given up, the plan is that of the other searches: {}", text::visible(reason)));
        }
        if let (Some(first), Some(last)) = (path.first(), path.last()) {
            let names = match path.len() {
                0..=6 => path.iter().map(|task| self.name(*task)).collect::<Vec<_>>().join(" → "),
                n => format!("{} → … {} tasks … → {}", self.name(*first), n - 2, self.name(*last)),
            };
            line(format!(
                "critical path  {} if nobody waited for room: {}",
                self.timing.makespan,
                text::visible(&names)
            ));
        }
        let guessed = self.graph.ids().filter(|task| self.numbers(*task).duration == Basis::Default).count();
        if guessed > 0 {
            let default = crate::timing::load::DEFAULT_DURATION;
            let who = match guessed {
                1 => "1 task declares no duration and is".to_owned(),
                _ => format!("{guessed} tasks declare no duration and are"),
            };
            line(format!("{who} taken to need {default}"));
        }
        let unmeasured = self.graph.ids().filter(|task| self.numbers(*task).gpu_memory == Some(Basis::Default)).count();
        if unmeasured > 0 {
            let tasks = wording::plural(unmeasured, "task");
            line(format!("{tasks} of unknown GPU memory: alone on a GPU until one of the stage has been measured"));
        }
        self.in_use().into_iter().for_each(line);
        out
    }

    pub(super) fn name(&self, task: TaskId) -> &'a str {
        &self.graph.tasks[task.index()].name
    }

    pub(super) fn placed(&self, task: TaskId) -> &'a Placed {
        &self.plan.placed[task.index()]
    }

    fn mode(&self, task: TaskId) -> &'a Mode {
        &self.pipeline.stages[self.graph.tasks[task.index()].stage].modes[self.placed(task).mode]
    }

    /// Where the numbers of a task come from.
    fn numbers(&self, task: TaskId) -> Numbers {
        self.origins.mode(self.graph.tasks[task.index()].stage, self.placed(task).mode)
    }

    /// Yields the devices that others hold much of, with how much that is.
    fn held_by_others(&self) -> impl Iterator<Item = (DeviceId, &'a Device, Bytes)> {
        let devices = (0..).map(DeviceId).zip(&self.fleet.devices);
        // As much as the headroom may be the driver's own.
        devices.map(|(id, device)| (id, device, device.in_use())).filter(|(_, device, held)| *held > device.headroom)
    }

    /// Whether a run may give a task all of a device that has less than the task is planned with, as it has what was seen.
    fn may_take_smaller(&self) -> bool {
        self.graph.ids().map(|task| self.mode(task)).any(|mode| {
            let asked = mode.resources.gpu_memory;
            let gives = |device: &Device| device.whole_memory() - device.headroom > mode.seen;
            let mut smaller = self.fleet.devices.iter().filter(|device| device.whole_memory() < asked);
            mode.auto.is_some() && mode.seen > Bytes::ZERO && smaller.any(gives)
        })
    }

    /// Says of each device that others hold much of whether the plan does without that.
    fn in_use(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let empty = self.fleet.devices.iter().filter(|device| device.in_use() <= device.headroom).count();
        for (id, device, held) in self.held_by_others() {
            let is_short = |task: &TaskId| {
                let (placed, mode) = (self.placed(*task), self.mode(*task));
                let begins_beside = mode.resources.wants_all_memory()
                    && held - device.drawn <= device.headroom
                    && device.drawn <= admission::little(device.whole_memory())
                    && empty < placed.devices.len();
                placed.devices.contains(&id) && wanted_memory(mode, device) > device.usable_memory() && !begins_beside
            };
            let mut short = self.graph.ids().filter(is_short);
            let words = match (short.next(), short.count()) {
                (None, _) => "planned around".to_owned(),
                (Some(task), 0) => format!("{} waits for it", self.name(task)),
                (Some(task), 1) => format!("{} and another task wait for it", self.name(task)),
                (Some(task), more) => format!("{} and {more} tasks more wait for it", self.name(task)),
            };
            let words = format!("in use now     {held} of {}: {words}", device.id);
            lines.push(text::visible(&words).into_owned());
        }
        lines
    }

    /// How a task is kept to its device memory, and whether it cannot be watched as it should.
    fn limit(&self, task: TaskId) -> (MemoryLimit, bool) {
        let asked = self.pipeline.stages[self.graph.tasks[task.index()].stage].memory_limit;
        if !self.mode(task).resources.reserves_memory() {
            return (MemoryLimit::None, false);
        }
        let hidden = self.placed(task).devices.iter().any(|id| self.fleet.devices[id.index()].hidden);
        limit::in_force_on(asked, self.mps, hidden)
    }

    /// The memory that a task reserves on each of its devices, if it is said by its size or its share.
    fn gpu_memory(&self, task: TaskId) -> Option<Bytes> {
        let mode = self.mode(task);
        let memory = match (mode.resources.gpus, self.placed(task).devices.first()) {
            (Gpus::Share(_), Some(device)) => wanted_memory(mode, &self.fleet.devices[device.index()]),
            _ => mode.resources.gpu_memory,
        };
        Some(memory).filter(|memory| *memory > Bytes::ZERO)
    }

    fn memory_cell(&self, task: TaskId) -> Cell {
        match self.numbers(task).beyond {
            Some(_) => Cell::from("all"),
            None => self.gpu_memory(task).map_or_else(Cell::default, Cell::from),
        }
    }

    fn place(&self, placed: &Placed) -> String {
        let node = &self.fleet.nodes[placed.node.index()].name;
        let ids: Vec<_> = placed.devices.iter().map(|id| self.fleet.devices[id.index()].id.as_str()).collect();
        if ids.is_empty() { format!("{node}/cpu") } else { ids.join(" ") }
    }

    fn task_view(&self, task: TaskId) -> TaskView<'a> {
        let (placed, timing, numbers) = (self.placed(task), self.timing, self.numbers(task));
        let gpu_memory = self.gpu_memory(task);
        TaskView {
            name: self.name(task),
            stage: &self.pipeline.stages[self.graph.tasks[task.index()].stage].name,
            duration_ms: placed.ran().0,
            duration_from: numbers.duration.word(),
            duration_runs: numbers.duration.runs(),
            earliest_start_ms: timing.earliest_start[task.index()].0,
            earliest_finish_ms: timing.earliest_finish(task).0,
            latest_start_ms: timing.latest_start[task.index()].0,
            latest_finish_ms: timing.latest_finish(task).0,
            slack_ms: timing.slack(task).0,
            critical: timing.is_critical(task),
            mode: placed.mode,
            node: &self.fleet.nodes[placed.node.index()].name,
            devices: placed.devices.iter().map(|id| self.fleet.devices[id.index()].id.as_str()).collect(),
            gpu_memory_bytes: gpu_memory.map(|memory| memory.0),
            // Of a share its part of the memory is declared with it.
            gpu_memory_from: numbers.gpu_memory.or(gpu_memory.map(|_| Basis::Declared)).map(Basis::word),
            gpu_memory_runs: numbers.gpu_memory.and_then(Basis::runs),
            memory_limit: self.limit(task).0.word(),
            start_ms: placed.start.0,
            finish_ms: placed.finish.0,
            segments: &placed.segments,
        }
    }
}

/// Rows of a table that a person may still read; JSON has them all.
const ROWS: usize = 200;

/// Columns of the chart where the width of the terminal is not known.
const COLUMNS: usize = 100;

fn device_view(device: &Device) -> DeviceView<'_> {
    #[expect(clippy::cast_precision_loss, reason = "speeds have at most six places")]
    let speed = device.speed.0 as f64 / crate::units::Speed::ONE.0 as f64;
    let memory_free_bytes = device.free.map(|free| free.0);
    DeviceView { id: &device.id, model: &device.model, memory_bytes: device.memory.0, memory_free_bytes, speed }
}
/// Writes by how much a plan may be worse than the best one: rounded up, since it is a limit.
pub(super) fn percent_at_most(gap: f64) -> String {
    let tenths = if gap > 0.0 { (gap * 1_000.0 - 1e-6).ceil().max(1.0) } else { 0.0 };
    format!("{:.1} %", tenths / 10.0)
}
