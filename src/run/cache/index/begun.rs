//! What the index knows of attempts that have begun: how each makes what it makes, until that is kept, and which task began
//! last to write an output.

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::key::Digest;
use super::super::recipe::{Leftover, Recipe};
use super::{Index, IndexError, digest};

/// An attempt that has begun, and whose result is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its pipeline.
    pub project: Digest,
    /// Its task.
    pub name: String,
    /// Where it prints: no other attempt does.
    pub attempt: String,
    /// The key that it began with.
    pub key: Digest,
    /// The folder of its pipeline file.
    pub folder: PathBuf,
    /// How it makes what it makes; not known of attempts of earlier versions.
    pub recipe: Option<Recipe>,
    /// Files that its command names, as failed attempts have left them that made them.
    pub left: Vec<Leftover>,
    /// What stands for the last changes of its inputs, if somebody looked.
    pub read: Option<Digest>,
}

/// The key that an attempt began with, and what was left to it.
pub type Open = (Digest, Vec<Leftover>);

impl Index {
    /// Notes that an attempt begins, for whoever takes it up later, and in which places its task writes; all or nothing.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn note_begun(&self, begun: &Begun, writes: &[String]) -> Result<(), IndexError> {
        let Begun { project, name, attempt, key, folder, recipe, left, read } = begun;
        let folder = folder.to_string_lossy();
        let json = |value: Result<String, _>| value.expect("words and numbers only");
        let (how, left) =
            (recipe.as_ref().map(|how| json(serde_json::to_string(how))), json(serde_json::to_string(left)));
        self.in_transaction(|db| {
            let mut insert =
                db.prepare_cached("INSERT OR REPLACE INTO begun VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
            insert.execute(params![project.0, name, attempt, key.0, folder, how, left, read.map(|read| read.0)])?;
            insert_writer(db, project, name, writes)
        })
    }

    /// Notes that an attempt begins of which nothing can be kept, and in which places its task writes; all or nothing.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn note_writer(&self, project: &Digest, name: &str, writes: &[String]) -> Result<(), IndexError> {
        self.in_transaction(|db| {
            let mut delete = db.prepare_cached("DELETE FROM begun WHERE project = ?1 AND name = ?2")?;
            delete.execute(params![project.0, name])?;
            insert_writer(db, project, name, writes)
        })
    }

    /// Notes what an attempt that has failed left of the files that its command names.
    ///
    /// # Errors
    /// Where the index cannot be written.
    pub fn note_left(&self, project: &Digest, name: &str, left: &[Leftover]) -> Result<(), IndexError> {
        let left = serde_json::to_string(left).expect("words and numbers only");
        self.on(|db| {
            let mut update = db.prepare_cached("UPDATE begun SET left = ?3 WHERE project = ?1 AND name = ?2")?;
            update.execute(params![project.0, name, left]).map(drop)
        })
    }

    /// Returns the attempt of a task that began last, unless its result is kept.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn last_begun(&self, project: &Digest, name: &str) -> Result<Option<Begun>, IndexError> {
        self.on(|db| {
            let mut query = db.prepare_cached(
                "SELECT key, left, attempt, recipe, folder, read FROM begun WHERE project = ?1 AND name = ?2",
            )?;
            let begun = |row: &Row<'_>| {
                let ((key, left), how): (Open, Option<String>) = (open(row)?, row.get(3)?);
                let recipe = how.and_then(|how| serde_json::from_str(&how).ok());
                let (name, folder) = (name.to_owned(), PathBuf::from(row.get::<_, String>(4)?));
                let read = row.get::<_, Option<[u8; 32]>>(5)?.map(Digest);
                Ok(Begun { project: *project, name, attempt: row.get(2)?, key, folder, recipe, left, read })
            };
            query.query_row(params![project.0, name], begun).optional()
        })
    }

    /// Returns all of a project's tasks that have begun and whose results are not kept, by name.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn begun(&self, project: &Digest) -> Result<HashMap<String, Open>, IndexError> {
        self.on(|db| {
            let mut query = db.prepare("SELECT key, left, name FROM begun WHERE project = ?1")?;
            query.query_map([project.0], |row| Ok((row.get(2)?, open(row)?)))?.collect()
        })
    }

    /// Whether an attempt of a task ever began.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn has_begun(&self, project: &Digest, name: &str) -> Result<bool, IndexError> {
        self.on(|db| {
            let query = "SELECT EXISTS (SELECT 1 FROM begun WHERE project = ?1 AND name = ?2)
                             OR EXISTS (SELECT 1 FROM task WHERE project = ?1 AND name = ?2)";
            db.query_row(query, params![project.0, name], |row| row.get(0))
        })
    }

    /// Returns the tasks, with their projects, that began last to write in a place, in something within it, or in what it lies
    /// in.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn writers(&self, place: &str) -> Result<Vec<(Digest, String)>, IndexError> {
        let above = place.match_indices('/').map(|(at, _)| &place[..at]);
        // `0` comes behind `/`.
        let (from, to) = (format!("{place}/"), format!("{place}0"));
        self.on(|db| {
            let writer = |row: &Row<'_>| Ok((digest(row, 0)?, row.get(1)?));
            let mut at = db.prepare_cached("SELECT project, name FROM writer WHERE place = ?1")?;
            let mut writers = Vec::new();
            for place in above.clone().chain([place]) {
                writers.extend(at.query_row([place], writer).optional()?);
            }
            let mut within = db.prepare_cached("SELECT project, name FROM writer WHERE place > ?1 AND place < ?2")?;
            let within = within.query_map([&from, &to], writer)?;
            writers.extend(within.collect::<rusqlite::Result<Vec<_>>>()?);
            Ok(writers)
        })
    }
}

fn insert_writer(db: &Connection, project: &Digest, name: &str, writes: &[String]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO writer VALUES (?1, ?2, ?3)")?;
    writes.iter().try_for_each(|place| insert.execute(params![place, project.0, name]).map(drop))
}

/// Reads a key and what was left from the first columns.
fn open(row: &Row<'_>) -> rusqlite::Result<Open> {
    let left = row.get_ref(1)?.as_str()?;
    Ok((digest(row, 0)?, serde_json::from_str(left).unwrap_or_default()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{HERE, done};
    use super::super::{ADDED, Done, TABLES};
    use super::*;
    use crate::run::cache::key::Content;

    fn leftover(path: &str) -> Leftover {
        (path.to_owned(), Content::File(HERE))
    }

    pub(in super::super) fn begun(name: &str, attempt: &str, key: Digest) -> Begun {
        let recipe = Recipe { outputs: vec!["out".to_owned()], ..Recipe::default() };
        let (name, attempt, folder) = (name.to_owned(), attempt.to_owned(), PathBuf::from("/p"));
        Begun {
            project: HERE,
            name,
            attempt,
            key,
            folder,
            recipe: Some(recipe),
            left: vec![leftover("x")],
            read: Some(HERE),
        }
    }

    #[test]
    fn an_attempt_is_known_until_its_own_result_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path()).unwrap();
        let (first, second) = (begun("a", "1", HERE), begun("a", "2", HERE));
        index.note_begun(&first, &[]).unwrap();
        assert_eq!(index.last_begun(&HERE, "a").unwrap().as_ref(), Some(&first));
        index.note_begun(&second, &[]).unwrap();
        index.note_left(&HERE, "a", &[leftover("y")]).unwrap();
        index.record(&HERE, &HERE, &[Done { attempt: Some("1"), ..done("a", HERE, 1) }], &[]).unwrap();
        let open = index.begun(&HERE).unwrap();
        assert_eq!(open["a"], (HERE, vec![leftover("y")]), "the second one is still to be kept");
        index.record(&HERE, &HERE, &[Done { attempt: Some("2"), ..done("a", HERE, 1) }], &[]).unwrap();
        assert!(index.begun(&HERE).unwrap().is_empty() && index.has_begun(&HERE, "a").unwrap());
    }

    #[test]
    fn who_writes_in_a_place_is_found_from_within_and_from_above() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(folder.path()).unwrap();
        let all = [("a", "/p/work/a"), ("b", "/p/work/a.x"), ("c", "/p/work-2"), ("d", "/p/one"), ("d2", "/p/one")];
        for (name, place) in all {
            index.note_begun(&begun(name, name, HERE), &[place.to_owned()]).unwrap();
        }
        let writers = |output: &str| {
            let found = index.writers(&format!("/p/{output}")).unwrap();
            found.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ")
        };
        let places = ["work", "work/a", "work/a/b", "wor", "one", "two"];
        assert_eq!(places.map(writers), ["a b", "a", "a", "", "d2", ""]);
    }

    #[test]
    fn what_the_first_format_knew_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let db = rusqlite::Connection::open(folder.path().join("index.db")).unwrap();
        db.execute_batch(TABLES).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        db.execute("INSERT INTO begun VALUES (?1, 'a', '1', ?1)", [HERE.0]).unwrap();
        drop(db);
        assert!(ADDED.ends_with("user_version = 2;\n"));
        let index = Index::open(folder.path()).unwrap();
        let known =
            Begun { folder: PathBuf::new(), recipe: None, left: Vec::new(), read: None, ..begun("a", "1", HERE) };
        assert_eq!(index.last_begun(&HERE, "a").unwrap(), Some(known));
    }
}
