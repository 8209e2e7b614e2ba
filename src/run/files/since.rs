//! Whether what an attempt made is still as it left it, told without reading it.
//!
//! The system notes when a file was last changed in any way, and nobody can set that time back. So what was changed after
//! the attempt had ended is not what it made, or not surely: another name or other permissions are noted as well, and what was
//! looked at as the attempt ended tells them from another content.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Digest;
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

/// What was made, as it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsLeft {
    /// When the process that made it had ended, ms since the Unix epoch.
    pub at: Millis,
    /// The marks of all of it then, if somebody looked.
    pub marks: Option<Digest>,
}

impl AsLeft {
    /// Returns the first of these files and folders, which are all that was made, that was changed since, or is gone where the
    /// marks say that it was there.
    #[must_use]
    pub fn first_changed<'p>(&self, places: &'p [PathBuf]) -> Option<&'p Path> {
        let is_gone = |place: &PathBuf| self.marks.is_some() && !place.exists();
        let is_suspect = |place: &&PathBuf| is_gone(place) || is_changed_since(place, self.at);
        let suspect = places.iter().find(is_suspect)?;
        let is_as_it_was = self.marks.is_some_and(|then| Marks::of_all(places.to_vec()).digest() == then);
        (!is_as_it_was).then_some(suspect)
    }
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
        Self::of_at_most(paths, Self::MOST)
    }

    /// Looks at files, through links; `None` where that is more than can be done in passing.
    #[must_use]
    pub fn of_files(paths: impl IntoIterator<Item = PathBuf>) -> Option<Self> {
        let mut all = Vec::new();
        for path in paths {
            let Ok(found) = path.metadata() else { continue };
            all.push((path, [found.mtime(), found.mtime_nsec()], found.ino(), found.size()));
            if all.len() > Self::MOST {
                return None;
            }
        }
        all.sort();
        Some(Self(all))
    }

    /// Looks at all of them, however many that are.
    #[must_use]
    pub fn of_all(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::of_at_most(paths, usize::MAX).unwrap_or(Self(Vec::new()))
    }

    fn of_at_most(paths: impl IntoIterator<Item = PathBuf>, most: usize) -> Option<Self> {
        let (mut open, mut all) = (Vec::from_iter(paths), Vec::new());
        while let Some(path) = open.pop() {
            let Ok(found) = path.symlink_metadata() else { continue };
            if found.is_dir() {
                open.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            // Another name for the same file, a hard link, is no change of it.
            all.push((path, [found.mtime(), found.mtime_nsec()], found.ino(), found.size()));
            if all.len() + open.len() > most {
                return None;
            }
        }
        all.sort();
        Some(Self(all))
    }

    /// Returns what stands for all of them.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        for (path, [seconds, ns], inode, size) in &self.0 {
            let path = path.as_os_str().as_bytes();
            bytes.extend_from_slice(&(path.len() as u64).to_le_bytes());
            bytes.extend_from_slice(path);
            [seconds.cast_unsigned(), ns.cast_unsigned(), *inode, *size]
                .iter()
                .for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        }
        Digest::of(&bytes)
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

    #[test]
    fn other_names_and_permissions_are_no_change_of_what_was_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let places = [dir.path().join("out"), dir.path().join("folder")];
        fs::write(&places[0], "1").unwrap();
        fs::create_dir(&places[1]).unwrap();
        let left = |marks| AsLeft { at: Millis(clock::now().0 - 3_600_000), marks };
        let (unseen, seen) = (left(None), left(Some(Marks::of_all(places.to_vec()).digest())));
        fs::hard_link(&places[0], dir.path().join("backup")).unwrap();
        fs::set_permissions(&places[0], std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(unseen.first_changed(&places), Some(places[0].as_path()));
        assert_eq!(seen.first_changed(&places), None);
        fs::write(places[1].join("x"), "").unwrap();
        assert_eq!(seen.first_changed(&places), Some(places[0].as_path()), "one of them is another");
        fs::remove_file(&places[0]).unwrap();
        let just_now = AsLeft { at: Millis(clock::now().0 + 3_600_000), marks: seen.marks };
        assert_eq!(just_now.first_changed(&places), Some(places[0].as_path()), "it is gone");
    }
}
