//! Screens, drawn into memory.

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;

use super::*;
use crate::report::fixture::{Scene, failed, finished, id, started};
use crate::report::json::Header;
use crate::report::timeline;
use crate::run::observer::Progress;
use crate::run::store::TaskHeader;
use crate::units::Bytes;

fn gauge() -> DeviceGauge {
    DeviceGauge {
        id: "box/gpu0".into(),
        model: "H100".into(),
        used: Some(Bytes(40 << 30)),
        ours: Some(Bytes(20 << 30)),
        total: Bytes(80 << 30),
        promised: Bytes(30 << 30),
        utilisation: Some(87),
        temperature: Some(61),
        power: Some(349_500),
        power_limit: Some(700_000),
        hidden: false,
        slowed: Vec::new(),
    }
}

fn drawn(rows: u16, columns: u16, filter: &str, selected: usize, sight: Sight) -> Vec<String> {
    let mut scene = Scene::side_by_side(&["clean", "train[lr=0.1]", "\x1b[2Jtrain", "best"]);
    let mut tally = Tally::default();
    for (at, event) in [
        (0, started(0, 1)),
        (5, finished(0, 0)),
        (5, started(1, 1)),
        (6, started(2, 1)),
        (8, finished(2, 3)),
        (8, failed(2)),
    ] {
        let recorded = scene.apply(at, event);
        tally.recorded(scene.view(), &recorded);
    }
    let said = Progress { progress: Some(0.5), phase: Some("epoch 1/2".into()), ..Progress::default() };
    tally.progressed(id(1), &said);
    let header = Header { run: "r1", name: None, pipeline: "digits", started: scene.time(0), alive: true };
    let task = |name: &str| TaskHeader {
        name: name.into(),
        places: vec!["box/cpu".into()],
        critical: name.starts_with("train"),
        ..TaskHeader::default()
    };
    let tasks: Vec<TaskHeader> = scene.graph.tasks.iter().map(|of| task(&of.name)).collect();
    let unknown = DeviceGauge { id: "box/gpu1".into(), model: "H100".into(), ..DeviceGauge::default() };
    let listed = listed(scene.view(), filter);
    let log: Vec<String> = (1..=30).map(|step| format!("step {step}: loss 0.{step:02}")).collect();
    let picture = Picture {
        view: scene.view(),
        pipeline: "digits",
        state: "running",
        tally: &tally,
        gauges: &[gauge(), unknown],
        left: Some(Millis(10_000)),
        timeline: &timeline::lay_out(&header, &tasks, &scene.state, scene.time(10)),
        listed: &listed,
        selected,
        log: &log,
        sight,
        prompt: "q quit",
        prompt_is_whole: false,
        colour: Colour::Never,
        now: scene.time(10),
    };
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(&picture, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let plain = |cell: &Cell| cell.fg == Color::Reset && cell.bg == Color::Reset && cell.modifier.is_empty();
    assert!(buffer.content.iter().all(plain), "no colour was asked for");
    let row = |row: u16| (0..columns).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..rows).map(|at| row(at).trim_end().to_owned()).collect()
}

#[test]
fn tasks_log_chart_and_devices_share_the_screen() {
    insta::assert_snapshot!("watch", drawn(24, 110, "", 0, Sight::default()).join("\n"));
}

#[test]
fn where_there_is_little_room_the_list_or_the_log_has_it() {
    let list = drawn(24, 60, "", 0, Sight::default()).join("\n");
    assert!(list.contains("› ▶ train[lr=0.1]") && !list.contains("step 30"), "{list}");
    let log = drawn(24, 60, "", 0, Sight { focus: Focus::Log, ..Sight::default() }).join("\n");
    assert!(!log.contains("› ▶") && log.contains("step 30"), "{log}");
}

#[test]
fn a_critical_task_is_marked_until_it_is_done() {
    let shown = drawn(24, 110, "", 0, Sight::default()).join("\n");
    assert!(shown.contains("train[lr=0.1]◆") && shown.matches('◆').count() == 1, "{shown}");
}

#[test]
fn what_does_not_hold_the_filter_is_not_listed() {
    let shown = drawn(20, 60, "failed", 0, Sight::default()).join("\n");
    assert!(shown.contains("✗ \\u{1b}[2Jtrain") && !shown.contains("▶"), "{shown}");
    assert!(drawn(20, 60, "TRAIN[", 0, Sight::default()).join("\n").contains("▶ train[lr=0.1]"));
    let nothing = drawn(20, 60, "no such", 0, Sight::default()).join("\n");
    assert!(nothing.contains("nothing holds"), "{nothing}");
}

#[test]
fn a_log_can_be_scrolled_and_have_the_screen() {
    let zoomed = Sight { zoomed: true, ..Sight::default() };
    let whole = drawn(34, 80, "", 0, zoomed).join("\n");
    assert!(whole.contains("step 1:") && whole.contains("step 30:") && !whole.contains("chart"), "{whole}");
    let above = drawn(12, 80, "", 0, Sight { below: 15, ..zoomed }).join("\n");
    assert!(above.contains("step 15:") && !above.contains("step 16:") && above.contains("15 lines below"), "{above}");
}

#[test]
fn every_key_is_explained() {
    let shown = drawn(24, 110, "", 0, Sight { help: true, ..Sight::default() }).join("\n");
    for (key, does) in KEYS {
        assert!(shown.contains(key) && shown.contains(does), "{key}: {shown}");
    }
}

proptest! {
    #[test]
    fn any_size_can_be_drawn(
        rows in 1_u16..60, columns in 1_u16..200, selected in 0_usize..4, below in 0_usize..40, sight in 0_u8..8,
    ) {
        let focus = if sight & 1 == 0 { Focus::Tasks } else { Focus::Log };
        let sight = Sight { focus, zoomed: sight & 2 > 0, help: sight & 4 > 0, below };
        let lines = drawn(rows, columns, "", selected, sight);
        prop_assert!(lines.iter().all(|line| !line.contains('\x1b')));
    }
}
