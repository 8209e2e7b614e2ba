//! A run as an OpenTelemetry trace in OTLP's JSON encoding, as collectors read it from a file or take it by POST.
//!
//! Pure. The run is the root span, each task that was tried a span below it, each attempt one below its task; what a task
//! came after is linked. Ids depend on nothing but names, so that the same run is the same trace however often it is
//! written (OTLP 1.x, "OpenTelemetry Protocol File Exporter" and "JSON Protobuf Encoding").

use serde_json::{Value, json};

use super::json::{Header, outcome_code, state_word, task_word};
use crate::run::event::RunEnd;
use crate::run::state::{Attempt, Phase, RunState, TaskState};
use crate::run::store::TaskHeader;
use crate::units::Millis;

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u32 = 1;
/// `STATUS_CODE_OK` and `STATUS_CODE_ERROR`.
const OK: u32 = 1;
const ERROR: u32 = 2;

/// Returns the trace of a run on `host`. What still runs ends at `now`, in ms since the Unix epoch, and says that it is
/// not finished.
#[must_use]
pub fn trace(header: &Header<'_>, host: &str, tasks: &[TaskHeader], state: &RunState, now: Millis) -> Value {
    let trace = Trace { header, tasks, now };
    let mut spans = vec![trace.root(state)];
    for (task, happened) in tasks.iter().zip(&state.tasks) {
        if !happened.attempts.is_empty() {
            spans.push(trace.task(task, happened));
            let attempts = (1..).zip(&happened.attempts);
            spans.extend(attempts.map(|(number, attempt)| trace.attempt(task, number, attempt)));
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        ("service.name", text("trainyard")),
        ("service.version", text(version)),
        ("service.instance.id", text(header.run)),
        ("host.name", text(host)),
    ];
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(resource)},
        "scopeSpans": [{"scope": {"name": "trainyard", "version": version}, "spans": spans}],
    }]})
}

struct Trace<'a> {
    header: &'a Header<'a>,
    tasks: &'a [TaskHeader],
    now: Millis,
}

impl Trace<'_> {
    fn trace_id(&self) -> String {
        id(&["trace", self.header.run], 16)
    }

    fn root_id(&self) -> String {
        id(&["run", self.header.run], 8)
    }

    fn task_id(&self, task: &str) -> String {
        id(&["task", self.header.run, task], 8)
    }

    fn root(&self, state: &RunState) -> Value {
        let word = state_word(state.end, self.header.alive);
        let last = state.tasks.iter().filter_map(|task| self.last(task)).max();
        let end = match state.end {
            Some((at, _)) => at,
            None if self.header.alive => self.now,
            None => last.unwrap_or(self.header.started),
        };
        let own = [
            ("trainyard.run", text(self.header.run)),
            ("trainyard.pipeline", text(self.header.pipeline)),
            ("trainyard.state", text(word)),
            ("trainyard.tasks", whole(self.tasks.len() as u64)),
        ];
        let status = match state.end {
            Some((_, RunEnd::Succeeded)) => json!({"code": OK}),
            Some((_, RunEnd::Failed | RunEnd::Interrupted)) => json!({"code": ERROR, "message": word}),
            None => json!({}),
        };
        let mut span = self.span(self.root_id(), self.header.pipeline, (self.header.started, end), &own, status);
        self.say_if_open(&mut span, state.end.is_none());
        span
    }

    fn task(&self, task: &TaskHeader, happened: &TaskState) -> Value {
        let first = happened.attempts.first().map_or(self.header.started, |attempt| attempt.started);
        let end = self.last(happened).unwrap_or(first);
        let word = task_word(happened.phase, self.header.alive);
        let own = [
            ("trainyard.task", text(&task.name)),
            ("trainyard.stage", text(&task.stage)),
            ("trainyard.state", text(word)),
            ("trainyard.critical", json!({"boolValue": task.critical})),
        ];
        let status = match happened.phase {
            Phase::Succeeded | Phase::Cached => json!({"code": OK}),
            Phase::Failed => json!({"code": ERROR, "message": word}),
            Phase::Waiting | Phase::Delayed(_) | Phase::Running | Phase::Skipped => json!({}),
        };
        let mut span = self.span(self.task_id(&task.name), &task.name, (first, end), &own, status);
        span["parentSpanId"] = self.root_id().into();
        let before = task.after.iter().filter_map(|before| self.tasks.get(before.index()));
        let link = |before: &TaskHeader| json!({"traceId": self.trace_id(), "spanId": self.task_id(&before.name)});
        let links: Vec<Value> = before.map(link).collect();
        if !links.is_empty() {
            span["links"] = links.into();
        }
        self.say_if_open(&mut span, happened.open().next().is_some());
        span
    }

    fn attempt(&self, task: &TaskHeader, number: u64, attempt: &Attempt) -> Value {
        let end = attempt.ended.as_ref().map_or_else(|| self.open_end(attempt), |ended| ended.at);
        let devices: Vec<Value> = attempt.place.devices.iter().map(|id| text(id)).collect();
        let mut own = vec![
            ("trainyard.task", text(&task.name)),
            ("trainyard.attempt", whole(number)),
            ("trainyard.node", text(&attempt.place.node)),
            ("trainyard.devices", json!({"arrayValue": {"values": devices}})),
            ("trainyard.gpu_memory_bytes", whole(attempt.place.gpu_memory.0)),
        ];
        let outcome = outcome_code(attempt, self.header.alive);
        own.extend(outcome.as_deref().map(|outcome| ("trainyard.outcome", text(outcome))));
        if let Some(ended) = &attempt.ended {
            let peaks = [
                ("trainyard.peak_memory_bytes", ended.usage.peak_memory),
                ("trainyard.peak_gpu_memory_bytes", ended.usage.peak_gpu_memory),
            ];
            own.extend(peaks.into_iter().filter_map(|(name, peak)| Some((name, whole(peak?.0)))));
        }
        let status = match (&attempt.ended, outcome) {
            (Some(ended), _) if ended.outcome.is_success() => json!({"code": OK}),
            (_, Some(outcome)) => json!({"code": ERROR, "message": outcome}),
            (_, None) => json!({}),
        };
        let id = id(&["attempt", self.header.run, &task.name, &number.to_string()], 8);
        let name = format!("{} #{number}", task.name);
        let mut span = self.span(id, &name, (attempt.started, end), &own, status);
        span["parentSpanId"] = self.task_id(&task.name).into();
        self.say_if_open(&mut span, attempt.ended.is_none());
        let pauses = attempt.pauses.iter();
        let turns = pauses.flat_map(|(from, until)| [(Some(*from), "suspended"), (*until, "continued")]);
        let event = |(at, name): (Option<Millis>, &str)| Some(json!({"timeUnixNano": nanoseconds(at?), "name": name}));
        let events: Vec<Value> = turns.filter_map(event).collect();
        if !events.is_empty() {
            span["events"] = events.into();
        }
        span
    }

    fn span(
        &self,
        id: String,
        name: &str,
        (from, to): (Millis, Millis),
        own: &[(&str, Value)],
        status: Value,
    ) -> Value {
        json!({
            "traceId": self.trace_id(), "spanId": id, "name": name, "kind": INTERNAL,
            "startTimeUnixNano": nanoseconds(from), "endTimeUnixNano": nanoseconds(to.max(from)),
            "attributes": attributes(own.iter().cloned()), "status": status,
        })
    }

    /// Returns the end of a task's last attempt.
    fn last(&self, task: &TaskState) -> Option<Millis> {
        task.telling().map(|(_, attempt)| attempt.ended.as_ref().map_or_else(|| self.open_end(attempt), |end| end.at))
    }

    /// Returns the end of an attempt that has none: now, or where nobody attends to it what is known for sure.
    fn open_end(&self, attempt: &Attempt) -> Millis {
        if self.header.alive { self.now } else { attempt.started }
    }

    fn say_if_open(&self, span: &mut Value, is_open: bool) {
        if let (true, Some(own)) = (is_open, span["attributes"].as_array_mut()) {
            own.push(json!({"key": "trainyard.unfinished", "value": {"boolValue": true}}));
        }
    }
}

fn attributes<'a>(of: impl IntoIterator<Item = (&'a str, Value)>) -> Vec<Value> {
    of.into_iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

fn text(value: &str) -> Value {
    json!({"stringValue": value})
}

/// 64-bit numbers are decimal text in this encoding.
fn whole(value: u64) -> Value {
    json!({"intValue": value.to_string()})
}

/// Returns an id of so many bytes in hexadecimal digits, the beginning of a digest; never all zeroes, which means none.
fn id(parts: &[&str], bytes: usize) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let digest = hasher.finalize().to_hex();
    let id = &digest[..2 * bytes];
    if id.bytes().all(|digit| digit == b'0') { "1".repeat(2 * bytes) } else { id.to_owned() }
}

fn nanoseconds(time: Millis) -> String {
    (u128::from(time.0) * 1_000_000).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::graph::TaskId;
    use crate::report::fixture::{Scene, started};

    fn traced(scene: &Scene, alive: bool) -> Value {
        let header = Header { run: "r1", name: None, pipeline: "digits", started: scene.time(0), alive };
        let names = scene.graph.tasks.iter().map(|task| &task.name);
        let task = |(at, name): (u32, &String)| TaskHeader {
            name: name.clone(),
            stage: name.clone(),
            after: at.checked_sub(1).map(TaskId).into_iter().collect(),
            ..TaskHeader::default()
        };
        let tasks: Vec<TaskHeader> = (0..).zip(names).map(task).collect();
        trace(&header, "box", &tasks, &scene.state, scene.time(99))
    }

    fn spans(trace: &Value) -> &Vec<Value> {
        trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap()
    }

    fn scene() -> Scene {
        Scene::failed(&["clean", "train", "best"])
    }

    #[test]
    fn a_run_its_tasks_and_their_attempts_are_spans() {
        insta::assert_snapshot!("otlp", serde_json::to_string_pretty(&traced(&scene(), false)).unwrap());
    }

    #[test]
    fn every_span_has_an_id_of_its_own_and_a_parent_that_is_there() {
        let trace = traced(&scene(), false);
        let ids: BTreeSet<&str> = spans(&trace).iter().map(|span| span["spanId"].as_str().unwrap()).collect();
        assert_eq!((spans(&trace).len(), ids.len()), (6, 6));
        for span in spans(&trace) {
            assert_eq!((span["traceId"].as_str().unwrap().len(), span["spanId"].as_str().unwrap().len()), (32, 16));
            assert!(span["parentSpanId"].as_str().is_none_or(|parent| ids.contains(parent)));
            let time = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
            assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"));
        }
        assert_eq!(trace, traced(&scene(), false), "the same run is the same trace");
    }

    #[test]
    fn what_still_runs_says_so() {
        let mut scene = Scene::chain(&["clean"]);
        scene.apply(1, started(0, 1));
        let trace = traced(&scene, true);
        let open = json!({"key": "trainyard.unfinished", "value": {"boolValue": true}});
        for span in spans(&trace) {
            assert!(span["attributes"].as_array().unwrap().contains(&open), "{span}");
            assert_eq!(span["endTimeUnixNano"], (u128::from(scene.time(99).0) * 1_000_000).to_string());
        }
    }
}
