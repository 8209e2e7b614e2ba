//! A plan as a chart: a line for each device and each node's CPUs, time from left to right.
//!
//! Tasks that run side by side at one place get lines below each other. Plain ASCII, so that it survives any terminal
//! and any mail. Does not know why a task is where it is.

use std::fmt::Write;

use super::plan::Sheet;
use super::text;
use crate::graph::TaskId;
use crate::units::Millis;

/// Lines for tasks side by side at one place; more would hide the other places.
const LANES: usize = 6;
/// Lines of the whole chart that fit a screen.
const LINES: usize = 48;
/// The narrowest chart that still shows an order.
const NARROWEST: usize = 24;

/// Returns the chart, at most `columns` wide.
#[must_use]
pub(super) fn chart(sheet: &Sheet<'_>, columns: usize) -> String {
    let rows = rows(sheet);
    let label = rows.iter().map(|(label, _)| text::width(label)).max().unwrap_or(0).min(columns / 3);
    let width = columns.saturating_sub(label + 2).max(NARROWEST);
    let mut lines = vec![ruler(label, width, sheet.plan.makespan)];
    for (name, tasks) in rows {
        let (lanes, hidden) = lanes(sheet, tasks);
        for (index, lane) in lanes.iter().enumerate() {
            let name = if index == 0 { text::fit_middle(&name, label).into_owned() } else { String::new() };
            let line = format!("{}  {}", text::pad(&name, label), bars(sheet, lane, width));
            lines.push(line.trim_end().to_owned());
        }
        if hidden > 0 {
            lines.push(format!("{}  + {hidden} tasks more side by side", " ".repeat(label)));
        }
    }
    let hidden = lines.len().saturating_sub(LINES);
    if hidden > 0 {
        lines.truncate(LINES);
        lines.push(format!("… and {hidden} lines more; --json shows all"));
    }
    lines.join("\n") + "\n"
}

/// Places that have tasks, each with its tasks in the order of their starts: devices, then nodes' CPUs.
fn rows(sheet: &Sheet<'_>) -> Vec<(String, Vec<TaskId>)> {
    let n_devices = sheet.fleet.devices.len();
    let mut tasks = vec![Vec::new(); n_devices + sheet.fleet.nodes.len()];
    let mut order: Vec<_> = sheet.graph.ids().collect();
    order.sort_unstable_by_key(|task| sheet.plan.rank[task.index()]);
    for task in order {
        let placed = sheet.placed(task);
        let host = placed.devices.is_empty().then_some(n_devices + placed.node.index());
        for place in placed.devices.iter().map(|device| device.index()).chain(host) {
            tasks[place].push(task);
        }
    }
    let devices = sheet.fleet.devices.iter().map(|device| device.id.clone());
    let nodes = sheet.fleet.nodes.iter().map(|node| format!("{}/cpu", node.name));
    let named = devices.chain(nodes).map(|name| text::visible(&name).into_owned());
    named.zip(tasks).filter(|(_, tasks)| !tasks.is_empty()).collect()
}

/// Puts tasks that overlap into different lanes, each into the first that is free, and counts those that get none.
fn lanes(sheet: &Sheet<'_>, tasks: Vec<TaskId>) -> (Vec<Vec<TaskId>>, usize) {
    let mut lanes: Vec<(Millis, Vec<TaskId>)> = Vec::new();
    let mut hidden = 0;
    for task in tasks {
        let placed = sheet.placed(task);
        let free = lanes.iter().position(|(end, _)| *end <= placed.start);
        if let Some(free) = free {
            lanes[free].0 = placed.finish;
            lanes[free].1.push(task);
        } else if lanes.len() < LANES {
            lanes.push((placed.finish, vec![task]));
        } else {
            hidden += 1;
        }
    }
    (lanes.into_iter().map(|(_, lane)| lane).collect(), hidden)
}

/// Draws the tasks of a lane: `[name===]`, critical ones `[name###]`, dots where they are suspended. A task too short for a
/// column may share one.
fn bars(sheet: &Sheet<'_>, lane: &[TaskId], width: usize) -> String {
    let mut cells = vec![' '; width];
    for &task in lane {
        let placed = sheet.placed(task);
        let columns = |from, to| {
            let from = column(from, sheet.plan.makespan, width).min(width - 1);
            from..column(to, sheet.plan.makespan, width).clamp(from + 1, width)
        };
        if !placed.segments.is_empty() {
            cells[columns(placed.start, placed.finish)].fill('.');
        }
        for (from, to) in placed.pieces() {
            bar(&mut cells[columns(from, to)], sheet, task);
        }
    }
    cells.into_iter().collect()
}

/// Draws one piece of a task.
fn bar(cells: &mut [char], sheet: &Sheet<'_>, task: TaskId) {
    let fill = if sheet.timing.is_critical(task) { '#' } else { '=' };
    match cells {
        [only] => *only = fill,
        [first, inside @ .., last] => {
            (*first, *last) = ('[', ']');
            inside.fill(fill);
            // Wide characters would shift the columns behind them.
            let name = text::visible(sheet.name(task));
            let is_narrow = name.chars().count() == text::width(&name);
            let name =
                if is_narrow { text::fit_middle(&name, inside.len()).replace('…', "~") } else { String::new() };
            inside.iter_mut().zip(name.chars()).for_each(|(cell, letter)| *cell = letter);
        }
        [] => {}
    }
}

/// The column at which an instant lies.
fn column(at: Millis, makespan: Millis, width: usize) -> usize {
    let scaled = u128::from(at.0) * width as u128 / u128::from(makespan.0.max(1));
    usize::try_from(scaled).unwrap_or(width).min(width)
}

/// Times above the chart: at its beginning, its quarters and its end.
fn ruler(label: usize, width: usize, makespan: Millis) -> String {
    let mut line = " ".repeat(label + 2);
    let parts = if width >= 60 { 4 } else { 2 };
    for part in 0..parts {
        let at = Millis((u128::from(makespan.0) * part as u128 / parts as u128) as u64);
        let columns = width * (part + 1) / parts - width * part / parts;
        let mark = format!("|{at}");
        // The end stands in the last part, to the right.
        let end = if part + 1 == parts { format!("{makespan}|") } else { String::new() };
        let room = columns.saturating_sub(mark.len() + end.len());
        write!(line, "{mark}{}{end}", " ".repeat(room)).expect("a String takes everything");
    }
    line
}
