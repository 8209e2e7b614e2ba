//! The log of one attempt: a file that is made with the first byte, and the last bytes in memory.
//!
//! A log that cannot be written (a full disk) is cut short and the attempt goes on; it is said at the end. The log of an
//! attempt with a sentinel is written by that one; here it is only read along.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

/// How much of the end is kept in memory: enough for a stack trace with its last message.
const TAIL: usize = 16 << 10;

/// The most that is read along at a time.
const PIECE: u64 = 64 << 10;

/// Where an attempt's output goes.
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    error: Option<std::io::Error>,
    tail: VecDeque<u8>,
    /// Whether somebody else writes the file.
    kept: bool,
    /// How much of a file that somebody else writes has been read.
    read: u64,
}

impl Log {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, file: None, error: None, tail: VecDeque::new(), kept: false, read: 0 }
    }

    /// Makes a log that a sentinel writes.
    pub(super) const fn kept_by_sentinel(path: PathBuf) -> Self {
        let mut log = Self::new(path);
        log.kept = true;
        log
    }

    /// Passes over what was printed while nobody attended, but for the end of it.
    pub(super) fn skip_to_end(&mut self) {
        let length = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        self.read = length.saturating_sub(TAIL as u64);
        while self.catch_up().is_some() {}
    }

    /// Reads on in a file that somebody else writes; `None` where nothing has come since.
    pub(super) fn catch_up(&mut self) -> Option<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.read)).ok()?;
        let mut more = Vec::new();
        let read = file.take(PIECE).read_to_end(&mut more).ok().filter(|read| *read > 0)?;
        self.read += read as u64;
        self.write(&more);
        Some(more)
    }

    /// Adds output. Never fails: see [`Log::error`].
    pub(super) fn write(&mut self, output: &[u8]) {
        let kept = &output[output.len().saturating_sub(TAIL)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.tail.extend(kept);
        if self.error.is_none()
            && !self.kept
            && let Err(error) = self.write_file(output)
        {
            self.error = Some(error);
        }
    }

    fn write_file(&mut self, output: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            self.file = Some(File::create(&self.path)?);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(output))
    }

    /// Whether anything was printed.
    pub(super) fn is_used(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Returns why the log is cut short, if it is.
    pub(super) const fn error(&self) -> Option<&std::io::Error> {
        self.error.as_ref()
    }

    /// Returns the last output.
    pub(super) fn tail(&mut self) -> &[u8] {
        self.tail.make_contiguous()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_attempt_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path().join("a.log"));
        assert!(!log.is_used());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_file_holds_everything_and_memory_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new(dir.path().join("sub/a.log"));
        let flood: Vec<u8> = (0..3 * TAIL).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for piece in flood.chunks(1000) {
            log.write(piece);
        }
        assert_eq!(std::fs::read(dir.path().join("sub/a.log")).unwrap(), flood);
        assert_eq!(log.tail(), &flood[2 * TAIL..]);
    }

    #[test]
    fn a_full_disk_cuts_the_log_short_and_keeps_the_tail() {
        let mut log = Log::new(PathBuf::from("/dev/full"));
        log.write(b"hello");
        assert!(log.error().is_some());
        assert_eq!(log.tail(), b"hello");
    }
}
