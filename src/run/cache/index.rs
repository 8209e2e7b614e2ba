//! What the cache knows: `index.db`, apart from the record of runs, since all of it can be made again.
//!
//! An action is a key with what it made. What has begun and is not kept yet is known as well. A task's row remembers its last
//! key, to say what has changed since. The memo remembers what files hold. The newest entries may be missing after a power loss,
//! never one in the middle (`synchronous = NORMAL`): what is missing is made again.

mod begun;
mod opened;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use rusqlite::{OptionalExtension, params};

pub use self::begun::{Begun, Open};
use self::opened::{Damage, Opened};
use super::files::{Remembered, Stamp};
use super::key::{Digest, Trace};
use super::manifest::{self, Entry};
use super::recipe::Leftover;

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It was written by another version.
    #[error(
        "{path} was written by another version of trainyard (format {found}, this one knows {FORMAT}); without it, results are made again"
    )]
    Format {
        /// The database.
        path: PathBuf,
        /// The format that was found.
        found: i64,
    },
    /// SQLite's own errors, a full disk among them.
    #[error("the index of the cache in {path} cannot be read or written")]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The folder cannot be made, or a damaged index cannot be moved aside.
    #[error("the cache folder {path} cannot be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

const FORMAT: i64 = 2;

const TABLES: &str = "
CREATE TABLE action (
    key BLOB PRIMARY KEY,
    outputs TEXT NOT NULL,
    log TEXT,
    used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE task (
    project BLOB NOT NULL,
    name TEXT NOT NULL,
    key BLOB NOT NULL,
    trace TEXT NOT NULL,
    made TEXT NOT NULL,
    PRIMARY KEY (project, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE begun (
    project BLOB NOT NULL,
    name TEXT NOT NULL,
    attempt TEXT NOT NULL,
    key BLOB NOT NULL,
    PRIMARY KEY (project, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE memo (
    root BLOB NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (root, path)
) STRICT, WITHOUT ROWID;
";

/// What was added since the first format.
const ADDED: &str = "
ALTER TABLE begun ADD COLUMN folder TEXT NOT NULL DEFAULT '';
ALTER TABLE begun ADD COLUMN recipe TEXT;
ALTER TABLE begun ADD COLUMN left TEXT NOT NULL DEFAULT '[]';
ALTER TABLE begun ADD COLUMN read BLOB;
CREATE TABLE writer (
    place TEXT PRIMARY KEY,
    project BLOB NOT NULL,
    name TEXT NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// What the first format knew.
const COPIED: &str = "
INSERT INTO action SELECT * FROM earlier.action;
INSERT INTO task SELECT * FROM earlier.task;
INSERT INTO begun (project, name, attempt, key) SELECT * FROM earlier.begun;
INSERT INTO memo SELECT * FROM earlier.memo;
DETACH earlier;
";

/// A use is noted again only after so long (ms): a run in which everything is up to date writes nothing.
pub(super) const USE_NOTED_EVERY: i64 = 3_600_000;

/// What an action made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its outputs, in the order of the pipeline file.
    pub outputs: Vec<Entry>,
    /// What it printed, as a path in the state folder, if it printed anything.
    pub log: Option<String>,
    /// When it was last made or taken, ms since the Unix epoch.
    pub used: i64,
}

impl Action {
    /// Whether its use is to be noted at a time: not where that was done a short while ago.
    #[must_use]
    pub const fn is_due(&self, now: i64) -> bool {
        self.used + USE_NOTED_EVERY <= now
    }
}

/// What is known of a task since it last ran or was up to date.
#[derive(Clone, Debug)]
pub struct Last {
    /// Its key then.
    pub key: Digest,
    /// What that key made, if that is still known.
    pub action: Option<Action>,
    /// Files that the task's command names and that it made itself: as long as they are as it left them, they are not in the key.
    pub made: Vec<Leftover>,
}

/// A task that has run, to be remembered.
#[derive(Clone, Debug)]
pub struct Done<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its key.
    pub key: Digest,
    /// What the key was made from.
    pub trace: Trace,
    /// Files that its command names and that it made itself.
    pub made: &'a [Leftover],
    /// What it made.
    pub action: Action,
    /// The attempt that has made it: no more is to be known of that.
    pub attempt: Option<&'a str>,
}

/// An index, for one project.
#[derive(Debug)]
pub struct Index {
    opened: Mutex<Opened>,
    path: PathBuf,
    damage: Damage,
}

impl Index {
    /// Returns what is known of all tasks of a project, by name.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn tasks(&self, project: &Digest) -> Result<HashMap<String, Last>, IndexError> {
        self.on(|db| {
            let mut query = db.prepare(
                "SELECT task.key, made, outputs, log, used, name
                 FROM task LEFT JOIN action ON action.key = task.key WHERE project = ?1",
            )?;
            let rows = query.query_map([project.0], |row| Ok((row.get(5)?, last(row)?)))?;
            rows.collect()
        })
    }

    /// Returns what is known of one task.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn task(&self, project: &Digest, name: &str) -> Result<Option<Last>, IndexError> {
        self.on(|db| {
            let mut query = db.prepare_cached(
                "SELECT task.key, made, outputs, log, used
                 FROM task LEFT JOIN action ON action.key = task.key WHERE project = ?1 AND name = ?2",
            )?;
            query.query_row(params![project.0, name], last).optional()
        })
    }

    /// Returns what a task's last key was made from.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn trace(&self, project: &Digest, name: &str) -> Result<Trace, IndexError> {
        let trace: Option<String> = self.on(|db| {
            let mut query = db.prepare_cached("SELECT trace FROM task WHERE project = ?1 AND name = ?2")?;
            query.query_row(params![project.0, name], |row| row.get(0)).optional()
        })?;
        Ok(trace.and_then(|trace| serde_json::from_str(&trace).ok()).unwrap_or_default())
    }

    /// Returns what a key made.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn action(&self, key: &Digest) -> Result<Option<Action>, IndexError> {
        self.on(|db| {
            let mut query = db.prepare_cached("SELECT outputs, log, used FROM action WHERE key = ?1")?;
            query.query_row([key.0], |row| action(row, 0)).optional().map(Option::flatten)
        })
    }

    /// Remembers tasks that have run or were found up to date, and what files hold; all or nothing.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn record(
        &self,
        project: &Digest,
        root: &Digest,
        done: &[Done<'_>],
        memo: &[Remembered],
    ) -> Result<(), IndexError> {
        if done.is_empty() && memo.is_empty() {
            return Ok(());
        }
        self.in_transaction(|db| {
            let mut action = db.prepare_cached("INSERT OR REPLACE INTO action VALUES (?1, ?2, ?3, ?4)")?;
            let mut task = db.prepare_cached("INSERT OR REPLACE INTO task VALUES (?1, ?2, ?3, ?4, ?5)")?;
            let mut kept = db.prepare_cached("DELETE FROM begun WHERE project = ?1 AND name = ?2 AND attempt = ?3")?;
            for Done { name, key, trace, made, action: found, attempt } in done {
                if let Some(attempt) = attempt {
                    kept.execute(params![project.0, name, attempt])?;
                }
                let outputs = manifest::encode(&found.outputs);
                action.execute(params![key.0, outputs, found.log, found.used])?;
                let json = |value: Result<String, _>| value.expect("words and numbers only");
                let (trace, made) = (json(serde_json::to_string(trace)), json(serde_json::to_string(made)));
                task.execute(params![project.0, name, key.0, trace, made])?;
            }
            let mut insert = db.prepare_cached("INSERT OR REPLACE INTO memo VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            for Remembered { path, stamp, digest } in memo {
                let Stamp { size, modified, inode } = stamp;
                insert.execute(params![root.0, path, size.cast_signed(), modified, inode.cast_signed(), digest.0])?;
            }
            Ok(())
        })
    }

    /// Notes that actions were taken at a time (ms since the Unix epoch).
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn note_use(&self, used: &[Digest], now: i64) -> Result<(), IndexError> {
        if used.is_empty() {
            return Ok(());
        }
        self.in_transaction(|db| {
            let mut update = db.prepare_cached("UPDATE action SET used = ?2 WHERE key = ?1")?;
            used.iter().try_for_each(|key| update.execute(params![key.0, now]).map(drop))
        })
    }

    /// Returns what is remembered of the files of a project.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn memo(&self, root: &Digest) -> Result<Vec<Remembered>, IndexError> {
        self.on(|db| {
            let mut query = db.prepare("SELECT path, size, modified, inode, digest FROM memo WHERE root = ?1")?;
            let rows = query.query_map([root.0], |row| {
                let (size, inode): (i64, i64) = (row.get(1)?, row.get(3)?);
                let stamp = Stamp { size: size.cast_unsigned(), modified: row.get(2)?, inode: inode.cast_unsigned() };
                Ok(Remembered { path: row.get(0)?, stamp, digest: digest(row, 4)? })
            })?;
            rows.collect()
        })
    }

    /// Returns all actions, the one that was used longest ago first.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn actions(&self) -> Result<Vec<(Digest, Action)>, IndexError> {
        self.on(|db| {
            let mut query = db.prepare("SELECT outputs, log, used, key FROM action ORDER BY used, key")?;
            let rows = query.query_map([], |row| Ok((digest(row, 3)?, action(row, 0)?)))?;
            let whole = rows.filter_map(|row| row.map(|(key, action)| Some((key, action?))).transpose());
            whole.collect()
        })
    }

    /// Forgets actions, but for those that are the last of a task: whether what they made is in its place is still to be
    /// seen.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn forget(&self, keys: &[Digest]) -> Result<(), IndexError> {
        self.in_transaction(|db| {
            let mut delete =
                db.prepare_cached("DELETE FROM action WHERE key = ?1 AND key NOT IN (SELECT key FROM task)")?;
            keys.iter().try_for_each(|key| delete.execute([key.0]).map(drop))
        })
    }
}

/// Reads what is known of a task from the first columns.
fn last(row: &rusqlite::Row<'_>) -> rusqlite::Result<Last> {
    let made = row.get_ref(1)?.as_str()?;
    // Nearly always there is none.
    let made = if made == "[]" { Vec::new() } else { serde_json::from_str(made).unwrap_or_default() };
    Ok(Last { key: digest(row, 0)?, made, action: action(row, 2)? })
}

/// Reads an action from the columns from `at` on; `None` where there is none, or a damaged one.
fn action(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<Action>> {
    let Some(outputs) = row.get_ref(at)?.as_str_or_null()? else { return Ok(None) };
    let Some(outputs) = manifest::decode(outputs) else { return Ok(None) };
    Ok(Some(Action { outputs, log: row.get(at + 1)?, used: row.get(at + 2)? }))
}

fn digest(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Digest> {
    row.get(at).map(Digest)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::run::cache::key::Part;
    use crate::run::cache::manifest::Kind;

    pub(super) const HERE: Digest = Digest([1; 32]);

    fn action(used: i64) -> Action {
        let kind = Kind::File { mode: 0o644, size: 3, digest: Digest::of(b"abc") };
        Action { outputs: vec![Entry { path: "work/a".into(), kind }], log: Some("runs/r/logs/a.1.log".into()), used }
    }

    pub(super) fn done(name: &str, key: Digest, used: i64) -> Done<'_> {
        Done { name, key, trace: vec![(Part::Command, 7)], made: &[], action: action(used), attempt: None }
    }

    #[test]
    fn what_is_recorded_is_known_to_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let key = Digest::of(b"key");
        let stamp = Stamp { size: u64::MAX, modified: -1, inode: u64::MAX };
        let memo = Remembered { path: "a".into(), stamp, digest: key };
        Index::open(folder.path())
            .unwrap()
            .record(&HERE, &HERE, &[done("a", key, 5)], std::slice::from_ref(&memo))
            .unwrap();
        let index = Index::open(folder.path()).unwrap();
        let tasks = index.tasks(&HERE).unwrap();
        assert_eq!((tasks["a"].key, tasks["a"].action.clone()), (key, Some(action(5))));
        assert_eq!(index.trace(&HERE, "a").unwrap(), [(Part::Command, 7)]);
        assert_eq!(index.action(&key).unwrap(), Some(action(5)));
        assert_eq!(index.memo(&HERE).unwrap(), [memo]);
        assert!(index.tasks(&Digest([2; 32])).unwrap().is_empty(), "another project");
    }

    #[test]
    fn a_use_is_noted_once_in_a_while_and_orders_what_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path()).unwrap();
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        index.record(&HERE, &HERE, &[done("a", a, 0), done("b", b, 10)], &[]).unwrap();
        assert!(action(0).is_due(USE_NOTED_EVERY) && !action(10).is_due(USE_NOTED_EVERY));
        index.note_use(&[a], USE_NOTED_EVERY).unwrap();
        let order: Vec<_> = index.actions().unwrap().into_iter().map(|(key, action)| (key, action.used)).collect();
        assert_eq!(order, [(b, 10), (a, USE_NOTED_EVERY)]);
        let old = Digest([3; 32]);
        index.record(&HERE, &HERE, &[done("a", old, 5), done("a", a, 10)], &[]).unwrap();
        index.forget(&[old, b]).unwrap();
        assert_eq!(index.action(&old).unwrap(), None);
        assert!(index.action(&b).unwrap().is_some(), "it is the last of a task");
    }

    #[test]
    fn a_damaged_index_is_moved_aside_and_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("index.db"),
            "not a database, but long enough to be taken for one".repeat(40),
        )
        .unwrap();
        let index = Index::open(folder.path()).unwrap();
        assert!(index.actions().unwrap().is_empty());
        assert!(folder.path().join("index.db.damaged-1").is_file());
    }

    #[test]
    fn an_index_of_a_later_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open(folder.path().join("index.db")).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Index::open(folder.path()), Err(IndexError::Format { found: 99, .. })));
    }
}
