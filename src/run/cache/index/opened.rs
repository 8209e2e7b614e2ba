//! The database of the index while it is open. Damage may show at any page and at any time: the index is then begun anew,
//! once for all processes that meet it, and whoever met it goes on. All that it knew can be made again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tracing::warn;

use super::{ADDED, COPIED, FORMAT, Index, IndexError, TABLES};
use crate::run::lock::identity;
use crate::run::store::{Room, alone, is_damage, read_only};

/// How long is waited for another run on the same folder, which holds the lock for the length of one small transaction.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub(super) struct Opened {
    db: Connection,
    /// Which file it is of: another process may have put a new one there since.
    file: Option<(u64, u64)>,
    /// Where a damaged one went.
    moved: Option<PathBuf>,
    /// For the results of what runs while the disk fills up.
    room: Room,
}

/// What is done about damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The database is moved aside.
    Mended,
    /// Nothing is changed, and nothing is known.
    Told,
}

impl Index {
    /// Opens the index of a cache folder, making both where there are none. A damaged one is moved aside: what it knew
    /// is made again.
    ///
    /// # Errors
    /// Where it cannot be made or read.
    pub fn open(cache: &Path) -> Result<Self, IndexError> {
        std::fs::create_dir_all(cache).map_err(|source| folder(cache, source))?;
        Self::open_with(cache, Damage::Mended)
    }

    /// Opens the index of a cache folder to look at it. Where there is none or it is damaged, nothing is known; none is
    /// made and none is moved.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open_to_look(cache: &Path) -> Result<Self, IndexError> {
        if cache.join("index.db").exists() { Self::open_with(cache, Damage::Told) } else { Self::in_memory() }
    }

    fn in_memory() -> Result<Self, IndexError> {
        let path = Path::new(":memory:");
        let opened = Opened { db: connect(path)?, file: None, moved: None, room: Room::default() };
        Ok(Self { opened: Mutex::new(opened), path: path.to_owned(), damage: Damage::Told })
    }

    fn open_with(cache: &Path, damage: Damage) -> Result<Self, IndexError> {
        let _alone = alone(cache).map_err(|source| folder(cache, source))?;
        let path = cache.join("index.db");
        let connect = if damage == Damage::Told { connect_to_look } else { connect };
        let opened = match connect(&path) {
            Ok(db) => Opened { db, file: identity(&path), moved: None, room: Room::default() },
            Err(IndexError::Database { source, .. }) if is_damage(&source) || path.is_dir() => anew(&path, damage)?,
            Err(error) => return Err(error),
        };
        Ok(Self { opened: Mutex::new(opened), path, damage })
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        // Another thread's panic leaves at most a transaction that was rolled back.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the database; where that is damaged, once more with a new one.
    pub(super) fn on<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        self.on_sound(|db| work(db))
    }

    /// The same, all or nothing.
    pub(super) fn in_transaction<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        let done = self.on_sound(|db| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&tx)?;
            tx.commit().map(|()| done)
        })?;
        self.opened().room.hold_back(&self.path, 0);
        Ok(done)
    }

    fn on_sound<T>(&self, work: impl Fn(&mut Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        let mut opened = self.opened();
        let done = match work(&mut opened.db) {
            Err(error) if is_damage(&error) => {
                self.begin_anew(&mut opened)?;
                work(&mut opened.db)
            }
            done => done,
        };
        done.map_err(|source| IndexError::Database { path: self.path.clone(), source })
    }

    fn begin_anew(&self, opened: &mut Opened) -> Result<(), IndexError> {
        let damaged = opened.file;
        // Closed before it is moved: closing tidies up beside the name that it was opened by.
        opened.db = connect(Path::new(":memory:"))?;
        let cache = self.path.parent().unwrap_or(&self.path);
        let _alone = alone(cache).map_err(|source| folder(cache, source))?;
        *opened = if self.damage == Damage::Mended && identity(&self.path) != damaged {
            // Another process has met the damage as well, and was first.
            Opened {
                db: connect(&self.path)?,
                file: identity(&self.path),
                moved: opened.moved.take(),
                room: Room::default(),
            }
        } else {
            anew(&self.path, self.damage)?
        };
        Ok(())
    }

    /// Whether a database has all tables and columns of our format.
    fn has_all_columns(&self, db: &Connection) -> Result<bool, IndexError> {
        let of = |db: &Connection| -> rusqlite::Result<HashSet<(String, String)>> {
            let mut query = db.prepare(
                "SELECT of.name, has.name FROM sqlite_schema AS of, pragma_table_info(of.name) AS has
                 WHERE of.type = 'table'",
            )?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let failed = |source| IndexError::Database { path: self.path.clone(), source };
        let (ours, found) = (of(&connect(Path::new(":memory:"))?).map_err(failed)?, of(db).map_err(failed)?);
        Ok(ours.is_subset(&found))
    }

    /// Looks through all pages, and returns where the database went if it was damaged, now or when it was opened.
    ///
    /// # Errors
    /// Where it cannot be read or moved.
    pub fn check(&self) -> Result<Option<PathBuf>, IndexError> {
        let mut opened = self.opened();
        let found = opened.db.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
        let is_sound = match found {
            Ok(found) => found == "ok" && self.has_all_columns(&opened.db)?,
            Err(error) if is_damage(&error) => false,
            Err(source) => return Err(IndexError::Database { path: self.path.clone(), source }),
        };
        if !is_sound {
            self.begin_anew(&mut opened)?;
        }
        Ok(opened.moved.clone())
    }
}

/// Has a new database take the place of a damaged one, or nothing be known of it.
fn anew(path: &Path, damage: Damage) -> Result<Opened, IndexError> {
    if damage == Damage::Told {
        warn!("{} is damaged: nothing that it knew is seen; `trainyard cache verify` mends it", path.display());
        return Ok(Opened { db: connect(Path::new(":memory:"))?, file: None, moved: None, room: Room::default() });
    }
    let named = |n: u32| path.with_file_name(format!("index.db.damaged-{n}"));
    let aside = (1..).map(named).find(|aside| !aside.exists()).unwrap_or_else(|| named(0));
    std::fs::rename(path, &aside).map_err(|source| folder(path, source))?;
    for rest in ["index.db-wal", "index.db-shm"] {
        // The log of a database that is not there any more would be taken for that of the next one.
        let _ = std::fs::remove_file(path.with_file_name(rest));
    }
    warn!("the index of the cache was damaged and is now {}; what it knew is made again", aside.display());
    Ok(Opened { db: connect(path)?, file: identity(path), moved: Some(aside), room: Room::default() })
}

fn folder(path: &Path, source: std::io::Error) -> IndexError {
    IndexError::Folder { path: path.to_owned(), source }
}

/// Connects to a database of which nothing is to be changed; it may lie where nothing may be written. What one of an earlier
/// format knows is copied into memory.
fn connect_to_look(path: &Path) -> Result<Connection, IndexError> {
    let failed = |source| IndexError::Database { path: path.to_owned(), source };
    let name = read_only::name(path);
    let mode = if name.is_some() { OpenFlags::SQLITE_OPEN_READ_ONLY } else { OpenFlags::SQLITE_OPEN_READ_WRITE };
    let name = name.map_or_else(|| path.to_owned(), PathBuf::from);
    let db = Connection::open_with_flags(&name, mode | OpenFlags::SQLITE_OPEN_URI).map_err(failed)?;
    db.busy_timeout(PATIENCE).map_err(failed)?;
    match db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)? {
        FORMAT => Ok(db),
        0 => connect(Path::new(":memory:")),
        1 => {
            let copy = connect(Path::new(":memory:"))?;
            copy.execute("ATTACH ?1 AS earlier", [name.to_string_lossy()]).map_err(failed)?;
            copy.execute_batch(COPIED).map_err(failed)?;
            Ok(copy)
        }
        found => Err(IndexError::Format { path: path.to_owned(), found }),
    }
}

fn connect(path: &Path) -> Result<Connection, IndexError> {
    let damaged = |source| IndexError::Database { path: path.to_owned(), source };
    let mut db = Connection::open(path).map_err(damaged)?;
    db.busy_timeout(PATIENCE).map_err(damaged)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
    db.pragma_update(None, "synchronous", "NORMAL").map_err(damaged)?;
    // 4 MiB, of which only what is read is taken: actions are found in no order, those of 10,000 tasks again and again.
    db.pragma_update(None, "cache_size", -4096).map_err(damaged)?;
    let format: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(damaged)?;
    if !(0..=FORMAT).contains(&format) {
        return Err(IndexError::Format { path: path.to_owned(), found: format });
    }
    if format < FORMAT {
        // Two processes may come here at once.
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(damaged)?;
        let format: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(damaged)?;
        for (_, tables) in [(1, TABLES), (2, ADDED)].into_iter().filter(|(since, _)| format < *since) {
            tx.execute_batch(tables).map_err(damaged)?;
        }
        tx.commit().map_err(damaged)?;
    }
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::super::Done;
    use super::super::begun::tests::begun;
    use super::super::tests::{HERE, done};
    use super::*;
    use crate::run::cache::key::Digest;

    const PAGE: usize = 4_096;

    /// An index of several pages, closed.
    fn filled() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..200).map(|n| format!("task-{n:04}")).collect();
        let done: Vec<Done<'_>> = names.iter().map(|name| done(name, Digest::of(name.as_bytes()), 5)).collect();
        Index::open(folder.path()).unwrap().record(&HERE, &HERE, &done, &[]).unwrap();
        folder
    }

    fn use_all(index: &Index) {
        index.tasks(&HERE).unwrap();
        index.memo(&HERE).unwrap();
        index.actions().unwrap();
        index.trace(&HERE, "task-0000").unwrap();
        index.note_begun(&begun("task-0000", "1", HERE), &["/p/a".to_owned()]).unwrap();
        index.last_begun(&HERE, "task-0000").unwrap();
        index.writers("/p").unwrap();
        index.record(&HERE, &HERE, &[done("task-0000", HERE, 7)], &[]).unwrap();
        assert!(index.action(&HERE).unwrap().is_some(), "what is new is known");
    }

    #[test]
    fn whichever_page_is_damaged_the_index_is_begun_anew_and_goes_on() {
        let whole = std::fs::read(filled().path().join("index.db")).unwrap();
        assert!(whole.len() > 5 * PAGE);
        for page in 0..whole.len() / PAGE {
            for fill in [0, 0xFF] {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("index.db");
                let mut damaged = whole.clone();
                damaged[page * PAGE..(page + 1) * PAGE].fill(fill);
                std::fs::write(&path, &damaged).unwrap();
                use_all(&Index::open(folder.path()).unwrap());
                std::fs::write(&path, &damaged).unwrap();
                let _ = std::fs::remove_file(folder.path().join("index.db-wal"));
                let checked = Index::open(folder.path()).unwrap().check().unwrap();
                assert!(checked.is_some_and(|aside| std::fs::read(aside).unwrap() == damaged), "page {page}");
                assert_eq!(Index::open(folder.path()).unwrap().check().unwrap(), None);
            }
        }
    }

    #[test]
    fn damage_that_two_have_met_is_moved_aside_once() {
        let folder = filled();
        let indexes = [Index::open(folder.path()).unwrap(), Index::open(folder.path()).unwrap()];
        let length = std::fs::metadata(folder.path().join("index.db")).unwrap().len();
        // In place, as a disk does it.
        let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("index.db")).unwrap();
        let zeros = vec![0; usize::try_from(length).unwrap() - PAGE];
        std::os::unix::fs::FileExt::write_all_at(&file, &zeros, PAGE as u64).unwrap();
        indexes.iter().for_each(use_all);
        assert!(folder.path().join("index.db.damaged-1").exists());
        assert!(!folder.path().join("index.db.damaged-2").exists());
        assert!(indexes[0].action(&HERE).unwrap().is_some() && indexes[1].action(&HERE).unwrap().is_some());
    }

    #[test]
    fn an_index_without_one_of_its_columns_is_begun_anew() {
        let columns = |db: &Connection| -> Vec<(String, String)> {
            let mut query = db
                .prepare(
                    "SELECT of.name, has.name FROM sqlite_schema AS of, pragma_table_info(of.name) AS has
                     WHERE of.type = 'table' AND has.pk = 0",
                )
                .unwrap();
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        let all = columns(&connect(Path::new(":memory:")).unwrap());
        assert!(all.len() > 12, "{all:?}");
        for (table, column) in all {
            let folder = filled();
            let (path, aside) = (folder.path().join("index.db"), folder.path().join("index.db.damaged-1"));
            let drop = || {
                let db = Connection::open(&path).unwrap();
                db.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).unwrap();
            };
            drop();
            use_all(&Index::open_to_look(folder.path()).unwrap());
            assert!(!aside.exists());
            use_all(&Index::open(folder.path()).unwrap());
            assert!(aside.exists(), "{table}.{column}");
            drop();
            assert!(Index::open(folder.path()).unwrap().check().unwrap().is_some(), "{table}.{column}");
            assert_eq!(Index::open(folder.path()).unwrap().check().unwrap(), None);
        }
    }

    #[test]
    fn who_only_looks_at_an_earlier_format_leaves_it_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(TABLES).unwrap();
        db.execute("INSERT INTO begun VALUES (?1, 'a', '1', ?1)", [HERE.0]).unwrap();
        db.execute("INSERT INTO action VALUES (?1, '', NULL, 5)", [HERE.0]).unwrap();
        for (version, known) in [(1, 1), (0, 0)] {
            db.pragma_update(None, "user_version", version).unwrap();
            let before = std::fs::read(&path).unwrap();
            let index = Index::open_to_look(folder.path()).unwrap();
            assert_eq!((index.begun(&HERE).unwrap().len(), index.actions().unwrap().len()), (known, known));
            use_all(&index);
            drop(index);
            assert_eq!(std::fs::read(&path).unwrap(), before);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn who_only_looks_moves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Index::open_to_look(folder.path()).unwrap().actions().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let whole = std::fs::read(filled().path().join("index.db")).unwrap();
        let mut damaged = whole.clone();
        damaged[PAGE..].fill(0);
        for damaged in [damaged, vec![7; whole.len()]] {
            std::fs::write(folder.path().join("index.db"), &damaged).unwrap();
            use_all(&Index::open_to_look(folder.path()).unwrap());
            assert_eq!(std::fs::read(folder.path().join("index.db")).unwrap(), damaged);
            assert!(!folder.path().join("index.db.damaged-1").exists());
        }
    }

    #[test]
    fn a_folder_in_its_place_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("index.db")).unwrap();
        use_all(&Index::open(folder.path()).unwrap());
        assert!(folder.path().join("index.db.damaged-1").is_dir());
    }
}
