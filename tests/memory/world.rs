//! A project folder with one pipeline file, on an emulated machine.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mock_nvml::{Card, Scene};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) type Tested = Result<(), Box<dyn Error>>;

/// A project folder with one pipeline file, on an emulated machine.
pub(crate) struct World {
    pub(crate) scene: Scene,
    folder: TempDir,
}

impl World {
    pub(crate) fn new(cards: Vec<Card>, pipeline: &str) -> Result<Self, Box<dyn Error>> {
        let world = Self { scene: Scene::new(cards)?, folder: tempfile::tempdir()? };
        world.write(pipeline)?;
        Ok(world)
    }

    pub(crate) fn write(&self, pipeline: &str) -> Tested {
        let trainer = Scene::trainer().display().to_string();
        Ok(fs::write(self.path().join("p.toml"), pipeline.replace("TRAIN ", &format!("{trainer} ")))?)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Result<Output, Box<dyn Error>> {
        Ok(self.prepare(args).output()?)
    }

    /// Runs a command with these variables besides.
    pub(crate) fn command_under(&self, env: &[(&str, &str)], args: &[&str]) -> Result<Output, Box<dyn Error>> {
        Ok(self.prepare(args).envs(env.iter().copied()).output()?)
    }

    pub(crate) fn prepare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.path())
            .env("TRAINYARD_BOX", self.path().join(".box"))
            .envs(self.scene.environment());
        // What is remembered of devices is remembered here.
        command.env("XDG_STATE_HOME", self.path().join("home"));
        command.env("CUDA_MPS_PIPE_DIRECTORY", self.path().join("no-mps"));
        for name in ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "XLA_CLIENT_MEM_FRACTION"] {
            command.env_remove(name);
        }
        for name in ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "RUST_LOG", "TRAINYARD_HEADROOM"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs to the end; returns the exit code, what was said, and the run as JSON.
    pub(crate) fn run(&self) -> Result<(Option<i32>, String, Value), Box<dyn Error>> {
        let run = self.command(&["run", "p.toml"])?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        let shown = self.command(&["show", "--json"])?;
        Ok((run.status.code(), said, serde_json::from_slice(&shown.stdout)?))
    }

    /// Returns the newest run.
    pub(crate) fn shown(&self) -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_slice(&self.command(&["show", "--json"])?.stdout)?)
    }

    /// Starts a run and goes on.
    pub(crate) fn start(&self) -> Result<Child, Box<dyn Error>> {
        let mut command = self.prepare(&["run", "p.toml"]);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    }

    /// Asks again and again until the answer is as wanted. Each question is a process of its own and takes its time.
    pub(crate) fn until(&self, args: &[&str], wanted: impl Fn(&Value) -> bool) -> Result<Value, Box<dyn Error>> {
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

    /// Waits until all tasks of the newest run are running.
    pub(crate) fn until_all_run(&self) -> Tested {
        let runs = |task: &Value| task["state"] == "running";
        self.until(&["show", "--json"], |run| run["tasks"].as_array().is_some_and(|tasks| tasks.iter().all(runs)))?;
        Ok(())
    }

    /// Asks again and again until what is printed is as wanted.
    pub(crate) fn until_printed(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> Result<String, Box<dyn Error>> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let printed = self.printed(args)?;
            if wanted(&printed) {
                return Ok(printed);
            }
            if Instant::now() > deadline {
                return Err(format!("it was never printed as wanted: {printed}").into());
            }
        }
    }

    /// Reads a file again and again until what it holds is as wanted.
    pub(crate) fn until_file(&self, path: &Path, wanted: impl Fn(&Value) -> bool) -> Tested {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            let text = fs::read(path).unwrap_or_default();
            if wanted(&serde_json::from_slice(&text).unwrap_or(Value::Null)) {
                return Ok(());
            }
            // A process of its own takes its time.
            self.printed(&["runs"])?;
        }
        Err(format!("{} never held what is wanted", path.display()).into())
    }

    /// Waits until the newest run has seen a series of a card (`used`, `ours`) end with so many MiB.
    pub(crate) fn until_seen(&self, series: &str, card: usize, mib: u64) -> Tested {
        let id = self.shown()?["run"].as_str().ok_or("a run has an id")?.to_owned();
        self.until_file(&self.path().join(".trainyard/runs").join(id).join("memory.json"), |held| {
            let values = held[series][card]["value"].as_array();
            values.and_then(|values| values.last()?.as_f64()) == Some((mib << 20) as f64)
        })
    }

    /// Returns what a command prints.
    pub(crate) fn printed(&self, args: &[&str]) -> Result<String, Box<dyn Error>> {
        let output = self.command(args)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Somebody who holds memory of a card, until he is dropped.
pub(crate) struct Stranger(Child);

impl Stranger {
    pub(crate) fn on(world: &World, card: usize, mib: u64) -> Result<Self, Box<dyn Error>> {
        let stranger = Self(Command::new("cat").stdin(Stdio::piped()).spawn()?);
        world.scene.hold(stranger.0.id(), &card.to_string(), mib)?;
        Ok(stranger)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the first attempt runs, and returns the index of its card.
pub(crate) fn card_of_first(world: &World) -> Result<usize, Box<dyn Error>> {
    let run = world.until(&["show", "--json"], |run| run["tasks"][0]["state"] == "running")?;
    let device = attempts(&run, "devices")[0][0].as_str().unwrap_or_default().to_owned();
    Ok(if device.ends_with("gpu0") { 0 } else { 1 })
}

/// Cards that no table of speeds knows, of so many MiB.
pub(crate) fn cards(sizes: &[u64]) -> Vec<Card> {
    sizes.iter().map(|mib| Card { name: "NVIDIA Emulated".to_owned(), mib: *mib, ..Card::default() }).collect()
}

/// Returns one thing about each attempt of a run's first task.
pub(crate) fn attempts(run: &Value, key: &str) -> Vec<Value> {
    run["tasks"][0]["attempts"].as_array().into_iter().flatten().map(|attempt| attempt[key].clone()).collect()
}
