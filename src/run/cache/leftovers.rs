//! Files that a command names and that the task has made itself: they are no inputs, unless somebody else has edited them or
//! the task only reads them.

use tracing::debug;

use super::index::Begun;
use super::keeper::{Keeper, UnderWay, chain};
use super::key::{Content, Digest, How, Part, changes};
use super::recipe::{Leftover, Recipe, Wanted};
use crate::graph::TaskId;
use crate::run::files::since::Marks;

/// A file that the task has made itself, as it was before the attempt.
#[derive(Debug)]
pub(super) struct There {
    pub(super) left: Leftover,
    /// What the system said of it, if somebody looked.
    pub(super) marks: Option<Marks>,
}

impl Keeper {
    /// Returns the files of its command that a task has made itself, in attempts that succeeded or failed, and that are as they
    /// left them: whoever edits such a file means it to be read, and it may have been somebody else who made it.
    pub(super) fn made_itself(&self, project: &Digest, name: &str, recipe: &Recipe) -> Vec<Leftover> {
        let last = self.index.task(project, name).ok().flatten();
        let begun = self.index.last_begun(project, name).ok().flatten();
        let left = begun.into_iter().flat_map(|begun| begun.left);
        self.as_left(recipe, last.into_iter().flat_map(|last| last.made).chain(left))
    }

    /// Returns those of some files that are as they were left, each once.
    pub(super) fn as_left(&self, recipe: &Recipe, files: impl IntoIterator<Item = Leftover>) -> Vec<Leftover> {
        let is_as_left = |(path, then): &Leftover| self.named_file(recipe, path) == Some(*then);
        let mut made: Vec<Leftover> = files.into_iter().filter(is_as_left).collect();
        made.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        made.dedup();
        made
    }

    /// Adds to what a task has made itself of the files that its command names what an attempt has left whose end nobody saw:
    /// without it, the task depends on what that attempt began with.
    pub(super) fn with_what_was_left(&self, begun: &Begun, recipe: &Recipe, made: Vec<Leftover>) -> Vec<Leftover> {
        let is_it = |made: &[Leftover]| self.ingredients_on_disk(recipe, made).is_ok_and(|now| now.key() == begun.key);
        let others = recipe.named.iter().filter(|path| made.iter().all(|(made, _)| made != *path));
        let others: Vec<Leftover> =
            others.filter_map(|path| Some((path.clone(), self.named_file(recipe, path)?))).collect();
        if others.is_empty() || is_it(&made) {
            return made;
        }
        let with = |more: &[Leftover]| [&made, more].concat();
        let found = others.chunks(1).chain([&others[..]]).map(with).find(|made| is_it(made));
        found.unwrap_or(made)
    }

    /// Returns what a file holds that a command names; `None` where there is none.
    pub(super) fn named_file(&self, recipe: &Recipe, path: &str) -> Option<Content> {
        let found = self.files.content(path, Wanted::File, &recipe.outputs).ok();
        found.filter(|found| matches!(found, Content::File(_) | Content::Program(_)))
    }

    /// Returns those of some files that are there.
    pub(super) fn there<'p>(&self, recipe: &Recipe, paths: impl IntoIterator<Item = &'p String>) -> Vec<There> {
        let there = |path: &'p String| {
            let marks = Marks::of([self.files.whole(path)]);
            Some(There { left: (path.clone(), self.named_file(recipe, path)?), marks })
        };
        paths.into_iter().filter_map(there).collect()
    }

    /// Whether a file that the task has made itself is as it was before an attempt.
    pub(super) fn is_untouched(&self, recipe: &Recipe, There { left: (path, then), marks }: &There) -> bool {
        match marks {
            Some(then) => Marks::of([self.files.whole(path)]).as_ref() == Some(then),
            None => self.named_file(recipe, path) == Some(*then),
        }
    }

    /// Notes what a failed attempt has left of the files that its command names: those that were not there before it, and what
    /// was left to it. The next one finds them, and does not depend on them unless it only reads them.
    pub(super) fn note_left(&self, task: TaskId, name: &str, recipe: &Recipe) {
        let Some(UnderWay { before, made, there, .. }) = self.under_way().remove(&task) else { return };
        let now = self.ingredients_on_disk(recipe, &made).map(|now| changes(&before.trace(), &now.trace()));
        let added = now.unwrap_or_default().into_iter().filter_map(|change| match (change.part, change.how) {
            (Part::Named(path), How::Added) => Some(path),
            _ => None,
        });
        let paths: Vec<String> = there.into_iter().map(|there| there.left.0).chain(added).collect();
        let left: Vec<Leftover> = self.there(recipe, &paths).into_iter().map(|there| there.left).collect();
        if !paths.is_empty()
            && let Err(error) = self.index.note_left(&self.project, name, &left)
        {
            debug!(task = name, "{}", chain(&error));
        }
    }
}
