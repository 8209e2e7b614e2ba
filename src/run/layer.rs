//! What engines around other engines share: work on other threads, and the reports that follow from it.
//!
//! What was done comes before what the inner engine reports, so that neither can hold the other up. Does not know what the
//! work is.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::engine::{Engine, Report};

/// Work of an engine on other threads.
#[derive(Debug)]
pub(crate) struct Apart<D> {
    done: (mpsc::UnboundedSender<D>, mpsc::UnboundedReceiver<D>),
    ready: VecDeque<Report>,
}

impl<D> Default for Apart<D> {
    fn default() -> Self {
        Self { done: mpsc::unbounded_channel(), ready: VecDeque::new() }
    }
}

impl<D: Send + 'static> Apart<D> {
    /// Does something on another thread, since a large file may have to be read or copied.
    pub(crate) fn start(&self, work: impl FnOnce() -> D + Send + 'static) {
        let sender = self.done.0.clone();
        tokio::task::spawn_blocking(move || {
            // A closed channel means that the run is over.
            let _ = sender.send(work());
        });
    }

    /// Waits for what was done next.
    pub(crate) async fn next(&mut self) -> Option<D> {
        self.done.1.recv().await
    }

    /// Reports something, behind what is reported already.
    pub(crate) fn report(&mut self, report: Report) {
        self.ready.push_back(report);
    }
}

/// An engine around another one.
pub(crate) trait Layer {
    /// What it is around.
    type Inner: Engine;
    /// What is done on other threads.
    type Done: Send + 'static;

    /// Returns the inner engine and the work beside it.
    fn parts(&mut self) -> (&mut Self::Inner, &mut Apart<Self::Done>);

    /// Goes on with what was done on another thread.
    fn go_on(&mut self, done: Self::Done);

    /// Passes a report of the inner engine on, unless something is to be done first.
    fn pass(&mut self, report: Report) -> Option<Report>;

    /// As [`Engine::next_report`].
    async fn next(&mut self) -> Report {
        loop {
            let (inner, apart) = self.parts();
            if let Some(report) = apart.ready.pop_front() {
                return report;
            }
            let report = tokio::select! {
                biased;
                Some(done) = apart.done.1.recv() => {
                    self.go_on(done);
                    continue;
                }
                report = inner.next_report() => report,
            };
            if let Some(report) = self.pass(report) {
                return report;
            }
        }
    }

    /// As [`Engine::ready_report`].
    fn ready(&mut self) -> Option<Report> {
        while let Ok(done) = self.parts().1.done.1.try_recv() {
            self.go_on(done);
        }
        loop {
            let (inner, apart) = self.parts();
            if let Some(report) = apart.ready.pop_front() {
                return Some(report);
            }
            let report = inner.ready_report()?;
            if let Some(report) = self.pass(report) {
                return Some(report);
            }
        }
    }
}
