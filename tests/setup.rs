//! The set-up script's answers where it must not fetch: no network is used here.
#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test of a whole process")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Calls the script with an empty cache and no package index.
fn libtorch(cache: &Path, args: &[&str], libtorch: Option<&Path>) -> Output {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/libtorch.py")).args(args);
    command.env("XDG_CACHE_HOME", cache).env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", "").env_remove("LIBTORCH");
    command.envs(libtorch.map(|folder| ("LIBTORCH", folder)));
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_existing_libtorch_is_respected_and_a_wrong_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = libtorch(folder.path(), &[], Some(folder.path()));
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("holds no lib/libtorch_cpu.so"), "{}", said(&refused));

    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(folder.path().join("lib/libtorch_cpu.so"), "").unwrap();
    let taken = libtorch(folder.path(), &[], Some(folder.path()));
    assert_eq!(String::from_utf8_lossy(&taken.stdout).trim(), folder.path().to_str().unwrap());

    fs::write(folder.path().join("build-version"), "2.4.0+cpu\n").unwrap();
    let refused = libtorch(folder.path(), &[], Some(folder.path()));
    assert!(said(&refused).contains("version 2.4.0+cpu, but 2.11.0 is needed"), "{}", said(&refused));
}

#[test]
fn a_machine_without_network_is_told_so_and_nothing_half_made_stays() {
    let cache = tempfile::tempdir().unwrap();
    let output = libtorch(cache.path(), &["--kind", "cpu"], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let last = said(&output).lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("libtorch: ") && last.contains("set LIBTORCH"), "{}", said(&output));
    let left = fs::read_dir(cache.path().join("trainyard")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.map(|name| name.into_string().unwrap()).all(|name| name.ends_with(".lock")));

    let output = libtorch(cache.path(), &["--offline"], None);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--offline forbids"), "{}", said(&output));
}
