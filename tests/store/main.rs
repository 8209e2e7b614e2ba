//! The record on a storage that fails: every write, sync and full disk in turn; the database cut at every commit, its
//! log torn; and a damaged one, which is moved aside and never written over.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

mod faults;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use faults::Fault;
use trainyard::graph::TaskId;
use trainyard::run::event::{Event, Place, Process, Recorded, Role, RunEnd};
use trainyard::run::outcome::{Outcome, Usage};
use trainyard::run::resume::{self, Fate};
use trainyard::run::state::RunState;
use trainyard::run::store::{Header, Invocation, Orchestrator, Store, StoreError, TaskHeader};
use trainyard::run::within::Within;
use trainyard::units::Millis;

/// Tasks of the recorded run.
const TASKS: u32 = 25;

/// Returns a folder in memory, where there is such a place: what a real sync takes is of no interest here.
fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn header() -> Header {
    let process = Process { pid: 7, started: 99 };
    let task = |n| TaskHeader {
        name: format!("t{n}"),
        stage: "t".to_owned(),
        planned: (Millis(0), Millis(5)),
        ..TaskHeader::default()
    };
    Header {
        id: "r1".to_owned(),
        pipeline: "p".to_owned(),
        file: "/p/p.toml".to_owned(),
        orchestrator: Orchestrator {
            host: "box".to_owned(),
            boot: "b".to_owned(),
            pids: None,
            process,
            within: Within::default(),
        },
        started: Millis(1_000),
        invocation: Invocation::default(),
        tasks: (0..TASKS).map(task).collect(),
    }
}

/// What one turn of a run commits at once, turn by turn: some tasks start as others end.
fn batches() -> Vec<Vec<Recorded>> {
    let recorded = |event| Recorded { at: Millis(2_000), event };
    let started = |task| {
        // Long enough that the database gets several pages and its log is checkpointed.
        let place = Place { node: "a node with a long name ".repeat(40), ..Place::default() };
        recorded(Event::AttemptStarted { task: TaskId(task), number: 1, place })
    };
    let ended = |task| {
        let (outcome, usage) = (Outcome::Succeeded, Usage::default());
        recorded(Event::AttemptFinished { task: TaskId(task), role: Role::Main, outcome, usage, logged: true })
    };
    let mut batches = vec![vec![started(0), started(1)]];
    batches.extend((2..TASKS).map(|task| vec![ended(task - 2), started(task)]));
    batches.push(vec![ended(TASKS - 2), ended(TASKS - 1), recorded(Event::RunFinished { end: RunEnd::Succeeded })]);
    batches
}

/// Records the run until something fails; returns how many batches were acknowledged, and whether all were.
fn record(dir: &Path) -> (usize, bool) {
    let mut acknowledged = 0;
    let mut all = || -> Result<(), StoreError> {
        let mut store = Store::open(dir)?;
        let mut key = store.begin(&header())?;
        for batch in batches() {
            store.append(&mut key, &batch)?;
            acknowledged += 1;
        }
        Ok(())
    };
    let went_well = all().is_ok();
    (acknowledged, went_well)
}

/// Returns how many whole batches these events are.
fn whole_batches(events: &[Recorded]) -> usize {
    let batches = batches();
    let mut left = events;
    for (n, batch) in batches.iter().enumerate() {
        match left.split_at_checked(batch.len()) {
            Some((these, rest)) if these == &batch[..] => left = rest,
            _ => {
                assert!(left.is_empty(), "part of batch {n} is there: {left:?}");
                return n;
            }
        }
    }
    assert!(left.is_empty());
    batches.len()
}

/// Opens what is there, and makes sure that a run in it can go on; returns how many batches there are.
fn opened(dir: &Path, what: &str) -> usize {
    let mut store = Store::open(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let rows = store.runs().unwrap();
    let events = store.events("r1").unwrap();
    let batches = whole_batches(&events);
    let Some(row) = rows.first() else {
        assert!(events.is_empty());
        return 0;
    };
    let mut state = RunState::new(row.header.tasks.len());
    events.iter().for_each(|event| state.apply(event).unwrap());
    assert_eq!(state.end, row.end, "{what}: the header repeats the end");
    if state.end.is_none() {
        let resumed = resume::events(&state, |_, _| Fate::Lost { logged: false });
        let resumed: Vec<Recorded> = resumed.into_iter().map(|event| Recorded { at: Millis(3_000), event }).collect();
        let by = Orchestrator { process: Process { pid: 8, started: 100 }, ..row.header.orchestrator.clone() };
        let mut key = store.take_over(&row.header, &by).unwrap().expect("nobody else is there");
        resumed.iter().for_each(|event| state.apply(event).unwrap());
        store.append(&mut key, &resumed).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    batches
}

#[test]
fn whichever_write_or_sync_fails_what_was_acknowledged_is_there_and_nothing_else() {
    let mut failures = 0;
    for fault in [Fault::Write, Fault::Sync, Fault::Full] {
        for lasting in [false, true] {
            for nth in 1.. {
                let what = format!("{fault:?} {nth}, lasting: {lasting}");
                let dir = quick_folder();
                faults::arm(dir.path(), fault, nth, lasting);
                let (acknowledged, went_well) = record(dir.path());
                let met = faults::disarm(dir.path());
                let found = opened(dir.path(), &what);
                assert!(acknowledged <= found && found <= acknowledged + 1, "{what}: {acknowledged}, found {found}");
                assert!(!went_well || found == batches().len(), "{what}");
                if !met {
                    break;
                }
                failures += 1;
            }
        }
    }
    assert!(failures > 300, "only {failures} operations could fail");
}

/// Bytes before the first frame of a write-ahead log, and of a frame's header (SQLite's file format, section 4).
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const PAGE: usize = 4_096;

#[test]
fn a_database_cut_anywhere_in_its_log_holds_whole_turns_and_goes_on() {
    let dir = quick_folder();
    let mut store = Store::open(dir.path()).unwrap();
    let mut key = store.begin(&header()).unwrap();
    let mut cuts = 0;
    let mut cut = |store: &Path, at_least: usize, all: bool| {
        let (database, log) =
            (fs::read(store.join("state.db")).unwrap(), fs::read(store.join("state.db-wal")).unwrap());
        let frames = log.len().saturating_sub(LOG_HEADER) / (FRAME_HEADER + PAGE);
        let ends = (0..=frames).map(|frame| LOG_HEADER + frame * (FRAME_HEADER + PAGE));
        // At the end of each frame, within its header and within its page; of most logs the last frames only.
        let ends: Vec<usize> = ends.rev().take(if all { usize::MAX } else { 3 }).collect();
        let mut most = 0;
        for end in ends.iter().rev().flat_map(|end| [*end, end + 7, end + FRAME_HEADER + 1_000]) {
            let lost = quick_folder();
            fs::write(lost.path().join("state.db"), &database).unwrap();
            fs::write(lost.path().join("state.db-wal"), &log[..end.min(log.len())]).unwrap();
            let found = opened(lost.path(), &format!("cut at {end} of {}", log.len()));
            assert!(found >= most, "more of the log holds no less");
            most = found;
            cuts += 1;
        }
        assert!(most >= at_least, "the whole log holds what was acknowledged");
        // A torn frame: as long as it should be, and not what was written.
        if frames > 0 {
            let lost = quick_folder();
            let mut torn = log;
            let last = LOG_HEADER + (frames - 1) * (FRAME_HEADER + PAGE) + FRAME_HEADER;
            torn[last + 100..last + 1_000].fill(0xA5);
            fs::write(lost.path().join("state.db"), &database).unwrap();
            fs::write(lost.path().join("state.db-wal"), torn).unwrap();
            opened(lost.path(), "torn");
        }
    };
    let batches = batches();
    for (n, batch) in (1..).zip(&batches) {
        store.append(&mut key, batch).unwrap();
        cut(dir.path(), n, n == batches.len());
    }
    assert!(cuts > 300, "only {cuts} cuts");
}

fn trainyard(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .args(args)
        .current_dir(folder)
        .env("HOME", folder)
        .env("TRAINYARD_BOX", folder.join(".box"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Returns the files in a state folder that were moved aside, their names sorted.
fn aside(state: &Path) -> Vec<String> {
    let names = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("state.db.corrupt-")).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_database_is_reported_and_moved_aside_by_a_new_run_only() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("emptied", |bytes| bytes.clear()),
        ("emptied but for a byte", |bytes| bytes.truncate(1)),
        ("not a database at all", |bytes| bytes.fill(b'x')),
        ("cut off", |bytes| bytes.truncate(PAGE + 100)),
        ("noise in every page but the first", |bytes| bytes[PAGE..].fill(0xA5)),
    ];
    for (what, damage) in damages {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"true\"\n").unwrap();
        assert!(trainyard(folder.path(), &["run", "p.toml", "--quiet"]).status.success());
        let state = folder.path().join(".trainyard");
        let mut bytes = fs::read(state.join("state.db")).unwrap();
        damage(&mut bytes);
        fs::write(state.join("state.db"), &bytes).unwrap();

        for args in [&["runs"][..], &["show"], &["resume"]] {
            let output = trainyard(folder.path(), args);
            assert_eq!(output.status.code(), Some(70), "{what}: {args:?}: {}", said(&output));
            assert!(said(&output).contains("is damaged"), "{what}: {args:?}: {}", said(&output));
        }
        assert_eq!(fs::read(state.join("state.db")).unwrap(), bytes, "{what}: who only reads changes nothing");

        let output = trainyard(folder.path(), &["run", "p.toml", "--quiet"]);
        assert!(output.status.success(), "{what}: {}", said(&output));
        assert!(said(&output).contains("it is kept as"), "{what}: {}", said(&output));
        let kept = aside(&state);
        assert_eq!(kept.len(), 1, "{what}: {kept:?}");
        assert!(!state.join("state.db.moving").exists(), "{what}: the lock goes with the move");
        assert_eq!(fs::read(state.join(&kept[0])).unwrap(), bytes, "{what}: what is kept is what was there");
        let runs = trainyard(folder.path(), &["runs", "--json"]);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&runs.stdout).unwrap().as_array().unwrap().len(), 1);
        assert!(trainyard(folder.path(), &["run", "p.toml", "--quiet"]).status.success());
        assert_eq!(aside(&state).len(), 1, "{what}: once is enough");
    }
}

/// Returns what SQLite says of a database that is not in use.
fn integrity(database: &Path) -> String {
    let db = rusqlite::Connection::open(database).unwrap();
    db.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap()
}

/// Returns a copy of a record that has lost a table.
fn without_events(database: &Path) -> Vec<u8> {
    let copy = database.with_extension("copy");
    fs::copy(database, &copy).unwrap();
    let db = rusqlite::Connection::open(&copy).unwrap();
    db.execute_batch("PRAGMA journal_mode = DELETE; DROP TABLE event;").unwrap();
    drop(db);
    let bytes = fs::read(&copy).unwrap();
    fs::remove_file(&copy).unwrap();
    bytes
}

#[test]
fn a_damage_anywhere_is_told_and_the_next_run_begins_on_sound_ground() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "[stage.a]\nrun = \"true\"\n[stage.b]\nrun = \"true\"\nafter = [\"a\"]\n";
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    assert!(trainyard(folder.path(), &["run", "p.toml", "--quiet"]).status.success());
    let state = folder.path().join(".trainyard");
    let database = state.join("state.db");
    let sound = fs::read(&database).unwrap();
    let zeroed = (0..sound.len() / PAGE).map(|page| {
        let mut bytes = sound.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0);
        (format!("page {page} zeroed"), bytes)
    });
    // The first bytes of a page say what it holds.
    let turned = (1..sound.len() / PAGE).map(|page| {
        let mut bytes = sound.clone();
        bytes[page * PAGE..page * PAGE + 8].iter_mut().for_each(|byte| *byte ^= 0xFF);
        (format!("page {page} turned"), bytes)
    });
    let mut unreadable = sound.clone();
    let at = sound.windows(7).position(|bytes| bytes == b"/p.toml").unwrap();
    unreadable[at] = 0xFF;
    // The number that says how the tables are laid out.
    let mut unknown = sound.clone();
    unknown[47] = 99;
    let others = [("no text", unreadable), ("unknown layout", unknown), ("a table is gone", without_events(&database))];
    let others = others.into_iter().map(|(what, bytes)| (what.to_owned(), bytes));
    for (what, bytes) in zeroed.chain(turned).chain(others) {
        for name in ["state.db-wal", "state.db-shm"] {
            let _ = fs::remove_file(state.join(name));
        }
        fs::write(&database, &bytes).unwrap();
        for args in [&["runs"][..], &["resume"]] {
            let output = trainyard(folder.path(), args);
            let told = output.status.code() == Some(70) && said(&output).contains("`trainyard run` moves it aside");
            let unharmed =
                ["-p-", "has succeeded", "every run has succeeded"].iter().any(|it| said(&output).contains(it));
            assert!(told || unharmed, "{what}: {args:?}: {}", said(&output));
        }
        let before = aside(&state).len();
        let output = trainyard(folder.path(), &["run", "p.toml", "--quiet"]);
        assert!(output.status.success(), "{what}: {}", said(&output));
        assert_eq!(said(&output).contains("it is kept as"), aside(&state).len() > before, "{what}: {}", said(&output));
        assert_eq!(integrity(&database), "ok", "{what}");
        let runs = trainyard(folder.path(), &["runs"]);
        assert!(runs.status.success() && said(&runs).contains("-p-"), "{what}: {}", said(&runs));
        let doubt = state.join("state.db.doubt").exists();
        assert!(!doubt, "{what}: it was looked through");
    }
}

#[test]
fn an_event_that_cannot_be_read_concerns_its_run_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"true\"\n").unwrap();
    assert!(trainyard(folder.path(), &["run", "p.toml", "--quiet"]).status.success());
    let state = folder.path().join(".trainyard");
    let db = rusqlite::Connection::open(state.join("state.db")).unwrap();
    db.execute("UPDATE event SET body = replace(body, 'outcome', 'outcame')", []).unwrap();
    drop(db);
    let output = trainyard(folder.path(), &["show"]);
    assert_eq!(output.status.code(), Some(70), "{}", said(&output));
    assert!(said(&output).contains("other runs are not concerned"), "{}", said(&output));
    for told in [true, false] {
        let output = trainyard(folder.path(), &["run", "p.toml", "--quiet"]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output).contains("its record is damaged"), told, "once is enough: {}", said(&output));
    }
    assert_eq!(aside(&state), Vec::<String>::new());
}

#[test]
fn a_folder_in_the_place_of_the_database_is_told_with_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"true\"\n").unwrap();
    fs::create_dir_all(folder.path().join(".trainyard/state.db")).unwrap();
    for args in [&["runs"][..], &["show"], &["resume"], &["run", "p.toml"]] {
        let output = trainyard(folder.path(), args);
        assert_eq!(output.status.code(), Some(70), "{args:?}: {}", said(&output));
        assert!(
            said(&output).contains("is not a file") && said(&output).contains("move"),
            "{args:?}: {}",
            said(&output)
        );
    }
}

/// Runs a script in a folder, with the binary as `$0` and mounts of its own; `None` where the system does not let us have them:
/// the script says so by 77.
fn with_own_mounts(folder: &Path, script: &str) -> Option<Output> {
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_trainyard")]).current_dir(folder);
    let output = command
        .env("HOME", folder)
        .env("TRAINYARD_BOX", folder.join(".box"))
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    (!matches!(output.status.code(), Some(1 | 77))).then_some(output)
}

#[test]
fn a_record_that_may_only_be_read_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"echo here; touch out\"\noutputs = [\"out\"]\n")
        .unwrap();
    assert!(trainyard(folder.path(), &["run", "p.toml", "--quiet"]).status.success());
    let script = "mount --bind . . && mount -o remount,bind,ro . || exit 77; cd \"$PWD\" || exit 78
                  \"$0\" runs && \"$0\" show && \"$0\" cache && \"$0\" run p.toml --dry-run && \"$0\" logs latest a || exit 79; ! touch here 2> /dev/null";
    let Some(output) = with_own_mounts(folder.path(), script) else { return };
    assert!(output.status.success() && said(&output).ends_with("here\n"), "{:?}: {}", output.status, said(&output));
}

#[test]
fn a_disk_without_a_page_left_is_called_full() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"touch out\"\noutputs = [\"out\"]\n").unwrap();
    let script = r#"mkdir st && mount -t tmpfs -o size=4m none st || exit 77
                    "$0" run p.toml --state st --quiet || exit 78
                    cat /dev/zero > st/fill 2> /dev/null
                    "$0" runs --state st; "$0" run p.toml --state st; "$0" resume --state st; true"#;
    let Some(output) = with_own_mounts(folder.path(), script) else { return };
    assert_eq!(said(&output).matches("the disk is full: make room on it").count(), 3, "{}", said(&output));
}

#[test]
fn what_cannot_be_written_is_told_by_its_cause_and_no_run_is_promised_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"exit 1\"\n").unwrap();
    fs::create_dir(folder.path().join(".trainyard")).unwrap();
    let empty = said(&trainyard(folder.path(), &["show"]));
    assert!(empty.contains("no `.trainyard` with a record"), "{empty}");
    assert_eq!(trainyard(folder.path(), &["run", "p.toml", "--quiet"]).status.code(), Some(1));
    let script = "mount --bind . . && mount -o remount,bind,ro . || exit 77; cd \"$PWD\" || exit 78; \"$0\" resume";
    let Some(output) = with_own_mounts(folder.path(), script) else { return };
    assert!(
        said(&output).to_lowercase().contains("read-only") && !said(&output).contains("whoever"),
        "{}",
        said(&output)
    );
    let script = "mkdir disk && mount -t tmpfs -o size=1m none disk || exit 77; cp p.toml disk && cd disk || exit 78
                  cat /dev/zero > fill; \"$0\" run p.toml --keep-free 0";
    let Some(output) = with_own_mounts(folder.path(), script) else { return };
    let said = said(&output);
    assert!(said.contains("make room on it") && !said.contains("resume` goes on"), "{said}");
}

#[test]
fn a_disk_that_fills_up_ends_nothing_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "[stage.fill]\nrun = \"cat /dev/zero > fill || true\"\n[stage.b]\nrun = \"true\"\nafter = [\"fill\"]\n\
                    [stage.c]\nrun = \"true\"\nafter = [\"b\"]\n";
    fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    // A small disk of its own, where the system lets us have one.
    let script = "mkdir disk && mount -t tmpfs -o size=8m none disk || exit 77; cp p.toml disk && cd disk || exit 78
                  \"$0\" run p.toml --keep-free 0 --quiet || exit 79; rm fill; \"$0\" show";
    let Some(output) = with_own_mounts(folder.path(), script) else { return };
    assert!(output.status.success(), "{:?}: {}", output.status, said(&output));
    assert!(said(&output).contains("3 succeeded"), "{}", said(&output));
}

#[test]
fn a_database_of_another_version_is_a_matter_of_usage() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"true\"\n").unwrap();
    let state = folder.path().join(".trainyard");
    drop(Store::open(&state).unwrap());
    let db = rusqlite::Connection::open(state.join("state.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    for args in [&["run", "p.toml"][..], &["runs"], &["show"], &["resume"]] {
        let output = trainyard(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
        assert!(said(&output).contains("was written by another version"), "{args:?}: {}", said(&output));
    }
    let output = trainyard(folder.path(), &["run", "p.toml", "--state", "other"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn two_runs_that_find_the_same_damage_move_it_aside_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.toml"), "[stage.a]\nrun = \"true\"\n").unwrap();
    let state = folder.path().join(".trainyard");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("state.db"), "this was a database").unwrap();
    std::thread::scope(|scope| {
        let runs = [(); 4].map(|()| scope.spawn(|| trainyard(folder.path(), &["run", "p.toml", "--quiet"])));
        for run in runs {
            let output = run.join().unwrap();
            assert!(output.status.success(), "{}", said(&output));
        }
    });
    assert_eq!(aside(&state).len(), 1);
    let runs = trainyard(folder.path(), &["runs", "--json"]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&runs.stdout).unwrap().as_array().unwrap().len(), 4);
}

#[test]
fn whoever_opens_while_others_open_and_close_waits_for_them() {
    const AT_ONCE: usize = 4;
    let dir = quick_folder();
    // The first to come makes it, and the last to go closes it, again and again.
    std::thread::scope(|scope| {
        for thread in 0..AT_ONCE {
            let dir = dir.path();
            scope.spawn(move || {
                for round in 0..15 {
                    let mut store = Store::open(dir).unwrap();
                    let mut key = store.begin(&Header { id: format!("{thread}-{round}"), ..header() }).unwrap();
                    store.append(&mut key, &batches()[0]).unwrap();
                    drop(store);
                    let store = Store::open_existing(dir).unwrap();
                    assert!(store.runs().unwrap().len() > round);
                }
            });
        }
    });
    assert_eq!(Store::open_existing(dir.path()).unwrap().runs().unwrap().len(), AT_ONCE * 15);
}
