//! The record of runs: one SQLite database per state folder.
//!
//! A committed event survives the death of this process at once, and a power loss once the write-ahead log has been
//! checkpointed (`synchronous = NORMAL`): after a power loss the newest events may be missing, but never one in the
//! middle, and the database is never torn. Losing the newest events only means that finished work is looked at again.
//!
//! The store does not know what an event means; a run's header repeats its end so that a list of runs needs no events.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::event::{Event, Process, Recorded};
use super::lock::identity;
use super::within::Within;
use crate::units::Millis;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

mod aside;
mod error;
mod events;
mod header;
mod marks;
mod numbers;
pub(super) mod read_only;
mod removal;
mod room;
mod samples;
mod sharing;

pub(super) use aside::is_damage;
pub use error::StoreError;
pub use header::{Header, Invocation, Orchestrator, RunRow, TaskHeader, Turns};
pub use marks::Mark;
use numbers::{COUNT, number};
pub(super) use room::Room;
pub use sharing::Unfinished;

/// Pages of the write-ahead log, 16 MiB, after which it is checkpointed: twice the loop waits for the disk then. Where many
/// short tasks fill it, that is every few seconds; where few long ones do, the kernel has written it long before.
const LOG_PAGES: u32 = 4_096;

/// How long a lock of somebody else is waited for; and while a run is attended to, which tries again.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_OF_RUNS: Duration = Duration::from_millis(100);

/// A name that says how to open the file.
const URI: OpenFlags = OpenFlags::SQLITE_OPEN_URI;

/// The format of the database.
const FORMAT: i64 = STEPS.len() as i64;

/// What leads from each format to the next, from an empty database on.
const STEPS: [&str; 8] = [
    "
CREATE TABLE run (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    file TEXT NOT NULL,
    host TEXT NOT NULL,
    boot TEXT NOT NULL,
    pid INTEGER NOT NULL,
    pid_started INTEGER NOT NULL,
    started INTEGER NOT NULL,
    finished INTEGER,
    end TEXT,
    tasks TEXT NOT NULL
) STRICT;
CREATE TABLE event (
    run INTEGER NOT NULL REFERENCES run(key),
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;
",
    // How the run was called: empty for runs of earlier versions, which cannot be resumed.
    "ALTER TABLE run ADD COLUMN invocation TEXT NOT NULL DEFAULT '{}';",
    samples::STEP,
    header::STEP,
    // A name means one run.
    "CREATE UNIQUE INDEX run_name ON run (invocation ->> 'name') WHERE invocation ->> 'name' IS NOT NULL;",
    numbers::STEP,
    // Where the orchestrator's process number means it: not known of runs of earlier versions.
    "ALTER TABLE run ADD COLUMN pids INTEGER;",
    // Which tasks of other runs its orchestrator is part of.
    "ALTER TABLE run ADD COLUMN within TEXT NOT NULL DEFAULT '';",
];

/// A state folder's database.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    dir: PathBuf,
    /// The file itself, whatever its path leads to later.
    file: Option<(u64, u64)>,
    room: Room,
}

/// A run that is being recorded.
#[derive(Debug)]
pub struct RunKey {
    key: i64,
    next_seq: i64,
}

impl Store {
    /// Opens the record in a state folder, making both where there are none.
    ///
    /// # Errors
    /// Where the folder or the database cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let broken = |source| StoreError::Folder { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(broken)?;
        let _alone = alone(dir).map_err(broken)?;
        aside::refuse_emptied(dir)?;
        let store = Self::connect(dir, OpenFlags::default())?;
        store.on(|db| {
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
            db.pragma_update(None, "synchronous", "NORMAL")
        })?;
        let store = store.prepare_format()?;
        store.on(aside::probe)?;
        Ok(store)
    }

    /// Opens an existing record for reading.
    ///
    /// # Errors
    /// [`StoreError::NoState`] where there is none; otherwise as [`Store::open`].
    pub fn open_existing(dir: &Path) -> Result<Self, StoreError> {
        if !dir.join("state.db").exists() {
            return Err(StoreError::NoState(dir.to_owned()));
        }
        let _alone = alone(dir).map_err(|source| StoreError::Folder { path: dir.to_owned(), source })?;
        aside::refuse_emptied(dir)?;
        Self::connect(dir, OpenFlags::default() - OpenFlags::SQLITE_OPEN_CREATE)?.prepare_format()
    }

    fn connect(dir: &Path, flags: OpenFlags) -> Result<Self, StoreError> {
        let path = dir.join("state.db");
        if path.is_dir() {
            return Err(StoreError::NotAFile(path));
        }
        let connect = || {
            let creates = flags.contains(OpenFlags::SQLITE_OPEN_CREATE);
            let db = match read_only::name(&path).filter(|_| !creates) {
                Some(name) => Connection::open_with_flags(name, OpenFlags::SQLITE_OPEN_READ_ONLY | URI)?,
                None => Connection::open_with_flags(&path, flags)?,
            };
            // Another orchestrator on the same folder holds the lock for the length of one small transaction.
            db.busy_timeout(PATIENCE)?;
            // 256 KiB: events are written once, one behind the other, and read rarely.
            db.pragma_update(None, "cache_size", -256)?;
            Ok(db)
        };
        let db = connect().map_err(|source| failed(&path, source))?;
        Ok(Self { db, dir: dir.to_owned(), file: identity(&path), room: Room::default() })
    }

    /// Makes or completes the tables, also where another process just did.
    fn prepare_format(mut self) -> Result<Self, StoreError> {
        let path = self.path();
        let damaged = |source| failed(&path, source);
        let format: i64 = self.db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(damaged)?;
        if !(0..=FORMAT).contains(&format) {
            return Err(StoreError::Format { path, found: format });
        }
        if format < FORMAT {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(damaged)?;
            let format: u32 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(damaged)?;
            for step in STEPS.iter().skip(format as usize) {
                tx.execute_batch(step).map_err(damaged)?;
            }
            tx.pragma_update(None, "user_version", FORMAT).map_err(damaged)?;
            tx.commit().map_err(damaged)?;
        }
        Ok(self)
    }

    fn path(&self) -> PathBuf {
        self.dir.join("state.db")
    }

    /// Returns the state folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the folder that holds a run's logs and checkpoints.
    #[must_use]
    pub fn run_dir(&self, run: &str) -> PathBuf {
        self.dir.join("runs").join(run)
    }

    /// Waits for locks only as long as someone may who attends to a run, or as long as anyone again.
    ///
    /// # Errors
    /// Where the database cannot be told.
    pub fn attend(&self, is_attending: bool) -> Result<(), StoreError> {
        self.on(|db| db.busy_timeout(if is_attending { PATIENCE_OF_RUNS } else { PATIENCE }))
    }

    fn on<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.db).map_err(|source| failed(&self.path(), source))
    }

    /// Records a new run.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`]; otherwise where the database cannot be written.
    pub fn begin(&mut self, header: &Header) -> Result<RunKey, StoreError> {
        let tasks = serde_json::to_string(&header.tasks).expect("headers are plain data");
        let invocation = serde_json::to_string(&header.invocation).expect("an invocation is plain data");
        // A name that is another run's id would mean either of them.
        if let Some(name) = &header.invocation.name
            && self.run(name)?.is_some()
        {
            return Err(StoreError::NameTaken { name: name.clone(), run: name.clone() });
        }
        let mut key = 0;
        let written = in_transaction(&self.db, |db| {
            db.execute(
                "INSERT INTO run (id, pipeline, file, host, boot, pid, pid_started, started, tasks,
                                  invocation, pids, within)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, '', ?9, ?10, ?11)",
                params![
                    header.id,
                    header.pipeline,
                    header.file,
                    header.orchestrator.host,
                    header.orchestrator.boot,
                    header.orchestrator.process.pid,
                    signed(header.orchestrator.process.started),
                    signed(header.started.0),
                    invocation,
                    header.orchestrator.pids.map(signed),
                    header.orchestrator.within.lines(),
                ],
            )?;
            key = db.last_insert_rowid();
            db.execute("INSERT INTO task_list (run, tasks) VALUES (?1, ?2)", params![key, tasks]).map(drop)
        });
        self.room.hold_back(&self.path(), tasks.len());
        match (written, &header.invocation.name) {
            (Ok(()), _) => Ok(RunKey { key, next_seq: 0 }),
            (Err(error), Some(name)) => match self.named(name)? {
                Some(run) => Err(StoreError::NameTaken { name: name.clone(), run }),
                None => Err(failed(&self.path(), error)),
            },
            (Err(error), None) => Err(failed(&self.path(), error)),
        }
    }

    /// Returns the id of the run that has a name.
    fn named(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.on(|db| {
            db.query_row("SELECT id FROM run WHERE invocation ->> 'name' = ?1", [name], |row| row.get(0)).optional()
        })
    }

    /// Returns who carries a run out, or did last; `None` where there is no such run.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn orchestrator(&self, run: &str) -> Result<Option<Orchestrator>, StoreError> {
        self.on(|db| {
            let mut query =
                db.prepare_cached("SELECT host, boot, pid, pid_started, pids, within FROM run WHERE id = ?1")?;
            let orchestrator = query.query_row([run], |row| {
                Ok(Orchestrator {
                    host: row.get(0)?,
                    boot: row.get(1)?,
                    pids: row.get::<_, Option<i64>>(4)?.map(unsigned),
                    process: Process { pid: row.get(2)?, started: unsigned(row.get(3)?) },
                    within: Within::read(&row.get::<_, String>(5)?),
                })
            });
            orchestrator.optional()
        })
    }

    /// Takes a run over from the process that carried it out; `None` where another process was faster.
    ///
    /// # Errors
    /// Where the database cannot be written.
    pub fn take_over(&mut self, run: &Header, by: &Orchestrator) -> Result<Option<RunKey>, StoreError> {
        let Orchestrator { host, boot, process, .. } = &run.orchestrator;
        self.on(|db| {
            let taken = db.execute(
                "UPDATE run SET host = ?1, boot = ?2, pid = ?3, pid_started = ?4, pids = ?10, within = ?11
                 WHERE id = ?5 AND host = ?6 AND boot = ?7 AND pid = ?8 AND pid_started = ?9",
                params![
                    by.host,
                    by.boot,
                    by.process.pid,
                    signed(by.process.started),
                    run.id,
                    host,
                    boot,
                    process.pid,
                    signed(process.started),
                    by.pids.map(signed),
                    by.within.lines(),
                ],
            )?;
            if taken == 0 {
                return Ok(None);
            }
            let next = format!("SELECT key, {COUNT} FROM run WHERE run.id = ?1");
            db.query_row(&next, [&run.id], |row| Ok(Some(RunKey { key: row.get(0)?, next_seq: row.get(1)? })))
        })
    }

    /// Records events, all of them or none, and ends what [`Store::hold`] began.
    ///
    /// # Errors
    /// [`StoreError::TakenOver`], or where the database cannot be written; nothing is recorded then.
    pub fn append(&mut self, run: &mut RunKey, events: &[Recorded]) -> Result<(), StoreError> {
        let path = self.path();
        // SQLite would go on writing to a file that nobody finds.
        if identity(&path) != self.file {
            return Err(StoreError::Gone(path));
        }
        let mut bytes = 0;
        let written = in_transaction(&self.db, |db| {
            let mut insert = db.prepare_cached("INSERT INTO event (number, at, body) VALUES (?1, ?2, ?3)")?;
            for (seq, recorded) in (run.next_seq..).zip(events) {
                let body = serde_json::to_string(&recorded.event).expect("events are plain data");
                bytes += body.len();
                insert.execute(params![number(run.key, seq), signed(recorded.at.0), body])?;
                if let Some(end) = new_end(recorded) {
                    let (finished, end) = end.unzip();
                    let update = "UPDATE run SET finished = ?2, end = ?3 WHERE key = ?1";
                    db.execute(update, params![run.key, finished, end])?;
                }
            }
            Ok(())
        });
        written.map_err(|source| self.taken_over(run, source))?;
        self.room.hold_back(&path, bytes);
        run.next_seq += i64::try_from(events.len()).expect("a batch fits in memory");
        Ok(())
    }

    /// Returns all runs, the newest first.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        let marks = self.marks()?;
        if marks.is_empty() { Ok(Vec::new()) } else { self.rows("", []) }
    }

    /// Returns the runs without an end, the newest first, whether they go on or their process is gone.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn without_end(&self) -> Result<Vec<RunRow>, StoreError> {
        self.rows("WHERE finished IS NULL", [])
    }

    fn rows(&self, such: &str, values: impl rusqlite::Params) -> Result<Vec<RunRow>, StoreError> {
        let columns = self.on(|db| {
            let mut query = db.prepare(&format!(
                "SELECT id, pipeline, file, host, boot, pid, pid_started, started, finished, end, task_list.tasks,
                        invocation, pids, within
                 FROM run JOIN task_list ON task_list.run = key {such} ORDER BY started DESC, key DESC",
            ))?;
            let rows = query.query_map(values, |row| {
                let header = Header {
                    id: row.get(0)?,
                    pipeline: row.get(1)?,
                    file: row.get(2)?,
                    orchestrator: Orchestrator {
                        host: row.get(3)?,
                        boot: row.get(4)?,
                        pids: row.get::<_, Option<i64>>(12)?.map(unsigned),
                        process: Process { pid: row.get(5)?, started: unsigned(row.get(6)?) },
                        within: Within::read(&row.get::<_, String>(13)?),
                    },
                    started: Millis(unsigned(row.get(7)?)),
                    invocation: Invocation::default(),
                    tasks: Vec::new(),
                };
                let end: (Option<i64>, Option<String>) = (row.get(8)?, row.get(9)?);
                Ok((header, end, (row.get::<_, String>(10)?, row.get::<_, String>(11)?)))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        type Columns = (Header, (Option<i64>, Option<String>), (String, String));
        let decode = |(mut header, (finished, end), (tasks, invocation)): Columns| {
            let damaged = |source| failed(&self.path(), undecodable(source));
            let tasks = serde_json::from_str(&tasks).map_err(damaged)?;
            let invocation = serde_json::from_str(&invocation).map_err(damaged)?;
            let end = end.as_deref().map(serde_json::from_str).transpose().map_err(damaged)?;
            (header.tasks, header.invocation) = (tasks, invocation);
            let dir = self.run_dir(&header.id);
            Ok(RunRow { header, dir, end: finished.map(|at| Millis(unsigned(at))).zip(end) })
        };
        columns.into_iter().map(decode).collect()
    }
}

/// Waits until no other process is opening a database in this folder. SQLite answers "locked" at once, without waiting,
/// to whoever meets the first switch to the write-ahead log.
pub(super) fn alone(dir: &Path) -> std::io::Result<File> {
    let folder = File::open(dir)?;
    match folder.lock() {
        // A network file system without locks: SQLite's own have to do.
        Err(error) if error.kind() != std::io::ErrorKind::Unsupported => Err(error),
        _ => Ok(folder),
    }
}

fn failed(path: &Path, source: rusqlite::Error) -> StoreError {
    let is_damage = aside::is_damage(&source);
    if is_damage {
        aside::note_doubt(path);
    }
    let path = path.to_owned();
    if is_damage { StoreError::Corrupt { path, source } } else { StoreError::Database { path, source } }
}

/// Returns the error of a text that should be JSON.
fn undecodable(source: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(source))
}

/// Returns what an event makes of the end in the run's header, if it changes it.
fn new_end(recorded: &Recorded) -> Option<Option<(i64, String)>> {
    if let Event::RunFinished { end } = &recorded.event {
        let end = serde_json::to_string(end).expect("an end is a word");
        return Some(Some((signed(recorded.at.0), end)));
    }
    matches!(recorded.event, Event::RunResumed { .. }).then_some(None)
}

/// Does all of `work` or none of it. The statements around it are kept: parsing them costs as much as a small event.
fn in_transaction(db: &Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    if db.is_autocommit() {
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    }
    let done = work(db).and_then(|()| db.prepare_cached("COMMIT")?.execute([]).map(drop));
    if done.is_err() && !db.is_autocommit() {
        // The first error is the one to report.
        let _ = db.execute_batch("ROLLBACK");
    }
    done
}

/// SQLite's integers are signed; times and ticks stay far below their limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests;
