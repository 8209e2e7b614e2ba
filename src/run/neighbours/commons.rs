//! The folder in which runs of one user on one machine find each other, whatever their state folders: a file for each folder
//! that has or had a run, named by what it holds, and one that is locked while tasks are admitted. What that one holds is
//! another number once somebody has come.
//!
//! Nobody needs to leave: who comes takes those out of whom nothing is left.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::run::lock::{is_at, lock_within};

/// Name of the file that is locked.
const LOCK: &str = "lock";

/// The longest path that Linux takes.
const LONGEST_PATH: u64 = 4_096;

/// For how many milliseconds the lock is waited for by who attends to a run meanwhile.
const PATIENCE: u32 = 100;

/// The folder, open.
#[derive(Debug)]
pub(super) struct Commons {
    dir: PathBuf,
    lock: File,
    is_held: bool,
}

impl Commons {
    /// Opens the folder; where it is not there it is made if `makes`.
    ///
    /// # Errors
    /// Where it cannot be made, or is none that only this user writes to.
    pub(super) fn open(dir: &Path, makes: bool) -> io::Result<Self> {
        if makes {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let of = fs::symlink_metadata(dir)?;
        let is_own = of.is_dir() && of.uid() == rustix::process::geteuid().as_raw() && of.mode() & 0o022 == 0;
        if !is_own {
            return Err(io::Error::other("it is no folder that this user alone can write to"));
        }
        let mut options = OpenOptions::new();
        let lock = plain(options.read(true).write(makes).create(makes).mode(0o600), &dir.join(LOCK))?;
        Ok(Self { dir: dir.to_owned(), lock, is_held: false })
    }

    /// Whether the folder is still the one that its name means, and a state folder is in it.
    pub(super) fn has(&self, state: &Path) -> bool {
        self.is_there() && self.dir.join(name(state)).exists()
    }

    /// Returns where the lock is.
    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join(LOCK)
    }

    /// Whether the lock is still the one that others take.
    pub(super) fn is_there(&self) -> bool {
        is_at(&self.dir.join(LOCK), &self.lock)
    }

    /// Returns a number that is another one once somebody has come.
    pub(super) fn generation(&self) -> u64 {
        let mut bytes = [0; 8];
        self.lock.read_exact_at(&mut bytes, 0).map_or(0, |()| u64::from_le_bytes(bytes))
    }

    /// Enters a state folder (absolute, links resolved) of which a run is on record, for all to see.
    ///
    /// # Errors
    /// Where nothing can be written there.
    pub(super) fn enter(&mut self, state: &Path) -> io::Result<()> {
        self.locked(|commons| {
            if !commons.states().iter().any(|known| known == state) {
                let file = commons.dir.join(name(state));
                // Something else may have that name.
                let _ = fs::remove_file(&file);
                fs::write(file, state.as_os_str().as_bytes())?;
            }
            commons.lock.write_all_at(&commons.generation().wrapping_add(1).to_le_bytes(), 0)
        })
    }

    /// Takes out state folders of which nothing was left when the number was `generation`, unless somebody has come since.
    pub(super) fn take_out(&mut self, states: &[PathBuf], generation: u64) {
        let taken_out = self.locked(|commons| {
            let is_so_still = commons.generation() == generation;
            states.iter().filter(|_| is_so_still).try_for_each(|state| fs::remove_file(commons.dir.join(name(state))))
        });
        if let Err(error) = taken_out {
            tracing::debug!(%error, "what is over stays in {}", self.dir.display());
        }
    }

    /// Returns the state folders that were entered. What is no file of this folder's form is passed over.
    pub(super) fn states(&self) -> Vec<PathBuf> {
        let Ok(files) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut states: Vec<PathBuf> = files.flatten().filter_map(|file| read(&file.path())).collect();
        states.sort();
        states
    }

    /// Keeps all others from admitting tasks; `false` where somebody else does so for long.
    pub(super) fn hold(&mut self) -> bool {
        // A file system without locks is no reason to start nothing.
        self.is_held = self.is_held || lock_within(&self.lock, PATIENCE).unwrap_or(true);
        self.is_held
    }

    /// Lets others admit tasks.
    pub(super) fn let_go(&mut self) {
        if std::mem::take(&mut self.is_held) {
            let _ = self.lock.unlock();
        }
    }

    /// Does something while nobody else comes or goes.
    fn locked(&mut self, work: impl FnOnce(&Self) -> io::Result<()>) -> io::Result<()> {
        if !self.hold() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let done = work(self);
        self.let_go();
        done
    }
}

/// Returns the name of a state folder's file.
fn name(state: &Path) -> String {
    blake3::hash(state.as_os_str().as_bytes()).to_hex()[..32].to_owned()
}

/// Returns the state folder that a file tells of.
fn read(file: &Path) -> Option<PathBuf> {
    let mut text = Vec::new();
    let is_named_so = file.file_name().is_some_and(|name| name.len() == 32);
    let open = is_named_so.then(|| plain(OpenOptions::new().read(true), file))?.ok()?;
    open.take(LONGEST_PATH).read_to_end(&mut text).ok()?;
    let state = PathBuf::from(OsStr::from_bytes(&text));
    (file.file_name()? == OsStr::new(&name(&state)) && state.is_absolute()).then_some(state)
}

/// Opens a file, and nothing else that has its name: who opens a pipe would wait.
fn plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other(format!("{} is no file", path.display()))) }
}
