//! `trainyard logs`: what tasks printed, and what they print now.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use miette::Diagnostic;
use thiserror::Error;

use super::follow::Follow;
use super::log_out::LogOut;
use super::state::{self, StateArgs};
use super::{Exit, Failure, output};
use crate::engine::sentinel;
use crate::report::{text, wording};
use crate::run::launch;
use crate::run::state::{Attempt, Phase, RunState};
use crate::run::store::{RunRow, Store};

/// Tasks that are named where there are many.
const MOST_NAMED: usize = 3;

/// Print what tasks printed
///
/// Without TASK: the failed ones, or all where none failed. A stage's name means all of its tasks.
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name [default: the newest]
    run: Option<String>,
    /// A task or a stage
    task: Option<String>,
    /// Go on printing until the task ends
    #[arg(short, long)]
    follow: bool,
    /// The attempt to print, counted from 1 [default: the last]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// Print one JSON object per line: task, attempt, line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Error, Diagnostic)]
pub(super) enum NoLog {
    #[error("run {run} has no task `{wanted}`")]
    #[diagnostic(help("{}", near.as_ref().map_or_else(|| "`trainyard show` lists its tasks".into(), |near| format!("did you mean `{near}`?"))))]
    UnknownTask { run: String, wanted: String, near: Option<String> },
    #[error("{task} has no attempt {number}: there {}", match count { 0 => "was none".to_owned(), 1 => "was one".to_owned(), n => format!("were {n}") })]
    NoAttempt { task: String, number: u32, count: usize },
    #[error("one task can be followed, and {count} could be meant: {named}")]
    #[diagnostic(help("name one: trainyard logs {run} TASK -f"))]
    FollowOne { run: String, count: usize, named: String },
    #[error("no task of run {run} is running")]
    NothingRuns { run: String },
}

impl From<NoLog> for Failure {
    fn from(error: NoLog) -> Self {
        Self { exit: Exit::Usage, report: error.into() }
    }
}

/// A run and what it says.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) row: RunRow,
    pub(super) state: RunState,
}

impl Opened {
    pub(super) fn new((store, row): (Store, RunRow)) -> Result<Self, Failure> {
        let state = state::replay(&store, &row)?;
        Ok(Self { store, row, state })
    }

    pub(super) fn name(&self, task: usize) -> &str {
        &self.row.header.tasks[task].name
    }

    pub(super) fn log(&self, task: usize, number: u32) -> PathBuf {
        launch::log(&self.store.run_dir(&self.row.header.id), self.name(task), number)
    }

    /// Says that the log of an attempt is cut short, if it is, and returns whether.
    pub(super) fn tell_log_cut(&self, task: usize, number: u32) -> bool {
        let attempts = &self.state.tasks[task].attempts;
        let attempt = number.checked_sub(1).and_then(|at| attempts.get(at as usize));
        let cut = attempt.and_then(|attempt| log_cut(&self.row.dir, self.name(task), (number, attempt)));
        cut.iter().for_each(|cut| output::say(cut));
        cut.is_some()
    }

    /// Returns the tasks that a name means: one task, or those of a stage.
    pub(super) fn named(&self, wanted: &str) -> Vec<usize> {
        let tasks = self.row.header.tasks.iter().enumerate();
        let exact = tasks.clone().find(|(_, task)| task.name == wanted).map(|(i, _)| vec![i]);
        exact.unwrap_or_else(|| tasks.filter(|(_, task)| task.stage == wanted).map(|(i, _)| i).collect())
    }

    /// Prints what a task that is up to date had printed when it ran.
    fn print_earlier(&self, out: &mut LogOut, task: usize, log: &str, heading: bool) -> io::Result<bool> {
        out.of(self.name(task), None);
        if heading {
            out.heading(&format!("{}: up to date; from an earlier run", self.name(task)))?;
        }
        out.file(&self.store.dir().join(log))
    }

    fn in_phase(&self, wanted: impl Fn(Phase) -> bool) -> Vec<usize> {
        let tasks = self.state.tasks.iter().enumerate();
        tasks.filter(|(_, task)| wanted(task.phase)).map(|(i, _)| i).collect()
    }

    pub(super) fn unknown(&self, wanted: &str) -> NoLog {
        let names = self.row.header.tasks.iter().map(|task| task.name.as_str());
        let near = names.map(|name| (strsim::jaro_winkler(name, wanted), name)).max_by(|a, b| a.0.total_cmp(&b.0));
        NoLog::UnknownTask {
            run: self.row.header.id.clone(),
            wanted: text::visible(wanted).into_owned(),
            // Below this a name has little in common with what was written.
            near: near.filter(|(likeness, _)| *likeness > 0.7).map(|(_, name)| text::visible(name).into_owned()),
        }
    }
}

/// Returns what is said of an attempt's log that is cut short. Of one that has ended and that nobody has recorded yet, its
/// sentinel knows.
pub(super) fn log_cut(dir: &Path, task: &str, (number, attempt): (u32, &Attempt)) -> Option<String> {
    let unrecorded = || sentinel::read(&launch::sentinel(dir, task, number))?.ended?.log_cut;
    let cut = attempt.ended.as_ref().map_or_else(unrecorded, |ended| ended.usage.log_cut);
    cut.map(|cut| format!("{}, attempt {number}: {}", text::visible(task), wording::log_cut(cut)))
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (opened, wanted) = self.pick()?;
        let tasks = match &wanted {
            Some(wanted) => Some(opened.named(wanted)).filter(|tasks| !tasks.is_empty()),
            None => Some(self.unnamed(&opened)),
        };
        let tasks = match (tasks, &wanted) {
            (Some(tasks), _) => tasks,
            (None, wanted) => return Err(opened.unknown(wanted.as_deref().unwrap_or_default()).into()),
        };
        if self.follow {
            let task = self.one(&opened, &tasks)?;
            return Follow::new(opened, task, self.attempt).run(LogOut::new(self.json));
        }
        output::finish(self.print(&opened, &tasks)?)
    }

    /// Opens the run. A single word that is no run but a task of the newest run means that task.
    fn pick(&self) -> Result<(Opened, Option<String>), Failure> {
        match (self.state.pick(self.run.as_deref()), &self.run, &self.task) {
            (Ok(picked), _, task) => Ok((Opened::new(picked)?, task.clone())),
            (Err(unknown), Some(word), None) => {
                let newest = self.state.pick(None).and_then(Opened::new).map_err(|_| unknown)?;
                if newest.named(word).is_empty() {
                    return Err(newest.unknown(word).into());
                }
                Ok((newest, Some(word.clone())))
            }
            (Err(unknown), _, _) => Err(unknown),
        }
    }

    fn unnamed(&self, opened: &Opened) -> Vec<usize> {
        let running = |phase| phase == Phase::Running;
        let failed = |phase| phase == Phase::Failed;
        let first = if self.follow { opened.in_phase(running) } else { opened.in_phase(failed) };
        if first.is_empty() && !self.follow { opened.in_phase(|_| true) } else { first }
    }

    fn one(&self, opened: &Opened, tasks: &[usize]) -> Result<usize, NoLog> {
        let run = opened.row.header.id.clone();
        match tasks {
            [] => Err(NoLog::NothingRuns { run }),
            [task] => Ok(*task),
            several => {
                let named = several.iter().take(MOST_NAMED).map(|task| text::visible(opened.name(*task)));
                let named: Vec<_> = named.collect();
                let more = if several.len() > MOST_NAMED { ", …" } else { "" };
                Err(NoLog::FollowOne { run, count: several.len(), named: named.join(", ") + more })
            }
        }
    }

    fn print(&self, opened: &Opened, tasks: &[usize]) -> Result<io::Result<()>, Failure> {
        let mut out = LogOut::new(self.json);
        let mut silent = Vec::new();
        for &task in tasks {
            match self.print_one(opened, &mut out, task, tasks.len() > 1)? {
                Ok(true) => {}
                Ok(false) => silent.push(text::visible(opened.name(task))),
                Err(error) => return Ok(Err(error)),
            }
        }
        let written = out.flush();
        if silent.len() == tasks.len() {
            silent.truncate(MOST_NAMED);
            let more = if tasks.len() > MOST_NAMED { ", …" } else { "" };
            output::say(&format!("{}{more} printed nothing", silent.join(", ")));
        }
        Ok(written)
    }

    /// Prints the log of one task, below a heading if it is one of several; returns whether there is anything to say of it.
    fn print_one(
        &self,
        opened: &Opened,
        out: &mut LogOut,
        task: usize,
        heading: bool,
    ) -> Result<io::Result<bool>, Failure> {
        let attempts = &opened.state.tasks[task].attempts;
        let telling = opened.state.tasks[task].telling();
        let number = self.attempt.unwrap_or(telling.map_or(0, |(number, _)| number));
        let attempt = number.checked_sub(1).and_then(|i| attempts.get(i as usize));
        let Some(attempt) = attempt else {
            if let (None, Some(earlier)) = (self.attempt, &opened.state.tasks[task].cached_log) {
                return Ok(opened.print_earlier(out, task, earlier, heading));
            }
            let is_cached = self.attempt.is_none() && opened.state.tasks[task].phase == Phase::Cached;
            if heading || is_cached {
                return Ok(Ok(false));
            }
            let task = text::visible(opened.name(task)).into_owned();
            return Err(NoLog::NoAttempt { task, number: number.max(1), count: attempts.len() }.into());
        };
        out.of(opened.name(task), Some(number));
        if heading {
            let how = match &attempt.ended {
                Some(ended) => wording::ending(&ended.outcome),
                None => "not ended".into(),
            };
            if let Err(error) = out.heading(&format!("{}, attempt {number}: {how}", opened.name(task))) {
                return Ok(Err(error));
            }
        }
        let printed = out.file(&opened.log(task, number));
        Ok(match printed {
            // What is printed stands before what is said of it.
            Ok(any) => out.flush().map(|()| opened.tell_log_cut(task, number) || any),
            failed => failed,
        })
    }
}
