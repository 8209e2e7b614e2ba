//! What is looked at once in a while: the devices, and the room on the disks.

use std::collections::hash_map::Entry;

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{LOOK_EVERY, LOOK_FIRST, Record, RunError, Supervisor};
use crate::fleet::{Device, DeviceId};
use crate::graph::TaskId;
use crate::probe::Reading;
use crate::probe::disk::Disk;
use crate::run::admission::{FRESH, Live, Readings};
use crate::run::engine::{Engine, Stop};
use crate::run::observer::DeviceGauge;
use crate::run::state::TaskState;
use crate::units::{Bytes, Millis};

/// How often disks are looked at where one attempt after the other ends: a network file system may take its time to answer.
const LOOK_AGAIN: Millis = Millis(10);

/// A disk that has less room than is to be kept free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullDisk {
    /// It, and what is left of it.
    pub disk: Disk,
    /// What is to be kept free.
    pub reserve: Bytes,
    /// What of ours may go, in words.
    pub held: Option<String>,
}

impl FullDisk {
    fn words(&self) -> String {
        let Self { disk, reserve, held } = self;
        let held = held.as_ref().map_or_else(String::new, |held| format!("; {held}"));
        format!("{} are left for {}, and {reserve} are kept free{held}", disk.free, disk.folder.display())
    }
}

/// What was seen on the devices.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Memory, for the ledger.
    pub readings: Readings,
    /// `[n_devices]`, by DeviceId: what was read, for views.
    pub raw: Vec<Reading>,
    /// Whether a card is lost, or has become slices, so that CUDA may count the others otherwise.
    pub lost: bool,
    /// Whether an MPS server runs.
    pub mps: bool,
}

/// What is to be looked at.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Now, ms since the Unix epoch: what is seen is taken to be from then.
    pub at: Millis,
    /// The processes of attempts that run, and their tasks.
    pub running: Vec<(u32, TaskId)>,
}

/// Who looks at the devices: elsewhere, since the driver of a card that has failed may not answer for a minute.
pub struct Looker<'a> {
    /// `None` where nothing is to be seen.
    ask: Option<Box<dyn FnMut(Question) + 'a>>,
    answers: mpsc::UnboundedReceiver<Look>,
    /// Since when an answer is to come.
    asked: Option<Millis>,
    /// Whether it was said that none comes.
    is_missed: bool,
    /// How long the last answer took, if that is longer than any should.
    slow: Option<Millis>,
    /// Whether it was said that answers take long.
    is_said: bool,
    /// Tells whether anybody has opened a GPU since it was asked last; `None` where nobody can tell.
    opens: Option<Box<dyn FnMut() -> bool + 'a>>,
}

impl<'a> Looker<'a> {
    /// Makes one of something that takes a question and later sends what it saw, one look for each.
    pub fn new(ask: impl FnMut(Question) + 'a, answers: mpsc::UnboundedReceiver<Look>) -> Self {
        Self { ask: Some(Box::new(ask)), ..Self::hearing(answers) }
    }

    /// Also asks whether anybody has opened a GPU since that was asked last.
    #[must_use]
    pub fn with_opens(self, opens: impl FnMut() -> bool + 'a) -> Self {
        Self { opens: Some(Box::new(opens)), ..self }
    }

    /// Whether anybody is known to have opened a GPU since this was asked last.
    pub(super) fn has_opened(&mut self) -> bool {
        self.opens.as_mut().is_some_and(|opens| opens())
    }

    /// Makes one for a machine on which nothing is to be seen.
    #[must_use]
    pub fn blind() -> Self {
        Self::hearing(mpsc::unbounded_channel().1)
    }

    fn hearing(answers: mpsc::UnboundedReceiver<Look>) -> Self {
        Self { ask: None, answers, asked: None, is_missed: false, slow: None, is_said: false, opens: None }
    }

    /// Whether an answer is to come.
    pub(super) const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    fn ask(&mut self, question: Question) {
        if let (None, Some(ask)) = (self.asked, &mut self.ask) {
            self.asked = Some(question.at);
            ask(question);
        }
    }

    /// Returns the next look; waits for ever where nothing was asked.
    pub(super) async fn answer(&mut self) -> Look {
        match self.answers.recv().await {
            Some(look) => {
                self.asked = None;
                look
            }
            None => std::future::pending().await,
        }
    }

    /// Takes in how long an answer took, and says so where that is long. Returns how much of that does not count for its age:
    /// nothing, unless the one before took long as well. After a single slow one the next is soon there.
    fn answered(&mut self, took: Millis) -> Millis {
        let before = std::mem::replace(&mut self.slow, Some(took).filter(|took| *took > FRESH));
        let is_always_slow = before.is_some() && self.slow.is_some();
        if std::mem::take(&mut self.is_missed) {
            warn!("the driver answers again, after {took}");
        } else if is_always_slow && !self.is_said {
            self.is_said = true;
            warn!("the driver takes long to answer, {took} now: what it says counts as new once it has come");
        }
        self.is_said &= self.slow.is_some();
        if is_always_slow { took } else { Millis::ZERO }
    }

    /// Says once that no answer comes. One that takes long every time is given as long again.
    pub(super) fn miss(&mut self, now: Millis) {
        let slow = self.slow.unwrap_or_default();
        if !self.is_missed && self.asked.is_some_and(|asked| asked + slow + slow + FRESH < now) {
            self.is_missed = true;
            warn!("the driver does not answer: nothing new is started on its devices meanwhile");
        }
    }
}

impl<E: Engine, R: Record> Supervisor<'_, E, R> {
    /// Has nothing new started while a disk is nearly full: what runs may still need the room that is left.
    pub(super) fn look_at_disks(&mut self, now: Millis) {
        if now < self.disk_due {
            return;
        }
        (self.disk_looked, self.disk_due) = (now, now + LOOK_EVERY);
        let full = (self.parts.full_disk)();
        let words = full.as_ref().map(FullDisk::words);
        match &words {
            Some(words) if !self.disk_is_full => {
                // The run is named before what holds it up.
                self.tell(|observer, view| observer.ticked(view, now));
                warn!("nothing new is started: {words}");
            }
            None if self.disk_is_full => warn!("there is room on the disk again: tasks are started"),
            Some(_) | None => {}
        }
        self.disk_is_full = full.is_some();
        self.parts.dispatcher.pause(words, now);
    }

    /// Has the disks looked at before anything else is started: what has ended may have filled them.
    pub(super) fn look_at_disks_again(&mut self) {
        if !self.disk_is_full {
            self.disk_due = self.disk_due.min(self.disk_looked + LOOK_AGAIN);
        }
    }

    /// Ends attempts on devices that cannot keep what was promised there, and at once those that take more than theirs.
    pub(super) fn end_what_cannot_stay(&mut self) -> Result<(), RunError> {
        let mut displaced = self.parts.dispatcher.displaced(&self.state, &self.look.readings, &self.peaks);
        if !displaced.is_empty() {
            // Who came may be within one of them.
            self.ask_what_others_hold()?;
            displaced = self.parts.dispatcher.displaced(&self.state, &self.look.readings, &self.peaks);
        }
        let greedy = self.parts.dispatcher.over_limit(&self.state, &self.look.readings);
        let displaced = displaced.into_iter().map(|displaced| (displaced, Stop::Gracefully));
        for ((task, role, outcome), how) in displaced.chain(greedy.into_iter().map(|greedy| (greedy, Stop::Now))) {
            if let Entry::Vacant(entry) = self.leaving.entry((task, role)) {
                let name = &self.parts.graph.tasks[task.index()].name;
                debug!(task = name, ?outcome, "it is ended");
                entry.insert(outcome);
                self.engine.stop_task(task, role, how);
            }
        }
        Ok(())
    }

    /// Returns when to look at the devices next; `None` while an answer is to come.
    pub(super) fn next_look(&self) -> Option<Millis> {
        let looker = &self.parts.looker;
        (!self.parts.fleet.devices.is_empty() && looker.ask.is_some() && !looker.is_asked()).then_some(self.look_due)
    }

    /// Has somebody look at the devices if it is time to.
    pub(super) fn look_if_due(&mut self) {
        let now = self.clock.now();
        if self.next_look().is_some_and(|due| due <= now) {
            let open = |(task, state): (TaskId, &TaskState)| {
                state.open().filter_map(|(_, attempt)| Some((attempt.process?.pid, task))).collect::<Vec<_>>()
            };
            let running = (0..).map(TaskId).zip(&self.state.tasks).flat_map(open).collect();
            self.parts.looker.ask(Question { at: now, running });
        }
    }

    /// Notes when somebody was last seen to open a GPU.
    pub(super) fn note_opens(&mut self, now: Millis) {
        if self.parts.looker.has_opened() {
            self.opened = Some(now);
        }
    }

    /// Takes in what was seen.
    pub(super) fn on_look(&mut self, look: Look) -> Result<(), RunError> {
        let now = self.clock.now();
        self.look = look;
        self.parts.dispatcher.learn_of_mps(self.look.mps);
        let took = now - self.look.readings.at;
        self.look.readings.took = self.parts.looker.answered(took);
        self.end_what_cannot_stay()?;
        self.peaks.observe(self.parts.fleet, &self.look.readings, self.parts.dispatcher.ledger());
        self.say_who_is_not_watched();
        self.say_who_is_elsewhere();
        self.say_who_takes_more();
        if self.parts.dispatcher.ledger().is_short() {
            self.look_every = LOOK_FIRST;
        }
        self.look_due = now + self.look_every;
        self.look_every = LOOK_EVERY.min(self.look_every + self.look_every);
        let gauges = self.gauges();
        self.tell(|observer, view| observer.gauged(view, now, &gauges));
        Ok(())
    }

    /// Says once that the driver hides what it would take to watch a task.
    fn say_who_is_not_watched(&mut self) {
        let unwatched = self.parts.dispatcher.turn_out_hidden(&self.state, &self.look.raw);
        if let (Some((task, _)), true) = (unwatched.first(), self.unwatched.is_empty()) {
            let name = &self.parts.graph.tasks[task.index()].name;
            warn!(
                "the driver hides who holds memory, as in containers: nobody is watched on its devices, `{name}` first"
            );
        }
        self.unwatched = unwatched.into_iter().collect();
    }

    /// Says once of each task that it holds memory of a device which it was not given: what was promised there to others is
    /// then no longer true.
    fn say_who_is_elsewhere(&mut self) {
        for (task, device, bytes) in self.parts.dispatcher.strays(&self.state, &self.look.readings) {
            if self.strays.insert(task) {
                let name = &self.parts.graph.tasks[task.index()].name;
                let device = &self.parts.fleet.devices[device.index()].id;
                warn!(
                    "`{name}` holds {bytes} of {device}, which it was not given: what it runs must leave CUDA_VISIBLE_DEVICES as it is"
                );
            }
        }
    }

    /// Says once of each stage that a task of it holds more than is reserved for it, and that nobody keeps it from that.
    fn say_who_takes_more(&mut self) {
        for (task, device, bytes, reserved) in self.parts.dispatcher.beyond(&self.state, &self.look.readings) {
            let task = &self.parts.graph.tasks[task.index()];
            if self.beyond.insert(task.stage) {
                let (name, device) = (&task.name, &self.parts.fleet.devices[device.index()].id);
                warn!(
                    "`{name}` holds {bytes} of {device}, where {reserved} are reserved for it: others may find too little"
                );
            }
        }
    }

    fn gauges(&self) -> Vec<DeviceGauge> {
        let ledger = self.parts.dispatcher.ledger();
        let gauge = |(id, device): (DeviceId, &Device)| {
            let seen = match self.look.readings.devices.get(id.index()) {
                Some(Live::Seen(seen)) => Some(seen),
                Some(Live::Unwatched | Live::Unread | Live::Fault { .. }) | None => None,
            };
            let ours = |held: &Vec<(TaskId, Bytes)>| held.iter().map(|(_, bytes)| *bytes).sum();
            let gauge = DeviceGauge {
                id: device.id.clone(),
                model: device.model.clone(),
                used: seen.map(|seen| seen.used),
                ours: seen.and_then(|seen| seen.held.as_ref()).map(ours),
                total: device.memory,
                hidden: self.look.raw.get(id.index()).is_some_and(Reading::hides_processes),
                promised: ledger.reserved(id),
                ..DeviceGauge::default()
            };
            match self.look.raw.get(id.index()) {
                Some(reading) => gauge.with(reading),
                None => gauge,
            }
        };
        (0..).map(DeviceId).zip(&self.parts.fleet.devices).map(gauge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_the_driver_takes_long_every_time_that_does_not_count_for_the_age() {
        let mut looker = Looker::blind();
        let counts = [200, 11_000, 200, 7_000, 6_000, 8_000, 300, 9_000].map(|took| looker.answered(Millis(took)).0);
        assert_eq!(counts, [0, 0, 0, 0, 6_000, 8_000, 0, 0]);
    }
}
