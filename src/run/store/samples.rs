//! What attempts used, kept apart from the events that say so: a plan asks for one stage over all runs.
//!
//! Every run is read once, when somebody plans after it has got further. So nothing is lost with an orchestrator, and
//! a run pays nothing for it.

use rusqlite::{Connection, TransactionBehavior, params};
use tracing::warn;

use super::numbers::COUNT;
use super::{Store, StoreError, failed, signed, unsigned};
use crate::graph::TaskId;
use crate::run::event::Recorded;
use crate::run::learn::{Sample, Samples, Taken, WINDOW};
use crate::units::{Bytes, Millis};

/// The step of the format that makes the tables.
pub(super) const STEP: &str = "
-- How many of a run's events have been read for samples.
ALTER TABLE run ADD COLUMN learned INTEGER NOT NULL DEFAULT 0;
CREATE TABLE sample (
    run INTEGER NOT NULL REFERENCES run(key),
    task INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    definition TEXT NOT NULL,
    model TEXT,
    duration INTEGER,
    gpu_memory INTEGER,
    memory INTEGER,
    ran_out INTEGER,
    PRIMARY KEY (run, task, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX sample_of ON sample (definition, model, at);
";

impl Store {
    /// Reads what runs have recorded since the last time for what their attempts used. A run with an event that cannot be
    /// read is left out from then on.
    ///
    /// # Errors
    /// Where the database cannot be read or written; nothing is learned then.
    pub fn learn(&mut self) -> Result<(), StoreError> {
        let further = self.on(|db| {
            let mut query = db.prepare(&format!("SELECT id FROM run WHERE learned < {COUNT}"))?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        })?;
        further.into_iter().try_for_each(|run| match self.learn_from(&run, |_| {}) {
            Err(StoreError::Damaged { .. }) => {
                warn!(run, "its record is damaged: what its tasks used is not known");
                let read = format!("UPDATE run SET learned = {COUNT} WHERE id = ?1");
                self.on(|db| db.execute(&read, [&run])).map(drop)
            }
            learned => learned.map(drop),
        })
    }

    /// Tells a run's events in order and reads them for what its attempts used; returns how many events there are.
    ///
    /// # Errors
    /// As [`Store::learn`].
    pub fn learn_from(&mut self, run: &str, mut tell: impl FnMut(&Recorded)) -> Result<u32, StoreError> {
        let (mut samples, mut events) = (Samples::default(), 0_u32);
        self.tell_events(run, 0, |recorded| {
            tell(&recorded);
            samples.take_in(recorded);
            events += 1;
        })?;
        let path = self.path();
        let mut keep = || {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let key = tx.query_row("SELECT key FROM run WHERE id = ?1", [run], |row| row.get(0))?;
            samples.iter().try_for_each(|taken| insert(&tx, key, taken))?;
            tx.execute("UPDATE run SET learned = ?2 WHERE key = ?1", params![key, events])?;
            tx.commit()
        };
        keep().map_err(|source| failed(&path, source))?;
        Ok(events)
    }

    /// Returns the newest samples of these definitions: at most [`WINDOW`] for each of them and each device model.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn history<'a>(&self, definitions: impl IntoIterator<Item = &'a str>) -> Result<Vec<Sample>, StoreError> {
        self.on(|db| {
            let mut query = db.prepare(
                "SELECT definition, model, duration, gpu_memory, memory, ran_out FROM (
                     SELECT *, row_number() OVER (PARTITION BY model ORDER BY at DESC, run DESC, task DESC) AS age
                     FROM sample WHERE definition = ?1
                 ) WHERE age <= ?2",
            )?;
            let mut samples = Vec::new();
            for definition in definitions {
                let rows = query.query_map(params![definition, WINDOW], |row| {
                    let number = |index| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(index)?.map(unsigned));
                    Ok(Sample {
                        definition: row.get(0)?,
                        model: row.get(1)?,
                        duration: number(2)?.map(Millis),
                        gpu_memory: number(3)?.map(Bytes),
                        memory: number(4)?.map(Bytes),
                        ran_out: number(5)?.map(Bytes),
                    })
                })?;
                for sample in rows {
                    samples.push(sample?);
                }
            }
            Ok(samples)
        })
    }
}

fn insert(db: &Connection, run: i64, taken: &Taken) -> rusqlite::Result<()> {
    let Taken { task: TaskId(task), number, at, sample } = taken;
    let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| signed(bytes.0));
    let mut insert =
        db.prepare_cached("INSERT OR REPLACE INTO sample VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?;
    insert.execute(params![
        run,
        task,
        number,
        signed(at.0),
        sample.definition,
        sample.model,
        sample.duration.map(|time| signed(time.0)),
        bytes(sample.gpu_memory),
        bytes(sample.memory),
        bytes(sample.ran_out),
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{Event, Place, Recorded, Role};
    use crate::run::outcome::{Outcome, Usage};
    use crate::run::store::tests::header;

    /// Records an attempt of a task that takes so long.
    fn attempt(store: &mut Store, run: &mut super::super::RunKey, task: u32, at: u64, took: u64) {
        let place = Place { definition: "d".into(), model: Some("T4".into()), ..Place::default() };
        let task = TaskId(task);
        let usage = Usage { peak_gpu_memory: Some(Bytes(took)), ..Usage::default() };
        let events = [
            Recorded { at: Millis(at), event: Event::AttemptStarted { task, number: 1, place } },
            Recorded {
                at: Millis(at + took),
                event: Event::AttemptFinished {
                    task,
                    role: Role::Main,
                    outcome: Outcome::Succeeded,
                    usage,
                    logged: false,
                },
            },
        ];
        store.append(run, &events).unwrap();
    }

    fn durations(store: &mut Store) -> Vec<u64> {
        store.learn().unwrap();
        let history = store.history(["d", "unknown"]).unwrap();
        history.iter().filter_map(|sample| Some(sample.duration?.0)).collect()
    }

    #[test]
    fn what_a_run_used_is_known_while_it_goes_on_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut run = store.begin(&header("a")).unwrap();
        assert_eq!(durations(&mut store), Vec::<u64>::new());
        attempt(&mut store, &mut run, 0, 0, 10);
        assert_eq!(durations(&mut store), [10]);
        attempt(&mut store, &mut run, 1, 20, 30);
        assert_eq!(durations(&mut store), [30, 10], "the newest first, and none twice");
        assert_eq!(durations(&mut store), [30, 10]);
    }

    #[test]
    fn old_samples_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut run = store.begin(&header("a")).unwrap();
        for task in 0..WINDOW + 10 {
            attempt(&mut store, &mut run, task, u64::from(task) * 100, u64::from(task) + 1);
        }
        let durations = durations(&mut store);
        assert_eq!((durations.len() as u32, durations[0]), (WINDOW, u64::from(WINDOW) + 10));
    }
}
