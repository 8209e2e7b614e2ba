//! Progress on a terminal: the live part is drawn a few times a second, failures scroll by above it.
//!
//! An event costs no drawing, so that thousands of short tasks a second are not slowed down.

use std::io::Write;
use std::path::PathBuf;

use super::estimate::Estimate;
use super::frame::{Picture, frame};
use super::paint::{Colour, Tone};
use super::reasons::{self, Patience};
use super::screen::Screen;
use super::tally::Tally;
use super::{story, text};
use crate::graph::TaskId;
use crate::run::decide::Waiting;
use crate::run::event::{Event, Recorded, Role};
use crate::run::observer::{DeviceGauge, Observer, Progress, View};
use crate::units::Millis;

/// Draws bars.
pub struct Bars {
    screen: Screen,
    out: Box<dyn Write>,
    dir: PathBuf,
    elsewhere: Option<PathBuf>,
    tally: Tally,
    estimate: Option<Estimate>,
    gauges: Vec<DeviceGauge>,
    patience: Patience,
}

impl Bars {
    /// Makes an observer that draws on `screen` and writes the summary to `out`; `dir` is the run's folder and `elsewhere`
    /// what commands must be told to find it.
    #[must_use]
    pub fn new(screen: Screen, out: Box<dyn Write>, dir: PathBuf, elsewhere: Option<PathBuf>) -> Self {
        Self {
            screen,
            out,
            dir,
            elsewhere,
            tally: Tally::default(),
            estimate: None,
            gauges: Vec::new(),
            patience: Patience::default(),
        }
    }
}

impl Observer for Bars {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        let ended = self.tally.recorded(view, recorded);
        match &mut self.estimate {
            Some(estimate) => estimate.recorded(recorded, ended.as_ref()),
            None => self.estimate = Some(Estimate::new(view)),
        }
        let colour = Colour::for_stderr();
        let line = || story::line(view, recorded).map(|line| line.render(colour)).unwrap_or_default();
        match &recorded.event {
            Event::TaskFailed { task, .. } => {
                let mut lines = vec![line()];
                lines.extend(story::last_words(view, *task, &self.dir));
                self.screen.print(&lines.join("\n"));
            }
            Event::RetryPlanned { .. } | Event::StopRequested { .. } => self.screen.print(&line()),
            Event::RunFinished { .. } => {
                self.screen.clear();
                let columns = Some(self.screen.size().1);
                let elsewhere = self.elsewhere.as_deref();
                let closing = story::closing(view, &self.dir, elsewhere, Colour::for_stdout(), columns);
                // A closed standard output is the reader's choice; the run's end does not change.
                drop(self.out.write_all(closing.as_bytes()).and_then(|()| self.out.flush()));
            }
            Event::TaskReopened { .. } | Event::Replanned { .. } => self.screen.print(&line()),
            Event::RunResumed { .. }
            | Event::FinishTold { .. }
            | Event::TaskCached { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptSpawned { .. }
            | Event::AttemptFinished { .. }
            | Event::TaskSuspended { .. }
            | Event::TaskContinued { .. }
            | Event::TaskSkipped { .. } => {}
        }
    }

    fn progressed(&mut self, _view: View<'_>, task: TaskId, role: Role, progress: &Progress) {
        self.tally.progressed_as(role, task, progress);
    }

    fn gauged(&mut self, _view: View<'_>, _now: Millis, gauges: &[DeviceGauge]) {
        self.gauges = gauges.to_vec();
    }

    fn waits(&mut self, view: View<'_>, now: Millis, waiting: &[Waiting]) {
        self.patience.take_in(waiting, view.state, now);
    }

    fn ticked(&mut self, view: View<'_>, now: Millis) {
        if view.state.end.is_some() {
            return;
        }
        self.tally.ticked(now);
        let estimate = self.estimate.get_or_insert_with(|| Estimate::new(view));
        let left = estimate.left(view.state, &self.tally.running, now);
        let picture = Picture { view, tally: &self.tally, gauges: &self.gauges, left, now };
        let (rows, columns) = self.screen.size();
        let longest = self.patience.longest(now, view.state).map(|waiting| reasons::line(view.graph, waiting));
        let mut lines =
            frame(&picture, rows - usize::from(longest.is_some() && rows > 3), columns, Colour::for_stderr());
        if let Some(words) = longest.filter(|_| rows > 3) {
            let words = format!("  waiting: {words}");
            lines.push(Colour::for_stderr().paint(Tone::Faint, &text::fit(&words, columns)));
        }
        self.screen.show(lines);
    }
}

impl Drop for Bars {
    /// Leaves a clean terminal, also when the run ended by an error of ours.
    fn drop(&mut self) {
        self.screen.clear();
    }
}
