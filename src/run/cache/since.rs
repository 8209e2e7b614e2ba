//! Whether what an attempt made is still as it left it, told without reading it.
//!
//! The system notes when a file was last changed in any way, and nobody can set that time back. So what was changed after
//! the attempt had ended is not what it made, or not surely.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::clock;

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
