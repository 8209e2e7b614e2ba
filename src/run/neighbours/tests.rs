//! Runs that share a database: each learns what the others hold before it admits anything.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::run::outcome::{Outcome, Usage};
use crate::run::store::{Header, Invocation, Orchestrator};
use crate::units::{Cpus, Millis};

/// Processes as a test wants them.
#[derive(Default)]
struct Told {
    dead: RefCell<Vec<u32>>,
    tasks: RefCell<Vec<(String, Process)>>,
    within: Option<(String, String)>,
}

impl Presence for Told {
    fn carries_out(&self, by: &Orchestrator, _: &Path) -> bool {
        !self.dead.borrow().contains(&by.process.pid)
    }

    fn lives(&self, process: Process) -> bool {
        self.tasks.borrow().iter().any(|(_, of)| *of == process)
    }

    fn of_tasks(&self, _: &str) -> Vec<(String, Process)> {
        self.tasks.borrow().clone()
    }

    fn ended_well(&self, _: &Path) -> Option<AsLeft> {
        None
    }

    fn within(&self) -> Option<(String, String)> {
        self.within.clone()
    }
}

fn header(id: &str, pid: u32) -> Header {
    let task = |name: &str| TaskHeader { name: name.into(), outputs: vec!["out/x".into()], ..TaskHeader::default() };
    Header {
        id: id.into(),
        pipeline: "p".into(),
        file: "/nowhere/p.toml".into(),
        orchestrator: Orchestrator {
            host: "box".into(),
            boot: "b".into(),
            pids: None,
            process: Process { pid, started: 1 },
        },
        started: Millis(1),
        invocation: Invocation { name: Some(format!("{id}-name")), ..Invocation::default() },
        tasks: vec![task("t0"), task("t1")],
    }
}

fn started(task: u32, number: u32, cpus: u64) -> Recorded {
    let place = Place { node: "box".into(), cpus: Cpus(cpus), ..Place::default() };
    Recorded { at: Millis(1), event: Event::AttemptStarted { task: TaskId(task), number, place } }
}

fn finished(task: u32) -> Recorded {
    let (outcome, usage) = (Outcome::Succeeded, Usage::default());
    Recorded {
        at: Millis(2),
        event: Event::AttemptFinished { task: TaskId(task), role: Role::Main, outcome, usage, logged: false },
    }
}

/// A run on a folder, with whatever it is told of processes.
struct Run {
    store: Store,
    key: RunKey,
}

impl Run {
    fn new(dir: &Path, id: &str, pid: u32) -> Self {
        let mut store = Store::open(dir).unwrap();
        let key = store.begin(&header(id, pid)).unwrap();
        Self { store, key }
    }

    fn shared<'a>(&'a mut self, presence: &'a dyn Presence) -> Shared<'a> {
        Shared::new((&mut self.store, &mut self.key), presence, "box".into(), Millis(0))
    }
}

fn held(news: News) -> Option<Vec<(String, u64)>> {
    news.hold.map(|all| all.into_iter().map(|of| (format!("{} {}", of.called, of.task), of.place.cpus.0)).collect())
}

#[test]
fn a_run_learns_what_others_hold_and_give_back() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let (mut one, mut two) = (Run::new(dir.path(), "a", 1), Run::new(dir.path(), "b", 2));
    let (mut one, mut two) = (one.shared(&told), two.shared(&told));
    assert_eq!(held(two.others().unwrap()), None, "nobody holds anything");
    one.append(&[started(0, 1, 3)]).unwrap();
    let news = two.hold().unwrap();
    assert_eq!(news.hold.as_ref().unwrap()[0].writes, ["/nowhere/out/x"]);
    assert_eq!(held(news), Some(vec![("a-name t0".into(), 3)]));
    two.append(&[started(1, 1, 2)]).unwrap();
    assert_eq!(held(two.others().unwrap()), None, "what it records itself is no news");
    assert_eq!(held(one.others().unwrap()), Some(vec![("b-name t1".into(), 2)]));
    one.append(&[finished(0)]).unwrap();
    assert_eq!(held(two.others().unwrap()), Some(Vec::new()));
    let end = Event::RunFinished { end: crate::run::event::RunEnd::Succeeded };
    two.append(&[finished(1), Recorded { at: Millis(3), event: end }]).unwrap();
    assert_eq!(held(one.hold().unwrap()), Some(Vec::new()));
    one.let_go().unwrap();
}

#[test]
fn what_a_dead_run_held_counts_as_long_as_its_tasks_live() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let (mut one, mut two) = (Run::new(dir.path(), "a", 1), Run::new(dir.path(), "b", 2));
    one.shared(&told).append(&[started(0, 1, 3), started(1, 1, 2)]).unwrap();
    let mut two = two.shared(&told);
    assert_eq!(held(two.others().unwrap()).unwrap().len(), 2);
    told.dead.borrow_mut().push(1);
    told.tasks.borrow_mut().push(("t1".into(), Process { pid: 11, started: 1 }));
    assert_eq!(held(two.others().unwrap()), Some(vec![("a-name t1".into(), 2)]));
    // Its process is replaced by another one of the same attempt.
    *told.tasks.borrow_mut() = vec![("t1".into(), Process { pid: 12, started: 2 })];
    assert_eq!(held(two.others().unwrap()), None);
    told.tasks.borrow_mut().clear();
    assert_eq!(held(two.others().unwrap()), Some(Vec::new()));
}

#[test]
fn a_run_within_a_task_is_not_kept_from_what_that_task_holds() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told { within: Some(("a".into(), "t0".into())), ..Told::default() };
    let (mut one, mut two) = (Run::new(dir.path(), "a", 1), Run::new(dir.path(), "b", 2));
    one.shared(&told).append(&[started(0, 1, 3), started(1, 1, 2)]).unwrap();
    assert_eq!(held(two.shared(&told).others().unwrap()), Some(vec![("a-name t1".into(), 2)]));
}

#[test]
fn runs_that_admit_at_the_same_time_never_hold_more_than_there_is() {
    const CAPACITY: u64 = 10;
    let dir = tempfile::tempdir().unwrap();
    // What all of them hold at this moment, kept beside the record.
    let taken = AtomicU64::new(0);
    let carry_out = |id: &str, pid: u32, need: u64| {
        let told = Told::default();
        let mut run = Run::new(dir.path(), id, pid);
        let mut run = run.shared(&told);
        let (mut others, mut admitted, mut number) = (0, false, 0);
        while number < 40 {
            if let Some(news) = run.hold().unwrap().hold {
                others = news.iter().map(|of| of.place.cpus.0).sum();
            }
            if !admitted && others + need <= CAPACITY {
                number += 1;
                admitted = true;
                assert!(taken.fetch_add(need, Ordering::SeqCst) + need <= CAPACITY, "too much is held");
                run.append(&[started(0, number, need)]).unwrap();
            } else if admitted {
                run.let_go().unwrap();
                taken.fetch_sub(need, Ordering::SeqCst);
                run.append(&[finished(0)]).unwrap();
                admitted = false;
            } else {
                run.let_go().unwrap();
                std::thread::yield_now();
            }
        }
        // The last one, so that nobody waits for it.
        taken.fetch_sub(need, Ordering::SeqCst);
        run.append(&[finished(0)]).unwrap();
    };
    std::thread::scope(|scope| {
        for (id, pid, need) in [("a", 1, 6), ("b", 2, 5), ("c", 3, 4)] {
            let carry_out = &carry_out;
            scope.spawn(move || carry_out(id, pid, need));
        }
    });
    assert_eq!(taken.load(Ordering::SeqCst), 0);
}
