//! The live part of a terminal: a row per running task, a row per GPU, a row for the whole run.
//!
//! Pure: the same picture gives the same lines. Does not know how lines reach a terminal.

use super::estimate;
use super::paint::{Colour, Tone};
use super::rows::{Row, draw};
use super::tally::{Running, Tally};
use super::{text, wording};
use crate::run::observer::{DeviceGauge, Progress, View};
use crate::run::state::Attempt;
use crate::units::{Bytes, Millis};

/// What is to be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The run.
    pub view: View<'a>,
    /// Its counts and running tasks.
    pub tally: &'a Tally,
    /// What devices hold; empty where there are none.
    pub gauges: &'a [DeviceGauge],
    /// How long the run still takes.
    pub left: Option<Millis>,
    /// ms since the Unix epoch.
    pub now: Millis,
}

/// Shown before a running task, one after the other: something moves even if nothing is known of its progress.
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// How long each is shown.
const SPIN: u64 = 200;

/// Returns the lines, fewer than `rows`, each at most `columns` wide.
#[must_use]
pub fn frame(picture: &Picture<'_>, rows: usize, columns: usize, colour: Colour) -> Vec<String> {
    let running = &picture.tally.running;
    let gauges = &picture.gauges[..picture.gauges.len().min(rows / 3)];
    // One row for the run itself and one that stays free, so that the terminal does not scroll.
    let room = rows.saturating_sub(gauges.len() + 2).max(1);
    let shown = if running.len() <= room { running.len() } else { room - 1 };
    let mut lines: Vec<Row> = running[..shown].iter().map(|running| task_row(picture, running)).collect();
    lines.extend(gauges.iter().map(|gauge| gauge_row(picture, gauge)));
    lines.push(run_row(picture));
    let mut lines = draw(&lines, columns, colour);
    if shown < running.len() {
        let folded = format!("  and {} more running", running.len() - shown);
        lines.insert(shown, colour.paint(Tone::Faint, &text::fit(&folded, columns)));
    }
    lines
}

fn task_row(picture: &Picture<'_>, running: &Running) -> Row {
    let done = running.progress.progress.map(|done| done.clamp(0.0, 1.0));
    let spin = usize::try_from(picture.now.0 / SPIN % 10).unwrap_or(0);
    let left = estimate::by_own_word(running, picture.now);
    Row {
        mark: if running.suspended.is_some() { "‖" } else { SPINNER[spin] },
        tone: Tone::Active,
        name: text::visible(&picture.view.graph.tasks[running.task.index()].name).into_owned(),
        done: done.unwrap_or(0.0),
        promised: 0.0,
        percent: done.map_or_else(String::new, percent),
        elapsed: wording::seconds(running.ran(picture.now)),
        left: left.map_or_else(String::new, wording::seconds),
        note: note(picture, running),
    }
}

fn note(picture: &Picture<'_>, running: &Running) -> String {
    let Progress { phase, loss, accuracy, .. } = &running.progress;
    let attempt = picture.view.state.task(running.task).last_as(running.role);
    let devices = attempt.map(|(_, attempt)| attempt.place.devices.as_slice()).unwrap_or_default();
    let devices: Vec<&str> = devices.iter().map(|id| short_id(picture.view, id)).collect();
    let parts = [
        (!devices.is_empty()).then(|| devices.join("+")),
        attempt
            .and_then(|(_, attempt)| wording::limit(attempt, turned_out_hidden(picture, attempt)))
            .map(|limit| format!("limit {limit}")),
        attempt.filter(|(number, _)| *number > 1).map(|(number, _)| format!("attempt {number}")),
        running.suspended.map(|_| "waits for its turn".to_owned()),
        phase.as_deref().map(|phase| text::visible(phase).into_owned()),
        loss.map(|loss| format!("loss {}", figure(loss))),
        accuracy.map(|accuracy| format!("acc {:.1}%", 100.0 * accuracy)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Whether the driver of an attempt's devices hides who holds their memory.
fn turned_out_hidden(picture: &Picture<'_>, attempt: &Attempt) -> bool {
    picture.gauges.iter().any(|gauge| gauge.hidden && attempt.place.devices.contains(&gauge.id))
}

fn gauge_row(picture: &Picture<'_>, gauge: &DeviceGauge) -> Row {
    let part = |held: Bytes| held.0 as f64 / gauge.total.0.max(1) as f64;
    let used = gauge.used.unwrap_or_default();
    Row {
        mark: " ",
        tone: Tone::Plain,
        name: device_name(picture.view, gauge),
        done: part(used),
        promised: part(gauge.promised - gauge.ours.unwrap_or(used)),
        percent: gauge.used.map_or_else(String::new, |used| percent(part(used))),
        elapsed: String::new(),
        left: String::new(),
        note: device_notes(gauge),
    }
}

/// Returns a device's id and model, safe for a terminal.
pub(super) fn device_name(view: View<'_>, gauge: &DeviceGauge) -> String {
    text::visible(&format!("{} {}", short_id(view, &gauge.id), gauge.model)).into_owned()
}

/// Returns what is known of a device in words: how busy it is, its memory, heat and power.
pub(super) fn device_notes(gauge: &DeviceGauge) -> String {
    let held = gauge.used.map_or_else(|| "memory unknown".into(), |used| format!("{used} of {}", gauge.total));
    let watts = |milliwatts: u32| milliwatts.div_ceil(1_000);
    let power = |draws| match gauge.power_limit {
        Some(limit) => format!("{} of {} W", watts(draws), watts(limit)),
        None => format!("{} W", watts(draws)),
    };
    let notes = [
        gauge.utilisation.map(|busy| format!("{busy}% busy")),
        (!gauge.slowed.is_empty()).then(|| format!("slowed: {}", gauge.slowed.join(" and "))),
        Some(held),
        (gauge.promised > Bytes::ZERO).then(|| format!("{} reserved", gauge.promised)),
        gauge.others().filter(|others| *others > Bytes::ZERO).map(|others| format!("{others} others'")),
        gauge.temperature.map(|degrees| format!("{degrees} °C")),
        gauge.power.map(power),
    ];
    notes.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn run_row(picture: &Picture<'_>) -> Row {
    let Picture { view, tally, .. } = picture;
    let elapsed = tally.started.map_or(Millis::ZERO, |started| picture.now - started);
    let done = picture.left.map(|left| match (elapsed.0, left.0) {
        (0, _) => 0.0,
        (elapsed, left) => elapsed as f64 / (elapsed as f64 + left as f64),
    });
    let total = view.state.tasks.len();
    let waiting = tally.waiting(view.state);
    let stopping = view.state.stopping.map(|_| "stopping".to_owned());
    let counts = wording::counts(&[
        (tally.running.len(), "running"),
        (waiting, "waiting"),
        (tally.cached, "cached"),
        (tally.failed, "failed"),
        (tally.skipped, "skipped"),
    ]);
    Row {
        mark: " ",
        tone: if tally.failed > 0 { Tone::Bad } else { Tone::Good },
        name: format!("{}/{total} done", tally.succeeded + tally.cached),
        done: done.unwrap_or(0.0),
        promised: 0.0,
        percent: done.map_or_else(String::new, percent),
        elapsed: wording::seconds(elapsed),
        left: picture.left.map_or_else(String::new, |left| format!("~{}", wording::seconds(left))),
        note: [stopping, Some(counts)].into_iter().flatten().collect::<Vec<_>>().join(", "),
    }
}

/// Returns a device's id without its node, where there is only one node.
fn short_id<'a>(view: View<'_>, id: &'a str) -> &'a str {
    match id.split_once('/') {
        Some((_, device)) if view.fleet.nodes.len() == 1 => device,
        _ => id,
    }
}

fn percent(part: f64) -> String {
    // Rounded down: 100 % means done.
    format!("{}%", (100.0 * part).floor())
}

/// Returns a measured figure with four significant places.
fn figure(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(0.001..10_000.0).contains(&size) { format!("{value:.2e}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::fixture::{Scene, id, started, started_on_gpu};

    fn watched(scene: &mut Scene, starts: usize) -> Tally {
        let mut tally = Tally::default();
        for task in 0..starts {
            let event = if task == 1 { started_on_gpu(task, 1) } else { started(task, 1) };
            let recorded = scene.apply(0, event);
            tally.recorded(scene.view(), &recorded);
        }
        tally
    }

    fn drawn(scene: &Scene, tally: &Tally, gauges: &[DeviceGauge], rows: usize, columns: usize) -> String {
        let picture = Picture { view: scene.view(), tally, gauges, left: Some(Millis(95_000)), now: scene.time(80) };
        frame(&picture, rows, columns, Colour::Never).join("\n")
    }

    fn busy() -> (Scene, Tally, Vec<DeviceGauge>) {
        let mut scene = Scene::side_by_side(&["features", "train[lr=0.001,batch=64,seed=1]", "evaluate", "best"]);
        let mut tally = watched(&mut scene, 2);
        tally.progressed(
            id(1),
            &Progress {
                progress: Some(0.42),
                phase: Some("epoch 4/10".into()),
                loss: Some(0.123_45),
                accuracy: Some(0.9123),
            },
        );
        let gauge = DeviceGauge {
            id: "box/gpu0".into(),
            model: "H100".into(),
            used: Some(Bytes(40 << 30)),
            total: Bytes(80 << 30),
            ours: Some(Bytes(38 << 30)),
            promised: Bytes(60 << 30),
            utilisation: Some(87),
            temperature: Some(61),
            power: Some(349_500),
            power_limit: Some(700_000),
            hidden: false,
            slowed: Vec::new(),
        };
        (scene, tally, vec![gauge])
    }

    #[test]
    fn at_140_columns_everything_is_said() {
        let (scene, tally, gauges) = busy();
        insta::assert_snapshot!(drawn(&scene, &tally, &gauges, 24, 140), @"
        ⠋ features                         ───────────────────────       1m20s
        ⠋ train[lr=0.001,batch=64,seed=1]  ━━━━━━━━━╸─────────────  42%  1m20s  1m50s left   gpu0, epoch 4/10, loss 0.1235, acc 91.2%
          gpu0 H100                        ━━━━━━━━━━━╸╌╌╌╌╌──────  50%  87% busy, 40.0 GiB of 80.0 GiB, 60.0 GiB reserved, 2.0 GiB others', 61 °C,…
          0/4 done                         ━━━━━━━━━━╸────────────  45%  1m20s  ~1m35s left  2 running, 2 waiting
        ");
    }

    #[test]
    fn a_device_that_is_slowed_says_why_before_its_memory() {
        let (_, _, mut gauges) = busy();
        gauges[0].slowed = vec!["hot", "power limit"];
        assert!(device_notes(&gauges[0]).starts_with("87% busy, slowed: hot and power limit, 40.0 GiB of"));
    }

    #[test]
    fn at_80_columns_the_note_is_cut_first() {
        let (scene, tally, gauges) = busy();
        insta::assert_snapshot!(drawn(&scene, &tally, &gauges, 24, 80), @"
        ⠋ features                        ──────────       1m20s
        ⠋ train[lr=0.001,…tch=64,seed=1]  ━━━━──────  42%  1m20s<1m50s   gpu0, epoch 4/…
          gpu0 H100                       ━━━━━╌╌───  50%  87% busy, 40.0 GiB of 80.0 G…
          0/4 done                        ━━━━╸─────  45%  1m20s<~1m35s  2 running, 2 w…
        ");
    }

    #[test]
    fn what_is_unknown_of_a_device_is_not_shown_as_zero() {
        let (scene, tally, _) = busy();
        let gauge = DeviceGauge { id: "box/gpu0".into(), total: Bytes::GIB, ..DeviceGauge::default() };
        let drawn = drawn(&scene, &tally, &[gauge], 24, 140);
        assert!(drawn.contains("memory unknown") && !drawn.contains("busy"), "{drawn}");
    }

    #[test]
    fn more_tasks_than_rows_are_folded() {
        let names: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut scene = Scene::side_by_side(&names);
        let tally = watched(&mut scene, 40);
        let drawn = drawn(&scene, &tally, &[], 10, 80);
        assert_eq!(drawn.lines().count(), 9);
        assert!(drawn.contains("\n  and 33 more running\n"), "{drawn}");
    }

    #[test]
    fn a_phase_cannot_move_the_cursor() {
        let mut scene = Scene::side_by_side(&["a\x1b[2J"]);
        let mut tally = watched(&mut scene, 1);
        tally.progressed(id(0), &Progress { phase: Some("\x1b[1A\nx".into()), ..Progress::default() });
        let drawn = drawn(&scene, &tally, &[], 24, 200);
        assert!(!drawn.contains('\x1b') && drawn.lines().count() == 2, "{drawn}");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_and_no_frame_higher_than_the_terminal(
            rows in 2_usize..40, columns in 1_usize..200, done in -1.0_f64..2.0, phase in ".{0,40}",
        ) {
            let (scene, mut tally, gauges) = busy();
            let said = Progress { progress: Some(done), phase: Some(phase), ..Progress::default() };
            tally.progressed(id(1), &said);
            let drawn = drawn(&scene, &tally, &gauges, rows, columns);
            prop_assert!(drawn.lines().count() <= rows.max(3));
            prop_assert!(drawn.lines().all(|line| text::width(line) <= columns));
        }
    }
}
