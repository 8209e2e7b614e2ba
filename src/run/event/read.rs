//! How an event is read back: its keys at once, whatever it is about, and then what it is.
//!
//! A derived reader of tagged values keeps every key and value aside until the tag is known; a record of 100,000 tasks
//! is read several times as fast without. What is recorded does not depend on it.

use serde::Deserialize;

use super::{Because, Event, Intent, Place, Process, Role, RunEnd, StopReason};
use crate::graph::TaskId;
use crate::run::outcome::{Outcome, Usage};
use crate::run::raise::Raise;
use crate::units::Millis;

/// The words for the kinds of events.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    AttemptStarted,
    AttemptSpawned,
    AttemptFinished,
    TaskSuspended,
    TaskContinued,
    RetryPlanned,
    TaskFailed,
    TaskSkipped,
    TaskCached,
    TaskReopened,
    Replanned,
    StopRequested,
    RunFinished,
    FinishTold,
    RunResumed,
}

/// Every key that an event may have.
#[derive(Deserialize)]
pub(super) struct Keys {
    event: Kind,
    task: Option<TaskId>,
    number: Option<u32>,
    place: Option<Place>,
    #[serde(default)]
    role: Role,
    process: Option<Process>,
    outcome: Option<Outcome>,
    usage: Option<Usage>,
    logged: Option<bool>,
    not_before: Option<Millis>,
    raise: Option<Raise>,
    because: Option<TaskId>,
    log: Option<String>,
    reason: Option<StopReason>,
    end: Option<RunEnd>,
    failed: Option<String>,
    lacks: Option<String>,
    #[serde(default)]
    adopted: Vec<TaskId>,
    why: Option<Because>,
    before: Option<Millis>,
    after: Option<Millis>,
    order: Option<Vec<TaskId>>,
    #[serde(default)]
    moved: Vec<Intent>,
}

/// A key that the event cannot be without.
#[derive(Debug, thiserror::Error)]
#[error("missing field `{0}`")]
pub(super) struct Missing(&'static str);

impl TryFrom<Keys> for Event {
    type Error = Missing;

    fn try_from(keys: Keys) -> Result<Self, Missing> {
        let task = keys.task.ok_or(Missing("task"));
        Ok(match keys.event {
            Kind::AttemptStarted => Self::AttemptStarted {
                task: task?,
                number: keys.number.ok_or(Missing("number"))?,
                place: keys.place.ok_or(Missing("place"))?,
            },
            Kind::AttemptSpawned => {
                Self::AttemptSpawned { task: task?, role: keys.role, process: keys.process.ok_or(Missing("process"))? }
            }
            Kind::AttemptFinished => Self::AttemptFinished {
                task: task?,
                role: keys.role,
                outcome: keys.outcome.ok_or(Missing("outcome"))?,
                usage: keys.usage.ok_or(Missing("usage"))?,
                logged: keys.logged.ok_or(Missing("logged"))?,
            },
            Kind::TaskSuspended => Self::TaskSuspended { task: task? },
            Kind::TaskContinued => Self::TaskContinued { task: task? },
            Kind::RetryPlanned => Self::RetryPlanned {
                task: task?,
                not_before: keys.not_before.ok_or(Missing("not_before"))?,
                raise: keys.raise,
            },
            Kind::TaskFailed => Self::TaskFailed { task: task?, lacks: keys.lacks },
            Kind::TaskSkipped => Self::TaskSkipped { task: task?, because: keys.because },
            Kind::TaskCached => Self::TaskCached { task: task?, log: keys.log },
            Kind::TaskReopened => Self::TaskReopened { task: task? },
            Kind::Replanned => Self::Replanned {
                because: keys.why.ok_or(Missing("why"))?,
                before: keys.before.ok_or(Missing("before"))?,
                after: keys.after.ok_or(Missing("after"))?,
                order: keys.order.ok_or(Missing("order"))?,
                moved: keys.moved,
            },
            Kind::StopRequested => Self::StopRequested { reason: keys.reason.ok_or(Missing("reason"))? },
            Kind::RunFinished => Self::RunFinished { end: keys.end.ok_or(Missing("end"))? },
            Kind::FinishTold => Self::FinishTold { failed: keys.failed },
            Kind::RunResumed => Self::RunResumed { adopted: keys.adopted },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    #[test]
    fn every_kind_is_read_back_and_none_without_what_it_needs() {
        let task = TaskId(1);
        let place = Place { node: "box".into(), definition: "d".into(), memory: Bytes(1), ..Place::default() };
        let outcome = Outcome::OutOfMemory { device: Some("a".into()) };
        let raise = r#"{"step":"more","alone":false,"gpu_memory":1,"memory":2}"#;
        let raise: Raise = serde_json::from_str(raise).unwrap();
        let events = [
            Event::AttemptStarted { task, number: 1, place },
            Event::AttemptSpawned { task, role: Role::Main, process: Process { pid: 1, started: 2 } },
            Event::AttemptSpawned { task, role: Role::Backup, process: Process { pid: 1, started: 2 } },
            Event::AttemptFinished { task, role: Role::Backup, outcome, usage: Usage::default(), logged: true },
            Event::RetryPlanned { task, not_before: Millis(1), raise: Some(raise) },
            Event::TaskSuspended { task },
            Event::TaskContinued { task },
            Event::TaskFailed { task, lacks: None },
            Event::TaskFailed { task, lacks: Some("needs 3 CPUs".into()) },
            Event::TaskSkipped { task, because: Some(task) },
            Event::TaskSkipped { task, because: None },
            Event::TaskCached { task, log: Some("a.log".into()) },
            Event::TaskReopened { task },
            Event::Replanned {
                because: Because::Drift { expected: Millis(3), planned: Millis(2), task: Some(task) },
                before: Millis(3),
                after: Millis(2),
                order: vec![task],
                moved: vec![Intent { task, mode: 0, node: "box".into(), devices: vec!["box/gpu0".into()] }],
            },
            Event::StopRequested { reason: StopReason::Signal },
            Event::RunFinished { end: RunEnd::Failed },
            Event::FinishTold { failed: Some("why".into()) },
            Event::FinishTold { failed: None },
            Event::RunResumed { adopted: vec![task] },
            Event::RunResumed { adopted: Vec::new() },
        ];
        for event in events {
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
            let (tag, _) = text.split_once(',').unwrap_or((text.trim_end_matches('}'), ""));
            let bare = serde_json::from_str::<Event>(&format!("{tag}}}"));
            let needs_nothing = matches!(&event, Event::FinishTold { .. } | Event::RunResumed { .. });
            assert_eq!(bare.is_ok(), needs_nothing, "{text}");
        }
        assert!(serde_json::from_str::<Event>(r#"{"event":"new","task":1}"#).is_err());
    }
}
