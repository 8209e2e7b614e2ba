//! Runs that are removed. What stays of one is a row without a list of tasks: it numbers what its attempts used, which is
//! still learned from, and says that whatever else is left of the run may go.

use rusqlite::params;

use super::{Orchestrator, RunRow, Store, StoreError, in_transaction, numbers, signed};

/// Parts of the database that are free, of 100, and bytes, from which on it is worth making it smaller.
const WORTH_PART: i64 = 25;
const WORTH_BYTES: i64 = 1 << 20;

/// Which rows of `run` are those of removed runs: every other one has a list of tasks from the beginning.
const REMOVED: &str = "NOT EXISTS (SELECT 1 FROM task_list WHERE task_list.run = run.key)";

impl Store {
    /// Removes a run from the record, all of it or nothing; what was learned from it stays. Returns whether that was done:
    /// not where somebody has taken the run up since it was read.
    ///
    /// # Errors
    /// Where the database cannot be written.
    pub fn remove(&mut self, row: &RunRow) -> Result<bool, StoreError> {
        match self.learn_from(&row.header.id, |_| {}) {
            // Nothing can be learned from it.
            Err(StoreError::Damaged { .. }) => {}
            learned => drop(learned?),
        }
        let Orchestrator { host, boot, process, .. } = &row.header.orchestrator;
        let finished = row.end.map(|(at, _)| signed(at.0));
        let mut removed = false;
        let written = in_transaction(&self.db, |db| {
            let updated = db.execute(
                "UPDATE run SET host = '', boot = '', pid = 0, pid_started = 0, pids = NULL, within = '', file = '', tasks = '',
                                invocation = '{}', finished = coalesce(finished, started), learned = 0
                 WHERE id = ?1 AND host = ?2 AND boot = ?3 AND pid = ?4 AND pid_started = ?5 AND finished IS ?6",
                params![row.header.id, host, boot, process.pid, signed(process.started), finished],
            )?;
            removed = updated > 0;
            if removed {
                let key: i64 = db.query_row("SELECT key FROM run WHERE id = ?1", [&row.header.id], |row| row.get(0))?;
                let (first, last) = numbers::of(key).into_inner();
                db.execute("DELETE FROM event WHERE number BETWEEN ?1 AND ?2", [first, last])?;
                db.execute("DELETE FROM task_list WHERE run = ?1", [key])?;
            }
            Ok(())
        });
        written.map_err(|source| super::failed(&self.path(), source))?;
        Ok(removed)
    }

    /// Returns the ids of the runs that were removed.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn removed(&self) -> Result<Vec<String>, StoreError> {
        self.on(|db| {
            let mut query = db.prepare(&format!("SELECT id FROM run WHERE {REMOVED}"))?;
            query.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Gives what is free in the database back to the disk, if that is worth it. Nobody can record anything meanwhile.
    ///
    /// # Errors
    /// Where the database cannot be written; nothing is lost then.
    pub fn shrink(&self) -> Result<(), StoreError> {
        self.on(|db| {
            let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            let (free, all, size) = (number("freelist_count")?, number("page_count")?, number("page_size")?);
            if free * size < WORTH_BYTES || free * 100 < all * WORTH_PART {
                return Ok(());
            }
            db.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::TaskId;
    use crate::run::event::{Event, Place, Recorded, Role, RunEnd};
    use crate::run::outcome::{Outcome, Usage};
    use crate::run::store::tests::header;
    use crate::units::Millis;

    /// Records a run in which one attempt took 7 ms.
    fn ended(store: &mut Store, id: &str) -> RunRow {
        let place = Place { definition: "d".into(), ..Place::default() };
        let (task, outcome, usage) = (TaskId(0), Outcome::Succeeded, Usage::default());
        let finished = Event::AttemptFinished { task, role: Role::Main, outcome, usage, logged: false };
        let events = [
            (0, Event::AttemptStarted { task, number: 1, place }),
            (7, finished),
            (8, Event::RunFinished { end: RunEnd::Succeeded }),
        ];
        let events = events.map(|(at, event)| Recorded { at: Millis(at), event });
        let mut key = store.begin(&header(id)).unwrap();
        store.append(&mut key, &events).unwrap();
        store.run(id).unwrap().unwrap()
    }

    #[test]
    fn a_removed_run_is_gone_but_for_what_was_learned_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let (one, two) = (ended(&mut store, "one"), ended(&mut store, "two"));
        assert!(store.remove(&two).unwrap());
        assert_eq!(store.runs().unwrap(), std::slice::from_ref(&one));
        assert_eq!((store.run("two").unwrap(), store.removed().unwrap()), (None, vec!["two".to_owned()]));
        assert_eq!(store.marks().unwrap().len(), 1);
        store.learn().unwrap();
        let durations = || store.history(["d"]).unwrap().into_iter().filter_map(|sample| sample.duration);
        assert_eq!(durations().collect::<Vec<_>>(), [Millis(7), Millis(7)]);
        let left: i64 = store.db.query_row("SELECT count(*) FROM event", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 3);
        ended(&mut store, "three");
        store.learn().unwrap();
        assert_eq!(store.history(["d"]).unwrap().len(), 3, "the next run has another number");
        assert!(store.shrink().is_ok());
    }

    #[test]
    fn a_run_that_was_taken_up_meanwhile_is_not_removed_and_a_removed_one_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let row = ended(&mut store, "one");
        let by = Orchestrator { pids: None, ..header("one").orchestrator };
        let by = Orchestrator { process: crate::run::event::Process { pid: 8, started: 1 }, ..by };
        assert!(store.take_over(&row.header, &by).unwrap().is_some());
        assert!(!store.remove(&row).unwrap());
        let row = store.run("one").unwrap().unwrap();
        assert!(store.remove(&row).unwrap());
        assert!(store.take_over(&row.header, &by).unwrap().is_none());
    }

    #[test]
    fn the_name_of_a_removed_run_is_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let named = |id: &str| {
            let mut header = header(id);
            header.invocation.name = Some("nightly".to_owned());
            header
        };
        store.begin(&named("one")).unwrap();
        assert!(matches!(store.begin(&named("two")), Err(StoreError::NameTaken { .. })));
        let row = store.run("one").unwrap().unwrap();
        assert!(store.remove(&row).unwrap());
        store.begin(&named("two")).unwrap();
    }

    #[test]
    fn a_database_that_is_mostly_free_gets_smaller() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut key = store.begin(&header("one")).unwrap();
        let skipped = Recorded { at: Millis(1), event: Event::TaskSkipped { task: TaskId(0), because: None } };
        store.append(&mut key, &vec![skipped; 60_000]).unwrap();
        store.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let size = || std::fs::metadata(dir.path().join("state.db")).unwrap().len();
        let before = size();
        let row = store.run("one").unwrap().unwrap();
        assert!(store.remove(&row).unwrap());
        store.shrink().unwrap();
        assert!(before > 2 << 20 && size() < before / 4, "{before} {}", size());
    }
}
