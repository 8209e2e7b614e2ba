//! What the record tells of other runs to those who look for what is made already, or put it back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tracing::debug;

use super::{Elsewhere, Here, Others, Presence, places};
use crate::graph::TaskId;
use crate::run::admission::Holding;
use crate::run::cache::left::{EndedAlone, OtherRuns};
use crate::run::decide::overlap;
use crate::run::event::StopReason;
use crate::run::files::since::AsLeft;
use crate::run::launch;
use crate::run::state::{Phase, RunState};
use crate::run::store::{RunRow, Store, StoreError};
use crate::run::within::Within;
use crate::units::Millis;

/// Who else writes outputs, and what was made by runs that nobody carries out any more.
pub struct Onlooker<P> {
    state: PathBuf,
    here: Here,
    within: Within,
    /// The id of the run that asks.
    run: String,
    /// The folder of its pipeline file.
    root: PathBuf,
    presence: P,
    /// The record, once it was asked.
    record: Mutex<Option<Known>>,
    /// The records of other state folders.
    elsewhere: Mutex<Elsewhere>,
}

/// The record, and what was read of it.
struct Known {
    store: Store,
    others: Others,
    /// Runs of which tasks have left something, by their ids, as they were at a version of the record.
    past: HashMap<String, Option<Past>>,
    version: i64,
}

/// A run as its record tells it.
struct Past {
    row: RunRow,
    /// By their names.
    tasks: HashMap<String, TaskId>,
    state: RunState,
}

impl<P: Presence> Onlooker<P> {
    /// Makes what tells a run `here` of others that write outputs of its pipeline, whose file is in the folder `root`.
    pub fn new((state, here): (&Path, Here), run: String, root: &Path, presence: P) -> Self {
        let (within, record) = (presence.within(), Mutex::default());
        let elsewhere = Mutex::new(Elsewhere::seen_from(state, &here, &presence));
        Self { state: state.to_owned(), here, within, run, root: root.to_owned(), presence, record, elsewhere }
    }

    /// Asks the record; `None` where there is none.
    fn ask<T>(&self, question: impl FnOnce(&mut Known) -> Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &mut *record {
            Some(known) => known,
            unknown @ None => match Store::open_existing(&self.state) {
                Err(StoreError::NoState(_)) => return Ok(None),
                opened => unknown.insert(Known {
                    store: opened?,
                    others: Others::since(Millis(u64::MAX)),
                    past: HashMap::new(),
                    version: 0,
                }),
            },
        };
        question(known).map(Some)
    }

    fn writes(&self, known: &mut Known, outputs: &[String]) -> Result<bool, StoreError> {
        known.others.renew(&known.store, |run| run.id != self.run, &self.here, &self.presence)?;
        Ok(self.is_any(known.others.holdings(&self.within), outputs))
    }

    /// Whether others of another state folder write outputs.
    fn writes_elsewhere(&self, outputs: &[String]) -> bool {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        elsewhere.renew(&self.presence);
        self.is_any(elsewhere.holdings(&self.within), outputs)
    }

    /// Whether who holds something writes outputs.
    fn is_any(&self, mut holdings: impl Iterator<Item = Holding>, outputs: &[String]) -> bool {
        let Some(first) = holdings.next() else { return false };
        let places = places(&self.root, outputs.iter().map(String::as_str));
        let paths: Vec<String> = outputs.iter().map(|output| places.of(output)).collect();
        let writes = |of: &Holding| of.writes.iter().any(|theirs| paths.iter().any(|own| overlap(theirs, own)));
        writes(&first) || holdings.any(|of| writes(&of))
    }

    fn look(&self, known: &mut Known, task: &str, log: &Path) -> Result<Option<EndedAlone>, StoreError> {
        // `RUN/logs/TASK.NUMBER.log`
        let dir = log.ancestors().nth(2).filter(|dir| dir.parent() == Some(&self.state.join("runs")));
        let id = dir.and_then(|dir| dir.file_name()?.to_str()).filter(|id| *id != self.run);
        let Some(id) = id else { return Ok(None) };
        let version = known.store.version()?;
        if std::mem::replace(&mut known.version, version) != version {
            known.past.clear();
        }
        if !known.past.contains_key(id) {
            known.past.insert(id.to_owned(), Past::read(&known.store, id)?);
        }
        let past = known.past.get(id).and_then(Option::as_ref);
        let past = past.filter(|past| !self.presence.carries_out(&past.row.header.orchestrator, &past.row.dir));
        Ok(past.and_then(|past| past.ended_alone(task, log, &self.presence)))
    }
}

impl Past {
    fn read(store: &Store, id: &str) -> Result<Option<Self>, StoreError> {
        let Some(row) = store.run(id)? else { return Ok(None) };
        let mut state = RunState::new(row.header.tasks.len());
        let mut is_whole = true;
        store.tell_events(id, 0, |recorded| is_whole &= state.apply(&recorded).is_ok())?;
        let names = row.header.tasks.iter().map(|task| task.name.clone());
        let tasks = names.zip((0..).map(TaskId)).collect();
        Ok(is_whole.then_some(Self { row, tasks, state }))
    }

    fn ended_alone(&self, task: &str, log: &Path, presence: &impl Presence) -> Option<EndedAlone> {
        let of = self.state.task(*self.tasks.get(task)?);
        let (dir, is_it) = (&self.row.dir, |number| launch::log(&self.row.dir, task, number) == *log);
        let is_in_place = |number: &u32| is_it(*number) && !launch::staging(dir, task, *number).exists();
        if of.phase == Phase::Succeeded {
            let (number, at) = (of.telling()?.0, of.done_at?);
            let left = AsLeft { at, marks: None };
            return is_in_place(&number).then_some(EndedAlone { left, on_record: true });
        }
        // What was asked to end has not ended by itself.
        let is_wanted = self.state.stopping != Some(StopReason::Signal);
        let (number, _) = of.open().find(|(number, _)| is_wanted && is_in_place(number))?;
        let left = presence.ended_well(&launch::sentinel(dir, task, number))?;
        Some(EndedAlone { left, on_record: false })
    }
}

impl<P: Presence + Send + Sync> OtherRuns for Onlooker<P> {
    fn write_any(&self, outputs: &[String]) -> bool {
        // A record that cannot be read is moved aside before anyone starts something: then nobody else is left to write.
        let writes = self.ask(|known| self.writes(known, outputs));
        let writes = writes.inspect_err(|error| debug!("who else writes is not known: {error}")).ok().flatten();
        writes.unwrap_or(false) || self.writes_elsewhere(outputs)
    }

    fn ended_alone(&self, task: &str, log: &Path) -> Option<EndedAlone> {
        let ended = self.ask(|known| self.look(known, task, log));
        ended.inspect_err(|error| debug!("what others have left is not known: {error}")).ok().flatten().flatten()
    }
}
