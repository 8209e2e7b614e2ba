//! The list of tasks: what each does at the moment, and how far it is.

use ratatui::text::{Line, Span};

use super::super::paint::Tone;
use super::super::{estimate, text, wording};
use super::Picture;
use crate::graph::TaskId;
use crate::run::state::Phase;

/// Returns at most `rows` lines, the selected task among them.
pub(super) fn lines(picture: &Picture<'_>, rows: usize, width: usize) -> Vec<Line<'static>> {
    let first = picture.selected.saturating_sub(rows.saturating_sub(2)).min(picture.listed.len().saturating_sub(rows));
    let shown = picture.listed.iter().enumerate().skip(first).take(rows);
    let mut lines: Vec<Line<'_>> =
        shown.map(|(at, task)| task_line(picture, *task, at == picture.selected, width)).collect();
    let hidden = picture.listed.len().saturating_sub(first + lines.len());
    if hidden > 0 && rows > 1 {
        lines.pop();
        lines.push(Line::styled(format!("  and {} more", hidden + 1), picture.style(Tone::Faint)));
    }
    if picture.listed.is_empty() && rows > 0 {
        lines.push(Line::styled("  nothing holds what is looked for", picture.style(Tone::Faint)));
    }
    lines
}

fn task_line(picture: &Picture<'_>, task: TaskId, selected: bool, width: usize) -> Line<'static> {
    let state = picture.view.state.task(task);
    let running = picture.tally.running.iter().find(|running| running.task == task);
    let (mark, tone) = match state.phase {
        Phase::Running if running.is_some_and(|running| running.suspended.is_some()) => ("‖", Tone::Faint),
        Phase::Running if running.is_some() => ("▶", Tone::Active),
        Phase::Running | Phase::Waiting => ("·", Tone::Faint),
        Phase::Delayed(_) => ("↻", Tone::Uneasy),
        Phase::Succeeded | Phase::Cached => ("✓", Tone::Good),
        Phase::Failed => ("✗", Tone::Bad),
        Phase::Skipped => ("-", Tone::Uneasy),
    };
    let words = match (running, state.telling().map(|(_, attempt)| attempt)) {
        (Some(running), _) => {
            let done =
                running.progress.progress.map_or_else(String::new, |done| format!("{:.0}% ", (100.0 * done).floor()));
            let left = estimate::by_own_word(running, picture.now);
            let left = left.map_or_else(String::new, |left| format!("<{}", wording::seconds(left)));
            format!("{done}{}{left}", wording::seconds(running.ran(picture.now)))
        }
        (None, Some(last)) => last.ended.as_ref().map_or_else(String::new, |ended| last.ran(ended.at).to_string()),
        (None, None) => String::new(),
    };
    let phase = running.and_then(|running| running.progress.phase.as_deref()).unwrap_or_default();
    let name = text::visible(&picture.view.graph.tasks[task.index()].name).into_owned();
    let is_done = matches!(state.phase, Phase::Succeeded | Phase::Cached | Phase::Skipped);
    let critical = !is_done && picture.timeline.critical.get(task.index()).copied().unwrap_or(false);
    let sign = if critical { "◆" } else { "" };
    let room = width.saturating_sub(6 + text::width(&words) + text::width(sign));
    let name_room = if phase.is_empty() { room } else { room.min(text::width(&name).max(room / 2)) };
    let name = text::fit_middle(&name, name_room).into_owned();
    let phase_room = room.saturating_sub(text::width(&name) + 2);
    let phase = text::fit(&text::visible(phase), phase_room).into_owned();
    let gap = room.saturating_sub(text::width(&name) + text::width(&phase) + 2);
    let strong = picture.style(if selected { Tone::Strong } else { Tone::Plain });
    Line::from_iter([
        Span::styled(if selected { "› " } else { "  " }, strong),
        Span::styled(mark, picture.style(tone)),
        Span::raw(" "),
        Span::styled(name, strong),
        Span::styled(sign, picture.style(Tone::Uneasy)),
        Span::raw("  "),
        Span::styled(phase, picture.style(Tone::Faint)),
        Span::raw(" ".repeat(gap)),
        Span::raw(format!(" {words}")),
    ])
}
