//! The events of a run, read back in their order.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, numbers, unsigned};
use crate::run::event::Recorded;
use crate::units::Millis;

impl Store {
    /// Returns a run's events in order.
    ///
    /// # Errors
    /// Where the database cannot be read or an event cannot be decoded; an unknown run has no events.
    pub fn events(&self, run: &str) -> Result<Vec<Recorded>, StoreError> {
        self.events_from(run, 0)
    }

    /// Returns a run's events in order, those before the `first` one left out.
    ///
    /// # Errors
    /// As [`Store::events`].
    pub fn events_from(&self, run: &str, first: usize) -> Result<Vec<Recorded>, StoreError> {
        let mut events = Vec::new();
        self.tell_events(run, first, |recorded| events.push(recorded))?;
        Ok(events)
    }

    /// Tells a run's events in order, those before the `first` one left out, without holding more than one of them.
    ///
    /// # Errors
    /// As [`Store::events`]; events before the one that cannot be decoded have been told then.
    pub fn tell_events(&self, run: &str, first: usize, mut tell: impl FnMut(Recorded)) -> Result<(), StoreError> {
        self.on(|db| {
            let key: Option<i64> =
                db.query_row("SELECT key FROM run WHERE id = ?1", [run], |row| row.get(0)).optional()?;
            let Some(key) = key else { return Ok(Ok(())) };
            let of_run = numbers::of(key);
            let first = of_run.start().saturating_add(i64::try_from(first).unwrap_or(i64::MAX));
            let mut query =
                db.prepare("SELECT number, at, body FROM event WHERE number BETWEEN ?1 AND ?2 ORDER BY number")?;
            let mut rows = query.query(params![first, of_run.end()])?;
            while let Some(row) = rows.next()? {
                match serde_json::from_slice(row.get_ref(2)?.as_bytes()?) {
                    Ok(event) => tell(Recorded { at: Millis(unsigned(row.get(1)?)), event }),
                    Err(source) => {
                        let seq = row.get::<_, i64>(0)? - of_run.start();
                        return Ok(Err(StoreError::Damaged { run: run.to_owned(), seq, source }));
                    }
                }
            }
            Ok(Ok(()))
        })?
    }
}
