//! What engines around other engines share: work on other threads, and the reports that follow from it.
//!
//! What a start or a report waits for, and what nothing of the run waits for, have threads of their own: neither is behind the
//! other, however long it takes. What was done comes before what the inner engine reports, so that neither can hold the other
//! up. Does not know what the work is.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::engine::{Engine, Report};

/// Threads for either kind of work: as many as keep a disk busy.
const AT_ONCE: usize = 4;

/// As many threads as work on other threads takes: of two engines, each with either kind.
pub(crate) const THREADS: usize = 2 * 2 * AT_ONCE;

/// Work of an engine on other threads.
#[derive(Debug)]
pub(crate) struct Apart<D> {
    done: (mpsc::UnboundedSender<D>, mpsc::UnboundedReceiver<D>),
    ready: VecDeque<Report>,
    awaited: Arc<Semaphore>,
    unawaited: Arc<Semaphore>,
}

impl<D> Default for Apart<D> {
    fn default() -> Self {
        let [awaited, unawaited] = [(); 2].map(|()| Arc::new(Semaphore::new(AT_ONCE)));
        Self { done: mpsc::unbounded_channel(), ready: VecDeque::new(), awaited, unawaited }
    }
}

impl<D: Send + 'static> Apart<D> {
    /// Does something on another thread that a start or a report waits for, since a large file may have to be read or copied.
    pub(crate) fn start(&self, work: impl FnOnce() -> D + Send + 'static) {
        self.start_among(&self.awaited, work);
    }

    /// Does something on another thread that nothing else waits for. It must not wait for other runs: they may wait for it.
    pub(crate) fn start_unawaited(&self, work: impl FnOnce() -> D + Send + 'static) {
        self.start_among(&self.unawaited, work);
    }

    fn start_among(&self, threads: &Arc<Semaphore>, work: impl FnOnce() -> D + Send + 'static) {
        let sender = self.done.0.clone();
        let work = move |permit| {
            // A closed channel means that the run is over.
            let _ = sender.send(work());
            drop(permit);
        };
        let threads = Arc::clone(threads);
        if let Ok(permit) = Arc::clone(&threads).try_acquire_owned() {
            tokio::task::spawn_blocking(move || work(permit));
        } else {
            tokio::spawn(async move {
                // They are never closed.
                if let Ok(permit) = threads.acquire_owned().await {
                    tokio::task::spawn_blocking(move || work(permit));
                }
            });
        }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use tokio::runtime::Builder;

    use super::{Apart, THREADS};

    #[test]
    fn what_a_start_waits_for_is_not_behind_what_nothing_waits_for_nor_the_other_way_round() {
        type Start = fn(&Apart<u32>, Box<dyn FnOnce() -> u32 + Send>);
        let kinds: [Start; 2] = [|apart, work| apart.start(work), |apart, work| apart.start_unawaited(work)];
        for (long, short) in [(kinds[0], kinds[1]), (kinds[1], kinds[0])] {
            let runtime = Builder::new_current_thread().max_blocking_threads(THREADS).build().unwrap();
            let (go_on, waits) = mpsc::channel::<()>();
            let waits = Arc::new(Mutex::new(waits));
            runtime.block_on(async {
                let mut apart = Apart::default();
                for _ in 0..2 * THREADS {
                    let waits = Arc::clone(&waits);
                    long(&apart, Box::new(move || u32::from(waits.lock().unwrap().recv().is_ok())));
                }
                short(&apart, Box::new(|| 2));
                assert_eq!(apart.next().await, Some(2));
                drop(go_on);
                for _ in 0..2 * THREADS {
                    assert_eq!(apart.next().await, Some(0));
                }
            });
        }
    }
}
