//! What happens is on record before it has effects; and what to do while nobody can write there.

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Record, RunError, Supervisor};
use crate::run::engine::{Engine, Stop};
use crate::run::event::{Event, Recorded};
use crate::run::outcome::Outcome;
use crate::run::store::StoreError;
use crate::units::Millis;

/// What brings the user's wish to end the run.
type Stops = mpsc::UnboundedReceiver<Stop>;

/// For how long a record is left alone that somebody else has locked.
const LEFT_ALONE: Millis = Millis(500);

/// After how long that is said.
const SAID_AFTER: Millis = Millis(5_000);

/// What is asked of the record, ascending by what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Read,
    Write,
    /// To keep all other runs from admitting tasks.
    Hold,
}

/// A record that somebody else has locked.
#[derive(Debug)]
pub(super) struct Locked {
    /// The least that cannot be done.
    what: Use,
    since: Millis,
    /// When to try again.
    due: Millis,
    is_said: bool,
}

impl<E: Engine, R: Record> Supervisor<'_, E, R> {
    /// Decides what happens next. From the first task that might start until that is committed, no other run admits any.
    pub(super) fn decide(&mut self, now: Millis) -> Result<Vec<Event>, RunError> {
        if self.parts.dispatcher.could_start(&self.state, now, &self.look.readings) {
            if self.is_left_alone(Use::Hold) {
                return Ok(Vec::new());
            }
            let held = self.record.hold();
            let Some(news) = self.found_locked(Use::Hold, held)? else { return Ok(Vec::new()) };
            self.parts.dispatcher.hear_of_others(&news, now);
        }
        Ok(self.parts.dispatcher.decide(&self.state, now, &self.look.readings))
    }

    /// Applies events. They are committed together with whatever else this turn of the loop brings, before any effect.
    pub(super) fn note(&mut self, events: &[Event]) -> Result<(), RunError> {
        let at = self.clock.now();
        for event in events {
            let recorded = Recorded { at, event: event.clone() };
            self.state.apply(&recorded)?;
            self.parts.dispatcher.take_in(&recorded);
            self.uncommitted.push(recorded);
        }
        Ok(())
    }

    /// Commits what was noted, unless it is only the processes of attempts that are on record already: those can wait
    /// for the next commit or tick. An attempt whose process is not on record is found by its mark.
    pub(super) async fn commit_before_effects(&mut self, stops: &mut Stops) -> Result<(), RunError> {
        let can_wait = |recorded: &Recorded| matches!(recorded.event, Event::AttemptSpawned { .. });
        if self.uncommitted.iter().all(can_wait) {
            return Ok(self.record.let_go()?);
        }
        self.commit_whatever_comes(stops).await
    }

    /// Commits everything that was noted. While somebody else has locked the record, what runs is attended to, and nothing
    /// else is decided.
    pub(super) async fn commit_whatever_comes(&mut self, stops: &mut Stops) -> Result<(), RunError> {
        let mut is_urgent = false;
        while !self.commit()? {
            if is_urgent && self.alive == 0 {
                return Ok(self.record.append(&self.uncommitted)?);
            }
            tokio::select! {
                report = self.engine.next_report(), if self.alive > 0 => self.on_report(report)?,
                Some(stop) = stops.recv() => {
                    is_urgent = stop == Stop::Now;
                    self.on_stop(stop)?;
                }
                () = sleep(LEFT_ALONE.as_std()) => {}
            }
        }
        Ok(())
    }

    /// Commits everything that was noted; whether that could be done: somebody else may have locked the record.
    pub(super) fn commit(&mut self) -> Result<bool, RunError> {
        if self.uncommitted.is_empty() {
            self.record.let_go()?;
            return Ok(true);
        }
        if self.is_left_alone(Use::Write) {
            return Ok(false);
        }
        let appended = self.record.append(&self.uncommitted);
        if self.found_locked(Use::Write, appended)?.is_none() {
            return Ok(false);
        }
        for recorded in &self.uncommitted {
            if let Event::AttemptFinished { task, outcome: Outcome::Succeeded, .. } = &recorded.event {
                self.engine.keep(*task);
                // Whoever still runs has lost.
                for (_, attempt) in self.state.task(*task).open() {
                    self.engine.stop_task(*task, attempt.place.role, Stop::Gracefully);
                }
            }
        }
        self.untold.append(&mut self.uncommitted);
        Ok(true)
    }

    /// Whether the record was found to be locked for this a moment ago.
    fn is_left_alone(&self, what: Use) -> bool {
        self.locked.as_ref().is_some_and(|locked| locked.what <= what && self.clock.now() < locked.due)
    }

    /// Takes in how it went to use the record: `None` where somebody else has locked it.
    fn found_locked<T>(&mut self, what: Use, used: Result<T, StoreError>) -> Result<Option<T>, RunError> {
        let now = self.clock.now();
        match used {
            Ok(value) => {
                if let Some(locked) = self.locked.take_if(|locked| locked.what <= what) {
                    self.parts.dispatcher.keep_waiting(None, now);
                    if locked.is_said {
                        info!("tasks can be started again");
                    }
                }
                Ok(Some(value))
            }
            Err(error) if error.is_busy() => {
                // Whoever has only the other runs waiting lets this one record what it does.
                let (what, words) = if matches!(error, StoreError::Held { .. }) {
                    (Use::Hold, error.to_string())
                } else {
                    (Use::Write, "another process has locked the record".to_owned())
                };
                let locked = self.locked.get_or_insert(Locked { what, since: now, due: now, is_said: false });
                (locked.what, locked.due) = (locked.what.min(what), now + LEFT_ALONE);
                if now - locked.since >= SAID_AFTER {
                    if !std::mem::replace(&mut locked.is_said, true) {
                        warn!("{words}: what runs goes on, and nothing new starts until it lets go");
                    }
                    self.parts.dispatcher.keep_waiting(Some(words), locked.since);
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Tells everyone what was committed since the last time. Observers are for people: they hear of many short tasks
    /// at once, a tick later at most, so that telling never stands between the end of one task and the next start.
    pub(super) fn tell_facts(&mut self) {
        for recorded in std::mem::take(&mut self.untold) {
            self.told.apply(&recorded).expect("what could follow once can follow again");
            self.tell(|observer, view| observer.recorded(view, &recorded));
        }
    }

    pub(super) fn ask_what_others_hold(&mut self) -> Result<(), RunError> {
        let others = self.record.others();
        if let Some(news) = self.found_locked(Use::Read, others)? {
            self.parts.dispatcher.hear_of_others(&news, self.clock.now());
        }
        Ok(())
    }
}
