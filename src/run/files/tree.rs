//! A file, or a folder with all that is in it: moved, copied, removed, and how much of the disk it takes.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::transfer::{Transfer, taken};

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
        // A process that opened one would wait for its other end.
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

#[cfg(test)]
mod tests {
    use super::*;
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
