//! Room for copies: what the cache takes never comes out of what is kept free for those that run.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

use crate::probe::disk::Disk;
use crate::units::Bytes;

/// Bytes from which on the room for a copy is taken before it is written, which costs two calls.
const LARGE: u64 = 1 << 20;

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
#[error("{needed} are needed, and only {free} are free where {reserve} are kept free")]
pub(super) struct NoRoom {
    needed: Bytes,
    free: Bytes,
    reserve: Bytes,
}

/// What may be written to disks.
#[derive(Debug, Default)]
pub(in crate::run) struct Room {
    /// What is kept free; without it, what is usual for the disk.
    pub(super) keep_free: Option<Bytes>,
    /// Two that look at once would both be promised the same room.
    alone: Mutex<()>,
}

impl Room {
    /// Keeps this much free.
    pub(super) fn new(keep_free: Option<Bytes>) -> Self {
        Self { keep_free, alone: Mutex::default() }
    }

    /// Looks whether there is room in a folder for so many bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where there is not.
    pub(in crate::run) fn look(&self, folder: &Path, bytes: u64) -> io::Result<()> {
        let Some(disk) = Disk::of(folder) else { return Ok(()) };
        let reserve = self.keep_free.unwrap_or_else(|| disk.usual_reserve());
        if bytes.saturating_add(reserve.0) <= disk.free.0 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::StorageFull, NoRoom { needed: Bytes(bytes), free: disk.free, reserve }))
    }

    /// Takes the room for so many bytes that are about to be written to a file in a folder, where the file system can.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where there is none.
    pub(super) fn take(&self, file: &File, folder: &Path, bytes: u64) -> io::Result<()> {
        if bytes < LARGE {
            return self.look(folder, bytes);
        }
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(folder, bytes)?;
        match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(io::ErrorKind::StorageFull.into()),
            // Not every file system can, and a copy needs no more than its bytes.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::disk::is_full;

    #[test]
    fn what_is_kept_free_is_nobodys_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("copy")).unwrap();
        Room::new(Some(Bytes::ZERO)).take(&file, folder.path(), 2 * LARGE).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0, "room is no content");
        let error = Room::new(Some(Bytes(u64::MAX))).take(&file, folder.path(), 1).unwrap_err();
        assert!(is_full(&error) && error.to_string().starts_with("1 B are needed, and only "), "{error}");
        assert!(is_full(&Room::new(Some(Bytes(1))).take(&file, folder.path(), u64::MAX).unwrap_err()));
    }
}
