//! Numbers that a pipeline leaves open, written into it, and where every number comes from.

use std::collections::BTreeMap;

use super::estimate::{self, Estimate};
use super::{Sample, definition};
use crate::fleet::{Device, Fleet};
use crate::probe::model;
use crate::run::admission::most_of_each;
use crate::spec::{Duration, Gpus, Mode, Pipeline, Stage};
use crate::units::{Bytes, Millis, Speed};

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The pipeline file says it.
    Declared,
    /// From attempts before.
    Learned {
        /// How many.
        runs: u32,
    },
    /// Nothing says it.
    Default,
}

impl Basis {
    /// Returns the stable word of JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Learned { .. } => "learned",
            Self::Default => "default",
        }
    }

    /// Returns how many attempts it was learned from; `None` if it was not.
    #[must_use]
    pub const fn runs(self) -> Option<u32> {
        match self {
            Self::Learned { runs } => Some(runs),
            Self::Declared | Self::Default => None,
        }
    }
}

/// Where the numbers of one mode come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Its duration.
    pub duration: Basis,
    /// Its device memory; `None` if it asks for none.
    pub gpu_memory: Option<Basis>,
    /// The most device memory that it was seen to hold, or to find too little, where what was learned of that is more
    /// than any device has: it asks for all of the largest.
    pub beyond: Option<Bytes>,
    /// What that gives, where it is less than what was seen: all of it will hardly do.
    pub too_small: Option<Bytes>,
}

/// Where the numbers of a pipeline come from: `[n_stages][n_modes]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Vec<Numbers>>);

impl Origins {
    /// Returns the origins in a pipeline for which nothing was learned.
    #[must_use]
    pub fn of(pipeline: &Pipeline) -> Self {
        Self(pipeline.stages.iter().map(|stage| stage.modes.iter().map(unlearned).collect()).collect())
    }

    /// Returns where the numbers of a stage in one of its modes come from.
    #[must_use]
    pub fn mode(&self, stage: usize, mode: usize) -> Numbers {
        let known = self.0.get(stage).and_then(|modes| modes.get(mode)).copied();
        known.unwrap_or(Numbers { duration: Basis::Declared, gpu_memory: None, beyond: None, too_small: None })
    }
}

fn unlearned(mode: &Mode) -> Numbers {
    let gpu_memory = match (mode.auto, mode.resources.gpu_memory) {
        (Some(_), _) => Some(Basis::Default),
        (None, Bytes::ZERO) => None,
        (None, _) => Some(Basis::Declared),
    };
    let duration = if is_open(&mode.duration) { Basis::Default } else { Basis::Declared };
    Numbers { duration, gpu_memory, beyond: None, too_small: None }
}

fn is_open(duration: &Duration) -> bool {
    duration.base.is_none() && duration.by_model.is_empty()
}

/// Whether a pipeline leaves any number open that can be learned.
#[must_use]
pub fn has_open_numbers(pipeline: &Pipeline) -> bool {
    let mut modes = pipeline.stages.iter().flat_map(|stage| &stage.modes);
    modes.any(|mode| mode.auto.is_some() || is_open(&mode.duration))
}

/// Fills in durations that are absent and memory that is `"auto"`, as far as `history` knows them on this fleet, and says
/// where every number comes from.
///
/// A duration is learned for each device model, and for other models by their speed. Device memory is one number for
/// all of the fleet's devices: the largest of what it takes on each model. What would be more than any device has
/// leaves the device to the stage alone, as if nothing were known.
pub fn fill_in(pipeline: &mut Pipeline, fleet: &Fleet, history: &[Sample]) -> Origins {
    let mut origins = Origins::of(pipeline);
    let mut by_definition: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in history {
        by_definition.entry(&sample.definition).or_default().push(sample);
    }
    for stage in 0..pipeline.stages.len() {
        for mode in 0..pipeline.stages[stage].modes.len() {
            let of = &pipeline.stages[stage];
            let digest = definition(pipeline, of, &of.modes[mode]);
            let Some(samples) = by_definition.get(digest.as_str()) else { continue };
            let numbers = &mut origins.0[stage][mode];
            fill_in_mode(&mut pipeline.stages[stage].modes[mode], numbers, fleet, samples);
        }
    }
    origins
}

/// A stage that was seen to hold more of a device than it declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Index of the stage.
    pub stage: usize,
    /// The most that its tasks declare.
    pub declared: Bytes,
    /// The most that one of them held, or that was not enough for one.
    pub seen: Bytes,
    /// Whether it was not enough: then nobody has seen it held.
    pub ran_out: bool,
}

/// Whether any stage declares how much it needs of a device that it shares.
#[must_use]
pub fn declares_memory(pipeline: &Pipeline) -> bool {
    pipeline.stages.iter().flat_map(|stage| &stage.modes).any(|mode| declared(mode).is_some())
}

/// Returns the stages that share devices by a number that `history` has seen to be too small, by more than the devices'
/// headroom is there for.
#[must_use]
pub fn exceeded(pipeline: &Pipeline, fleet: &Fleet, history: &[Sample]) -> Vec<Exceeded> {
    let headroom = fleet.devices.iter().map(|device| device.headroom).min().unwrap_or_default();
    let mut most: BTreeMap<&str, (Bytes, bool)> = BTreeMap::new();
    for sample in history {
        let of = most.entry(&sample.definition).or_default();
        let (held, ran_out) = (sample.gpu_memory.unwrap_or_default(), sample.ran_out.unwrap_or_default());
        *of = (*of).max((held, false)).max((ran_out, true));
    }
    let of_stage = |(index, stage): (usize, &Stage)| {
        let of_mode = |mode: &Mode| {
            let declared = declared(mode)?;
            let (seen, ran_out) = *most.get(definition(pipeline, stage, mode).as_str())?;
            (seen > declared + headroom).then_some(Exceeded { stage: index, declared, seen, ran_out })
        };
        stage.modes.iter().filter_map(of_mode).max_by_key(|exceeded| exceeded.seen - exceeded.declared)
    };
    pipeline.stages.iter().enumerate().filter_map(of_stage).collect()
}

/// Returns what a mode declares of a device that others share; `None` where it has it alone or leaves it open.
fn declared(mode: &Mode) -> Option<Bytes> {
    let shares = matches!(mode.resources.gpus, Gpus::Shared | Gpus::Share(_)) && mode.auto.is_none();
    Some(mode.resources.gpu_memory).filter(|memory| shares && *memory > Bytes::ZERO)
}

fn fill_in_mode(mode: &mut Mode, numbers: &mut Numbers, fleet: &Fleet, samples: &[&Sample]) {
    if is_open(&mode.duration)
        && let Some((duration, runs)) = duration(fleet, samples)
    {
        mode.duration = duration;
        numbers.duration = Basis::Learned { runs };
    }
    if let Some(gpus) = mode.auto
        && let Some(Estimate { value, runs }) = gpu_memory(fleet, samples)
    {
        numbers.gpu_memory = Some(Basis::Learned { runs });
        let seen = samples.iter().filter_map(|sample| sample.gpu_memory.max(sample.ran_out)).max();
        mode.seen = seen.unwrap_or_default();
        // As large as the smallest of the devices that it would have.
        let mut largest: Vec<&Device> = fleet.devices.iter().collect();
        largest.sort_by_key(|device| std::cmp::Reverse(device.whole_memory()));
        let gang = if let Gpus::Whole(gang) = gpus { gang as usize } else { 1 };
        let least = largest.get(gang.saturating_sub(1));
        let (most, kept) = least.map_or_else(Default::default, |device| (device.whole_memory(), device.headroom));
        let of = &mut mode.resources;
        if value <= most_of_each(fleet, gpus) {
            (of.gpus, of.gpu_memory) = (gpus, value);
        } else {
            // Its driver or a desktop may keep as much as they do everywhere.
            (of.gpus, of.gpu_memory, of.alone) = (gpus.whole(), value.min(most - kept), true);
            numbers.beyond = seen;
            // What was held may have been held of what is kept; who ran out had no use of that.
            let held = samples.iter().any(|sample| sample.gpu_memory > Some(most + kept));
            let ran_out = samples.iter().any(|sample| sample.ran_out >= Some(most));
            numbers.too_small = Some(most).filter(|_| least.is_some() && (held || ran_out));
        }
    }
}

/// Returns the durations by model and by speed, and from how many attempts.
fn duration(fleet: &Fleet, samples: &[&Sample]) -> Option<(Duration, u32)> {
    let mut times: BTreeMap<Option<&str>, Vec<Millis>> = BTreeMap::new();
    for sample in samples {
        times.entry(sample.model.as_deref()).or_default().extend(sample.duration);
    }
    let estimates = times.into_iter().filter_map(|(model, times)| Some((model, estimate::time(&times)?)));
    let estimates: Vec<_> = estimates.collect();
    let all = estimates.iter().map(|(_, estimate)| estimate.runs).sum();
    (all > 0).then(|| (as_it_took(fleet, estimates.into_iter().map(|(model, known)| (model, known.value))), all))
}

/// Returns the duration of what took so long on each of some models, `None` being the host: on those as it was, on others
/// by how fast they are.
pub fn as_it_took<'m>(fleet: &Fleet, times: impl IntoIterator<Item = (Option<&'m str>, Millis)>) -> Duration {
    let mut duration = Duration::default();
    for (model, time) in times {
        // Where models disagree on what it takes on a device of speed 1, the longest counts.
        let speed = model.map_or(Speed::ONE, |model| speed(fleet, model));
        duration.base = duration.base.max(Some(at_speed_one(time, speed)));
        if let Some(model) = model {
            duration.by_model.insert(model.to_owned(), time);
        }
    }
    duration
}

/// Returns the speed of a model: as the fleet has it, else as it is known.
fn speed(fleet: &Fleet, name: &str) -> Speed {
    let in_fleet = fleet.devices.iter().find(|device| device.model == name).map(|device| device.speed);
    in_fleet.or_else(|| model::speed(name)).unwrap_or(Speed::ONE)
}

fn at_speed_one(time: Millis, speed: Speed) -> Millis {
    let scaled = (u128::from(time.0) * u128::from(speed.0)).div_ceil(u128::from(Speed::ONE.0));
    Millis(u64::try_from(scaled).unwrap_or(u64::MAX)).min(Millis::LONGEST)
}

fn gpu_memory(fleet: &Fleet, samples: &[&Sample]) -> Option<Estimate<Bytes>> {
    let estimate = |of: &dyn Fn(&Sample) -> bool| {
        let chosen = || samples.iter().filter(|sample| of(sample));
        let peaks: Vec<_> = chosen().filter_map(|sample| sample.gpu_memory).collect();
        let ran_out: Vec<_> = chosen().filter_map(|sample| sample.ran_out).collect();
        estimate::memory(&peaks, &ran_out)
    };
    let models: std::collections::BTreeSet<&str> = fleet.devices.iter().map(|device| device.model.as_str()).collect();
    let on_model = |model: &str| estimate(&|sample| sample.model.as_deref() == Some(model));
    // A model on which it never ran is taken to be like all others together.
    let each = models.into_iter().map(|model| on_model(model).or_else(|| estimate(&|_| true)));
    each.flatten().max_by_key(|estimate| (estimate.value, estimate.runs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph;
    use crate::spec::{Resources, Source};

    const GIB: u64 = Bytes::GIB.0;

    fn pipeline(resources: &str) -> Pipeline {
        let text = format!("[stage.a]\nrun = 'train'\nresources = {{ {resources} }}\n");
        let source = Source { name: "p.toml".to_owned(), text };
        graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file").0
    }

    fn fleet(devices: &[(&str, u64, u64)]) -> Fleet {
        let device = |(model, gib, speed): &(&str, u64, u64)| Device {
            model: (*model).to_owned(),
            memory: Bytes(gib * GIB),
            speed: Speed(*speed),
            ..Device::default()
        };
        Fleet { devices: devices.iter().map(device).collect(), ..Fleet::default() }
    }

    fn of_first(pipeline: &Pipeline) -> String {
        definition(pipeline, &pipeline.stages[0], &pipeline.stages[0].modes[0])
    }

    fn sample(pipeline: &Pipeline, model: Option<&str>, ms: u64, gib: u64) -> Sample {
        Sample {
            definition: of_first(pipeline),
            model: model.map(str::to_owned),
            duration: Some(Millis(ms)),
            gpu_memory: Some(Bytes(gib * GIB)),
            ..Sample::default()
        }
    }

    fn filled(resources: &str, devices: &[(&str, u64, u64)], history: &[(Option<&str>, u64, u64)]) -> (Mode, Numbers) {
        let mut pipeline = pipeline(resources);
        let history: Vec<_> = history.iter().map(|(model, ms, gib)| sample(&pipeline, *model, *ms, *gib)).collect();
        let digest = of_first(&pipeline);
        let origins = fill_in(&mut pipeline, &fleet(devices), &history);
        assert_eq!(of_first(&pipeline), digest, "what was learned is no part of the definition");
        (pipeline.stages[0].modes[0].clone(), origins.mode(0, 0))
    }

    #[test]
    fn what_was_seen_to_need_more_than_any_device_gives_is_told_so() {
        let too_small = |gib: u64, ran_out: bool| {
            let mut pipeline = pipeline("gpu_memory = 'auto'");
            let mut sample = sample(&pipeline, Some("T4"), 1, gib);
            if ran_out {
                sample.ran_out = sample.gpu_memory.take();
            }
            let mut fleet = fleet(&[("T4", 8, 1_000_000), ("T4", 16, 1_000_000)]);
            fleet.devices[1].headroom = Bytes(GIB);
            fill_in(&mut pipeline, &fleet, &[sample]).mode(0, 0).too_small
        };
        let gives = Some(Bytes(15 * GIB));
        assert_eq!([12, 16, 17].map(|gib| too_small(gib, false)), [None, None, gives]);
        assert_eq!([14, 15].map(|gib| too_small(gib, true)), [None, gives]);
        let (_, numbers) = filled("gpu_memory = 'auto'", &[], &[(Some("T4"), 1, 4)]);
        assert_eq!(numbers.too_small, None, "there is none");
    }

    #[test]
    fn without_history_auto_means_a_device_alone() {
        let (mode, numbers) = filled("gpu_memory = 'auto'", &[("T4", 16, 1_000_000)], &[]);
        assert_eq!((mode.resources.gpus, mode.resources.gpu_memory), (Gpus::Whole(1), Bytes::ZERO));
        assert_eq!(
            numbers,
            Numbers { duration: Basis::Default, gpu_memory: Some(Basis::Default), beyond: None, too_small: None }
        );
    }

    #[test]
    fn with_history_auto_means_a_share_of_the_memory() {
        let (mode, numbers) = filled("gpu_memory = 'auto'", &[("T4", 16, 1_000_000)], &[(Some("T4"), 5_000, 8)]);
        assert_eq!((mode.resources.gpus, mode.resources.gpu_memory), (Gpus::Shared, Bytes(10 * GIB)));
        assert_eq!(numbers.gpu_memory, Some(Basis::Learned { runs: 1 }));
        assert_eq!(mode.duration.by_model["T4"], Millis(5_500));
    }

    #[test]
    fn what_is_declared_stays() {
        let (mode, numbers) = filled("gpu_memory = '4GiB'", &[("T4", 16, 1_000_000)], &[(Some("T4"), 5_000, 8)]);
        assert_eq!((mode.resources.gpus, mode.resources.gpu_memory), (Gpus::Shared, Bytes(4 * GIB)));
        assert_eq!(numbers.gpu_memory, Some(Basis::Declared));
        assert_eq!(numbers.duration, Basis::Learned { runs: 1 });
    }

    #[test]
    fn what_was_seen_to_hold_more_than_it_declares_is_named() {
        let seen = |resources: &str, gib: u64| {
            let pipeline = pipeline(resources);
            let history = [sample(&pipeline, Some("T4"), 1, 2), sample(&pipeline, Some("L4"), 1, gib)];
            let mut fleet = fleet(&[("T4", 16, 1_000_000)]);
            fleet.devices[0].headroom = Bytes(GIB);
            exceeded(&pipeline, &fleet, &history)
        };
        let more = Exceeded { stage: 0, declared: Bytes(4 * GIB), seen: Bytes(15 * GIB), ran_out: false };
        assert_eq!(seen("gpu_memory = '4GiB'", 15), [more]);
        assert_eq!(seen("gpus = 0.5, gpu_memory = '4GiB'", 15), [more]);
        for kept in ["gpu_memory = '14GiB'", "gpu_memory = 'auto'", "gpus = 1, gpu_memory = '4GiB'", "gpus = 1"] {
            assert_eq!(seen(kept, 15), [], "{kept}");
        }
    }

    #[test]
    fn more_than_any_device_has_leaves_it_the_device_alone() {
        let (mode, numbers) = filled("gpu_memory = 'auto'", &[("T4", 16, 1_000_000)], &[(Some("T4"), 5_000, 15)]);
        assert_eq!(numbers.beyond, Some(Bytes(15 * GIB)));
        assert_eq!((mode.resources.gpus, mode.resources.gpu_memory), (Gpus::Whole(1), Bytes(16 * GIB)));
    }

    #[test]
    fn more_than_the_smaller_of_two_devices_has_leaves_it_both_alone() {
        let devices = [("T4", 16, 1_000_000), ("A100", 80, 1_000_000)];
        let (mode, numbers) = filled("gpus = 2, gpu_memory = 'auto'", &devices, &[(Some("T4"), 5_000, 40)]);
        assert_eq!(numbers.beyond, Some(Bytes(40 * GIB)));
        let Resources { gpus, gpu_memory, alone, .. } = mode.resources;
        assert_eq!((gpus, gpu_memory, alone), (Gpus::Whole(2), Bytes(16 * GIB), true));
    }

    #[test]
    fn each_model_counts_by_itself_and_the_largest_is_reserved() {
        let devices = [("T4", 16, 100_000), ("H100", 80, 1_000_000)];
        let history = [(Some("T4"), 9_000, 4), (Some("H100"), 1_000, 8)];
        let (mode, numbers) = filled("gpu_memory = 'auto'", &devices, &history);
        assert_eq!(mode.resources.gpu_memory, Bytes(10 * GIB));
        assert_eq!(numbers.duration, Basis::Learned { runs: 2 });
        assert_eq!((mode.duration.by_model["T4"], mode.duration.by_model["H100"]), (Millis(9_900), Millis(1_100)));
        assert_eq!(mode.duration.base, Some(Millis(1_100)), "1.1 s on an H100 is longer than 9.9 s at a tenth of it");
    }

    #[test]
    fn another_model_is_taken_to_need_the_same_memory_and_time_by_its_speed() {
        let (mode, _) = filled("gpu_memory = 'auto'", &[("L4", 24, 500_000)], &[(Some("H100"), 1_000, 8)]);
        assert_eq!(mode.resources.gpu_memory, Bytes(10 * GIB));
        assert_eq!(mode.duration.base, Some(Millis(1_100)));
    }

    #[test]
    fn what_took_so_long_on_a_model_takes_as_long_on_that_and_by_speed_on_others() {
        let fleet = fleet(&[("H100", 80, 3_000_000), ("L4", 24, 1_000_000)]);
        let duration = as_it_took(&fleet, [(Some("H100"), Millis(1_000))]);
        assert_eq!((duration.by_model["H100"], duration.base), (Millis(1_000), Some(Millis(3_000))));
        assert_eq!(
            as_it_took(&fleet, [(None, Millis(7))]),
            Duration { base: Some(Millis(7)), by_model: BTreeMap::new() }
        );
    }

    #[test]
    fn a_stage_on_the_host_learns_its_duration() {
        let (mode, numbers) = filled("cpus = 1", &[], &[(None, 2_000, 0), (None, 3_000, 0)]);
        assert_eq!((mode.duration.base, mode.duration.by_model.len()), (Some(Millis(3_198)), 0));
        assert_eq!(
            numbers,
            Numbers { duration: Basis::Learned { runs: 2 }, gpu_memory: None, beyond: None, too_small: None }
        );
    }
}
