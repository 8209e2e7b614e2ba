//! The next record of a sentinel, with room made for it beforehand.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Record;

/// The next record of an attempt, which has its room on the disk before there is anything to write.
pub(super) struct Next<'p> {
    path: &'p Path,
    fresh: PathBuf,
    file: File,
}

impl<'p> Next<'p> {
    /// More than a record takes, but for a long reason why there is no process.
    const ROOM: u64 = 4 << 10;

    /// Makes room for a record at this path.
    pub(super) fn reserve(path: &'p Path) -> io::Result<Self> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let fresh = path.with_extension("new");
        let file = File::create(&fresh)?;
        // A file system that cannot do it, or has no room, has it later or has not.
        let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, Self::ROOM);
        Ok(Self { path, fresh, file })
    }

    /// Puts a record in the place of the one before, whole or not at all; `durably`: so that it survives a power loss.
    pub(super) fn write(mut self, record: &Record, durably: bool) -> io::Result<()> {
        self.file.write_all(&serde_json::to_vec(record)?)?;
        if durably {
            self.file.sync_all()?;
        }
        fs::rename(&self.fresh, self.path)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if durably { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::read;
    use super::*;
    use crate::run::event::Process;
    use crate::units::Millis;

    #[test]
    fn the_next_record_has_its_room_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attempts/a.1.json");
        let next = Next::reserve(&path).unwrap();
        let made = next.file.metadata().unwrap();
        assert!(made.len() == 0 && made.blocks() * 512 >= Next::ROOM, "{made:?}");
        assert_eq!(read(&path), None);
        let record = Record::of(Process { pid: 7, started: 9 }, Millis(5));
        next.write(&record, true).unwrap();
        assert_eq!(read(&path), Some(record));
    }
}
