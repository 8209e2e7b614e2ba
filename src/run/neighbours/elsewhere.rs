//! What runs hold that are recorded in other state folders of this user on this machine. Their records are read and never
//! written to; one that cannot be read is passed over.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::commons::Commons;
use super::{Here, Others, Presence};
use crate::run::admission::Holding;
use crate::run::lock::{holder, identity};
use crate::run::store::{Store, StoreError};
use crate::run::within::{Around, Within};
use crate::units::Millis;

/// The other state folders of this user.
pub(super) struct Elsewhere {
    /// Where they are found, as long as that can be used.
    commons: Option<Commons>,
    /// Whether the own one was entered there: not where somebody else kept it locked.
    is_entered: bool,
    /// The own state folder, links resolved.
    own: PathBuf,
    since: Millis,
    here: Here,
    /// The number of the commons when they were looked for.
    generation: Option<u64>,
    known: Vec<Known>,
    /// Folders of which it was said that they cannot be read; `None` where nothing is said.
    said: Option<HashSet<PathBuf>>,
}

/// A state folder and what is recorded there.
struct Known {
    dir: PathBuf,
    store: Store,
    others: Others,
}

impl Elsewhere {
    /// Looks around for a run in a state folder that was recorded, and enters it; what others have written from `since` on
    /// is of interest.
    pub(super) fn beside(own: &Path, here: &Here, since: Millis, presence: &dyn Presence) -> Self {
        let mut elsewhere = Self::look(own, here, since, None);
        elsewhere.said = Some(HashSet::new());
        elsewhere.enter(presence);
        elsewhere.renew(presence);
        elsewhere.take_out_what_is_over(presence);
        elsewhere
    }

    /// Looks around, and leaves no trace.
    pub(super) fn seen_from(own: &Path, here: &Here, presence: &dyn Presence) -> Self {
        let commons = presence.commons().and_then(|dir| Commons::open(&dir, false).ok());
        Self::look(own, here, Millis(u64::MAX), commons)
    }

    fn look(own: &Path, here: &Here, since: Millis, commons: Option<Commons>) -> Self {
        let own = own.canonicalize().unwrap_or_else(|_| own.to_owned());
        let (here, is_entered) = (here.clone(), false);
        Self { commons, is_entered, own, since, here, generation: None, known: Vec::new(), said: None }
    }

    /// Enters the own state folder.
    fn enter(&mut self, presence: &dyn Presence) {
        let Some(dir) = presence.commons() else { return };
        let entered = Commons::open(&dir, true).and_then(|mut commons| match commons.enter(&self.own) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            entered => Ok((commons, entered.is_ok())),
        });
        (self.generation, self.is_entered) = (None, matches!(entered, Ok((_, true))));
        self.commons = entered
            .map(|(commons, _)| commons)
            .inspect_err(|error| {
                warn!(
                    "runs with other state folders are not seen, nor see this one: {} cannot be used: {error}",
                    dir.display()
                );
            })
            .ok();
    }

    /// Enters the own state folder again where somebody has removed what it was entered in.
    pub(super) fn stay(&mut self, presence: &dyn Presence) {
        if self.commons.as_ref().is_some_and(|commons| !commons.has(&self.own)) {
            self.enter(presence);
        }
    }

    /// Keeps the runs of all folders from admitting tasks; `false` where another one does so for long.
    pub(super) fn hold(&mut self, presence: &dyn Presence) -> bool {
        if self.commons.as_ref().is_some_and(|commons| !self.is_entered || !commons.is_there()) {
            self.enter(presence);
            if self.commons.is_some() && !self.is_entered {
                return false;
            }
        }
        // What takes long is read before.
        if self.generation.is_some_and(|known| self.commons.as_ref().is_some_and(|now| now.generation() != known)) {
            self.renew(presence);
        }
        self.commons.as_mut().is_none_or(Commons::hold)
    }

    /// Returns the error of who could not keep them from it.
    pub(super) fn held(&self) -> StoreError {
        let lock = self.commons.as_ref().map(Commons::lock).unwrap_or_default();
        StoreError::Held { by: holder(&lock), lock }
    }

    /// Lets them admit tasks again.
    pub(super) fn let_go(&mut self) {
        self.commons.iter_mut().for_each(Commons::let_go);
    }

    /// Reads what has been recorded since.
    pub(super) fn renew(&mut self, presence: &dyn Presence) {
        let generation = self.commons.as_ref().map(Commons::generation);
        if generation != self.generation {
            self.find(presence);
            self.generation = generation;
        }
        for mut known in std::mem::take(&mut self.known) {
            match known.others.renew(&known.store, |_| true, &self.here, presence) {
                // What it held last is likely to be what it holds.
                Err(error) if !error.is_busy() => self.pass_over(&known.dir, &error, presence),
                Ok(()) | Err(_) => self.known.push(known),
            }
        }
    }

    /// Opens the records of the folders that were entered.
    fn find(&mut self, presence: &dyn Presence) {
        let states = self.commons.as_ref().map(Commons::states).unwrap_or_default();
        let own = self.own.join("state.db");
        let mut files = BTreeSet::from([identity(&own)]);
        let mut known = std::mem::take(&mut self.known);
        for dir in states {
            let file = identity(&dir.join("state.db"));
            // One folder may have two names.
            if file.is_none() || !files.insert(file) {
                continue;
            }
            match known.iter().position(|known| known.dir == dir && known.store.is_of(file)) {
                Some(at) => self.known.push(known.swap_remove(at)),
                None => match Store::open_foreign(&dir) {
                    Ok(store) => self.known.push(Known { dir, store, others: Others::since(self.since) }),
                    Err(error) => self.pass_over(&dir, &error, presence),
                },
            }
        }
        // Of a record that was removed, those may still run that were in it.
        self.known.extend(known.into_iter().filter(|known| known.others.all.values().any(|other| !other.is_over)));
    }

    /// Goes on without a record that cannot be read, and says so once where somebody is at it.
    fn pass_over(&mut self, dir: &Path, error: &StoreError, presence: &dyn Presence) {
        let is_new = self.said.as_mut().is_some_and(|said| said.insert(dir.to_owned()));
        if !is_new || !presence.attends_any(dir) {
            debug!("what runs of {} hold is not known: {error}", dir.display());
            return;
        }
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        warn!("what runs of {} hold is not known: {error}{cause}", dir.display());
    }

    /// Takes those folders out of the commons that are gone, or of whose runs nothing is left.
    fn take_out_what_is_over(&mut self, presence: &dyn Presence) {
        let (Some(commons), Some(generation)) = (&mut self.commons, self.generation) else { return };
        let is_over = |dir: &PathBuf| match self.known.iter().find(|known| known.dir == *dir) {
            Some(known) => !known.others.all.values().any(|other| other.goes_on(presence)),
            None => *dir != self.own && (!dir.join("state.db").exists() || !presence.attends_any(dir)),
        };
        let over: Vec<PathBuf> = commons.states().into_iter().filter(is_over).collect();
        if !over.is_empty() {
            commons.take_out(&over, generation);
        }
    }

    /// Yields what they hold, but the attempts that we are part of.
    pub(super) fn holdings(&self, within: &Within) -> impl Iterator<Item = Holding> {
        let of = |known: &Known| {
            let dir = known.dir.display().to_string();
            let called = move |of: Holding| Holding { called: format!("{} in {dir}", of.called), ..of };
            known.others.holdings(within).map(called).collect::<Vec<_>>()
        };
        self.known.iter().flat_map(of)
    }

    /// Yields the attempts in which any of their runs goes on.
    pub(super) fn around<'a>(&'a self, presence: &'a dyn Presence) -> impl Iterator<Item = &'a Around> {
        self.known.iter().flat_map(move |known| known.others.around(presence))
    }

    /// Returns what was written since that was last asked.
    pub(super) fn made(&mut self) -> impl Iterator<Item = String> {
        self.known.iter_mut().flat_map(|known| std::mem::take(&mut known.others.made))
    }
}
