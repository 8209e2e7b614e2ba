//! The run so far, a line for each place and lane, and what the plan still has for it.

use ratatui::text::{Line, Span};

use super::super::paint::Tone;
use super::super::text;
use super::super::timeline::{self, Row};
use super::Picture;
use crate::units::Millis;

/// What is drawn of time: from 0 to `end` on `width` columns.
struct Scale {
    label: usize,
    width: usize,
    end: u64,
}

impl Scale {
    fn column(&self, at: u64) -> usize {
        let column = u128::from(at) * self.width as u128 / u128::from(self.end);
        usize::try_from(column).unwrap_or(self.width).min(self.width)
    }
}

/// Returns at most `rows` lines; none where there is no room or nothing to draw.
pub(super) fn lines(picture: &Picture<'_>, rows: usize, columns: usize) -> Vec<Line<'static>> {
    let timeline = picture.timeline;
    let rows = rows.saturating_sub(1);
    if rows < 2 || timeline.rows.is_empty() {
        return Vec::new();
    }
    let label = timeline.rows.iter().map(|row| text::width(&row.place)).max().unwrap_or(0).min(columns / 4);
    // What is to come has its room while the run goes on.
    let end = match picture.left {
        Some(left) => timeline.end + left.0,
        None if picture.state == "running" => timeline.end.max(timeline.planned_end),
        None => timeline.end,
    };
    let scale = Scale { label, width: columns.saturating_sub(label + 2).max(10), end: end.max(1) };
    let mut lines = vec![ruler(picture, &scale)];
    for row in &timeline.rows {
        lines.extend(row_lines(picture, row, &scale));
    }
    if lines.len() > rows {
        lines.truncate(rows - 1);
        lines.push(Line::styled("  and more", picture.style(Tone::Faint)));
    }
    lines
}

/// Returns the first and the last time, and where now is in between.
fn ruler(picture: &Picture<'_>, scale: &Scale) -> Line<'static> {
    let end = Millis(scale.end).to_string();
    let mut marks = vec![' '; scale.width];
    let from = scale.width.saturating_sub(end.len());
    for (at, letter) in (from..scale.width).zip(end.chars()) {
        marks[at] = letter;
    }
    marks[0] = '0';
    let now = scale.column(picture.timeline.end);
    if picture.state == "running" && (1..from.saturating_sub(1)).contains(&now) {
        marks[now] = '▾';
    }
    let words: String = marks.into_iter().collect();
    Line::styled(format!("{}  {words}", " ".repeat(scale.label)), picture.style(Tone::Faint))
}

fn row_lines(picture: &Picture<'_>, row: &Row, scale: &Scale) -> Vec<Line<'static>> {
    let (_, lanes) = row.lanes();
    let name = text::visible(&row.place).into_owned();
    let line = |lane: usize| {
        let name = if lane == 0 { text::fit_middle(&name, scale.label).into_owned() } else { String::new() };
        let mut line = Line::raw(format!("{}  ", text::pad(&name, scale.label)));
        let spans = row.actual.iter().filter(|span| span.lane == lane);
        bars(picture, spans, scale).into_iter().for_each(|bar| line.push_span(bar));
        line
    };
    (0..lanes.max(1)).map(line).collect()
}

fn bars<'s>(
    picture: &Picture<'_>,
    spans: impl Iterator<Item = &'s timeline::Span>,
    scale: &Scale,
) -> Vec<Span<'static>> {
    let (mut line, mut at) = (Vec::new(), 0);
    for span in spans {
        let from = scale.column(span.from).max(at);
        let to = scale.column(span.to).max(from + 1).min(scale.width);
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
        let body = with_turns(&body, from, span, scale);
        line.push(Span::raw(" ".repeat(from - at)));
        line.push(Span::styled(body, picture.style(tone)));
        at = to;
    }
    line
}

/// Thins a bar out where what it stands for was suspended.
fn with_turns(bar: &str, from: usize, span: &timeline::Span, scale: &Scale) -> String {
    let runs = |at: usize| {
        let inside = |(from, to): &(u64, u64)| (scale.column(*from)..=scale.column(*to)).contains(&at);
        span.pieces.is_empty() || span.pieces.iter().any(inside)
    };
    (from..).zip(bar.chars()).map(|(at, letter)| if letter == '━' && !runs(at) { '┄' } else { letter }).collect()
}
