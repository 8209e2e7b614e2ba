//! The cache at work for one run: looks tasks up, clears the way for an attempt, keeps what it made.
//!
//! A result is known by its key alone. What a task made enters the cache only after it succeeded, and only if nothing
//! that it depends on changed meanwhile. Before an attempt starts, earlier results leave their place, and what a failed
//! attempt left is moved to the run's folder: a half-written file never stands where a result is looked for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

use super::aside;
use super::files::{Files, Seen, coarse_now, in_parallel};
use super::index::{Action, Done, Index, IndexError};
use super::key::{Content, Digest, How, Ingredients, Part, changes};
use super::left::OtherRuns;
use super::manifest::{Entry, Kind};
use super::objects::{Lost, Objects};
use super::recipe::{Recipe, Wanted, is_within};
use super::since::Marks;
use super::transfer::Transfer;
use super::verdict::{Always, Verdict, Why};
use crate::graph::{TaskGraph, TaskId, path};
use crate::probe::disk::is_full;
use crate::run::lock::LockFile;
use crate::run::preflight;
use crate::spec::Pipeline;
use crate::units::Bytes;

/// The cache, opened for the tasks of one graph.
pub struct Keeper {
    pub(super) index: Index,
    pub(super) objects: Objects,
    pub(super) files: Files,
    /// Stands for the pipeline in the index.
    pub(super) project: Digest,
    /// Stands for its folder.
    pub(super) root: Digest,
    /// The program of the built-in ops.
    pub(super) tool: String,
    pub(super) state: PathBuf,
    pub(super) others: Box<dyn OtherRuns>,
    /// `[n_tasks]`, by TaskId.
    pub(super) tasks: Vec<Kept>,
    /// What attempts that run were started with.
    under_way: Mutex<HashMap<TaskId, (Ingredients, Vec<String>)>>,
}

/// A task and how it is made.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: String,
    /// What its key is made from, or what is known of it without one.
    pub(super) recipe: Result<Recipe, Verdict>,
}

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The state folder, absolute.
    pub state: &'a Path,
    /// The pipeline file's folder, absolute.
    pub root: &'a Path,
    /// The program of the built-in ops.
    pub ops: &'a Path,
    /// What no copy may take of the disk; without it, what is usual.
    pub keep_free: Option<Bytes>,
}

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Its index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The project's folder.
    #[error("the folder {path} cannot be read")]
    Project {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was to be read was called off.
    #[error("reading inputs and results was called off")]
    CalledOff,
}

/// Returns what stands for a pipeline in the index.
pub(super) fn project(root: &Path, pipeline: &str) -> Digest {
    Digest::of(&[root.as_os_str().as_encoded_bytes(), b"\0", pipeline.as_bytes()].concat())
}

/// Returns the cache's folder in a state folder.
#[must_use]
pub fn folder(state: &Path) -> PathBuf {
    state.join("cache")
}

impl Keeper {
    /// Opens the cache, making it where there is none; `None` where no task of the graph is ever left out. `done`
    /// (`[n_tasks]`, or empty) are tasks of which nothing is to be known any more; `others` tells of other runs.
    ///
    /// # Errors
    /// Where it cannot be made or read.
    pub fn open(
        places: Places<'_>,
        pipeline: &Pipeline,
        graph: &TaskGraph,
        done: &[bool],
        others: Box<dyn OtherRuns>,
    ) -> Result<Option<Self>, CacheError> {
        let tasks = kept(places, pipeline, graph, done);
        if tasks.iter().all(|task| task.recipe.is_err()) {
            return Ok(None);
        }
        let keeper = Self::with(places, pipeline, tasks, Index::open(&folder(places.state))?, others)?;
        if let Err(error) = keeper.objects.workshop.sweep() {
            debug!("what processes that are gone have left of the cache stays: {error}");
        }
        Ok(Some(keeper))
    }

    /// Opens the cache to look at it; where there is none, none is made.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open_to_look(
        places: Places<'_>,
        pipeline: &Pipeline,
        graph: &TaskGraph,
        others: Box<dyn OtherRuns>,
    ) -> Result<Self, CacheError> {
        let index = Index::open_to_look(&folder(places.state))?;
        Self::with(places, pipeline, kept(places, pipeline, graph, &[]), index, others)
    }

    fn with(
        places: Places<'_>,
        pipeline: &Pipeline,
        tasks: Vec<Kept>,
        index: Index,
        others: Box<dyn OtherRuns>,
    ) -> Result<Self, CacheError> {
        let mut files = Files::open(places.root, places.state)
            .map_err(|source| CacheError::Project { path: places.root.to_owned(), source })?;
        let root = places.root.as_os_str().as_encoded_bytes();
        let root_digest = Digest::of(root);
        files.remember(index.memo(&root_digest)?);
        let objects = Objects::with_room(&folder(places.state), places.keep_free);
        files.transfer = Arc::clone(&objects.transfer);
        Ok(Self {
            index,
            objects,
            files,
            project: project(places.root, &pipeline.name),
            root: root_digest,
            tool: places.ops.display().to_string(),
            state: places.state.to_owned(),
            others,
            tasks,
            under_way: Mutex::default(),
        })
    }

    /// Returns what it reads and copies.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.files.transfer
    }

    /// Whether a task may be left out.
    #[must_use]
    pub fn keeps(&self, task: TaskId) -> bool {
        self.recipe(task).is_some()
    }

    pub(super) fn recipe(&self, task: TaskId) -> Option<&Recipe> {
        self.tasks[task.index()].recipe.as_ref().ok()
    }

    /// Returns what a task depends on as it is now. `content` looks at a file.
    pub(super) fn ingredients(
        &self,
        recipe: &Recipe,
        made: &[String],
        content: impl FnMut(&str, Wanted) -> io::Result<Content>,
    ) -> io::Result<Ingredients> {
        let files = |pattern: &str| preflight::existing(&self.files.whole("."), pattern);
        recipe.ingredients(&self.tool, made, files, content)
    }

    pub(super) fn ingredients_on_disk(&self, recipe: &Recipe, made: &[String]) -> io::Result<Ingredients> {
        self.ingredients(recipe, made, |path, wanted| self.files.content(path, wanted, &recipe.outputs))
    }

    /// Clears the way for an attempt: notes what its result will depend on, and moves earlier outputs to
    /// `aside/TASK.NUMBER.before`, except those that the cache holds. What was there before any attempt is no result of ours:
    /// that goes to `TASK.NUMBER.found`, and is told. `log` is where the attempt will print.
    ///
    /// # Errors
    /// Where an output cannot be moved: the attempt must not start then.
    pub fn prepare(&self, task: TaskId, aside: &Path, log: &Path) -> io::Result<Option<String>> {
        let attempt = attempt(log);
        let Kept { name, recipe: Ok(recipe) } = &self.tasks[task.index()] else { return Ok(None) };
        // Where that is not known it is taken for ours: an earlier run may have been of another version.
        let is_first = !self.index.has_begun(&self.project, name).unwrap_or(true);
        let made = self.index.task(&self.project, name).ok().flatten().map(|last| last.made).unwrap_or_default();
        match self.ingredients_on_disk(recipe, &made) {
            Ok(ingredients) => {
                let (log, key) = (log.to_string_lossy(), ingredients.key());
                if let Err(error) = self.index.note_begun(&self.project, name, &log, &key) {
                    debug!(task = name, "{}", chain(&error));
                }
                let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
                under_way.insert(task, (ingredients, made));
            }
            // It cannot be kept then; whether it can run is the task's own business.
            Err(error) => debug!(task = name, "what it depends on cannot be read: {error}"),
        }
        // We are on record as who writes them, and whoever puts them back looks there first.
        let is_off = || self.transfer().is_off();
        if !recipe.outputs.iter().all(|output| LockFile::wait_unless(&self.putting_back(output), is_off)) {
            self.transfer().go_on()?;
        }
        let aside = aside.join(format!("{attempt}.{}", if is_first { aside::FOUND } else { aside::BEFORE }));
        let mut found = Vec::new();
        for output in recipe.outputs.iter().filter(|output| self.files.is_ours(output)) {
            self.forget_kept_copy(output)?;
            let moved = aside::relocate(&self.files.whole(output), &aside.join(output), self.transfer())
                .map_err(|error| io::Error::new(error.kind(), format!("{output}: {error}")))?;
            found.extend((moved && is_first).then_some(output.as_str()));
        }
        let found = (!found.is_empty()).then(|| found.join(", "));
        Ok(found.map(|found| format!("no run has made what was there: {found}; it is in {} now", aside.display())))
    }

    /// Takes up an attempt that began under another process. What it makes is kept only if what it depends on is now as
    /// it was then.
    pub fn take_up(&self, task: TaskId, log: &Path) {
        let Kept { name, recipe: Ok(recipe) } = &self.tasks[task.index()] else { return };
        let made = self.index.task(&self.project, name).ok().flatten().map(|last| last.made).unwrap_or_default();
        let last = self.index.last_begun(&self.project, name).ok().flatten();
        if let (Some((attempt, begun)), Ok(now)) = (last, self.ingredients_on_disk(recipe, &made))
            && attempt == log.to_string_lossy()
            && now.key() == begun
        {
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(task, (now, made));
        }
    }

    /// Moves what a failed attempt left to `aside/TASK.NUMBER`.
    ///
    /// # Errors
    /// Where it cannot be moved.
    pub fn set_aside(&self, task: TaskId, aside: &Path, log: &Path) -> io::Result<()> {
        let Some(recipe) = self.recipe(task) else { return Ok(()) };
        let aside = aside.join(attempt(log));
        let mut ours = recipe.outputs.iter().filter(|output| self.files.is_ours(output));
        ours.try_for_each(|output| {
            aside::relocate(&self.files.whole(output), &aside.join(output), self.transfer()).map(drop)
        })
    }

    pub(super) fn cache(&self) -> PathBuf {
        folder(&self.state)
    }

    /// Looks at what an attempt made, right after it; `None` where that takes too long.
    pub(super) fn marks(&self, task: TaskId) -> Option<Marks> {
        Marks::of(self.recipe(task)?.outputs.iter().map(|output| self.files.whole(output)))
    }

    /// Keeps what a successful attempt made, unless somebody else has changed it since `then`, and lets those go on who wait
    /// for that. Returns why it did not, where a person should hear of it.
    #[must_use]
    pub(super) fn keep(
        &self,
        task: TaskId,
        log: Option<&Path>,
        then: Option<&Marks>,
        keeping: Option<LockFile>,
    ) -> Option<String> {
        let Kept { name, recipe: Ok(recipe) } = &self.tasks[task.index()] else { return None };
        let started = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        let (before, mut made) = started?;
        let mut keep = || -> Result<Option<String>, Trouble> {
            let trace = before.trace();
            for change in changes(&trace, &self.ingredients_on_disk(recipe, &made)?.trace()) {
                // One that was not there before was made by the task.
                if let (Part::Named(path), How::Added) = (&change.part, change.how) {
                    made.push(path.clone());
                } else {
                    return Ok(Some(changed_meanwhile(&change.part)));
                }
            }
            let mut full = None;
            let take_in = |output: &String| self.take_in(recipe, output, &mut full);
            let outputs = recipe.outputs.iter().map(take_in).collect::<Result<_, _>>()?;
            if let Some((then, now)) = then.zip(self.marks(task))
                && let Some(changed) = now.first_other(then)
            {
                return Ok(Some(format!(
                    "{} was changed after it had ended, by another stage perhaps: what it made is not in the cache",
                    changed.display()
                )));
            }
            let action = Action { outputs, log: log.and_then(|log| self.log_in_state(log)), used: now() };
            let done = Done { name, key: before.key(), trace, made: &made, action };
            self.index.record(&self.project, &self.root, &[done], &self.files.take_fresh())?;
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

    /// Returns a log as a path in the state folder.
    pub(super) fn log_in_state(&self, log: &Path) -> Option<String> {
        log.strip_prefix(&self.state).ok().map(|log| log.display().to_string())
    }

    /// Takes an output in and returns what is recorded of it. Where there is no room for a copy, that is said in `full`, and
    /// nothing more is copied.
    fn take_in(&self, recipe: &Recipe, output: &str, full: &mut Option<String>) -> io::Result<Entry> {
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

    /// Remembers what files hold that were read too soon after they were written.
    pub fn finish(&self) {
        for path in self.files.take_young() {
            // One that is gone or cannot be read need not be remembered.
            let _ = self.files.digest(&path);
        }
        if let Err(error) = self.index.record(&self.project, &self.root, &[], &self.files.take_fresh()) {
            warn!("what files hold is not remembered: {error}");
        }
    }
}

/// What keeps the cache from answering.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error(transparent)]
    Files(#[from] io::Error),
}

/// Returns an error with its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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

/// Returns `TASK.NUMBER`, as the log of an attempt is called.
fn attempt(log: &Path) -> String {
    log.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns a task's name as part of a path.
pub(super) fn file_part(name: &str) -> String {
    crate::run::launch::file_name(name)
}

/// Returns the time, ms since the Unix epoch.
pub(super) fn now() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
}

/// Returns all tasks with what their keys are made from.
fn kept(places: Places<'_>, pipeline: &Pipeline, graph: &TaskGraph, done: &[bool]) -> Vec<Kept> {
    let all: HashMap<&str, usize> =
        (0..).zip(&graph.tasks).flat_map(|(i, task)| task.outputs.iter().map(move |path| (path.as_str(), i))).collect();
    let mut shared = HashSet::new();
    for (&output, &owner) in &all {
        let above = output.match_indices('/').filter_map(|(at, _)| all.get(&output[..at]));
        for other in above {
            shared.extend([owner, *other]);
        }
    }
    let state = places.state.strip_prefix(places.root).ok().and_then(Path::to_str).map(path::normalise);
    let recipe = |i: usize| {
        let task = &graph.tasks[i];
        let stage = &pipeline.stages[task.stage];
        if !stage.is_cached() {
            return Err(if stage.outputs.is_empty() { Always::NoOutputs } else { Always::Off });
        }
        if shared.contains(&i) {
            return Err(Always::SharesOutputs);
        }
        if state.as_ref().is_some_and(|state| is_within(state, &task.outputs)) {
            return Err(Always::HoldsState);
        }
        let recipe = Recipe::new(pipeline, task);
        if recipe.reads_own_outputs() { Err(Always::ReadsOwnOutputs) } else { Ok(recipe) }
    };
    let all: Vec<usize> = (0..graph.len()).collect();
    in_parallel(&all, |&i| Kept {
        name: graph.tasks[i].name.clone(),
        recipe: match done.get(i) {
            Some(true) => Err(Verdict::Done),
            Some(false) | None => recipe(i).map_err(|always| Verdict::Runs(Why::Always(always))),
        },
    })
}
