//! What becomes of trainings that need more memory than they said, on emulated cards and with the real binary.

#![expect(clippy::disallowed_methods, reason = "runs the real binary")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use mock_nvml::{Card, Scene};
use serde_json::Value;
use tempfile::TempDir;

type Tested = Result<(), Box<dyn Error>>;

/// A project folder with one pipeline file, on an emulated machine.
struct World {
    scene: Scene,
    folder: TempDir,
}

impl World {
    fn new(cards: Vec<Card>, pipeline: &str) -> Result<Self, Box<dyn Error>> {
        let world = Self { scene: Scene::new(cards)?, folder: tempfile::tempdir()? };
        world.write(pipeline)?;
        Ok(world)
    }

    fn write(&self, pipeline: &str) -> Tested {
        let trainer = Scene::trainer().display().to_string();
        Ok(fs::write(self.path().join("p.toml"), pipeline.replace("TRAIN", &trainer))?)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Result<Output, Box<dyn Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.args(args).current_dir(self.path()).envs(self.scene.environment());
        command.env_remove("CUDA_VISIBLE_DEVICES").env_remove("CUDA_DEVICE_ORDER").env_remove("RUST_LOG");
        Ok(command.output()?)
    }

    /// Runs to the end; returns the exit code, what was said, and the run as JSON.
    fn run(&self) -> Result<(Option<i32>, String, Value), Box<dyn Error>> {
        let run = self.command(&["run", "p.toml"])?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        let shown = self.command(&["show", "--json"])?;
        Ok((run.status.code(), said, serde_json::from_slice(&shown.stdout)?))
    }

    /// Returns what a command prints.
    fn printed(&self, args: &[&str]) -> Result<String, Box<dyn Error>> {
        let output = self.command(args)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Cards that no table of speeds knows, of so many MiB.
fn cards(sizes: &[u64]) -> Vec<Card> {
    sizes.iter().map(|mib| Card { name: "NVIDIA Emulated".to_owned(), mib: *mib, ..Card::default() }).collect()
}

/// Returns one thing about each attempt of a run's first task.
fn attempts(run: &Value, key: &str) -> Vec<Value> {
    run["tasks"][0]["attempts"].as_array().into_iter().flatten().map(|attempt| attempt[key].clone()).collect()
}

#[test]
fn a_training_that_runs_out_gets_more_then_a_card_then_a_larger_one() -> Tested {
    let pipeline =
        "[stage.train]\nrun = 'TRAIN 20000 0.1'\nbackoff = '100ms'\nresources = { gpu_memory = '4000MiB' }\n";
    let world = World::new(cards(&[16_384, 40_960]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "outcome"), ["out-of-memory", "out-of-memory", "out-of-memory", "succeeded"]);
    assert_eq!(attempts(&run, "raised"), [Value::Null, "more".into(), "alone".into(), "larger".into()]);
    let mib = |mib: u64| Value::from(mib << 20);
    assert_eq!(attempts(&run, "gpu_memory_bytes")[..3], [mib(4_000), mib(6_000), mib(6_000)]);
    for words in ["with 5.9 GiB of a GPU", "alone on a GPU", "alone on a larger GPU, of more than 15.2 GiB"] {
        assert!(said.contains(words), "{words} is missing in\n{said}");
        let shown = world.printed(&["show"])?;
        assert!(shown.contains(words), "{words} is missing in\n{shown}");
    }
    Ok(())
}

#[test]
fn running_out_of_memory_is_tried_again_no_oftener_than_asked() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 20000 0.1'\nbackoff = '100ms'\nretries = 5\noom_retries = 1\nresources = { gpu_memory = '4000MiB' }\n";
    let (code, _, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!(code, Some(1));
    assert_eq!(attempts(&run, "outcome"), ["out-of-memory", "out-of-memory"]);
    Ok(())
}

#[test]
fn a_neighbour_that_took_too_much_is_waited_for() -> Tested {
    // One takes more than it said, and the other finds too little; once that is seen, it waits for room.
    let pipeline = "[stage.train]\nrun = 'TRAIN 11000 1.2'\nbackoff = '100ms'\nmatrix = { seed = [1, 2] }\n\
                    resources = { cpus = 0, gpu_memory = '4000MiB' }\n";
    let (code, said, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    let tries =
        run["tasks"].as_array().into_iter().flatten().map(|task| task["attempts"].as_array().map_or(0, Vec::len));
    assert_eq!(tries.sum::<usize>(), 3, "{run:#}");
    Ok(())
}

#[test]
fn the_peak_of_an_attempt_is_what_its_processes_were_seen_to_hold() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 1.3'\nresources = { gpu_memory = '4000MiB' }\n";
    let (code, said, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "peak_gpu_memory_bytes"), [Value::from(3_000_u64 << 20)]);
    Ok(())
}
