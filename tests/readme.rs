//! What the README shows is true: its demo is run as it stands there, and its table of commands is complete.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::path::Path;
use std::process::Command;

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// Returns the fenced block behind `<!-- demo: NAME -->`.
fn demo(name: &str) -> String {
    let readme = readme();
    let (_, behind) = readme.split_once(&format!("<!-- demo: {name} -->\n")).expect("the README has this demo");
    let (_, block) = behind.split_once('\n').expect("a fence follows");
    block.split_once("```").expect("the fence is closed").0.to_owned()
}

fn trainyard(folder: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_trainyard"))
        .args(args)
        .current_dir(folder)
        .env("TRAINYARD_BOX", folder.join(".box"))
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

#[test]
fn the_demo_has_twelve_lines() {
    assert_eq!(demo("hello.toml").lines().count(), 12);
}

#[test]
fn the_demo_does_what_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hello.toml"), demo("hello.toml")).unwrap();
    let answer = demo("answer");
    for line in demo("commands").lines() {
        let args: Vec<&str> = line.strip_prefix("trainyard ").expect("only our own commands").split(' ').collect();
        let output = trainyard(folder.path(), &args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {}\n{out}{err}", output.status);
        if args[0] == "run" || args[0] == "logs" {
            assert!(out.starts_with(&answer), "{line} should begin with {answer:?}:\n{out}{err}");
        }
    }
}

#[test]
fn every_command_is_in_the_readme_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let help = String::from_utf8(trainyard(folder.path(), &["--help"]).stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").expect("clap lists commands");
    let listed = commands.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let mut commands: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    commands.retain(|command| *command != "help");
    commands.sort_unstable();
    let readme = readme();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `trainyard "));
    let mut rows: Vec<&str> = rows.filter_map(|row| row.split([' ', '`']).next()).collect();
    rows.sort_unstable();
    assert_eq!(commands, rows);
}
