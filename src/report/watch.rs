//! The whole screen of `trainyard watch`: tasks and the log of one of them, a chart that grows, GPUs, keys.
//!
//! Pure: the same picture gives the same lines. Does not know how it reaches the terminal or what a key does.

use super::frame;
use super::paint::{Colour, Tone};
use super::tally::Tally;
use super::timeline::{Row, Span, Timeline};
use super::{estimate, text, wording};
use crate::graph::TaskId;
use crate::run::observer::{DeviceGauge, View};
use crate::run::state::Phase;
use crate::units::Millis;

/// Below this width there is no room for two panes.
const TWO_PANES: usize = 72;

/// What is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The run.
    pub view: View<'a>,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The run's state, as `show --json` spells it.
    pub state: &'static str,
    /// Its counts and running tasks.
    pub tally: &'a Tally,
    /// What devices hold; empty where there are none.
    pub gauges: &'a [DeviceGauge],
    /// How long the run still takes.
    pub left: Option<Millis>,
    /// Plan and run so far.
    pub timeline: &'a Timeline,
    /// Tasks in the order of the list.
    pub listed: &'a [TaskId],
    /// Position in the list.
    pub selected: usize,
    /// The end of the selected task's log, line by line, safe for a terminal.
    pub log: &'a [String],
    /// The last line: keys, a question or what is typed.
    pub prompt: &'a str,
    /// ms since the Unix epoch.
    pub now: Millis,
}

/// Returns the tasks whose name or state holds `filter`: those that run first, then failed ones, then those to come, then
/// those that are done.
#[must_use]
pub fn listed(view: View<'_>, filter: &str) -> Vec<TaskId> {
    let filter = filter.to_lowercase();
    let matches = |task: &TaskId| {
        filter.is_empty()
            || view.graph.tasks[task.index()].name.to_lowercase().contains(&filter)
            || view.state.task(*task).phase.word().contains(&filter)
    };
    let mut tasks: Vec<TaskId> = view.graph.ids().filter(matches).collect();
    let rank = |task: &TaskId| match view.state.task(*task).phase {
        Phase::Running => 0,
        Phase::Failed => 1,
        Phase::Delayed(_) => 2,
        Phase::Waiting => 3,
        Phase::Succeeded | Phase::Cached => 4,
        Phase::Skipped => 5,
    };
    tasks.sort_by_key(rank);
    tasks
}

/// Returns exactly `rows` lines, each at most `columns` wide.
#[must_use]
pub fn screen(picture: &Picture<'_>, rows: usize, columns: usize, colour: Colour) -> Vec<String> {
    let mut lines = vec![head(picture, columns, colour), String::new()];
    let gauges = frame::gauges(picture.view, picture.gauges, picture.now, columns, colour);
    let room = rows.saturating_sub(lines.len() + 1);
    let gauges = &gauges[..gauges.len().min(room / 4)];
    let chart = chart(picture, (room - gauges.len()) * 2 / 5, columns, colour);
    let panes = room.saturating_sub(gauges.len() + chart.len() + usize::from(!gauges.is_empty()));
    lines.extend(side_by_side(picture, panes, columns, colour));
    lines.extend(chart);
    if !gauges.is_empty() {
        lines.push(String::new());
        lines.extend(gauges.iter().cloned());
    }
    lines.resize(rows.saturating_sub(1), String::new());
    lines.push(colour.paint(Tone::Faint, &text::fit(picture.prompt, columns)));
    lines.truncate(rows);
    lines.into_iter().map(|line| text::fit(&line, columns).into_owned()).collect()
}

fn head(picture: &Picture<'_>, columns: usize, colour: Colour) -> String {
    let Picture { view, tally, .. } = picture;
    let tone = match picture.state {
        "succeeded" => Tone::Good,
        "failed" => Tone::Bad,
        "running" => Tone::Active,
        _ => Tone::Uneasy,
    };
    let total = view.state.tasks.len();
    let counts = wording::counts(&[
        (tally.running.len(), "running"),
        (total - view.state.settled - tally.running.len(), "waiting"),
        (tally.failed, "failed"),
        (tally.skipped, "skipped"),
    ]);
    let elapsed = wording::seconds(Millis(picture.timeline.end));
    let left = picture.left.map_or_else(String::new, |left| format!(", ~{} left", wording::seconds(left)));
    let words = format!(
        "{}  {}  {}/{total} done  {counts}  {elapsed}{left}",
        colour.paint(Tone::Strong, &text::visible(picture.pipeline)),
        colour.paint(tone, picture.state),
        tally.succeeded
    );
    let run = colour.paint(Tone::Faint, &text::visible(view.run));
    let gap = columns.saturating_sub(text::width(&words) + text::width(&run));
    if gap >= 2 { format!("{words}{}{run}", " ".repeat(gap)) } else { text::fit(&words, columns).into_owned() }
}

/// Puts the list of tasks and the log beside each other; where there is no room, the list alone.
fn side_by_side(picture: &Picture<'_>, rows: usize, columns: usize, colour: Colour) -> Vec<String> {
    if rows == 0 {
        return Vec::new();
    }
    let two = columns >= TWO_PANES;
    let width = if two { (columns * 9 / 20).clamp(34, 72) } else { columns };
    let list = list(picture, rows, width, colour);
    if !two {
        return list;
    }
    let log_width = columns - width - 3;
    let name = picture.listed.get(picture.selected).map(|task| picture.view.graph.tasks[task.index()].name.as_str());
    let title = text::fit_middle(&text::visible(name.unwrap_or("no task")), log_width).into_owned();
    let mut log = vec![colour.paint(Tone::Strong, &title)];
    let shown = picture.log.len().min(rows - 1);
    log.extend(picture.log[picture.log.len() - shown..].iter().map(|line| text::fit(line, log_width).into_owned()));
    log.resize(rows, String::new());
    let bar = colour.paint(Tone::Faint, "│");
    list.into_iter().zip(log).map(|(task, line)| format!("{} {bar} {line}", text::pad(&task, width))).collect()
}

fn list(picture: &Picture<'_>, rows: usize, width: usize, colour: Colour) -> Vec<String> {
    // The selected one stays in sight.
    let first = picture.selected.saturating_sub(rows.saturating_sub(2)).min(picture.listed.len().saturating_sub(rows));
    let shown = picture.listed.iter().enumerate().skip(first).take(rows);
    let mut lines: Vec<String> =
        shown.map(|(at, task)| task_line(picture, *task, at == picture.selected, width, colour)).collect();
    let hidden = picture.listed.len().saturating_sub(first + lines.len());
    if hidden > 0 && rows > 1 {
        lines.pop();
        lines.push(colour.paint(Tone::Faint, &format!("  and {} more", hidden + 1)));
    }
    lines.resize(rows, String::new());
    lines
}

fn task_line(picture: &Picture<'_>, task: TaskId, selected: bool, width: usize, colour: Colour) -> String {
    let state = picture.view.state.task(task);
    let running = picture.tally.running.iter().find(|running| running.task == task);
    let (mark, tone) = match state.phase {
        Phase::Running if running.is_some() => ("▶", Tone::Active),
        Phase::Running | Phase::Waiting => ("·", Tone::Faint),
        Phase::Delayed(_) => ("↻", Tone::Uneasy),
        Phase::Succeeded | Phase::Cached => ("✓", Tone::Good),
        Phase::Failed => ("✗", Tone::Bad),
        Phase::Skipped => ("-", Tone::Uneasy),
    };
    let last = state.attempts.last();
    let words = match (running, last) {
        (Some(running), _) => {
            let done =
                running.progress.progress.map_or_else(String::new, |done| format!("{:.0}% ", (100.0 * done).floor()));
            let left = estimate::by_own_word(running, picture.now);
            let left = left.map_or_else(String::new, |left| format!("<{}", wording::seconds(left)));
            format!("{done}{}{left}", wording::seconds(picture.now - running.started))
        }
        (None, Some(last)) => {
            last.ended.as_ref().map_or_else(String::new, |ended| (ended.at - last.started).to_string())
        }
        (None, None) => String::new(),
    };
    let phase = running.and_then(|running| running.progress.phase.as_deref()).unwrap_or_default();
    let name = text::visible(&picture.view.graph.tasks[task.index()].name).into_owned();
    let pointer = if selected { colour.paint(Tone::Strong, "›") } else { " ".to_owned() };
    let room = width.saturating_sub(5 + text::width(&words));
    let name_room = if phase.is_empty() { room } else { room.min(text::width(&name).max(room / 2)) };
    let name = text::fit_middle(&name, name_room).into_owned();
    let phase_room = room.saturating_sub(text::width(&name) + 2);
    let phase = text::fit(&text::visible(phase), phase_room).into_owned();
    let middle = if phase.is_empty() { name } else { format!("{name}  {}", colour.paint(Tone::Faint, &phase)) };
    format!("{pointer} {} {} {words}", colour.paint(tone, mark), text::pad(&middle, room))
}

/// Draws the run so far, a line for each place and lane, with the plan's end and now.
fn chart(picture: &Picture<'_>, rows: usize, columns: usize, colour: Colour) -> Vec<String> {
    let timeline = picture.timeline;
    if rows < 3 || timeline.rows.is_empty() {
        return Vec::new();
    }
    let label = timeline.rows.iter().map(|row| text::width(&row.place)).max().unwrap_or(0).min(columns / 4);
    let width = columns.saturating_sub(label + 2).max(10);
    // What is to come has its room while the run goes on.
    let end = match picture.left {
        Some(left) => timeline.end + left.0,
        None if picture.state == "running" => timeline.end.max(timeline.planned_end),
        None => timeline.end,
    };
    let end = end.max(1);
    let mut lines = vec![String::new(), ruler(label, width, end, colour)];
    for row in &timeline.rows {
        lines.extend(row_lines(row, label, width, end, colour));
    }
    if lines.len() > rows {
        lines.truncate(rows - 1);
        lines.push(colour.paint(Tone::Faint, "  and more"));
    }
    lines
}

fn ruler(label: usize, width: usize, end: u64, colour: Colour) -> String {
    let end = Millis(end).to_string();
    let gap = width.saturating_sub(end.len() + 1);
    colour.paint(Tone::Faint, &format!("{}  0{}{end}", " ".repeat(label), " ".repeat(gap)))
}

fn row_lines(row: &Row, label: usize, width: usize, end: u64, colour: Colour) -> Vec<String> {
    let (_, lanes) = row.lanes();
    let name = text::visible(&row.place).into_owned();
    let line = |lane: usize| {
        let name = if lane == 0 { text::fit_middle(&name, label).into_owned() } else { String::new() };
        let spans = row.actual.iter().filter(|span| span.lane == lane);
        format!("{}  {}", text::pad(&name, label), bars(spans, width, end, colour))
    };
    (0..lanes.max(1)).map(line).collect()
}

fn bars<'s>(spans: impl Iterator<Item = &'s Span>, width: usize, end: u64, colour: Colour) -> String {
    let column =
        |at: u64| usize::try_from(u128::from(at) * width as u128 / u128::from(end)).unwrap_or(width).min(width);
    let (mut line, mut at) = (String::new(), 0);
    for span in spans {
        let from = column(span.from).max(at);
        let to = column(span.to).max(from + 1).min(width);
        if from >= to {
            continue;
        }
        let tone = match span.attempt.as_ref().map(|(_, how)| how.as_str()) {
            Some("succeeded") => Tone::Good,
            Some("running") => Tone::Active,
            _ => Tone::Bad,
        };
        let room = to - from;
        // A name where there is room for most of it, the bar alone elsewhere.
        let name = text::visible(&span.name).into_owned();
        let body = if room >= 8 {
            let shown = text::fit_middle(&name, room - 3).into_owned();
            let rest = room.saturating_sub(text::width(&shown) + 2);
            format!("━{shown}{}╸", "━".repeat(rest))
        } else {
            "━".repeat(room - 1) + "╸"
        };
        line.push_str(&" ".repeat(from - at));
        line.push_str(&colour.paint(tone, &body));
        at = to;
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::fixture::{Scene, failed, finished, id, started};
    use crate::report::json::Header;
    use crate::report::timeline;
    use crate::run::observer::Progress;
    use crate::run::store::TaskHeader;

    fn drawn(rows: usize, columns: usize, filter: &str, selected: usize) -> Vec<String> {
        let mut scene = Scene::side_by_side(&["clean", "train[lr=0.1]", "\x1b[2Jtrain", "best"]);
        let mut tally = Tally::default();
        for (at, event) in [
            (0, started(0, 1)),
            (5, finished(0, 0)),
            (5, started(1, 1)),
            (6, started(2, 1)),
            (8, finished(2, 3)),
            (8, failed(2)),
        ] {
            let recorded = scene.apply(at, event);
            tally.recorded(scene.view(), &recorded);
        }
        let said = Progress { progress: Some(0.5), phase: Some("epoch 1/2".into()), ..Progress::default() };
        tally.progressed(id(1), &said);
        let header = Header { run: "r1", pipeline: "digits", started: scene.time(0), alive: true };
        let task =
            |name: &str| TaskHeader { name: name.into(), places: vec!["box/cpu".into()], ..TaskHeader::default() };
        let tasks: Vec<TaskHeader> = scene.graph.tasks.iter().map(|of| task(&of.name)).collect();
        let gauges = [DeviceGauge { id: "box/gpu0".into(), model: "H100".into(), ..DeviceGauge::default() }];
        let listed = listed(scene.view(), filter);
        let picture = Picture {
            view: scene.view(),
            pipeline: "digits",
            state: "running",
            tally: &tally,
            gauges: &gauges,
            left: Some(Millis(10_000)),
            timeline: &timeline::lay_out(&header, &tasks, &scene.state, scene.time(10)),
            listed: &listed,
            selected,
            log: &["loss 0.5".into(), "loss 0.25".into()],
            prompt: "q quit",
            now: scene.time(10),
        };
        screen(&picture, rows, columns, Colour::Never)
    }

    #[test]
    fn tasks_log_chart_and_devices_share_the_screen() {
        insta::assert_snapshot!("watch", drawn(20, 100, "", 0).join("\n"));
    }

    #[test]
    fn what_does_not_hold_the_filter_is_not_listed() {
        let shown = drawn(20, 60, "failed", 0).join("\n");
        assert!(shown.contains("✗ \\u{1b}[2Jtrain") && !shown.contains("▶"), "{shown}");
        assert!(drawn(20, 60, "TRAIN[", 0).join("\n").contains("▶ train[lr=0.1]"));
    }

    proptest! {
        #[test]
        fn every_screen_is_filled_and_none_is_left(rows in 1_usize..60, columns in 10_usize..200, selected in 0_usize..4) {
            let lines = drawn(rows, columns, "", selected);
            prop_assert_eq!(lines.len(), rows);
            for line in lines {
                prop_assert!(text::width(&line) <= columns, "{} of {columns}: {line}", text::width(&line));
                prop_assert!(!line.contains('\x1b'));
            }
        }
    }
}
