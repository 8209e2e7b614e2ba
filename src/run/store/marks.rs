//! How far the record of each run goes: enough to see which of them to read again.

use super::numbers::COUNT;
use super::{RunRow, Store, StoreError};

/// A run and how much is recorded of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The run's id.
    pub run: String,
    /// How many events it has.
    pub events: usize,
}

impl Store {
    /// Returns how far the record of every run goes, the newest run first.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        self.on(|db| {
            let mut query =
                db.prepare_cached(&format!("SELECT id, {COUNT} FROM run ORDER BY started DESC, key DESC"))?;
            let mark = |row: &rusqlite::Row<'_>| {
                let events: i64 = row.get(1)?;
                Ok(Mark { run: row.get(0)?, events: usize::try_from(events).unwrap_or(0) })
            };
            query.query_map([], mark)?.collect()
        })
    }

    /// Returns the run with exactly this id; `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::runs`].
    pub fn run(&self, id: &str) -> Result<Option<RunRow>, StoreError> {
        Ok(self.rows("WHERE id = ?1", [id])?.pop())
    }
}
