//! `trainyard watch [RUN]`: a run on the whole screen, from outside; where there is no terminal, a line per fact.

#![expect(
    clippy::disallowed_methods,
    reason = "a command looks at the clock, and calls itself to cancel and to resume"
)]

use std::io::IsTerminal;
use std::process::{Output, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use clap::Args;

use super::attach::{Attached, Gauges};
use super::fullscreen::{FullScreen, Key};
use super::state::{StateArgs, broken, elsewhere};
use super::{Exit, Failure, output, session, trace};
use crate::graph::TaskId;
use crate::report::paint::Colour;
use crate::report::timeline::{self, Timeline};
use crate::report::watch::{self, Focus, Picture, Sight};
use crate::report::{self, Style, tail, text};
use crate::run::observer::DeviceGauge;

/// How often the record is looked at: well below what an eye takes for lag.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress, devices and the log are looked at.
const LISTEN: Duration = Duration::from_millis(500);
/// Lines of a log that can be scrolled through.
const LOG_LINES: usize = 2_000;
/// Bytes of a log that can be scrolled through.
const LOG_BYTES: u64 = 256 << 10;
/// Lines of a log that one key scrolls.
const PAGE: usize = 10;

const KEYS: &str = "↑↓ task   Tab log   / filter   f failed   c cancel   r retry   ? keys   q quit";

/// Watch a run: its tasks, their logs, a chart that grows, the GPUs
#[derive(Args)]
pub(super) struct Command {
    /// A run's id, the beginning of it, or its name [default: the newest]
    run: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Print a line per fact, as where there is no terminal
    #[arg(long)]
    plain: bool,
    /// Print one JSON object per event, as `run --json` does
    #[arg(long, conflicts_with = "plain")]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let attached = Attached::to(&self.state, self.run.as_deref())?;
        let moves = std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        match (self.json, terminal && moves && !self.plain) {
            (true, _) => lines(attached, Style::Json),
            (false, true) => Watching::new(attached).run(),
            (false, false) => lines(attached, Style::Lines),
        }
    }
}

/// Prints a line per fact until the run has ended or nobody carries it out.
fn lines(mut attached: Attached, style: Style) -> Result<Exit, Failure> {
    let dir = attached.store.run_dir(&attached.row.header.id);
    let lost = report::Lost::default();
    let mut observers = report::observers(report::Options {
        lost: Rc::clone(&lost),
        style,
        mirror: false,
        elsewhere: elsewhere(attached.store.dir()),
        dir,
        screen: trace::screen(),
        logs_only: trace::is_json(),
    });
    let mut listened: Option<Instant> = None;
    loop {
        attached.catch_up(|attached, recorded| {
            let view = attached.known.view(&attached.state);
            observers.iter_mut().for_each(|observer| observer.recorded(view, recorded));
        })?;
        if !attached.is_alive() {
            return output::finish(lost.take().map_or(Ok(()), Err));
        }
        if listened.is_none_or(|last| last.elapsed() >= LISTEN) {
            let said = attached.listen();
            let (view, now) = (attached.known.view(&attached.state), session::now());
            for observer in &mut observers {
                observer.ticked(view, now);
                said.iter().for_each(|(task, role, progress)| observer.progressed(view, *task, *role, progress));
            }
            listened = Some(Instant::now());
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Looking,
    Filtering,
    /// Asked whether an errand is to be run.
    Asking(Errand),
}

/// What other commands do for the run that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Cancel,
    Retry,
}

impl Errand {
    const fn question(self) -> &'static str {
        match self {
            Self::Cancel => "end the run? its tasks are asked to end; y yes, any other key no",
            Self::Retry => {
                "go on with the run? what failed, was skipped or interrupted is tried again; y yes, any other key no"
            }
        }
    }

    /// Returns the command's words before the run's id, and those behind it.
    const fn words(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Cancel => ("cancel", &[]),
            Self::Retry => ("resume", &["--detach"]),
        }
    }
}

/// How the command of an errand ended.
type Ended = (Errand, std::io::Result<Output>);

/// A run on the whole screen.
struct Watching {
    attached: Attached,
    gauges: Gauges,
    seen: Vec<DeviceGauge>,
    timeline: Timeline,
    mode: Mode,
    filter: String,
    selected: Option<TaskId>,
    sight: Sight,
    log: Vec<String>,
    listened: Option<Instant>,
    /// What is to be said until the next key.
    said: String,
    /// How errands ended.
    ended: (Sender<Ended>, Receiver<Ended>),
}

impl Watching {
    fn new(attached: Attached) -> Self {
        Self {
            attached,
            gauges: Gauges::of_this_machine(),
            seen: Vec::new(),
            timeline: Timeline::default(),
            mode: Mode::Looking,
            filter: String::new(),
            selected: None,
            sight: Sight::default(),
            log: Vec::new(),
            listened: None,
            said: String::new(),
            ended: mpsc::channel(),
        }
    }

    fn run(mut self) -> Result<Exit, Failure> {
        let mut screen = FullScreen::enter().map_err(broken)?;
        let watched = self.watch(&mut screen);
        let is_over = screen.is_over();
        screen.leave().map_err(broken)?;
        // A terminal that is gone cannot be drawn on: that is no failure.
        if is_over { Ok(Exit::Done) } else { watched.map(|()| Exit::Done) }
    }

    /// Shows the run and does what keys ask for, until one asks to quit.
    fn watch(&mut self, screen: &mut FullScreen) -> Result<(), Failure> {
        while !screen.is_over() {
            let mut is_news = false;
            self.attached.catch_up(|_, _| is_news = true)?;
            let listed = watch::listed(self.attached.known.view(&self.attached.state), &self.filter);
            let selected = self.position(&listed);
            if is_news || self.listened.is_none_or(|last| last.elapsed() >= LISTEN) {
                self.listen(listed.get(selected).copied());
            }
            self.hear_of_errands();
            self.draw(screen, &listed, selected)?;
            for key in screen.keys(LOOK).map_err(broken)? {
                if key == Key::Suspend {
                    screen.suspend().map_err(broken)?;
                } else if self.press(key, &listed, selected) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns where the selected task stands in the list: the first one where it is not listed.
    fn position(&self, listed: &[TaskId]) -> usize {
        listed.iter().position(|task| Some(*task) == self.selected).unwrap_or(0)
    }

    fn listen(&mut self, task: Option<TaskId>) {
        self.attached.listen();
        let attached = &self.attached;
        let seen = self.gauges.read(&[(&attached.row.header.id, &attached.state)]);
        self.seen = seen.into_iter().map(|(_, gauge)| gauge).collect();
        self.timeline =
            timeline::lay_out(&attached.header(), &attached.row.header.tasks, &attached.state, session::now());
        let log = task.and_then(|task| attached.log(task));
        // A log that is not there is that of a task that printed nothing.
        self.log = log.and_then(|log| tail::lines_within(&log, LOG_LINES, LOG_BYTES).ok()).unwrap_or_default();
        self.listened = Some(Instant::now());
    }

    fn draw(&mut self, screen: &mut FullScreen, listed: &[TaskId], selected: usize) -> Result<(), Failure> {
        let left = self.attached.left();
        let prompt = self.prompt();
        let attached = &self.attached;
        let picture = Picture {
            view: attached.known.view(&attached.state),
            pipeline: &attached.row.header.pipeline,
            state: attached.word(),
            tally: &attached.tally,
            gauges: &self.seen,
            left,
            timeline: &self.timeline,
            listed,
            selected,
            log: &self.log,
            sight: self.sight,
            prompt: &prompt,
            prompt_is_whole: self.mode == Mode::Looking && !self.said.is_empty(),
            colour: Colour::for_stdout(),
            now: session::now(),
        };
        screen.show(|frame| watch::draw(&picture, frame)).map_err(broken)
    }

    fn prompt(&self) -> String {
        match self.mode {
            Mode::Filtering => format!("filter by name or state: {}▏  Enter keeps it, Esc drops it", self.filter),
            Mode::Asking(errand) => errand.question().to_owned(),
            Mode::Looking if !self.said.is_empty() => self.said.clone(),
            Mode::Looking => {
                let filter = if self.filter.is_empty() { String::new() } else { format!("filter: {}   ", self.filter) };
                format!("{filter}{KEYS}")
            }
        }
    }

    /// Does what a key asks for; returns whether that is to quit.
    fn press(&mut self, key: Key, listed: &[TaskId], selected: usize) -> bool {
        if key == Key::Interrupt {
            return true;
        }
        self.said.clear();
        if std::mem::take(&mut self.sight.help) {
            return false;
        }
        match (self.mode, key) {
            (Mode::Filtering, Key::Char(letter)) => self.filter.push(letter),
            (Mode::Filtering, Key::Backspace) => drop(self.filter.pop()),
            (Mode::Filtering, Key::Enter) => self.mode = Mode::Looking,
            (Mode::Filtering, Key::Escape) => {
                self.filter.clear();
                self.mode = Mode::Looking;
            }
            (Mode::Asking(errand), Key::Char('y')) => {
                self.mode = Mode::Looking;
                self.send(errand);
            }
            (Mode::Asking(_), _) => self.mode = Mode::Looking,
            (Mode::Looking, Key::Escape) if self.sight != Sight::default() => self.sight = Sight::default(),
            (Mode::Looking, Key::Escape) if !self.filter.is_empty() => {
                self.filter.clear();
                self.listened = None;
            }
            (Mode::Looking, Key::Char('q') | Key::Escape) => return true,
            (Mode::Looking, Key::Char('/')) => self.mode = Mode::Filtering,
            (Mode::Looking, Key::Char('f')) => {
                self.filter = if self.filter == "failed" { String::new() } else { "failed".to_owned() };
                self.listened = None;
            }
            (Mode::Looking, Key::Char('c')) if self.attached.is_alive() => self.mode = Mode::Asking(Errand::Cancel),
            (Mode::Looking, Key::Char('c')) => self.said = "the run is over: there is nothing to end".to_owned(),
            (Mode::Looking, Key::Char('r')) => self.ask_to_retry(),
            (Mode::Looking, Key::Char('?')) => self.sight.help = true,
            (Mode::Looking, Key::Char('z')) => self.sight.zoomed = !self.sight.zoomed,
            (Mode::Looking, Key::Tab | Key::Enter) => {
                self.sight.focus = if self.sight.focus == Focus::Log { Focus::Tasks } else { Focus::Log };
            }
            (Mode::Looking | Mode::Filtering, key) => self.go(key, listed, selected),
        }
        false
    }

    fn ask_to_retry(&mut self) {
        if self.attached.is_alive() {
            self.said = "the run is under way: what fails can be tried again once it is over".to_owned();
        } else if self.attached.word() == "succeeded" {
            self.said = "every task is done: there is nothing to try again".to_owned();
        } else {
            self.mode = Mode::Asking(Errand::Retry);
        }
    }

    fn go(&mut self, key: Key, listed: &[TaskId], selected: usize) {
        let in_log = self.sight.zoomed || self.sight.focus == Focus::Log;
        // The log is counted from its end, the list from its beginning.
        let (at, last) = if in_log {
            (self.log.len().saturating_sub(self.sight.below), self.log.len())
        } else {
            (selected, listed.len().saturating_sub(1))
        };
        let to = match key {
            Key::Up | Key::Char('k') => at.saturating_sub(1),
            Key::Down | Key::Char('j') => at + 1,
            Key::PageUp => at.saturating_sub(PAGE),
            Key::PageDown => at + PAGE,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => last,
            Key::Char(_) | Key::Enter | Key::Tab | Key::Escape | Key::Backspace | Key::Interrupt | Key::Suspend => {
                return;
            }
        };
        if in_log {
            self.sight.below = last.saturating_sub(to.max(1));
        } else {
            self.selected = listed.get(to.min(last)).copied();
            self.sight.below = 0;
            self.listened = None;
        }
    }

    /// Has another command do an errand, without waiting for it.
    fn send(&mut self, errand: Errand) {
        let (command, rest) = errand.words();
        let (state, run) = (self.attached.store.dir().to_owned(), self.attached.row.header.id.clone());
        let started = std::env::current_exe().and_then(|own| {
            let mut command_line = std::process::Command::new(own);
            command_line.arg(command).arg(run).args(rest).arg("--state").arg(state);
            command_line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        });
        self.said = match errand {
            Errand::Cancel => "ending…",
            Errand::Retry => "going on…",
        }
        .to_owned();
        let tell = self.ended.0.clone();
        match started {
            Ok(child) => drop(std::thread::spawn(move || tell.send((errand, child.wait_with_output())))),
            Err(error) => drop(tell.send((errand, Err(error)))),
        }
    }

    /// Says of an errand that failed why.
    fn hear_of_errands(&mut self) {
        for (errand, ended) in self.ended.1.try_iter() {
            let (command, _) = errand.words();
            let why = match ended {
                Ok(output) if output.status.success() => {
                    self.said.clear();
                    continue;
                }
                Ok(output) => text::report_words(&output.stderr),
                Err(error) => error.to_string(),
            };
            self.said = format!("`trainyard {command}` failed: {why}");
        }
    }
}
