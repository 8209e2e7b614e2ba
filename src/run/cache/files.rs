//! What files hold, looked up by path, size, modification time and inode before anything is read.
//!
//! A file's digest is remembered only if its modification time lay in the past when it was read: a later change then
//! gets another time. What was written within the last tick of the kernel's clock is read again the next time.

pub mod links;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::time::{ClockId, clock_gettime};

use super::key::{Content, Digest};
use super::manifest::{Entry, Kind, encode};
use super::recipe::Wanted;
use crate::run::files::transfer::Transfer;

/// What tells that a file is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Modification time, ns since the Unix epoch.
    pub modified: i64,
    /// The file's number in its file system.
    pub inode: u64,
}

/// What is found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Absent,
    /// A file.
    File {
        /// Its stamp.
        stamp: Stamp,
        /// Permission bits.
        mode: u32,
    },
    /// A folder.
    Folder {
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link, where links are not followed.
    Link,
    /// A socket, a pipe, a device.
    Other,
}

/// A remembered digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Relative to the root, or absolute.
    pub path: String,
    /// Which version of the file.
    pub stamp: Stamp,
    /// What it holds.
    pub digest: Digest,
}

/// A folder with all that is in it.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Of the manifest.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: String,
    /// What is in it, by path.
    pub entries: Vec<Entry>,
}

/// The files of one project. Paths are relative to its root, or absolute.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    /// The same with all links followed.
    real_root: PathBuf,
    folder: OwnedFd,
    /// Not part of any folder's content.
    state: PathBuf,
    known: Mutex<HashMap<String, (Stamp, Digest)>>,
    /// Known since they were last taken.
    fresh: Mutex<Vec<Remembered>>,
    /// Read too soon after they were written to be remembered.
    young: Mutex<HashSet<String>>,
    /// Being read by some thread.
    read: (Mutex<HashSet<String>>, Condvar),
    pub(super) transfer: Arc<Transfer>,
}

/// A poisoned lock only says that another thread panicked; maps of digests are whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// Opens a project. `state` is the state folder.
    ///
    /// # Errors
    /// Where the root is no folder.
    pub fn open(root: &Path, state: &Path) -> io::Result<Self> {
        let folder = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            root: root.to_owned(),
            real_root: root.canonicalize()?,
            folder,
            state: state.to_owned(),
            known: Mutex::default(),
            fresh: Mutex::default(),
            young: Mutex::default(),
            read: Default::default(),
            transfer: Arc::default(),
        })
    }

    /// Remembers what an earlier process knew.
    pub fn remember(&self, remembered: impl IntoIterator<Item = Remembered>) {
        let known = remembered.into_iter().map(|one| (one.path, (one.stamp, one.digest)));
        lock(&self.known).extend(known);
    }

    /// Returns what has become known since the last call.
    #[must_use]
    pub fn take_fresh(&self) -> Vec<Remembered> {
        std::mem::take(&mut lock(&self.fresh))
    }

    /// Returns the files that were read too soon after they were written.
    #[must_use]
    pub fn take_young(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.young)).into_iter().collect()
    }

    /// Returns the folder of the project.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the whole path.
    #[must_use]
    pub fn whole(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether what lies at a path lies within the project, also where its folders are links: a stage may have made
    /// them. Whatever lies elsewhere is somebody else's, and is never moved or removed.
    pub fn is_ours(&self, path: &str) -> bool {
        let whole = self.whole(path);
        let folder = whole.ancestors().skip(1).find_map(|folder| folder.canonicalize().ok());
        folder.is_some_and(|folder| folder.starts_with(&self.real_root))
    }

    /// Looks at a path.
    ///
    /// # Errors
    /// Where it cannot be looked at; that it is not there is no error.
    pub fn look(&self, path: &str, follow: bool) -> io::Result<Seen> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        use rustix::io::Errno;
        let stat = match statat(&self.folder, path, flags) {
            Ok(stat) => stat,
            // A name that is too long or leads in a circle is no file either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP) => return Ok(Seen::Absent),
            Err(error) => return Err(error.into()),
        };
        let mode = stat.st_mode & 0o7777;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Seen::File { stamp: stamp(&stat), mode },
            FileType::Directory => Seen::Folder { mode },
            FileType::Symlink => Seen::Link,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Seen::Other,
        })
    }

    /// Returns the digest of a file with this stamp, if it is known.
    #[must_use]
    pub fn known(&self, path: &str, stamp: &Stamp) -> Option<Digest> {
        let known = lock(&self.known);
        known.get(path).filter(|(known, _)| known == stamp).map(|(_, digest)| *digest)
    }

    /// Notes what a file holds, if `stamp` was taken at a time that a later change cannot share.
    pub fn note(&self, path: &str, stamp: Stamp, digest: Digest, now: i64) {
        if is_settled(&stamp, now) {
            lock(&self.known).insert(path.to_owned(), (stamp, digest));
            lock(&self.fresh).push(Remembered { path: path.to_owned(), stamp, digest });
        } else {
            lock(&self.young).insert(path.to_owned());
        }
    }

    /// Returns what a file holds, reading it if that is not known.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn digest(&self, path: &str) -> io::Result<Digest> {
        // Tasks that start together read the same files: one thread does it for all.
        let (being_read, done) = &self.read;
        let mut reading = lock(being_read);
        while !reading.insert(path.to_owned()) {
            reading = done.wait(reading).unwrap_or_else(PoisonError::into_inner);
        }
        drop(reading);
        let digest = self.digest_alone(path);
        lock(being_read).remove(path);
        done.notify_all();
        digest
    }

    fn digest_alone(&self, path: &str) -> io::Result<Digest> {
        let now = coarse_now();
        let mut file = File::from(openat(&self.folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        let stamp = stamp(&rustix::fs::fstat(&file)?);
        if let Some(digest) = self.known(path, &stamp) {
            return Ok(digest);
        }
        self.transfer.begin(path);
        let (digest, _) = self.transfer.digest(&mut file)?;
        self.note(path, stamp, digest, now);
        Ok(digest)
    }

    /// Returns what is at a path; links are followed, also those in a folder. `without` are paths that do not count as part of a folder. Where a
    /// file is wanted, a folder is as good as nothing.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn content(&self, path: &str, wanted: Wanted, without: &[String]) -> io::Result<Content> {
        let (found, mode) = match self.look(path, true)? {
            Seen::File { stamp, mode } => (self.known(path, &stamp).map_or_else(|| self.digest(path), Ok), mode),
            Seen::Folder { .. } if wanted == Wanted::Anything => {
                let tree = self.tree(path, without)?;
                return Ok(Content::Tree(self.all_that_is_read(path, tree, without)?));
            }
            Seen::Folder { .. } | Seen::Absent | Seen::Link | Seen::Other => return Ok(Content::Absent),
        };
        match found {
            Ok(digest) => Ok(Content::of_file(digest, mode)),
            // It went between the two looks.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::Absent),
            Err(error) => Err(error),
        }
    }

    /// Returns what is in a folder. Links are kept as links.
    ///
    /// # Errors
    /// Where it cannot be read, or holds names that are not UTF-8, or things that are neither files, folders nor links.
    pub fn tree(&self, path: &str, without: &[String]) -> io::Result<Tree> {
        let mut entries = Vec::new();
        let mut open = vec![String::new()];
        while let Some(folder) = open.pop() {
            let place = self.whole(path).join(&folder);
            let unreadable = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", place.display()));
            for found in std::fs::read_dir(&place).map_err(unreadable)? {
                let found = found?;
                if found.path() == self.state {
                    continue;
                }
                let name = found.file_name();
                let name = std::str::from_utf8(name.as_bytes())
                    .map_err(|_| io::Error::other(format!("{}: not UTF-8", found.path().display())))?;
                let inner = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                let within =
                    if path == "." { inner.clone() } else { format!("{}/{inner}", path.trim_end_matches('/')) };
                if without.contains(&within) {
                    continue;
                }
                let kind = match self.look(&within, false)? {
                    Seen::File { stamp, mode } => {
                        let digest = self.known(&within, &stamp).map_or_else(|| self.digest(&within), Ok)?;
                        Kind::File { mode, size: stamp.size, digest }
                    }
                    Seen::Folder { mode } => {
                        open.push(inner.clone());
                        Kind::Folder { mode }
                    }
                    Seen::Link => Kind::Link { target: link_target(&found.path())? },
                    Seen::Absent => continue,
                    Seen::Other => {
                        let message = format!("{}: neither a file, a folder nor a link", found.path().display());
                        return Err(io::Error::other(message));
                    }
                };
                entries.push(Entry { path: inner, kind });
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = encode(&entries);
        Ok(Tree { digest: Digest::of(manifest.as_bytes()), manifest, entries })
    }
}

fn link_target(path: &Path) -> io::Result<String> {
    let target = std::fs::read_link(path)?;
    target.into_os_string().into_string().map_err(|_| io::Error::other(format!("{}: not UTF-8", path.display())))
}

fn stamp(stat: &rustix::fs::Stat) -> Stamp {
    let ns = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let modified = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(ns);
    Stamp { size: u64::try_from(stat.st_size).unwrap_or(0), modified, inode: stat.st_ino }
}

/// Returns the time that the kernel would give a file that is written now, ns since the Unix epoch.
#[must_use]
pub fn coarse_now() -> i64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Whether a change after `now` is sure to give the file another time.
const fn is_settled(stamp: &Stamp, now: i64) -> bool {
    // File systems that know no fractions of a second round to one or two.
    let step = if stamp.modified % 1_000_000_000 == 0 { 2_000_000_000 } else { 1 };
    stamp.modified.saturating_add(step) <= now
}

/// Does `work` for all items on as many threads as there are CPUs; results are in order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    // A thread costs about as much as looking at this many files.
    const WORTH_A_THREAD: usize = 64;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cpus.min(16).min(items.len().div_ceil(WORTH_A_THREAD)).max(1);
    if threads == 1 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    std::thread::scope(|scope| {
        let chunks = items.chunks(items.len().div_ceil(threads));
        let all = |chunk: &[T]| chunk.iter().map(work).collect::<Vec<R>>();
        let started: Vec<_> = chunks
            .map(|chunk| std::thread::Builder::new().spawn_scoped(scope, move || all(chunk)).map_err(|_| chunk))
            .collect();
        // Where there is no thread to be had, it takes longer.
        let done = |thread: Result<std::thread::ScopedJoinHandle<'_, Vec<R>>, _>| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(chunk) => all(chunk),
        };
        started.into_iter().flat_map(done).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path(), &folder.path().join(".trainyard")).unwrap();
        (folder, files)
    }

    /// Gives a file a time long ago, so that it is remembered.
    fn write_long_ago(path: &Path, text: &str, seconds: u64) {
        std::fs::write(path, text).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000 + seconds, 5);
        File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn a_file_is_read_once_as_long_as_its_stamp_stays() {
        let (folder, files) = project();
        let path = folder.path().join("a");
        write_long_ago(&path, "one", 0);
        let one = files.content("a", Wanted::Anything, &[]).unwrap();
        assert_eq!(one, Content::File(Digest::of(b"one")));
        assert_eq!(files.take_fresh().len(), 1);
        // Same size and time, as nobody does by accident: what is remembered counts.
        write_long_ago(&path, "two", 0);
        assert_eq!(files.content("a", Wanted::Anything, &[]).unwrap(), one);
        write_long_ago(&path, "two", 1);
        assert_eq!(files.content("a", Wanted::Anything, &[]).unwrap(), Content::File(Digest::of(b"two")));
    }

    #[test]
    fn what_was_written_just_now_is_not_trusted() {
        let stamp = Stamp { size: 1, modified: 5_000_000_001, inode: 1 };
        assert!(!is_settled(&stamp, 5_000_000_001));
        assert!(is_settled(&stamp, 5_000_000_002));
        let rounded = Stamp { modified: 5_000_000_000, ..stamp };
        assert!(!is_settled(&rounded, 6_999_999_999) && is_settled(&rounded, 7_000_000_000));
    }

    #[test]
    fn a_folder_is_all_that_is_in_it_but_the_state_folder() {
        let (folder, files) = project();
        for name in ["d/e", ".trainyard"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("d/e/x"), "1").unwrap();
        std::fs::write(folder.path().join(".trainyard/state"), "1").unwrap();
        std::os::unix::fs::symlink("e/x", folder.path().join("d/link")).unwrap();
        let tree = files.tree(".", &[]).unwrap();
        let paths: Vec<_> = tree.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["d", "d/e", "d/e/x", "d/link"]);
        assert_eq!(tree.entries[3].kind, Kind::Link { target: "e/x".into() });
        std::fs::write(folder.path().join("d/e/x"), "22").unwrap();
        assert_ne!(files.tree(".", &[]).unwrap().digest, tree.digest);
        assert!(matches!(files.content("d", Wanted::Anything, &[]), Ok(Content::Tree(_))));
        let without = files.tree(".", &["d/e/x".into()]).unwrap();
        assert_eq!(without.entries.len(), 3);
    }

    #[test]
    fn work_in_parallel_keeps_its_order() {
        let items: Vec<usize> = (0..1_000).collect();
        assert_eq!(in_parallel(&items, |n| n * 2), items.iter().map(|n| n * 2).collect::<Vec<_>>());
    }
}
