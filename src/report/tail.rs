//! The last lines of a log, read in bounded memory however long it is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::text;

/// Bytes that are read: enough for a Python traceback of some depth, small enough to read while others wait.
const READ: u64 = 8 << 10;

/// Returns at most `most` lines from the end of a file, safe for a terminal, without the empty ones at the end. A line
/// whose beginning was not read is left out, unless it is the only one.
///
/// # Errors
/// Where the file cannot be read.
pub fn last_lines(log: &Path, most: usize) -> io::Result<Vec<String>> {
    lines_within(log, most, READ)
}

/// Returns as [`last_lines`] does what is in the last `read` bytes of a file.
///
/// # Errors
/// Where the file cannot be read.
pub fn lines_within(log: &Path, most: usize, read: u64) -> io::Result<Vec<String>> {
    let mut file = File::open(log)?;
    let begin = file.metadata()?.len().saturating_sub(read);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    // The limit holds even if somebody appends meanwhile.
    file.take(read).read_to_end(&mut bytes)?;
    let all: Vec<String> = bytes.split(|byte| *byte == b'\n').map(text::log_line).collect();
    let end = all.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    let whole = usize::from(begin > 0 && end > 1);
    Ok(all[end.saturating_sub(most).max(whole)..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(log: &[u8], most: usize) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.1.log");
        std::fs::write(&path, log).unwrap();
        last_lines(&path, most).unwrap()
    }

    #[test]
    fn the_last_lines_are_shown_without_empty_ones_behind() {
        assert_eq!(of(b"one\ntwo\nthree\n\n", 2), ["two", "three"]);
        assert_eq!(of(b"one\ntwo\nthree", 9), ["one", "two", "three"]);
        assert!(of(b"\n\n", 9).is_empty());
    }

    #[test]
    fn no_line_is_cut_in_a_long_log() {
        let lines = of(&b"0123456789\n".repeat(100_000), 1_000_000);
        assert!(lines.len() > 700 && lines.iter().all(|line| line == "0123456789"));
    }

    #[test]
    fn one_endless_line_is_shown_by_its_end() {
        assert_eq!(of(&b"x".repeat(100_000), 5), ["x".repeat(8 << 10)]);
    }

    #[test]
    fn a_control_sequence_in_a_log_is_not_obeyed() {
        assert_eq!(of(b"a\x1b[2Jb\x07\n", 5), ["ab\\u{7}"]);
    }
}
