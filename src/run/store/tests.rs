//! What is recorded is read back, by one process or by many.

use super::*;
use crate::graph::TaskId;
use crate::run::event::{Place, RunEnd};

pub(super) fn header(id: &str) -> Header {
    Header {
        id: id.to_owned(),
        pipeline: "digits".to_owned(),
        file: "/p/digits.toml".to_owned(),
        orchestrator: Orchestrator {
            host: "box".to_owned(),
            boot: "b".to_owned(),
            process: Process { pid: 7, started: 99 },
        },
        started: Millis(1_000),
        invocation: Invocation { sets: vec!["a.retries=2".to_owned()], ..Invocation::default() },
        tasks: vec![TaskHeader {
            name: "a".to_owned(),
            stage: "a".to_owned(),
            planned: (Millis(0), Millis(5)),
            ..TaskHeader::default()
        }],
    }
}

#[test]
fn what_is_recorded_is_read_back_by_another_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let mut run = store.begin(&header("r1")).unwrap();
    let place = Place { node: "box".to_owned(), ..Place::default() };
    let events = [
        Recorded { at: Millis(1), event: Event::AttemptStarted { task: TaskId(0), number: 1, place } },
        Recorded { at: Millis(2), event: Event::RunFinished { end: RunEnd::Failed } },
    ];
    store.append(&mut run, &events[..1]).unwrap();
    store.append(&mut run, &events[1..]).unwrap();

    let reader = Store::open_existing(dir.path()).unwrap();
    assert_eq!(reader.events("r1").unwrap(), events);
    let rows = reader.runs().unwrap();
    assert_eq!(rows, [RunRow { header: header("r1"), end: Some((Millis(2), RunEnd::Failed)) }]);
}

#[test]
fn two_orchestrators_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    let (mut a, mut b) = (one.begin(&header("a")).unwrap(), two.begin(&header("b")).unwrap());
    let event = [Recorded { at: Millis(1), event: Event::RunFinished { end: RunEnd::Succeeded } }];
    one.append(&mut a, &event).unwrap();
    two.append(&mut b, &event).unwrap();
    assert_eq!(one.runs().unwrap().len(), 2);
}

#[test]
fn a_new_folder_is_opened_by_many_at_once() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let begin = |id: usize| Store::open(dir.path()).and_then(|mut store| store.begin(&header(&id.to_string())));
        std::thread::scope(|scope| {
            let begun: Vec<_> = (0..8).map(|id| scope.spawn(move || begin(id))).collect();
            for run in begun {
                run.join().unwrap().unwrap();
            }
        });
        assert_eq!(Store::open_existing(dir.path()).unwrap().runs().unwrap().len(), 8);
    }
}

#[test]
fn a_run_is_taken_over_once_and_goes_on_behind_its_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let mut run = store.begin(&header("r1")).unwrap();
    let ended = Recorded { at: Millis(2), event: Event::RunFinished { end: RunEnd::Interrupted } };
    store.append(&mut run, std::slice::from_ref(&ended)).unwrap();

    let by = Orchestrator { process: Process { pid: 8, started: 100 }, ..header("r1").orchestrator };
    let mut taken = store.take_over(&header("r1"), &by).unwrap().expect("nobody was faster");
    assert!(store.take_over(&header("r1"), &by).unwrap().is_none());
    let resumed = Recorded { at: Millis(3), event: Event::RunResumed { adopted: Vec::new() } };
    store.append(&mut taken, std::slice::from_ref(&resumed)).unwrap();
    assert_eq!(store.events("r1").unwrap(), [ended, resumed]);
    let rows = store.runs().unwrap();
    assert_eq!((rows[0].end, &rows[0].header.orchestrator), (None, &by));
}

#[test]
fn a_folder_without_runs_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_existing(dir.path()), Err(StoreError::NoState(_))));
}
