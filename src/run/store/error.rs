//! What can be wrong with a record.

use std::path::PathBuf;

use rusqlite::ErrorCode;

use super::FORMAT;

/// Why the record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no state folder yet.
    #[error("no runs are recorded in {0}")]
    NoState(PathBuf),
    /// The folder cannot be made.
    #[error("the state folder {path} cannot be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The database was written by another version.
    #[error("{path} was written by another version of trainyard (format {found}, this one knows {FORMAT})")]
    Format {
        /// The database.
        path: PathBuf,
        /// The format that was found.
        found: i64,
    },
    /// The database itself is damaged.
    #[error("{path} is damaged")]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The database itself is damaged, and a run goes on with it: it loses what it has yet to record if the database is moved
    /// away.
    #[error("{path} is damaged, and run {run} goes on with it")]
    CorruptUnder {
        /// The database.
        path: PathBuf,
        /// The run's id.
        run: String,
    },
    /// Something that is no file has the database's name.
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    /// The database is not where it was.
    #[error("{0} was removed or replaced while the run went on: nothing can be recorded any more")]
    Gone(PathBuf),
    /// A run of another state folder has kept all others from starting anything for longer than was waited.
    #[error("{} has locked {}", by.map_or_else(|| "another run".to_owned(), |pid| format!("process {pid}")), lock.display())]
    Held {
        /// What it has locked.
        lock: PathBuf,
        /// Its process, where that can be seen.
        by: Option<u32>,
    },
    /// Another run of this folder has the name that a new one is to have.
    #[error("run {run} is called {name} already")]
    NameTaken {
        /// The name.
        name: String,
        /// The run that has it.
        run: String,
    },
    /// Another process carries the run out now.
    #[error("run {run} was taken over by process {pid} on {host}: this process records nothing more of it")]
    TakenOver {
        /// The run.
        run: String,
        /// Who recorded what comes next.
        pid: u32,
        /// Where that is.
        host: String,
    },
    /// A record that cannot be read back.
    #[error("the record of run {run} is damaged at event {seq}")]
    Damaged {
        /// The run.
        run: String,
        /// Its event, counted from 0.
        seq: i64,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// SQLite's own errors, a full disk among them.
    #[error("the record in {path} cannot be read or written")]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Whether somebody else has locked the record, for longer than was waited.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let code = |source: &rusqlite::Error| source.sqlite_error_code();
        matches!(self, Self::Held { .. })
            || matches!(self, Self::Database { source, .. } if code(source) == Some(ErrorCode::DatabaseBusy))
    }
}
