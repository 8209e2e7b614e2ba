//! A timeline in the Trace Event Format, which `chrome://tracing` and Perfetto open: one process for what was done, one
//! for the plan, a thread for each place and lane.

use serde_json::{Value, json};

use super::timeline::{Row, Span, Timeline};

/// Process ids of the trace: in this order they are shown.
const DONE: u32 = 1;
const PLAN: u32 = 2;

/// Returns the trace as JSON.
#[must_use]
pub fn trace(timeline: &Timeline) -> Value {
    let mut events = vec![process(DONE, "done"), process(PLAN, "planned")];
    for (place, row) in (0_u32..).zip(&timeline.rows) {
        for (process, spans) in [(DONE, &row.actual), (PLAN, &row.planned)] {
            for span in spans {
                events.push(event(process, thread(place, span.lane), timeline, span));
                events.extend(span.pieces.iter().map(|piece| turn(process, thread(place, span.lane), *piece)));
            }
            let lanes = if process == DONE { row.lanes().1.max(1) } else { row.lanes().0 };
            events.extend((0..lanes).map(|lane| named(process, thread(place, lane), row, lane)));
        }
        for idle in &row.idle {
            events.push(
                json!({"name": idle.cause.words(), "cat": "idle", "ph": "X", "pid": DONE, "tid": thread(place, 0),
                "ts": idle.from * 1_000, "dur": (idle.to - idle.from) * 1_000, "args": {"cause": idle.cause.word()}}),
            );
        }
    }
    json!({"traceEvents": events, "displayTimeUnit": "ms",
        "otherData": {"run": timeline.run, "pipeline": timeline.pipeline, "state": timeline.state}})
}

/// Returns the number of a place's lane.
fn thread(place: u32, lane: usize) -> u32 {
    place * 1_000 + u32::try_from(lane).unwrap_or(999).min(999)
}

fn event(process: u32, thread: u32, timeline: &Timeline, span: &Span) -> Value {
    let mut args = json!({"stage": timeline.stages.get(span.stage), "critical": span.critical});
    if let Some((number, outcome)) = &span.attempt {
        args["attempt"] = (*number).into();
        args["outcome"] = outcome.as_str().into();
    }
    json!({"name": span.name, "cat": if process == DONE { "attempt" } else { "plan" }, "ph": "X", "pid": process,
        "tid": thread, "ts": span.from * 1_000, "dur": (span.to - span.from) * 1_000, "args": args})
}

/// A turn of a task that is suspended in between: it lies within the task.
fn turn(process: u32, thread: u32, (from, to): (u64, u64)) -> Value {
    json!({"name": "turn", "cat": "turn", "ph": "X", "pid": process, "tid": thread, "ts": from * 1_000,
        "dur": (to - from) * 1_000})
}

fn process(process: u32, name: &str) -> Value {
    json!({"name": "process_name", "ph": "M", "pid": process, "args": {"name": name}})
}

fn named(process: u32, thread: u32, row: &Row, lane: usize) -> Value {
    let name = if lane == 0 { row.place.clone() } else { format!("{} ({})", row.place, lane + 1) };
    json!({"name": "thread_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})
}
