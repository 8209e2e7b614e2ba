//! What attempts were measured to use, and what that says about the next ones: the numbers that a pipeline leaves open.
//!
//! A stage is known by the digest of what it does in one of its modes ([`definition`]), so that a stage that was changed
//! starts anew. [`Samples`] reads the record, [`estimate`] makes one number of many, [`fill_in`] writes numbers into a
//! pipeline and says where each one comes from. Pure: does not know where samples are kept.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

use super::event::{Event, Place, Recorded, Role};
use super::outcome::{Outcome, Usage};
use super::raise::{Raise, Step};
use crate::graph::TaskId;
use crate::spec::{Action, Mode, Pipeline, Stage};
use crate::units::{Bytes, Millis};

pub mod estimate;
mod fill;

pub use fill::{Basis, Exceeded, Numbers, Origins, as_it_took, declares_memory, exceeded, fill_in, has_open_numbers};

/// How many of the newest samples of a definition on a model count: the largest of so many is their 98th percentile,
/// and what has changed outside the definition (data, drivers) is forgotten one day.
pub const WINDOW: u32 = 64;

/// What one attempt was measured to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Digest of what it carried out.
    pub definition: String,
    /// Model of its devices; `None` on the host.
    pub model: Option<String>,
    /// How long it took, of an attempt that succeeded from the start of its task.
    pub duration: Option<Millis>,
    /// The most device memory that it was seen to hold on one device, of an attempt that succeeded.
    pub gpu_memory: Option<Bytes>,
    /// Its peak of host memory, of an attempt that succeeded.
    pub memory: Option<Bytes>,
    /// Device memory that was not enough for it.
    pub ran_out: Option<Bytes>,
}

/// A sample, and which attempt of a run it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The task.
    pub task: TaskId,
    /// The attempt, counted from 1.
    pub number: u32,
    /// When it ended, ms since the Unix epoch.
    pub at: Millis,
    /// What it used.
    pub sample: Sample,
}

/// Returns the digest of what a stage does in one of its modes: everything that its use of time and memory can depend
/// on, and nothing of how it is named, ordered, limited, or estimated.
#[must_use]
pub fn definition(pipeline: &Pipeline, stage: &Stage, mode: &Mode) -> String {
    let mut text = String::new();
    let mut add = |what: &str, value: &dyn std::fmt::Debug| {
        writeln!(text, "{what} {value:?}").expect("a String takes everything");
    };
    match &stage.action {
        Action::Shell(line) => add("shell", &line.text),
        Action::Exec(words) => add("exec", &words.iter().map(|word| &word.text).collect::<Vec<_>>()),
        Action::Op { name, with } => {
            add("op", &name.text);
            for (key, value, _) in with {
                add("with", &(&key.text, value));
            }
        }
    }
    add("cwd", &stage.cwd.as_ref().map(|cwd| &cwd.text));
    add("inputs", &stage.inputs.iter().map(|input| &input.text).collect::<Vec<_>>());
    pipeline.env.iter().chain(&stage.env).for_each(|entry| add("env", &entry));
    // What it holds of devices may be open; what was asked for is not.
    add("gpus", &mode.auto.unwrap_or(mode.resources.gpus));
    add("cpus", &mode.resources.cpus);
    // 128 bits tell the stages of any state folder apart.
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

/// An attempt that has not ended.
#[derive(Debug)]
struct Open {
    number: u32,
    started: Millis,
    adopted: bool,
    place: Place,
    /// For how long it was suspended; of one that was when its orchestrator died nobody knows, for its sentinel let it go
    /// on.
    stood: Option<Millis>,
    suspended: Option<Millis>,
}

impl Open {
    const fn new(number: u32, started: Millis, place: Place) -> Self {
        Self { number, started, adopted: false, place, stood: Some(Millis::ZERO), suspended: None }
    }
}

/// What the attempts of one run used, as far as it counts: of each definition on each model the newest [`WINDOW`].
#[derive(Debug, Default)]
pub struct Samples {
    /// Of an attempt that went on without its orchestrator it is known when it ended only where its sentinel noted it.
    open: HashMap<(TaskId, Role), Open>,
    /// By definition and model, the oldest first.
    taken: HashMap<(String, Option<String>), VecDeque<Taken>>,
}

impl Samples {
    /// Takes in the next event of the run. Attempts that say nothing about another one, interrupted ones for example,
    /// are left out.
    pub fn take_in(&mut self, Recorded { at, event }: Recorded) {
        match event {
            Event::AttemptStarted { task, number, place } => {
                self.open.insert((task, place.role), Open::new(number, at, place));
            }
            Event::AttemptFinished { task, role, outcome, usage, .. } => {
                let Some(open) = self.open.remove(&(task, role)) else { return };
                let Open { number, started, adopted, place, stood, suspended } = open;
                // A backup begins from nothing, as the first attempt does.
                let from_nothing = number == 1 || role == Role::Backup;
                let ended = usage.ended.or((!adopted).then_some(at));
                let started = usage.began.map_or(started, |began| began.max(started));
                let took = ended.filter(|_| from_nothing).zip(stood).map(|(ended, stood)| {
                    // It may have ended while it was suspended: then it had run until that.
                    suspended.map_or(ended, |since| since.min(ended)) - started - stood
                });
                if let Some(sample) = sample(place, took, &outcome, &usage) {
                    self.keep(Taken { task, number, at, sample });
                }
            }
            Event::TaskSuspended { task } => {
                self.open.get_mut(&(task, Role::Main)).into_iter().for_each(|open| open.suspended = Some(at));
            }
            Event::TaskContinued { task } => {
                let Some(open) = self.open.get_mut(&(task, Role::Main)) else { return };
                let since = open.suspended.take();
                open.stood = open.stood.zip(since).map(|(stood, since)| stood + (at - since));
            }
            Event::RunResumed { adopted } => {
                self.open.retain(|(task, _), _| adopted.contains(task));
                for open in self.open.values_mut() {
                    open.adopted = true;
                    open.stood = open.stood.filter(|_| open.suspended.is_none());
                }
            }
            Event::RetryPlanned { task, raise: Some(Raise { step: Step::Again, .. }), .. } => self.take_back(task),
            Event::AttemptSpawned { .. }
            | Event::RetryPlanned { .. }
            | Event::TaskFailed { .. }
            | Event::TaskSkipped { .. }
            | Event::TaskCached { .. }
            | Event::TaskReopened { .. }
            | Event::Replanned { .. }
            | Event::StopRequested { .. }
            | Event::RunFinished { .. }
            | Event::FinishTold { .. } => {}
        }
    }

    /// Forgets that what a task had last was not enough for it.
    fn take_back(&mut self, task: TaskId) {
        let too_little = |taken: &Taken| taken.task == task && taken.sample.ran_out.is_some();
        let all = self.taken.values().flatten().filter(|taken| too_little(taken));
        let Some(last) = all.map(|taken| taken.number).max() else { return };
        self.taken.values_mut().for_each(|newest| newest.retain(|taken| !too_little(taken) || taken.number < last));
    }

    fn keep(&mut self, taken: Taken) {
        let of = (taken.sample.definition.clone(), taken.sample.model.clone());
        let newest = self.taken.entry(of).or_default();
        newest.push_back(taken);
        if newest.len() > WINDOW as usize {
            newest.pop_front();
        }
    }

    /// Returns the samples, those of one definition in the order in which they were taken.
    pub fn iter(&self) -> impl Iterator<Item = &Taken> {
        self.taken.values().flatten()
    }
}

/// Returns what an attempt says; `took` is `None` where an earlier attempt may have done part of the work.
fn sample(place: Place, took: Option<Millis>, outcome: &Outcome, usage: &Usage) -> Option<Sample> {
    if place.definition.is_empty() {
        return None;
    }
    let Place { definition, model, gpu_memory, .. } = place;
    let of = Sample { definition, model, ..Sample::default() };
    match outcome {
        Outcome::Succeeded => {
            let (gpu_memory, memory) = (usage.peak_gpu_memory, usage.peak_memory);
            Some(Sample { duration: took, gpu_memory, memory, ..of })
        }
        Outcome::OutOfMemory { device: Some(_) } => {
            let most = gpu_memory.max(usage.peak_gpu_memory.unwrap_or(Bytes::ZERO));
            (most > Bytes::ZERO).then_some(Sample { ran_out: Some(most), ..of })
        }
        Outcome::OutOfMemory { device: None }
        | Outcome::Exited { .. }
        | Outcome::Signalled { .. }
        | Outcome::TimedOut { .. }
        | Outcome::OutputMissing { .. }
        | Outcome::SpawnFailed { .. }
        | Outcome::Displaced { .. }
        | Outcome::Outrun
        | Outcome::Interrupted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph;
    use crate::spec::Source;

    fn pipeline(text: &str) -> Pipeline {
        let source = Source { name: "p.toml".to_owned(), text: text.to_owned() };
        graph::load(&source, &[], &[], graph::Limits::default()).expect("a good file").0
    }

    fn digest(text: &str) -> String {
        let pipeline = pipeline(text);
        definition(&pipeline, &pipeline.stages[0], &pipeline.stages[0].modes[0])
    }

    #[test]
    fn a_stage_is_known_by_what_it_does_and_not_by_what_it_asks_for() {
        let stage = |more: &str| digest(&format!("[stage.a]\nrun = 'train'\n{more}"));
        let known = stage("resources = { gpu_memory = '4GiB' }");
        for same in [
            "resources = { gpu_memory = 'auto' }",
            "resources = { gpu_memory = '6GiB', memory = '1GiB' }\nduration = '1h'\nretries = 3\npriority = 4",
            "resources = { gpu_memory = '4GiB' }\ntimeout = '1h'\nkind = 'train'",
        ] {
            assert_eq!(stage(same), known, "{same}");
        }
        for other in [
            "",
            "resources = { gpus = 2 }",
            "resources = { gpu_memory = '4GiB', cpus = 3 }",
            "resources = { gpu_memory = '4GiB' }\nenv = { BATCH = '64' }",
            "resources = { gpu_memory = '4GiB' }\ncwd = 'src'",
        ] {
            assert_ne!(stage(other), known, "{other}");
        }
        assert_eq!(
            digest("[stage.b]\nrun = 'train'\nresources = { gpu_memory = 'auto' }"),
            known,
            "a name says nothing"
        );
    }

    fn samples(events: &[Recorded]) -> Vec<Taken> {
        let mut samples = Samples::default();
        events.iter().for_each(|recorded| samples.take_in(recorded.clone()));
        samples.iter().cloned().collect()
    }

    fn started(number: u32, place: &Place) -> Event {
        Event::AttemptStarted { task: TaskId(0), number, place: place.clone() }
    }

    fn finished(outcome: Outcome, peak: Option<u64>) -> Event {
        let usage = Usage { peak_gpu_memory: peak.map(Bytes), peak_memory: Some(Bytes(5)), ..Usage::default() };
        Event::AttemptFinished { task: TaskId(0), role: Role::Main, outcome, usage, logged: false }
    }

    #[test]
    fn what_succeeded_or_ran_out_of_memory_says_something() {
        let place = Place {
            definition: "d".into(),
            model: Some("T4".into()),
            gpu_memory: Bytes(100),
            devices: vec!["box/gpu0".into()],
            ..Place::default()
        };
        let events = [
            started(1, &place),
            finished(Outcome::OutOfMemory { device: Some("box/gpu0".into()) }, Some(40)),
            started(2, &place),
            finished(Outcome::Exited { code: 1 }, Some(70)),
            started(3, &place),
            finished(Outcome::Succeeded, Some(90)),
        ];
        let events: Vec<_> = (0..).zip(events).map(|(at, event)| Recorded { at: Millis(10 * at), event }).collect();
        let taken = samples(&events);
        let said: Vec<_> = taken.iter().map(|one| (one.number, one.sample.ran_out, one.sample.gpu_memory)).collect();
        assert_eq!(said, [(1, Some(Bytes(100)), None), (3, None, Some(Bytes(90)))]);
        assert_eq!(taken[1].sample.duration, None, "an earlier attempt may have left a checkpoint");
        let whole = samples(&[events[4].clone(), events[5].clone()].map(|mut one| {
            if let Event::AttemptStarted { number, .. } = &mut one.event {
                *number = 1;
            }
            one
        }));
        assert_eq!((whole[0].sample.duration, whole[0].sample.memory), (Some(Millis(10)), Some(Bytes(5))));
    }

    #[test]
    fn the_time_in_which_a_command_had_to_wait_for_room_is_none_that_it_takes() {
        let place = Place { definition: "d".into(), ..Place::default() };
        let mut ended = finished(Outcome::Succeeded, None);
        if let Event::AttemptFinished { usage, .. } = &mut ended {
            usage.began = Some(Millis(70));
        }
        let events = [(Millis(10), started(1, &place)), (Millis(100), ended)];
        let taken = samples(&events.map(|(at, event)| Recorded { at, event }));
        assert_eq!(taken[0].sample.duration, Some(Millis(30)));
    }

    #[test]
    fn what_others_left_too_little_of_is_no_need() {
        let place = Place {
            definition: "d".into(),
            gpu_memory: Bytes(100),
            devices: vec!["box/gpu0".into()],
            ..Place::default()
        };
        let again = |step| {
            let raise = Raise { step, alone: false, gpu_memory: Bytes(100), memory: Bytes::ZERO };
            let planned = Event::RetryPlanned { task: TaskId(0), not_before: Millis(3), raise: Some(raise) };
            let ended = finished(Outcome::OutOfMemory { device: Some("box/gpu0".into()) }, Some(40));
            let events = [started(1, &place), ended, planned].map(|event| Recorded { at: Millis(1), event });
            samples(&events).len()
        };
        assert_eq!((again(Step::Again), again(Step::More)), (0, 1));
    }

    #[test]
    fn attempts_of_earlier_versions_say_nothing() {
        let events = [started(1, &Place::default()), finished(Outcome::Succeeded, None)];
        assert!(samples(&events.map(|event| Recorded { at: Millis(1), event })).is_empty());
    }
}
