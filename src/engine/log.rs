//! The log of one attempt: a file that is made with the first byte, and the last bytes in memory.
//!
//! A log that grows beyond its limit keeps its beginning and its end: what lies between is given back to the file system
//! as a hole, so that the file keeps its length and whoever reads along goes on. Where the file system knows no holes, the
//! beginning and the last bytes in memory are kept.
//!
//! A log that cannot be written is cut short and the attempt goes on; it is said at the end. So is one that would take
//! the last room on the disk, which belongs to the record of the run. The log of an attempt with a sentinel is written by
//! that one; here it is only read along.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::hole::Hole;
use super::oom;
use crate::probe::disk::Disk;
use crate::probe::disk::is_full;
use crate::run::outcome::LogCut;
use crate::units::Bytes;

/// How much of the end is kept in memory: enough for a stack trace with its last message.
const TAIL: usize = 16 << 10;

/// The most that is read along at a time.
const PIECE: u64 = 64 << 10;

/// How much is written before the disk is looked at again, and the most that is left to the record of the run.
const UNLOOKED: u64 = 64 << 10;
const FOR_THE_RECORD: Bytes = Bytes(64 << 20);

/// Where an attempt's output goes.
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    error: Option<io::Error>,
    /// How much has been written since the disk was looked at, and what looks.
    unlooked: u64,
    disk: fn(&Path) -> Option<Disk>,
    tail: VecDeque<u8>,
    /// What hears whether memory ran out.
    listener: oom::Listener,
    /// Whether somebody else writes the file.
    kept: bool,
    /// How much of a file that somebody else writes has been read.
    read: u64,
    length: u64,
    /// What is given back of a file that becomes too long.
    hole: Hole,
    /// Bytes that were not written, since there can be no hole.
    left_out: u64,
}

impl Log {
    /// Makes a log of which so much is kept.
    pub(super) fn new(path: PathBuf, limit: Bytes) -> Self {
        Self {
            path,
            file: None,
            error: None,
            unlooked: 0,
            disk: Disk::of,
            tail: VecDeque::new(),
            listener: oom::Listener::default(),
            kept: false,
            read: 0,
            length: 0,
            hole: Hole::new(limit),
            left_out: 0,
        }
    }

    /// Makes a log that a sentinel writes.
    pub(super) fn kept_by_sentinel(path: PathBuf) -> Self {
        let mut log = Self::new(path, Bytes(u64::MAX));
        log.kept = true;
        log
    }

    /// Passes over what was printed while nobody attended, but for the end of it, in which memory may have run out.
    pub(super) fn skip_to_end(&mut self) {
        let length = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        self.read = length.saturating_sub(oom::BEHIND);
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
        self.listener.hear(output);
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

    fn write_file(&mut self, output: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            self.file = Some(File::create(&self.path)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.left_out > 0 {
            self.left_out += output.len() as u64;
            return Ok(());
        }
        file.write_all(output)?;
        self.length += output.len() as u64;
        self.unlooked += output.len() as u64;
        if self.unlooked >= UNLOOKED {
            self.unlooked = 0;
            leave_room(&self.path, self.disk)?;
        }
        if self.hole.make(file, self.length).is_err() {
            self.left_out = 1;
        }
        Ok(())
    }

    /// Writes the end of what there was no room for, now that it is known.
    pub(super) fn finish(&mut self) {
        let left_out = self.left_out.saturating_sub(1).saturating_sub(self.tail.len() as u64);
        if self.left_out <= 1 {
            return;
        }
        let end = (self.left_out - 1).min(self.tail.len() as u64);
        let tail = self.tail.make_contiguous();
        let tail = &tail[tail.len() - usize::try_from(end).unwrap_or(0)..];
        let gap = if left_out > 0 { format!("\n... {} left out ...\n", Bytes(left_out)) } else { String::new() };
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(gap.as_bytes()).and_then(|()| file.write_all(tail))
        {
            self.error = Some(error);
        }
        self.left_out = 0;
    }

    /// Whether anything was printed.
    pub(super) fn is_used(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Returns why the log is cut short, if it is.
    pub(super) const fn error(&self) -> Option<&std::io::Error> {
        self.error.as_ref()
    }

    /// Returns that in short.
    pub(super) fn cut(&self) -> Option<LogCut> {
        let error = self.error.as_ref()?;
        Some(if is_full(error) { LogCut::DiskFull } else { LogCut::Unwritable })
    }

    /// Returns which memory ran out, if the output says that any did.
    pub(super) fn ran_out_of(&mut self) -> Option<oom::Memory> {
        self.listener.verdict()
    }

    /// Whether the trace of an exception was printed.
    pub(super) const fn has_trace(&self) -> bool {
        self.listener.has_trace()
    }

    /// Whether the output says that a device was busy and let the program not in.
    pub(super) fn was_turned_away(&self) -> bool {
        self.listener.was_turned_away()
    }

    #[cfg(test)]
    fn tail(&mut self) -> &[u8] {
        self.tail.make_contiguous()
    }
}

/// Fails where the disk is so full that the run could soon not be recorded.
fn leave_room(path: &Path, disk: fn(&Path) -> Option<Disk>) -> io::Result<()> {
    let Some(disk) = disk(path) else { return Ok(()) };
    let kept = FOR_THE_RECORD.min(Bytes(disk.usual_reserve().0 / 2));
    if disk.free >= kept {
        return Ok(());
    }
    let why = format!("the disk is full: its last {kept} are kept for the record of the run");
    Err(io::Error::new(ErrorKind::StorageFull, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_attempt_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(dir.path().join("a.log"), Bytes::GIB);
        assert!(!log.is_used());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_file_holds_everything_and_memory_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new(dir.path().join("sub/a.log"), Bytes::GIB);
        let flood: Vec<u8> = (0..3 * TAIL).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for piece in flood.chunks(1000) {
            log.write(piece);
        }
        assert_eq!(std::fs::read(dir.path().join("sub/a.log")).unwrap(), flood);
        assert_eq!(log.tail(), &flood[2 * TAIL..]);
    }

    #[test]
    fn a_full_disk_cuts_the_log_short_and_keeps_the_tail() {
        let mut log = Log::new(PathBuf::from("/dev/full"), Bytes::GIB);
        log.write(b"hello");
        assert!(log.error().is_some());
        assert_eq!(log.tail(), b"hello");
    }

    #[test]
    fn the_last_of_the_disk_is_left_to_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Log::new(path.clone(), Bytes::GIB);
        log.disk = |folder| Some(Disk { folder: folder.to_owned(), free: Bytes(9_999), all: Bytes(400_000) });
        let piece = [b'x'; 40 << 10];
        (0..5).for_each(|_| log.write(&piece));
        assert!(log.error().unwrap().to_string().contains("kept for the record"));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 80 << 10, "it is looked at every 64 KiB");
        assert_eq!(log.tail().len(), TAIL);
    }

    /// Lines that tell where in the log they stand.
    fn numbered(lines: u64) -> Vec<u8> {
        (0..lines).flat_map(|line| format!("line {line:>10}\n").into_bytes()).collect()
    }

    #[test]
    fn a_log_beyond_its_limit_keeps_both_ends_and_takes_no_more_room() {
        use std::os::unix::fs::MetadataExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let limit = 256 << 10;
        let mut log = Log::new(path.clone(), Bytes(limit));
        let all = numbered(200_000);
        for piece in all.chunks(10_000) {
            log.write(piece);
            if log.hole.is_there() {
                let blocks = std::fs::metadata(&path).unwrap().blocks() * 512;
                assert!(blocks <= limit + (64 << 10), "{blocks} bytes on disk");
            }
        }
        log.finish();
        let kept = std::fs::read(&path).unwrap();
        let head = usize::try_from(limit / 4).unwrap();
        assert_eq!(kept[..head], all[..head]);
        if log.hole.is_there() {
            assert_eq!(kept.len(), all.len());
        }
        let end = kept.len() - (8 << 10);
        assert_eq!(kept[end..], all[all.len() - (8 << 10)..]);
    }

    #[test]
    fn without_holes_the_beginning_and_the_last_bytes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut log = Log::new(path.clone(), Bytes(64 << 10));
        let all = numbered(10_000);
        log.write(&all[..20_000]);
        // What is done where the file system refuses.
        log.left_out = 1;
        for piece in all[20_000..].chunks(1_000) {
            log.write(piece);
        }
        log.finish();
        let kept = std::fs::read(&path).unwrap();
        let gap = format!("\n... {} left out ...\n", Bytes((all.len() - 20_000 - TAIL) as u64));
        assert_eq!(kept, [&all[..20_000], gap.as_bytes(), &all[all.len() - TAIL..]].concat());
    }
}
