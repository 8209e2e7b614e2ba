//! `watch` on a pseudo-terminal that an emulator reads, attached to a detached run; and without a terminal.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mock_nvml::{Card, Scene};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};
use tempfile::TempDir;

const ROWS: u16 = 24;
const COLUMNS: u16 = 110;

/// A task that says how far it is in its own way and goes on until the pipe `seen` is opened, and one after it.
const PIPELINE: &str = r#"
name = "digits"
[defaults]
timeout = "120s"
[stage.train]
run = "echo hello from train; echo 'Epoch 1/2 - loss: 0.25'; cat seen; echo 'Epoch 2/2 - loss: 0.125'"
[stage.evaluate]
run = "printf 'accuracy \\033]0;owned\\007 0.9\n'"
after = ["train"]
"#;

/// A folder with a run that is under way without a terminal.
struct World {
    dir: TempDir,
    environment: Vec<(&'static str, PathBuf)>,
}

impl World {
    fn new() -> Self {
        Self::of(PIPELINE, Vec::new())
    }

    fn of(pipeline: &str, environment: Vec<(&'static str, PathBuf)>) -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), environment };
        std::fs::write(world.path().join("p.toml"), pipeline).unwrap();
        mknodat(CWD, world.path().join("seen"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let output = world.command(&["run", "p.toml", "--detach"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        world
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        let path = std::env::var("PATH").unwrap();
        command
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .env_clear()
            .env("TRAINYARD_BOX", self.path().join(".box"));
        command.env("PATH", path).env("HOME", self.path()).env("TERM", "xterm-256color");
        command.envs(self.environment.iter().map(|(name, path)| (*name, path.as_path())));
        command
    }

    /// Lets the task go on that waits.
    fn go_on(&self) {
        drop(File::options().write(true).open(self.path().join("seen")).unwrap());
    }

    fn watch(&self) -> Watched {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        tcsetwinsize(&slave, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let mut command = self.command(&["watch"]);
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        // As a shell in a window of its own would have it: the terminal is the one that /dev/tty stands for.
        let take_terminal = || {
            rustix::process::setsid()?;
            Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
        };
        // SAFETY: between fork and exec only these two system calls are made.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn().unwrap();
        Watched { child, master: File::from(master), emulator: vt100::Parser::new(ROWS, COLUMNS, 0), raw: Vec::new() }
    }
}

impl Drop for World {
    /// Whatever failed, the detached run does not stay behind.
    fn drop(&mut self) {
        let _ = self.command(&["cancel", "--now"]).output();
    }
}

struct Watched {
    child: Child,
    master: File,
    emulator: vt100::Parser,
    raw: Vec<u8>,
}

impl Watched {
    fn screen(&self) -> String {
        self.emulator.screen().contents()
    }

    /// Reads a piece of output; `false` once the terminal is closed.
    fn read(&mut self) -> bool {
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&minute)).unwrap();
        assert!(ready > 0, "nothing came for a minute, and on the screen is\n{}", self.screen());
        let mut piece = [0; 4096];
        let Ok(length @ 1..) = self.master.read(&mut piece) else { return false };
        self.raw.extend_from_slice(&piece[..length]);
        self.emulator.process(&piece[..length]);
        true
    }

    /// Waits until the screen is as wanted, and returns what is on it.
    fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(self.read(), "it ended before {what}:\n{screen}");
        }
        panic!("never {what}, but\n{}", self.screen());
    }

    fn until_seen(&mut self, words: &str) -> String {
        self.until(words, |screen| screen.contains(words))
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        self.emulator.screen_mut().set_size(rows, columns);
    }

    /// Ends it by a signal, and returns how it ended with everything that it wrote.
    fn end_by(mut self, signal: Signal) -> (ExitStatus, String, Termios) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
        let before_end = self.child.wait().unwrap();
        while self.read() {}
        (before_end, String::from_utf8_lossy(&self.raw).into_owned(), tcgetattr(&self.master).unwrap())
    }

    fn quit(mut self) -> (Option<i32>, String) {
        self.press("q");
        while self.read() {}
        (self.child.wait().unwrap().code(), String::from_utf8_lossy(&self.raw).into_owned())
    }
}

#[test]
fn a_detached_run_is_seen_with_its_progress_and_its_log_until_it_ends() {
    let world = World::new();
    let mut watched = world.watch();
    let screen =
        watched.until("progress and log", |screen| screen.contains("epoch 1/2") && screen.contains("hello from"));
    assert!(screen.contains("digits  running  0/2 done  1 running, 1 waiting"), "{screen}");
    assert!(screen.contains("50%") && screen.contains("/cpu"), "{screen}");
    world.go_on();
    let screen = watched.until_seen("succeeded  2/2 done");
    assert!(screen.contains("✓ train") && screen.contains("✓ evaluate"), "{screen}");
    let (code, raw) = watched.quit();
    assert_eq!(code, Some(0));
    assert!(raw.ends_with("\x1b[?25h\x1b[?1049l"), "the screen is given back");
}

#[test]
fn keys_choose_a_task_and_filter_the_list() {
    let world = World::new();
    world.go_on();
    let mut watched = world.watch();
    watched.until_seen("succeeded  2/2 done");
    watched.press("\x1b[B");
    watched.until_seen("› ✓ evaluate");
    let screen = watched.until("its log", |screen| screen.contains("accuracy"));
    assert!(!screen.contains("hello from"), "{screen}");
    watched.press("/tra\r");
    let screen = watched.until_seen("filter: tra ");
    assert!(screen.contains("› ✓ train") && !screen.contains("✓ evaluate"), "{screen}");
    watched.press("\x1b");
    watched.until("all tasks again", |screen| screen.contains("✓ evaluate") && !screen.contains("filter: tra"));
    let (code, raw) = watched.quit();
    assert_eq!(code, Some(0));
    assert!(!raw.contains("\x1b]0;"), "what a task prints cannot steer the terminal");
}

#[test]
fn a_run_can_be_ended_after_a_question() {
    let world = World::new();
    let mut watched = world.watch();
    watched.until_seen("▶ train");
    watched.press("c");
    watched.until_seen("end the run?");
    watched.press("n");
    watched.until("the keys again", |screen| !screen.contains("end the run?"));
    watched.press("c");
    watched.until_seen("end the run?");
    watched.press("y");
    watched.until_seen("interrupted  0/2 done");
    assert_eq!(watched.quit().0, Some(0));
}

/// A task that fails, and does not when it is tried again.
const FAILS_ONCE: &str = include_str!("fixtures/fails-once.toml");

#[test]
fn a_run_that_failed_can_be_tried_again() {
    let world = World::of(FAILS_ONCE, Vec::new());
    let mut watched = world.watch();
    watched.until_seen("failed  0/2 done");
    let screen = watched.until_seen("ValueError: nan");
    assert!(screen.contains("› ✗ train"), "{screen}");
    watched.press("r");
    watched.until_seen("go on with the run?");
    watched.press("n");
    watched.until("the keys again", |screen| !screen.contains("go on with the run?"));
    watched.press("r");
    watched.until_seen("go on with the run?");
    watched.press("y");
    let screen = watched.until_seen("succeeded  2/2 done");
    assert!(!screen.contains("1 failed") && !screen.contains("1 skipped"), "{screen}");
    watched.press("r");
    watched.until_seen("there is nothing to try again");
    assert_eq!(watched.quit().0, Some(0));
}

#[test]
fn why_a_run_cannot_be_tried_again_is_said() {
    let world = World::of(FAILS_ONCE, Vec::new());
    let mut watched = world.watch();
    watched.until_seen("failed  0/2 done");
    std::fs::write(world.path().join("p.toml"), PIPELINE).unwrap();
    watched.press("r");
    watched.until_seen("go on with the run?");
    watched.press("y");
    watched.until_seen("`trainyard resume` failed: /");
    watched.until("what helps", |screen| screen.replace(['\n', ' '], "").contains("--changed`"));
    assert_eq!(watched.quit().0, Some(0));
}

#[test]
fn failed_tasks_alone_the_log_alone_and_the_keys_can_be_seen() {
    let world = World::of(FAILS_ONCE, Vec::new());
    let mut watched = world.watch();
    watched.until_seen("- evaluate");
    watched.press("f");
    let screen = watched.until("failed ones only", |screen| !screen.contains("evaluate"));
    assert!(screen.contains("filter: failed") && screen.contains("› ✗ train"), "{screen}");
    watched.press("fz");
    let screen = watched.until("the log alone", |screen| !screen.contains("tasks"));
    assert!(screen.contains("log of train") && screen.contains("ValueError: nan"), "{screen}");
    watched.press("z?");
    watched.until_seen("retry: go on with a run that failed or was interrupted");
    watched.press("?");
    watched.until("the list again", |screen| screen.contains("- evaluate") && !screen.contains("retry: go on"));
    assert_eq!(watched.quit().0, Some(0));
}

#[test]
fn it_follows_the_size_of_the_terminal() {
    let world = World::of(FAILS_ONCE, Vec::new());
    let mut watched = world.watch();
    watched.until_seen("log of train");
    watched.resize(16, 60);
    let screen = watched.until("a narrow screen", |screen| {
        screen.contains("failed  0/2 done") && screen.contains("› ✗ train") && !screen.contains("log of")
    });
    assert!(screen.lines().count() <= 16, "{screen}");
    watched.resize(ROWS, COLUMNS);
    watched.until_seen("log of train");
    assert_eq!(watched.quit().0, Some(0));
}

#[test]
fn a_signal_that_ends_it_leaves_the_terminal_as_it_was() {
    let world = World::of(FAILS_ONCE, Vec::new());
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut watched = world.watch();
        watched.until_seen("failed  0/2 done");
        let is_cooked = |modes: &Termios| modes.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO);
        assert!(!is_cooked(&tcgetattr(&watched.master).unwrap()));
        let (status, raw, modes) = watched.end_by(signal);
        assert_eq!(status.signal(), Some(signal.as_raw()), "the shell is told");
        assert!(raw.ends_with("\x1b[?25h\x1b[?1049l"), "{raw:?}");
        assert!(is_cooked(&modes));
    }
}

#[test]
fn a_terminal_that_is_gone_ends_it() {
    let world = World::of(FAILS_ONCE, Vec::new());
    let mut watched = world.watch();
    watched.until_seen("failed  0/2 done");
    drop(watched.master);
    // It hangs here if it does not notice.
    watched.child.wait().unwrap();
}

#[test]
fn every_gpu_has_a_line_and_the_chart_has_one_for_each_that_is_used() {
    let scene = Scene::new(vec![Card { utilisation: 87, ..Card::default() }; 2]).unwrap();
    let trainer = Scene::trainer().display();
    let pipeline = format!(
        "[defaults]\ntimeout = \"120s\"\n[stage.train]\nrun = \"{trainer} 20480 60 & cat seen; kill $!\"\n\
         resources = {{ gpu_memory = \"60GiB\" }}\n"
    );
    let world = World::of(&pipeline, scene.environment());
    let mut watched = world.watch();
    let screen = watched.until_seen("87% busy, 20.0 GiB of 80.0 GiB, 60.0 GiB reserved");
    assert_eq!(screen.lines().filter(|line| line.contains("H200")).count(), 2, "{screen}");
    assert_eq!(screen.lines().filter(|line| line.contains("/gpu")).count(), 1, "{screen}");
    world.go_on();
    watched.until_seen("1/1 done");
    assert_eq!(watched.quit().0, Some(0));
}

#[test]
fn events_are_objects_one_a_line() {
    let world = World::new();
    let mut command = world.command(&["watch", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap())).map(Result::unwrap);
    let mut events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
    assert_eq!(events.next().unwrap()["event"], "run-started");
    assert!(events.any(|event| event["event"] == "progress" && event["phase"] == "epoch 1/2"));
    world.go_on();
    assert!(events.any(|event| event["event"] == "attempt-finished" && event["task"] == "evaluate"));
    assert!(events.any(|event| event["event"] == "run-finished" && event["state"] == "succeeded"));
    assert_eq!(events.next(), None);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn without_a_terminal_it_prints_lines_until_the_end() {
    let world = World::new();
    let mut command = world.command(&["watch"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap())).map(Result::unwrap);
    assert!(lines.any(|line| line.contains("started  train")));
    world.go_on();
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().any(|line| line.contains("done     evaluate")), "{rest:?}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("succeeded"));
}
