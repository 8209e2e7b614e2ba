//! Reads a log of which the middle was given back: where a hole begins, a line says how much is missing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::units::Bytes;

/// A log that may have a hole. At its end it can be read on when it has grown.
pub(super) struct Holes {
    file: File,
    at: u64,
    /// What stands for the hole, as far as it has not been read.
    said: Vec<u8>,
}

impl Holes {
    /// Opens a log.
    ///
    /// # Errors
    /// As for any file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, at: 0, said: Vec::new() })
    }

    /// Opens a log to be read from a place on.
    ///
    /// # Errors
    /// As for any file.
    pub(super) fn open_at(path: &Path, at: u64) -> io::Result<Self> {
        Ok(Self { at, ..Self::open(path)? })
    }

    /// Returns up to which byte of the file it was read.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// Goes past a hole that begins here.
    fn pass_hole(&mut self) -> io::Result<()> {
        // An error says that there is no more data, or that the file system does not tell.
        let Ok(data) = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(self.at)) else {
            return self.file.seek(SeekFrom::Start(self.at)).map(drop);
        };
        if data > self.at {
            self.said = format!("\n... {} left out ...\n", Bytes(data - self.at)).into_bytes();
            self.at = data;
        }
        Ok(())
    }
}

impl Read for Holes {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.said.is_empty() {
            self.pass_hole()?;
        }
        if !self.said.is_empty() {
            let n = self.said.len().min(into.len());
            into[..n].copy_from_slice(&self.said[..n]);
            self.said.drain(..n);
            return Ok(n);
        }
        // Not beyond the next hole.
        let end = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(self.at)).unwrap_or(u64::MAX);
        self.file.seek(SeekFrom::Start(self.at))?;
        let most = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX).max(1).min(into.len());
        let n = self.file.read(&mut into[..most])?;
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{FallocateFlags, fallocate};

    use super::*;

    #[test]
    fn a_hole_is_told_and_what_is_around_it_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(&[b'x'; 256 << 10]).unwrap();
        if fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 64 << 10, 64 << 10).is_err() {
            return;
        }
        let mut holes = Holes::open(&path).unwrap();
        let mut read = Vec::new();
        holes.read_to_end(&mut read).unwrap();
        let gap = "\n... 64.0 KiB left out ...\n";
        assert_eq!(read, [&[b'x'; 64 << 10][..], gap.as_bytes(), &[b'x'; 128 << 10]].concat());
        file.write_all(b"more").unwrap();
        read.clear();
        holes.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"more", "it is read on");
    }
}
