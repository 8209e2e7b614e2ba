//! What the runs are called and how far the record of each goes: enough to see which of them to read.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use super::aside::names_in;
use super::numbers::COUNT;
use super::{RunRow, Store, StoreError};
use crate::units::Millis;

/// A run and how much is recorded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The run's id.
    pub run: String,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// How many events it has.
    pub events: usize,
}

impl Store {
    /// Returns how far the record of every run goes, the newest run first.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        let marks: Vec<Mark> = self.on(|db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT id, invocation ->> 'name', {COUNT} FROM run JOIN task_list ON task_list.run = key ORDER BY started DESC, key DESC"
            ))?;
            let mark = |row: &rusqlite::Row<'_>| {
                let events: i64 = row.get(2)?;
                Ok(Mark { run: row.get(0)?, name: row.get(1)?, events: usize::try_from(events).unwrap_or(0) })
            };
            query.query_map([], mark)?.collect()
        })?;
        // Where a page is damaged its rows may just not be there.
        if marks.is_empty() {
            self.check_pages()?;
        }
        Ok(marks)
    }

    /// Returns for how long nothing of a run went on and nobody carried it out, until it was resumed: as the state says it
    /// that its events tell.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn away(&self, run: &str) -> Result<Millis, StoreError> {
        // Nothing was adopted: its tasks had not gone on all the while.
        const RESUMED: &str = r#"{"event":"run-resumed"}"#;
        self.on(|db| {
            let mut query = db.prepare_cached(
                "SELECT coalesce(sum(max(event.at - before.at, 0)), 0)
                 FROM run JOIN event ON event.number BETWEEN (run.key << 32) + 1 AND (run.key << 32) + 0xFFFFFFFF
                 JOIN event AS before ON before.number = event.number - 1
                 WHERE run.id = ?1 AND event.body = ?2",
            )?;
            query.query_row([run, RESUMED], |row| Ok(Millis(super::unsigned(row.get(0)?))))
        })
    }

    /// Returns the folders of runs of which nothing is on record, by their names: such as begin at this moment, and such as
    /// have lost it.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn unrecorded(&self) -> Result<Vec<PathBuf>, StoreError> {
        let known: HashSet<String> =
            self.on(|db| db.prepare("SELECT id FROM run")?.query_map([], |row| row.get(0))?.collect())?;
        let names: BTreeSet<String> = names_in(&self.dir().join("runs")).collect();
        Ok(names.into_iter().filter(|name| !known.contains(name)).map(|name| self.run_dir(&name)).collect())
    }

    /// Returns the run with exactly this id; `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::runs`].
    pub fn run(&self, id: &str) -> Result<Option<RunRow>, StoreError> {
        Ok(self.rows("WHERE id = ?1", [id])?.pop())
    }
}
