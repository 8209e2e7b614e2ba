//! What a successful attempt made goes into the cache, if nothing that it depends on changed meanwhile.

use std::io;
use std::path::Path;

use super::files::{Seen, coarse_now};
use super::index::{Action, Done};
use super::keeper::{Keeper, Kept, Trouble, UnderWay, chain, now};
use super::key::{Digest, How, Part, changes};
use super::leftovers::There;
use super::manifest::{Entry, Kind};
use super::recipe::Recipe;
use crate::graph::TaskId;
use crate::probe::disk::is_full;
use crate::run::files::since::{Marks, is_changed_since};
use crate::run::lock::LockFile;
use crate::units::Millis;

/// How an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished<'a> {
    /// Where what it printed is, if it printed anything.
    pub(super) log: Option<&'a Path>,
    /// What it made, as it left it, if somebody looked.
    pub(super) marks: Option<&'a Marks>,
    /// When, ms since the Unix epoch.
    pub(super) at: Millis,
}

impl Keeper {
    /// Keeps what a successful attempt made, unless somebody else has changed it since, and lets those go on who wait for
    /// that. Returns why it did not, where a person should hear of it.
    #[must_use]
    pub(super) fn keep(&self, task: TaskId, finished: Finished<'_>, keeping: Option<LockFile>) -> Option<String> {
        let Kept { name, recipe: Ok(recipe) } = &self.tasks[task.index()] else { return None };
        let begun = self.under_way().remove(&task)?;
        self.take_in((&self.project, name, recipe), begun, finished, keeping)
    }

    /// Keeps what a task of some pipeline in the same folder made in an attempt that began so.
    pub(super) fn take_in(
        &self,
        (project, name, recipe): (&Digest, &str, &Recipe),
        UnderWay { mut before, mut made, there, attempt, read }: UnderWay,
        Finished { log, marks: then, at }: Finished<'_>,
        keeping: Option<LockFile>,
    ) -> Option<String> {
        let mut keep = || -> Result<Option<String>, Trouble> {
            for change in changes(&before.trace(), &self.ingredients_on_disk(recipe, &made)?.trace()) {
                // One that was not there before was made by the task.
                if let (Part::Named(path), How::Added) = (&change.part, change.how) {
                    made.extend(self.named_file(recipe, path).map(|content| (path.clone(), content)));
                } else {
                    return Ok(Some(changed_meanwhile(&change.part)));
                }
            }
            if let Some(then) = read
                && self.marks_of_read(&before).is_some_and(|now| now != then)
            {
                return Ok(Some(
                    "an input was changed while it ran, though it is as it was: it is not in the cache".to_owned(),
                ));
            }
            // What was there and is as it was has been read, if anything: it counts from now on, whoever has made it.
            let (untouched, touched): (Vec<_>, Vec<_>) =
                there.iter().partition(|there| self.is_untouched(recipe, there));
            if !untouched.is_empty() {
                made.retain(|(path, _)| untouched.iter().all(|there| there.left.0 != *path));
                before = self.ingredients_on_disk(recipe, &made)?;
            }
            let is_late = |path: &str| is_changed_since(&self.files.whole(path), at);
            if let Some(There { left: (path, _), .. }) = touched.into_iter().find(|there| is_late(&there.left.0)) {
                return Ok(Some(changed_meanwhile(&Part::Named(path.clone()))));
            }
            // As it left them: what somebody has changed since it ended is meant to be read.
            made.iter_mut().for_each(|(path, content)| *content = self.named_file(recipe, path).unwrap_or(*content));
            made.retain(|(path, _)| !is_late(path));
            let trace = before.trace();
            let mut full = None;
            let take_in = |output: &String| self.take_in_output(recipe, output, &mut full);
            let outputs = recipe.outputs.iter().map(take_in).collect::<Result<_, _>>()?;
            if let Some((then, now)) = then.zip(self.marks_of(recipe))
                && let Some(changed) = now.first_other(then)
            {
                return Ok(Some(format!(
                    "{} was changed after it had ended, by another stage perhaps: what it made is not in the cache",
                    changed.display()
                )));
            }
            let action = Action { outputs, log: log.and_then(|log| self.log_in_state(log)), used: now() };
            let done = Done { name, key: before.key(), trace, made: &made, action, attempt: Some(attempt.as_str()) };
            self.index.record(project, &self.root, &[done], &self.files.take_fresh())?;
            Ok(full.map(|full| {
                format!("what it made is not in the cache: {full}; it is up to date as long as it stays in its place")
            }))
        };
        keep().unwrap_or_else(|trouble| {
            // As if this process had been killed: whoever resumes the run keeps it.
            keeping.filter(|_| self.transfer().is_off()).into_iter().for_each(LockFile::leave);
            Some(format!("what it made is not in the cache: {}", chain(&trouble)))
        })
    }

    /// Looks at what an attempt made, right after it; `None` where that takes too long.
    pub(super) fn marks(&self, task: TaskId) -> Option<Marks> {
        self.marks_of(self.recipe(task)?)
    }

    pub(super) fn marks_of(&self, recipe: &Recipe) -> Option<Marks> {
        Marks::of(recipe.outputs.iter().map(|output| self.files.whole(output)))
    }

    /// Takes an output in and returns what is recorded of it. Where there is no room for a copy, that is said in `full`, and
    /// nothing more is copied.
    fn take_in_output(&self, recipe: &Recipe, output: &str, full: &mut Option<String>) -> io::Result<Entry> {
        let kind = match self.files.look(output, false)? {
            Seen::File { .. } => self.take_in_file(output, full)?,
            Seen::Folder { mode } => {
                let without: Vec<String> = recipe.outputs.iter().filter(|path| *path != output).cloned().collect();
                let tree = self.files.tree(output, &without)?;
                let new = |entry: &&Entry| !self.has(entry);
                let mut left: u64 = tree.entries.iter().filter(new).map(Entry::size).sum();
                for entry in tree.entries.iter().filter(|entry| matches!(entry.kind, Kind::File { .. })) {
                    // A part of a folder is of no use, and the room that it takes is gone.
                    if let Err(error) = self.objects.look_for_room(left) {
                        full.get_or_insert(format!("`{output}`: {error}"));
                    }
                    left = left.saturating_sub(entry.size());
                    let kept = self.take_in_file(&format!("{output}/{}", entry.path), full)?;
                    if kept != entry.kind {
                        return Err(io::Error::other(format!("`{output}/{}` changed while it was read", entry.path)));
                    }
                }
                if full.is_none() {
                    self.objects.put_bytes(tree.manifest.as_bytes())?;
                }
                Kind::Tree { mode, size: tree.entries.iter().map(Entry::size).sum(), digest: tree.digest }
            }
            Seen::Link => return Err(io::Error::other(format!("the output `{output}` is a link"))),
            Seen::Absent | Seen::Other => return Err(io::Error::other(format!("the output `{output}` is no file"))),
        };
        Ok(Entry { path: output.to_owned(), kind })
    }

    fn take_in_file(&self, path: &str, full: &mut Option<String>) -> io::Result<Kind> {
        let now = coarse_now();
        let Seen::File { stamp, mode } = self.files.look(path, false)? else {
            return Err(io::Error::other(format!("`{path}` is no file any more")));
        };
        if let Some(digest) = self.files.known(path, &stamp)
            && self.objects.has(&digest, Some(stamp.size))
        {
            return Ok(Kind::File { mode, size: stamp.size, digest });
        }
        let put = if full.is_none() { Some(self.objects.put(&self.files.whole(path))) } else { None };
        let (digest, size) = match put {
            Some(Err(error)) if is_full(&error) => {
                *full = Some(format!("`{path}`: {error}"));
                (self.files.digest(path)?, stamp.size)
            }
            Some(put) => put?,
            None => (self.files.digest(path)?, stamp.size),
        };
        if self.files.look(path, false)? != (Seen::File { stamp, mode }) || size != stamp.size {
            return Err(io::Error::other(format!("`{path}` changed while it was read")));
        }
        self.files.note(path, stamp, digest, now);
        Ok(Kind::File { mode, size, digest })
    }
}

fn changed_meanwhile(part: &Part) -> String {
    match part {
        Part::Input(path) => format!("its input `{path}` changed while it ran: it is not in the cache"),
        Part::Named(path) => format!(
            "`{path}`, which its command names, changed while it ran: it is not in the cache; a file that the stage \
             writes belongs into `outputs`"
        ),
        Part::Command | Part::Tool | Part::Folder | Part::Variable(_) | Part::Reads | Part::Writes => {
            "the program of the built-in ops changed while it ran: it is not in the cache".to_owned()
        }
    }
}
