//! What a task asks for after an attempt that ran out of memory: half as much again, then a device to itself, then a
//! larger device; of the host's memory half as much again, up to all of it.
//!
//! One that kept to what was reserved for it, on a device whose memory others had taken, is given the same again: what it
//! needs is not known to be more. A step that no place of the fleet could ever grant is passed over, and so is one that grants
//! nothing new: whole devices have all their memory already, unless strangers are there. Where none is left, trying again is
//! useless, except on the CPU for a stage that merely prefers a device.
//!
//! Pure: does not know what is free at the moment.

use serde::{Deserialize, Serialize};

use super::admission::{Ledger, most_of_each};
use super::outcome::Outcome;
use super::state::Attempt;
use crate::fleet::{Device, DeviceId, Fleet};
use crate::spec::{Gpus, Resources};
use crate::units::{Bytes, Share};

/// What a task asks for instead of what its stage says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raise {
    /// What was changed last.
    pub step: Step,
    /// Whether it asks for all the memory of its devices.
    pub alone: bool,
    /// Device memory, on each device.
    pub gpu_memory: Bytes,
    /// Host memory.
    pub memory: Bytes,
}

/// How a task is helped after it ran out of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The same again, where others leave it that.
    Again,
    /// More memory of a device.
    More,
    /// A device to itself.
    Alone,
    /// A larger device, to itself.
    Larger,
    /// More memory of the host.
    MoreOfHost,
    /// The CPU, since no device is large enough.
    OnCpu,
}

impl Step {
    /// Returns the stable word of JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Again => "again",
            Self::More => "more",
            Self::Alone => "alone",
            Self::Larger => "larger",
            Self::MoreOfHost => "more-of-host",
            Self::OnCpu => "on-cpu",
        }
    }
}

impl Raise {
    /// Returns the stage's request as it was raised.
    #[must_use]
    pub fn request(&self, stage: &Resources) -> Resources {
        let gpus = if self.alone { stage.gpus.whole() } else { stage.gpus };
        // On the CPU instead, what it asked for of a GPU says nothing.
        let on_gpu = gpus != Gpus::None;
        let gpu_memory = if on_gpu { self.gpu_memory } else { stage.gpu_memory };
        Resources { gpus, memory: self.memory, gpu_memory, alone: self.alone && on_gpu, ..stage.clone() }
    }
}

/// Returns what a task asks for after its last attempt ran out of memory; `None` where nothing would help, or it was
/// helped `most` times already.
#[must_use]
pub fn next(stage: &Resources, attempts: &[Attempt], most: u32, fleet: &Fleet, ledger: &Ledger) -> Option<Raise> {
    let last = attempts.last()?;
    let ended = last.ended.as_ref()?;
    let Outcome::OutOfMemory { device } = &ended.outcome else { return None };
    if ran_out(attempts) > usize::try_from(most).unwrap_or(usize::MAX) {
        return None;
    }
    let now = asked_for(stage, last);
    let at = |name: &String| (0..).map(DeviceId).zip(&fleet.devices).find(|(_, device)| device.id == *name);
    let is_crowded = |(device, _)| ledger.is_crowded(device) == Some(true);
    let is_crowded = device.as_ref().and_then(at).is_some_and(is_crowded);
    if now.alone && is_crowded {
        // Strangers came to the device that it should have had to itself: the same again, where nobody is.
        return Some(Raise { step: Step::Alone, ..now });
    }
    let (reserved, peak) = (last.place.gpu_memory, ended.usage.peak_gpu_memory);
    let asks_for_all = stage.gpu_memory == Bytes::ZERO && !matches!(stage.gpus, Gpus::Share(_));
    let asks_for_more = asks_for_all || reserved.max(peak.unwrap_or_default()) < stage.gpu_memory;
    let had_less = reserved > Bytes::ZERO && asks_for_more;
    let was_too_small = device.as_ref().is_some_and(|at| stage.gpu_memory > size(at, last, fleet).0);
    if device.is_some() && last.raise.is_none() && (had_less || was_too_small) {
        // Its stage asks for more since it began: that first.
        let step = if was_too_small { Step::Larger } else { Step::Alone };
        return Some(Raise { step: if now.alone { step } else { Step::More }, ..now });
    }
    let kept_to_it = reserved > Bytes::ZERO && peak.unwrap_or(Bytes::ZERO) < reserved;
    let could_not_be_kept = |(device, _)| !ledger.could_keep(device, reserved);
    if kept_to_it && device.as_ref().and_then(at).is_some_and(could_not_be_kept) {
        return Some(Raise { step: Step::Again, ..now });
    }
    let had_all = had_all(stage, last) && !is_crowded;
    let steps = match device {
        Some(at) => on_device(now, (last, had_all), at, (stage.gpus, fleet)),
        None => on_host(now, ended.usage.peak_memory, fleet),
    };
    let asked = now.request(stage);
    let is_new = |raise: &&Raise| raise.request(stage) != asked;
    let may_be = |raise: &&Raise| ledger.possible(&raise.request(stage)).is_ok();
    // What only a device can grant that cannot be used for now is waited for.
    let will_be = |raise: &&Raise| ledger.is_within_reach(&raise.request(stage));
    let mut steps = steps.iter().filter(is_new);
    steps.clone().find(may_be).or_else(|| steps.find(will_be)).copied()
}

/// Returns what a task asks for that would only rather have a device, after no device was large enough for it; `None` if that
/// is not how its last attempt that was let end did, or it was helped `most` times already and not by the largest one.
/// Where `most` is zero it is not helped at all.
#[must_use]
pub fn on_cpu(stage: &Resources, attempts: &[Attempt], most: u32, fleet: &Fleet) -> Option<Raise> {
    let last = attempts.iter().rfind(|attempt| has_run_out(attempt))?;
    let Outcome::OutOfMemory { device: Some(at) } = &last.ended.as_ref()?.outcome else { return None };
    let was_largest = most > 0 && no_more(attempts, fleet) == Some(NoMore::Largest);
    let is_left = was_largest || ran_out(attempts) <= usize::try_from(most).unwrap_or(usize::MAX);
    // No device has that, should it be asked for.
    let gpu_memory = size(at, last, fleet).0 + Bytes(1);
    is_left.then(|| Raise { step: Step::OnCpu, alone: true, gpu_memory, ..asked_for(stage, last) })
}

/// Returns what an attempt asked for.
fn asked_for(stage: &Resources, attempt: &Attempt) -> Raise {
    attempt.raise.unwrap_or(Raise {
        step: Step::More,
        alone: was_alone(stage, attempt),
        // Of a share without a number it was given its part of the device.
        gpu_memory: match stage.gpus {
            Gpus::Share(_) => stage.gpu_memory.max(attempt.place.gpu_memory),
            Gpus::None | Gpus::Whole(_) | Gpus::Shared => stage.gpu_memory,
        },
        memory: stage.memory,
    })
}

/// Returns what a task asks for instead of what no place of the fleet can grant any more, as if it had run out of memory on
/// this fleet; `None` where nothing would help.
#[must_use]
pub fn anew(stage: &Resources, attempts: &[Attempt], most: u32, fleet: &Fleet, ledger: &Ledger) -> Option<Raise> {
    let last = attempts.iter().rposition(has_run_out)?;
    next(stage, &attempts[..=last], most, fleet, ledger)
}

/// Whether an attempt was to have its devices' memory to itself.
#[must_use]
pub fn was_alone(stage: &Resources, attempt: &Attempt) -> bool {
    attempt.raise.map_or(stage.wants_all_memory(), |raise| raise.alone)
}

/// Whether an attempt could have all that its devices give as long as no strangers are there: nothing limits who has whole
/// ones, and no other task is let onto them.
#[must_use]
pub fn had_all(stage: &Resources, attempt: &Attempt) -> bool {
    was_alone(stage, attempt) || matches!(stage.gpus, Gpus::Whole(_))
}

/// Why a task that ran out of memory is not given more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMore {
    /// It had the largest device to itself.
    Largest,
    /// It had all memory of the host.
    AllOfHost,
    /// It was helped as often as it may be, or asks for what no step changes.
    Tries,
}

/// Returns why a task gets no more memory after its last attempt ran out of it for good; `None` if it did not. Attempts
/// that were not let end since say nothing of that.
#[must_use]
pub fn no_more(attempts: &[Attempt], fleet: &Fleet) -> Option<NoMore> {
    let was_let_end = |attempt: &&Attempt| {
        let ended = attempt.ended.as_ref().map(|ended| &ended.outcome);
        !matches!(ended, Some(Outcome::Interrupted | Outcome::Displaced { .. }))
    };
    let last = attempts.iter().rev().find(was_let_end)?;
    let Outcome::OutOfMemory { device } = &last.ended.as_ref()?.outcome else { return None };
    // Without a number it had whole devices, as it had with all of their share.
    let had_whole = last.place.gpu_memory == Bytes::ZERO || last.place.share == Share::WHOLE;
    let alone = last.raise.is_some_and(|raise| raise.alone) || had_whole;
    let largest = fleet.devices.iter().map(Device::whole_memory).max();
    let had_largest = |size: Bytes| size > Bytes::ZERO && Some(size) >= largest;
    let all_of_host = fleet.nodes.iter().map(|node| node.memory).max();
    Some(match device {
        Some(at) if alone && had_largest(size(at, last, fleet).0) => NoMore::Largest,
        None if Some(last.place.memory) >= all_of_host => NoMore::AllOfHost,
        Some(_) | None => NoMore::Tries,
    })
}

/// Returns how many of these attempts ran out of memory.
#[must_use]
pub fn ran_out(attempts: &[Attempt]) -> usize {
    attempts.iter().filter(|attempt| has_run_out(attempt)).count()
}

fn has_run_out(attempt: &Attempt) -> bool {
    attempt.ended.as_ref().is_some_and(|ended| matches!(ended.outcome, Outcome::OutOfMemory { .. }))
}

/// Returns how many of these attempts were followed by a request for more; `next` is what the next one asks for.
#[must_use]
pub fn answered(attempts: &[Attempt], next: Option<Raise>) -> usize {
    let asked = attempts.iter().map(|attempt| attempt.raise);
    let following = asked.clone().skip(1).chain([next]);
    asked.zip(following).filter(|(one, other)| one != other).count()
}

/// Returns the steps that are left, the gentlest first.
fn on_device(now: Raise, (last, had_all): (&Attempt, bool), at: &str, (gpus, fleet): (Gpus, &Fleet)) -> Vec<Raise> {
    let peak = last.ended.as_ref().and_then(|ended| ended.usage.peak_gpu_memory);
    let need = now.gpu_memory.max(peak.unwrap_or(Bytes::ZERO));
    let (whole, all) = size(at, last, fleet);
    let mut steps = Vec::new();
    let was_given_more = last.raise.is_some_and(|raise| raise.step != Step::Again);
    // Beside a desktop no task gets more than that leaves, except one that has the device to itself.
    if !was_given_more && !had_all && need > Bytes::ZERO && half_again(need) <= most_of_each(fleet, gpus) {
        steps.push(Raise { step: Step::More, gpu_memory: half_again(need), ..now });
    }
    if !had_all {
        steps.push(Raise { step: Step::Alone, alone: true, gpu_memory: need.min(all), ..now });
    }
    // A byte more than such a device gives is what only a larger one has. Of one that does not tell, none is known to be.
    if whole > Bytes::ZERO {
        steps.push(Raise { step: Step::Larger, alone: true, gpu_memory: whole + Bytes(1), ..now });
    }
    steps
}

/// Returns what the device on which a task ran out of memory gives, and what is left of that where its driver or a desktop
/// keeps as much as they may; of the smallest that it had where that one is unknown, and what was reserved where none of
/// them is there any more.
fn size(at: &str, last: &Attempt, fleet: &Fleet) -> (Bytes, Bytes) {
    let size = |device: &Device| (device.whole_memory(), device.whole_memory() - device.headroom);
    let had = fleet.devices.iter().filter(|device| last.place.has(device));
    let this = had.clone().find(|device| device.id == at);
    this.map(size).or_else(|| had.map(size).min()).unwrap_or((last.place.gpu_memory, last.place.gpu_memory))
}

fn on_host(now: Raise, peak: Option<Bytes>, fleet: &Fleet) -> Vec<Raise> {
    let need = half_again(now.memory.max(peak.unwrap_or(Bytes::ZERO)));
    let all = fleet.nodes.iter().map(|node| node.memory).max().unwrap_or(Bytes::ZERO);
    vec![Raise { step: Step::MoreOfHost, memory: if need == Bytes::ZERO { all } else { need.min(all) }, ..now }]
}

const fn half_again(bytes: Bytes) -> Bytes {
    Bytes(bytes.0.saturating_add(bytes.0 / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Node;
    use crate::run::admission::{Live, Readings, Seen};
    use crate::run::event::Place;
    use crate::run::outcome::Usage;
    use crate::run::state::Ended;
    use crate::units::{Cpus, Millis};

    const GIB: u64 = Bytes::GIB.0;

    fn fleet(sizes: &[u64]) -> Fleet {
        let node = Node { cpus: Cpus(4_000), memory: Bytes(10 * GIB), ..Node::default() };
        let devices = (0..).zip(sizes).map(|(i, gib): (u32, &u64)| Device {
            id: format!("box/gpu{i}"),
            memory: Bytes(gib * GIB),
            ..Device::default()
        });
        Fleet { nodes: vec![node], devices: devices.collect(), ..Fleet::default() }
    }

    fn ran_out_on(device: Option<&str>, raise: Option<Raise>, peak: Option<u64>) -> Attempt {
        let usage = Usage { peak_gpu_memory: peak.map(Bytes), peak_memory: peak.map(Bytes), ..Usage::default() };
        let outcome = Outcome::OutOfMemory { device: device.map(str::to_owned) };
        Attempt {
            place: Place { devices: device.map(str::to_owned).into_iter().collect(), ..Place::default() }.into(),
            raise,
            started: Millis::ZERO,
            process: None,
            ended: Some(Ended { at: Millis(1), outcome, usage, logged: true }),
            pauses: Vec::new(),
        }
    }

    /// Lets a task run out of memory on this device again and again, and returns how it is helped.
    fn ladder(stage: &Resources, fleet: &Fleet, device: &str, most: u32, peak: Option<u64>) -> Vec<(Step, u64)> {
        let ledger = Ledger::new(fleet);
        let mut attempts = vec![ran_out_on(Some(device), None, peak)];
        let mut steps = Vec::new();
        while let Some(raise) = next(stage, &attempts, most, fleet, &ledger) {
            steps.push((raise.step, raise.gpu_memory.0));
            attempts.push(ran_out_on(Some(device), Some(raise), peak));
        }
        steps
    }

    fn shared(gib: u64) -> Resources {
        Resources { gpus: Gpus::Shared, gpu_memory: Bytes(gib * GIB), ..Resources::default() }
    }

    #[test]
    fn more_then_alone_then_larger_and_no_further_than_asked() {
        let fleet = fleet(&[16, 80]);
        let steps = ladder(&shared(4), &fleet, "box/gpu0", 3, None);
        assert_eq!(steps, [(Step::More, 6 * GIB), (Step::Alone, 6 * GIB), (Step::Larger, 16 * GIB + 1)]);
        assert_eq!(ladder(&shared(4), &fleet, "box/gpu0", 1, None).len(), 1);
        assert!(ladder(&shared(4), &fleet, "box/gpu0", 0, None).is_empty());
    }

    #[test]
    fn who_had_less_than_its_stage_asks_for_by_now_is_given_that() {
        let fleet = fleet(&[16]);
        let after = |stage: &Resources| {
            let mut attempt = ran_out_on(Some("box/gpu0"), None, None);
            attempt.place = Place { gpu_memory: Bytes(GIB / 2), ..(*attempt.place).clone() }.into();
            let raise = next(stage, &[attempt], 3, &fleet, &Ledger::new(&fleet)).unwrap();
            (raise.step, raise.alone, raise.gpu_memory)
        };
        let whole = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        assert_eq!(after(&whole), (Step::Alone, true, Bytes::ZERO));
        assert_eq!(after(&shared(4)), (Step::More, false, Bytes(4 * GIB)));
        // All of a device, where a larger one is asked for by now.
        let larger = Resources { gpu_memory: Bytes(16 * GIB + 1), alone: true, ..whole };
        let raise =
            next(&larger, &[ran_out_on(Some("box/gpu0"), None, None)], 3, &fleet, &Ledger::new(&fleet)).unwrap();
        assert_eq!((raise.step, raise.alone, raise.gpu_memory), (Step::Larger, true, larger.gpu_memory));
    }

    #[test]
    fn what_was_measured_counts_where_it_is_more_than_what_was_asked_for() {
        let steps = ladder(&shared(4), &fleet(&[16]), "box/gpu0", 1, Some(8 * GIB));
        assert_eq!(steps, [(Step::More, 12 * GIB)]);
    }

    #[test]
    fn who_kept_to_his_own_beside_strangers_is_given_the_same_again() {
        let fleet = fleet(&[16]);
        let stage = shared(8);
        let after = |stranger: u64, peak: Option<u64>, before: Option<Raise>| {
            let mut ledger = Ledger::new(&fleet);
            let bytes = |gib: u64| Bytes(gib * GIB);
            let (free, used) = (bytes(16 - stranger), bytes(stranger));
            let seen = Seen { free, used, held: Some(Vec::new()), ..Seen::default() };
            let readings = Readings { at: Millis(1), devices: vec![Live::Seen(seen)], ..Readings::default() };
            ledger.has_room(&stage, &readings, Millis(1));
            let mut attempt = ran_out_on(Some("box/gpu0"), before, peak);
            attempt.place = Place { gpu_memory: stage.gpu_memory, ..(*attempt.place).clone() }.into();
            next(&stage, &[attempt], 3, &fleet, &ledger).map(|raise| (raise.step, raise.gpu_memory.0 / GIB, raise))
        };
        let step = |of: Option<(Step, u64, Raise)>| of.map(|(step, gib, _)| (step, gib));
        let again = after(10, Some(4 * GIB), None);
        assert_eq!(step(again), Some((Step::Again, 8)));
        assert_eq!(step(after(10, None, None)), Some((Step::Again, 8)), "nothing was seen of it");
        assert_eq!(step(after(10, Some(9 * GIB), None)), Some((Step::More, 13)), "it took more");
        assert_eq!(step(after(8, Some(4 * GIB), None)), Some((Step::More, 12)), "there was enough for it");
        let raised = again.map(|(.., raise)| raise);
        assert_eq!(step(after(8, Some(4 * GIB), raised)), Some((Step::More, 12)), "no step is lost");
    }

    #[test]
    fn a_share_without_a_number_is_raised_from_its_part_of_the_device() {
        let half = Resources { gpus: Gpus::Share(Share(500_000)), ..Resources::default() };
        let fleet = fleet(&[16]);
        let mut attempt = ran_out_on(Some("box/gpu0"), None, None);
        attempt.place = Place { gpu_memory: Bytes(8 * GIB), ..(*attempt.place).clone() }.into();
        let raise = next(&half, &[attempt], 3, &fleet, &Ledger::new(&fleet)).unwrap();
        assert_eq!((raise.step, raise.gpu_memory), (Step::More, Bytes(12 * GIB)));
    }

    #[test]
    fn steps_that_no_device_could_grant_are_passed_over() {
        assert_eq!(ladder(&shared(12), &fleet(&[16]), "box/gpu0", 3, None), [(Step::Alone, 12 * GIB)]);
        let whole = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        assert_eq!(ladder(&whole, &fleet(&[16, 80]), "box/gpu0", 3, None), [(Step::Larger, 16 * GIB + 1)]);
        assert!(ladder(&whole, &fleet(&[16, 80]), "box/gpu1", 3, None).is_empty());
    }

    #[test]
    fn whole_devices_with_a_number_had_all_of_them_unless_strangers_are_there() {
        let whole = Resources { gpus: Gpus::Whole(1), gpu_memory: Bytes(6 * GIB), ..Resources::default() };
        assert!(ladder(&whole, &fleet(&[24, 24]), "box/gpu0", 3, None).is_empty());
        assert_eq!(ladder(&whole, &fleet(&[24, 8, 80]), "box/gpu0", 3, Some(7 * GIB)), [(Step::Larger, 24 * GIB + 1)]);
        let fleet = fleet(&[24, 24]);
        let mut ledger = Ledger::new(&fleet);
        let seen = Seen { free: Bytes(14 * GIB), used: Bytes(10 * GIB), held: Some(Vec::new()), ..Seen::default() };
        let readings = Readings {
            at: Millis(1),
            devices: vec![Live::Seen(seen.clone()), Live::Seen(seen)],
            ..Readings::default()
        };
        ledger.has_room(&whole, &readings, Millis(1));
        let raise = next(&whole, &[ran_out_on(Some("box/gpu0"), None, Some(14 * GIB))], 3, &fleet, &ledger).unwrap();
        assert_eq!((raise.step, raise.gpu_memory), (Step::More, Bytes(21 * GIB)));
    }

    #[test]
    fn of_a_device_that_tells_no_memory_none_is_known_to_be_larger() {
        let whole = Resources { gpus: Gpus::Whole(1), ..Resources::default() };
        let fleet = fleet(&[0, 24]);
        assert!(ladder(&whole, &fleet, "box/gpu0", 3, None).is_empty());
        assert_eq!(no_more(&[ran_out_on(Some("box/gpu0"), None, None)], &fleet), Some(NoMore::Tries));
        assert_eq!(no_more(&[ran_out_on(Some("box/gpu1"), None, None)], &fleet), Some(NoMore::Largest));
    }

    #[test]
    fn larger_than_the_card_on_which_it_ran_out_is_enough_for_several() {
        let two = Resources { gpus: Gpus::Whole(2), ..Resources::default() };
        let fleet = fleet(&[24, 40, 40]);
        let mut attempt = ran_out_on(Some("box/gpu0"), None, None);
        let place = Place { devices: vec!["box/gpu0".into(), "box/gpu1".into()], ..Place::default() };
        attempt.place = place.into();
        let raise = next(&two, &[attempt.clone()], 3, &fleet, &Ledger::new(&fleet)).unwrap();
        assert_eq!((raise.step, raise.gpu_memory), (Step::Larger, Bytes(24 * GIB + 1)));
        let outcome = Outcome::OutOfMemory { device: Some("box/gpu1".into()) };
        attempt.ended.as_mut().unwrap().outcome = outcome;
        assert_eq!(next(&two, &[attempt.clone()], 3, &fleet, &Ledger::new(&fleet)), None);
        assert_eq!(no_more(&[attempt], &fleet), Some(NoMore::Largest));
    }

    #[test]
    fn what_a_device_that_is_gone_could_give_is_weighed_anew_on_those_that_are_there() {
        let fleet = fleet(&[16]);
        let after = |stage: &Resources, reserved: u64, raise: Option<Raise>| {
            let mut ran_out = ran_out_on(Some("box/gone"), raise, None);
            ran_out.place = Place { gpu_memory: Bytes(reserved * GIB), ..(*ran_out.place).clone() }.into();
            let mut interrupted = ran_out.clone();
            interrupted.ended.as_mut().unwrap().outcome = Outcome::Interrupted;
            let attempts = [ran_out, interrupted];
            assert_eq!(next(stage, &attempts, 3, &fleet, &Ledger::new(&fleet)), None, "the last one did not run out");
            anew(stage, &attempts, 3, &fleet, &Ledger::new(&fleet)).map(|raise| (raise.step, raise.gpu_memory.0 / GIB))
        };
        assert_eq!(after(&shared(8), 8, None), Some((Step::More, 12)));
        assert_eq!(after(&shared(12), 12, None), Some((Step::Alone, 12)));
        let alone = Raise { step: Step::Alone, alone: true, gpu_memory: Bytes(12 * GIB), memory: Bytes::ZERO };
        assert_eq!(after(&shared(12), 40, Some(alone)), None, "it had more alone");
    }

    #[test]
    fn host_memory_grows_up_to_all_of_it() {
        let fleet = fleet(&[]);
        let ledger = Ledger::new(&fleet);
        let stage = Resources { memory: Bytes(4 * GIB), ..Resources::default() };
        let mut attempts = vec![ran_out_on(None, None, Some(GIB))];
        let mut asked = Vec::new();
        while let Some(raise) = next(&stage, &attempts, 9, &fleet, &ledger) {
            assert_eq!(raise.step, Step::MoreOfHost);
            asked.push(raise.memory.0 / GIB);
            attempts.push(ran_out_on(None, Some(raise), Some(GIB)));
        }
        assert_eq!(asked, [6, 9, 10]);
    }

    #[test]
    fn other_endings_are_none_of_its_business() {
        let mut attempt = ran_out_on(None, None, None);
        attempt.ended.as_mut().unwrap().outcome = Outcome::Exited { code: 1 };
        let fleet = fleet(&[]);
        assert_eq!(next(&Resources::default(), &[attempt], 3, &fleet, &Ledger::new(&fleet)), None);
    }
}
