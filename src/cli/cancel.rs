//! `trainyard cancel [RUN]`: end a run from elsewhere, as Ctrl-C would at its terminal.

use std::time::Duration;

use clap::Args;
use miette::Diagnostic;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, pidfd_send_signal};
use thiserror::Error;

use super::state::{self, StateArgs, broken};
use super::{Exit, Failure, output, patience, session};
use crate::engine::attendance::Share;
use crate::engine::{process, sentinel, warden};
use crate::report::wording;
use crate::run::event::{Event, Recorded, StopReason};
use crate::run::launch::{run_mark, sentinels};
use crate::run::store::{RunRow, Store};
use crate::spec::Limits;

/// End a run that is under way: its tasks are asked to end, and killed after their grace
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name [default: the newest under way]
    run: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Kill its tasks at once
    #[arg(long)]
    now: bool,
}

/// Why nothing can be ended.
#[derive(Debug, Error, Diagnostic)]
enum Refusal {
    #[error("no run is under way")]
    #[diagnostic(help("`trainyard runs` lists all"))]
    NoneUnderWay,
    #[error("another process takes run {0} up")]
    #[diagnostic(help("`trainyard cancel {0}` ends it then"))]
    Outrun(String),
    #[error("run {run} is carried out {place}, and cannot be ended from here")]
    #[diagnostic(help("call `trainyard cancel {run}` there"))]
    Elsewhere { run: String, place: String },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { exit: Exit::Usage, report: refusal.into() }
    }
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let under_way = |row: &RunRow| row.end.is_none() && state::is_alive(row);
        let left_alone = |row: &RunRow| !state::tasks_that_go_on(row).is_empty();
        let picked = self.state.pick_where(self.run.as_deref(), |row| under_way(row) || left_alone(row))?;
        let (store, row) = picked.ok_or(Refusal::NoneUnderWay)?;
        let run = &row.header.id;
        if under_way(&row) {
            self.end(&row)?;
        } else if left_alone(&row) {
            self.end_left_alone(&store, &row)?;
        }
        let ended = store.run(run).map_err(broken)?.and_then(|row| row.end);
        // Without an end on record its process is gone all the same.
        let word = ended.map_or("interrupted", |(_, end)| wording::end(end));
        output::print(&format!("run {run} has ended: {word}\n"))
    }

    /// Ends what goes on by itself. That this is asked for is on record before: it is no failure of a task.
    fn end_left_alone(&self, store: &Store, row: &RunRow) -> Result<(), Failure> {
        let _attended = Share::take(&row.dir).map_err(broken)?;
        if row.end.is_none() {
            state::refuse_unwritable(store.dir())?;
            let mut store = Store::open(store.dir()).map_err(broken)?;
            let key = store.take_over(&row.header, &state::this_process()?).map_err(broken)?;
            let mut key = key.ok_or_else(|| Refusal::Outrun(row.header.id.clone()))?;
            if state::replay(&store, row)?.stopping != Some(StopReason::Signal) {
                let event = Event::StopRequested { reason: StopReason::Signal };
                store.append(&mut key, &[Recorded { at: session::now(), event }]).map_err(broken)?;
            }
        }
        let run = &row.header.id;
        // Whoever has no sentinel was to die with the run.
        let grace = sentinel::longest_grace(&sentinels(&row.dir)).unwrap_or(Limits::default().grace);
        let grace = if self.now { Duration::ZERO } else { grace.as_std() };
        let what = format!("the tasks of run {run} have ended");
        patience::waiting_until(&self.with_hint(&what), || warden::end_marked(&run_mark(run), grace));
        Ok(())
    }

    /// Adds to what is waited for how that is sooner.
    fn with_hint(&self, what: &str) -> String {
        let hint = if self.now { "" } else { "; with --now they are killed at once" };
        format!("{what}{hint}")
    }

    /// Asks the process that carries the run out to end it, and waits until it has.
    fn end(&self, row: &RunRow) -> Result<(), Failure> {
        let orchestrator = &row.header.orchestrator;
        if !state::is_here(orchestrator) {
            let (run, place) = (row.header.id.clone(), state::elsewhere_on(orchestrator));
            return Err(Refusal::Elsewhere { run, place }.into());
        }
        let Ok(watched) = process::watch(orchestrator.process.pid) else { return Ok(()) };
        // The descriptor stands for one process: if that is still the recorded one, no later one gets the signal.
        if !process::is_alive(orchestrator.process) {
            return Ok(());
        }
        // Two different signals, since two of a kind may arrive as one.
        let signals = if self.now { &[Signal::TERM, Signal::INT][..] } else { &[Signal::TERM] };
        for signal in signals {
            pidfd_send_signal(&watched, *signal).map_err(broken)?;
        }
        // Stopped, by Ctrl-Z at its terminal, it hears them only once it goes on; it may have ended by now.
        let _ = pidfd_send_signal(&watched, Signal::CONT);
        let what = format!("process {} has ended the tasks of run {}", orchestrator.process.pid, row.header.id);
        let ended = || {
            let mut ended = [PollFd::new(&watched, PollFlags::IN)];
            while poll(&mut ended, None)? == 0 {}
            Ok::<_, rustix::io::Errno>(())
        };
        patience::waiting_until(&self.with_hint(&what), ended).map_err(broken)?;
        Ok(())
    }
}
