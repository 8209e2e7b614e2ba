//! Other runs of this user on this machine: what their tasks hold, told from the records that they keep: the one that all runs
//! on a state folder share, and those of other folders, which find each other in the `commons`.
//!
//! Nothing is recorded for this: an attempt is on record with what it holds before its process exists, and so is its end.
//! Admitting a task and recording that are one step that no other run comes between ([`Record::hold`]): the lock of the
//! commons is taken before that of the record, always. What a run holds
//! counts as long as its process lives; of a run whose process is gone, as long as processes of the attempt do.
//! A run that is alone asks SQLite and the commons for one number each, each time it starts something.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::admission::Holding;
use super::decide::Places;
use super::event::{Event, Place, Process, Recorded, Role};
use super::files::since::AsLeft;
use super::store::{Orchestrator, RunKey, Store, StoreError, TaskHeader, Unfinished};
use super::supervisor::{News, Record};
use super::within::{Around, Within};
use crate::graph::TaskId;
use crate::units::{Cpus, Millis};

mod commons;
mod elsewhere;
mod onlooker;

use elsewhere::Elsewhere;
pub use onlooker::Onlooker;

/// This machine, as records name it.
#[derive(Clone, Debug)]
pub struct Here {
    /// Its name, which containers have their own of.
    pub host: String,
    /// What all of its containers have in common until it is started again.
    pub boot: String,
}

/// What can be told of processes.
pub trait Presence {
    /// Whether the process is still there that carries out the run with this folder.
    fn carries_out(&self, by: &Orchestrator, dir: &Path) -> bool;

    /// Whether a process is still there.
    fn lives(&self, process: Process) -> bool;

    /// Returns the processes of a run's tasks, each with the task's name.
    fn of_tasks(&self, run: &str) -> Vec<(String, Process)>;

    /// Returns how an attempt left what it made that ended well, and whose sentinel keeps this record.
    fn ended_well(&self, record: &Path) -> Option<AsLeft>;

    /// Returns the attempts that this process is itself part of.
    fn within(&self) -> Within;

    /// Whether anybody attends to a run of a state folder, as far as that can be told without its record.
    fn attends_any(&self, state: &Path) -> bool;

    /// Returns the folder in which runs of this user find each other.
    fn commons(&self) -> Option<PathBuf>;
}

/// The record of a run that shares state folder and machine with others.
pub struct Shared<'a> {
    store: &'a mut Store,
    key: &'a mut RunKey,
    presence: &'a dyn Presence,
    here: Here,
    within: Within,
    others: Others,
    elsewhere: Elsewhere,
    /// What was last said that others hold.
    told: Vec<Holding>,
}

/// The runs that have not ended, or only since it began, besides the one that asks.
struct Others {
    /// From when on it is of interest what they make.
    since: Millis,
    /// What attempts have written since, and nobody was told yet.
    made: Vec<String>,
    /// The number of the record when it was last read.
    version: Option<i64>,
    /// By their keys in the database.
    all: BTreeMap<i64, Other>,
}

/// Another run.
struct Other {
    run: Unfinished,
    /// What its machine is called here.
    host: String,
    /// `[n_tasks]`, by TaskId.
    tasks: Vec<TaskHeader>,
    /// Where its outputs lie.
    places: Places,
    /// How many of its events were taken in.
    taken: usize,
    /// Whether it has ended by them.
    is_over: bool,
    /// Attempts that have not ended, with their numbers.
    open: BTreeMap<(TaskId, Role), (u32, Place)>,
    /// Set once its orchestrator was seen to be gone: what is left of its tasks.
    left: Option<Vec<(String, Process)>>,
}

impl<'a> Shared<'a> {
    /// Makes the record of a run that is carried out `here`; it looked at its files at `since` (ms since the Unix epoch)
    /// or later. Who shares the machine hears of it: it must be on record.
    pub fn new(
        (store, key): (&'a mut Store, &'a mut RunKey),
        presence: &'a dyn Presence,
        here: Here,
        since: Millis,
    ) -> Self {
        let (within, others, told) = (presence.within(), Others::since(since), Vec::new());
        let elsewhere = Elsewhere::beside(store.dir(), &here, since, presence);
        Self { store, key, presence, here, within, others, elsewhere, told }
    }

    /// Returns what others have done since that was last asked.
    fn news(&mut self) -> Result<News, StoreError> {
        self.others.renew(self.store, |run| !self.key.is_of(run), &self.here, self.presence)?;
        self.elsewhere.renew(self.presence);
        let mut holdings: Vec<Holding> =
            self.others.holdings(&self.within).chain(self.elsewhere.holdings(&self.within)).collect();
        // Who waits for a run of its own computes nothing. Did its CPUs count, two such runs could wait for each other.
        let around: Vec<&Around> =
            self.others.around(self.presence).chain(self.elsewhere.around(self.presence)).collect();
        for holding in holdings.iter_mut().filter(|of| around.iter().any(|around| of.is(around))) {
            holding.place.cpus = Cpus::ZERO;
        }
        let mut made = std::mem::take(&mut self.others.made);
        made.extend(self.elsewhere.made());
        if holdings == self.told {
            return Ok(News { hold: None, made });
        }
        self.told.clone_from(&holdings);
        Ok(News { hold: Some(holdings), made })
    }
}

impl Others {
    fn since(since: Millis) -> Self {
        Self { since, made: Vec::new(), version: None, all: BTreeMap::new() }
    }

    /// Reads what has been recorded since, and looks who is left of those that were.
    fn renew(
        &mut self,
        store: &Store,
        counts: impl Fn(&Unfinished) -> bool,
        here: &Here,
        presence: &dyn Presence,
    ) -> Result<(), StoreError> {
        let version = store.version()?;
        if self.version != Some(version) {
            self.read(store, counts, here)?;
            self.version = Some(version);
        }
        self.all.values_mut().for_each(|other| other.look_for(presence));
        Ok(())
    }

    /// Reads what others have recorded.
    fn read(&mut self, store: &Store, counts: impl Fn(&Unfinished) -> bool, here: &Here) -> Result<(), StoreError> {
        let mut unfinished = store.unfinished(&here.boot, self.since)?;
        unfinished.retain(counts);
        self.all.retain(|key, _| unfinished.iter().any(|run| run.key == *key));
        for run in unfinished {
            let other = match self.all.remove(&run.key) {
                // Another process may have taken it over.
                Some(other) if other.run.orchestrator == run.orchestrator => other,
                Some(other) => Other { run, left: None, is_over: false, ..other },
                None => Other::new(run, store, &here.host)?,
            };
            self.all.insert(other.run.key, other);
        }
        for other in self.all.values_mut() {
            if other.is_over {
                continue;
            }
            for recorded in store.events_from(&other.run.id, other.taken)? {
                let is_new = recorded.at >= self.since;
                let written = other.take_in(recorded).filter(|_| is_new);
                self.made.extend(written.into_iter().flat_map(|task| other.writes(task)));
            }
        }
        Ok(())
    }

    /// Yields the attempts in which any of them goes on.
    fn around(&self, presence: &dyn Presence) -> impl Iterator<Item = &Around> {
        let within = self.all.values().filter(|other| !other.run.orchestrator.within.is_empty());
        let alive = within.filter(move |other| other.is_carried_out(presence));
        alive.flat_map(|other| other.run.orchestrator.within.outwards())
    }

    /// Yields what they hold, but the attempts that we are part of: they made room for us.
    fn holdings(&self, within: &Within) -> impl Iterator<Item = Holding> {
        let is_around = move |of: &Holding| within.outwards().any(|around| of.is(around));
        self.all.values().flat_map(Other::holdings).filter(move |of| !is_around(of))
    }
}

impl Record for Shared<'_> {
    fn append(&mut self, events: &[Recorded]) -> Result<(), StoreError> {
        let appended = self.store.append(self.key, events);
        self.elsewhere.let_go();
        appended
    }

    fn hold(&mut self) -> Result<News, StoreError> {
        if !self.elsewhere.hold(self.presence) {
            return Err(self.elsewhere.held());
        }
        let held = self.store.hold().and_then(|()| self.news());
        if held.is_err() {
            // The first error is the one to report.
            let _ = self.let_go();
        }
        held
    }

    fn let_go(&mut self) -> Result<(), StoreError> {
        let let_go = self.store.let_go();
        self.elsewhere.let_go();
        self.elsewhere.stay(self.presence);
        let_go
    }

    fn others(&mut self) -> Result<News, StoreError> {
        self.news()
    }
}

impl Other {
    fn new(run: Unfinished, store: &Store, host: &str) -> Result<Self, StoreError> {
        let tasks = store.tasks_of(&run.id)?;
        let folder = Path::new(&run.file).parent().unwrap_or(Path::new("/"));
        let places = places(folder, tasks.iter().flat_map(|task| &task.outputs).map(String::as_str));
        let host = host.to_owned();
        Ok(Self { run, host, tasks, places, taken: 0, is_over: false, open: BTreeMap::new(), left: None })
    }

    /// Takes an event in; returns the task that may have been made by it.
    fn take_in(&mut self, recorded: Recorded) -> Option<TaskId> {
        self.taken += 1;
        match recorded.event {
            Event::AttemptStarted { task, number, place } => {
                let place = self.seen_from_here(place);
                self.open.insert((task, place.role), (number, place));
            }
            Event::AttemptFinished { task, role, .. } => {
                self.open.remove(&(task, role));
                return Some(task);
            }
            Event::RunFinished { .. } => self.is_over = true,
            Event::RunResumed { .. } => self.is_over = false,
            Event::AttemptSpawned { .. }
            | Event::TaskSuspended { .. }
            | Event::TaskContinued { .. }
            | Event::RetryPlanned { .. }
            | Event::TaskFailed { .. }
            | Event::TaskSkipped { .. }
            | Event::TaskCached { .. }
            | Event::TaskReopened { .. }
            | Event::StopRequested { .. }
            | Event::Replanned { .. }
            | Event::FinishTold { .. } => {}
        }
        None
    }

    /// Looks whether those live who hold something.
    fn look_for(&mut self, presence: &dyn Presence) {
        if self.open.is_empty() {
            return;
        }
        match &mut self.left {
            None if presence.carries_out(&self.run.orchestrator, &self.run.dir) => {}
            // One of them may have started another before it ended.
            Some(left) if left.is_empty() || left.iter().all(|(_, process)| presence.lives(*process)) => {}
            None | Some(_) => self.left = Some(presence.of_tasks(&self.run.id)),
        }
    }

    /// Whether anybody is left of it.
    fn goes_on(&self, presence: &dyn Presence) -> bool {
        self.is_carried_out(presence) || self.holdings().next().is_some()
    }

    /// Whether its process attends to it.
    fn is_carried_out(&self, presence: &dyn Presence) -> bool {
        !self.is_over && presence.carries_out(&self.run.orchestrator, &self.run.dir)
    }

    fn holdings(&self) -> impl Iterator<Item = Holding> {
        let name = |task: &TaskId| self.tasks.get(task.index()).map_or("", |task| task.name.as_str());
        let counts =
            move |task: &TaskId| self.left.as_ref().is_none_or(|left| left.iter().any(|(of, _)| of == name(task)));
        let open = self.open.iter().filter(move |((task, _), _)| counts(task));
        open.map(move |((task, _), (number, place))| Holding {
            run: self.run.id.clone(),
            called: self.run.name.clone().unwrap_or_else(|| self.run.id.clone()),
            task: name(task).to_owned(),
            attempt: *number,
            place: place.clone(),
            writes: self.writes(*task),
            within: self.run.orchestrator.within.clone(),
        })
    }

    /// Names a place as it is named here: who was started in another container calls the machine as that one is called.
    fn seen_from_here(&self, mut place: Place) -> Place {
        let theirs = &self.run.orchestrator.host;
        if place.node == *theirs && *theirs != self.host {
            for device in &mut place.devices {
                let name = device.strip_prefix(theirs).filter(|name| name.starts_with('/'));
                *device = name.map_or_else(|| device.clone(), |name| format!("{}{name}", self.host));
            }
            place.node.clone_from(&self.host);
        }
        place
    }

    fn writes(&self, task: TaskId) -> Vec<String> {
        let outputs = self.tasks.get(task.index()).map_or(&[][..], |task| &task.outputs);
        outputs.iter().map(|output| self.places.of(output)).collect()
    }
}

/// Returns where the outputs lie of a pipeline whose file is in the folder `root`: each folder of them is looked at once.
#[must_use]
pub fn places<'o>(root: &Path, outputs: impl Iterator<Item = &'o str>) -> Places {
    let mut places = Places { root: real(root), moved: BTreeMap::new() };
    let mut seen = HashSet::new();
    for output in outputs {
        let written = places.written(output);
        let Some((folder, _)) = written.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) else { continue };
        if !seen.contains(folder) {
            seen.insert(folder.to_owned());
            let real = real(Path::new(folder));
            if real != folder {
                places.moved.insert(folder.to_owned(), real);
            }
        }
    }
    places
}

/// Returns a folder with links resolved, as far as it is there.
fn real(folder: &Path) -> String {
    let is_there = |above: &Path| Some(above.canonicalize().ok()?.join(folder.strip_prefix(above).ok()?));
    // A name with `..` behind what is not there leads nowhere.
    let real = folder.ancestors().find_map(is_there).unwrap_or_else(|| folder.to_owned());
    real.to_string_lossy().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
