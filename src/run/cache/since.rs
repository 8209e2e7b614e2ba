//! Whether what an attempt made is still as it left it, told without reading it.
//!
//! The system notes when a file was last changed in any way, and nobody can set that time back. So what was changed after
//! the attempt had ended is not what it made, or not surely.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::units::Millis;

/// What a run notes is the beginning of a millisecond, counted from the beginning of another: so much earlier than it was.
const ROUNDING: u64 = 2;

/// Whether something is there that was changed after a time, ms since the Unix epoch; in a folder, anything.
#[must_use]
pub fn is_changed_since(path: &Path, time: Millis) -> bool {
    fs::metadata(path).is_ok_and(|found| is_newer(path, &found, time))
}

fn is_newer(path: &Path, found: &Metadata, time: Millis) -> bool {
    let changed = found.ctime().saturating_mul(1_000).saturating_add(found.ctime_nsec() / 1_000_000);
    if u64::try_from(changed).is_ok_and(|changed| changed > time.0.saturating_add(ROUNDING)) {
        return true;
    }
    // What cannot be listed was not changed by anyone who could not either.
    let within = found.is_dir().then(|| fs::read_dir(path).ok()).flatten();
    within.into_iter().flatten().flatten().any(|entry| {
        // Links are not followed here: what they lead to is not ours.
        entry.metadata().is_ok_and(|found| is_newer(&entry.path(), &found, time))
    })
}

/// What the system says of the last change of some files: the same again as long as nobody has changed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks(Vec<(PathBuf, [i64; 2], u64, u64)>);

impl Marks {
    /// How many files and folders are looked at: that takes a few milliseconds.
    const MOST: usize = 1_000;

    /// Looks at files, and at folders with all that is in them; `None` where that is more than can be done in passing.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Option<Self> {
        let (mut open, mut all) = (Vec::from_iter(paths), Vec::new());
        while let Some(path) = open.pop() {
            let Ok(found) = path.symlink_metadata() else { continue };
            if found.is_dir() {
                open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            // Another name for the same file, a hard link, is no change of it.
            all.push((path, [found.mtime(), found.mtime_nsec()], found.ino(), found.size()));
            if all.len() + open.len() > Self::MOST {
                return None;
            }
        }
        all.sort();
        Some(Self(all))
    }

    /// Returns the first file that is not as it was at another time.
    #[must_use]
    pub fn first_other<'m>(&'m self, then: &'m Self) -> Option<&'m Path> {
        let same = self.0.iter().zip(&then.0).take_while(|(now, then)| now == then).count();
        let mut others = [self, then].into_iter().filter_map(|marks| marks.0.get(same));
        others.next().map(|(path, ..)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::clock;

    #[test]
    fn a_change_in_place_is_seen_and_reading_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("x"), "1").unwrap();
        let marks = || Marks::of([dir.path().to_owned()]).unwrap();
        let before = marks();
        fs::read(deep.join("x")).unwrap();
        assert_eq!(marks(), before);
        fs::write(deep.join("x"), "more").unwrap();
        assert_eq!(marks().first_other(&before), Some(deep.join("x").as_path()));
        (0..Marks::MOST).for_each(|n| fs::write(deep.join(n.to_string()), "").unwrap());
        assert_eq!(Marks::of([dir.path().to_owned()]), None);
    }

    #[test]
    fn what_was_changed_later_is_found_also_deep_in_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("x"), "1").unwrap();
        let now = clock::now();
        assert!(!is_changed_since(dir.path(), now));
        assert!(is_changed_since(dir.path(), Millis(now.0 - 3_600_000)));
        // The file system's clock goes in steps of some milliseconds.
        while clock::now().0 < now.0 + 50 {
            fs::write(deep.join("x"), "2").unwrap();
        }
        assert!(is_changed_since(dir.path(), now));
        assert!(!is_changed_since(&dir.path().join("absent"), Millis::ZERO));
    }
}
