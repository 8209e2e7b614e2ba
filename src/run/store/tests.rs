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
            pids: Some(4_026_531_836),
            process: Process { pid: 7, started: 99 },
            within: Within::default().and("r0", "a", 1),
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
    assert_eq!(
        rows,
        [RunRow { header: header("r1"), dir: store.run_dir("r1"), end: Some((Millis(2), RunEnd::Failed)) }]
    );
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

    let by = Orchestrator { pids: None, process: Process { pid: 8, started: 100 }, ..header("r1").orchestrator };
    let mut taken = store.take_over(&header("r1"), &by).unwrap().expect("nobody was faster");
    assert!(store.take_over(&header("r1"), &by).unwrap().is_none());
    let resumed = Recorded { at: Millis(3), event: Event::RunResumed { adopted: Vec::new() } };
    store.append(&mut taken, std::slice::from_ref(&resumed)).unwrap();
    assert_eq!(store.events("r1").unwrap(), [ended, resumed]);
    let rows = store.runs().unwrap();
    assert_eq!((rows[0].end, &rows[0].header.orchestrator), (None, &by));

    let error = store.append(&mut run, &[Recorded { at: Millis(4), event: Event::RunResumed { adopted: Vec::new() } }]);
    let told = "run r1 was taken over by process 8 on box: this process records nothing more of it";
    assert_eq!(error.unwrap_err().to_string(), told);
}

#[test]
fn a_folder_without_runs_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_existing(dir.path()), Err(StoreError::NoState(_))));
}

#[test]
fn a_record_of_an_earlier_format_is_read_as_it_was_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let old = Connection::open(dir.path().join("state.db")).unwrap();
    let steps = STEPS[..5].concat();
    old.execute_batch(&format!("{steps} PRAGMA user_version = 5;")).unwrap();
    for (key, id) in [(1, "r1"), (2, "r2")] {
        let run = "INSERT INTO run (key, id, pipeline, file, host, boot, pid, pid_started, started, tasks)
                   VALUES (?1, ?2, 'p', '/p', 'box', 'b', 7, 99, 0, '')";
        old.execute(run, params![key, id]).unwrap();
        old.execute("INSERT INTO task_list VALUES (?1, '[]')", [key]).unwrap();
        for seq in 0..3 {
            let body = serde_json::to_string(&Event::TaskSkipped { task: TaskId(seq), because: None }).unwrap();
            old.execute("INSERT INTO event VALUES (?1, ?2, ?3, ?4)", params![key, seq, key, body]).unwrap();
        }
    }
    drop(old);
    let mut store = Store::open(dir.path()).unwrap();
    let skipped =
        |at, task| Recorded { at: Millis(at), event: Event::TaskSkipped { task: TaskId(task), because: None } };
    for (run, at) in [("r1", 1), ("r2", 2)] {
        assert_eq!(store.events(run).unwrap(), [0, 1, 2].map(|task| skipped(at, task)), "{run}");
    }
    let header = store.run("r1").unwrap().unwrap().header;
    let mut key = store.take_over(&header, &header.orchestrator).unwrap().unwrap();
    store.append(&mut key, &[skipped(5, 3)]).unwrap();
    assert_eq!(store.events_from("r1", 2).unwrap(), [skipped(1, 2), skipped(5, 3)]);
    assert_eq!(store.events("r2").unwrap().len(), 3);
}

#[test]
fn a_record_without_one_of_its_columns_is_damaged_and_makes_room_for_another() {
    for (table, column) in [("run", "finished"), ("run", "pids"), ("task_list", "tasks"), ("event", "body")] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        store.begin(&header("r1")).unwrap();
        store.on(|db| db.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}"))).unwrap();
        drop(store);
        let read = Store::open_existing(dir.path()).and_then(|store| store.runs().and_then(|_| store.events("r1")));
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{table}.{column}: {read:?}");
        let (store, aside) = Store::open_or_replace(dir.path(), |_| false).unwrap();
        assert!(aside.is_some_and(|aside| aside.exists()), "{table}.{column}");
        assert!(store.runs().unwrap().is_empty());
    }
}
