//! What other runs have left: results of attempts that ended well while nobody was there to keep them.
//!
//! Tasks may go on when the process dies that carries their run out, or it dies when their end is on record and what they
//! made is not kept yet. `resume` takes that in for its own run; here any other does, if it is what it would make.

use std::path::Path;

use tracing::{debug, warn};

use super::index::Action;
use super::keeper::{Keeper, Trouble, now};
use super::key::Digest;
use super::since::is_changed_since;
use crate::graph::TaskId;
use crate::run::lock::LockFile;
use crate::units::Millis;

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
    /// When, ms since the Unix epoch.
    pub at: Millis,
    /// Whether that is on record: then what it made was kept, unless the run's process died over it.
    pub on_record: bool,
}

/// What is known of a task that the index does not know.
pub(super) enum Left {
    /// Nothing: it runs.
    Nothing,
    /// Somebody writes its outputs now.
    BeingWritten,
    /// It is made.
    Result(Action),
}

impl Keeper {
    /// Takes in what the last attempt of a task has made, if it began with this key and nobody else will keep it. `only_look`:
    /// changes nothing, and does not read what it made.
    pub(super) fn take_over(&self, task: TaskId, key: &Digest, only_look: bool) -> Result<Left, Trouble> {
        let (name, Some(recipe)) = (&self.tasks[task.index()].name, self.recipe(task)) else {
            return Ok(Left::Nothing);
        };
        let begun = self.index.last_begun(&self.project, name)?.filter(|(_, begun)| begun == key);
        let Some((log, _)) = begun else { return Ok(Left::Nothing) };
        let log = Path::new(&log);
        let Some(ended) = self.others.ended_alone(name, log) else { return Ok(Left::Nothing) };
        if ended.on_record {
            if !only_look {
                self.wait_for_keeping(name);
            }
            if let Some(kept) = self.index.action(key)? {
                return Ok(Left::Result(kept));
            }
            if !LockFile::is_left(&self.keeping(name)) {
                return Ok(Left::Nothing);
            }
        }
        let then = self.marks(task);
        let is_as_it_was = |output: &String| {
            let place = self.files.whole(output);
            place.exists() && !is_changed_since(&place, ended.at)
        };
        if !recipe.outputs.iter().all(is_as_it_was) {
            return Ok(Left::Nothing);
        }
        if self.others.write_any(&recipe.outputs) {
            return Ok(Left::BeingWritten);
        }
        if only_look {
            return Ok(Left::Result(Action { outputs: Vec::new(), log: self.log_in_state(log), used: now() }));
        }
        // Two may find it at once.
        let keeping = LockFile::take_unless(&self.keeping(name), || self.transfer().is_off()).ok();
        self.transfer().go_on()?;
        if let Some(kept) = self.index.action(key)? {
            return Ok(Left::Result(kept));
        }
        self.take_up(task, log);
        let note = self.keep(task, Some(log).filter(|log| log.exists()), then.as_ref(), keeping);
        let kept = self.index.action(key)?;
        match (&note, &kept) {
            (Some(note), Some(_)) => warn!(task = name, "{note}"),
            (Some(note), None) => debug!(task = name, "{note}"),
            (None, _) => debug!(task = name, "taken over: {}", log.display()),
        }
        Ok(kept.map_or(Left::Nothing, Left::Result))
    }
}
