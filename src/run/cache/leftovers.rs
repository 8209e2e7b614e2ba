//! Files that a command names and that the task has made itself: they are no inputs, unless somebody else has edited them or
//! the task only reads them.

use tracing::debug;

use super::index::Leftover;
use super::keeper::{Keeper, UnderWay, chain};
use super::key::{Content, Digest, How, Part, changes};
use super::recipe::{Recipe, Wanted};
use super::since::Marks;
use crate::graph::TaskId;

/// A file that the task has made itself, as it was before the attempt.
#[derive(Debug)]
pub(super) struct There {
    pub(super) path: String,
    /// What it held.
    pub(super) content: Content,
    /// What the system said of it, if somebody looked.
    pub(super) marks: Option<Marks>,
}

impl There {
    pub(super) fn leftover(&self) -> Leftover {
        (self.path.clone(), self.content)
    }
}

impl Keeper {
    /// Returns the files of its command that a task has made itself; of those that failed attempts have made, the ones that are
    /// as they left them: whoever edits such a file means it to be read.
    pub(super) fn made_itself(&self, project: &Digest, name: &str, recipe: &Recipe) -> Vec<String> {
        let last = self.index.task(project, name).ok().flatten();
        let begun = self.index.last_begun(project, name).ok().flatten();
        let mut made = last.map(|last| last.made).unwrap_or_default();
        made.extend(begun.into_iter().flat_map(|begun| begun.left).filter_map(|left| self.if_still_left(recipe, left)));
        made.sort_unstable();
        made.dedup();
        made
    }

    /// Returns a file that a failed attempt has left, if it is as it was left.
    pub(super) fn if_still_left(&self, recipe: &Recipe, (path, then): Leftover) -> Option<String> {
        (self.named_file(recipe, &path) == Some(then)).then_some(path)
    }

    /// Returns what a file holds that a command names; `None` where there is none.
    pub(super) fn named_file(&self, recipe: &Recipe, path: &str) -> Option<Content> {
        let found = self.files.content(path, Wanted::File, &recipe.outputs).ok();
        found.filter(|found| matches!(found, Content::File(_) | Content::Program(_)))
    }

    /// Returns those of some files that are there.
    pub(super) fn there(&self, recipe: &Recipe, paths: &[String]) -> Vec<There> {
        let there = |path: &String| {
            let marks = Marks::of([self.files.whole(path)]);
            Some(There { path: path.clone(), content: self.named_file(recipe, path)?, marks })
        };
        paths.iter().filter_map(there).collect()
    }

    /// Whether a file that the task has made itself is as it was before an attempt.
    pub(super) fn is_untouched(&self, recipe: &Recipe, there: &There) -> bool {
        match &there.marks {
            Some(then) => Marks::of([self.files.whole(&there.path)]).as_ref() == Some(then),
            None => self.named_file(recipe, &there.path) == Some(there.content),
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
        let paths: Vec<_> = there.into_iter().map(|there| there.path).chain(added).collect();
        let left: Vec<_> = self.there(recipe, &paths).iter().map(There::leftover).collect();
        if !paths.is_empty()
            && let Err(error) = self.index.note_left(&self.project, name, &left)
        {
            debug!(task = name, "{}", chain(&error));
        }
    }
}
