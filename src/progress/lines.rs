//! Raw output in pieces to lines. A line ends with a line feed, a carriage return or a backspace: what follows the
//! last two is written over what was there.

use memchr::memchr3;

/// How much of a line is read: the widest bar of a wide terminal, colours included. What lies behind it is passed over.
pub(super) const LONGEST: usize = 4 << 10;

/// Cuts bytes into lines, whatever pieces they come in.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl Lines {
    /// Gives every line that `output` completes to `each`, without its end and at most [`LONGEST`] bytes of it.
    pub(super) fn cut(&mut self, output: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = output;
        if !self.begun.is_empty() {
            let Some(end) = memchr3(b'\n', b'\r', 8, rest) else { return self.begin(rest) };
            self.begin(&rest[..end]);
            each(&self.begun);
            self.begun.clear();
            rest = &rest[end + 1..];
        }
        while let Some(end) = memchr3(b'\n', b'\r', 8, rest) {
            if end > 0 {
                each(&rest[..end.min(LONGEST)]);
            }
            rest = &rest[end + 1..];
        }
        self.begin(rest);
    }

    /// Returns the line whose end has not come; empty where there is none.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }

    fn begin(&mut self, piece: &[u8]) {
        let room = LONGEST - self.begun.len();
        self.begun.extend_from_slice(&piece[..piece.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.cut(piece, |line| all.push(line.to_vec()));
        }
        (all, lines.begun().to_vec())
    }

    #[test]
    fn a_line_may_come_in_pieces_and_end_in_three_ways() {
        let (lines, begun) = cut(&[b"a", b"b\nc\r", b"d\x08\x08\x08e"]);
        assert_eq!((lines, begun), (vec![b"ab".to_vec(), b"c".to_vec(), b"d".to_vec()], b"e".to_vec()));
    }

    #[test]
    fn of_an_endless_line_only_the_beginning_is_kept() {
        let flood = vec![b'x'; 3 * LONGEST];
        assert_eq!(cut(&[&flood, &flood]).1.len(), LONGEST);
        assert_eq!(cut(&[&flood, b"\n"]).0, vec![vec![b'x'; LONGEST]]);
    }
}
