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

type Tested = Result<(), Box<dyn Error>>;

fn trainyard(folder: &Path, scene: &Scene, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.args(args).current_dir(folder).envs(scene.environment());
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
    let run = train(&scene, 24, 5_000, "")?;
    assert_eq!(run["state"], "succeeded");
    let cards = by_card(&run);
    assert_eq!(cards.keys().collect::<Vec<_>>(), ["gpu0", "gpu1", "gpu2", "gpu3"]);
    assert!(cards.values().all(|tasks| *tasks >= 3), "{cards:?}");
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
    assert!(words.contains("20.0 GiB") && words.contains("15.2 GiB"), "{words}");
    assert!(!folder.path().join("started").exists());
    Ok(())
}
