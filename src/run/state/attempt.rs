//! One attempt as its events tell it: where it runs, since when, and when it was suspended.

use std::sync::Arc;

use crate::run::event::{Place, Process};
use crate::run::outcome::{Outcome, Usage};
use crate::run::raise::Raise;
use crate::units::Millis;

/// One try of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Where it runs or ran; attempts that are alike share it.
    pub place: Arc<Place>,
    /// What it asked for instead of what its stage says.
    pub raise: Option<Raise>,
    /// When it was decided on, ms since the Unix epoch.
    pub started: Millis,
    /// Its process, once there is one.
    pub process: Option<Process>,
    /// How and when it ended.
    pub ended: Option<Ended>,
    /// When it was suspended, and until when it was; the last one may still last.
    pub pauses: Vec<(Millis, Option<Millis>)>,
}

impl Attempt {
    /// Whether it is suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.pauses.last().is_some_and(|(_, until)| until.is_none())
    }

    /// Returns since when it runs, or stands still.
    #[must_use]
    pub fn since(&self) -> Millis {
        self.pauses.last().map_or(self.started, |(from, until)| until.unwrap_or(*from))
    }

    /// Returns for how long it ran until `now`: that it was suspended does not count.
    #[must_use]
    pub fn ran(&self, now: Millis) -> Millis {
        let stood = self.pauses.iter().map(|(from, until)| until.unwrap_or(now.max(*from)) - *from);
        (now - self.started) - stood.sum()
    }

    /// Yields when it ran until `now`, from and to, if it was suspended; nothing where it never was.
    pub fn pieces(&self, now: Millis) -> impl Iterator<Item = (Millis, Millis)> {
        let starts = std::iter::once(Some(self.started)).chain(self.pauses.iter().map(|(_, until)| *until));
        let ends = self.pauses.iter().map(|(from, _)| *from).chain([now]);
        let pieces = starts.zip(ends).filter_map(|(from, to)| Some((from?, to)));
        pieces.filter(|(from, to)| from < to && !self.pauses.is_empty())
    }
}

/// How and when an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Milliseconds since the Unix epoch.
    pub at: Millis,
    /// How.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// Whether its log holds anything.
    pub logged: bool,
}
