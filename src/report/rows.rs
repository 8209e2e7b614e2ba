//! Rows with a bar each, their columns aligned, drawn by indicatif.
//!
//! A row is drawn onto a line in memory: [`super::screen`] is the one owner of the terminal, since it keeps lines that
//! scroll by, an echoed `^C` and a window made narrower from garbling what is drawn. Pure: the same rows give the same
//! lines.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use super::paint::{Colour, Tone};
use super::text;

/// One row before its columns are aligned.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    pub(super) mark: &'static str,
    pub(super) tone: Tone,
    pub(super) name: String,
    /// Part of the bar that is done or held, 0 to 1.
    pub(super) done: f64,
    /// Part that is promised beyond it.
    pub(super) promised: f64,
    pub(super) percent: String,
    pub(super) elapsed: String,
    pub(super) left: String,
    pub(super) note: String,
}

/// From here on, in columns, there is room for words.
const WIDE: usize = 100;
/// What indicatif counts a bar in.
const STEPS: u64 = 10_000;

/// Returns a line for each row, at most `columns` wide.
pub(super) fn draw(rows: &[Row], columns: usize, colour: Colour) -> Vec<String> {
    let widest = |of: fn(&Row) -> &String| rows.iter().map(|row| text::width(of(row))).max().unwrap_or(0);
    let name = widest(|row| &row.name).min((columns * 3 / 8).max(12));
    let (elapsed, left) = (widest(|row| &row.elapsed), widest(|row| &row.left));
    let wide = columns >= WIDE;
    let bar = if wide { (columns / 6).min(30) } else { (columns / 8).max(6) };
    // Where there is little room, as tqdm writes it: elapsed<left.
    let (before, after) = if wide { ("  ", " left") } else { ("<", "") };
    let time = |row: &Row| {
        if row.elapsed.is_empty() {
            return String::new();
        }
        let words = if row.left.is_empty() { String::new() } else { format!("{before}{}{after}", row.left) };
        let left = before.len() + left + after.len();
        format!("{:>elapsed$}{words:<left$}  ", row.elapsed)
    };
    let line = |row: &Row| {
        let sheet = Sheet::default();
        let drawn = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::term_like(Box::new(sheet.clone())));
        drawn.set_style(style(row, bar, colour));
        drawn.set_position((row.done.clamp(0.0, 1.0) * STEPS as f64).floor() as u64);
        drawn.set_prefix(text::pad(&text::fit_middle(&row.name, name), name));
        drawn.set_message(format!("{:>4}  {}{}", row.percent, time(row), row.note));
        drawn.force_draw();
        text::fit(sheet.line().trim_end(), columns).into_owned()
    };
    rows.iter().map(line).collect()
}

/// Returns how a row looks: its mark, its name, its bar of `width` columns, its figures.
fn style(row: &Row, width: usize, colour: Colour) -> ProgressStyle {
    let (mark, tone, promised) = (colour.paint(row.tone, row.mark), row.tone, row.promised);
    let bar = move |state: &ProgressState, line: &mut dyn std::fmt::Write| {
        let bar = draw_bar(f64::from(state.fraction()), promised, width, tone, colour);
        line.write_str(&bar).expect("a String takes everything");
    };
    ProgressStyle::with_template("{spinner} {prefix}  {held} {msg}")
        .expect("the template is well formed")
        .tick_strings(&[&mark, &mark])
        .with_key("held", bar)
}
/// Draws a bar of `width` columns. Without colour its parts still differ: `━━╸╌╌───`.
fn draw_bar(done: f64, promised: f64, width: usize, tone: Tone, colour: Colour) -> String {
    let halves = |part: f64| (part.clamp(0.0, 1.0) * 2.0 * width as f64).floor() as usize;
    let full = halves(done) / 2;
    let half = halves(done) % 2;
    let dashed = (halves(done + promised) / 2).saturating_sub(full + half);
    let solid = "━".repeat(full) + if half == 1 { "╸" } else { "" };
    let rest = "─".repeat(width - full - half - dashed);
    format!(
        "{}{}{}",
        colour.paint(if solid.is_empty() { Tone::Plain } else { tone }, &solid),
        colour.paint(if dashed == 0 { Tone::Plain } else { Tone::Uneasy }, &"╌".repeat(dashed)),
        colour.paint(if rest.is_empty() { Tone::Plain } else { Tone::Faint }, &rest)
    )
}

/// One line, as indicatif writes it.
#[derive(Clone, Debug, Default)]
struct Sheet(Arc<Mutex<String>>);

impl Sheet {
    fn line(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TermLike for Sheet {
    /// Wide enough for any row, so that nothing wraps.
    fn width(&self) -> u16 {
        1024
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.line().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.line().clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_what_is_held_promised_and_free() {
        assert_eq!(draw_bar(0.25, 0.5, 8, Tone::Plain, Colour::Never), "━━╌╌╌╌──");
        assert_eq!(draw_bar(1.0, 0.0, 4, Tone::Plain, Colour::Never), "━━━━");
        assert_eq!(draw_bar(0.13, 0.0, 4, Tone::Plain, Colour::Never), "╸───");
    }
}
