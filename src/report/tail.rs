//! The last lines that a task printed, kept in bounded memory however much it prints.

use super::text;

/// Bytes that are kept: enough for a Python traceback of some depth, small enough for thousands of running tasks.
const KEPT: usize = 4096;

/// The end of a stream of bytes.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// Takes in what was printed: any bytes, not whole lines.
    pub fn push(&mut self, output: &[u8]) {
        let last = &output[output.len().saturating_sub(KEPT)..];
        self.cut |= last.len() < output.len();
        self.bytes.extend_from_slice(last);
        // Twice the size before anything is moved, so that a byte is moved once on average.
        if self.bytes.len() > 2 * KEPT {
            self.bytes.drain(..self.bytes.len() - KEPT);
            self.cut = true;
        }
    }

    /// Returns at most `most` lines, safe for a terminal, without the empty ones at the end. A line whose beginning is
    /// lost is left out, unless it is the only one.
    #[must_use]
    pub fn lines(&self, most: usize) -> Vec<String> {
        let all: Vec<String> = self.bytes.split(|byte| *byte == b'\n').map(text::log_line).collect();
        let end = all.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
        let whole = usize::from(self.cut && end > 1);
        all[end.saturating_sub(most).max(whole)..end].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(output: &[&[u8]]) -> Tail {
        let mut tail = Tail::default();
        output.iter().for_each(|bytes| tail.push(bytes));
        tail
    }

    #[test]
    fn the_last_lines_are_kept_across_pieces() {
        let tail = after(&[b"one\ntw", b"o\nthr", b"ee\n\n"]);
        assert_eq!(tail.lines(2), ["two", "three"]);
        assert_eq!(tail.lines(9), ["one", "two", "three"]);
    }

    #[test]
    fn a_flood_is_kept_within_bounds() {
        let mut tail = Tail::default();
        for _ in 0..1_000 {
            tail.push(&b"0123456789\n".repeat(100));
        }
        assert!(tail.bytes.capacity() <= 4 * KEPT);
        assert!(tail.lines(1_000).iter().all(|line| line == "0123456789"), "no line is cut");
    }

    #[test]
    fn nothing_printed_is_no_line() {
        assert!(Tail::default().lines(5).is_empty());
        assert!(after(&[b"\n\n"]).lines(5).is_empty());
    }

    #[test]
    fn one_endless_line_is_shown_by_its_end() {
        let tail = after(&[&[b'x'; 3 * KEPT]]);
        assert_eq!(tail.lines(5), ["x".repeat(KEPT)]);
    }
}
