//! Log files of our own that may grow as long as a run does: one that has become long is put aside for a new one, and the
//! one that was put aside before is lost.

use std::fs::File;
use std::io;
use std::path::Path;

/// How long such a file may become; with the one that is put aside twice as much is kept.
pub(super) const LONGEST: u64 = 32 << 20;

/// Opens a log file to add to it, making it where there is none.
///
/// # Errors
/// Where it cannot be opened.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Puts a log file of this length aside if it is too long, under its name with `.1`, and returns the new one.
///
/// # Errors
/// Where it cannot be renamed, or no new one made.
pub(super) fn rotate(path: &Path, length: u64, longest: u64) -> io::Result<Option<File>> {
    if length < longest {
        return Ok(None);
    }
    std::fs::rename(path, path.with_added_extension("1"))?;
    open(path).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_the_newest_part_and_the_one_before_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        std::fs::write(&path, "first").unwrap();
        assert!(rotate(&path, 5, 6).unwrap().is_none());
        for text in ["second", "third"] {
            let length = std::fs::metadata(&path).unwrap().len();
            let mut fresh = rotate(&path, length, 5).unwrap().unwrap();
            io::Write::write_all(&mut fresh, text.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read("x.log").as_str(), read("x.log.1").as_str()), ("third", "second"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
