//! A terminal taken over as a whole: raw keys, the alternate screen, and everything put back afterwards.

use std::io::{self, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Enters the alternate screen without cursor, and leaves it.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Begins and ends an update that the terminal shows as one; terminals that do not know it ignore it.
const HOLD: &str = "\x1b[?2026h";
const SHOW: &str = "\x1b[?2026l";

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Interrupt,
}

/// The terminal behind standard input and output.
pub(super) struct FullScreen {
    before: Termios,
    shown: Vec<String>,
}

impl FullScreen {
    /// Takes the terminal over.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let screen = Self { before, shown: Vec::new() };
        write(ENTER)?;
        Ok(screen)
    }

    /// Shows these lines; only those that changed are written.
    pub(super) fn show(&mut self, lines: Vec<String>) -> io::Result<()> {
        if lines == self.shown {
            return Ok(());
        }
        let mut update = String::from(HOLD);
        if lines.len() != self.shown.len() {
            update.push_str("\x1b[2J");
            self.shown.clear();
        }
        for (row, line) in lines.iter().enumerate() {
            if self.shown.get(row) != Some(line) {
                update.push_str(&format!("\x1b[{};1H{line}\x1b[0m\x1b[K", row + 1));
            }
        }
        update.push_str(SHOW);
        self.shown = lines;
        write(&update)
    }

    /// Forgets what is shown, so that everything is written again.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
    }

    /// Waits for keys, but not longer than `wait`.
    pub(super) fn keys(&self, wait: Duration) -> io::Result<Vec<Key>> {
        let stdin = io::stdin();
        let mut one = [PollFd::new(&stdin, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        match poll(&mut one, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 256];
        let length = rustix::io::read(&stdin, &mut bytes)?;
        if length == 0 {
            // The terminal is gone.
            return Ok(vec![Key::Interrupt]);
        }
        Ok(keys(&bytes[..length]))
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing put back.
        drop(write(LEAVE));
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Returns the keys that a terminal sends as these bytes; what is not known is passed over.
fn keys(bytes: &[u8]) -> Vec<Key> {
    const SEQUENCES: [(&[u8], Key); 14] = [
        (b"\x1b[A", Key::Up),
        (b"\x1bOA", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
        (b"\x1b[H", Key::Home),
        (b"\x1b[1~", Key::Home),
        (b"\x1b[F", Key::End),
        (b"\x1b[4~", Key::End),
        (b"\r", Key::Enter),
        (b"\n", Key::Enter),
        (b"\x7f", Key::Backspace),
        (b"\x03", Key::Interrupt),
    ];
    let mut keys = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| rest.starts_with(sequence)) {
            keys.push(*key);
            rest = &rest[sequence.len()..];
        } else if rest == b"\x1b" {
            keys.push(Key::Escape);
            rest = &[];
        } else if rest[0] == 0x1b {
            // A sequence of some other key: up to its last letter.
            let end =
                rest.iter().skip(2).position(|byte| (0x40..=0x7e).contains(byte)).map_or(rest.len(), |end| end + 3);
            rest = &rest[end..];
        } else {
            let length = (1..=rest.len().min(4)).find(|length| std::str::from_utf8(&rest[..*length]).is_ok());
            let text = length.and_then(|length| std::str::from_utf8(&rest[..length]).ok());
            keys.extend(text.and_then(|text| text.chars().next()).filter(|c| !c.is_control()).map(Key::Char));
            rest = &rest[length.unwrap_or(1)..];
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(keys(b"q\x1b[A\x1bOB\r"), [Key::Char('q'), Key::Up, Key::Down, Key::Enter]);
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys("\u{e4}\x7f\x03".as_bytes()), [Key::Char('ä'), Key::Backspace, Key::Interrupt]);
    }

    #[test]
    fn a_key_that_is_not_known_is_passed_over() {
        assert_eq!(keys(b"\x1b[15~x\x1b[1;5C\xff\x01y"), [Key::Char('x'), Key::Char('y')]);
    }
}
