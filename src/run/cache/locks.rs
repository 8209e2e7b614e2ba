//! Who is at a result: what is being kept or put back is waited for, and what was being kept when its process died is known.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::keeper::{Keeper, Places, folder, project};
use super::key::Digest;
use crate::graph::TaskId;
use crate::run::lock::LockFile;
use crate::spec::Pipeline;

/// Returns those of a pipeline's tasks whose results a process began to keep that died over it.
#[must_use]
pub fn half_kept<'n>(
    places: Places<'_>,
    pipeline: &Pipeline,
    tasks: impl Iterator<Item = &'n str>,
) -> HashSet<&'n str> {
    let locks = folder(places.state).join("keeping");
    // Mostly there is none, and many tasks.
    if fs::read_dir(locks).map_or(true, |mut locks| locks.next().is_none()) {
        return HashSet::new();
    }
    let project = project(places.root, &pipeline.name);
    tasks.filter(|task| LockFile::is_left(&keeping(places.state, &project, task))).collect()
}

/// Returns the lock that is held while a task's result is being kept: that it has succeeded is known to other runs before.
fn keeping(state: &Path, project: &Digest, task: &str) -> PathBuf {
    lock(&folder(state).join("keeping"), project, task)
}

fn lock(folder: &Path, of: &Digest, name: &str) -> PathBuf {
    folder.join(Digest::of(format!("{of}\0{name}").as_bytes()).to_string())
}

impl Keeper {
    /// Has other runs that look a task up wait until what it made is kept; `None` where another run is at it, or nothing can
    /// be locked: the result may then be made again, which is all that can happen.
    pub(super) fn begin_to_keep(&self, task: TaskId) -> Option<LockFile> {
        LockFile::take_if_free(&self.keeping(&self.project, &self.tasks[task.index()].name)).ok().flatten()
    }

    /// Waits until nobody keeps what a task made, unless that is called off.
    pub(super) fn wait_for_keeping(&self, project: &Digest, task: &str) {
        LockFile::wait_unless(&self.keeping(project, task), || self.transfer().is_off());
    }

    pub(super) fn keeping(&self, project: &Digest, task: &str) -> PathBuf {
        keeping(&self.state, project, task)
    }

    /// Returns the lock that is held while an output is being put back.
    pub(super) fn putting_back(&self, output: &str) -> PathBuf {
        lock(&self.cache().join("putting-back"), &self.root, output)
    }
}
