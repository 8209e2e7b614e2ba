//! A folder of its own for each test, the binary in it, and what its record says afterwards.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use trainyard::engine::process;

/// A project folder with one pipeline file.
pub(crate) struct World {
    dir: TempDir,
}

/// A run under way, whose messages and mirrored output can be waited for.
pub(crate) struct Started {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

impl World {
    pub(crate) fn new(pipeline: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.toml"), pipeline).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, whole at once: somebody looks for it all the time.
    pub(crate) fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path("put.new"), text).unwrap();
        std::fs::rename(self.path("put.new"), self.path(name)).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("TRAINYARD_BOX", self.dir.path().join(".box"))
            .env("HOME", self.dir.path())
            .env("NO_COLOR", "1");
        command.env_remove("RUST_LOG").env_remove("CUDA_VISIBLE_DEVICES").stdin(Stdio::null());
        hears_hang_ups(&mut command, true);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(&[&["run", "p.toml"], args].concat()).output().unwrap()
    }

    /// Runs to the end and returns the exit code and the newest run as JSON.
    pub(crate) fn run_and_show(&self, args: &[&str]) -> (i32, Value) {
        let output = self.run(args);
        (output.status.code().unwrap(), self.show())
    }

    pub(crate) fn show(&self) -> Value {
        let output = self.command(&["show", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    pub(crate) fn start(&self, args: &[&str]) -> Started {
        Started::of(self.command(&[&["run", "p.toml", "--mirror"], args].concat()))
    }
}

impl Started {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits until a line holds `words`, and returns it.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
        panic!("the run ended without `{words}`: {:#?}", self.seen)
    }

    /// Returns what was waited through so far.
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end and returns the exit code; `None` after a signal.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.lines.by_ref().for_each(drop);
        self.child.wait().unwrap().code()
    }
}

/// Returns everything that a command said, on one line.
pub(crate) fn told(output: &Output) -> String {
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).replace('│', " ");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the outcomes of a task's attempts.
pub(crate) fn outcomes(run: &Value, task: &str) -> Vec<String> {
    let attempts = of(run, task)["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap_or("none").to_owned()).collect()
}

/// Returns a task's state.
pub(crate) fn state<'a>(run: &'a Value, task: &str) -> &'a str {
    of(run, task)["state"].as_str().unwrap()
}

pub(crate) fn of<'a>(run: &'a Value, task: &str) -> &'a Value {
    let tasks = run["tasks"].as_array().unwrap();
    tasks.iter().find(|one| one["name"] == task).unwrap_or_else(|| panic!("no task {task} in {run:#}"))
}

/// Returns the process number that a stage wrote to a file.
pub(crate) fn pid_in(path: &Path) -> u32 {
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

/// Returns the parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Waits until something is so that tells nobody.
pub(crate) fn wait_until(mut it_is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !it_is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it never was so");
        std::thread::yield_now();
    }
}

/// Waits until a process, not necessarily a child, has ended. One that is gone already has.
pub(crate) fn wait_for_end(pid: u32) {
    if let Ok(watched) = process::watch(pid) {
        let mut one = [rustix::event::PollFd::new(&watched, rustix::event::PollFlags::IN)];
        let minute = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert!(rustix::event::poll(&mut one, Some(&minute)).unwrap() > 0, "process {pid} lives on");
    }
}

/// Waits until there is a file.
pub(crate) fn wait_for(path: &Path) {
    while !path.exists() {
        std::thread::yield_now();
    }
}

/// Lets a command hear a hang-up, also where these tests were started by `nohup`; or not.
pub(crate) fn hears_hang_ups(command: &mut Command, it_does: bool) {
    let how = if it_does { libc::SIG_DFL } else { libc::SIG_IGN };
    let set = move || {
        // SAFETY: it is one that may be called between fork and exec, and installs no handler.
        unsafe { libc::signal(libc::SIGHUP, how) };
        Ok(())
    };
    // SAFETY: as said there.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, set) };
}
