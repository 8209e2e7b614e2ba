//! `trainyard devices --calibrate` on an emulated machine: what is measured there means nothing, but it is remembered and
//! planned with.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output};

use emulated_cuda::{Card, Scene};
use serde_json::Value;

type Tested = Result<(), Box<dyn Error>>;

fn trainyard(
    folder: &Path,
    variables: &[(&'static str, std::path::PathBuf)],
    args: &[&str],
) -> Result<Output, Box<dyn Error>> {
    #[expect(clippy::disallowed_methods, reason = "runs the real binary")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.args(args).current_dir(folder).env_remove("CUDA_VISIBLE_DEVICES").env_remove("RUST_LOG");
    command.env("XDG_STATE_HOME", folder.join("home")).env("NO_COLOR", "1");
    Ok(command.envs(variables.iter().cloned()).output()?)
}

/// Two emulated cards, seen alike by the driver and by NVML.
fn two_cards(cuda: &Scene, nvml: &mock_nvml::Scene) -> Result<Vec<(&'static str, std::path::PathBuf)>, Box<dyn Error>> {
    let card = Card { count: 2, memory: 64 << 20, ..Card::default() };
    Ok(cuda.environment(&card)?.into_iter().chain(nvml.environment()).collect())
}

#[test]
fn what_is_measured_is_remembered_and_planned_with() -> Tested {
    let (cuda, folder) = (Scene::new()?, tempfile::tempdir()?);
    let nvml_card = |index: u8| mock_nvml::Card { uuid: emulated_cuda::uuid(index), ..mock_nvml::Card::default() };
    let nvml = mock_nvml::Scene::new(vec![nvml_card(0), nvml_card(1), mock_nvml::Card::default()])?;
    let variables = two_cards(&cuda, &nvml)?;
    let shown = |folder: &Path| -> Result<Vec<(Value, Value)>, Box<dyn Error>> {
        let shown: Value = serde_json::from_slice(&trainyard(folder, &variables, &["devices", "--json"])?.stdout)?;
        let devices = shown["devices"].as_array().into_iter().flatten();
        Ok(devices.map(|device| (device["speed"].clone(), device["speed_from"].clone())).collect())
    };
    assert_eq!(shown(folder.path())?, vec![(1.0.into(), "model".into()); 3]);

    let measured = trainyard(folder.path(), &variables, &["devices", "--calibrate"])?;
    let said = String::from_utf8(measured.stdout)?;
    assert_eq!(measured.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&measured.stderr));
    assert!(said.lines().any(|line| line.starts_with("gpu1  H200")), "{said}");
    let speeds = shown(folder.path())?;
    let from: Vec<_> = speeds.iter().map(|(_, from)| from.clone()).collect();
    assert_eq!(from, ["measured", "measured", "model"]);

    std::fs::write(
        folder.path().join("p.toml"),
        "[stage.a]\nrun = 'true'\nresources = { gpus = 1 }\nduration = '10s'\n",
    )?;
    let plan = trainyard(folder.path(), &variables, &["plan", "p.toml", "--json"])?;
    let plan: Value = serde_json::from_slice(&plan.stdout)?;
    let planned: Vec<_> =
        plan["devices"].as_array().into_iter().flatten().map(|device| device["speed"].clone()).collect();
    assert_eq!(planned, speeds.into_iter().map(|(speed, _)| speed).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_card_that_others_use_is_not_measured() -> Tested {
    let (cuda, folder) = (Scene::new()?, tempfile::tempdir()?);
    let card = mock_nvml::Card { uuid: emulated_cuda::uuid(0), ..mock_nvml::Card::default() };
    let nvml = mock_nvml::Scene::new(vec![card])?;
    nvml.hold(std::process::id(), "0", 1_024)?;
    let variables = two_cards(&cuda, &nvml)?;
    let refused = trainyard(folder.path(), &variables, &["devices", "--calibrate"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("gpu0 is in use"), "{said}");
    Ok(())
}

#[test]
fn a_card_is_not_measured_where_hidden_processes_may_use_it_or_hardly_anything_is_free() -> Tested {
    let (cuda, folder) = (Scene::new()?, tempfile::tempdir()?);
    let idle = mock_nvml::Card { uuid: emulated_cuda::uuid(0), ..mock_nvml::Card::default() };
    let full = mock_nvml::Card { nobodys_mib: idle.mib - idle.reserved_mib - 900, ..idle.clone() };
    let hidden = mock_nvml::Card { hides_processes: true, nobodys_mib: 1_024, utilisation: 98, ..idle };
    for (card, why) in [(hidden, "gpu0 is in use"), (full, "gpu0 ")] {
        let nvml = mock_nvml::Scene::new(vec![card])?;
        let variables = two_cards(&cuda, &nvml)?;
        let refused = trainyard(folder.path(), &variables, &["devices", "--calibrate"])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(4), "{said}");
        assert!(said.contains(why), "{said}");
    }
    Ok(())
}

#[test]
fn without_a_device_there_is_nothing_to_measure() -> Tested {
    let (cuda, folder) = (Scene::new()?, tempfile::tempdir()?);
    let nvml = mock_nvml::Scene::new(Vec::new())?;
    let mut variables = cuda.environment(&Card { count: 0, ..Card::default() })?;
    variables.extend(nvml.environment());
    let refused = trainyard(folder.path(), &variables, &["devices", "--calibrate"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("no device was measured: there is no CUDA device 0"), "{said}");
    Ok(())
}
