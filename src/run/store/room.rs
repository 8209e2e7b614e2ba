//! Room on the disk that is held back for a database, so that what runs while the disk fills up can be recorded to its end.
//!
//! It lies behind the end of the write-ahead log, where nobody else can take it: the log grows into it. What has been written
//! of the log is sent to the disk meanwhile, so that a checkpoint, which waits for all of it, waits for little.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::aside::with;

/// Room for the ends of some hundred attempts: each commit takes a few pages.
const HELD_BACK: u64 = 1 << 20;

/// What a commit adds to the log besides twice its events at most: the pages around them.
const AROUND: u64 = 32 << 10;

/// How much is sent to the disk at a time.
const SENT_AT_ONCE: u64 = 8 << 20;

/// How much is held back.
#[derive(Debug, Default)]
pub(in crate::run) struct Room {
    /// Bytes of the log for which there is room whatever happens.
    until: u64,
    /// Bytes that the log may still grow by before it is looked at.
    unlooked: u64,
    /// Bytes at most that were written to the log and not sent to the disk.
    unsent: u64,
    /// Whether the file system cannot do it.
    cannot: bool,
}

impl Room {
    /// Holds room back behind what the log has grown to with a commit of so many bytes of events; where there is none, that
    /// is not worth an error.
    pub(in crate::run) fn hold_back(&mut self, database: &Path, bytes: usize) {
        let grown = AROUND + 2 * bytes as u64;
        self.unsent += grown;
        if grown <= self.unlooked {
            self.unlooked -= grown;
            return;
        }
        self.unlooked = 0;
        let log = with(database, "-wal");
        if self.unsent >= SENT_AT_ONCE {
            self.unsent = 0;
            send(&log);
        }
        let Ok(length) = rustix::fs::stat(&log).map(|file| u64::try_from(file.st_size).unwrap_or(0)) else {
            return;
        };
        if self.cannot || length + HELD_BACK / 2 <= self.until {
            self.unlooked = HELD_BACK / 4;
            return;
        }
        let Ok(file) = File::options().write(true).open(&log) else { return };
        match fallocate(&file, FallocateFlags::KEEP_SIZE, 0, length + HELD_BACK) {
            Ok(()) => self.until = length + HELD_BACK,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::FBIG) => self.cannot = true,
            // Full already: what could be had is there.
            Err(_) => self.until = file.metadata().map_or(0, |file| file.blocks() * 512),
        }
    }
}

/// Has the kernel write what a file has in memory only, and does not wait for that.
fn send(file: &Path) {
    if let Ok(file) = File::open(file) {
        // SAFETY: plain values, and the descriptor is open. Where it cannot be done, whoever needs it waits.
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }
}
