//! Results in their place: put there whole or not at all, and taken out of the way without being lost.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{Entry, Kind, decode};
use super::objects::{Lost, Objects};
use crate::run::files::tree::{relocate, remove_all, size};

/// How the names of folders end that hold earlier results which were in the way of an attempt.
pub const BEFORE: &str = "before";
/// The same for what no run has made.
pub const FOUND: &str = "found";

/// Whether a folder that was set aside holds what no run has made.
#[must_use]
pub fn is_found(folder: &Path) -> bool {
    folder.extension().is_some_and(|extension| extension == FOUND)
}

/// Removes what failed attempts of a run left, `TASK.NUMBER`, once the run has succeeded: the results are there. What was
/// in their way stays.
///
/// # Errors
/// Where it cannot be removed.
pub fn forget_leftovers(aside: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(aside) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension != BEFORE && extension != FOUND) {
            remove_all(&path)?;
        }
    }
    // Fails where something stays.
    let _ = fs::remove_dir(aside);
    Ok(())
}

/// Removes what runs of a state folder have set aside before a time, but what no run has made, and returns how many files and
/// folders that were and what they took, in bytes.
///
/// # Errors
/// Where it cannot be read or removed.
pub fn forget_old(state: &Path, before: SystemTime) -> io::Result<(usize, u64)> {
    let (mut count, mut bytes) = (0, 0);
    let Ok(runs) = fs::read_dir(state.join("runs")) else { return Ok((0, 0)) };
    for run in runs {
        let aside = run?.path().join("aside");
        let Ok(entries) = fs::read_dir(&aside) else { continue };
        for entry in entries {
            let entry = entry?;
            // The folder was made when something was first put into it.
            let is_ours = entry.path().extension().is_none_or(|extension| extension != FOUND);
            if is_ours && entry.metadata()?.modified()? < before {
                bytes += size(&entry.path())?;
                remove_all(&entry.path())?;
                count += 1;
            }
        }
        let _ = fs::remove_dir(aside);
    }
    Ok((count, bytes))
}

/// Puts a result into its place. What is there goes to `old`.
///
/// # Errors
/// Where an object is gone or damaged, or the place cannot be written; what was there is there then.
pub fn restore(objects: &Objects, entry: &Entry, place: &Path, old: &Path) -> Result<(), Lost> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| Lost::Refused { path, source }
    };
    let folder = place.parent().unwrap_or(place);
    fs::create_dir_all(folder).map_err(refused(folder))?;
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.trainyard-restored"));
    // Not in the user's folder if possible: what a killed process leaves there stays.
    let unfinished = objects.workshop.place_for(folder).unwrap_or_else(|| beside.clone());
    remove_all(&beside).map_err(refused(&beside))?;
    let built = match &entry.kind {
        Kind::File { mode, digest, .. } => objects.restore(digest, &unfinished, *mode),
        Kind::Tree { digest, .. } => {
            objects.bytes(digest).and_then(|manifest| build(objects, &manifest, digest, &unfinished))
        }
        // Neither is ever an output by itself.
        Kind::Folder { .. } | Kind::Link { .. } => Ok(()),
    };
    let placed = built.and_then(|()| {
        relocate(place, old, &objects.transfer).map_err(refused(place))?;
        let renamed = match fs::rename(&unfinished, place) {
            // One file system, mounted twice.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                relocate(&unfinished, &beside, &objects.transfer).and_then(|_| fs::rename(&beside, place))
            }
            renamed => renamed,
        };
        // A folder that may not be written cannot be renamed into another one.
        let mode = match &entry.kind {
            Kind::Tree { mode, .. } => Some(Permissions::from_mode(*mode)),
            Kind::File { .. } | Kind::Folder { .. } | Kind::Link { .. } => None,
        };
        renamed.and_then(|()| mode.map_or(Ok(()), |mode| fs::set_permissions(place, mode))).map_err(refused(place))
    });
    if placed.is_err() {
        // The first error is the one to report.
        let _ = remove_all(&unfinished).and_then(|()| remove_all(&beside));
    }
    placed
}

/// Builds a folder from its manifest.
fn build(objects: &Objects, manifest: &[u8], digest: &super::key::Digest, folder: &Path) -> Result<(), Lost> {
    let entries = std::str::from_utf8(manifest).ok().and_then(decode).ok_or(Lost::Damaged(*digest))?;
    let refused = |path: &Path| {
        let path: PathBuf = path.to_owned();
        move |source| Lost::Refused { path, source }
    };
    fs::create_dir_all(folder).map_err(refused(folder))?;
    for Entry { path, kind } in &entries {
        let place = folder.join(path);
        match kind {
            Kind::File { mode, digest, .. } => objects.restore(digest, &place, *mode)?,
            Kind::Folder { .. } => fs::create_dir_all(&place).map_err(refused(&place))?,
            Kind::Link { target } => symlink(target, &place).map_err(refused(&place))?,
            Kind::Tree { .. } => {}
        }
    }
    // A folder that may not be written gets its mode once everything is in it.
    for Entry { path, kind } in entries.iter().rev() {
        if let Kind::Folder { mode } = kind {
            let place = folder.join(path);
            fs::set_permissions(&place, Permissions::from_mode(*mode)).map_err(refused(&place))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::cache::files::Files;
    use crate::units::Bytes;

    #[test]
    fn a_folder_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (objects, place) =
            (Objects::with_room(&folder.path().join("cache"), Some(Bytes::ZERO)), folder.path().join("out"));
        fs::create_dir_all(place.join("deep/empty")).unwrap();
        fs::write(place.join("deep/x"), "one").unwrap();
        fs::set_permissions(place.join("deep/x"), Permissions::from_mode(0o750)).unwrap();
        symlink("deep/x", place.join("link")).unwrap();
        fs::set_permissions(place.join("deep"), Permissions::from_mode(0o555)).unwrap();
        let files = Files::open(folder.path(), &folder.path().join("state")).unwrap();
        let tree = files.tree("out", &[]).unwrap();
        objects.put(&place.join("deep/x")).unwrap();
        objects.put_bytes(tree.manifest.as_bytes()).unwrap();
        let entry = Entry { path: "out".into(), kind: Kind::Tree { mode: 0o755, size: 3, digest: tree.digest } };

        let old = folder.path().join("aside/out");
        restore(&objects, &entry, &place, &old).unwrap();
        assert_eq!(files.tree("out", &[]).unwrap().digest, tree.digest);
        assert_eq!(fs::read(old.join("deep/x")).unwrap(), b"one", "what was there is not lost");
        for folder in [place.join("deep"), old.join("deep")] {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn what_is_aside_goes_once_the_run_has_succeeded_or_it_is_old() {
        let state = tempfile::tempdir().unwrap();
        let aside = state.path().join("runs/r/aside");
        for name in ["a.1", "b[x=0.1].2", "a.1.before", "a.1.found"] {
            fs::create_dir_all(aside.join(name)).unwrap();
            fs::write(aside.join(name).join("out"), "four").unwrap();
        }
        forget_leftovers(&aside).unwrap();
        let left = || fs::read_dir(&aside).map(|entries| entries.count()).unwrap_or(0);
        assert_eq!(left(), 2, "what was in the way stays");
        assert_eq!(forget_old(state.path(), SystemTime::UNIX_EPOCH).unwrap(), (0, 0));
        let later = fs::metadata(&aside).unwrap().modified().unwrap() + std::time::Duration::from_secs(60);
        assert_eq!(forget_old(state.path(), later).unwrap(), (1, 4));
        assert_eq!(left(), 1, "what no run has made stays for ever");
        forget_leftovers(&aside).unwrap();
    }

    #[test]
    fn what_cannot_be_restored_leaves_the_place_as_it_is() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let objects = Objects::with_room(cache.path(), Some(Bytes::ZERO));
        let (place, old) = (folder.path().join("out"), folder.path().join("aside/out"));
        fs::write(&place, "mine").unwrap();
        let digest = super::super::key::Digest::of(b"gone");
        let entry = Entry { path: "out".into(), kind: Kind::File { mode: 0o644, size: 4, digest } };
        assert!(matches!(restore(&objects, &entry, &place, &old), Err(Lost::Missing(_))));
        assert_eq!(fs::read(&place).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn what_is_called_off_while_it_is_restored_leaves_nothing() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let objects = Objects::with_room(cache.path(), Some(Bytes::ZERO));
        let (place, old) = (folder.path().join("out"), folder.path().join("aside/out"));
        let digest = objects.put_bytes(b"kept").unwrap();
        let entry = Entry { path: "out".into(), kind: Kind::File { mode: 0o644, size: 4, digest } };
        objects.transfer.call_off();
        assert!(matches!(restore(&objects, &entry, &place, &old), Err(Lost::Refused { .. })));
        let left = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
        let workshop = fs::read_dir(cache.path().join("tmp")).unwrap().next().unwrap().unwrap().path();
        assert_eq!((left(folder.path()), left(&workshop)), (0, 0));
        assert!(objects.has(&digest, Some(4)), "the object is as good as before");
    }
}
