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
    within: Within,
    commons: Option<PathBuf>,
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

    fn within(&self) -> Within {
        self.within.clone()
    }

    fn attends_any(&self, _: &Path) -> bool {
        true
    }

    fn commons(&self) -> Option<PathBuf> {
        self.commons.clone()
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
            within: Within::default(),
        },
        started: Millis(1),
        invocation: Invocation { name: Some(format!("{id}-name")), ..Invocation::default() },
        tasks: vec![task("t0"), task("t1")],
    }
}

fn here() -> Here {
    Here { host: "box".into(), boot: "b".into() }
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
        Self::within(dir, id, pid, Within::default())
    }

    fn within(dir: &Path, id: &str, pid: u32, within: Within) -> Self {
        let mut store = Store::open(dir).unwrap();
        let header = header(id, pid);
        let orchestrator = Orchestrator { within, ..header.orchestrator };
        let key = store.begin(&Header { orchestrator, ..header }).unwrap();
        Self { store, key }
    }

    fn shared<'a>(&'a mut self, presence: &'a dyn Presence) -> Shared<'a> {
        Shared::new((&mut self.store, &mut self.key), presence, here(), Millis(0))
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
    let told = Told { within: Within::default().and("a", "t0", 1), ..Told::default() };
    let (mut one, mut two) = (Run::new(dir.path(), "a", 1), Run::new(dir.path(), "b", 2));
    one.shared(&told).append(&[started(0, 1, 3), started(1, 1, 2)]).unwrap();
    assert_eq!(held(two.shared(&told).others().unwrap()), Some(vec![("a-name t1".into(), 2)]));
    // Once that has failed and is tried again it is another one.
    one.shared(&told).append(&[finished(0), started(0, 2, 4)]).unwrap();
    let both = vec![("a-name t0".into(), 4), ("a-name t1".into(), 2)];
    assert_eq!(held(two.shared(&told).others().unwrap()), Some(both));
}

#[test]
fn the_cpus_of_a_task_that_waits_for_a_run_of_its_own_keep_nobody_waiting() {
    let (dir, box_) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for elsewhere in [false, true] {
        let told = Told { commons: elsewhere.then(|| box_.path().join("box")), ..Told::default() };
        let folder = |id: &str| dir.path().join(if elsewhere { id } else { "one" });
        let mut outer = Run::new(&folder("a"), "a", 1);
        let mut outer = outer.shared(&told);
        outer.append(&[started(0, 1, 3), started(1, 1, 2)]).unwrap();
        let mut nested = Run::within(&folder("c"), "c", 3, Within::default().and("a", "t1", 1));
        let nested = nested.shared(&told);
        let told =
            Told { within: Within::default().and("a", "t0", 1), commons: told.commons.clone(), ..Told::default() };
        let mut run = Run::new(&folder("b"), "b", 2);
        let mut run = run.shared(&told);
        let cpus = |news: News| held(news).map(|held| held.into_iter().map(|(_, cpus)| cpus).collect::<Vec<_>>());
        assert_eq!(cpus(run.others().unwrap()), Some(vec![0]));
        // Once that run is over the task goes on itself.
        told.dead.borrow_mut().push(3);
        assert_eq!(cpus(run.others().unwrap()), Some(vec![2]));
        drop((outer, nested));
    }
}

#[test]
fn what_another_container_calls_the_machine_is_told_as_it_is_called_here() {
    let (dir, told) = (tempfile::tempdir().unwrap(), Told::default());
    let mut store = Store::open(dir.path()).unwrap();
    let orchestrator = Orchestrator { host: "ca".into(), ..header("a", 1).orchestrator };
    let mut key = store.begin(&Header { orchestrator, ..header("a", 1) }).unwrap();
    let place = Place { node: "ca".into(), devices: vec!["ca/gpu1".into()], ..Place::default() };
    let start = |task: u32, place: Place| Event::AttemptStarted { task: TaskId(task), number: 1, place };
    let far = Place { node: "far".into(), devices: vec!["far/gpu1".into()], ..Place::default() };
    for event in [start(0, place), start(1, far)] {
        store.append(&mut key, &[Recorded { at: Millis(1), event }]).unwrap();
    }
    // One of an earlier boot has no process any more.
    let orchestrator = Orchestrator { boot: "before".into(), ..header("z", 1).orchestrator };
    let mut key = store.begin(&Header { orchestrator, ..header("z", 1) }).unwrap();
    store.append(&mut key, &[started(0, 1, 3)]).unwrap();
    let mut run = Run::new(dir.path(), "b", 2);
    let news = run.shared(&told).others().unwrap();
    let places = news.hold.into_iter().flatten().map(|of| (of.place.node, of.place.devices));
    let expected = [("box", "box/gpu1"), ("far", "far/gpu1")];
    assert!(places.eq(expected.map(|(node, device)| (node.to_owned(), vec![device.to_owned()]))));
}

#[test]
fn runs_that_admit_at_the_same_time_never_hold_more_than_there_is() {
    let dir = tempfile::tempdir().unwrap();
    admit_at_the_same_time(|_| dir.path().to_owned(), None);
}

#[test]
fn nor_do_those_of_different_state_folders() {
    let dir = tempfile::tempdir().unwrap();
    admit_at_the_same_time(|id| dir.path().join(id), Some(dir.path().join("box")));
}

/// Has three runs admit one task after the other, each recorded in a folder.
fn admit_at_the_same_time(folder: impl Fn(&str) -> PathBuf + Sync, commons: Option<PathBuf>) {
    const CAPACITY: u64 = 10;
    // What all of them hold at this moment, kept beside the record.
    let taken = AtomicU64::new(0);
    let carry_out = |id: &str, pid: u32, need: u64| {
        let told = Told { commons: commons.clone(), ..Told::default() };
        let mut run = Run::new(&folder(id), id, pid);
        let mut run = run.shared(&told);
        let (mut others, mut admitted, mut number) = (0, false, 0);
        while number < 40 {
            let held = match run.hold() {
                Err(error) if error.is_busy() => continue,
                held => held.unwrap(),
            };
            if let Some(news) = held.hold {
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

#[test]
fn what_runs_of_other_state_folders_hold_counts_and_is_named_with_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told { commons: Some(dir.path().join("box")), ..Told::default() };
    let (mut one, mut two) = (Run::new(&dir.path().join("a"), "a", 1), Run::new(&dir.path().join("b"), "b", 2));
    let (mut one, mut two) = (one.shared(&told), two.shared(&told));
    one.append(&[started(0, 1, 3), started(1, 1, 2)]).unwrap();
    let folder = dir.path().join("a").canonicalize().unwrap();
    let called = |task: &str| format!("a-name in {} {task}", folder.display());
    assert_eq!(held(two.hold().unwrap()), Some(vec![(called("t0"), 3), (called("t1"), 2)]));
    two.let_go().unwrap();
    one.append(&[finished(0)]).unwrap();
    assert_eq!(held(two.others().unwrap()), Some(vec![(called("t1"), 2)]));
    assert_eq!(two.others().unwrap(), News::default());
}

#[test]
fn while_one_admits_no_run_of_another_folder_does() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told { commons: Some(dir.path().join("box")), ..Told::default() };
    let (mut one, mut two) = (Run::new(&dir.path().join("a"), "a", 1), Run::new(&dir.path().join("b"), "b", 2));
    let (mut one, mut two) = (one.shared(&told), two.shared(&told));
    one.hold().unwrap();
    assert!(two.hold().unwrap_err().is_busy());
    one.append(&[started(0, 1, 3)]).unwrap();
    assert_eq!(held(two.hold().unwrap()).unwrap()[0].1, 3);
    assert!(one.hold().unwrap_err().is_busy());
    two.let_go().unwrap();
    one.hold().unwrap();
}

#[test]
fn who_comes_while_another_run_admits_waits_and_is_seen_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told { commons: Some(dir.path().join("box")), ..Told::default() };
    let (mut one, mut two) = (Run::new(&dir.path().join("a"), "a", 1), Run::new(&dir.path().join("b"), "b", 2));
    let mut one = one.shared(&told);
    one.hold().unwrap();
    let mut two = two.shared(&told);
    assert!(two.hold().unwrap_err().is_busy());
    one.append(&[started(0, 1, 3)]).unwrap();
    assert_eq!(held(two.hold().unwrap()).unwrap()[0].1, 3);
    two.append(&[started(0, 2, 1)]).unwrap();
    assert_eq!(held(one.hold().unwrap()).unwrap()[0].1, 1);
}

#[test]
fn a_folder_is_entered_as_long_as_anything_of_its_runs_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let told = Told { commons: Some(dir.path().join("box")), ..Told::default() };
    let entered = || std::fs::read_dir(dir.path().join("box")).unwrap().count() - 1;
    let (mut a, mut b) = (Run::new(&dir.path().join("a"), "a", 1), Run::new(&dir.path().join("b"), "b", 2));
    a.shared(&told).append(&[started(0, 1, 3)]).unwrap();
    b.shared(&told);
    assert_eq!(entered(), 2);
    // Its process is gone, its task is not.
    told.dead.borrow_mut().push(1);
    told.tasks.borrow_mut().push(("t0".into(), Process { pid: 11, started: 1 }));
    b.shared(&told);
    assert_eq!(entered(), 2);
    told.tasks.borrow_mut().clear();
    b.shared(&told);
    assert_eq!(entered(), 1);
    // Whoever takes it up comes back, and whoever was there learns of it.
    let mut b = b.shared(&told);
    told.dead.borrow_mut().clear();
    a.shared(&told);
    assert_eq!(held(b.others().unwrap()).unwrap().len(), 1);
    std::fs::remove_dir_all(dir.path().join("box")).unwrap();
    b.let_go().unwrap();
    assert_eq!(entered(), 1, "who goes on comes back");
    drop(b);
    std::fs::remove_dir_all(dir.path().join("a")).unwrap();
    a.shared(&told);
    let mut c = Run::new(&dir.path().join("c"), "c", 3);
    c.shared(&told);
    assert_eq!(entered(), 2, "b and c");
}

#[test]
fn what_is_no_record_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let commons = dir.path().join("box");
    let told = Told { commons: Some(commons.clone()), ..Told::default() };
    let mut made = commons::Commons::open(&commons, true).unwrap();
    for (name, text) in [("folder", None), ("garbage", Some("garbage")), ("empty", Some(""))] {
        let state = dir.path().join(name);
        std::fs::create_dir(&state).unwrap();
        match text {
            Some(text) => std::fs::write(state.join("state.db"), text).unwrap(),
            None => std::fs::create_dir(state.join("state.db")).unwrap(),
        }
        made.enter(&state).unwrap();
    }
    let pipe = dir.path().join("pipe");
    std::fs::create_dir(&pipe).unwrap();
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, pipe.join("state.db"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    made.enter(&pipe).unwrap();
    let odd = commons.join("0123456789abcdef0123456789abcdef");
    rustix::fs::mknodat(rustix::fs::CWD, odd, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut run = Run::new(&dir.path().join("a"), "a", 1);
    let mut run = run.shared(&told);
    assert_eq!(run.hold().unwrap(), News::default());
    run.append(&[started(0, 1, 3)]).unwrap();
}

#[test]
fn a_folder_that_others_could_write_to_is_not_used() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let (open, link, file) = (dir.path().join("open"), dir.path().join("link"), dir.path().join("file"));
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    symlink(dir.path(), &link).unwrap();
    std::fs::write(&file, "").unwrap();
    for commons in [open, link, file] {
        assert!(commons::Commons::open(&commons, true).is_err());
        let told = Told { commons: Some(commons), ..Told::default() };
        let state = tempfile::tempdir().unwrap();
        let mut run = Run::new(state.path(), "a", 1);
        assert_eq!(run.shared(&told).hold().unwrap(), News::default());
    }
}
