//! Searches, and parts of them, that run beside each other, each on a thread.

use crate::plan::team::Crew;

/// A thread for each job.
pub(super) struct Threads;

impl Crew for Threads {
    fn all_at_once<'j>(&self, jobs: Vec<Box<dyn FnOnce() + Send + 'j>>) {
        std::thread::scope(|scope| jobs.into_iter().for_each(|job| drop(scope.spawn(job))));
    }
}
