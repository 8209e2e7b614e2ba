//! Results by their content: one file per digest, in `objects/` of the cache.
//!
//! An object is written beside its place and renamed into it, so that a name never stands for half an object. It is not
//! synced: whatever is taken out is hashed on the way, and an object that a power loss tore is found then, thrown away
//! and made again. Objects are cloned where the file system can (`FICLONE`) and copied elsewhere, never linked: a
//! stage that writes into its output would write into the object.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::key::Digest;
use super::workshop::Workshop;
use crate::probe::disk::is_full;
use crate::run::files::transfer::Transfer;
use crate::units::Bytes;

/// Objects are read-only: nobody should change them by mistake.
const MODE: u32 = 0o444;

/// Why an object cannot be taken out.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It is not there, or not any more.
    #[error("{0} is not in the cache")]
    Missing(Digest),
    /// It does not hold what its name says. It has been removed.
    #[error("{0} was damaged in the cache")]
    Damaged(Digest),
    /// What an output was made of is not there, or damaged.
    #[error("`{output}` {how}")]
    Output {
        /// The output, as the pipeline names it.
        output: String,
        /// What is wrong with it.
        how: &'static str,
    },
    /// What is kept free would not be.
    #[error("{path} is not put back: {source}")]
    NoRoom {
        /// What was to be written.
        path: PathBuf,
        /// How much room there is.
        source: io::Error,
    },
    /// The system refused.
    #[error("{path} cannot be written")]
    Refused {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Lost {
    /// Names the output that the object is part of.
    pub(super) fn of(self, output: &str) -> Self {
        let how = match self {
            Self::Missing(_) => "is not in the cache any more",
            Self::Damaged(_) => "was damaged in the cache",
            Self::Output { .. } | Self::NoRoom { .. } | Self::Refused { .. } => return self,
        };
        Self::Output { output: output.to_owned(), how }
    }
}

/// An object as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// The folder of objects.
#[derive(Debug)]
pub struct Objects {
    dir: PathBuf,
    pub(super) workshop: Workshop,
    pub(super) transfer: Arc<Transfer>,
    /// Whether something could not be cloned and was copied.
    copies: AtomicBool,
}

impl Objects {
    /// Names the objects of a cache folder, which need not be there.
    #[must_use]
    pub fn new(cache: &Path) -> Self {
        Self::with_room(cache, None)
    }

    /// The same; no copy takes what is to be kept free: `keep_free`, or what is usual for the disk.
    #[must_use]
    pub fn with_room(cache: &Path, keep_free: Option<Bytes>) -> Self {
        Self {
            dir: cache.join("objects"),
            workshop: Workshop::new(cache),
            transfer: Arc::new(Transfer::keeping_free(keep_free)),
            copies: AtomicBool::new(false),
        }
    }

    /// Looks whether there is room to take in so many bytes, should they have to be copied.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where there is not.
    pub fn look_for_room(&self, bytes: u64) -> io::Result<()> {
        if self.copies.load(Ordering::Relaxed) { self.transfer.room.look(&self.dir, bytes) } else { Ok(()) }
    }

    /// Returns where an object lies.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(&name[2..])
    }

    /// Whether an object of this size is there. What it holds is seen when it is taken out.
    #[must_use]
    pub fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|found| size.is_none_or(|size| found.len() == size))
    }

    /// Takes a copy of a file in; returns the digest and the size of what was taken.
    ///
    /// # Errors
    /// Where it cannot be read or the copy cannot be written, or there is no room for it.
    pub fn put(&self, from: &Path) -> io::Result<(Digest, u64)> {
        self.take_in(&mut File::open(from)?, |from, to| {
            if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
                // What was cloned is hashed, not what has become of the file since.
                return self.transfer.digest(to);
            }
            self.copies.store(true, Ordering::Relaxed);
            self.transfer.copy_file(from, to, &self.dir)
        })
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn put_bytes(&self, bytes: &[u8]) -> io::Result<Digest> {
        self.take_in(&mut &*bytes, |from, to| self.transfer.copy_and_digest(from, to)).map(|(digest, _)| digest)
    }

    fn take_in<R>(
        &self,
        from: &mut R,
        copy: impl FnOnce(&mut R, &mut File) -> io::Result<(Digest, u64)>,
    ) -> io::Result<(Digest, u64)> {
        fs::create_dir_all(&self.dir)?;
        let unfinished = self.workshop.place()?;
        let written = (|| {
            let mut to = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&unfinished)?;
            let (digest, size) = copy(from, &mut to)?;
            to.set_permissions(Permissions::from_mode(MODE))?;
            let place = self.path(&digest);
            match fs::rename(&unfinished, &place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(place.parent().unwrap_or(&self.dir))?;
                    fs::rename(&unfinished, &place)?;
                }
                other => other?,
            }
            Ok((digest, size))
        })();
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Returns a small object. A damaged one is removed.
    ///
    /// # Errors
    /// Where it is gone or damaged.
    pub fn bytes(&self, digest: &Digest) -> Result<Vec<u8>, Lost> {
        self.look_at(digest).map_err(|lost| match lost {
            Lost::Damaged(digest) => self.throw_away(&digest),
            lost @ (Lost::Missing(_) | Lost::Output { .. } | Lost::NoRoom { .. } | Lost::Refused { .. }) => lost,
        })
    }

    /// Returns a small object; a damaged one stays.
    ///
    /// # Errors
    /// Where it is gone or damaged.
    pub fn look_at(&self, digest: &Digest) -> Result<Vec<u8>, Lost> {
        let bytes = fs::read(self.path(digest)).map_err(|_| Lost::Missing(*digest))?;
        if Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(Lost::Damaged(*digest)) }
    }

    /// Writes an object to a new file.
    ///
    /// # Errors
    /// Where it is gone or damaged, or the file cannot be written, or there is no room; nothing is left of the file then.
    pub fn restore(&self, digest: &Digest, to: &Path, mode: u32) -> Result<(), Lost> {
        let refused = |source| Lost::Refused { path: to.to_owned(), source };
        let mut from = File::open(self.path(digest)).map_err(|_| Lost::Missing(*digest))?;
        let written = (|| {
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to)?;
            let found = if rustix::fs::ioctl_ficlone(&file, &from).is_ok() {
                self.transfer.digest(&mut file)?
            } else {
                self.transfer.copy_file(&mut from, &mut file, to.parent().unwrap_or(to))?
            };
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(found.0 == *digest)
        })();
        if let Ok(true) = written {
            return Ok(());
        }
        let _ = fs::remove_file(to);
        Err(match written {
            Ok(_) => self.throw_away(digest),
            Err(source) if is_full(&source) => Lost::NoRoom { path: to.to_owned(), source },
            Err(error) => refused(error),
        })
    }

    fn throw_away(&self, digest: &Digest) -> Lost {
        // One that cannot be removed is found damaged again.
        let _ = self.remove(digest);
        Lost::Damaged(*digest)
    }

    /// Removes an object; that it is gone already is no error.
    ///
    /// # Errors
    /// Where it cannot be removed.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether an object holds what its name says.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn is_whole(&self, digest: &Digest) -> io::Result<bool> {
        self.transfer.begin(&digest.to_string()[..16]);
        let found = self.transfer.digest(&mut File::open(self.path(digest))?)?;
        Ok(found.0 == *digest)
    }

    /// Returns all objects.
    ///
    /// # Errors
    /// Where the folder cannot be read; that it is not there means that there are none.
    pub fn list(&self) -> io::Result<Vec<Object>> {
        let mut found = Vec::new();
        for shard in children(&self.dir)? {
            let prefix = shard.file_name().into_string().unwrap_or_default();
            for entry in children(&shard.path())? {
                let name = prefix.clone() + &entry.file_name().to_string_lossy();
                // Another process may remove it in between.
                let (Some(digest), Ok(metadata)) = (Digest::from_hex(&name), entry.metadata()) else { continue };
                found.push(Object { digest, size: metadata.len() });
            }
        }
        Ok(found)
    }
}

/// Returns what is in a folder, nothing where it is not there.
fn children(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects() -> (tempfile::TempDir, Objects) {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::with_room(&folder.path().join("cache"), Some(Bytes::ZERO));
        (folder, objects)
    }

    #[test]
    fn what_is_put_in_is_taken_out() {
        let (folder, objects) = objects();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "result").unwrap();
        let (digest, size) = objects.put(&from).unwrap();
        assert_eq!((digest, size), (Digest::of(b"result"), 6));
        assert!(objects.has(&digest, Some(6)) && !objects.has(&digest, Some(5)));
        fs::write(&from, "changed in place").unwrap();
        objects.restore(&digest, &to, 0o640).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"result");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(objects.list().unwrap(), [Object { digest, size }]);
        assert_eq!(objects.bytes(&digest).unwrap(), b"result");
    }

    #[test]
    fn a_damaged_object_is_never_a_result() {
        let (folder, objects) = objects();
        let digest = objects.put_bytes(b"result").unwrap();
        let place = objects.path(&digest);
        fs::remove_file(&place).unwrap();
        fs::write(&place, "resulT").unwrap();
        let to = folder.path().join("to");
        assert!(matches!(objects.restore(&digest, &to, 0o644), Err(Lost::Damaged(_))));
        assert!(!to.exists() && !place.exists());
        assert!(matches!(objects.restore(&digest, &to, 0o644), Err(Lost::Missing(_))));
        objects.put_bytes(b"result").unwrap();
        assert!(objects.is_whole(&digest).unwrap());
    }

    #[test]
    fn no_copy_takes_what_is_kept_free() {
        let (folder, objects) = objects();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "result").unwrap();
        let digest = objects.put_bytes(b"result").unwrap();
        let full = Objects::with_room(&folder.path().join("cache"), Some(Bytes(u64::MAX)));
        if let Err(error) = full.put(&from) {
            assert!(is_full(&error), "{error}");
            assert!(matches!(full.restore(&digest, &to, 0o644), Err(Lost::NoRoom { .. })));
            assert!(!to.exists() && is_full(&full.look_for_room(0).unwrap_err()));
        } else {
            full.restore(&digest, &to, 0o644).expect("a clone takes no room");
        }
        let places = fs::read_dir(folder.path().join("cache/tmp")).unwrap();
        assert_eq!(places.flat_map(|place| fs::read_dir(place.unwrap().path()).unwrap()).count(), 0);
    }
}
