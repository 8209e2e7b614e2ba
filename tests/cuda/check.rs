//! `trainyard gpu-check` on an emulated machine: what will be run on hardware, run to its end here. Its figures mean nothing.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use emulated_cuda::{Card, Scene};
use serde_json::Value;

type Tested = Result<(), Box<dyn Error>>;

fn check(
    folder: &Path,
    variables: &[(&'static str, std::path::PathBuf)],
    args: &[&str],
) -> Result<Output, Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "runs the real binary")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.args(["gpu-check", "--quick", "--json", "checked.json"]).args(args).current_dir(folder);
    // Without PATH no real tool is found: what would it say of an emulated device?
    command.env("PATH", "").env_remove("CUDA_VISIBLE_DEVICES").env_remove("RUST_LOG").env("NO_COLOR", "1");
    Ok(command.envs(variables.iter().cloned()).output()?)
}

/// Returns the rows of a part.
fn rows(folder: &Path, part: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let all: Value = serde_json::from_slice(&fs::read(folder.join("checked.json"))?)?;
    let rows = all["rows"].as_array().ok_or("rows")?;
    Ok(rows.iter().filter(|row| row["part"] == part).cloned().collect())
}

#[test]
fn everything_holds_on_an_emulated_machine() -> Tested {
    let (cuda, nvml) =
        (Scene::new()?, mock_nvml::Scene::new(vec![mock_nvml::Card { mib: 16_384, ..Default::default() }])?);
    let folder = tempfile::tempdir()?;
    let card = Card { memory: 16 << 30, ..Card::default() };
    let variables: Vec<_> = cuda.environment(&card)?.into_iter().chain(nvml.environment()).collect();
    let output = check(folder.path(), &variables, &["--graphs", "4"])?;
    let (said, wrong) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert_eq!(output.status.code(), Some(0), "{said}{wrong}");
    let outcomes = |part: &str| -> Result<Vec<Value>, Box<dyn Error>> {
        Ok(rows(folder.path(), part)?.into_iter().map(|row| row["outcome"].clone()).collect())
    };
    assert_eq!(outcomes("device")?, ["passed"]);
    assert_eq!(outcomes("NVML")?, ["passed"]);
    assert_eq!(outcomes("equality")?, ["passed"; 8]);
    assert_eq!(outcomes("packing")?, ["passed"; 3]);
    assert_eq!(outcomes("memory")?, ["passed"]);
    assert!(outcomes("speed")?.iter().filter(|outcome| **outcome == "measured").count() >= 13, "{said}");
    Ok(())
}

#[test]
fn a_machine_without_a_device_skips_everything_and_says_so() -> Tested {
    let scene = Scene::new()?;
    let folder = tempfile::tempdir()?;
    let mut variables = scene.environment(&Card { count: 0, ..Card::default() })?;
    variables.push(("TRAINYARD_NVML", "none.so".into()));
    let output = check(folder.path(), &variables, &[])?;
    let said = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("equality  all of it: skipped; there is no CUDA device 0\n"), "{said}");
    let all: Value = serde_json::from_slice(&fs::read(folder.path().join("checked.json"))?)?;
    assert!(all["rows"].as_array().is_some_and(|rows| rows.iter().all(|row| row["outcome"] == "skipped")));
    Ok(())
}

#[test]
fn a_card_that_is_lost_on_the_way_fails() -> Tested {
    let scene = Scene::new()?;
    let folder = tempfile::tempdir()?;
    let mut variables = scene.environment(&Card { lost_at: Some(500), ..Card::default() })?;
    variables.push(("TRAINYARD_NVML", "none.so".into()));
    let output = check(folder.path(), &variables, &["--graphs", "2"])?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(rows(folder.path(), "equality")?.iter().any(|row| row["outcome"] == "failed"));
    Ok(())
}
