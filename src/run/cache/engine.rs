//! An engine with the cache around it: looks tasks up, clears the way before an attempt, and takes care of what it leaves.
//!
//! All of that happens on threads of its own, so that reading a large file never holds up other tasks. The way is clear
//! before an attempt starts, and what a failed one left is aside before its end is reported; a success is reported at
//! once, and what it made is kept once that is on record, while others start and go on.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::intake::Finished;
use super::keeper::Keeper;
use super::restore::Found;
use super::verdict::Cached;
use crate::graph::TaskId;
use crate::probe::clock;
use crate::run::crash;
use crate::run::engine::{Ended, Engine, Launch, Report, Stop};
use crate::run::event::{Process, Role};
use crate::run::files::since::Marks;
use crate::run::layer::{Apart, Layer};
use crate::run::lock::LockFile;
use crate::run::outcome::Outcome;
use crate::units::Millis;

/// What has been done on another thread.
pub(crate) enum Done {
    /// A task was looked up.
    LookedUp { task: TaskId, found: Found, note: Option<String> },
    /// The way of an attempt is clear, or cannot be cleared.
    Prepared { launch: Box<Launch>, cleared: std::io::Result<Option<String>> },
    /// What a failed attempt left is aside.
    SetAside { ended: Ended },
    /// What an attempt made is in the cache, or why not.
    Kept { task: TaskId, note: Option<String> },
}

/// An engine with a cache. Must live within a tokio runtime.
pub struct Caching<E> {
    inner: E,
    cache: Option<Cache>,
    apart: Apart<Done>,
    /// Where what an attempt prints goes, of those that were started.
    logs: HashMap<(TaskId, Role), PathBuf>,
    /// Attempts that write to a place of their own: what they leave is taken care of there.
    staged: HashSet<(TaskId, Role)>,
    /// Of attempts that succeeded, until that is on record.
    succeeded: HashMap<TaskId, Success>,
    /// Tasks whose way is being cleared, and those among them that shall not start any more.
    preparing: HashSet<TaskId>,
    cut_short: HashSet<TaskId>,
    /// Tasks among them that are to stand still once they have started.
    to_suspend: HashSet<TaskId>,
    /// Second attempts of tasks whose way is being cleared.
    held_back: HashMap<TaskId, Launch>,
    /// How many results are being kept.
    keeping: usize,
    stop: Stop,
}

/// An attempt that succeeded.
#[derive(Debug)]
struct Success {
    /// Where what it printed is.
    log: Option<PathBuf>,
    /// What others wait for.
    keeping: Option<LockFile>,
    /// What it made, as it left it.
    made: Option<Marks>,
    /// When it ended, ms since the Unix epoch.
    at: Millis,
}

/// A task that succeeded under another process, which died before what it made was kept.
#[derive(Clone, Debug)]
pub struct Unkept {
    /// The task.
    pub task: TaskId,
    /// Where what it printed is.
    pub log: PathBuf,
    /// When it ended, ms since the Unix epoch.
    pub at: Millis,
}

/// What the cache needs to know of the run.
#[derive(Clone)]
pub struct Cache {
    /// The cache.
    pub keeper: Arc<Keeper>,
    /// Where to put what is in the way or half done, in the run's folder.
    pub aside: PathBuf,
    /// `[n_tasks]`: names, for messages.
    pub names: Arc<[String]>,
}

impl<E: Engine> Caching<E> {
    /// Puts a cache around an engine; without one everything is passed on as it is. `unkept` are tasks
    /// whose results are still to be kept.
    pub fn new(inner: E, cache: Option<Cache>, unkept: Vec<Unkept>) -> Self {
        let mut caching = Self {
            inner,
            cache,
            apart: Apart::default(),
            logs: HashMap::new(),
            staged: HashSet::new(),
            succeeded: HashMap::new(),
            preparing: HashSet::new(),
            cut_short: HashSet::new(),
            to_suspend: HashSet::new(),
            held_back: HashMap::new(),
            keeping: 0,
            stop: Stop::No,
        };
        for Unkept { task, log, at } in unkept {
            let Some(cache) = caching.cache_of(task) else { continue };
            caching.keep_apart(&cache, move |keeper| {
                let keeping = keeper.begin_to_keep(task);
                keeper.take_up(task, &log);
                let log = Some(log.as_path()).filter(|log| log.exists());
                let note = keeper.keep(task, Finished { log, marks: None, at }, keeping);
                Done::Kept { task, note }
            });
        }
        caching
    }

    /// Does something on another thread that a start or a report waits for.
    fn apart(&self, cache: &Cache, work: impl FnOnce(&Keeper, &Path) -> Done + Send + 'static) {
        let cache = cache.clone();
        self.apart.start(move || work(&cache.keeper, &cache.aside));
    }

    /// Keeps a result on another thread, behind no start and before none.
    fn keep_apart(&mut self, cache: &Cache, work: impl FnOnce(&Keeper) -> Done + Send + 'static) {
        self.keeping += 1;
        let keeper = Arc::clone(&cache.keeper);
        self.apart.start_unawaited(move || work(&keeper));
    }

    /// Returns the cache, if it has to do with a task.
    fn cache_of(&self, task: TaskId) -> Option<Cache> {
        self.cache.as_ref().filter(|cache| cache.keeper.keeps(task)).cloned()
    }

    /// Starts an attempt whose way is clear, unless it is not wanted any more, and the one that waits to run beside it.
    fn start_prepared(&mut self, launch: Launch, cleared: std::io::Result<()>) {
        let task = launch.task;
        self.preparing.remove(&task);
        let (beside, to_suspend) = (self.held_back.remove(&task), self.to_suspend.remove(&task));
        let outcome = match cleared {
            _ if self.cut_short.remove(&task) || self.stop != Stop::No => Outcome::Interrupted,
            Ok(()) => {
                self.inner.start(launch);
                if to_suspend {
                    self.inner.suspend(task, Role::Main, true);
                }
                beside.into_iter().for_each(|beside| self.inner.start(beside));
                return;
            }
            // A signal calls off what waits before it is told to the run.
            Err(_) if self.is_called_off() => Outcome::Interrupted,
            Err(error) => Outcome::SpawnFailed { reason: format!("earlier outputs cannot be moved aside: {error}") },
        };
        self.do_not_start(&launch, outcome);
        beside.iter().for_each(|beside| self.do_not_start(beside, Outcome::Interrupted));
    }

    fn is_called_off(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.keeper.transfer().is_off())
    }

    fn do_not_start(&mut self, launch: &Launch, outcome: Outcome) {
        self.staged.remove(&(launch.task, launch.role));
        self.apart.report(Report::Ended(Ended::never_began(launch, outcome, None)));
    }

    fn tell(&self, task: TaskId, note: Option<&str>) {
        if let (Some(cache), Some(note)) = (&self.cache, note) {
            warn!(task = cache.names[task.index()], "{note}");
        }
    }

    /// Remembers an attempt that starts or is adopted.
    fn note(&mut self, launch: &Launch) {
        let attempt = (launch.task, launch.role);
        self.logs.insert(attempt, launch.log.clone());
        if launch.staging.is_some() {
            self.staged.insert(attempt);
        }
    }
}

impl<E: Engine> Layer for Caching<E> {
    type Inner = E;
    type Done = Done;

    fn parts(&mut self) -> (&mut E, &mut Apart<Done>) {
        (&mut self.inner, &mut self.apart)
    }

    fn go_on(&mut self, done: Done) {
        match done {
            Done::LookedUp { task, found, note } => {
                self.tell(task, note.as_deref());
                if let (Found::UpToDate(Cached { restored, .. }), Some(cache)) = (&found, &self.cache)
                    && !restored.is_empty()
                {
                    info!(task = cache.names[task.index()], "restored {}", restored.join(", "));
                }
                self.apart.report(Report::LookedUp { task, found });
            }
            Done::Prepared { launch, cleared } => {
                if let Ok(note) = &cleared {
                    self.tell(launch.task, note.as_deref());
                }
                self.start_prepared(*launch, cleared.map(drop));
            }
            Done::SetAside { ended } => self.apart.report(Report::Ended(ended)),
            Done::Kept { task, note } => {
                self.keeping -= 1;
                self.tell(task, note.as_deref());
            }
        }
    }

    fn pass(&mut self, report: Report) -> Option<Report> {
        let Report::Ended(ended) = report else { return Some(report) };
        let Some(cache) = self.cache_of(ended.task) else { return Some(Report::Ended(ended)) };
        let task = ended.task;
        let log = self.logs.remove(&(task, ended.role));
        let is_staged = self.staged.remove(&(task, ended.role));
        if ended.outcome.is_success() {
            // Before anyone can hear of it.
            let keeping = cache.keeper.begin_to_keep(task);
            let (log, made) = (log.filter(|_| ended.logged), cache.keeper.marks(task));
            let at = ended.usage.ended.unwrap_or_else(clock::now);
            self.succeeded.insert(task, Success { log, keeping, made, at });
            return Some(Report::Ended(ended));
        }
        if is_staged {
            return Some(Report::Ended(ended));
        }
        self.apart(&cache, move |keeper, aside| {
            let mut ended = ended;
            if let Err(error) = keeper.set_aside(task, aside, &log.unwrap_or_default()) {
                ended.note = Some(format!("what it left cannot be moved aside: {error}"));
            }
            Done::SetAside { ended }
        });
        None
    }
}

impl<E: Engine> Engine for Caching<E> {
    fn start(&mut self, launch: Launch) {
        let Some(cache) = self.cache_of(launch.task) else { return self.inner.start(launch) };
        self.note(&launch);
        if launch.role == Role::Backup {
            // The way is clear since the first attempt started, and what stands there now may be a result.
            if self.preparing.contains(&launch.task) {
                self.held_back.insert(launch.task, launch);
            } else {
                self.inner.start(launch);
            }
            return;
        }
        self.preparing.insert(launch.task);
        self.apart(&cache, move |keeper, aside| {
            let cleared = keeper.prepare(launch.task, aside, &launch.log);
            Done::Prepared { launch: Box::new(launch), cleared }
        });
    }

    fn adopt(&mut self, launch: Launch, sentinel: Process, age: Millis) {
        if let Some(cache) = self.cache_of(launch.task) {
            self.note(&launch);
            // Here and now: its end may be reported at once, and what it made is kept then.
            cache.keeper.take_up(launch.task, &launch.log);
        }
        self.inner.adopt(launch, sentinel, age);
    }

    fn look_up(&mut self, task: TaskId) -> bool {
        let Some(cache) = self.cache_of(task) else { return self.inner.look_up(task) };
        self.apart(&cache, move |keeper, aside| {
            let (found, note) = keeper.look_up(task, aside);
            Done::LookedUp { task, found, note }
        });
        true
    }

    async fn next_report(&mut self) -> Report {
        self.next().await
    }

    fn ready_report(&mut self) -> Option<Report> {
        self.ready()
    }

    fn keep(&mut self, task: TaskId) {
        if let (Some(Success { log, keeping, made, at }), Some(cache)) =
            (self.succeeded.remove(&task), self.cache_of(task))
        {
            self.keep_apart(&cache, move |keeper| {
                crash::point("keeping");
                let note = keeper.keep(task, Finished { log: log.as_deref(), marks: made.as_ref(), at }, keeping);
                Done::Kept { task, note }
            });
        }
        self.inner.keep(task);
    }

    fn stop_task(&mut self, task: TaskId, role: Role, how: Stop) {
        if role == Role::Main && self.preparing.contains(&task) {
            self.cut_short.insert(task);
        } else if let (Role::Backup, Some(launch)) = (role, self.held_back.remove(&task)) {
            self.do_not_start(&launch, Outcome::Interrupted);
        } else {
            self.inner.stop_task(task, role, how);
        }
    }

    fn suspend(&mut self, task: TaskId, role: Role, suspended: bool) {
        if role != Role::Main || !self.preparing.contains(&task) {
            self.inner.suspend(task, role, suspended);
        } else if suspended {
            self.to_suspend.insert(task);
        } else {
            self.to_suspend.remove(&task);
        }
    }

    fn stop(&mut self, how: Stop) {
        self.stop = self.stop.max(how);
        if let (Stop::Now, Some(cache)) = (how, &self.cache) {
            cache.keeper.transfer().call_off();
        }
        self.inner.stop(how);
    }

    async fn settle(&mut self) {
        while self.keeping > 0 {
            if let Some(done) = self.apart.next().await {
                self.go_on(done);
            }
        }
        if let Some(cache) = self.cache.clone() {
            // A panic there was told where it happened; nothing is lost but time.
            let _ = tokio::task::spawn_blocking(move || cache.keeper.finish()).await;
        }
        self.inner.settle().await;
    }
}
