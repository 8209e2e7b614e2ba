//! Results in their place: put there whole or not at all, and taken out of the way without being lost.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::manifest::{Entry, Kind, decode};
use super::objects::{Lost, Objects};
use super::transfer::{Transfer, taken};

/// How the names of folders end that hold earlier results which were in the way of an attempt.
pub const BEFORE: &str = "before";
/// The same for what no run has made.
pub const FOUND: &str = "found";

/// Whether a folder that was set aside holds what no run has made.
#[must_use]
pub fn is_found(folder: &Path) -> bool {
    folder.extension().is_some_and(|extension| extension == FOUND)
}

/// Moves a file or folder, also to another file system, and returns whether it was there.
///
/// # Errors
/// Where it cannot be moved, or was to be copied and there is no room for that, or it was called off: it is where it was then.
pub fn relocate(from: &Path, to: &Path, transfer: &Transfer) -> io::Result<bool> {
    if let Err(error) = from.symlink_metadata() {
        return if error.kind() == io::ErrorKind::NotFound { Ok(false) } else { Err(error) };
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let moved = match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            transfer.room.look(to.parent().unwrap_or(to), size(from)?)?;
            copy_all(from, to, transfer)?;
            remove_all(from)
        }
        // An earlier attempt of the same number, of a run that was cut off, has left something.
        Err(_) if to.symlink_metadata().is_ok() => {
            remove_all(to)?;
            fs::rename(from, to)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => rename_closed(from, to).map_err(|_| error),
        other => other,
    };
    moved.map(|()| true)
}

/// Moves a folder of ours that may not be written to, and leaves it as it was: to move it elsewhere is to write to it.
fn rename_closed(from: &Path, to: &Path) -> io::Result<()> {
    let before = from.symlink_metadata()?.permissions();
    fs::set_permissions(from, Permissions::from_mode(before.mode() | 0o700))?;
    let moved = fs::rename(from, to);
    fs::set_permissions(if moved.is_ok() { to } else { from }, before)?;
    moved
}

/// Removes a file or a folder with all that is in it; that it is not there is no error.
///
/// # Errors
/// Where it cannot be removed.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_all(path).and_then(|()| fs::remove_dir_all(path)).map_err(|_| error)
            }
            removed => removed,
        },
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Lets us write to a folder and to all that are in it.
fn open_all(folder: &Path) -> io::Result<()> {
    let mode = folder.symlink_metadata()?.permissions().mode();
    fs::set_permissions(folder, Permissions::from_mode(mode | 0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_all(&entry.path())?;
        }
    }
    Ok(())
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

/// Removes what runs of a state folder have set aside before a time, but what no run has made, and returns how many files and folders that were and
/// what they took, in bytes.
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

/// Returns what a file, or all that are in a folder, take of the disk, in bytes: nothing where it is not there, or is removed
/// meanwhile. Links are not followed.
///
/// # Errors
/// Where it cannot be read.
pub fn size(path: &Path) -> io::Result<u64> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => children(path)?.iter().map(|path| size(path)).sum(),
        Ok(found) => Ok(taken(&found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Returns what is in a folder; nothing where it is not there.
///
/// # Errors
/// Where it cannot be read.
pub fn children(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Copies a file, a link, a pipe or a folder with all that is in it, to where nothing is.
///
/// # Errors
/// Where something cannot be read or written, or it was called off; nothing is left of the copy then.
pub fn copy_all(from: &Path, to: &Path, transfer: &Transfer) -> io::Result<()> {
    remove_all(to)?;
    copy_what_is_in(from, to, transfer).inspect_err(|_| {
        // The first error is the one to report.
        let _ = remove_all(to);
    })
}

fn copy_what_is_in(from: &Path, to: &Path, transfer: &Transfer) -> io::Result<()> {
    let found = from.symlink_metadata()?;
    if found.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    let kind = found.file_type();
    if kind.is_fifo() || kind.is_socket() {
        // Whoever opened one would wait for its other end.
        let mode = Mode::from_raw_mode(found.mode());
        return Ok(mknodat(CWD, to, FileType::from_raw_mode(found.mode()), mode, 0)?);
    }
    if kind.is_file() {
        return transfer.copy(from, to);
    }
    if !kind.is_dir() {
        return Err(io::Error::other(format!("{} is a device", from.display())));
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_what_is_in(&entry.path(), &to.join(entry.file_name()), transfer)?;
    }
    fs::set_permissions(to, found.permissions())
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

    /// Does something as whoever may not write to what is closed, as root may.
    fn as_an_ordinary_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        std::thread::scope(|scope| {
            let work = || {
                let mut sets = capabilities(None).unwrap();
                sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
                set_capabilities(None, sets).unwrap();
                work()
            };
            scope.spawn(work).join().unwrap()
        })
    }

    #[test]
    fn a_folder_that_may_not_be_written_to_is_moved_and_removed_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("out"), folder.path().join("aside/out"));
        fs::create_dir_all(from.join("deep")).unwrap();
        fs::write(from.join("deep/x"), "one").unwrap();
        for closed in [from.join("deep"), from.clone()] {
            fs::set_permissions(closed, Permissions::from_mode(0o555)).unwrap();
        }
        as_an_ordinary_user(|| {
            assert!(relocate(&from, &to, &Transfer::default()).unwrap());
            let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
            assert_eq!((mode(&to), mode(&to.join("deep"))), (0o555, 0o555));
            assert_eq!(fs::read(to.join("deep/x")).unwrap(), b"one");
            remove_all(&to).unwrap();
            assert!(!to.exists());
        });
    }

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
    fn a_pipe_is_copied_without_being_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::write(from.join("x"), "1").unwrap();
        copy_all(&from, &to, &Transfer::default()).unwrap();
        assert!(to.join("pipe").symlink_metadata().unwrap().file_type().is_fifo());
        assert_eq!(fs::read(to.join("x")).unwrap(), b"1");
    }

    #[test]
    fn a_copy_that_is_called_off_leaves_everything_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("x"), "1").unwrap();
        let transfer = Transfer::default();
        copy_all(&from, &to, &transfer).unwrap();
        assert_eq!(fs::read(to.join("x")).unwrap(), b"1");
        transfer.call_off();
        assert!(copy_all(&from, &to, &transfer).is_err() && from.join("x").exists() && !to.exists());
    }

    #[test]
    fn nothing_moves_to_a_file_system_without_room_for_it() {
        let here = tempfile::tempdir().unwrap();
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
        let Some(there) =
            tempfile::tempdir_in("/dev/shm").ok().filter(|there| device(there.path()) != device(here.path()))
        else {
            // There is one file system only.
            return;
        };
        let (from, to) = (here.path().join("from"), there.path().join("to"));
        fs::write(&from, "old").unwrap();
        let full = relocate(&from, &to, &Transfer::keeping_free(Some(Bytes(u64::MAX)))).unwrap_err();
        assert!(full.to_string().starts_with("3 B are needed, and only "), "{full}");
        assert!(from.exists() && !to.exists());
        assert!(relocate(&from, &to, &Transfer::keeping_free(Some(Bytes::ZERO))).unwrap());
        assert!(!from.exists() && to.exists());
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

    #[test]
    fn something_moved_aside_replaces_what_an_earlier_try_left_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("aside/a"));
        for text in ["one", "two"] {
            fs::create_dir_all(&from).unwrap();
            fs::write(from.join("x"), text).unwrap();
            relocate(&from, &to, &Transfer::default()).unwrap();
        }
        assert_eq!(fs::read(to.join("x")).unwrap(), b"two");
        relocate(&from, &to, &Transfer::default()).unwrap();
        assert!(to.exists(), "nothing to move leaves what is there");
    }
}
