//! `run` on a terminal: a pseudo-terminal that an emulator reads, as a user sees it.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mock_nvml::{Card, Scene};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const ROWS: u16 = 24;
const COLUMNS: u16 = 100;

/// What came out of a run on a terminal.
struct Seen {
    /// Every byte.
    raw: String,
    /// What stands on the screen in the end.
    screen: String,
    /// What stood on it after each piece of output.
    frames: Vec<String>,
    code: Option<i32>,
}

impl Seen {
    /// Returns what stood on the screen when `what` first did.
    fn frame_with(&self, what: &str) -> &str {
        let frame = self.frames.iter().find(|frame| frame.contains(what));
        frame.unwrap_or_else(|| panic!("`{what}` was never seen, but in the end:\n{}", self.screen))
    }
}

/// Returns both ends of a new terminal.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave_name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(slave_name.to_str().unwrap()).unwrap();
    tcsetwinsize(&slave, Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (File::from(master), slave)
}

/// Runs a pipeline with both outputs on a terminal. Its stage may wait for the pipe `seen`, which opens once `awaited`
/// stands on the screen.
fn run(pipeline: &str, awaited: &str, args: &[&str], env: &[(&str, &str)]) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("seen");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let mut waits = true;
    std::fs::write(folder.path().join("p.toml"), pipeline).unwrap();
    let (mut master, slave) = terminal();
    let mut child = command(folder.path(), args, env)
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap())
        .spawn()
        .unwrap();
    drop(slave);
    let mut emulator = vt100::Parser::new(ROWS, COLUMNS, 0);
    let (mut raw, mut frames, mut piece) = (Vec::new(), Vec::new(), [0; 4096]);
    // Reading fails once the last process has closed its end.
    while let Ok(length @ 1..) = master.read(&mut piece) {
        raw.extend_from_slice(&piece[..length]);
        emulator.process(&piece[..length]);
        frames.push(emulator.screen().contents());
        if waits && frames.last().is_some_and(|frame| frame.contains(awaited)) {
            waits = false;
            drop(File::options().write(true).open(&pipe).unwrap());
        }
    }
    let code = child.wait().unwrap().code();
    Seen { raw: String::from_utf8_lossy(&raw).into_owned(), screen: emulator.screen().contents(), frames, code }
}

fn command(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    let path = std::env::var("PATH").unwrap();
    command.args(["run", "p.toml"]).args(args).current_dir(folder).stdin(Stdio::null());
    command
        .env_clear()
        .env("PATH", path)
        .env("HOME", folder)
        .env("TRAINYARD_BOX", folder.join(".box"))
        .env("TERM", "xterm-256color")
        .envs(env.iter().copied());
    command
}

/// A task that goes on until its bar was seen, and one that fails.
const PIPELINE: &str = r#"
[defaults]
timeout = "60s"
[stage.train]
run = "echo '{\"progress\":0.5,\"phase\":\"epoch 1/2\",\"loss\":0.25}' >> $TRAINYARD_EVENTS; cat seen; echo learnt"
[stage.eval]
run = "echo 'ValueError: nan'; exit 3"
after = ["train"]
"#;

/// What its bar shows.
const BAR: &str = "epoch 1/2";

#[test]
fn bars_move_and_leave_nothing_but_the_outcome() {
    let seen = run(PIPELINE, BAR, &[], &[]);
    assert_eq!(seen.code, Some(1));
    let bar = seen.frame_with(BAR);
    assert!(bar.contains("train") && bar.contains(" 50% ") && bar.contains("loss 0.2500"), "{bar}");
    assert!(bar.contains("0/2 done"), "{bar}");
    assert!(!seen.screen.contains("0/2 done") && !seen.screen.contains(BAR), "{}", seen.screen);
    assert!(seen.screen.contains("failed   eval: attempt 1 ended"), "{}", seen.screen);
    assert!(seen.screen.contains("│ ValueError: nan"), "{}", seen.screen);
    assert!(seen.screen.contains("1 succeeded, 1 failed"), "{}", seen.screen);
}

#[test]
fn log_lines_do_not_garble_the_bars() {
    let seen = run(PIPELINE, BAR, &["-vv"], &[]);
    let lines = |frame: &str, what: &str| frame.lines().filter(|line| line.contains(what)).count();
    for frame in &seen.frames {
        assert!(lines(frame, "/2 done") <= 1, "one live part at a time:\n{frame}");
    }
    assert!(lines(&seen.screen, "/2 done") == 0 && seen.raw.contains("attempt started"), "{}", seen.screen);
}

#[test]
fn every_gpu_has_a_line_with_what_is_held_and_reserved() {
    let scene = Scene::new(vec![Card { utilisation: 87, ..Card::default() }; 2]).unwrap();
    let pipeline = format!(
        r#"
        [defaults]
        timeout = "60s"
        [stage.train]
        run = "{} 20480 60 & cat seen; kill $!"
        resources = {{ gpu_memory = "60GiB" }}
        "#,
        Scene::trainer().display()
    );
    let environment = scene.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, path)| (*name, path.to_str().unwrap())).collect();
    let held = "87% busy, 20.0 GiB of 80.0 GiB, 60.0 GiB reserved";
    let seen = run(&pipeline, held, &[], &environment);
    let frame = seen.frame_with(held);
    let lines: Vec<&str> = frame.lines().filter(|line| line.trim_start().starts_with("gpu")).collect();
    assert!(lines.len() == 2 && lines[0].contains("gpu0 H200") && lines[0].contains("87% busy"), "{frame}");
    assert!(!lines[1].contains("reserved"), "{frame}");
    assert!(frame.lines().any(|line| line.contains("train") && line.trim_end().ends_with("gpu0")), "{frame}");
}

#[test]
fn what_ails_a_gpu_takes_no_room_from_what_it_holds() {
    let ails = Card { slowed: 0x28, uncorrected: 3, ecc: Some(true), remapped: 2, ..Card::default() };
    let scene = Scene::new(vec![Card::default(), ails]).unwrap();
    let home = tempfile::tempdir().unwrap();
    let (mut master, slave) = terminal();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .arg("devices")
        .envs(scene.environment())
        .env("XDG_STATE_HOME", home.path())
        .stdin(Stdio::null())
        .stdout(slave)
        .spawn()
        .unwrap();
    let (mut raw, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut piece) {
        raw.extend_from_slice(&piece[..length]);
    }
    assert!(child.wait().unwrap().success());
    let mut emulator = vt100::Parser::new(ROWS, COLUMNS, 0);
    emulator.process(&raw);
    let screen = emulator.screen().contents();
    let heading = screen.lines().find(|line| line.starts_with("GPU")).unwrap();
    assert_eq!(
        heading.split_whitespace().collect::<Vec<_>>(),
        ["GPU", "MODEL", "UUID", "MEMORY", "USED", "TOTAL", "USE", "TEMP", "POWER"]
    );
    assert!(screen.contains("\ngpu1: 3 uncorrected memory errors\n"), "{screen}");
    assert!(screen.lines().filter(|line| line.starts_with("gpu1: slowed: ")).count() == 2, "{screen}");
}

#[test]
fn no_color_means_no_colour() {
    let digits = |c: char| c.is_ascii_digit() || c == ';';
    let colours = |raw: &str| raw.split("\x1b[").skip(1).any(|code| code.trim_start_matches(digits).starts_with('m'));
    assert!(colours(&run(PIPELINE, BAR, &[], &[]).raw));
    let plain = run(PIPELINE, BAR, &[], &[("NO_COLOR", "1")]).raw;
    assert!(!colours(&plain), "{plain:?}");
}

#[test]
fn what_a_stage_says_cannot_steer_the_terminal() {
    let hostile = r#"
        [defaults]
        timeout = "60s"
        [stage.train]
        run = "printf '{\"phase\":\"\\\\u001b]0;owned\\\\u0007\"}\n' >> $TRAINYARD_EVENTS; printf '\\033]0;owned\\007\n'; cat seen; exit 1"
    "#;
    let seen = run(hostile, "owned", &["--mirror"], &[]);
    assert!(seen.raw.contains("owned") && !seen.raw.contains("\x1b]0;"), "{:?}", seen.raw);
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let seen = run(PIPELINE, "started  train", &[], &[("TERM", "dumb")]);
    assert!(!seen.raw.contains('\x1b'), "{:?}", seen.raw);
    assert!(seen.raw.contains("started  train"));
}

#[test]
fn whoever_closes_the_terminal_interrupts_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let waits = "[stage.waits]\nrun = \"echo begun; until test -e gate; do sleep 0.05; done\"\n";
    std::fs::write(folder.path().join("p.toml"), waits).unwrap();
    for args in [&[][..], &["--survive"], &["--quiet"]] {
        let (mut master, slave) = terminal();
        let mut run = command(folder.path(), &[&["--mirror"], args].concat(), &[]);
        // Whoever runs the tests may ignore it, as below `nohup`: then so would the run.
        let hears = || {
            // SAFETY: the call is one that a process may make between fork and exec.
            unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
            Ok(())
        };
        // SAFETY: as above.
        unsafe { run.pre_exec(hears) };
        let mut run = run.stdout(slave.try_clone().unwrap()).stderr(slave).spawn().unwrap();
        let (mut shown, mut piece) = (String::new(), [0; 4096]);
        while !shown.contains("begun") {
            let length = master.read(&mut piece).unwrap();
            shown.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        // As the system does when it closes the terminal of a session.
        drop(master);
        let pid = rustix::process::Pid::from_child(&run);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(130), "{args:?}");
    }
}
