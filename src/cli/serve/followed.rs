//! One run, followed for all browsers that look at it: the record is read once, and every change is written once.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use axum::http::HeaderName;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer;
use super::listeners::{Listeners, SILENCE, event};
use super::log::{self, Piece};
use crate::cli::attach::{Attached, Gauges};
use crate::cli::state::{self, broken};
use crate::cli::{Failure, diff, session};
use crate::graph::TaskId;
use crate::report::dashboard::{self, Change, Changed, Counts, Gauge, Heard, Wait};
use crate::report::held::{self, Course};
use crate::report::{json, reasons};
use crate::run::event::Event;
use crate::run::launch;
use crate::run::observer::DeviceGauge;
use crate::run::state::Phase;
use crate::run::store::Store;

/// A run and those who look at it.
pub(super) struct Followed {
    attached: Attached,
    /// The run's folder.
    dir: PathBuf,
    /// `[n_tasks]`: how many events there were when it last changed.
    changed: Vec<usize>,
    was_alive: bool,
    listeners: Listeners,
    heard: BTreeMap<TaskId, (Stamp, Heard)>,
    waits: Vec<Wait>,
    gauges: Vec<DeviceGauge>,
    /// What devices held since somebody looks.
    course: Course,
}

/// Tells whether a file may have changed.
type Stamp = Option<(u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let file = path.metadata().ok()?;
    Some((file.len(), file.mtime(), file.mtime_nsec()))
}

impl Followed {
    /// Opens the run that is meant; `None` where there is none.
    pub(super) fn open(dir: &Path, wanted: &str) -> Result<Option<Self>, Failure> {
        let store = Store::open_existing(dir).map_err(broken)?;
        let Some(row) = state::find(&store, wanted)? else { return Ok(None) };
        let dir = session::absolute(&store.run_dir(&row.header.id));
        let changed = vec![0; row.header.tasks.len()];
        let mut followed = Self {
            attached: Attached::of(store, row),
            dir,
            changed,
            was_alive: true,
            listeners: Listeners::default(),
            heard: BTreeMap::new(),
            waits: Vec::new(),
            gauges: Vec::new(),
            course: Course::default(),
        };
        followed.look()?;
        Ok(Some(followed))
    }

    /// Returns the run's id.
    pub(super) fn id(&self) -> String {
        self.attached.row.header.id.clone()
    }

    /// Whether somebody looks.
    pub(super) fn is_watched(&mut self) -> bool {
        !self.listeners.is_empty()
    }

    /// Reads what was recorded since the last time, and tells it.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let before = self.attached.taken();
        let mut touched: Vec<TaskId> = Vec::new();
        let mut all = false;
        self.attached.catch_up(|_, recorded| {
            touched.extend(recorded.event.task());
            all |= matches!(recorded.event, Event::RunResumed { .. });
        })?;
        let taken = self.attached.taken();
        let turned = std::mem::replace(&mut self.was_alive, self.attached.is_alive()) != self.was_alive;
        if taken == before && !turned {
            return Ok(());
        }
        for task in touched {
            self.changed[task.index()] = taken;
        }
        if all {
            self.changed.fill(taken);
        }
        if self.is_watched() {
            // What runs is no longer said to run when the process is gone: that is no event.
            let change =
                self.change(|followed, task| followed.changed[task] > before || (turned && followed.runs(task)));
            self.listeners.tell(&event("change", Some(taken), &change));
        }
        Ok(())
    }

    /// Returns what a page has to know that has heard of everything but these tasks.
    fn change(&mut self, news: impl Fn(&Self, usize) -> bool) -> Change {
        let left_ms = self.attached.left().map(|left| left.0);
        let attached = &self.attached;
        let state = &attached.state;
        let changed = |index| Changed { index, task: self.one(index, &|_| None) };
        Change {
            run: json::header(&attached.header(), state.end, state.took(attached.row.header.started)),
            counts: Counts::of(state, attached.is_alive()),
            stopping: state.stopping.is_some(),
            left_ms,
            tasks: (0..self.changed.len()).filter(|task| news(self, *task)).map(changed).collect(),
        }
    }

    /// Whether a task is under way by the record.
    fn runs(&self, task: usize) -> bool {
        self.attached.state.tasks[task].phase == Phase::Running
    }

    fn one(&self, task: usize, heard: &dyn Fn(&Path) -> Option<crate::progress::record::Record>) -> json::Task {
        let attached = &self.attached;
        let files = json::Files { exists: &Path::exists, heard };
        let tasks = &attached.row.header.tasks;
        json::one_task(&attached.header(), tasks, &attached.state, task, &self.dir, files)
    }

    /// Looks at what running tasks say, and at what others wait for.
    pub(super) fn listen(&mut self) {
        let running: Vec<TaskId> = self.attached.tally.running.iter().map(|running| running.task).collect();
        self.heard.retain(|task, _| running.contains(task));
        let mut news: Vec<Heard> = Vec::new();
        self.attached.tally.ticked(session::now());
        for task in running {
            let attempt = u32::try_from(self.attached.state.task(task).attempts.len()).unwrap_or(u32::MAX);
            let name = &self.attached.row.header.tasks[task.index()].name;
            let path = launch::progress(&self.dir, name, attempt);
            let log_bytes = launch::log(&self.dir, name, attempt).metadata().map_or(0, |log| log.len());
            let stamp = stamp(&path);
            let before = self.heard.get(&task);
            let progress = match before {
                Some((seen, before)) if *seen == stamp => before.progress.clone(),
                _ => diff::heard(&path).map(|record| record.progress),
            };
            if let Some(progress) = &progress {
                self.attached.tally.progressed(task, progress);
            }
            let heard = Heard { index: task.index(), attempt, progress, log_bytes };
            if before.is_none_or(|(seen, before)| *seen != stamp || *before != heard) {
                news.push(heard.clone());
                self.heard.insert(task, (stamp, heard));
            }
        }
        if !news.is_empty() {
            let left_ms = self.attached.left().map(|left| left.0);
            self.listeners.tell(&event("heard", None, &json!({"left_ms": left_ms, "tasks": news})));
        }
        let noted = self.attached.is_alive().then(|| reasons::read(&self.dir)).flatten();
        let waits = dashboard::waits(noted.as_ref());
        if waits != self.waits {
            self.listeners.tell(&event("waits", None, &waits));
            self.waits = waits;
        }
    }

    /// Reads the devices, if the run is carried out here.
    pub(super) fn gauge(&mut self, gauges: &mut Gauges) {
        let row = &self.attached.row;
        if !self.attached.is_alive() || !state::is_here(&row.header.orchestrator) {
            self.listeners.tell(&SILENCE);
            return;
        }
        let now = session::now();
        let ms = (now - row.header.started).0;
        let own = [(row.header.id.as_str(), &self.attached.state)];
        self.gauges = gauges.read(&own).into_iter().map(|(_, gauge)| gauge).collect();
        self.course.take_in(now, &self.gauges);
        if self.gauges.is_empty() {
            self.listeners.tell(&SILENCE);
        } else {
            self.listeners.tell(&event("gauges", None, &self.gauged(ms)));
        }
    }

    fn gauged(&self, ms: u64) -> serde_json::Value {
        let devices: Vec<Gauge<'_>> = self.gauges.iter().map(Gauge::new).collect();
        json!({"ms": ms, "devices": devices})
    }

    /// Tells a browser what happened after that many events, and from then on everything.
    pub(super) fn follow(&mut self, after: usize) -> Result<Response, Failure> {
        self.look()?;
        self.listen();
        let gone = !self.attached.is_alive();
        let change = self.change(|followed, task| followed.changed[task] > after || (gone && followed.runs(task)));
        // Kept by the process that carries the run out, and a little behind what is seen here.
        let held = held::read(&self.dir).followed_by(self.course.held());
        let heard: Vec<&Heard> = self.heard.values().map(|(_, heard)| heard).collect();
        let now = [
            event("change", Some(self.attached.taken()), &change),
            event("heard", None, &json!({"left_ms": change.left_ms, "tasks": heard})),
            event("waits", None, &self.waits),
            event("memory", None, &held.since(self.attached.row.header.started)),
        ];
        Ok(self.listeners.add(Bytes::from(now.concat())))
    }

    /// Answers with the run as `show --json` has it; with series only if they are asked for, since they are long.
    pub(super) fn show(&mut self, series: bool) -> Result<Response, Failure> {
        self.look()?;
        let attached = &self.attached;
        let of = (attached.row.header.tasks.as_slice(), attached.row.header.invocation.sets.as_slice());
        let heard: &dyn Fn(&Path) -> _ = if series { &diff::heard } else { &|_| None };
        let files = json::Files { exists: &Path::exists, heard };
        let run = json::run(&attached.header(), of, &attached.state, &self.dir, files);
        let taken = attached.taken().to_string();
        Ok(([(HeaderName::from_static("last-event-id"), taken)], answer::json(&run)).into_response())
    }

    /// Answers with what was planned.
    pub(super) fn plan(&self) -> Response {
        answer::json(&dashboard::planned(&self.attached.row.header))
    }

    /// Answers with one task as `show --json` has it; `None` where there is no such task.
    pub(super) fn task(&mut self, task: usize) -> Result<Option<Response>, Failure> {
        self.look()?;
        Ok((task < self.changed.len()).then(|| answer::json(&self.one(task, &diff::heard))))
    }

    /// Returns a piece of what a task printed: of that attempt or the last one, from that byte on or the end.
    pub(super) fn log(&self, task: usize, attempt: Option<u32>, from: Option<u64>) -> Option<Piece> {
        let state = self.attached.state.tasks.get(task)?;
        let header = &self.attached.row.header;
        let tried = u32::try_from(state.attempts.len()).unwrap_or(u32::MAX);
        let attempt = attempt.unwrap_or(tried);
        if attempt == 0
            && let Some(earlier) = &state.cached_log
        {
            return log::piece(self.attached.store.dir(), &self.attached.store.dir().join(earlier), 0, from);
        }
        // Only attempts that are on record: nothing else is looked for on the disk.
        (1..=tried).contains(&attempt).then_some(())?;
        log::piece(&self.dir, &launch::log(&self.dir, &header.tasks[task].name, attempt), attempt, from)
    }
}
