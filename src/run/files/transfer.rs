//! Reading and copying of files, however large they are: how far it is, for whoever waits for it, and calling it off.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Digest;
use super::room::Room;
use crate::units::Bytes;

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

/// Bytes of zeros that may take no room: a page.
const BLOCK: usize = 4 << 10;

/// Bytes that the kernel copies at a time.
const LONG_PIECE: u64 = 16 << 20;

/// What is read and copied for one purpose, on however many threads.
#[derive(Debug, Default)]
pub struct Transfer {
    files: AtomicU64,
    bytes: AtomicU64,
    /// The file that was begun last.
    last: Mutex<String>,
    off: Arc<AtomicBool>,
    pub(in crate::run) room: Room,
}

/// How far a transfer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoFar {
    /// The file that was begun last.
    pub last: String,
    /// How many were begun.
    pub files: u64,
    /// What was read of all.
    pub bytes: Bytes,
}

impl Transfer {
    /// Makes one that takes nothing of what is to be kept free: `keep_free`, or what is usual for the disk.
    #[must_use]
    pub fn keeping_free(keep_free: Option<Bytes>) -> Self {
        Self { room: Room::new(keep_free), ..Self::default() }
    }

    /// Returns how far it is; `None` before the first file.
    #[must_use]
    pub fn so_far(&self) -> Option<SoFar> {
        let files = self.files.load(Ordering::Relaxed);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = Bytes(self.bytes.load(Ordering::Relaxed));
        (files > 0).then_some(SoFar { last, files, bytes })
    }

    /// Calls off whatever is under way and whatever would come.
    pub fn call_off(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    /// Returns what calls it off once it is set, as by a signal.
    #[must_use]
    pub fn switch(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.off)
    }

    /// Whether it was called off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Fails once it was called off.
    pub(in crate::run) fn go_on(&self) -> io::Result<()> {
        // Not as `Interrupted`: a reader that meets that tries again.
        if self.is_off() { Err(io::Error::other("it was called off")) } else { Ok(()) }
    }

    /// Notes that a file is begun.
    pub(in crate::run) fn begin(&self, path: &str) {
        path.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Copies a file with its permissions; what is left of the copy where it fails is for the caller to remove.
    pub(in crate::run) fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut from = File::open(from)?;
        let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
        if is_sparse(&from.metadata()?) {
            self.copy_sparse(&mut from, &mut to)?;
            return to.set_permissions(from.metadata()?.permissions());
        }
        loop {
            self.go_on()?;
            match io::copy(&mut Read::by_ref(&mut from).take(LONG_PIECE), &mut to)? {
                0 => return to.set_permissions(from.metadata()?.permissions()),
                n => self.bytes.fetch_add(n, Ordering::Relaxed),
            };
        }
    }

    /// Reads to the end and returns digest and length.
    pub(in crate::run) fn digest(&self, from: &mut impl Read) -> io::Result<(Digest, u64)> {
        self.copy_and_digest(from, &mut io::sink())
    }

    /// Copies a file to an empty one in a folder, if there is room for that, and returns digest and length of what was copied.
    /// What takes no room in the one takes none in the other.
    pub(in crate::run) fn copy_file(&self, from: &mut File, to: &mut File, folder: &Path) -> io::Result<(Digest, u64)> {
        let found = from.metadata()?;
        if is_sparse(&found) {
            self.room.look(folder, taken(&found))?;
            return self.copy_sparse(from, to);
        }
        self.room.take(to, folder, found.len())?;
        self.copy_and_digest(from, to)
    }

    fn copy_sparse(&self, from: &mut File, to: &mut File) -> io::Result<(Digest, u64)> {
        let copied = self.copy_and_digest(from, &mut WithHoles(to))?;
        to.set_len(copied.1)?;
        Ok(copied)
    }

    /// Copies to the end and returns digest and length of what was copied.
    pub(in crate::run) fn copy_and_digest(
        &self,
        from: &mut impl Read,
        to: &mut impl Write,
    ) -> io::Result<(Digest, u64)> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE];
        loop {
            self.go_on()?;
            let n = match from.read(&mut buffer) {
                Ok(0) => return Ok((Digest(*hasher.finalize().as_bytes()), hasher.count())),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..n]);
            to.write_all(&buffer[..n])?;
            self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

/// A new file in which zeros take no room. Where holes are is not asked: some file systems have answered wrongly of what was
/// written a moment ago.
struct WithHoles<'f>(&'f mut File);

impl Write for WithHoles<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_hole = |block: &[u8]| block.iter().all(|byte| *byte == 0);
        let mut rest = bytes;
        while let Some(first) = rest.chunks(BLOCK).next() {
            let hole = is_hole(first);
            let alike = rest.chunks(BLOCK).take_while(|block| is_hole(block) == hole).map(<[u8]>::len).sum();
            let (part, more) = rest.split_at(alike);
            if hole {
                self.0.seek_relative(i64::try_from(part.len()).unwrap_or(i64::MAX))?;
            } else {
                self.0.write_all(part)?;
            }
            rest = more;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Returns what the content of a file takes of the disk, in bytes, or would take as a copy.
pub(super) fn taken(found: &Metadata) -> u64 {
    // 512 is the unit of the system call, whatever the file system's is.
    found.len().min(found.blocks().saturating_mul(512))
}

fn is_sparse(found: &Metadata) -> bool {
    taken(found) < found.len()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_takes_no_room_takes_none_in_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let transfer = Transfer::keeping_free(Some(Bytes::ZERO));
        // Bytes at these offsets, and the length of the file.
        let files: [(&[u64], u64); 5] =
            [(&[], 0), (&[], 9 << 20), (&[0, 5 << 20], 9 << 20), (&[3 << 20], 8 << 20), (&[1, (4 << 20) - 1], 4 << 20)];
        for (written, length) in files {
            let [from, to, moved] = ["from", "to", "moved"].map(|name| folder.path().join(name));
            let file = File::create(&from).unwrap();
            file.set_len(length).unwrap();
            written.iter().for_each(|at| file.write_all_at(b"x", *at).unwrap());
            let whole = std::fs::read(&from).unwrap();
            let blocks = |path: &Path| path.metadata().unwrap().blocks();
            let mut copy = File::create(&to).unwrap();
            let copied = transfer.copy_file(&mut File::open(&from).unwrap(), &mut copy, folder.path()).unwrap();
            assert_eq!(copied, (Digest::of(&whole), length), "{written:?}");
            transfer.copy(&from, &moved).unwrap();
            for copy in [&to, &moved] {
                assert!(std::fs::read(copy).unwrap() == whole && blocks(copy) <= blocks(&from), "{written:?}");
            }
        }
    }
}
