//! How much device memory running attempts were seen to hold at most, and whether their device was full then.
//!
//! Pure: readings are arguments. What happens between two readings is not seen, so a peak is a lower bound.

use std::collections::HashMap;

use super::admission::{Ledger, Live, Readings, is_other};
use super::outcome::Outcome;
use crate::fleet::{DeviceId, Fleet};
use crate::graph::TaskId;
use crate::units::{Bytes, Millis};

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
    /// How often each of its devices was looked at, at least.
    pub looks: u32,
    /// On how many devices it was looked at.
    pub devices: usize,
    /// When it was looked at first, on every device.
    pub first: Millis,
    /// When it was looked at last, on every device.
    pub last: Millis,
    /// The longest time between two looks.
    pub gap: Millis,
}

/// Looks after which an attempt that was not seen to hold any memory may be taken to have needed none.
const ENOUGH: u32 = 3;

/// The longest time without a look, from its start to its end, of an attempt that is taken to have needed no memory: one
/// reading at one a second may have been missed.
const BLIND: Millis = Millis(2_000);

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
                if peak.looks == 0 {
                    (peak.devices, peak.first, peak.last) = (1, readings.at, readings.at);
                }
                peak.gap = peak.gap.max(readings.at - peak.last);
                peak.last = readings.at;
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
            let Some(most) = taken.take() else {
                taken = Some(seen);
                continue;
            };
            let (full, grew) = if seen.full.is_some() { (seen.full, seen.grew) } else { (most.full, most.grew) };
            taken = Some(Peak {
                held: most.held.max(seen.held),
                full,
                grew,
                looks: most.looks.min(seen.looks),
                devices: most.devices + seen.devices,
                first: most.first.max(seen.first),
                last: most.last.min(seen.last),
                gap: most.gap.max(seen.gap),
            });
        }
        taken
    }
}

impl Peak {
    /// Returns the most memory that the attempt needed of a device, which ran on so many `devices` for a `life` from its
    /// start to its end; `None` where it may have been missed. `opened`: whether anybody opened a GPU meanwhile, be it for a
    /// moment at which nobody looked.
    #[must_use]
    pub fn needed(&self, outcome: &Outcome, devices: usize, life: (Millis, Millis), opened: bool) -> Option<Bytes> {
        let needed_none = !opened && outcome.is_success() && self.looks >= ENOUGH && self.saw_all(devices, life);
        (self.held > Bytes::ZERO || needed_none).then_some(self.held)
    }

    /// Whether every device was looked at again and again for as long as the attempt ran: a driver may not have answered.
    fn saw_all(&self, devices: usize, (started, ended): (Millis, Millis)) -> bool {
        let blind = self.gap.max(self.first - started).max(ended - self.last);
        self.devices >= devices && blind <= BLIND
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
            peaks.observe(
                &fleet(),
                &Readings { at: Millis::ZERO, devices, ..Readings::default() },
                &Ledger::new(&fleet()),
            );
        }
        assert_eq!(peaks.take(TaskId(7), &[], &fleet()).map(|peak| peak.held), Some(Bytes(50)));
        assert_eq!(peaks.take(TaskId(7), &[], &fleet()), None);
    }

    #[test]
    fn who_was_looked_at_and_held_nothing_needed_none() {
        let mut ledger = Ledger::new(&fleet());
        let request = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        ledger.enter(TaskId(7), &request, NodeId(0), vec![DeviceId(0)]);
        let look_at = |looks: &[u64]| {
            let mut peaks = Peaks::default();
            for at in looks {
                let devices = vec![seen(100, &[]), seen(100, &[])];
                peaks.observe(&fleet(), &Readings { at: Millis(*at), devices, ..Readings::default() }, &ledger);
            }
            peaks.take(TaskId(7), &[], &fleet()).unwrap()
        };
        let needed =
            |looks: &[u64]| look_at(looks).needed(&Outcome::Succeeded, 1, (Millis(10_000), Millis(13_000)), false);
        assert_eq!(needed(&[10_100, 11_000, 12_000]), Some(Bytes::ZERO));
        assert_eq!(needed(&[10_500, 12_000]), None, "two looks are few");
        assert_eq!(needed(&[10_100, 10_200, 10_300]), None, "nobody knows how it ended");
        assert_eq!(needed(&[12_100, 12_200, 12_300]), None, "nobody knows how it began");
        assert_eq!(needed(&[10_000, 10_100, 12_200]), None, "the driver did not answer");
        let peak = look_at(&[10_100, 11_000, 12_000]);
        let life = (Millis(10_000), Millis(13_000));
        assert_eq!(peak.needed(&Outcome::Exited { code: 1 }, 1, life, false), None);
        assert_eq!(peak.needed(&Outcome::Succeeded, 2, life, false), None, "one of its devices was not looked at");
        assert_eq!(peak.needed(&Outcome::Succeeded, 1, life, true), None, "it may have held some for a moment");
    }

    #[test]
    fn a_gang_needed_none_where_each_of_its_devices_was_looked_at_for_as_long() {
        let mut ledger = Ledger::new(&fleet());
        let request = Resources { gpus: Gpus::Whole(2), ..Resources::default() };
        ledger.enter(TaskId(7), &request, NodeId(0), vec![DeviceId(0), DeviceId(1)]);
        let needed = |other: &dyn Fn(u64) -> Live| {
            let mut peaks = Peaks::default();
            for at in [0, 1_000, 2_000, 3_000, 4_000] {
                let readings =
                    Readings { at: Millis(at), devices: vec![seen(100, &[]), other(at)], ..Readings::default() };
                peaks.observe(&fleet(), &readings, &ledger);
            }
            let peak = peaks.take(TaskId(7), &[], &fleet()).unwrap();
            peak.needed(&Outcome::Succeeded, 2, (Millis::ZERO, Millis(4_500)), false)
        };
        assert_eq!(needed(&|_| seen(100, &[])), Some(Bytes::ZERO));
        assert_eq!(needed(&|at| if at < 2_000 { seen(100, &[]) } else { Live::Unwatched }), None);
        assert_eq!(needed(&|_| Live::Unwatched), None);
        assert_eq!(needed(&|at| seen(100, if at == 0 { &[(7, 30)] } else { &[] })), Some(Bytes(30)));
    }

    #[test]
    fn what_a_hidden_device_gains_is_his_who_has_it_to_himself() {
        let mut ledger = Ledger::new(&fleet());
        let request = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let mut peaks = Peaks::default();
        for (at, used) in [(1, 4), (2, 50), (3, 30)] {
            let (free, nobodys) = (Bytes(100 - used), Bytes(used));
            let live = Live::Seen(Seen { free, used: nobodys, held: None, nobodys, ..Seen::default() });
            let readings = Readings { at: Millis(at), devices: vec![live], ..Readings::default() };
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
                peaks.observe(
                    &fleet(),
                    &Readings { at: Millis::ZERO, devices, ..Readings::default() },
                    &Ledger::new(&fleet()),
                );
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
