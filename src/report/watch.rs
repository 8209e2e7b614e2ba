//! The whole screen of `trainyard watch`: tasks and the log of one of them, a chart that grows, devices, keys.
//!
//! Pure: the same picture gives the same screen. Does not know how it reaches the terminal or what a key does.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Wrap};

use super::paint::{Colour, Tone};
use super::tally::Tally;
use super::timeline::Timeline;
use super::{text, wording};
use crate::graph::TaskId;
use crate::run::observer::{DeviceGauge, View};
use crate::run::state::Phase;
use crate::units::Millis;

mod chart;
mod devices;
mod tasks;

/// The most lines of what is said.
const MOST_SAID: usize = 6;

/// Below this width there is no room for two panes.
const TWO_PANES: u16 = 72;

/// Every key and what it does.
pub const KEYS: [(&str, &str); 14] = [
    ("↑ ↓, j k", "choose a task, or scroll the log"),
    ("PgUp PgDn", "ten at a time, or a page of the log"),
    ("g G", "the first one, the last one; the log's end is followed"),
    ("Tab, Enter", "from the list to the log and back"),
    ("z", "the log alone, on the whole screen"),
    ("/", "list what holds a word in its name or state only"),
    ("f", "list what failed only"),
    ("c", "cancel: end the run"),
    ("r", "retry: go on with a run that failed or was interrupted"),
    ("?", "these keys"),
    ("Ctrl-Z", "back to the shell; `fg` returns"),
    ("Esc", "back to the list, then without the filter, then quit"),
    ("q", "quit; the run goes on"),
    ("◆", "critical: the plan has no slack for the task"),
];

/// The pane that keys move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    /// The list of tasks.
    #[default]
    Tasks,
    /// The log.
    Log,
}

/// How the screen is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// The pane that keys move.
    pub focus: Focus,
    /// Whether the log has the whole screen.
    pub zoomed: bool,
    /// Lines of the log below those that are shown; 0 follows its end.
    pub below: usize,
    /// Whether the keys are explained.
    pub help: bool,
}

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
    /// How it is looked at.
    pub sight: Sight,
    /// The last line: keys, a question or what is typed.
    pub prompt: &'a str,
    /// Whether all of it is shown, on several lines where it needs them.
    pub prompt_is_whole: bool,
    /// Whether to colour.
    pub colour: Colour,
    /// ms since the Unix epoch.
    pub now: Millis,
}

impl Picture<'_> {
    fn style(&self, tone: Tone) -> Style {
        style(self.colour, tone)
    }
}

/// Returns the style of a tone: without colour none, so that nothing but text reaches the terminal.
fn style(colour: Colour, tone: Tone) -> Style {
    match (colour, tone) {
        (Colour::Never, _) | (Colour::Ansi, Tone::Plain) => Style::new(),
        (Colour::Ansi, Tone::Good) => Style::new().fg(Color::Green),
        (Colour::Ansi, Tone::Bad) => Style::new().fg(Color::Red),
        (Colour::Ansi, Tone::Uneasy) => Style::new().fg(Color::Yellow),
        (Colour::Ansi, Tone::Active) => Style::new().fg(Color::Cyan),
        (Colour::Ansi, Tone::Faint) => Style::new().add_modifier(Modifier::DIM),
        (Colour::Ansi, Tone::Strong) => Style::new().add_modifier(Modifier::BOLD),
    }
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

/// Draws the whole screen.
pub fn draw(picture: &Picture<'_>, frame: &mut Frame<'_>) {
    // What is said may take more than a line: a reason that is cut helps nobody.
    let rows = text::width(picture.prompt).div_ceil(usize::from(frame.area().width.max(1)));
    // Lines end at words, which may take one more.
    let rows = if picture.prompt_is_whole && rows > 1 { (rows + 1).min(MOST_SAID) } else { 1 };
    let below = Constraint::Length(u16::try_from(rows).unwrap_or(1));
    let [top, middle, bottom] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), below]).areas(frame.area());
    frame.render_widget(head(picture, top.width.into()), top);
    if picture.sight.zoomed {
        log(picture, frame, middle, Borders::TOP);
    } else {
        panes(picture, frame, middle);
    }
    let prompt = text::fit(picture.prompt, usize::from(bottom.width) * rows);
    let prompt = Paragraph::new(Line::styled(prompt, picture.style(Tone::Faint))).wrap(Wrap { trim: false });
    frame.render_widget(prompt, bottom);
    if picture.sight.help {
        help(picture, frame);
    }
}

fn panes(picture: &Picture<'_>, frame: &mut Frame<'_>, area: Rect) {
    let room = usize::from(area.height);
    let gauges = picture.gauges.len().min(room / 4);
    let gauges_height = if gauges == 0 { 0 } else { gauges + 1 };
    let chart = chart::lines(picture, (room - gauges_height) * 2 / 5, area.width.into());
    let chart_height = if chart.is_empty() { 0 } else { chart.len() + 1 };
    let height = |lines: usize| Constraint::Length(u16::try_from(lines).unwrap_or(u16::MAX));
    let [upper, middle, lower] =
        Layout::vertical([Constraint::Fill(1), height(chart_height), height(gauges_height)]).areas(area);
    if upper.width >= TWO_PANES {
        let width = (upper.width * 9 / 20).clamp(34, 72);
        let [left, right] = Layout::horizontal([Constraint::Length(width), Constraint::Fill(1)]).areas(upper);
        tasks(picture, frame, left);
        log(picture, frame, right, Borders::TOP | Borders::LEFT);
    } else if picture.sight.focus == Focus::Log {
        log(picture, frame, upper, Borders::TOP);
    } else {
        tasks(picture, frame, upper);
    }
    pane(picture, frame, middle, "chart", chart);
    pane(picture, frame, lower, "devices", devices::lines(picture, gauges, lower.width.into()));
}

fn pane(picture: &Picture<'_>, frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>) {
    let block = block(picture, Borders::TOP, title, false);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn block(picture: &Picture<'_>, borders: Borders, title: &str, focused: bool) -> Block<'static> {
    let tone = if focused { Tone::Strong } else { Tone::Plain };
    let title = Line::styled(format!(" {title} "), picture.style(tone));
    Block::new().borders(borders).border_style(picture.style(Tone::Faint)).title(title)
}

fn tasks(picture: &Picture<'_>, frame: &mut Frame<'_>, area: Rect) {
    let block = block(picture, Borders::TOP, "tasks", picture.sight.focus == Focus::Tasks);
    let inside = block.inner(area);
    let lines = tasks::lines(picture, inside.height.into(), inside.width.into());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn log(picture: &Picture<'_>, frame: &mut Frame<'_>, area: Rect, borders: Borders) {
    let name = picture.listed.get(picture.selected).map(|task| picture.view.graph.tasks[task.index()].name.as_str());
    let name = text::visible(name.unwrap_or("no task")).into_owned();
    let below = picture.sight.below.min(picture.log.len());
    let more = if below == 0 { String::new() } else { format!(" ({} below)", wording::plural(below, "line")) };
    let room = usize::from(area.width).saturating_sub(8 + text::width(&more));
    let title = format!("log of {}{more}", text::fit_middle(&name, room.saturating_sub(7)));
    let focused = picture.sight.focus == Focus::Log || picture.sight.zoomed;
    let block = block(picture, borders, &title, focused);
    let inside = block.inner(area);
    let end = picture.log.len() - below;
    let first = end.saturating_sub(inside.height.into());
    let line = |line: &String| Line::raw(text::fit(line, inside.width.into()).into_owned());
    let lines: Vec<Line<'_>> = picture.log[first..end].iter().map(line).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn head(picture: &Picture<'_>, columns: usize) -> Line<'static> {
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
        (tally.waiting(view.state), "waiting"),
        (tally.cached, "cached"),
        (tally.failed, "failed"),
        (tally.skipped, "skipped"),
    ]);
    let elapsed = wording::seconds(Millis(picture.timeline.took));
    let left = picture.left.map_or_else(String::new, |left| format!(", ~{} left", wording::seconds(left)));
    let done = tally.succeeded + tally.cached;
    let words = format!("  {done}/{total} done  {counts}  {elapsed}{left}");
    let pipeline = text::visible(picture.pipeline).into_owned();
    let run = text::visible(view.run).into_owned();
    let used = text::width(&pipeline) + 2 + picture.state.len() + text::width(&words) + text::width(&run);
    let mut line = Line::from_iter([
        Span::styled(pipeline, picture.style(Tone::Strong)),
        Span::raw("  "),
        Span::styled(picture.state, picture.style(tone)),
        Span::raw(words),
    ]);
    if let Some(gap @ 2..) = columns.checked_sub(used) {
        line.push_span(" ".repeat(gap));
        line.push_span(Span::styled(run, picture.style(Tone::Faint)));
    }
    line
}

/// Explains the keys in the middle of the screen.
fn help(picture: &Picture<'_>, frame: &mut Frame<'_>) {
    let keys = KEYS.iter().map(|(keys, _)| text::width(keys)).max().unwrap_or(0);
    let line = |(key, does): &(&str, &'static str)| {
        let key = Span::styled(text::pad(key, keys), picture.style(Tone::Strong));
        Line::from_iter([Span::raw(" "), key, Span::raw(format!("  {does} "))])
    };
    let lines: Vec<Line<'_>> = KEYS.iter().map(line).collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0) + 2;
    let most = |wanted: usize| Constraint::Length(u16::try_from(wanted).unwrap_or(u16::MAX));
    let area = frame.area().centered(most(width), most(lines.len() + 2));
    let block = block(picture, Borders::ALL, "keys", true);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests;
