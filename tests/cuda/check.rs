//! `trainyard gpu-check` on an emulated machine: what will be run on hardware, run to its end here. Its figures mean nothing.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
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

/// Makes a compute-sanitizer that does what a script says, `$tool` being what it is to look for and `$@` the program.
fn sanitizer(folder: &Path, script: &str) -> Result<(&'static str, PathBuf), Box<dyn Error>> {
    let bin = folder.join("bin");
    fs::create_dir(&bin)?;
    fs::write(bin.join("compute-sanitizer"), format!("#!/bin/sh\ntool=$2\nshift 4\n{script}\n"))?;
    fs::set_permissions(bin.join("compute-sanitizer"), fs::Permissions::from_mode(0o755))?;
    Ok(("PATH", bin))
}

fn all(folder: &Path) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_slice(&fs::read(folder.join("checked.json"))?)?)
}

/// NVML counts the two cards the other way round than CUDA.
#[test]
fn everything_holds_on_an_emulated_machine() -> Tested {
    let nvml = |number| mock_nvml::Card { mib: 16_384, uuid: emulated_cuda::uuid(number), ..Default::default() };
    let (cuda, nvml) = (Scene::new()?, mock_nvml::Scene::new(vec![nvml(1), nvml(0)])?);
    let folder = tempfile::tempdir()?;
    let card = Card { count: 2, memory: 16 << 30, ..Card::default() };
    let mut variables: Vec<_> = cuda.environment(&card)?.into_iter().chain(nvml.environment()).collect();
    variables.push(("CUDA_VISIBLE_DEVICES", "0,1".into()));
    variables.push(sanitizer(
        folder.path(),
        r#"case $tool in
        memcheck) exec "$1" "$2" "$3" --graphs 0 ;;
        racecheck) echo "equality  one: passed"; echo "========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)"; exit 9 ;;
        initcheck) echo "========= Unable to attach to the device"; exit 1 ;;
        *) echo "========= ERROR SUMMARY: 1 error"; exit 9 ;;
        esac"#,
    )?);
    let pipeline = "[stage.t]\nkind = 'train'\nrun = ['/bin/sh', '-c', ':']\noutputs = []\n\
                    resources = { gpus = 1, gpu_memory = '1GiB' }\n";
    fs::write(folder.path().join("p.toml"), pipeline)?;
    let output = check(folder.path(), &variables, &["--graphs", "4", "--within", "1h", "--pipeline", "p.toml"])?;
    let (said, wrong) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    let outcomes = |part: &str| -> Result<Vec<Value>, Box<dyn Error>> {
        Ok(rows(folder.path(), part)?.into_iter().map(|row| row["outcome"].clone()).collect())
    };
    assert_eq!(outcomes("device")?, ["passed"], "{said}{wrong}");
    assert_eq!(outcomes("NVML")?, ["passed"; 2], "{said}");
    assert_eq!(outcomes("kernels")?, ["passed"], "{said}");
    assert_eq!(outcomes("equality")?, ["passed"; 8], "{said}");
    assert_eq!(outcomes("packing")?, ["passed"; 3], "{said}");
    assert_eq!(outcomes("memory")?, ["passed"], "{said}");
    assert_eq!(outcomes("pipeline")?, ["passed"], "{said}");
    assert_eq!(outcomes("sanitizer")?, ["passed", "failed", "skipped", "failed"], "{said}");
    assert!(outcomes("speed")?.iter().filter(|outcome| **outcome == "measured").count() >= 18, "{said}");
    assert_eq!(output.status.code(), Some(1), "a hazard was found: {said}{wrong}");
    let all = all(folder.path())?;
    assert_eq!((&all["state"], &all["driver"]["version"]), (&"done".into(), &"580.65.06".into()));
    assert_eq!((&all["arguments"]["quick"], &all["arguments"]["graphs"]), (&true.into(), &4.into()));
    assert_eq!(all["device"]["uuid"], emulated_cuda::uuid(0));
    assert!(all["host"]["name"].is_string() && all["kernels"]["slack"]["registers"].is_u64(), "{all}");
    Ok(())
}

#[test]
fn a_device_that_is_there_and_cannot_be_opened_fails() -> Tested {
    let scene = Scene::new()?;
    for (call, code) in [("cuInit", 803), ("cuInit", 999), ("cuDevicePrimaryCtxRetain", 2)] {
        let folder = tempfile::tempdir()?;
        let card = Card { fails: [(call.to_owned(), code)].into(), ..Card::default() };
        let mut variables = scene.environment(&card)?;
        variables.push(("TRAINYARD_NVML", "none.so".into()));
        let output = check(folder.path(), &variables, &["--graphs", "1"])?;
        assert_eq!(output.status.code(), Some(1), "{call}: {}", String::from_utf8_lossy(&output.stdout));
        assert!(rows(folder.path(), "device")?.iter().any(|row| row["outcome"] == "failed"), "{call}");
    }
    // Here CUDA has no device, but NVML has.
    let nvml = mock_nvml::Scene::new(vec![mock_nvml::Card::default()])?;
    let folder = tempfile::tempdir()?;
    let mut variables = scene.environment(&Card { count: 0, ..Card::default() })?;
    variables.extend(nvml.environment());
    let output = check(folder.path(), &variables, &["--graphs", "1"])?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
fn nothing_is_begun_when_time_is_over_and_that_is_no_success() -> Tested {
    let scene = Scene::new()?;
    let folder = tempfile::tempdir()?;
    let mut variables = scene.environment(&Card::default())?;
    variables.push(("TRAINYARD_NVML", "none.so".into()));
    let output = check(folder.path(), &variables, &["--within", "0s"])?;
    assert_eq!(output.status.code(), Some(1));
    let late = rows(folder.path(), "equality")?;
    let is_late = |row: &Value| row["detail"].as_str().is_some_and(|why| why.starts_with("no time left"));
    assert!(late.iter().all(|row| row["outcome"] == "unfinished" && is_late(row)), "{late:?}");
    assert!(!late.is_empty() && scene.log()?.0.is_empty(), "not even the device is opened");
    Ok(())
}

/// However fast the machine: nobody compares so many graphs.
#[test]
fn a_comparison_that_is_cut_short_is_no_success() -> Tested {
    let scene = Scene::new()?;
    let folder = tempfile::tempdir()?;
    let mut variables = scene.environment(&Card::default())?;
    variables.push(("TRAINYARD_NVML", "none.so".into()));
    let output = check(folder.path(), &variables, &["--graphs", "1000000000", "--within", "20s"])?;
    let said = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{said}");
    let compared = rows(folder.path(), "equality")?;
    assert!(!compared.is_empty() && compared.iter().all(|row| row["outcome"] == "unfinished"), "{said}");
    assert!(said.contains("UNFINISHED; equal to the CPU on "), "{said}");
    Ok(())
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_begun() -> Tested {
    let scene = Scene::new()?;
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("folder"))?;
    let variables = scene.environment(&Card::default())?;
    for args in [
        &["--json", "none/checked.json"][..],
        &["--json", "folder"],
        &["--json", "/dev/null"],
        &["--hold", "17592186044416"],
        &["--hold", "0"],
        &["--hold", "1", "--time=-1s"],
        &["--within=-1s"],
    ] {
        #[expect(clippy::disallowed_methods, reason = "runs the real binary")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        let output = command.arg("gpu-check").args(args).current_dir(folder.path()).envs(variables.clone()).output()?;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(scene.log()?.0.is_empty(), "{args:?}");
    }
    Ok(())
}

/// Whoever is asked to end ends what it started, says what was done, and leaves no folder behind.
#[test]
fn a_signal_ends_it_in_good_order() -> Tested {
    let scene = Scene::new()?;
    let folder = tempfile::tempdir()?;
    let mut variables = scene.environment(&Card::default())?;
    variables.push(("TRAINYARD_NVML", "none.so".into()));
    variables.push(("TMPDIR", folder.path().join("temporary")));
    fs::create_dir(folder.path().join("temporary"))?;
    variables.push(sanitizer(folder.path(), "echo $$ >&2\nkill -TERM $PPID\nwhile :; do kill -STOP $$; done")?);
    let output = check(folder.path(), &variables, &["--graphs", "0"])?;
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(all(folder.path())?["state"], "stopped");
    assert_eq!(rows(folder.path(), "equality")?.len(), 8);
    assert!(rows(folder.path(), "sanitizer")?.is_empty());
    assert_eq!(fs::read_dir(folder.path().join("temporary"))?.count(), 0);
    let drafts = fs::read_dir(folder.path())?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert!(!drafts.into_iter().any(|name| name.ends_with(".draft")));
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
    assert!(
        all["rows"]
            .as_array()
            .is_some_and(|rows| rows.iter().all(|row| row["outcome"] == "skipped" || row["part"] == "machine"))
    );
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
