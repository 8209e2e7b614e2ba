//! Packing for real: the binary runs trainings on emulated cards, which give out no byte twice.
//!
//! A stand-in that finds too little memory fails as PyTorch would; so a run that succeeds has never gone beyond a card.

#![expect(clippy::disallowed_methods, reason = "runs the real binary")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mock_nvml::{Card, Scene};
use serde_json::Value;
use trainyard::fleet::{Device, Fleet, Node};
use trainyard::graph::{self, TaskId};
use trainyard::plan;
use trainyard::run::admission::{Ledger, Live, Readings, Seen};
use trainyard::run::decide::{Dispatcher, Options};
use trainyard::run::event::{Event, Recorded, Role};
use trainyard::run::outcome::{Outcome, Usage};
use trainyard::run::state::RunState;
use trainyard::spec::Source;
use trainyard::units::{Bytes, Cpus, Millis};

type Tested = Result<(), Box<dyn Error>>;

fn trainyard(folder: &Path, scene: &Scene, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.args(args).current_dir(folder).env("TRAINYARD_BOX", folder.join(".box")).envs(scene.environment());
    command.env_remove("CUDA_VISIBLE_DEVICES").env_remove("CUDA_DEVICE_ORDER");
    Ok(command.output()?)
}

/// Runs `n` trainings that hold so many MiB of a shared card for a moment, and returns the run as `show` tells it.
fn train(scene: &Scene, n: u32, mib: u64, ramp: &str) -> Result<Value, Box<dyn Error>> {
    run(scene, n, &format!("{mib} 0.4 {ramp}"), &format!("gpu_memory = '{mib}MiB'"))
}

fn run(scene: &Scene, n: u32, args: &str, resources: &str) -> Result<Value, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let seeds: Vec<_> = (0..n).map(|seed| seed.to_string()).collect();
    let trainer = Scene::trainer().display();
    let pipeline = format!(
        "[stage.train]\nrun = '{trainer} {args}'\nmatrix = {{ seed = [{}] }}\n\
         resources = {{ cpus = 0, {resources} }}\n",
        seeds.join(", ")
    );
    fs::write(folder.path().join("sweep.toml"), pipeline)?;
    let run = trainyard(folder.path(), scene, &["run", "sweep.toml", "--quiet"])?;
    let words = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{words}");
    let runs: Value = serde_json::from_slice(&trainyard(folder.path(), scene, &["runs", "--json"])?.stdout)?;
    let id = runs[0]["run"].as_str().ok_or("a run is recorded")?;
    Ok(serde_json::from_slice(&trainyard(folder.path(), scene, &["show", id, "--json"])?.stdout)?)
}

/// How many tasks ran on each card, by the card's name within the machine.
fn by_card(run: &Value) -> BTreeMap<String, usize> {
    let mut cards = BTreeMap::new();
    for task in run["tasks"].as_array().into_iter().flatten() {
        let id = task["attempts"][0]["devices"][0].as_str().unwrap_or("none");
        *cards.entry(id.rsplit('/').next().unwrap_or(id).to_owned()).or_default() += 1;
    }
    cards
}

/// Cards of 16 GiB, of which 15.1 are given out.
fn small_cards(n: usize) -> Vec<Card> {
    vec![Card { name: "Tesla T4".to_owned(), mib: 16_384, ..Card::default() }; n]
}

#[test]
fn trainings_fill_the_cards_and_never_more() -> Tested {
    let scene = Scene::new(small_cards(4))?;
    let run = train(&scene, 200, 1_500, "")?;
    assert_eq!(run["state"], "succeeded");
    let cards = by_card(&run);
    assert_eq!(cards.keys().collect::<Vec<_>>(), ["gpu0", "gpu1", "gpu2", "gpu3"]);
    assert!(cards.values().all(|tasks| *tasks >= 10), "{cards:?}");
    Ok(())
}

#[test]
fn nothing_lands_where_a_stranger_sits() -> Tested {
    let scene = Scene::new(small_cards(2))?;
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    scene.hold(stranger.id(), "0", 12_000)?;
    let cards = by_card(&train(&scene, 4, 6_000, "")?);
    stranger.kill()?;
    stranger.wait()?;
    assert_eq!(cards, BTreeMap::from([("gpu1".to_owned(), 4)]));
    Ok(())
}

#[test]
fn a_whole_card_is_one_that_no_stranger_sits_on() -> Tested {
    let scene = Scene::new(small_cards(2))?;
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    scene.hold(stranger.id(), "0", 12_000)?;
    let cards = by_card(&run(&scene, 2, "2000 0.1", "gpus = 1")?);
    stranger.kill()?;
    stranger.wait()?;
    assert_eq!(cards, BTreeMap::from([("gpu1".to_owned(), 2)]));
    Ok(())
}

#[test]
fn what_is_promised_is_kept_while_it_ramps() -> Tested {
    let scene = Scene::new(small_cards(1))?;
    let run = train(&scene, 4, 7_500, "0.3")?;
    let attempts = run["tasks"].as_array().into_iter().flatten().map(|task| task["attempts"].as_array().map(Vec::len));
    assert!(attempts.into_iter().all(|attempts| attempts == Some(1)), "{run}");
    Ok(())
}

#[test]
fn more_than_any_card_has_is_refused_with_the_largest() -> Tested {
    let scene = Scene::new(small_cards(2))?;
    let folder = tempfile::tempdir()?;
    let pipeline = "[stage.train]\nrun = 'touch started'\nresources = { gpu_memory = '20GiB' }\n";
    fs::write(folder.path().join("large.toml"), pipeline)?;
    let run = trainyard(folder.path(), &scene, &["run", "large.toml"])?;
    assert_eq!(run.status.code(), Some(4));
    let words = String::from_utf8_lossy(&run.stderr);
    assert!(words.contains("20.0 GiB") && words.contains("15544 MiB"), "{words}");
    assert!(!folder.path().join("started").exists());
    Ok(())
}

/// A sweep of 200 trainings of 1 to 8 GiB that take 1 to 10 minutes, always the same.
fn sweep() -> String {
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        // Knuth's MMIX generator; the low bits of such a one are poor.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let stage = |index: u32| {
        let (mib, seconds) = (1_024 + random(7_168), 60 + random(540));
        format!(
            "[stage.t{index}]\nrun = 'true'\nduration = '{seconds}s'\n\
             resources = {{ cpus = 0, gpu_memory = '{mib}MiB' }}\n"
        )
    };
    (0..200).map(stage).collect()
}

/// What the devices of a fleet show while these tasks hold what is reserved for them.
fn readings(fleet: &Fleet, state: &RunState, at: Millis) -> Readings {
    let live = |device: &Device| {
        let runs = |task: &TaskId| state.task(*task).attempts.last().filter(|attempt| attempt.ended.is_none());
        let tasks = (0..state.tasks.len() as u32).map(TaskId);
        let held: Vec<_> = tasks
            .filter_map(|task| runs(&task).map(|attempt| (task, &attempt.place)))
            .filter(|(_, place)| place.devices.contains(&device.id))
            .map(|(task, place)| (task, place.gpu_memory))
            .collect();
        let used: Bytes = held.iter().map(|(_, bytes)| *bytes).sum();
        Live::Seen(Seen { free: device.memory - used, used, held: Some(held), ..Seen::default() })
    };
    Readings { at, devices: fleet.devices.iter().map(live).collect(), ..Readings::default() }
}

/// How full a run keeps the cards as long as anything waits, against cards that are full to the last byte: no packing can
/// do better. On a clock that jumps, with the decisions of a real run.
#[test]
fn two_hundred_trainings_are_packed_nearly_as_well_as_can_be() -> Tested {
    let source = Source { name: "sweep.toml".to_owned(), text: sweep() };
    let loaded = graph::load(&source, &[], &[], graph::Limits::default());
    let (pipeline, graph) = loaded.map_err(|problems| format!("{problems:?}"))?;
    let gib = |n: u64| Bytes(n << 30);
    let device =
        |index| Device { id: format!("box/gpu{index}"), memory: gib(80), headroom: gib(2), ..Device::default() };
    let node = Node { name: "box".to_owned(), cpus: Cpus(64_000), memory: gib(512), ..Node::default() };
    let fleet = Fleet { nodes: vec![node], devices: (0..4).map(device).collect(), ..Fleet::default() };
    let limits = plan::Limits { evaluations: Some(1), ..plan::Limits::default() };
    let plan = plan::make(&pipeline, &graph, &fleet, &plan::Options { limits, ..plan::Options::default() })?;
    let mut state = RunState::new(graph.len());
    let ledger = Ledger::new(&fleet);
    let mut dispatcher =
        Dispatcher::new((&pipeline, &graph), (&fleet, &plan), ledger, Options::default(), Vec::new(), &state);

    let (mut now, mut held, mut could) = (Millis(1), 0_u128, 0_u128);
    let mut ends: std::collections::BTreeSet<(Millis, TaskId)> = std::collections::BTreeSet::new();
    loop {
        let seen = readings(&fleet, &state, now);
        let decided = dispatcher.decide(&state, now, &seen);
        for event in decided.iter().cloned() {
            if let Event::AttemptStarted { task, .. } = &event {
                let stage = &pipeline.stages[graph.tasks[task.index()].stage];
                ends.insert((now + stage.modes[0].duration.base.ok_or("it is declared")?, *task));
            }
            let recorded = Recorded { at: now, event };
            state.apply(&recorded)?;
            dispatcher.take_in(&recorded);
        }
        let Some((next, task)) = ends.pop_first() else { break };
        let waits = state.tasks.iter().any(|task| task.attempts.is_empty());
        if waits {
            for live in readings(&fleet, &state, now).devices {
                let Live::Seen(seen) = live else { continue };
                held += u128::from(seen.used.0) * u128::from((next - now).0);
                could += u128::from(gib(78).0) * u128::from((next - now).0);
            }
        }
        // What ended is seen to have left a moment later, as by a look after an end.
        now = next + Millis(1);
        let event = Event::AttemptFinished {
            task,
            role: Role::Main,
            outcome: Outcome::Succeeded,
            usage: Usage::default(),
            logged: false,
        };
        let recorded = Recorded { at: next, event };
        state.apply(&recorded)?;
        dispatcher.take_in(&recorded);
        if state.end.is_some() {
            break;
        }
    }
    assert!(state.tasks.iter().all(|task| task.attempts.len() == 1));
    let ratio = held as f64 / could as f64;
    println!("memory in use while tasks wait, of what any packing could use: {ratio:.4}");
    assert!(ratio >= 0.95, "{ratio:.4}");
    Ok(())
}
