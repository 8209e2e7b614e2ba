//! What was checked, a row each: printed as it becomes known, and written to the JSON at once, so that a run that is ended
//! loses nothing. Knows when time is over.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::output;

/// Why nothing more is begun.
pub(super) const OVER: &str = "no time left (--within TIME)";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    Skipped,
    Measured,
    /// Begun or not: its time was over before all of it was done.
    Unfinished,
}

/// A check.
#[derive(Debug, Serialize)]
struct Row {
    part: &'static str,
    what: String,
    outcome: Outcome,
    detail: String,
    /// A figure and its unit, and what was asked for on an H200.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<f64>,
}

/// A figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What is asked for on an H200.
    pub(super) asked: Option<f64>,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// The file is being written, or whoever wrote it was ended without a chance to say so.
    #[default]
    Running,
    Done,
    /// By a signal.
    Stopped,
    /// Something did not end in time.
    Hung,
}

/// Everything that is known so far, and what must go when this process is ended.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rows: Vec<Row>,
    /// What was checked, on what, and how: members of the JSON.
    about: Map<String, Value>,
    state: State,
    file: Option<PathBuf>,
    /// What is being done.
    now: Option<(&'static str, String)>,
    /// A child that leads a process group.
    pub(super) child: Option<u32>,
    /// A folder among temporary files.
    pub(super) folder: Option<PathBuf>,
}

impl Kept {
    /// Notes how it ended, and that what was being done failed by that; writes it down.
    pub(super) fn end(&mut self, state: State, why: &str) {
        self.state = state;
        if let (State::Hung, Some((part, what))) = (state, self.now.take()) {
            drop(output::print(&format!("{part:<9} {what}: FAILED; {why}\n")));
            let (outcome, detail) = (Outcome::Failed, why.to_owned());
            self.rows.push(Row { part, what, outcome, detail, value: None, unit: None, asked: None });
        }
        self.write_or_say();
    }

    fn write_or_say(&self) {
        if let Err(error) = self.write() {
            let file = self.file.as_deref().unwrap_or(Path::new(""));
            output::warn(&format!("cannot write {}: {error}", file.display()));
        }
    }

    /// Writes everything as JSON: beside the file, then in its place.
    fn write(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut all = self.about.clone();
        all.insert("state".to_owned(), serde_json::to_value(self.state)?);
        all.insert("rows".to_owned(), serde_json::to_value(&self.rows)?);
        let draft = file.with_added_extension(format!("{}.draft", std::process::id()));
        let written = std::fs::write(&draft, format!("{:#}\n", Value::Object(all)));
        let placed = written.and_then(|()| std::fs::rename(&draft, file));
        if placed.is_err() {
            // What cannot be written need not be removed either.
            drop(std::fs::remove_file(&draft));
        }
        placed
    }
}

/// Everything that was checked, and until when there is time for more.
#[derive(Debug)]
pub(super) struct Rows {
    kept: Arc<Mutex<Kept>>,
    ends: Instant,
}

/// Locks what is kept; whoever panicked with it left whole rows.
pub(super) fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rows {
    /// Begins without rows; there is time until `ends`.
    pub(super) fn new(ends: Instant) -> Self {
        Self { kept: Arc::default(), ends }
    }

    /// Writes all that is noted from here on to a file.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub(super) fn write_to(&self, file: &Path) -> io::Result<()> {
        let file = match file.metadata() {
            Ok(there) if !there.is_file() => return Err(io::Error::other("it is not a file")),
            // Behind a link, the file itself is replaced.
            Ok(_) => file.canonicalize()?,
            Err(_) => file.to_owned(),
        };
        let mut kept = self.kept();
        kept.file = Some(file);
        kept.write()
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }

    /// Returns what is kept, for whoever ends this process.
    pub(super) fn share(&self) -> Arc<Mutex<Kept>> {
        Arc::clone(&self.kept)
    }

    /// Returns when time is over.
    pub(super) const fn ends(&self) -> Instant {
        self.ends
    }

    /// Returns how much time there is.
    pub(super) fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// Notes what is about to be done, or, where no time is left, that it is not. Returns whether to go on.
    pub(super) fn begin(&mut self, part: &'static str, what: &str) -> bool {
        if self.left().is_zero() {
            self.unfinished(part, what, OVER);
            return false;
        }
        self.kept().now = Some((part, what.to_owned()));
        true
    }

    /// Notes a member of the JSON.
    pub(super) fn about(&mut self, name: &str, value: Value) {
        let mut kept = self.kept();
        kept.about.insert(name.to_owned(), value);
        kept.write_or_say();
    }

    pub(super) fn passed(&mut self, part: &'static str, what: &str, detail: &str) {
        self.add(part, what, Outcome::Passed, detail, None);
    }

    pub(super) fn fail(&mut self, part: &'static str, what: &str, detail: &str) {
        self.add(part, what, Outcome::Failed, detail, None);
    }

    pub(super) fn skipped(&mut self, part: &'static str, what: &str, why: &str) {
        self.add(part, what, Outcome::Skipped, why, None);
    }

    pub(super) fn unfinished(&mut self, part: &'static str, what: &str, done: &str) {
        self.add(part, what, Outcome::Unfinished, done, None);
    }

    pub(super) fn measured(&mut self, what: &str, detail: &str, figure: Figure) {
        self.add("speed", what, Outcome::Measured, detail, Some(figure));
    }

    /// Whether some check failed, or was cut short or left out for want of time.
    pub(super) fn failed(&self) -> bool {
        self.kept().rows.iter().any(|row| matches!(row.outcome, Outcome::Failed | Outcome::Unfinished))
    }

    fn add(&mut self, part: &'static str, what: &str, outcome: Outcome, detail: &str, figure: Option<Figure>) {
        let shown = match (outcome, figure) {
            (_, Some(Figure { value, unit, asked })) => {
                let asked = asked.map_or_else(String::new, |asked| format!(" (asked on an H200: {asked})"));
                format!("{value:.3} {unit}{asked}")
            }
            (Outcome::Passed | Outcome::Measured, None) => "passed".to_owned(),
            (Outcome::Failed, None) => "FAILED".to_owned(),
            (Outcome::Skipped, None) => "skipped".to_owned(),
            (Outcome::Unfinished, None) => "UNFINISHED".to_owned(),
        };
        let (value, unit, asked) = (figure.map(|f| f.value), figure.map(|f| f.unit), figure.and_then(|f| f.asked));
        let row = Row { part, what: what.to_owned(), outcome, detail: detail.to_owned(), value, unit, asked };
        {
            let mut kept = self.kept();
            kept.rows.push(row);
            kept.now = None;
            kept.write_or_say();
        }
        // Whoever reads along may leave: the file is written all the same.
        drop(output::print(&format!("{part:<9} {what}: {shown}; {detail}\n")));
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if let Some(folder) = self.kept().folder.take() {
            // What is left of it lies among temporary files.
            drop(std::fs::remove_dir_all(folder));
        }
    }
}
