//! `trainyard watch [RUN]`: a run on the whole screen, from outside; where there is no terminal, a line per fact.

#![expect(clippy::disallowed_methods, reason = "a command looks at the clock, and calls itself to cancel")]

use std::io::IsTerminal;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Args;

use super::attach::{Attached, Gauges};
use super::fullscreen::{FullScreen, Key};
use super::state::{StateArgs, broken, elsewhere};
use super::{Exit, Failure, session, trace};
use crate::graph::TaskId;
use crate::report::paint::Colour;
use crate::report::watch::{self, Picture};
use crate::report::{self, tail, timeline};
use crate::run::observer::DeviceGauge;

/// How often the record is looked at: well below what an eye takes for lag.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress, devices and the log are looked at.
const LISTEN: Duration = Duration::from_millis(500);
/// Lines of a log that any screen may show.
const LOG_LINES: usize = 200;

const KEYS: &str = "↑↓ task   / filter   c cancel the run   q quit";

/// Watch a run: its tasks, their logs, a chart that grows, the GPUs
#[derive(Args)]
pub(super) struct Command {
    /// A run's id or the beginning of it [default: the newest]
    run: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Print a line per fact, as where there is no terminal
    #[arg(long)]
    plain: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let attached = Attached::to(&self.state, self.run.as_deref())?;
        let moves = std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if terminal && moves && !self.plain { Watching::new(attached).run() } else { lines(attached) }
    }
}

/// Prints a line per fact until the run has ended or nobody carries it out.
fn lines(mut attached: Attached) -> Result<Exit, Failure> {
    let dir = attached.store.run_dir(&attached.row.header.id);
    let mut observers = report::observers(report::Options {
        style: report::Style::Lines,
        mirror: false,
        elsewhere: elsewhere(attached.store.dir()),
        dir,
        screen: trace::screen(),
        logs_only: trace::is_json(),
    });
    loop {
        attached.catch_up(|attached, recorded| {
            let view = attached.known.view(&attached.state);
            observers.iter_mut().for_each(|observer| observer.recorded(view, recorded));
        })?;
        if !attached.is_alive() {
            return Ok(Exit::Done);
        }
        wait(LOOK)?;
    }
}

/// Waits without anything to wait for but time: the record tells nobody that it grew.
fn wait(time: Duration) -> Result<(), Failure> {
    let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    match rustix::event::poll(&mut [], Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(broken(error)),
    }
}

/// What the keys do at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    Looking,
    Filtering,
    /// Asked whether the run is to be ended.
    Asking,
}

/// A run on the whole screen.
struct Watching {
    attached: Attached,
    gauges: Gauges,
    seen: Vec<DeviceGauge>,
    mode: Mode,
    filter: String,
    selected: Option<TaskId>,
    log: Vec<String>,
    asked_to_end: bool,
    listened: Option<Instant>,
}

impl Watching {
    fn new(attached: Attached) -> Self {
        Self {
            attached,
            gauges: Gauges::of_this_machine(),
            seen: Vec::new(),
            mode: Mode::Looking,
            filter: String::new(),
            selected: None,
            log: Vec::new(),
            asked_to_end: false,
            listened: None,
        }
    }

    fn run(mut self) -> Result<Exit, Failure> {
        let mut screen = FullScreen::enter().map_err(broken)?;
        let mut size = (0, 0);
        loop {
            self.attached.catch_up(|_, _| {})?;
            let listed = watch::listed(self.attached.known.view(&self.attached.state), &self.filter);
            let selected = self.position(&listed);
            if self.listened.is_none_or(|last| last.elapsed() >= LISTEN) {
                self.listen(listed.get(selected).copied());
            }
            let (rows, columns) = console::Term::stdout().size();
            if std::mem::replace(&mut size, (rows, columns)) != (rows, columns) {
                screen.forget();
            }
            let lines = self.draw(&listed, selected, rows.into(), columns.into());
            screen.show(lines).map_err(broken)?;
            for key in screen.keys(LOOK).map_err(broken)? {
                if self.press(key, &listed, selected)? {
                    return Ok(Exit::Done);
                }
            }
        }
    }

    /// Returns where the selected task stands in the list: the first one where it is not listed.
    fn position(&self, listed: &[TaskId]) -> usize {
        listed.iter().position(|task| Some(*task) == self.selected).unwrap_or(0)
    }

    fn listen(&mut self, task: Option<TaskId>) {
        self.attached.listen();
        self.seen = self.gauges.read(&self.attached.state);
        let log = task.and_then(|task| self.attached.log(task));
        // A log that is not there is that of a task that printed nothing.
        self.log = log.and_then(|log| tail::last_lines(&log, LOG_LINES).ok()).unwrap_or_default();
        self.listened = Some(Instant::now());
    }

    fn draw(&mut self, listed: &[TaskId], selected: usize, rows: usize, columns: usize) -> Vec<String> {
        let now = session::now();
        let left = self.attached.left();
        let attached = &self.attached;
        let timeline = timeline::lay_out(&attached.header(), &attached.row.header.tasks, &attached.state, now);
        let prompt = match self.mode {
            Mode::Filtering => format!("filter by name or state: {}▏  Enter keeps it, Esc drops it", self.filter),
            Mode::Asking => "end the run? its tasks are asked to end; y yes, any other key no".to_owned(),
            Mode::Looking if self.asked_to_end && attached.is_alive() => format!("ending…   {KEYS}"),
            Mode::Looking if !self.filter.is_empty() => format!("filter: {}   {KEYS}", self.filter),
            Mode::Looking => KEYS.to_owned(),
        };
        let picture = Picture {
            view: attached.known.view(&attached.state),
            pipeline: &attached.row.header.pipeline,
            state: attached.word(),
            tally: &attached.tally,
            gauges: &self.seen,
            left,
            timeline: &timeline,
            listed,
            selected,
            log: &self.log,
            prompt: &prompt,
            now,
        };
        watch::screen(&picture, rows, columns, Colour::for_stdout())
    }

    /// Does what a key asks for; returns whether that is to quit.
    fn press(&mut self, key: Key, listed: &[TaskId], selected: usize) -> Result<bool, Failure> {
        if key == Key::Interrupt {
            return Ok(true);
        }
        match (&self.mode, key) {
            (Mode::Filtering, Key::Char(letter)) => self.filter.push(letter),
            (Mode::Filtering, Key::Backspace) => drop(self.filter.pop()),
            (Mode::Filtering, Key::Enter) => self.mode = Mode::Looking,
            (Mode::Filtering, Key::Escape) => {
                self.filter.clear();
                self.mode = Mode::Looking;
            }
            (Mode::Asking, Key::Char('y')) => {
                self.end_run()?;
                self.mode = Mode::Looking;
            }
            (Mode::Asking, _) => self.mode = Mode::Looking,
            (Mode::Looking, Key::Char('q') | Key::Escape) => return Ok(true),
            (Mode::Looking, Key::Char('/')) => self.mode = Mode::Filtering,
            (Mode::Looking, Key::Char('c')) if self.attached.is_alive() => self.mode = Mode::Asking,
            (Mode::Looking | Mode::Filtering, key) => self.go(key, listed, selected),
        }
        Ok(false)
    }

    fn go(&mut self, key: Key, listed: &[TaskId], selected: usize) {
        let last = listed.len().saturating_sub(1);
        let to = match key {
            Key::Up | Key::Char('k') => selected.saturating_sub(1),
            Key::Down | Key::Char('j') => selected + 1,
            Key::PageUp => selected.saturating_sub(10),
            Key::PageDown => selected + 10,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            Key::Char(_) | Key::Enter | Key::Escape | Key::Backspace | Key::Interrupt => return,
        };
        self.selected = listed.get(to.min(last)).copied();
        self.listened = None;
    }

    /// Ends the run as `trainyard cancel` does, without waiting for it.
    fn end_run(&mut self) -> Result<(), Failure> {
        let own = std::env::current_exe().map_err(broken)?;
        let mut cancel = std::process::Command::new(own);
        cancel.arg("cancel").arg(&self.attached.row.header.id).arg("--state").arg(self.attached.store.dir());
        cancel.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(broken)?;
        self.asked_to_end = true;
        Ok(())
    }
}
