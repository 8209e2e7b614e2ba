//! What runs on one state folder need of each other: a moment in which nobody else records, whether anything was recorded
//! by others, and who they are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::room::Room;
use super::{FORMAT, Orchestrator, RunKey, Store, StoreError, TaskHeader, failed, signed, undecodable, unsigned};
use crate::run::event::Process;
use crate::run::lock::identity;
use crate::run::within::Within;
use crate::units::Millis;

/// How long a lock on another folder's record is waited for, while nobody else starts anything.
const PATIENCE_WITH_OTHERS: Duration = Duration::from_millis(20);

/// Another run that has not ended, whether it goes on or its process is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Its key in the database.
    pub key: i64,
    /// Its id.
    pub id: String,
    /// What it was called by whoever started it.
    pub name: Option<String>,
    /// The pipeline file.
    pub file: String,
    /// The folder of its logs and checkpoints.
    pub dir: PathBuf,
    /// Who carries it out.
    pub orchestrator: Orchestrator,
}

impl RunKey {
    /// Whether this is the key of a run.
    #[must_use]
    pub const fn is_of(&self, run: &Unfinished) -> bool {
        self.key == run.key
    }
}

impl Store {
    /// Opens the record of another state folder as it is, to read what is recorded there while its runs go on.
    ///
    /// # Errors
    /// Where there is none of this version that can be read.
    pub fn open_foreign(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("state.db");
        match std::fs::metadata(&path) {
            Err(source) => return Err(StoreError::Folder { path, source }),
            Ok(of) if !of.is_file() => return Err(StoreError::NotAFile(path)),
            Ok(_) => {}
        }
        let connect = || {
            let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            db.busy_timeout(PATIENCE_WITH_OTHERS)?;
            Ok((db.pragma_query_value(None, "user_version", |row| row.get(0))?, db))
        };
        let (found, db) = connect().map_err(|source| StoreError::Database { path: path.clone(), source })?;
        if found != FORMAT {
            return Err(StoreError::Format { path, found });
        }
        Ok(Self { db, dir: dir.to_owned(), file: identity(&path), room: Room::default() })
    }

    /// Whether this is the record that a file holds.
    pub(in crate::run) fn is_of(&self, file: Option<(u64, u64)>) -> bool {
        self.file == file
    }

    /// Keeps all others from recording anything until the next [`Store::append`] or [`Store::let_go`].
    ///
    /// # Errors
    /// Where the database cannot be locked.
    pub fn hold(&mut self) -> Result<(), StoreError> {
        self.on(
            |db| if db.is_autocommit() { db.prepare_cached("BEGIN IMMEDIATE")?.execute([]).map(drop) } else { Ok(()) },
        )
    }

    /// Lets others record again; nothing was recorded meanwhile.
    ///
    /// # Errors
    /// Where the database cannot be unlocked.
    pub fn let_go(&mut self) -> Result<(), StoreError> {
        self.on(|db| if db.is_autocommit() { Ok(()) } else { db.prepare_cached("ROLLBACK")?.execute([]).map(drop) })
    }

    /// Returns a number that is another one once somebody else has recorded something.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn version(&self) -> Result<i64, StoreError> {
        self.on(|db| db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0)))
    }

    /// Returns the runs on the machine with this boot id that have not ended, or not before `since` (ms since the Unix epoch).
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn unfinished(&self, boot: &str, since: Millis) -> Result<Vec<Unfinished>, StoreError> {
        self.on(|db| {
            let mut query = db.prepare_cached(
                "SELECT key, id, invocation ->> 'name', file, host, pid, pid_started, pids, within FROM run
                 WHERE (finished IS NULL OR finished >= ?2) AND boot = ?1",
            )?;
            let rows = query.query_map(params![boot, signed(since.0)], |row| {
                let process = Process { pid: row.get(5)?, started: unsigned(row.get(6)?) };
                let pids = row.get::<_, Option<i64>>(7)?.map(unsigned);
                let within = Within::read(&row.get::<_, String>(8)?);
                let id: String = row.get(1)?;
                Ok(Unfinished {
                    key: row.get(0)?,
                    dir: self.run_dir(&id),
                    id,
                    name: row.get(2)?,
                    file: row.get(3)?,
                    orchestrator: Orchestrator { host: row.get(4)?, boot: boot.to_owned(), pids, process, within },
                })
            })?;
            rows.collect()
        })
    }

    /// Returns why a run's events could not be recorded: another process has recorded some since, or what SQLite said.
    pub(super) fn taken_over(&self, run: &RunKey, source: rusqlite::Error) -> StoreError {
        let is_taken = source.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
        let by = self.db.query_row("SELECT id, pid, host FROM run WHERE key = ?1", [run.key], |row| {
            Ok(StoreError::TakenOver { run: row.get(0)?, pid: row.get(1)?, host: row.get(2)? })
        });
        by.ok().filter(|_| is_taken).unwrap_or_else(|| failed(&self.path(), source))
    }

    /// Returns `[n_tasks]`, by TaskId: what is recorded of a run's tasks.
    ///
    /// # Errors
    /// Where the database cannot be read; an unknown run has no tasks.
    pub fn tasks_of(&self, run: &str) -> Result<Vec<TaskHeader>, StoreError> {
        let text: Option<String> = self.on(|db| {
            db.query_row(
                "SELECT task_list.tasks FROM task_list JOIN run ON run.key = task_list.run WHERE id = ?1",
                [run],
                |row| row.get(0),
            )
            .optional()
        })?;
        let damaged = |source| failed(&self.path(), undecodable(source));
        text.map_or_else(|| Ok(Vec::new()), |text| serde_json::from_str(&text).map_err(damaged))
    }
}
