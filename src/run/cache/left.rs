//! What other runs have left: results of attempts that ended well while nobody was there to keep them.
//!
//! Tasks may go on when the process dies that carries their run out, or it dies when their end is on record and what they
//! made is not kept yet. `resume` takes that in for its own run; here any other does, if it is what it would make.

use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::index::{Action, Begun};
use super::intake::Finished;
use super::keeper::{Keeper, Trouble, chain, now};
use super::key::Digest;
use super::recipe::{Leftover, Recipe};
use crate::graph::TaskId;
use crate::run::files::since::{AsLeft, is_changed_since};
use crate::run::lock::LockFile;

/// Tells of other runs.
pub trait OtherRuns: Send + Sync {
    /// Whether another run writes one of these outputs now.
    fn write_any(&self, outputs: &[String]) -> bool;

    /// Returns how an attempt of a task ended well that printed to this log, if another run has made it that nobody carries
    /// out, and wrote to where its outputs belong.
    fn ended_alone(&self, task: &str, log: &Path) -> Option<EndedAlone>;
}

/// An attempt that ended well, and whose run nobody carries out any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedAlone {
    /// What it made, as it left it.
    pub left: AsLeft,
    /// Whether that is on record: then what it made was kept, unless the run's process died over it.
    pub on_record: bool,
}

/// What is known of a task that the index does not know.
pub(super) enum Left {
    /// Nothing: it runs.
    Nothing,
    /// Somebody writes its outputs now.
    BeingWritten,
    /// It was made, and this output was changed or removed since.
    Changed(String),
    /// It is made, and would be kept.
    Result(Action),
    /// It was kept just now, by the key that it has since it has ended: the task is to be looked up again.
    Kept,
}

impl Keeper {
    /// Takes in what the last attempt of a task has made, if it began with this key and nobody else will keep it. `only_look`:
    /// changes nothing, and does not read what it made.
    pub(super) fn take_over(&self, task: TaskId, key: &Digest, only_look: bool) -> Result<Left, Trouble> {
        let (name, Some(recipe)) = (&self.tasks[task.index()].name, self.recipe(task)) else {
            return Ok(Left::Nothing);
        };
        let Some(begun) = self.index.last_begun(&self.project, name)? else { return Ok(Left::Nothing) };
        // It may have made some of the files itself that its command names, which count as long as nobody knows that.
        if begun.key == *key || self.as_it_began(&begun, recipe).is_some() {
            return self.take_in_left(&begun, recipe, only_look);
        }
        Ok(Left::Nothing)
    }

    /// Takes in what is in these places, or within them, if it is what an attempt has made that ended alone: one of another
    /// pipeline perhaps, or of a command that was another one. Before it is moved: whoever has made it goes on as if it had
    /// stayed, and nothing is made again.
    pub(super) fn take_in_left_at(&self, places: &[String]) {
        let take_in = |(project, name): (Digest, String)| -> Result<(), Trouble> {
            // It may still be kept by a run that goes on.
            self.wait_for_keeping(&project, &name);
            let begun = self.index.last_begun(&project, &name)?;
            if let Some((begun, recipe)) = begun.as_ref().and_then(|begun| Some((begun, begun.recipe.as_ref()?))) {
                if begun.folder.to_string_lossy() == self.files.root().to_string_lossy() {
                    self.take_in_left(begun, recipe, false)?;
                } else {
                    self.in_folder(&begun.folder)?.take_in_left(begun, recipe, false)?;
                }
            }
            Ok(())
        };
        for place in places {
            let writers = self.index.writers(place).map_err(Trouble::from);
            let taken_in = writers.and_then(|writers| writers.into_iter().try_for_each(take_in));
            taken_in.unwrap_or_else(|trouble| debug!("who has made {place} is not known: {}", chain(&trouble)));
        }
    }

    fn take_in_left(&self, begun: &Begun, recipe: &Recipe, only_look: bool) -> Result<Left, Trouble> {
        let Begun { project, name, attempt, .. } = begun;
        let (log, lock) = (Path::new(attempt), self.keeping(project, name));
        let Some(ended) = self.others.ended_alone(name, log) else { return Ok(Left::Nothing) };
        let is_kept = || Ok::<_, Trouble>(self.index.last_begun(project, name)?.as_ref() != Some(begun));
        if ended.on_record {
            if !only_look {
                self.wait_for_keeping(project, name);
            }
            if is_kept()? {
                return Ok(Left::Kept);
            }
            if !LockFile::is_left(&lock) {
                return Ok(Left::Nothing);
            }
        }
        let then = self.marks_of(recipe);
        let places: Vec<PathBuf> = recipe.outputs.iter().map(|output| self.files.whole(output)).collect();
        let gone = || places.iter().map(PathBuf::as_path).find(|place| !place.exists());
        if let Some(changed) = ended.left.first_changed(&places).or_else(gone) {
            let output = recipe.outputs.iter().zip(&places).find(|(_, place)| *place == changed);
            return Ok(output.map_or(Left::Nothing, |(output, _)| Left::Changed(output.clone())));
        }
        if self.others.write_any(&self.places_of(&recipe.outputs)) {
            return Ok(Left::BeingWritten);
        }
        if only_look {
            let is_late = |(path, _): &Leftover| is_changed_since(&self.files.whole(path), ended.left.at);
            let is_it = self.as_it_began(begun, recipe).is_some_and(|began| !began.made.iter().any(is_late));
            let action = Action { outputs: Vec::new(), log: self.log_in_state(log), used: now() };
            return Ok(if is_it { Left::Result(action) } else { Left::Nothing });
        }
        // Two may find it at once.
        let keeping = LockFile::take_unless(&lock, || self.transfer().is_off()).ok();
        self.transfer().go_on()?;
        if is_kept()? {
            return Ok(Left::Kept);
        }
        let Some(under_way) = self.as_it_began(begun, recipe) else { return Ok(Left::Nothing) };
        let printed = Some(log).filter(|log| log.exists());
        let finished = Finished { log: printed, marks: then.as_ref(), at: ended.left.at };
        let note = self.take_in((project, name, recipe), under_way, finished, keeping);
        let is_kept = is_kept()?;
        match &note {
            Some(note) if is_kept => warn!(task = name, "{note}"),
            Some(note) => debug!(task = name, "{note}"),
            None => debug!(task = name, "taken over: {}", log.display()),
        }
        Ok(if is_kept { Left::Kept } else { Left::Nothing })
    }
}

/// Says that what a task made is made again since it was changed.
pub(super) fn tell_changed(task: &str, output: &str) {
    warn!(task, "`{output}` was changed or removed before anybody could keep it: it is made again");
}
