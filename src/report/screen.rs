//! The one owner of the terminal behind standard error: a live part at the bottom that is redrawn in place, and lines
//! that scroll by above it.
//!
//! Whatever writes to standard error while a run is shown (log lines, mirrored output, failures) goes through here, so
//! that nothing garbles the live part. Does not know what is drawn.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws in one second at most: the eye sees no more, and a slow connection is not flooded.
const REDRAWS: u8 = 15;

/// A handle on the terminal; clones share it.
#[derive(Clone, Debug)]
pub struct Screen {
    /// One bar whose message is the whole live part: it is cleared and redrawn in a single write.
    live: Arc<Mutex<Option<ProgressBar>>>,
    term: console::Term,
}

impl Default for Screen {
    fn default() -> Self {
        Self { live: Arc::default(), term: console::Term::buffered_stderr() }
    }
}

impl Screen {
    /// Returns rows and columns; 24 by 80 where there is no terminal.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let (rows, columns) = self.term.size();
        (rows.into(), columns.into())
    }

    /// Draws the live part anew.
    pub fn show(&self, lines: &[String]) {
        self.draw(lines, || ProgressDrawTarget::term(self.term.clone(), REDRAWS));
    }

    fn draw(&self, lines: &[String], target: impl FnOnce() -> ProgressDrawTarget) {
        let mut live = self.live();
        let bar = live.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg}").expect("the template has one known field");
            ProgressBar::with_draw_target(None, target()).with_style(style)
        });
        bar.set_message(lines.join("\n"));
        bar.tick();
    }

    /// Writes whole lines above the live part.
    pub fn print(&self, lines: &str) {
        match &*self.live() {
            Some(bar) => bar.println(lines),
            // Where standard error is closed, nobody can be told.
            None => drop(writeln!(io::stderr().lock(), "{lines}")),
        }
    }

    /// Takes the live part away.
    pub fn clear(&self) {
        if let Some(bar) = self.live().take() {
            bar.finish_and_clear();
        }
    }

    fn live(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        // Whoever panicked while drawing left a bar that can still be drawn.
        self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Write for Screen {
    /// Takes whole lines, as log lines come.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(lines);
        self.print(text.strip_suffix('\n').unwrap_or(&text));
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    fn drawn(screen: &Screen, term: &InMemoryTerm, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        screen.draw(&lines, || ProgressDrawTarget::term_like(Box::new(term.clone())));
    }

    #[test]
    fn a_log_line_scrolls_by_above_the_live_part() {
        let (mut screen, term) = (Screen::default(), InMemoryTerm::new(10, 40));
        drawn(&screen, &term, &["train  10%", "total  5%"]);
        screen.write_all(b"WARN disk is slow\n").unwrap();
        drawn(&screen, &term, &["train  20%", "eval  1%", "total  9%"]);
        assert_eq!(term.contents(), "WARN disk is slow\ntrain  20%\neval  1%\ntotal  9%");
        drawn(&screen, &term, &["total  100%"]);
        assert_eq!(term.contents(), "WARN disk is slow\ntotal  100%");
    }

    #[test]
    fn nothing_of_the_live_part_stays_behind() {
        let (screen, term) = (Screen::default(), InMemoryTerm::new(10, 40));
        drawn(&screen, &term, &["train", "total"]);
        screen.clear();
        assert_eq!(term.contents(), "");
        screen.clear();
    }
}
