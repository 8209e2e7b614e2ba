//! Several who work at once. Does not start threads: that is the caller's business.

use std::fmt;

/// Who has jobs done beside each other.
pub trait Crew: Sync {
    /// Has all jobs done and returns when they are. They may wait for each other: each needs a thread of its own.
    fn all_at_once<'j>(&self, jobs: Vec<Box<dyn FnOnce() + Send + 'j>>);
}

/// How many work at once, and who has them do it.
#[derive(Clone, Copy)]
pub struct Team<'a> {
    /// At least 1.
    pub count: u32,
    /// Has the work done.
    pub crew: &'a dyn Crew,
}

impl fmt::Debug for Team<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Team").field(&self.count).finish()
    }
}
