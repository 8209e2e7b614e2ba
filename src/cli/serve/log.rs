//! A piece of a log, line by line as a page shows it.
//!
//! A line that a program still writes, or overwrites with carriage returns, is told apart: the next piece begins with it.

use std::io::Read;
use std::path::Path;

use serde::Serialize;

use crate::cli::holes::Holes;
use crate::report::text;

/// Bytes from the end with which a page begins.
const TAIL: u64 = 64 << 10;
/// The most bytes of a piece.
const MOST: u64 = 256 << 10;
/// A line that is longer is broken.
const LINE: usize = 16 << 10;

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Piece {
    /// Counted from 1; 0 is what the task printed in the earlier run whose result was taken.
    attempt: u32,
    /// Its first byte.
    from: u64,
    /// Where the next piece begins.
    next: u64,
    /// How long the log is.
    bytes: u64,
    lines: Vec<String>,
    /// The beginning of a line that is not over.
    partial: String,
}

/// Reads a piece from a byte on, or the end. `None` where nothing was printed, or where the path leads out of `root`.
pub(super) fn piece(root: &Path, path: &Path, attempt: u32, from: Option<u64>) -> Option<Piece> {
    let real = path.canonicalize().ok().filter(|real| real.is_file())?;
    real.starts_with(root.canonicalize().ok()?).then_some(())?;
    let size = real.metadata().ok()?.len();
    let begin = from.unwrap_or_else(|| size.saturating_sub(TAIL)).min(size);
    let mut log = Holes::open_at(&real, begin).ok()?;
    let mut bytes = Vec::new();
    log.by_ref().take(MOST).read_to_end(&mut bytes).ok()?;
    let mut end = log.at();
    let mut rest = bytes.as_slice();
    if from.is_none() && begin > 0 {
        // A line whose beginning was not read.
        rest = &rest[rest.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)..];
    }
    let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (whole, mut open) = rest.split_at(whole);
    let mut lines: Vec<String> = Vec::new();
    for line in whole.strip_suffix(b"\n").into_iter().flat_map(|lines| lines.split(|byte| *byte == b'\n')) {
        lines.extend(broken(text::log_line(line)));
    }
    // What was overwritten is not read again.
    let shown = open.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
    open = &open[open[..shown].iter().rposition(|byte| *byte == b'\r').unwrap_or(0)..];
    let mut partial = text::log_line(open);
    if open.len() > LINE {
        lines.extend(broken(std::mem::take(&mut partial)));
    } else {
        end -= open.len() as u64;
    }
    Some(Piece { attempt, from: begin, next: end, bytes: size, lines, partial })
}

/// Breaks a line that is too long for a page.
fn broken(line: String) -> Vec<String> {
    if line.len() <= LINE {
        return vec![line];
    }
    let mut parts = Vec::new();
    let mut rest = line.as_str();
    while rest.len() > LINE {
        let at = (0..=LINE).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(LINE);
        let (part, behind) = rest.split_at(at);
        parts.push(part.to_owned());
        rest = behind;
    }
    parts.push(rest.to_owned());
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &[u8], from: Option<u64>) -> Piece {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.1.log");
        std::fs::write(&path, text).unwrap();
        piece(dir.path(), &path, 1, from).unwrap()
    }

    #[test]
    fn a_bar_that_is_overwritten_is_the_line_that_is_not_over() {
        let first = of(b"begin\n 10%\r 20%\r", Some(0));
        assert_eq!((first.lines.as_slice(), first.partial.as_str()), (&["begin".to_owned()][..], " 20%"));
        let text = b"begin\n 10%\r 20%\r 30%\r\nend\n";
        let next = of(text, Some(first.next));
        assert_eq!((next.lines, next.partial.as_str(), next.next), (vec![" 30%".into(), "end".into()], "", 26));
    }

    #[test]
    fn without_a_place_it_is_the_end_in_whole_lines() {
        let piece = of(&b"0123456789\n".repeat(100_000), None);
        assert!(piece.lines.len() > 5_000 && piece.lines.iter().all(|line| line == "0123456789"));
        assert_eq!((piece.next, piece.bytes), (1_100_000, 1_100_000));
    }

    #[test]
    fn an_endless_line_does_not_hold_the_reader_up() {
        let text = b"x".repeat(1 << 20);
        let mut at = 0;
        while at < 1 << 20 {
            let piece = of(&text, Some(at));
            assert!(piece.next > at && piece.lines.iter().all(|line| line.len() <= LINE));
            at = piece.next;
        }
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_not_followed() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(elsewhere.path().join("secret"), "secret\n").unwrap();
        let link = dir.path().join("a.1.log");
        std::os::unix::fs::symlink(elsewhere.path().join("secret"), &link).unwrap();
        assert_eq!(piece(dir.path(), &link, 1, None), None);
        assert_eq!(piece(dir.path(), &dir.path().join("none.log"), 1, None), None);
        assert_eq!(piece(dir.path(), dir.path(), 1, None), None);
    }

    proptest! {
        #[test]
        fn pieces_of_a_growing_log_give_its_lines(text in "[ab\r\n]{0,200}", cuts in prop::collection::vec(0_usize..200, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let (mut at, mut lines, mut partial) = (0, Vec::new(), String::new());
            for cut in cuts {
                let piece = of(&text.as_bytes()[..cut], Some(at));
                at = piece.next;
                lines.extend(piece.lines);
                partial = piece.partial;
            }
            let whole = of(text.as_bytes(), Some(0));
            prop_assert_eq!((lines, partial), (whole.lines, whole.partial));
        }
    }
}
