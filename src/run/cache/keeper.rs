//! The cache at work for one run: looks tasks up, clears the way for an attempt, keeps what it made.
//!
//! A result is known by its key alone. What a task made enters the cache only after it succeeded, and only if nothing
//! that it depends on changed meanwhile. Before an attempt starts, earlier results leave their place, and what a failed
//! attempt left is moved to the run's folder: a half-written file never stands where a result is looked for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

use super::aside;
use super::files::{Files, in_parallel};
use super::index::{Begun, Index, IndexError};
use super::key::{Content, Digest, Ingredients};
use super::left::OtherRuns;
use super::leftovers::There;
use super::objects::{Lost, Objects};
use super::recipe::{Leftover, Recipe, Wanted, is_within};
use super::verdict::{Always, Verdict, Why};
use crate::graph::{TaskGraph, TaskId, path};
use crate::run::files::since::Marks;
use crate::run::files::transfer::Transfer;
use crate::run::files::tree;
use crate::run::lock::LockFile;
use crate::run::neighbours::places;
use crate::run::preflight;
use crate::spec::Pipeline;
use crate::units::Bytes;

/// The cache, opened for the tasks of one graph.
pub struct Keeper {
    pub(super) index: Arc<Index>,
    pub(super) objects: Arc<Objects>,
    pub(super) files: Files,
    /// Stands for the pipeline in the index.
    pub(super) project: Digest,
    /// Stands for its folder.
    pub(super) root: Digest,
    /// The program of the built-in ops.
    pub(super) tool: String,
    pub(super) state: PathBuf,
    pub(super) others: Arc<dyn OtherRuns>,
    /// `[n_tasks]`, by TaskId.
    pub(super) tasks: Vec<Kept>,
    /// Attempts that run.
    under_way: Mutex<HashMap<TaskId, UnderWay>>,
}

/// An attempt that runs, as it began.
#[derive(Debug)]
pub(super) struct UnderWay {
    /// What its result depends on.
    pub(super) before: Ingredients,
    /// Files that its command names and that the task has made itself: they are not in the key.
    pub(super) made: Vec<Leftover>,
    /// Those of them that were there.
    pub(super) there: Vec<There>,
    /// Where it prints: no other attempt does.
    pub(super) attempt: String,
    /// What stands for the last changes of its inputs, if somebody looked.
    pub(super) read: Option<Digest>,
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
            index: Arc::new(index),
            objects: Arc::new(objects),
            files,
            project: project(places.root, &pipeline.name),
            root: root_digest,
            tool: places.ops.display().to_string(),
            state: places.state.to_owned(),
            others: Arc::from(others),
            tasks,
            under_way: Mutex::default(),
        })
    }

    /// Returns the same cache for what pipelines in another folder have made.
    pub(super) fn in_folder(&self, root: &Path) -> io::Result<Self> {
        let mut files = Files::open(root, &self.state)?;
        files.transfer = Arc::clone(&self.objects.transfer);
        Ok(Self {
            index: Arc::clone(&self.index),
            objects: Arc::clone(&self.objects),
            files,
            project: self.project,
            root: Digest::of(root.as_os_str().as_encoded_bytes()),
            tool: self.tool.clone(),
            state: self.state.clone(),
            others: Arc::clone(&self.others),
            tasks: Vec::new(),
            under_way: Mutex::default(),
        })
    }

    /// Returns where outputs lie, links in their folders followed: another pipeline may know them by other names.
    pub(super) fn places_of(&self, outputs: &[String]) -> Vec<String> {
        let places = places(self.files.root(), outputs.iter().map(String::as_str));
        outputs.iter().map(|output| places.of(output)).collect()
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
        made: &[Leftover],
        content: impl FnMut(&str, Wanted) -> io::Result<Content>,
    ) -> io::Result<Ingredients> {
        let files = |pattern: &str| preflight::existing(&self.files.whole("."), pattern);
        recipe.ingredients(&self.tool, made, files, content)
    }

    pub(super) fn ingredients_on_disk(&self, recipe: &Recipe, made: &[Leftover]) -> io::Result<Ingredients> {
        self.ingredients(recipe, made, |path, wanted| self.files.content(path, wanted, &recipe.outputs))
    }

    /// Returns what stands for the last changes of the files that are inputs; `None` where they are too many to
    /// look at in passing. What is in the same place again is seen by it to have been another meanwhile.
    pub(super) fn marks_of_read(&self, ingredients: &Ingredients) -> Option<Digest> {
        let files = ingredients.files().map(|path| self.files.whole(path));
        Marks::of_files(files).map(|marks| marks.digest())
    }

    pub(super) fn under_way(&self) -> MutexGuard<'_, HashMap<TaskId, UnderWay>> {
        // Another thread's panic leaves the map whole.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
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
        let places = self.places_of(&recipe.outputs);
        let is_found = |place: &String| is_first && self.index.writers(place).is_ok_and(|all| all.is_empty());
        let of = recipe.outputs.iter().zip(&places);
        let found: HashSet<&String> = of.filter(|(_, place)| is_found(place)).map(|(output, _)| output).collect();
        self.take_in_left_at(&places);
        let mut made = self.made_itself(&self.project, name, recipe);
        if let Ok(Some(begun)) = self.index.last_begun(&self.project, name) {
            made = self.with_what_was_left(&begun, recipe, made);
        }
        match self.ingredients_on_disk(recipe, &made) {
            Ok(before) => {
                let (there, read) =
                    (self.there(recipe, made.iter().map(|(path, _)| path)), self.marks_of_read(&before));
                let begun = Begun {
                    project: self.project,
                    name: name.clone(),
                    attempt: log.to_string_lossy().into_owned(),
                    key: before.key(),
                    folder: self.files.root().to_owned(),
                    recipe: Some(recipe.clone()),
                    left: there.iter().map(|there| there.left.clone()).collect(),
                    read,
                };
                if let Err(error) = self.index.note_begun(&begun, &places) {
                    debug!(task = name, "{}", chain(&error));
                }
                self.under_way().insert(task, UnderWay { before, made, there, attempt: begun.attempt, read });
            }
            // It cannot be kept then; whether it can run is the task's own business.
            Err(error) => {
                debug!(task = name, "what it depends on cannot be read: {error}");
                if let Err(error) = self.index.note_writer(&self.project, name, &places) {
                    debug!(task = name, "{}", chain(&error));
                }
            }
        }
        // We are on record as who writes them, and whoever puts them back looks there first.
        let is_off = || self.transfer().is_off();
        if !recipe.outputs.iter().all(|output| LockFile::wait_unless(&self.putting_back(output), is_off)) {
            self.transfer().go_on()?;
        }
        let aside_as = |ending| aside.join(format!("{attempt}.{ending}"));
        let mut told = Vec::new();
        for output in recipe.outputs.iter().filter(|output| self.files.is_ours(output)) {
            self.forget_kept_copy(output)?;
            let is_found = found.contains(output);
            let aside = aside_as(if is_found { aside::FOUND } else { aside::BEFORE });
            let moved = tree::relocate(&self.files.whole(output), &aside.join(output), self.transfer())
                .map_err(|error| io::Error::new(error.kind(), format!("{output}: {error}")))?;
            told.extend((moved && is_found).then_some(output.as_str()));
        }
        let told = (!told.is_empty()).then(|| told.join(", "));
        let aside = aside_as(aside::FOUND);
        Ok(told.map(|found| {
            format!("no run is known to have made what was there: {found}; it is in {} now", aside.display())
        }))
    }

    /// Takes up an attempt that began under another process. What it makes is kept only if what it depends on is now as
    /// it was then.
    pub fn take_up(&self, task: TaskId, log: &Path) {
        let Kept { name, recipe: Ok(recipe) } = &self.tasks[task.index()] else { return };
        let begun = self.index.last_begun(&self.project, name).ok().flatten();
        let begun = begun.filter(|begun| begun.attempt == log.to_string_lossy());
        if let Some(under_way) = begun.and_then(|begun| self.as_it_began(&begun, recipe)) {
            self.under_way().insert(task, under_way);
        }
    }

    /// Returns how an attempt began, if what it depends on is as it was then.
    pub(super) fn as_it_began(&self, begun: &Begun, recipe: &Recipe) -> Option<UnderWay> {
        let made = self.with_what_was_left(begun, recipe, self.made_itself(&begun.project, &begun.name, recipe));
        let before = self.ingredients_on_disk(recipe, &made).ok().filter(|now| now.key() == begun.key)?;
        let left = begun.left.iter().filter(|(path, _)| made.iter().any(|(made, _)| made == path));
        let there = left.map(|left| There { left: left.clone(), marks: None }).collect();
        Some(UnderWay { before, made, there, attempt: begun.attempt.clone(), read: begun.read })
    }

    /// Moves what a failed attempt left to `aside/TASK.NUMBER`.
    ///
    /// # Errors
    /// Where it cannot be moved.
    pub fn set_aside(&self, task: TaskId, aside: &Path, log: &Path) -> io::Result<()> {
        let Kept { name, recipe: Ok(recipe) } = &self.tasks[task.index()] else { return Ok(()) };
        self.note_left(task, name, recipe);
        let aside = aside.join(attempt(log));
        let mut ours = recipe.outputs.iter().filter(|output| self.files.is_ours(output));
        ours.try_for_each(|output| {
            tree::relocate(&self.files.whole(output), &aside.join(output), self.transfer()).map(drop)
        })
    }

    pub(super) fn cache(&self) -> PathBuf {
        folder(&self.state)
    }

    /// Returns a log as a path in the state folder.
    pub(super) fn log_in_state(&self, log: &Path) -> Option<String> {
        log.strip_prefix(&self.state).ok().map(|log| log.display().to_string())
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
