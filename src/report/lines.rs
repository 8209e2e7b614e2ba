//! Progress where there is no terminal: one line per fact with its time, then the summary. With `--quiet` only
//! failures and how the run ended.

use std::io::{self, Write};
use std::path::PathBuf;

use super::paint::Colour;
use super::reasons::{self, Patience};
use super::summary::{Finished, is_idle, last_line};
use super::{json, story, wording};
use crate::graph::TaskId;
use crate::run::decide::Waiting;
use crate::run::event::{Event, Recorded};
use crate::run::observer::{Observer, View};
use crate::units::Millis;

/// Writes a line per fact.
pub struct Lines {
    err: Box<dyn Write>,
    out: Box<dyn Write>,
    dir: PathBuf,
    elsewhere: Option<PathBuf>,
    begun: bool,
    patience: Patience,
    /// Tasks that are up to date, of which nothing has been said.
    cached: Vec<TaskId>,
}

impl Lines {
    /// Makes an observer that writes facts to `err` and the summary to `out`; `dir` is the run's folder and
    /// `elsewhere` what commands must be told to find it.
    #[must_use]
    pub fn new(err: Box<dyn Write>, out: Box<dyn Write>, dir: PathBuf, elsewhere: Option<PathBuf>) -> Self {
        Self { err, out, dir, elsewhere, begun: false, patience: Patience::default(), cached: Vec::new() }
    }

    /// Says which tasks are up to date: all that were found together in one line.
    fn tell_cached(&mut self, view: View<'_>, at: Millis) -> io::Result<()> {
        let cached = std::mem::take(&mut self.cached);
        match story::cached(view, &cached) {
            Some(line) => self.err.write_all(format!("{} {}\n", clock(at), line.render(Colour::Never)).as_bytes()),
            None => Ok(()),
        }
    }

    /// Says which run it is, unless that was said.
    fn begin(&mut self, view: View<'_>, at: Millis) -> io::Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let (tasks, makespan) = (wording::plural(view.graph.len(), "task"), view.plan.makespan);
        let line = format!("{} run      {}: {tasks}, planned to take {makespan}\n", clock(at), view.run);
        self.err.write_all(line.as_bytes())
    }

    fn write(&mut self, view: View<'_>, recorded: &Recorded) -> io::Result<()> {
        let at = clock(recorded.at);
        let is_idle = is_idle(view.state);
        if !is_idle {
            self.begin(view, recorded.at)?;
        }
        if let Event::TaskCached { task, .. } = recorded.event {
            self.cached.push(task);
        } else if !is_idle {
            self.tell_cached(view, recorded.at)?;
        }
        if let Some(line) = story::line(view, recorded) {
            let mut lines = format!("{at} {}\n", line.render(Colour::Never));
            if let Event::TaskFailed { task, .. } = &recorded.event {
                for words in story::last_words(view, *task, &self.dir) {
                    lines.push_str(&words);
                    lines.push('\n');
                }
            }
            // One write, so that lines of other writers do not get between.
            self.err.write_all(lines.as_bytes())?;
        }
        if let Event::RunFinished { .. } = &recorded.event {
            self.err.flush()?;
            let elsewhere = self.elsewhere.as_deref();
            let closing = story::closing(view, &self.dir, elsewhere, Colour::for_stdout(), None);
            self.out.write_all(closing.as_bytes())?;
            self.out.flush()?;
        }
        Ok(())
    }
}

impl Observer for Lines {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        // Where the reader has gone, the run goes on: its record is in the state folder.
        drop(self.write(view, recorded));
    }

    fn waits(&mut self, view: View<'_>, now: Millis, waiting: &[Waiting]) {
        self.patience.take_in(waiting, view.state, now);
    }

    fn ticked(&mut self, view: View<'_>, now: Millis) {
        // As above.
        drop(self.begin(view, now));
        drop(self.tell_cached(view, now));
        let at = clock(now);
        for waiting in self.patience.due(now, view.state) {
            let words = reasons::line(view.graph, &waiting);
            drop(self.err.write_all(format!("{at} waiting  {words}\n").as_bytes()));
        }
    }
}

/// Returns a time in whole seconds: lines stay aligned.
fn clock(at: Millis) -> String {
    json::rfc3339_seconds(at)
}

/// Writes failures and the last line only.
pub struct Quiet {
    err: Box<dyn Write>,
    dir: PathBuf,
}

impl Quiet {
    /// Makes an observer that writes to `err`; `dir` is the run's folder.
    #[must_use]
    pub fn new(err: Box<dyn Write>, dir: PathBuf) -> Self {
        Self { err, dir }
    }
}

impl Observer for Quiet {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        let mut lines = Vec::new();
        if let Event::TaskFailed { task, .. } = &recorded.event {
            lines.extend(story::line(view, recorded).map(|line| line.render(Colour::Never)));
            lines.extend(story::last_words(view, *task, &self.dir));
        }
        if let Event::RunFinished { .. } = &recorded.event {
            let View { run, state, started, .. } = view;
            let finished = Finished { run, names: &[], state, started, logs: &self.dir, elsewhere: None };
            lines.push(last_line(&finished, Colour::Never));
        }
        if !lines.is_empty() {
            // As above: a reader that has gone does not stop the run.
            drop(self.err.write_all((lines.join("\n") + "\n").as_bytes()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report::fixture::{Paper, Scene, failed, finished, over, retry, skipped, started, started_on_gpu};
    use crate::run::event::RunEnd;
    use crate::run::launch;

    /// A run in which the second of three tasks fails twice.
    fn told(observer: &mut dyn Observer, dir: &Path) {
        let mut scene = Scene::chain(&["clean", "train[lr=0.1]", "best"]);
        std::fs::create_dir_all(dir.join("logs")).unwrap();
        std::fs::write(launch::log(dir, "train[lr=0.1]", 2), "epoch 1\nValueError: \x1b[2Jnan\n").unwrap();
        let not_before = scene.time(66);
        for (at, event) in [
            (0, started(0, 1)),
            (2, finished(0, 0)),
            (62, started_on_gpu(1, 1)),
            (65, finished(1, 3)),
            (65, retry(1, not_before)),
            (66, started(1, 2)),
            (80, finished(1, 3)),
            (80, failed(1)),
            (80, skipped(2, 1)),
            (80, over(RunEnd::Failed)),
        ] {
            scene.tell(observer, at, event);
        }
    }

    #[test]
    fn without_a_terminal_every_fact_is_a_line() {
        let (dir, err, out) = (tempfile::tempdir().unwrap(), Paper::default(), Paper::default());
        let mut lines = Lines::new(Box::new(err.clone()), Box::new(out.clone()), dir.path().to_owned(), None);
        told(&mut lines, dir.path());
        let place = dir.path().display().to_string();
        insta::assert_snapshot!(err.text().replace(&place, "DIR"), @"
        2026-11-20T21:00:00Z run      r1: 3 tasks, planned to take 30s
        2026-11-20T21:00:00Z started  clean
        2026-11-20T21:00:02Z done     clean in 2s
        2026-11-20T21:01:02Z started  train[lr=0.1] on box/gpu0
        2026-11-20T21:01:05Z retry    train[lr=0.1]: attempt 1 ended after 3s: exit code 3; again in 1s
        2026-11-20T21:01:06Z started  train[lr=0.1], attempt 2
        2026-11-20T21:01:20Z failed   train[lr=0.1]: attempt 2 ended after 14s: exit code 3
          │ epoch 1
          │ ValueError: nan
          log: DIR/logs/train[lr=0.1].2.log
        2026-11-20T21:01:20Z skipped  best: it needs train[lr=0.1], which failed
        ");
        insta::assert_snapshot!(out.text().replace(&place, "DIR"), @"
        stage  tasks  succeeded  failed  skipped  attempts  time  peak memory
        clean      1          1                          1    2s     64.0 MiB
        train      1                  1                  2   17s     64.0 MiB
        best       1                           1

        run r1 failed after 1m20s: 1 succeeded, 1 failed, 1 skipped
        logs: DIR/logs
        its output: trainyard logs r1 'train[lr=0.1]'
        ");
    }

    #[test]
    fn quiet_means_failures_and_how_it_ended() {
        let (dir, err) = (tempfile::tempdir().unwrap(), Paper::default());
        told(&mut Quiet::new(Box::new(err.clone()), dir.path().to_owned()), dir.path());
        insta::assert_snapshot!(err.text().replace(&dir.path().display().to_string(), "DIR"), @"
        failed   train[lr=0.1]: attempt 2 ended after 14s: exit code 3
          │ epoch 1
          │ ValueError: nan
          log: DIR/logs/train[lr=0.1].2.log
        run r1 failed after 1m20s: 1 succeeded, 1 failed, 1 skipped
        ");
    }

    #[test]
    fn what_the_last_task_printed_is_the_answer() {
        let (dir, out) = (tempfile::tempdir().unwrap(), Paper::default());
        std::fs::create_dir_all(dir.path().join("logs")).unwrap();
        std::fs::write(launch::log(dir.path(), "best", 1), "best: mlp, accuracy 0.98\n").unwrap();
        let mut lines = Lines::new(Box::new(Paper::default()), Box::new(out.clone()), dir.path().to_owned(), None);
        let mut scene = Scene::chain(&["train", "best"]);
        let events = [started(0, 1), finished(0, 0), started(1, 1), finished(1, 0), over(RunEnd::Succeeded)];
        for event in events {
            scene.tell(&mut lines, 1, event);
        }
        assert!(out.text().starts_with("best: mlp, accuracy 0.98\n\nstage"), "{}", out.text());
    }
}
