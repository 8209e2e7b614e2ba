//! Explanations of scenes.

use super::*;
use crate::report::fixture::{Scene, ended, failed, finished, id, retry, skipped, started, started_on_gpu};
use crate::run::event::{Because, Event, Intent};
use crate::run::raise::{Raise, Step};

fn explained(scene: &Scene, task: usize, at: u64, noted: Option<&Noted>, alive: bool) -> Explanation {
    let names: Vec<String> = scene.graph.tasks.iter().map(|task| task.name.clone()).collect();
    let header = Header { run: "r1", name: None, pipeline: "p", started: scene.time(0), alive };
    Explanation::of(&Facts {
        header,
        names: &names,
        state: &scene.state,
        task: id(task),
        graph: Some(&scene.graph),
        noted,
        unstarted: None,
        dir: Path::new("/state/runs/r1"),
        exists: |_| true,
        now: scene.time(at),
    })
}

fn words(scene: &Scene, task: usize, at: u64) -> (&'static str, String) {
    let explanation = explained(scene, task, at, None, true);
    (explanation.why, explanation.words)
}

#[test]
fn a_task_says_which_others_it_needs() {
    let mut scene = Scene::chain(&["clean", "train", "best"]);
    scene.apply(0, started(0, 1));
    assert_eq!(words(&scene, 1, 3), ("needs", "it needs clean (running) to succeed first".to_owned()));
    assert_eq!(words(&scene, 0, 3), ("running", "attempt 1 has run for 3s".to_owned()));
    scene.apply(4, finished(0, 0));
    assert_eq!(words(&scene, 1, 5), ("turn", "it is ready and waits for its turn".to_owned()));
    assert_eq!(words(&scene, 0, 5), ("succeeded", "it is done".to_owned()));
}

#[test]
fn a_task_without_room_says_what_each_place_is_short_of() {
    let scene = Scene::side_by_side(&["a", "b"]);
    let lacks = Why::Memory { free: Bytes(18 << 30), promised: Bytes(4 << 30), headroom: Bytes(1 << 30) };
    let reason = Reason::Room {
        words: "needs 21.3 GiB of one GPU; gpu0 free 18.0 GiB, promised 4.0 GiB, headroom 1.0 GiB".to_owned(),
        nodes: Vec::new(),
        devices: vec![At { place: "box/gpu0".to_owned(), lacks }],
        runs: vec![HeldBy { run: "nightly".to_owned(), holds: "4.0 GiB of gpu0".to_owned() }],
        kept_from: Some(scene.time(60)),
    };
    let tasks = vec![TaskId(0), TaskId(1)];
    let waiting = vec![Waiting { tasks, count: 2, since: scene.time(2), reason }];
    let noted = Noted { at: scene.time(3), waiting };
    let explanation = explained(&scene, 1, 14, Some(&noted), true);
    insta::assert_snapshot!(explanation.text(), @"
    b of run r1: waiting
    needs 21.3 GiB of one GPU; gpu0 free 18.0 GiB, promised 4.0 GiB, headroom 1.0 GiB; a task that asks for the same goes first; for 14s now
    ");
    let first = explained(&scene, 0, 14, Some(&noted), true);
    assert!(
        first.words.ends_with("; room is kept for it from 2026-11-20T21:01:00.000Z on; for 14s now"),
        "{}",
        first.words
    );
    insta::assert_snapshot!(serde_json::to_string(&explanation).unwrap(), @r#"{"run":"r1","task":"b","state":"waiting","why":"room","words":"needs 21.3 GiB of one GPU; gpu0 free 18.0 GiB, promised 4.0 GiB, headroom 1.0 GiB; a task that asks for the same goes first; for 14s now","needs":[],"since":"2026-11-20T21:00:00.000Z","ahead":1,"kept_from":null,"nodes":[],"devices":[{"place":"box/gpu0","lacks":{"is":"memory","free_bytes":19327352832,"promised_bytes":4294967296,"headroom_bytes":1073741824}}],"runs":[{"run":"nightly","holds":"4.0 GiB of gpu0"}],"not_before":null,"attempts":[]}"#);
}

#[test]
fn of_many_tasks_those_come_first_of_which_nothing_has_become_yet() {
    let names: Vec<String> = (0..25).map(|i| format!("t{i}")).collect();
    let mut scene = Scene::side_by_side(&names.iter().map(String::as_str).collect::<Vec<_>>());
    scene.apply(0, started(0, 1));
    scene.apply(1, finished(0, 0));
    scene.apply(1, started(3, 1));
    let all: Vec<_> = (0..25).map(|task| explained(&scene, task, 2, None, true)).collect();
    let said = several("t", &all);
    assert!(said.starts_with("t of run r1: 25 tasks\n\nt1: waiting: it is ready"), "{said}");
    assert!(said.contains("\nt3: running: attempt 1 has run for 1s\n") && !said.contains("t0: "), "{said}");
    assert!(said.contains("\nand 5 more, which --json has\n"), "{said}");
}

#[test]
fn how_long_a_task_waits_is_counted_from_when_it_was_ready() {
    let mut scene = Scene::chain(&["clean", "train"]);
    scene.apply(0, started(0, 1));
    scene.apply(4, finished(0, 0));
    let reason = Reason::Jobs { most: 1 };
    // Others like it have been started a moment ago.
    let waiting = vec![Waiting { tasks: vec![TaskId(1)], count: 1, since: scene.time(9), reason }];
    let noted = Noted { at: scene.time(9), waiting };
    let explanation = explained(&scene, 1, 10, Some(&noted), true);
    assert!(explanation.words.ends_with("; for 6s now"), "{}", explanation.words);
}

#[test]
fn a_pause_before_another_attempt_says_what_that_asks_for() {
    let mut scene = Scene::chain(&["train", "best"]);
    scene.apply(0, started_on_gpu(0, 1));
    scene.apply(3, ended(0, Outcome::OutOfMemory { device: Some("box/gpu0".into()) }));
    let raise = Some(Raise { step: Step::Alone, alone: true, gpu_memory: Bytes::ZERO, memory: Bytes::ZERO });
    scene.apply(3, Event::RetryPlanned { task: TaskId(0), not_before: scene.time(9), raise });
    let again = "its last attempt failed; it is tried again in 4s, alone on a GPU";
    assert_eq!(words(&scene, 0, 5), ("back-off", again.to_owned()));
}

#[test]
fn a_task_that_failed_says_how_each_attempt_went() {
    let mut scene = Scene::chain(&["train", "best"]);
    scene.apply(0, started_on_gpu(0, 1));
    scene.apply(3, ended(0, Outcome::OutOfMemory { device: Some("box/gpu0".into()) }));
    let looked =
        "it ran out of memory, and it is looked whether others hold that of box/gpu0: a driver may give back late";
    assert_eq!(words(&scene, 0, 4), ("look", looked.to_owned()));
    let not_before = scene.time(9);
    scene.apply(3, retry(0, not_before));
    assert_eq!(words(&scene, 0, 5), ("back-off", "its last attempt failed; it is tried again in 4s".to_owned()));
    scene.apply(9, started(0, 2));
    scene.apply(10, finished(0, 2));
    scene.apply(10, failed(0));
    scene.apply(10, skipped(1, 0));
    insta::assert_snapshot!(explained(&scene, 0, 20, None, true).text(), @"
    train of run r1: failed
    it failed: exit code 2

    attempt 1 on box/gpu0, 6.0 MiB reserved: out of memory on box/gpu0 (6.0 MiB reserved) after 3s
    attempt 2: exit code 2 after 1s
    ");
    assert_eq!(words(&scene, 1, 20), ("skipped", "it was not run: it needs train, which failed".to_owned()));
}

#[test]
fn where_a_task_was_to_go_is_not_said_once_that_has_fallen_out() {
    let mut scene = Scene::side_by_side(&["a", "b"]);
    let place =
        |task, device: &str| Intent { task: id(task), mode: 0, node: "box".into(), devices: vec![device.to_owned()] };
    let (order, moved) = (vec![id(0), id(1)], vec![place(0, "box/gpu0"), place(1, "box/gpu1")]);
    let because = Because::Lost { device: "box/gpu7".to_owned() };
    scene.apply(0, Event::Replanned { because, before: Millis(2), after: Millis(1), order, moved });
    let explained = |task, noted| explained(&scene, task, 3, noted, true).history;
    assert_eq!(explained(1, None), ["replanned: a task that waits goes first, on box/gpu1"]);
    let fault = Why::Fault { fault: "lost: it fell off the bus".to_owned() };
    let devices = vec![At { place: "box/gpu1".to_owned(), lacks: fault }];
    let (words, nodes, runs) = ("needs 1 whole GPU".to_owned(), Vec::new(), Vec::new());
    let reason = Reason::Room { words, nodes, devices, runs, kept_from: None };
    let waiting = vec![Waiting { tasks: vec![id(0), id(1)], count: 2, since: scene.time(2), reason }];
    let noted = Noted { at: scene.time(2), waiting };
    assert_eq!(explained(1, Some(&noted)), ["replanned: a task that waits goes first"]);
    assert_eq!(explained(0, Some(&noted)), ["replanned: it goes first, on box/gpu0"]);
}

#[test]
fn a_run_whose_process_is_gone_is_said_to_be_over() {
    let mut scene = Scene::chain(&["clean"]);
    scene.apply(0, started(0, 1));
    let explanation = explained(&scene, 0, 9, None, false);
    assert_eq!((explanation.why, explanation.state), ("interrupted", "waiting"));
    assert_eq!(explanation.history, ["attempt 1: interrupted with the run"]);
}
