//! The one owner of the terminal behind standard error: a live part at the bottom that is redrawn in place, and lines
//! that scroll by above it.
//!
//! Whatever writes to standard error while a run is shown (log lines, mirrored output, failures) goes through here, so
//! that nothing garbles the live part. Does not know what is drawn.
//!
//! The cursor rests at the start of the free line below the live part, and no line is padded: so neither the `^C` that
//! a terminal echoes nor a window made smaller, which wraps long lines, moves the live part away from where it is
//! redrawn.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use super::text;

/// A handle on the terminal; clones share it.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<Terminal>>);

struct Terminal {
    out: Box<dyn Write + Send>,
    /// Rows and columns; asked for each time, since the user may change them.
    size: fn() -> (usize, usize),
    /// The lines of the live part.
    live: Vec<String>,
}

/// Begins and ends an update that the terminal shows as one; terminals that do not know it ignore it.
const HOLD: &str = "\x1b[?2026h";
const SHOW: &str = "\x1b[?2026l";
/// Erases from the cursor to the end of the line, and to the end of the screen.
const ERASE_LINE: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";

impl Default for Screen {
    fn default() -> Self {
        let size = || {
            let (rows, columns) = console::Term::stderr().size();
            (rows.into(), columns.into())
        };
        Self::on(Box::new(io::stderr()), size)
    }
}

impl Screen {
    fn on(out: Box<dyn Write + Send>, size: fn() -> (usize, usize)) -> Self {
        Self(Arc::new(Mutex::new(Terminal { out, size, live: Vec::new() })))
    }

    /// Returns rows and columns; 24 by 80 where there is no terminal.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.terminal().size)()
    }

    /// Draws the live part anew. Lines have to be narrower, and fewer, than the terminal.
    pub fn show(&self, lines: Vec<String>) {
        self.terminal().redraw("", lines);
    }

    /// Writes whole lines above the live part.
    pub fn print(&self, lines: &str) {
        let mut terminal = self.terminal();
        let live = std::mem::take(&mut terminal.live);
        if live.is_empty() {
            // Where standard error is closed, nobody can be told.
            drop(terminal.out.write_all(format!("{lines}\n").as_bytes()));
        } else {
            terminal.live.clone_from(&live);
            terminal.redraw(lines, live);
        }
    }

    /// Takes the live part away.
    pub fn clear(&self) {
        let mut terminal = self.terminal();
        if !terminal.live.is_empty() {
            terminal.redraw("", Vec::new());
        }
    }

    fn terminal(&self) -> MutexGuard<'_, Terminal> {
        // Whoever panicked while drawing left a live part that can still be redrawn.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Terminal {
    /// Puts `above` and then the new live part in the place of the present one, in a single write.
    fn redraw(&mut self, above: &str, live: Vec<String>) {
        let mut update = String::from(HOLD);
        let height = self.height();
        if height > 0 {
            write!(update, "\x1b[{height}A").expect("a String takes everything");
        }
        update.push('\r');
        if !above.is_empty() || live.is_empty() {
            // What scrolls by has any height: the old live part goes first. Line by line, since a terminal may keep a
            // screen that is erased from its first row on (tmux does) with what scrolled by.
            update.push_str(&format!("{ERASE_LINE}\x1b[B").repeat(height));
            if height > 0 {
                write!(update, "\x1b[{height}A").expect("a String takes everything");
            }
        }
        if !above.is_empty() {
            update.push_str(above);
            update.push('\n');
        }
        for line in &live {
            update.push_str(line);
            update.push_str(ERASE_LINE);
            update.push('\n');
        }
        update.push_str(ERASE_BELOW);
        update.push_str(SHOW);
        self.live = live;
        // As above: a closed standard error is nobody's loss.
        drop(self.out.write_all(update.as_bytes()).and_then(|()| self.out.flush()));
    }

    /// Returns how many rows the live part takes now: in a window that became narrower its lines have wrapped.
    fn height(&self) -> usize {
        let columns = (self.size)().1.max(1);
        self.live.iter().map(|line| text::width(line).div_ceil(columns).max(1)).sum()
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
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A terminal of 10 rows and 30 columns, emulated.
    struct Emulated {
        screen: Screen,
        written: Receiver<Vec<u8>>,
        parser: vt100::Parser,
    }

    struct Tty(Sender<Vec<u8>>);

    impl Write for Tty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The line discipline of a terminal makes a line end a carriage return and a line feed.
            let cooked = String::from_utf8_lossy(bytes).replace('\n', "\r\n").into_bytes();
            self.0.send(cooked).expect("the test holds the other end");
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Emulated {
        fn new() -> Self {
            let (sender, written) = channel();
            let screen = Screen::on(Box::new(Tty(sender)), || (10, 30));
            Self { screen, written, parser: vt100::Parser::new(10, 30, 0) }
        }

        fn show(&self, lines: &[&str]) {
            self.screen.show(lines.iter().map(|line| (*line).to_owned()).collect());
        }

        fn contents(&mut self) -> String {
            self.written.try_iter().for_each(|bytes| self.parser.process(&bytes));
            self.parser.screen().contents()
        }
    }

    #[test]
    fn a_log_line_scrolls_by_above_the_live_part() {
        let mut term = Emulated::new();
        term.show(&["train  10%", "total  5%"]);
        term.screen.write_all(b"WARN disk is slow\n").unwrap();
        term.show(&["train  20%", "eval  1%", "total  9%"]);
        assert_eq!(term.contents(), "WARN disk is slow\ntrain  20%\neval  1%\ntotal  9%");
        term.show(&["total  100%"]);
        assert_eq!(term.contents(), "WARN disk is slow\ntotal  100%");
    }

    #[test]
    fn a_long_line_above_wraps_and_leaves_the_live_part_whole() {
        let mut term = Emulated::new();
        term.show(&["train", "total"]);
        term.screen.print(&"x".repeat(45));
        term.show(&["total"]);
        assert_eq!(term.contents(), format!("{}{}\ntotal", "x".repeat(30), "x".repeat(15)));
    }

    #[test]
    fn an_echoed_ctrl_c_leaves_nothing_behind() {
        let mut term = Emulated::new();
        term.show(&["train", "total"]);
        term.contents();
        term.parser.process(b"^C");
        term.show(&["stopping"]);
        assert_eq!(term.contents(), "stopping");
    }

    #[test]
    fn the_live_part_stays_whole_at_the_bottom_of_the_terminal() {
        let mut term = Emulated::new();
        for line in 0..20 {
            term.screen.print(&format!("line {line}"));
            term.show(&["train", "total"]);
        }
        assert!(term.contents().ends_with("line 18\nline 19\ntrain\ntotal"), "{}", term.contents());
    }

    #[test]
    fn no_screen_is_erased_as_a_whole_while_bars_are_on_it() {
        let term = Emulated::new();
        term.show(&["train", "total"]);
        term.screen.print("a line");
        term.screen.clear();
        let mut parser = vt100::Parser::new(10, 30, 0);
        for update in term.written.try_iter() {
            let text = String::from_utf8(update).unwrap();
            let (before, after) = text.split_once(ERASE_BELOW).unwrap();
            parser.process(before.as_bytes());
            let (row, _) = parser.screen().cursor_position();
            let below: Vec<String> = parser.screen().rows(0, 30).skip(row.into()).collect();
            assert!(below.iter().all(String::is_empty), "{below:?}");
            parser.process((ERASE_BELOW.to_owned() + after).as_bytes());
        }
    }

    #[test]
    fn nothing_of_the_live_part_stays_behind() {
        let mut term = Emulated::new();
        term.show(&["train", "total"]);
        term.screen.clear();
        term.screen.clear();
        assert_eq!(term.contents(), "");
    }
}
