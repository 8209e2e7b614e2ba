//! An engine with a place of its own for each attempt that another one may run beside, and their outputs published by the
//! first that succeeds.
//!
//! Such an attempt writes below a folder that no other knows. The first to succeed has its outputs moved to where they are
//! wanted, each whole or not at all, before its end is reported; what the other made is removed, and what a failed one
//! left is moved aside. That a result is being published is noted in its folder first, and stays there until its success is
//! on record, so that whoever takes the run up after a crash in between publishes the rest. Until then the other one's
//! end is held back as well. Knows files and no rule about when two attempts run.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::graph::TaskId;
use crate::run::crash;
use crate::run::engine::{Ended, Engine, Launch, Report, Staging, Stop};
use crate::run::event::{Process, Role};
use crate::run::files::transfer::Transfer;
use crate::run::files::tree::{copy_all, relocate, remove_all};
use crate::run::layer::{Apart, Layer};
use crate::run::outcome::Outcome;
use crate::units::{Bytes, Millis};

/// The file in an attempt's folder that says that its outputs are being published.
const PUBLISHING: &str = "publishing";

type Who = (TaskId, Role);

/// An engine of attempts that race. Must live within a tokio runtime.
#[derive(Debug)]
pub struct Racing<E> {
    inner: E,
    /// Where running attempts write that have a place of their own.
    staged: HashMap<Who, Staged>,
    /// Tasks whose outputs are being published.
    publishing: HashMap<TaskId, Publishing>,
    /// Tasks whose outputs are published.
    won: HashMap<TaskId, Won>,
    /// Whether all are to end: nobody may be left to say that a success is on record.
    stops: bool,
    /// What is copied.
    transfer: Arc<Transfer>,
    apart: Apart<Ended>,
}

/// Which attempt's outputs are being published, its folder, and the other attempt if that has succeeded as well.
#[derive(Debug)]
struct Publishing {
    role: Role,
    folder: PathBuf,
    other: Option<(Ended, Staged)>,
}

/// What is left to do once a task's success is on record.
#[derive(Debug)]
enum Won {
    /// It is not: the folder to be removed then, and the other attempt if that has succeeded as well.
    Untold(PathBuf, Option<Box<(Ended, Staged)>>),
    /// It is.
    OnRecord,
}

/// An attempt's place and its outputs: as the pipeline names them, where they are written, where they are wanted.
#[derive(Clone, Debug)]
struct Staged {
    folder: PathBuf,
    aside: PathBuf,
    outputs: Vec<(String, PathBuf, PathBuf)>,
}

impl Staged {
    fn new(launch: &Launch, staging: &Staging) -> Self {
        let outputs = launch.outputs.iter().zip(&staging.wanted);
        let outputs = outputs.map(|((name, written), wanted)| (name.clone(), written.clone(), wanted.clone()));
        Self { folder: staging.folder.clone(), aside: staging.aside.clone(), outputs: outputs.collect() }
    }

    /// Moves the outputs to where they are wanted; what is in the way goes aside. The note stays.
    fn publish(&self, transfer: &Transfer) -> Result<(), (String, io::Error)> {
        let first = self.outputs.first().map(|(name, ..)| name.clone()).unwrap_or_default();
        std::fs::write(self.folder.join(PUBLISHING), "").map_err(|error| (first, error))?;
        crash::point("publishing");
        for (name, written, wanted) in &self.outputs {
            // One that is gone was moved before a crash.
            if written.symlink_metadata().is_ok() {
                let old = self.before().join(name);
                publish(written, wanted, &old, transfer).map_err(|error| (name.clone(), error))?;
                crash::point("publishing");
            }
        }
        Ok(())
    }

    /// Where to put what is in the way of an output.
    fn before(&self) -> PathBuf {
        self.aside.with_added_extension("before")
    }

    /// Moves aside what was published of a result that cannot be published whole, and what is left of it.
    fn take_back(&self, transfer: &Transfer) -> io::Result<()> {
        for (name, written, wanted) in &self.outputs {
            if written.symlink_metadata().is_err() {
                relocate(wanted, &self.aside.join(name), transfer)?;
            }
        }
        self.set_aside(transfer)
    }

    /// Removes what else an attempt has written whose outputs are published, all but the note.
    fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name() != PUBLISHING {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Moves what a failed attempt left aside.
    fn set_aside(&self, transfer: &Transfer) -> io::Result<()> {
        for (name, written, _) in &self.outputs {
            relocate(written, &self.aside.join(name), transfer)?;
        }
        remove_all(&self.folder)
    }
}

/// Moves one output to where it is wanted, whole or not at all. Until it is there, it is where it was written.
fn publish(written: &Path, wanted: &Path, old: &Path, transfer: &Transfer) -> io::Result<()> {
    let folder = wanted.parent().unwrap_or(wanted);
    std::fs::create_dir_all(folder)?;
    relocate(wanted, old, transfer)?;
    match std::fs::rename(written, wanted) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let name = wanted.file_name().unwrap_or_default().to_string_lossy();
            // What was left of an earlier try has the same name.
            let unfinished = folder.join(format!(".{name}.trainyard"));
            copy_all(written, &unfinished, transfer)?;
            std::fs::rename(&unfinished, wanted)?;
            // What stays goes with the folder.
            let _ = remove_all(written);
            Ok(())
        }
        other => other,
    }
}

/// Removes what is in a run's folder of attempts' own places, but for those that are `kept`: what their orchestrator did not
/// come to remove.
///
/// # Errors
/// Where it cannot be removed.
pub fn sweep(folder: &Path, kept: &HashSet<PathBuf>) -> io::Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if !kept.contains(&path) {
            remove_all(&path)?;
        }
    }
    // Fails where something stays.
    let _ = std::fs::remove_dir(folder);
    Ok(())
}

impl<E: Engine> Racing<E> {
    /// Puts places for attempts that race around an engine; others are passed on as they are. What is moved to another file
    /// system leaves `keep_free` there, or what is usual.
    pub fn new(inner: E, keep_free: Option<Bytes>) -> Self {
        Self {
            inner,
            staged: HashMap::new(),
            publishing: HashMap::new(),
            won: HashMap::new(),
            stops: false,
            transfer: Arc::new(Transfer::keeping_free(keep_free)),
            apart: Apart::default(),
        }
    }

    /// Does what follows from the end of an attempt with a place of its own.
    fn finish(&mut self, mut ended: Ended, staged: Staged) {
        let succeeded = ended.outcome.is_success();
        let transfer = Arc::clone(&self.transfer);
        if let Some(won) = self.won.get_mut(&ended.task) {
            if succeeded {
                ended.outcome = Outcome::Outrun;
                if let (Won::Untold(_, other), false) = (won, self.stops) {
                    *other = Some(Box::new((ended, staged)));
                    return;
                }
            }
            self.apart.start(move || with_note(ended, remove_all(&staged.folder), "what it made cannot be removed"));
        } else if !succeeded {
            self.apart
                .start(move || with_note(ended, staged.set_aside(&transfer), "what it left cannot be moved aside"));
        } else if let Some(first) = self.publishing.get_mut(&ended.task) {
            // Too late, unless the first one cannot be published.
            first.other = Some((ended, staged));
        } else {
            self.publishing
                .insert(ended.task, Publishing { role: ended.role, folder: staged.folder.clone(), other: None });
            self.apart.start(move || match staged.publish(&transfer) {
                Ok(()) => with_note(ended, staged.clear(), "its folder is left"),
                Err((path, error)) => {
                    let taken_back = staged.take_back(&transfer);
                    ended.note = Some(format!("its output `{path}` cannot be moved to its place: {error}"));
                    ended.outcome = match transfer.is_off() {
                        true => Outcome::Interrupted,
                        false => Outcome::OutputMissing { path, leads_to: None, also: Box::default() },
                    };
                    with_note(ended, taken_back, "what it made cannot be moved aside")
                }
            });
        }
    }

    /// Reports the other attempt of a task, if that was held back.
    fn let_go(&mut self, task: TaskId) {
        if let Some(Won::Untold(folder, other)) = self.won.insert(task, Won::OnRecord) {
            // Nothing but the note is in there; what cannot be removed harms nobody.
            let _ = remove_all(&folder);
            if let Some((ended, staged)) = other.map(|other| *other) {
                self.finish(ended, staged);
            }
        }
    }
}

/// Returns an attempt's end, with a word on what could not be done.
fn with_note(mut ended: Ended, done: io::Result<()>, what: &str) -> Ended {
    if let Err(error) = done {
        ended.note = ended.note.take().or(Some(format!("{what}: {error}")));
    }
    ended
}

impl<E: Engine> Layer for Racing<E> {
    type Inner = E;
    type Done = Ended;

    fn parts(&mut self) -> (&mut E, &mut Apart<Ended>) {
        (&mut self.inner, &mut self.apart)
    }

    fn go_on(&mut self, ended: Ended) {
        let (task, succeeded) = (ended.task, ended.outcome.is_success());
        let role = ended.role;
        self.apart.report(Report::Ended(ended));
        if self.publishing.get(&task).is_none_or(|first| first.role != role) {
            return;
        }
        let Some(Publishing { folder, other, .. }) = self.publishing.remove(&task) else { return };
        if succeeded {
            self.won.insert(task, Won::Untold(folder, None));
        }
        if let Some((ended, staged)) = other {
            self.finish(ended, staged);
        }
    }

    fn pass(&mut self, report: Report) -> Option<Report> {
        let Report::Ended(ended) = report else { return Some(report) };
        let Some(staged) = self.staged.remove(&(ended.task, ended.role)) else { return Some(Report::Ended(ended)) };
        self.finish(ended, staged);
        None
    }
}

impl<E: Engine> Engine for Racing<E> {
    fn start(&mut self, launch: Launch) {
        if let Some(staging) = &launch.staging {
            if launch.role == Role::Main {
                self.won.remove(&launch.task);
            }
            self.staged.insert((launch.task, launch.role), Staged::new(&launch, staging));
        }
        self.inner.start(launch);
    }

    fn adopt(&mut self, mut launch: Launch, sentinel: Process, age: Millis) {
        if let Some(staging) = launch.staging.clone() {
            let staged = Staged::new(&launch, &staging);
            // What was moved before the crash is looked for where it went.
            if staging.folder.join(PUBLISHING).exists() {
                for ((_, path), wanted) in launch.outputs.iter_mut().zip(staging.wanted) {
                    if path.symlink_metadata().is_err() {
                        *path = wanted;
                    }
                }
            }
            self.staged.insert((launch.task, launch.role), staged);
        }
        self.inner.adopt(launch, sentinel, age);
    }

    fn look_up(&mut self, task: TaskId) -> bool {
        self.inner.look_up(task)
    }

    async fn next_report(&mut self) -> Report {
        self.next().await
    }

    fn ready_report(&mut self) -> Option<Report> {
        self.ready()
    }

    fn keep(&mut self, task: TaskId) {
        if self.won.contains_key(&task) {
            self.let_go(task);
        }
        self.inner.keep(task);
    }

    fn stop_task(&mut self, task: TaskId, role: Role, how: Stop) {
        self.inner.stop_task(task, role, how);
    }

    fn suspend(&mut self, task: TaskId, role: Role, suspended: bool) {
        self.inner.suspend(task, role, suspended);
    }

    fn stop(&mut self, how: Stop) {
        self.stops = true;
        if how == Stop::Now {
            self.transfer.call_off();
        }
        let held = self.won.values_mut().filter_map(|won| match won {
            Won::Untold(_, other) => other.take(),
            Won::OnRecord => None,
        });
        for (ended, staged) in held.map(|other| *other).collect::<Vec<_>>() {
            self.finish(ended, staged);
        }
        self.inner.stop(how);
    }

    async fn settle(&mut self) {
        self.inner.settle().await;
    }
}
