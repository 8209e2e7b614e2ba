//! What runs leave on the disk beside the record: logs, checkpoints, progress, what was set aside.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::cache::aside::is_found;
use super::files::tree::{children, remove_all, size};
use super::launch;
use crate::units::Bytes;

/// Removes the folder of a run, and returns what it took and where that stays which no run has made: results that were
/// there before the first one. `only_look`: removes nothing.
///
/// # Errors
/// Where it cannot be read or removed.
pub fn remove(folder: &Path, only_look: bool) -> io::Result<(Bytes, Vec<PathBuf>)> {
    let aside = folder.join("aside");
    let found: Vec<PathBuf> = children(&aside)?.into_iter().filter(|path| is_found(path)).collect();
    let all = if found.is_empty() {
        vec![folder.to_owned()]
    } else {
        let within = children(&aside)?.into_iter().filter(|path| !is_found(path));
        children(folder)?.into_iter().filter(|path| *path != aside).chain(within).collect()
    };
    let bytes = all.iter().map(|path| size(path)).sum::<io::Result<u64>>()?;
    if !only_look {
        all.iter().try_for_each(|path| remove_all(path))?;
    }
    Ok((Bytes(bytes), found))
}

/// Removes what tasks of a run keep to go on from, and returns how many had anything there and what it took.
/// `only_look`: removes nothing.
///
/// # Errors
/// Where it cannot be read or removed.
pub fn remove_checkpoints<'t>(
    folder: &Path,
    tasks: impl Iterator<Item = &'t str>,
    only_look: bool,
) -> io::Result<(usize, Bytes)> {
    let (mut count, mut bytes) = (0, 0);
    // Every attempt has a folder; most stay empty.
    let there: HashSet<PathBuf> = children(&folder.join("checkpoints"))?.into_iter().collect();
    for path in tasks.map(|task| launch::checkpoints(folder, task)).filter(|path| there.contains(path)) {
        let is_empty = children(&path)?.is_empty();
        bytes += size(&path)?;
        count += usize::from(!is_empty);
        if !only_look {
            remove_all(&path)?;
        }
    }
    Ok((count, Bytes(bytes)))
}

/// Less than this is not worth a word.
const WORTH_A_WORD: u64 = 1 << 20;

/// Something of ours that takes room on the disk and may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MayGo {
    /// What failed attempts left, and what was in their way.
    Aside {
        /// All of it.
        all: Bytes,
        /// The largest of it, and what that takes.
        largest: (PathBuf, Bytes),
    },
    /// Results in the cache.
    Cache(Bytes),
}

/// Returns what takes the most room in a state folder of what may go; `None` where nothing takes much.
#[must_use]
pub fn what_may_go(state: &Path) -> Option<MayGo> {
    let runs = children(&state.join("runs")).unwrap_or_default();
    let aside = runs.iter().flat_map(|run| children(&run.join("aside")).unwrap_or_default());
    let aside = aside.filter(|path| !is_found(path)).map(|path| (size(&path).unwrap_or(0), path));
    let aside: Vec<(u64, PathBuf)> = aside.collect();
    let all: u64 = aside.iter().map(|(bytes, _)| bytes).sum();
    let cached = size(&state.join("cache")).unwrap_or(0);
    match aside.into_iter().max() {
        _ if all.max(cached) < WORTH_A_WORD => None,
        Some((bytes, path)) if all >= cached => Some(MayGo::Aside { all: Bytes(all), largest: (path, Bytes(bytes)) }),
        Some(_) | None => Some(MayGo::Cache(Bytes(cached))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::run::cache::aside::forget_old;

    #[test]
    fn a_folder_goes_but_not_what_no_run_has_made() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("r");
        for name in ["logs", "aside/a.1.before", "aside/a.1.found"] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("x"), vec![1; 10_000]).unwrap();
        }
        let found = folder.join("aside/a.1.found");
        let (bytes, kept) = remove(&folder, true).unwrap();
        assert!(bytes >= Bytes(20_000) && folder.join("logs/x").exists() && kept == [found.clone()], "{bytes:?}");
        assert_eq!(remove(&folder, false).unwrap(), (bytes, vec![found.clone()]));
        assert_eq!(children(&folder).unwrap(), [folder.join("aside")]);
        assert_eq!(children(&folder.join("aside")).unwrap(), std::slice::from_ref(&found));
        remove_all(&found).unwrap();
        remove(&folder, false).unwrap();
        assert!(!folder.exists());
        assert_eq!(remove(&folder, false).unwrap().0, Bytes::ZERO);
    }

    #[test]
    fn what_is_set_aside_takes_as_much_whichever_command_removes_it() {
        let state = tempfile::tempdir().unwrap();
        let run = state.path().join("runs/r");
        fs::create_dir_all(run.join("aside/a.1/deep")).unwrap();
        fs::write(run.join("aside/a.1/deep/x"), [1; 10_000]).unwrap();
        let (of_run, _) = remove(&run, true).unwrap();
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(forget_old(state.path(), later).unwrap(), (1, of_run.0));
    }

    #[test]
    fn who_needs_room_is_told_what_takes_the_most_and_may_go() {
        let state = tempfile::tempdir().unwrap();
        let fill = |path: &str, bytes: usize| {
            let path = state.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; bytes]).unwrap();
        };
        let told = || what_may_go(state.path());
        fill("runs/r/aside/a.1.found/x", 9 << 20);
        assert_eq!(told(), None, "that no run has made");
        fill("runs/r/aside/a[n=1].1/x", 2 << 20);
        fill("runs/q/aside/a.1.before/x", 1 << 20);
        let Some(MayGo::Aside { all, largest: (path, bytes) }) = told() else { panic!("{:?}", told()) };
        assert!(all >= Bytes(3 << 20) && bytes >= Bytes(2 << 20) && bytes < all, "{all} {bytes}");
        assert!(path.ends_with("runs/r/aside/a[n=1].1"), "{}", path.display());
        fill("cache/objects/x", 4 << 20);
        assert!(matches!(told(), Some(MayGo::Cache(_))), "{:?}", told());
    }

    #[test]
    fn checkpoints_go_of_the_tasks_that_are_named() {
        let state = tempfile::tempdir().unwrap();
        for task in ["a", "b", "empty"] {
            fs::create_dir_all(launch::checkpoints(state.path(), task)).unwrap();
        }
        for task in ["a", "b"] {
            fs::write(launch::checkpoints(state.path(), task).join("x"), vec![1; 10_000]).unwrap();
        }
        let (count, bytes) = remove_checkpoints(state.path(), ["a", "empty", "gone"].into_iter(), false).unwrap();
        assert!(count == 1 && bytes >= Bytes(10_000), "{count} {bytes:?}");
        assert_eq!(children(&state.path().join("checkpoints")).unwrap(), [launch::checkpoints(state.path(), "b")]);
    }
}
