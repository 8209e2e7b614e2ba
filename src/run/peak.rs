//! How much device memory running attempts were seen to hold at most, and whether their device was full then.
//!
//! Pure: readings are arguments. What happens between two readings is not seen, so a peak is a lower bound.

use std::collections::HashMap;

use super::admission::{Ledger, Live, Readings, is_other};
use super::outcome::Outcome;
use crate::fleet::{DeviceId, Fleet};
use crate::graph::TaskId;
use crate::units::Bytes;

/// What was seen of tasks that run, on each device by its index.
#[derive(Clone, Debug, Default)]
pub struct Peaks(HashMap<(TaskId, usize), Peak>);

/// What was seen of one attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// The most that it held, on the device where that was largest.
    pub held: Bytes,
    /// The device's id, if less than its headroom was left on it when the attempt was last seen.
    pub full: Option<String>,
    /// Whether it had taken more of that device then than ever before.
    pub grew: bool,
    /// How often it was looked at.
    pub looks: u32,
}

/// Looks after which an attempt that was not seen to hold any memory is taken to have needed none.
const ENOUGH: u32 = 3;

impl Peaks {
    /// Takes in what was seen. Where a driver does not say who holds memory, what a device has gained since somebody has it
    /// to himself is his: the `ledger`, which has taken in the same readings, knows.
    pub fn observe(&mut self, fleet: &Fleet, readings: &Readings, ledger: &Ledger) {
        for (index, (device, live)) in fleet.devices.iter().zip(&readings.devices).enumerate() {
            let Live::Seen(seen) = live else { continue };
            let id = DeviceId(u32::try_from(index).expect("devices are counted in 32 bits"));
            let mut holds: Vec<(TaskId, Bytes)> = match &seen.held {
                Some(held) => held.iter().filter(|(task, _)| !is_other(*task)).copied().collect(),
                None => ledger.gained_alone(id, seen).into_iter().collect(),
            };
            if seen.held.is_some() {
                let listed = holds.len();
                let idle = |task: &TaskId| !holds[..listed].iter().any(|(other, _)| other == task);
                let idle: Vec<_> = ledger.ours_on(id).filter(idle).collect();
                holds.extend(idle.into_iter().map(|task| (task, Bytes::ZERO)));
            }
            for (task, bytes) in holds {
                let peak = self.0.entry((task, index)).or_default();
                // Who is first seen with all of it may have taken all at once, to give it out itself.
                peak.grew = peak.held > Bytes::ZERO && bytes > peak.held;
                peak.held = peak.held.max(bytes);
                peak.full = (seen.free < device.headroom && bytes > Bytes::ZERO).then(|| device.id.clone());
                peak.looks += 1;
            }
        }
    }

    /// Whether a task's attempt was ever seen to hold memory of a device.
    #[must_use]
    pub fn has_begun(&self, task: TaskId) -> bool {
        self.0.iter().any(|((of, _), peak)| *of == task && peak.held > Bytes::ZERO)
    }

    /// Returns what was seen of an attempt that has ended, and forgets it; `None` if it was never seen to hold any. What
    /// is on the devices of `beside` is that of another attempt of the task, which goes on.
    pub fn take(&mut self, task: TaskId, beside: &[String], fleet: &Fleet) -> Option<Peak> {
        let mut taken: Option<Peak> = None;
        for (index, device) in fleet.devices.iter().enumerate() {
            if self.0.is_empty() || beside.contains(&device.id) {
                continue;
            }
            let Some(seen) = self.0.remove(&(task, index)) else { continue };
            let most = taken.take().unwrap_or_default();
            let (full, grew) = if seen.full.is_some() { (seen.full, seen.grew) } else { (most.full, most.grew) };
            taken = Some(Peak { held: most.held.max(seen.held), full, grew, looks: most.looks.max(seen.looks) });
        }
        taken
    }
}

impl Peak {
    /// Returns the most memory that the attempt needed of a device; `None` where it may have been missed.
    #[must_use]
    pub fn needed(&self, outcome: &Outcome) -> Option<Bytes> {
        let needed_none = outcome.is_success() && self.looks >= ENOUGH;
        (self.held > Bytes::ZERO || needed_none).then_some(self.held)
    }

    /// Returns the outcome as it is with this peak in mind, and why, if it is another one.
    ///
    /// An attempt ran out of memory that failed without saying why, whose device was full when it was last seen, and that
    /// held more than was `reserved` for it; one for which nothing was reserved, since it has the device to itself, must
    /// have been taking more until then. Whoever printed the trace of an exception has said why: `traced`.
    #[must_use]
    pub fn explain(&self, outcome: &Outcome, reserved: Bytes, traced: bool) -> Option<(Outcome, String)> {
        let over = if reserved > Bytes::ZERO { self.held > reserved } else { self.grew };
        match (outcome, &self.full) {
            (Outcome::Exited { .. } | Outcome::Signalled { .. }, Some(device)) if over && !traced => {
                let held = self.held;
                let why = format!(
                    "it did not say why it failed; {device} was full when it was last seen, and {held} of it were its own: \
                     it is taken to have run out of memory"
                );
                Some((Outcome::OutOfMemory { device: Some(device.clone()) }, why))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Device, Node, NodeId};
    use crate::run::admission::Seen;
    use crate::spec::{Gpus, Resources};
    use crate::units::Millis;

    fn fleet() -> Fleet {
        let device =
            |i: u32| Device { id: format!("box/gpu{i}"), memory: Bytes(100), headroom: Bytes(10), ..Device::default() };
        Fleet { nodes: vec![Node::default()], devices: vec![device(0), device(1)], ..Fleet::default() }
    }

    fn seen(free: u64, held: &[(u32, u64)]) -> Live {
        let held = held.iter().map(|(task, bytes)| (TaskId(*task), Bytes(*bytes))).collect();
        Live::Seen(Seen { free: Bytes(free), held: Some(held), ..Seen::default() })
    }

    #[test]
    fn the_peak_is_the_most_that_was_seen_on_any_device() {
        let mut peaks = Peaks::default();
        for held in [30, 50, 20] {
            let devices = vec![seen(50, &[(7, held)]), seen(50, &[(7, 40)])];
            peaks.observe(&fleet(), &Readings { at: Millis::ZERO, devices }, &Ledger::new(&fleet()));
        }
        assert_eq!(peaks.take(TaskId(7), &[], &fleet()).map(|peak| peak.held), Some(Bytes(50)));
        assert_eq!(peaks.take(TaskId(7), &[], &fleet()), None);
    }

    #[test]
    fn who_was_looked_at_and_held_nothing_needed_none() {
        let mut ledger = Ledger::new(&fleet());
        let request = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        ledger.enter(TaskId(7), &request, NodeId(0), vec![DeviceId(0)]);
        let needed = |looks| {
            let mut peaks = Peaks::default();
            for _ in 0..looks {
                let devices = vec![seen(100, &[]), seen(100, &[])];
                peaks.observe(&fleet(), &Readings { at: Millis::ZERO, devices }, &ledger);
            }
            peaks.take(TaskId(7), &[], &fleet()).unwrap()
        };
        assert_eq!(needed(3).needed(&Outcome::Succeeded), Some(Bytes::ZERO));
        assert_eq!(needed(2).needed(&Outcome::Succeeded), None);
        assert_eq!(needed(3).needed(&Outcome::Exited { code: 1 }), None);
    }

    #[test]
    fn what_a_hidden_device_gains_is_his_who_has_it_to_himself() {
        let mut ledger = Ledger::new(&fleet());
        let request = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let mut peaks = Peaks::default();
        for (at, used) in [(1, 4), (2, 50), (3, 30)] {
            let (free, nobodys) = (Bytes(100 - used), Bytes(used));
            let live = Live::Seen(Seen { free, used: nobodys, held: None, nobodys, opened: Vec::new() });
            let readings = Readings { at: Millis(at), devices: vec![live] };
            ledger.has_room(&request, &readings, Millis(at));
            peaks.observe(&fleet(), &readings, &ledger);
            if at == 1 {
                ledger.enter(TaskId(7), &request, NodeId(0), vec![DeviceId(0)]);
            }
        }
        assert_eq!(peaks.take(TaskId(7), &[], &fleet()).map(|peak| peak.held), Some(Bytes(46)));
    }

    #[test]
    fn a_failure_on_a_full_device_beyond_the_reservation_was_want_of_memory() {
        let peak = |held: &[u64], free| {
            let mut peaks = Peaks::default();
            for held in held {
                let devices = vec![seen(free, &[(0, *held)]), seen(free, &[])];
                peaks.observe(&fleet(), &Readings { at: Millis::ZERO, devices }, &Ledger::new(&fleet()));
            }
            peaks.take(TaskId(0), &[], &fleet()).unwrap()
        };
        let failed = Outcome::Exited { code: 1 };
        let full = |held: &[u64], free, reserved| {
            peak(held, free).explain(&failed, Bytes(reserved), false).map(|(outcome, _)| outcome)
        };
        let ran_out = Some(Outcome::OutOfMemory { device: Some("box/gpu0".to_owned()) });
        assert_eq!(full(&[95], 5, 60), ran_out);
        assert_eq!(full(&[95], 20, 60), None, "there was room");
        assert_eq!(full(&[60], 5, 60), None, "it kept to what was reserved");
        assert_eq!(full(&[40, 95], 5, 0), ran_out, "it was taking more");
        assert_eq!(full(&[95, 95], 5, 0), None, "it had taken all at once");
        assert_eq!(full(&[95], 5, 0), None, "nobody knows since when");
        let explain = |outcome, traced| peak(&[40, 95], 5).explain(&outcome, Bytes(60), traced);
        assert_eq!(explain(failed.clone(), true), None, "it said what it failed of");
        assert_eq!(explain(Outcome::TimedOut { limit: crate::run::outcome::Limit::Wall }, false), None);
    }
}
