//! What is done with a database that is damaged: it is kept under another name, and a new one takes its place.
//!
//! Only a new run does this. Whoever reads or resumes says that the record is damaged and leaves it alone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use super::{Store, StoreError, failed};
use crate::run::lock::LockFile;

/// What SQLite keeps beside the database, by what is added to its name.
const COMPANIONS: [&str; 3] = ["", "-wal", "-shm"];

impl Store {
    /// Like [`Store::open`], but moves a damaged database aside, and returns where to. `goes_on` tells of the folder of a
    /// run whether that goes on.
    ///
    /// # Errors
    /// As [`Store::open`], and where the database cannot be moved, or not without taking a run its record.
    pub fn open_or_replace(dir: &Path, goes_on: impl Fn(&Path) -> bool) -> Result<(Self, Option<PathBuf>), StoreError> {
        match Self::open_sound(dir) {
            Err(StoreError::Corrupt { path, .. }) => {
                let cannot = |source| StoreError::Folder { path: path.clone(), source };
                let _alone = LockFile::take(&dir.join("state.db.moving")).map_err(cannot)?;
                // Another run may have done it meanwhile, and what is there now is sound.
                match Self::open_sound(dir) {
                    Err(StoreError::Corrupt { .. }) => {
                        if let Some(run) = names_in(&dir.join("runs")).find(|run| goes_on(&dir.join("runs").join(run)))
                        {
                            return Err(StoreError::CorruptUnder { path, run });
                        }
                        move_aside(&path).map_err(cannot).and_then(|aside| Ok((Self::open(dir)?, Some(aside))))
                    }
                    opened => opened.map(|store| (store, None)),
                }
            }
            opened => Ok((opened?, None)),
        }
    }

    /// Whether somebody has met damage since the database was last looked through.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        doubt(&self.path()).exists()
    }

    /// Opens the record and looks through it where that is cheap, or where somebody has met damage in it.
    fn open_sound(dir: &Path) -> Result<Self, StoreError> {
        let store = Self::open(dir)?;
        let is_in_doubt = store.is_in_doubt();
        let pages: i64 = store.on(|db| db.pragma_query_value(None, "page_count", |row| row.get(0)))?;
        if is_in_doubt || pages <= FEW_PAGES {
            store.check_pages()?;
            store.rows("", [])?;
        }
        if is_in_doubt {
            let _ = fs::remove_file(doubt(&store.path()));
        }
        Ok(store)
    }

    /// Looks through all pages of the database.
    pub(super) fn check_pages(&self) -> Result<(), StoreError> {
        let found: String = self.on(|db| db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))?;
        if found == "ok" { Ok(()) } else { Err(failed(&self.path(), damage(rusqlite::ffi::SQLITE_CORRUPT, found))) }
    }
}

/// Yields the names in a folder; none where it is not there.
pub(super) fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Returns the name of the note that damage was met.
fn doubt(path: &Path) -> PathBuf {
    with(path, ".doubt")
}

/// Notes that damage was met, for the next run to look through the whole database. Where that cannot be noted, it is left to
/// the next run to meet it.
pub(super) fn note_doubt(path: &Path) {
    let _ = File::create(doubt(path));
}

fn damage(code: i32, words: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(words))
}

/// Renames a database and what belongs to it; returns its new name.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let name = |nth: u32| {
        let nth = if nth > 1 { format!("-{nth}") } else { String::new() };
        with(path, &format!(".corrupt-{now}{nth}"))
    };
    let aside = (1..).map(name).find(|aside| !aside.exists()).unwrap_or_else(|| name(1));
    let _ = fs::remove_file(doubt(path));
    for companion in COMPANIONS {
        match fs::rename(with(path, companion), with(&aside, companion)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

pub(super) fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Refuses a database that was emptied, as a crash of the machine can leave it, though there were runs: SQLite would take
/// it for a new one.
pub(super) fn refuse_emptied(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("state.db");
    let is_empty = fs::metadata(&path).is_ok_and(|file| file.len() < SMALLEST);
    let has_runs = || fs::read_dir(dir.join("runs")).is_ok_and(|mut runs| runs.next().is_some());
    // What is new may stand in the write-ahead log alone.
    let has_log = || fs::metadata(with(&path, "-wal")).is_ok_and(|file| file.len() > 0);
    if !is_empty || has_log() || !has_runs() {
        return Ok(());
    }
    let source = damage(rusqlite::ffi::SQLITE_NOTADB, "it is empty, though there were runs".to_owned());
    Err(StoreError::Corrupt { path, source })
}

/// Bytes of the smallest database.
const SMALLEST: u64 = 512;

/// Pages, 2 MiB, that are looked through each time a run begins: that takes a few milliseconds.
const FEW_PAGES: i64 = 512;

/// Whether an error says that the database itself is damaged. All columns have the types that are asked for, and every
/// statement is known to be right where the tables are those of our format.
pub(in crate::run) fn is_damage(error: &rusqlite::Error) -> bool {
    let cannot_be_read = matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::SqlInputError { .. }
    );
    let is_no_statement = error.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_ERROR);
    let is_corrupt = matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
    cannot_be_read || is_no_statement || is_corrupt
}

/// Goes where the next run and its events will be written, and takes everything back: a damage there shows before a run
/// relies on it, at the cost of a few pages.
pub(super) fn probe(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "BEGIN IMMEDIATE;
         INSERT INTO run (id, pipeline, file, host, boot, pid, pid_started, started, tasks)
             VALUES ('', '', '', '', '', 0, 0, 0, '[]');
         INSERT INTO event (number, at, body) VALUES (last_insert_rowid() << 32, 0, '');
         ROLLBACK;",
    )
    .inspect_err(|_| {
        // The first error is the one to report.
        let _ = db.execute_batch("ROLLBACK");
    })
}
