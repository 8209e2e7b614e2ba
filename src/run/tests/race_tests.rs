//! Two attempts of a task side by side, on a clock that jumps and with files that are really moved: the outputs are those of
//! one of them, whichever that is.

use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::run::event::{Process, Role};
use crate::run::outcome::Outcome;
use crate::units::Speed;

/// A task that is expected to take ten seconds and gets company after fifteen.
const STRAGGLER: &str = "[stage.a]\nrun = 'x {outputs}'\noutputs = ['out/one', 'out/two']\n\
                         backup = { after = 1.5 }\nduration = '10s'\ngrace = '1s'\n";

/// One of which two attempts run from the start.
const TWINS: &str = "[stage.a]\nrun = 'x {outputs}'\noutputs = ['out/one', 'out/two']\nreplicas = 2\n";

fn script(takes: &[(&str, u64)]) -> Script {
    Script { takes: takes.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect(), ..Script::default() }
}

/// A history whose files are in a folder of their own.
fn history() -> History {
    History { folder: Some(Rc::new(tempfile::tempdir().unwrap())), ..History::default() }
}

impl History {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.as_ref().unwrap().path().join(name)
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    /// Returns the texts of both outputs.
    fn outputs(&self) -> [Option<String>; 2] {
        ["out/one", "out/two"].map(|name| self.read(name))
    }

    fn is_empty(&self, folder: &str) -> bool {
        std::fs::read_dir(self.path(folder)).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Returns how the attempts of the first task ended.
    fn outcomes(&self, case: &Case) -> Vec<Option<Outcome>> {
        let state = self.state(case.graph.len());
        state.tasks[0].attempts.iter().map(|attempt| Some(attempt.ended.as_ref()?.outcome.clone())).collect()
    }
}

fn both(text: &str) -> [Option<String>; 2] {
    [Some(text.to_owned()), Some(text.to_owned())]
}

#[test]
fn a_straggler_gets_company_when_it_has_taken_half_as_long_again_and_the_first_to_finish_wins() {
    let case = Case::new(STRAGGLER);
    let outrun = || Some(Outcome::Outrun);
    let won = || Some(Outcome::Succeeded);
    for (first, second, outcomes, text) in [
        (14_000, 1, vec![won()], "a.1"),
        (100_000, 9_000, vec![outrun(), won()], "a.2"),
        (20_000, 9_000, vec![won(), outrun()], "a.1"),
    ] {
        let mut history = history();
        let script = Script { lingers: 300, ..script(&[("a.1", first), ("a.2", second)]) };
        assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
        assert_eq!(history.outcomes(&case), outcomes);
        assert_eq!(history.outputs(), both(text));
        assert!(history.is_empty("r/staging"), "{text}");
        let state = history.state(1);
        if let [main, beside] = &state.tasks[0].attempts[..] {
            assert_eq!((main.place.role, beside.place.role), (Role::Main, Role::Backup));
            assert_eq!(beside.started, main.started + Millis(15_000));
        }
    }
}

#[test]
fn two_that_end_at_the_same_moment_have_one_winner() {
    let case = Case::new(TWINS);
    let mut history = history();
    assert_eq!(case.run(&script(&[]), Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
    let outcomes = history.outcomes(&case);
    assert!(outcomes.contains(&Some(Outcome::Succeeded)) && outcomes.contains(&Some(Outcome::Outrun)), "{outcomes:?}");
    let won = outcomes.iter().position(|outcome| *outcome == Some(Outcome::Succeeded)).unwrap() + 1;
    assert_eq!(history.outputs(), both(&format!("a.{won}")));
    assert!(history.is_empty("r/staging"));
}

#[test]
fn where_both_fail_nothing_is_published_and_that_was_one_try() {
    let case = Case::new(&format!("{TWINS}retries = 1\nbackoff = '1s'\n"));
    let fails = |tries: &[&str]| tries.iter().map(|name| (*name).to_owned()).collect();
    let mut first = history();
    let script = Script { fails: fails(&["a.1", "a.2", "a.3", "a.4"]), ..script(&[("a.2", 50)]) };
    assert_eq!(case.run(&script, Options::default(), &mut first, None).unwrap(), RunEnd::Failed);
    assert_eq!(first.outcomes(&case), vec![Some(Outcome::Exited { code: 1 }); 4]);
    assert_eq!(first.outputs(), [None, None]);
    assert!(first.is_empty("r/staging") && !first.is_empty("r/aside"));

    let mut second = history();
    let script = Script { fails: fails(&["a.1", "a.2", "a.3"]), ..script };
    assert_eq!(case.run(&script, Options::default(), &mut second, None).unwrap(), RunEnd::Succeeded);
    assert_eq!(second.outputs(), both("a.4"));
}

#[test]
fn a_race_that_is_cut_short_publishes_nothing_and_begins_anew_with_both() {
    let case = Case::new(STRAGGLER);
    let mut history = history();
    let long = Script { lingers: 300, ..script(&[("a", 100_000)]) };
    assert_eq!(case.run(&long, Options::default(), &mut history, Some(20_000)).unwrap(), RunEnd::Interrupted);
    assert_eq!(history.outcomes(&case), vec![Some(Outcome::Interrupted); 2]);
    assert_eq!(history.outputs(), [None, None]);
    assert!(history.is_empty("r/staging"));
    history.resume(1);
    let script = script(&[("a.3", 100_000), ("a.4", 10)]);
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
    assert_eq!(history.outputs(), both("a.4"));
}

#[test]
fn a_race_goes_on_where_its_orchestrator_left_it() {
    let case = Case::new(TWINS);
    for winner in 1..=2 {
        let mut history = history();
        let takes = |number| if number == winner { 10 } else { 1_000 };
        let script = Script { lingers: 5, ..script(&[("a.1", takes(1)), ("a.2", takes(2))]) };
        case.run(&script, Options::default(), &mut history, None).unwrap();
        // As if it had died when both ran.
        let begun =
            |recorded: &Recorded| matches!(recorded.event, Event::AttemptStarted { .. } | Event::AttemptSpawned { .. });
        history.memory.events.borrow_mut().retain(begun);
        for name in ["out", "r/aside"] {
            let _ = std::fs::remove_dir_all(history.path(name));
        }
        assert_eq!(history.state(1).running, 2);
        history.resume_with(1, |number| Fate::Kept(Process { pid: 1, started: u64::from(number) }));
        assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
        assert_eq!(history.outputs(), both(&format!("a.{winner}")));
        assert_eq!(history.state(1).tasks[0].attempts.len(), 2, "nothing was started again");
        assert!(history.is_empty("r/staging"));
    }
}

#[test]
fn one_of_two_that_is_left_when_the_run_goes_on_gets_company_again() {
    let case = Case::new(TWINS);
    for lost in 1..=2 {
        let mut history = history();
        case.run(&script(&[]), Options::default(), &mut history, None).unwrap();
        let begun =
            |recorded: &Recorded| matches!(recorded.event, Event::AttemptStarted { .. } | Event::AttemptSpawned { .. });
        history.memory.events.borrow_mut().retain(begun);
        history.resume_with(1, |number| match number == lost {
            true => Fate::Lost { logged: false },
            false => Fate::Kept(Process { pid: 1, started: 1 }),
        });
        let script = script(&[("a", 1_000), ("a.3", 10)]);
        assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
        // Beside the main one another may run; what ran beside one that is lost goes on alone.
        let (attempts, text) = if lost == 2 { (3, "a.3") } else { (2, "a.2") };
        assert_eq!(history.state(1).tasks[0].attempts.len(), attempts);
        assert_eq!(history.outputs(), both(text));
    }
}

#[test]
fn a_retry_that_is_due_in_a_run_that_stops_keeps_nothing_from_happening() {
    // The one that waits would be due long before the other has ended.
    let case = Case::new(
        "[stage.waits]\nrun = 'x'\nretries = 3\nbackoff = '1s'\n[stage.runs]\nrun = 'x'\n[stage.fails]\nrun = 'x'\n",
    );
    let failures = HashMap::from([("waits".to_owned(), 3), ("fails".to_owned(), 1)]);
    let script = Script { failures, lingers: 60_000, ..script(&[("runs", 100_000), ("fails", 20)]) };
    let mut history = History::default();
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Failed);
    let mut history = History::default();
    let options = Options { keep_going: true, ..Options::default() };
    assert_eq!(case.run(&script, options, &mut history, Some(500)).unwrap(), RunEnd::Interrupted);
    let end = history.memory.events.borrow().last().unwrap().at;
    assert!(end >= Millis(60_000), "it waited for what ran: {end}");
}

#[test]
fn a_second_attempt_that_is_due_while_the_disk_is_full_waits_for_room() {
    let case = Case::new(&format!("{STRAGGLER}[stage.b]\nrun = 'x'\n"));
    let mut history = history();
    let script = Script { full_from: Some((12_000, 30_000)), ..script(&[("a.1", 100_000), ("a.2", 10)]) };
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
    let state = history.state(2);
    let started = state.tasks[0].attempts[1].started;
    assert!((30_000..=32_000).contains(&started.0), "{started}");
}

#[test]
fn nothing_is_started_on_a_disk_that_has_just_been_filled() {
    let case = Case::new("[stage.a]\nrun = 'x'\n[stage.b]\nrun = 'x'\nafter = ['a']\n");
    let mut history = history();
    let script = Script { full_from: Some((1_050, 5_000)), ..script(&[("a.1", 100)]) };
    assert_eq!(case.run(&script, Options::default(), &mut history, None).unwrap(), RunEnd::Succeeded);
    let started = history.state(2).tasks[1].attempts[0].started;
    assert!((5_000..=7_000).contains(&started.0), "{started}");
}

/// A host with so many devices of 10 GiB.
fn devices(count: u32) -> Vec<Device> {
    let device = |n| Device {
        id: format!("box/gpu{n}"),
        model: "H100".to_owned(),
        memory: Bytes(10 << 30),
        speed: Speed::default(),
        ..Device::default()
    };
    (0..count).map(device).collect()
}

/// Random tasks on devices, many of which two attempts may run of, and what their attempts do.
fn races() -> impl Strategy<Value = (String, Script, u32)> {
    let stage = (0_u8..4, 1_u64..8, prop::collection::vec((1_u64..40_000, 0_u8..3), 6), 0_u32..2, any::<bool>());
    (prop::collection::vec(stage, 1..5), 0_u64..3_000, 1_u32..4).prop_map(|(stages, lingers, devices)| {
        let mut text = String::new();
        let mut script = Script { lingers, ..Script::default() };
        for (i, (race, memory, attempts, retries, whole)) in stages.into_iter().enumerate() {
            let race = match race {
                0 => "backup = { after = 1.5 }\n",
                1 => "",
                _ => "replicas = 2\n",
            };
            let needs = if whole { "gpus = 1".to_owned() } else { format!("gpu_memory = '{memory}GiB'") };
            text += &format!(
                "[stage.s{i}]\nrun = 'x {{outputs}}'\noutputs = ['s{i}/one', 's{i}/two']\nduration = '5s'\n\
                 retries = {retries}\nbackoff = '1s'\nresources = {{ {needs} }}\n{race}"
            );
            for (n, (takes, fails)) in (1..).zip(attempts) {
                script.takes.insert(format!("s{i}.{n}"), takes);
                if fails == 0 {
                    script.fails.insert(format!("s{i}.{n}"));
                }
            }
        }
        (text, script, devices)
    })
}

/// Asserts at every step of the record that two attempts of a task hold different devices.
fn check_devices(case: &Case, history: &History) {
    let mut state = RunState::new(case.graph.len());
    for recorded in history.memory.events.borrow().iter() {
        state.apply(recorded).expect("a record can be replayed");
        for task in &state.tasks {
            let mut held: Vec<&String> = task.open().flat_map(|(_, attempt)| &attempt.place.devices).collect();
            let all = held.len();
            held.sort();
            held.dedup();
            assert_eq!(held.len(), all, "two attempts on one device");
        }
    }
}

/// Asserts that the outputs of what succeeded are those of the attempt that did, and that nothing else is there.
fn check_outputs(case: &Case, history: &History) {
    let state = history.state(case.graph.len());
    for (task, of) in
        case.graph.tasks.iter().zip(&state.tasks).filter(|(task, _)| case.pipeline.stages[task.stage].backup.is_some())
    {
        let won = of.telling().filter(|_| of.phase == Phase::Succeeded);
        let wanted = won.map(|(number, _)| format!("{}.{number}", task.name));
        for output in &task.outputs {
            assert_eq!(history.read(output), wanted, "{output}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_races_the_outputs_are_those_of_one_attempt_and_no_device_has_two(
        (text, script, count) in races(),
        stop in prop::option::of(0_u64..60_000),
    ) {
        let case = Case::on(&text, devices(count));
        let mut history = history();
        let options = Options { keep_going: true, ..Options::default() };
        let end = case.run(&script, options, &mut history, stop).unwrap();
        prop_assert!(stop.is_some() || end != RunEnd::Interrupted);
        check_devices(&case, &history);
        check_outputs(&case, &history);
        prop_assert!(history.is_empty("r/staging"));
        if count == 1 {
            let state = history.state(case.graph.len());
            let beside = state.tasks.iter().flat_map(|task| &task.attempts).filter(|attempt| attempt.place.role == Role::Backup);
            prop_assert_eq!(beside.count(), 0);
        }
    }

    #[test]
    fn a_race_whose_record_fails_ends_all_the_same((text, script, count) in races(), batches in 0_u32..20) {
        let case = Case::on(&text, devices(count));
        let mut history = history();
        history.memory.batches_left = Some(batches);
        let ended = case.run(&script, Options { keep_going: true, ..Options::default() }, &mut history, None);
        if let Err(error) = ended {
            prop_assert!(matches!(error, RunError::Store(_)));
        }
        check_devices(&case, &history);
    }
}
