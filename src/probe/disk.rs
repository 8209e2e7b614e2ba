//! Room on the file system of a folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::units::Bytes;

/// A folder's file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The folder.
    pub folder: PathBuf,
    /// What we may still write there.
    pub free: Bytes,
    /// All of it.
    pub all: Bytes,
}

impl Disk {
    /// Asks for the room of a folder; `None` where the system does not say.
    #[must_use]
    pub fn of(folder: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| Bytes(blocks.saturating_mul(stat.f_frsize));
        Some(Self { folder: folder.to_owned(), free: bytes(stat.f_bavail), all: bytes(stat.f_blocks) })
    }

    /// Returns what is best kept free where nobody says: a gibibyte, or a twentieth of a small one.
    #[must_use]
    pub fn usual_reserve(&self) -> Bytes {
        Bytes::GIB.min(Bytes(self.all.0 / 20))
    }
}

/// Whether something could not be written for want of room.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_room_and_one_that_does_not_exist_is_unknown() {
        let disk = Disk::of(Path::new("/")).unwrap();
        assert!(disk.free <= disk.all && disk.usual_reserve() <= Bytes::GIB);
        assert_eq!(Disk::of(Path::new("/no/such/folder")), None);
    }
}
