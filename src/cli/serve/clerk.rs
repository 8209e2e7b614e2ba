//! The thread that reads for everybody: it wakes when something is recorded, and tells those who listen.
//!
//! One clerk serves all browsers, so that a hundred of them cost little more than one. While nobody listens it sleeps.

#![expect(clippy::disallowed_methods, reason = "how often it looks depends on the clock")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::response::Response;

use super::answer;
use super::followed::Followed;
use super::list::List;
use super::listeners::{Listeners, event};
use crate::cli::Failure;
use crate::cli::attach::Gauges;
use crate::cli::wake::{Wake, pause};
use crate::report::dashboard::Listed;

/// The shortest time between two looks at the record: below what an eye takes for lag, however much is recorded.
const LOOK: Duration = Duration::from_millis(40);
/// How often what tasks say is looked at.
const LISTEN: Duration = Duration::from_millis(250);
/// How often devices and the list of runs are looked at.
const GAUGE: Duration = Duration::from_secs(1);
/// Runs at which nobody looks that are kept for whoever asks next.
const KEPT: usize = 8;

/// What all requests share.
pub(super) struct Desk {
    dir: PathBuf,
    runs: Mutex<HashMap<String, Arc<Mutex<Followed>>>>,
    list: Mutex<Catalogue>,
    /// Whether somebody listens.
    listened: Mutex<bool>,
    called: Condvar,
}

struct Catalogue {
    list: List,
    listeners: Listeners,
    /// What was told last.
    told: String,
}

/// A lock whose holder panicked is taken all the same: what it guards is read again from the record.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Makes a desk for a state folder and has a clerk work there for as long as this process lives.
    pub(super) fn new(dir: &Path) -> std::io::Result<Arc<Self>> {
        let catalogue = Catalogue { list: List::new(dir), listeners: Listeners::default(), told: String::new() };
        let desk = Arc::new(Self {
            dir: dir.to_owned(),
            runs: Mutex::default(),
            list: Mutex::new(catalogue),
            listened: Mutex::new(false),
            called: Condvar::new(),
        });
        let own = Arc::clone(&desk);
        std::thread::Builder::new().name("clerk".into()).spawn(move || own.work())?;
        Ok(desk)
    }

    /// Returns the state folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Answers with the list of runs.
    pub(super) fn list(&self) -> Result<Response, Failure> {
        Ok(answer::json(&lock(&self.list).list.look()?))
    }

    /// Tells a browser the list of runs, and from then on its changes.
    pub(super) fn follow_list(&self) -> Result<Response, Failure> {
        let mut catalogue = lock(&self.list);
        let runs = catalogue.list.look()?;
        // Who listens already hears the news at once, and nobody hears it twice.
        catalogue.tell(&runs);
        let response = catalogue.listeners.add(event("runs", None, &runs));
        drop(catalogue);
        self.call();
        Ok(response)
    }

    /// Tells a browser what happens in a run.
    pub(super) fn follow(&self, run: &str, after: usize) -> Result<Option<Response>, Failure> {
        let response = self.with(run, |followed| followed.follow(after))?.transpose()?;
        self.call();
        Ok(response)
    }

    /// Does something with the run that is meant by its id, the beginning of it, its name or `latest`; `None` where there is
    /// none.
    pub(super) fn with<T>(&self, run: &str, work: impl FnOnce(&mut Followed) -> T) -> Result<Option<T>, Failure> {
        let known = lock(&self.runs).get(run).cloned();
        let followed = match known {
            Some(followed) => followed,
            None => {
                let Some(opened) = Followed::open(&self.dir, run)? else { return Ok(None) };
                let run = opened.id();
                let mut runs = lock(&self.runs);
                if runs.len() >= KEPT {
                    // Who is asked for right now is in somebody's hands.
                    runs.retain(|_, run| Arc::strong_count(run) > 1 || lock(run).is_watched());
                }
                Arc::clone(runs.entry(run).or_insert_with(|| Arc::new(Mutex::new(opened))))
            }
        };
        let mut followed = lock(&followed);
        Ok(Some(work(&mut followed)))
    }

    /// Wakes the clerk: somebody listens.
    fn call(&self) {
        *lock(&self.listened) = true;
        self.called.notify_one();
    }

    fn sleep_until_called(&self) {
        let mut listened = lock(&self.listened);
        while !*listened {
            listened = self.called.wait(listened).unwrap_or_else(PoisonError::into_inner);
        }
        *listened = false;
    }

    fn work(&self) {
        let mut gauges: Option<Gauges> = None;
        let mut wake = Wake::on(None);
        let [mut listened, mut gauged] = [Instant::now(); 2];
        let mut watched = false;
        // Read before anybody asks; what is wrong with the record is told to whoever does.
        let _ = lock(&self.list).list.look();
        loop {
            if !watched {
                self.sleep_until_called();
            }
            if !wake.is_told() {
                // The folder may have come into being, and a file system that tells nothing is looked at.
                wake = Wake::on(Some(&self.dir));
            }
            let looked = Instant::now();
            let [listen, gauge] = [looked - listened >= LISTEN, looked - gauged >= GAUGE];
            if gauge {
                gauges.get_or_insert_with(Gauges::of_this_machine);
            }
            watched = self.look(listen, gauges.as_mut().filter(|_| gauge));
            if listen {
                listened = looked;
            }
            if gauge {
                gauged = looked;
            }
            pause(LOOK.saturating_sub(looked.elapsed()));
            wake.wait(if wake.is_told() { LISTEN.saturating_sub(listened.elapsed()) } else { Duration::ZERO });
        }
    }

    /// Tells everybody what is new, and returns whether anybody listens.
    fn look(&self, listen: bool, mut gauges: Option<&mut Gauges>) -> bool {
        let mut watched = gauges.is_some() && self.look_at_list();
        let runs: Vec<_> = lock(&self.runs).values().cloned().collect();
        for run in runs {
            let mut run = lock(&run);
            if !run.is_watched() {
                continue;
            }
            watched = true;
            if let Err(Failure { report, .. }) = run.look() {
                tracing::warn!(error = %report, "a run cannot be read");
            }
            if listen {
                run.listen();
            }
            if let Some(gauges) = &mut gauges {
                run.gauge(gauges);
            }
        }
        watched || !lock(&self.list).listeners.is_empty()
    }

    fn look_at_list(&self) -> bool {
        let catalogue = &mut *lock(&self.list);
        if catalogue.listeners.is_empty() {
            return false;
        }
        match catalogue.list.look() {
            Ok(runs) => catalogue.tell(&runs),
            Err(Failure { report, .. }) => tracing::warn!(error = %report, "the runs cannot be read"),
        }
        true
    }
}

impl Catalogue {
    fn tell(&mut self, runs: &[Listed]) {
        let now = serde_json::to_string(runs).expect("our views are plain data with text keys");
        if now == self.told {
            self.listeners.tell(&super::listeners::SILENCE);
        } else {
            self.listeners.tell(&event("runs", None, &runs));
            self.told = now;
        }
    }
}
