//! What is up to date and not in its place is put back, unless another run is about to write there.
//!
//! An attempt is on record before it touches its outputs, and waits until nobody puts any of them back any more
//! ([`Keeper::prepare`]). Who puts them back takes their locks first and looks into the record then. So of the two, one
//! always sees the other.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::aside;
use super::files::{Seen, coarse_now};
use super::index::{Action, Done};
use super::keeper::{Keeper, Kept, Trouble, chain, file_part, now};
use super::left::{Left, tell_changed};
use super::manifest::{Entry, Kind};
use super::objects::Lost;
use super::recipe::Recipe;
use super::verdict::Cached;
use crate::graph::TaskId;
use crate::run::files::tree;
use crate::run::lock::LockFile;

/// What was found out about a task whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is up to date.
    UpToDate(Cached),
    /// It is not.
    Runs,
    /// It might be, but another run writes its outputs.
    BeingWritten,
}

impl Keeper {
    /// Looks whether a task is up to date, all tasks before it being done, and puts its outputs back where they are not
    /// as it made them. The second value is what a person should hear of.
    #[must_use]
    pub fn look_up(&self, task: TaskId, aside: &Path) -> (Found, Option<String>) {
        let Kept { name, recipe: Ok(recipe) } = &self.tasks[task.index()] else { return (Found::Runs, None) };
        self.wait_for_keeping(&self.project, name);
        let look = || -> Result<Option<Found>, Trouble> {
            let last = self.index.task(&self.project, name)?;
            let made = self.made_itself(&self.project, name, recipe);
            let ingredients = self.ingredients_on_disk(recipe, &made)?;
            let key = ingredients.key();
            let same = last.as_ref().filter(|last| last.key == key);
            let known = match same {
                Some(last) => last.action.clone(),
                None => self.index.action(&key)?,
            };
            // What an attempt has made since, forced perhaps, is newer than what is known.
            let action = match (self.take_over(task, &key, false)?, known) {
                (Left::Result(action), _) | (Left::BeingWritten | Left::Changed(_) | Left::Nothing, Some(action)) => {
                    action
                }
                (Left::Kept, _) => return Ok(None),
                (Left::BeingWritten, None) => return Ok(Some(Found::BeingWritten)),
                (Left::Changed(output), None) => {
                    tell_changed(name, &output);
                    return Ok(Some(Found::Runs));
                }
                (Left::Nothing, None) => return Ok(Some(Found::Runs)),
            };
            let Some(restored) = self.put_back((name, recipe), &action, aside)? else {
                return Ok(Some(Found::BeingWritten));
            };
            if same.is_none() {
                let done =
                    Done { name, key, trace: ingredients.trace(), made: &made, action: action.clone(), attempt: None };
                self.index.record(&self.project, &self.root, &[done], &[])?;
            }
            if action.is_due(now()) {
                self.index.note_use(&[key], now())?;
            }
            Ok(Some(Found::UpToDate(Cached { log: action.log, restored })))
        };
        let found = loop {
            // What was kept on the way is found when it is looked for again.
            if let Some(found) = look().transpose() {
                break found;
            }
        };
        match found {
            Ok(found) => (found, None),
            Err(_) if self.transfer().is_off() => (Found::Runs, None),
            Err(Trouble::Lost(lost)) => (Found::Runs, Some(format!("{lost}; it is made again"))),
            Err(trouble) => {
                (Found::Runs, Some(format!("whether it is up to date cannot be seen: {}", chain(&trouble))))
            }
        }
    }

    /// Returns the outputs that are not as the action made them.
    fn out_of_place<'a>(&self, recipe: &Recipe, action: &'a Action) -> io::Result<Vec<&'a Entry>> {
        let mut wrong = Vec::new();
        for entry in &action.outputs {
            let seen = self.files.look(&entry.path, false)?;
            if !self.is_in_place(recipe, entry, seen)? {
                wrong.push(entry);
            }
        }
        Ok(wrong)
    }

    /// Whether what is seen at an output's path is what the entry says.
    pub(super) fn is_in_place(&self, recipe: &Recipe, entry: &Entry, seen: Seen) -> io::Result<bool> {
        Ok(match (&entry.kind, seen) {
            (Kind::File { mode, size, digest }, Seen::File { stamp, mode: seen })
                if (stamp.size, seen) == (*size, *mode) =>
            {
                let known = self.files.known(&entry.path, &stamp);
                known.map_or_else(|| self.files.digest(&entry.path), Ok)? == *digest
            }
            (Kind::Tree { digest, .. }, Seen::Folder { .. }) => {
                let without: Vec<String> = recipe.outputs.iter().filter(|path| **path != entry.path).cloned().collect();
                self.files.tree(&entry.path, &without).is_ok_and(|tree| tree.digest == *digest)
            }
            _ => false,
        })
    }

    /// Whether the cache holds what an entry needs, as far as that can be seen without reading it.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        match &entry.kind {
            Kind::File { size, digest, .. } => self.objects.has(digest, Some(*size)),
            Kind::Tree { digest, .. } => self.objects.has(digest, None),
            Kind::Folder { .. } | Kind::Link { .. } => false,
        }
    }

    /// Whether an output can be made as the entry says, as far as that can be seen without reading it.
    pub(super) fn can_put_back(&self, entry: &Entry) -> bool {
        self.has(entry) || self.has_content(entry)
    }

    /// Whether what is in a file's place holds what the entry says, with other permissions perhaps.
    fn has_content(&self, Entry { path, kind }: &Entry) -> bool {
        match (kind, self.files.look(path, false)) {
            (Kind::File { size, digest, .. }, Ok(Seen::File { stamp, .. })) if stamp.size == *size => {
                let known = self.files.known(path, &stamp);
                known.map_or_else(|| self.files.digest(path), Ok).is_ok_and(|found| found == *digest)
            }
            _ => false,
        }
    }

    /// Puts outputs that are not as the action made them back into their places and returns their names; `None` where another
    /// run writes one. What is there goes to a folder in `aside`, unless the cache holds it as well.
    pub(super) fn put_back(
        &self,
        (name, recipe): (&str, &Recipe),
        action: &Action,
        aside: &Path,
    ) -> Result<Option<Vec<String>>, Trouble> {
        if self.out_of_place(recipe, action)?.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let mut outputs = recipe.outputs.clone();
        // All in one order, lest two wait for each other.
        outputs.sort_unstable();
        let is_off = || self.transfer().is_off();
        let alone = |output: &String| LockFile::take_unless(&self.putting_back(output), is_off).ok();
        let _alone: Vec<LockFile> = outputs.iter().filter_map(alone).collect();
        if self.others.write_any(&outputs) {
            return Ok(None);
        }
        // Whoever has written them may still be keeping them, and somebody may have put them back already.
        self.wait_for_keeping(&self.project, name);
        self.take_in_left_at(&self.places_of(&outputs));
        self.transfer().go_on()?;
        let wrong = self.out_of_place(recipe, action)?;
        Ok(Some(self.restore(&wrong, &aside.join(file_part(name) + ".before"))?))
    }

    /// Puts outputs back and returns their names. What is there goes to the folder `old`, unless the
    /// cache holds it as well.
    fn restore(&self, wrong: &[&Entry], old: &Path) -> Result<Vec<String>, Lost> {
        if let Some(gone) = wrong.iter().find(|entry| !self.can_put_back(entry)) {
            return Err(match gone.kind {
                Kind::File { digest, .. } | Kind::Tree { digest, .. } => Lost::Missing(digest).of(&gone.path),
                Kind::Folder { .. } | Kind::Link { .. } => return Ok(Vec::new()),
            });
        }
        for entry in wrong {
            let (place, old) = (self.files.whole(&entry.path), old.join(&entry.path));
            if !self.files.is_ours(&entry.path) {
                return Err(Lost::Refused { path: place, source: io::Error::other("a link leads out of the project") });
            }
            if let (Kind::File { mode, .. }, true) = (&entry.kind, self.has_content(entry)) {
                let refused = |source| Lost::Refused { path: place.clone(), source };
                fs::set_permissions(&place, Permissions::from_mode(*mode)).map_err(refused)?;
                continue;
            }
            self.transfer().begin(&entry.path);
            self.forget_kept_copy(&entry.path).map_err(|source| Lost::Refused { path: place.clone(), source })?;
            aside::restore(&self.objects, entry, &place, &old).map_err(|lost| lost.of(&entry.path))?;
            let now = coarse_now();
            if let (Kind::File { digest, .. }, Ok(Seen::File { stamp, .. })) =
                (&entry.kind, self.files.look(&entry.path, false))
            {
                self.files.note(&entry.path, stamp, *digest, now);
            }
        }
        Ok(wrong.iter().map(|entry| entry.path.clone()).collect())
    }

    /// Removes what is at an output's path if the cache holds the same.
    pub(super) fn forget_kept_copy(&self, path: &str) -> io::Result<()> {
        if let Seen::File { stamp, .. } = self.files.look(path, false)?
            && let Some(digest) = self.files.known(path, &stamp)
            && self.objects.has(&digest, Some(stamp.size))
        {
            return tree::remove_all(&self.files.whole(path));
        }
        Ok(())
    }
}
