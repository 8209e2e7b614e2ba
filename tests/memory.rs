//! What becomes of trainings that need more memory than they said, on emulated cards and with the real binary.

#![expect(clippy::disallowed_methods, reason = "runs the real binary")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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

    /// Starts a run and goes on.
    fn start(&self) -> Result<Child, Box<dyn Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.args(["run", "p.toml"]).current_dir(self.path()).envs(self.scene.environment());
        command.env_remove("CUDA_VISIBLE_DEVICES").env_remove("CUDA_DEVICE_ORDER").env_remove("RUST_LOG");
        Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    }

    /// Asks again and again until the answer is as wanted. Each question is a process of its own and takes its time.
    fn until(&self, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Result<Value, Box<dyn Error>> {
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut last = Value::Null;
        while Instant::now() < deadline {
            last = serde_json::from_slice(&self.command(args)?.stdout).unwrap_or(Value::Null);
            if wanted(&last) {
                return Ok(last);
            }
        }
        Err(format!("it never became as wanted: {last:#}").into())
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

/// Returns what `plan --json` says of the pipeline's first task.
fn planned(world: &World) -> Result<Value, Box<dyn Error>> {
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    Ok(plan["tasks"][0].clone())
}

/// Returns the device memory that each task's last attempt reserved; null for a device alone.
fn reserved(run: &Value) -> Vec<Value> {
    let tasks = run["tasks"].as_array().into_iter().flatten();
    tasks.filter_map(|task| Some(task["attempts"].as_array()?.last()?["gpu_memory_bytes"].clone())).collect()
}

#[test]
fn what_a_stage_needs_is_measured_once_and_then_reserved() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 1.6'\nresources = { gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let first = planned(&world)?;
    assert_eq!((&first["gpu_memory_from"], &first["duration_from"]), (&"default".into(), &"default".into()));
    assert!(world.printed(&["plan", "p.toml"])?.contains("1 task of unknown GPU memory: alone on a GPU"));
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("alone on a GPU until it is known how much of its memory they need: `train`"), "{said}");
    assert_eq!(reserved(&run), [Value::Null]);

    // 3,000 MiB and a quarter, since one attempt says little.
    let next = planned(&world)?;
    assert_eq!((&next["gpu_memory_from"], &next["gpu_memory_runs"]), (&"learned".into(), &1.into()));
    assert_eq!(next["gpu_memory_bytes"], 3_750_u64 << 20);
    assert_eq!((&next["duration_from"], &next["duration_runs"]), (&"learned".into(), &1.into()));
    assert!(world.printed(&["plan", "p.toml"])?.contains("duration from 1 attempt, memory from 1 attempt"));
    let (code, said, run) = world.run()?;
    assert_eq!((code, said.contains("alone on a GPU")), (Some(0), false), "{said}");
    assert_eq!(reserved(&run), [Value::from(3_750_u64 << 20)]);

    // Another command is another stage, of which nothing is known.
    world.write(&pipeline.replace("3000", "2000"))?;
    assert_eq!(planned(&world)?["gpu_memory_from"], "default");
    Ok(())
}

#[test]
fn a_sweep_of_unknown_need_shares_the_card_after_its_first_task() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 1.6'\nmatrix = { seed = [1, 2, 3, 4] }\n\
                    resources = { cpus = 0, gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let learned = Value::from(3_750_u64 << 20);
    assert_eq!(reserved(&run), [Value::Null, learned.clone(), learned.clone(), learned]);
    Ok(())
}

#[test]
fn what_was_not_enough_is_learned_too() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 5000 0.1'\nbackoff = '100ms'\noom_retries = 0\n\
                    resources = { gpu_memory = '16GiB' }\n";
    let world = World::new(cards(&[20_480]), &pipeline.replace("TRAIN 5000", "TRAIN 30000"))?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(1), "{said}");
    world.write(&pipeline.replace("TRAIN 5000", "TRAIN 30000").replace("16GiB", "auto"))?;
    let next = planned(&world)?;
    // Half as much again is more than the card has: it is asked for alone.
    assert_eq!((&next["gpu_memory_from"], &next["gpu_memory_runs"]), (&"learned".into(), &1.into()));
    Ok(())
}

#[test]
fn a_task_without_room_says_what_it_waits_for_in_numbers() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 0.1'\nresources = { gpu_memory = '8GiB' }\n\
                    [stage.best]\nrun = 'true'\nafter = ['train']\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    world.scene.hold(stranger.id(), "0", 10_240)?;
    let mut run = world.start()?;
    let why = world.until(&["explain", "train", "--json"], |said| said["why"] == "room")?;
    let lacks = &why["devices"][0]["lacks"];
    assert_eq!((&lacks["is"], &lacks["free_bytes"]), (&"memory".into(), &(6_144_u64 << 20).into()));
    let words = world.printed(&["explain", "train"])?;
    assert!(words.contains("needs 8.0 GiB of one GPU, 1 CPUs; gpu0 free 6.0 GiB, promised 0 B, headroom"), "{words}");
    let words = world.printed(&["explain", "best"])?;
    assert!(words.contains("it needs train (waiting) to succeed first"), "{words}");
    stranger.kill()?;
    stranger.wait()?;
    assert!(run.wait()?.success());
    assert_eq!(world.until(&["explain", "train", "--json"], |_| true)?["why"], "succeeded");
    assert!(!world.command(&["explain", "trian"])?.status.success());
    Ok(())
}
