//! The house rules that no compiler checks: the map is true, dependencies point one way, the core is pure, files are
//! small and say what they are for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines that a file of `src/` may have: beyond that nobody reads it in one go.
const LONGEST_FILE: usize = 500;

/// The rooms in which the same input gives the same output: no clock, no I/O, no environment.
const PURE: &[&str] = &[
    "units.rs",
    "spec/",
    "graph/",
    "fleet/",
    "timing/",
    "batch/",
    "plan/",
    "progress/",
    "run/event.rs",
    "run/outcome.rs",
    "run/state",
    "run/decide",
    "run/expect.rs",
    "run/retry.rs",
    "run/raise.rs",
    "run/peak.rs",
    "run/resume.rs",
    "run/cache/key.rs",
    "run/cache/manifest.rs",
    "run/cache/recipe.rs",
    "run/cache/verdict.rs",
    "run/cache/words.rs",
    "run/admission",
    "run/learn",
    "run/found.rs",
    "run/limit.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A text file of the project.
struct File {
    /// Relative to the project, with `/`.
    path: String,
    text: String,
}

impl File {
    /// Returns the lines that are compiled into the program, with their numbers: no comments, no tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.text.lines());
        lines
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Whether all of it is there for tests.
    fn is_for_tests(&self) -> bool {
        ["tests.rs", "fixture.rs", "oracle.rs"].iter().any(|name| self.path.ends_with(name))
    }

    /// Returns the room it belongs to.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split(['/', '.']).next().unwrap_or_default()
    }
}

/// Returns all files below a folder or the file itself whose names end in one of the `endings`.
fn files(folder: &str, endings: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("a readable folder").path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !["target", "__pycache__", "work"].contains(&name.as_str()) && !name.starts_with('.') {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(read(&path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(path: &Path) -> File {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.strip_prefix(root()).expect("a file of the project").to_string_lossy().into_owned();
    File { path, text }
}

fn sources() -> Vec<File> {
    files("src", &[".rs"])
}

/// Returns the rooms in the order of the table in `src/lib.rs`.
fn rooms() -> Vec<String> {
    let map = read(&root().join("src/lib.rs"));
    let rows = map.text.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    rows.filter_map(|row| Some(row.split_once("`]")?.0.to_owned())).collect()
}

/// Returns the rooms that a line names behind `prefix`, also those in braces.
fn named_rooms<'l>(line: &'l str, prefix: &str) -> Vec<&'l str> {
    let word = |text: &'l str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    let mut named = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        // `mycrate::x` is not ours.
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let behind = &line[at + prefix.len()..];
        match behind.strip_prefix('{') {
            Some(list) => named.extend(list.split(',').map(|part| word(part.trim()))),
            None => named.push(word(behind)),
        }
    }
    named
}

fn assert_none(what: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{what}:\n{}", offences.join("\n"));
}

#[test]
fn the_map_in_lib_rs_names_every_room() {
    let in_map: BTreeSet<String> = rooms().into_iter().collect();
    let beside_the_map = ["lib", "main", "ops"];
    let in_folders: BTreeSet<String> = sources()
        .iter()
        .map(|file| file.room().to_owned())
        .filter(|room| !beside_the_map.contains(&room.as_str()))
        .collect();
    assert_eq!(in_map, in_folders);
}

#[test]
fn no_room_uses_a_room_below_it() {
    let rooms = rooms();
    let place = |room: &str| rooms.iter().position(|other| other == room);
    let mut offences = Vec::new();
    for file in sources().iter().filter(|file| !file.is_for_tests()) {
        let Some(own) = place(file.room()) else { continue };
        for (number, line) in file.code() {
            for used in named_rooms(line, "crate::") {
                if place(used).is_some_and(|used| used > own) {
                    offences.push(format!("{}:{number}: `{}` uses `{used}`", file.path, file.room()));
                }
            }
        }
    }
    assert_none("a room may use only rooms above it", &offences);
}

#[test]
fn built_in_stages_use_the_spec_only() {
    let mut offences = Vec::new();
    for file in files("src/ops", &[".rs"]) {
        for (number, line) in file.code() {
            for used in named_rooms(line, "trainyard::") {
                if used != "spec" {
                    offences.push(format!("{}:{number}: uses `{used}`", file.path));
                }
            }
        }
    }
    assert_none("the binary of built-in stages uses `spec` only", &offences);
}

#[test]
fn the_core_is_pure() {
    const IMPURE: [&str; 7] =
        ["tokio::", "std::process", "std::fs", "std::env", "Instant::", "SystemTime", "std::thread"];
    let pure = |file: &&File| {
        let inside = file.path.strip_prefix("src/").unwrap_or_default();
        PURE.iter().any(|part| inside.starts_with(part)) && !file.is_for_tests()
    };
    let mut offences = Vec::new();
    for file in sources().iter().filter(pure) {
        for (number, line) in file.code() {
            offences.extend(
                IMPURE.iter().filter(|word| line.contains(*word)).map(|word| format!("{}:{number}: {word}", file.path)),
            );
        }
    }
    assert_none("clock, I/O and environment are the shell's business", &offences);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut all = sources();
    all.extend(files("tests", &[".rs"]));
    all.extend(files("benches", &[".rs"]));
    let silent: Vec<String> =
        all.into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path).collect();
    assert_none("files begin with `//!`", &silent);
}

#[test]
fn no_file_is_too_long_to_read() {
    let long = |file: &File| (file.text.lines().count() > LONGEST_FILE).then(|| file.path.clone());
    let long: Vec<String> = sources().iter().filter_map(long).collect();
    assert_none("one file, one idea", &long);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file is not found.
    let words =
        [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["db", "g!("], ["unimple", "mented!"]].map(|word| word.concat());
    let mut offences = Vec::new();
    for folder in ["src", "tests", "benches", "kernels", "pipelines"] {
        for file in files(folder, &[".rs", ".cu", ".toml", ".py", ".sh"]) {
            for (number, line) in (1..).zip(file.text.lines()) {
                if words.iter().any(|word| line.contains(word)) {
                    offences.push(format!("{}:{number}: {}", file.path, line.trim()));
                }
            }
        }
    }
    assert_none("what is not done is not in the code", &offences);
}

#[test]
fn no_path_of_one_machine_is_in_the_project() {
    let homes = [["/ho", "me/"], ["/ro", "ot/"], ["/Use", "rs/"]].map(|home| home.concat());
    let mut offences = Vec::new();
    for folder in [".", ".ci", ".github"] {
        for file in files(folder, &[".rs", ".toml", ".md", ".py", ".sh", ".yml", "Makefile", "run"]) {
            for (number, line) in (1..).zip(file.text.lines()) {
                if homes.iter().any(|home| line.contains(home)) {
                    offences.push(format!("{}:{number}: {}", file.path, line.trim()));
                }
            }
        }
    }
    assert_none("paths of one machine mean nothing elsewhere", &offences);
}

#[test]
fn every_shipped_pipeline_is_in_the_readme() {
    let readme = read(&root().join("README.md"));
    let missing: Vec<String> = files("pipelines", &[".toml"])
        .into_iter()
        .map(|file| file.path)
        .filter(|path| !readme.text.contains(path.as_str()))
        .collect();
    assert_none("a pipeline that nobody hears of is not an example", &missing);
}

#[test]
fn the_changelog_has_room_for_what_is_not_released() {
    let changelog = read(&root().join("CHANGELOG.md"));
    assert!(changelog.text.contains("\n## [Unreleased]\n"));
}

#[test]
fn the_rooms_in_a_line_are_found() {
    assert_eq!(named_rooms("use crate::{plan::Plan, run};", "crate::"), ["plan", "run"]);
    assert_eq!(named_rooms("crate::units::Bytes(crate::fleet::X)", "crate::"), ["units", "fleet"]);
    assert!(named_rooms("use subcrate::plan;", "crate::").is_empty());
}
