//! The list of runs with their counts. What has ended is read once.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::cli::Failure;
use crate::cli::state::{self, broken};
use crate::report::dashboard::{Counts, Listed};
use crate::run::state::RunState;
use crate::run::store::{Mark, RunRow, Store, StoreError};
use crate::units::Millis;

/// The recorded runs of a state folder.
pub(super) struct List {
    dir: PathBuf,
    /// `None` until something is recorded.
    store: Option<Store>,
    known: HashMap<String, Known>,
}

/// What is known of a run.
struct Known {
    /// Without its tasks.
    row: RunRow,
    /// As far as it was read; `None` once it has ended, or where it cannot be read.
    state: Option<RunState>,
    took: Option<Millis>,
    /// While somebody carries it out, and otherwise; `None` where its record is damaged.
    counts: Option<(Counts, Counts)>,
    events: usize,
}

impl List {
    /// Makes the list of a folder in which nothing may be recorded yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), store: None, known: HashMap::new() }
    }

    /// Returns all runs, the newest first.
    pub(super) fn look(&mut self) -> Result<Vec<Listed>, Failure> {
        if self.store.is_none() {
            self.store = match Store::open_existing(&self.dir) {
                Err(StoreError::NoState(_)) => return Ok(Vec::new()),
                opened => Some(opened.map_err(broken)?),
            };
        }
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let marks = store.marks().map_err(broken)?;
        // Others may have been removed.
        let there: HashSet<&str> = marks.iter().map(|mark| mark.run.as_str()).collect();
        self.known.retain(|run, _| there.contains(run.as_str()));
        for mark in &marks {
            let before = self.known.remove(&mark.run);
            if let Some(known) = Known::of(store, mark, before)? {
                self.known.insert(mark.run.clone(), known);
            }
        }
        Ok(marks.iter().filter_map(|mark| Some(self.known.get(&mark.run)?.listed())).collect())
    }
}

impl Known {
    fn of(store: &Store, mark: &Mark, before: Option<Self>) -> Result<Option<Self>, Failure> {
        if let Some(before) = before {
            if before.events == mark.events {
                return Ok(Some(before));
            }
            if let Self { state: Some(state), events, .. } = before {
                return Self::read(store, mark, Some((state, events)));
            }
        }
        Self::read(store, mark, None)
    }

    /// Reads a run on from where it was left.
    fn read(store: &Store, mark: &Mark, left: Option<(RunState, usize)>) -> Result<Option<Self>, Failure> {
        let Some(mut row) = store.run(&mark.run).map_err(broken)? else { return Ok(None) };
        let (mut state, first) = left.unwrap_or_else(|| (RunState::new(row.header.tasks.len()), 0));
        let mut events = first;
        row.header.tasks = Vec::new();
        let damage = match store.events_from(&mark.run, first) {
            Ok(recorded) => recorded.iter().find_map(|recorded| {
                events += 1;
                state.apply(recorded).err().map(|illegal| illegal.to_string())
            }),
            Err(error @ StoreError::Damaged { .. }) => Some(error.to_string()),
            Err(error) => return Err(broken(error)),
        };
        if let Some(damage) = damage {
            warn!("the tasks of {} cannot be counted: {damage}", mark.run);
            return Ok(Some(Self { row, state: None, took: None, counts: None, events: mark.events }));
        }
        row.end = state.end;
        let counts = Some((Counts::of(&state, true), Counts::of(&state, false)));
        let took = state.took(row.header.started);
        let state = row.end.is_none().then_some(state);
        Ok(Some(Self { row, state, took, counts, events }))
    }

    fn listed(&self) -> Listed {
        let header = state::header(&self.row);
        let counts = self.counts.map(|(attended, left)| if header.alive { attended } else { left });
        Listed::new(&header, self.row.end, self.took, counts)
    }
}
