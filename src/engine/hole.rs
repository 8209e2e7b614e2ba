//! The middle of a file that became too long, given back to the file system.
//!
//! The file keeps its length, its beginning and its end, so that whoever writes or reads along goes on.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};

use crate::units::Bytes;

/// What a hole begins and ends on: a page, on which every file system of Linux that has holes agrees.
const BLOCK: u64 = 4_096;

/// The hole of one file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    /// Most that is kept of the file.
    limit: u64,
    /// Where it ends; `None` while there is none.
    end: Option<u64>,
}

impl Hole {
    /// Makes none yet, of a file of which so much is to be kept.
    pub(super) const fn new(limit: Bytes) -> Self {
        Self { limit: limit.0, end: None }
    }

    /// Whether something was given back.
    #[cfg(test)]
    pub(super) const fn is_there(&self) -> bool {
        self.end.is_some()
    }

    /// Gives back the middle of a file of this length, if it has become too long: a quarter of what is kept is the
    /// beginning.
    ///
    /// # Errors
    /// Where the file system has no holes.
    pub(super) fn make(&mut self, file: &File, length: u64) -> io::Result<()> {
        let head = self.limit / 4 / BLOCK * BLOCK;
        let begin = self.end.unwrap_or(head);
        // Some of it at a time: a hole for every line would cost more than the line.
        if length < begin.saturating_add(self.limit - head) {
            return Ok(());
        }
        let end = length.saturating_sub(self.limit / 2) / BLOCK * BLOCK;
        if end > begin {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, flags, begin, end - begin)?;
            self.end = Some(end);
        }
        Ok(())
    }
}
