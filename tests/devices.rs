//! `trainyard devices` against an emulated NVML: what the real binary makes of every kind of answer.

#![expect(clippy::disallowed_methods, reason = "runs the real binary")]

use std::error::Error;
use std::process::{Command, Stdio};

use mock_nvml::{Card, Scene, Slice};
use serde_json::Value;

type Tested = Result<(), Box<dyn Error>>;

/// NVML's error codes, as `nvml.h` numbers them.
const NOT_SUPPORTED: u32 = 3;
const GPU_IS_LOST: u32 = 15;
const UNKNOWN: u32 = 999;

fn cards(n: usize) -> Vec<Card> {
    vec![Card::default(); n]
}

/// `trainyard devices` on that machine and with nothing else in its environment about devices.
fn devices(scene: &Scene) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.arg("devices").env_remove("CUDA_VISIBLE_DEVICES").env_remove("CUDA_DEVICE_ORDER");
    command.envs(scene.environment());
    command
}

fn json(command: &mut Command) -> Result<Value, Box<dyn Error>> {
    let output = command.arg("--json").output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn text(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let output = command.output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The names of the devices shown, without the host's.
fn names(shown: &Value) -> Vec<String> {
    let ids = shown["devices"].as_array().into_iter().flatten().filter_map(|device| device["id"].as_str());
    ids.filter_map(|id| id.split_once('/')).map(|(_, name)| name.to_owned()).collect()
}

#[test]
fn eight_cards_are_shown_with_what_they_are() -> Tested {
    let scene = Scene::new(cards(8))?;
    scene.change(|machine| {
        machine.cards[3].reserved_mib = 600;
        machine.cards[3].utilisation = 93;
    })?;
    let shown = json(&mut devices(&scene))?;
    assert_eq!(names(&shown), ["gpu0", "gpu1", "gpu2", "gpu3", "gpu4", "gpu5", "gpu6", "gpu7"]);
    assert_eq!((&shown["driver"], &shown["cuda"]), (&"580.65.06".into(), &"13.0".into()));
    let card = &shown["devices"][3];
    for (key, value) in [
        ("model", Value::from("H200")),
        ("name", "NVIDIA H200".into()),
        ("compute_capability", "9.0".into()),
        ("speed", 1.0.into()),
        ("pci_bus_id", "00000000:13:00.0".into()),
        ("memory_bytes", (81_920_u64 << 20).into()),
        ("memory_free_bytes", (81_320_u64 << 20).into()),
        ("memory_used_bytes", 0.into()),
        ("memory_reserved_bytes", (600_u64 << 20).into()),
        ("memory_call", "v2".into()),
        ("utilisation_percent", 93.into()),
        ("temperature_celsius", 35.into()),
        ("power_milliwatts", 75_000.into()),
        ("power_limit_milliwatts", 700_000.into()),
        ("mig_mode", false.into()),
        ("fault", Value::Null),
    ] {
        assert_eq!(card[key], value, "{key}");
    }
    Ok(())
}

#[test]
fn without_a_driver_one_line_says_why() -> Tested {
    let scene = Scene::new(cards(1))?;
    let mut command = devices(&scene);
    let shown = text(command.env("TRAINYARD_NVML", "/nowhere/libnvidia-ml.so.1"))?;
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.ends_with("no GPU: no NVIDIA driver: /nowhere/libnvidia-ml.so.1 was not found\n"), "{shown}");
    Ok(())
}

#[test]
fn a_driver_that_does_not_start_is_a_reason() -> Tested {
    let scene = Scene::new(cards(1))?;
    scene.change(|machine| machine.init = 18)?;
    let shown = json(&mut devices(&scene))?;
    assert_eq!(shown["no_gpu"], "the NVIDIA driver does not answer: RM detects a driver/library version mismatch");
    Ok(())
}

#[test]
fn a_driver_without_a_card_is_a_reason() -> Tested {
    let shown = json(&mut devices(&Scene::new(Vec::new())?))?;
    assert_eq!(shown["no_gpu"], "the NVIDIA driver is running but shows no GPU");
    Ok(())
}

#[test]
fn an_inherited_mask_is_respected() -> Tested {
    let scene = Scene::new(cards(4))?;
    let under = |mask: &str| json(devices(&scene).env("CUDA_VISIBLE_DEVICES", mask));
    assert_eq!(names(&under("2,0")?), ["gpu0", "gpu2"]);
    assert_eq!(names(&under("GPU-00000003")?), ["gpu3"]);
    assert_eq!(under("")?["no_gpu"], "CUDA_VISIBLE_DEVICES=\"\" hides every GPU");
    let nonsense = under("0,gpu1")?;
    assert_eq!(names(&nonsense), ["gpu0"]);
    let warning = "CUDA_VISIBLE_DEVICES=\"0,gpu1\": `gpu1` is neither an index nor a UUID, so CUDA ignores it and all that follows";
    assert_eq!(nonsense["warnings"][0], warning);
    Ok(())
}

#[test]
fn an_index_among_cards_that_differ_is_warned_about() -> Tested {
    let scene = Scene::new(vec![Card::default(), Card { name: "Tesla T4".to_owned(), ..Card::default() }])?;
    let shown = json(devices(&scene).env("CUDA_VISIBLE_DEVICES", "1"))?;
    assert_eq!(names(&shown), ["gpu1"]);
    assert!(shown["warnings"][0].as_str().is_some_and(|text| text.contains("CUDA_DEVICE_ORDER")));
    let shown = json(devices(&scene).env("CUDA_VISIBLE_DEVICES", "1").env("CUDA_DEVICE_ORDER", "PCI_BUS_ID"))?;
    assert_eq!(shown["warnings"], Value::Array(Vec::new()));
    Ok(())
}

#[test]
fn slices_are_devices_of_their_own() -> Tested {
    let slice = |n: u32, mib| Slice {
        name: "NVIDIA A100-SXM4-80GB MIG 3g.40gb".to_owned(),
        uuid: format!("MIG-{n}"),
        mib,
        compute_slices: 3,
    };
    let card = Card {
        name: "NVIDIA A100-SXM4-80GB".to_owned(),
        slices: vec![slice(1, 40_192), slice(2, 40_192)],
        ..Card::default()
    };
    let scene = Scene::new(vec![Card::default(), card])?;
    scene.hold(std::process::id(), "1.1", 1_024)?;
    let shown = json(&mut devices(&scene))?;
    assert_eq!(names(&shown), ["gpu0", "gpu1.0", "gpu1.1"]);
    let held = &shown["devices"][2];
    assert_eq!((&held["uuid"], &held["model"]), (&"MIG-2".into(), &"A100-80GB-3g.40gb".into()));
    assert_eq!((&held["memory_used_bytes"], &held["mig_mode"]), (&(1_u64 << 30).into(), &true.into()));
    assert_eq!(held["processes"][0]["pid"], std::process::id());
    assert_eq!(held["utilisation_percent"], Value::Null);
    assert_eq!(held["speed"], 0.135147);
    assert_eq!(shown["devices"][1]["memory_used_bytes"], 0);
    assert_eq!(names(&json(devices(&scene).env("CUDA_VISIBLE_DEVICES", "MIG-2"))?), ["gpu1.1"]);
    Ok(())
}

#[test]
fn nvlink_groups_hold_who_is_joined_to_all() -> Tested {
    let scene = Scene::new(cards(5))?;
    scene.change(|machine| {
        for (card, joined) in [(0, vec![1]), (1, vec![0]), (2, vec![3]), (3, vec![2])] {
            machine.cards[card].nvlink = joined;
        }
    })?;
    let groups = |shown: &Value| {
        shown["devices"].as_array().map(|all| all.iter().map(|d| d["nvlink_group"].clone()).collect::<Vec<_>>())
    };
    let want = Some(vec![0.into(), 0.into(), 1.into(), 1.into(), Value::Null]);
    assert_eq!(groups(&json(&mut devices(&scene))?), want);
    // A driver that cannot say who reaches whom still says where each link ends.
    let old = scene.old_driver(&["nvmlDeviceGetP2PStatus"])?;
    assert_eq!(groups(&json(devices(&scene).env("TRAINYARD_NVML", old))?), want);
    Ok(())
}

#[test]
fn what_joins_any_two_cards_is_told() -> Tested {
    let scene = Scene::new(cards(4))?;
    scene.change(|machine| {
        (machine.cards[0].nvlink, machine.cards[1].nvlink) = (vec![1], vec![0]);
        for (card, numa, switch) in [(0, 0, None), (1, 1, None), (2, 1, Some(5)), (3, 1, Some(5))] {
            (machine.cards[card].numa, machine.cards[card].switch) = (numa, switch);
        }
        machine.cards[3].cpus = vec![2, 130];
    })?;
    let shown = json(&mut devices(&scene))?;
    let link = |a: usize, b: usize| {
        let ends = |link: &&Value| {
            let end = |n: usize| link["between"][n].as_str().unwrap_or_default().to_owned();
            end(0).ends_with(&format!("gpu{a}")) && end(1).ends_with(&format!("gpu{b}"))
        };
        let links = shown["links"].as_array().into_iter().flatten();
        links.filter(ends).map(|link| (link["nvlink"].clone(), link["pcie"].clone())).next()
    };
    assert_eq!(shown["links"].as_array().map(Vec::len), Some(6));
    assert_eq!(link(0, 1), Some((true.into(), "system".into())));
    assert_eq!(link(1, 2), Some((false.into(), "numa-node".into())));
    assert_eq!(link(2, 3), Some((false.into(), "switch".into())));
    let card = &shown["devices"][3];
    assert_eq!((&card["numa_node"], &card["pcie_group"]), (&1.into(), &0.into()));
    assert_eq!(card["near_cpus"], Value::from(vec![2, 130]));
    assert_eq!(shown["devices"][0]["near_cpus"], Value::Null);
    Ok(())
}

#[test]
fn processes_are_named_and_leave_with_their_memory() -> Tested {
    let scene = Scene::new(cards(2))?;
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    scene.hold(stranger.id(), "1", 21_504)?;
    let shown = json(&mut devices(&scene))?;
    let process = &shown["devices"][1]["processes"][0];
    assert_eq!((&process["pid"], &process["command"]), (&stranger.id().into(), &"cat".into()));
    assert_eq!(process["memory_bytes"], 21_504_u64 << 20);
    assert!(process["user"].is_string());
    let table = text(&mut devices(&scene))?;
    assert!(table.lines().any(|line| line.starts_with("gpu1") && line.ends_with("21.0 GiB  cat")), "{table}");
    stranger.kill()?;
    stranger.wait()?;
    assert_eq!(json(&mut devices(&scene))?["devices"][1]["memory_used_bytes"], 0);
    Ok(())
}

#[test]
fn who_draws_on_a_card_is_shown_with_its_memory() -> Tested {
    let scene = Scene::new(vec![Card { desktop_mib: 900, reserved_mib: 700, ..Card::default() }])?;
    let card = &json(&mut devices(&scene))?["devices"][0];
    assert_eq!(card["memory_unattributed_bytes"], 0);
    let process = &card["processes"][0];
    assert_eq!((&process["pid"], &process["memory_bytes"]), (&1.into(), &(900_u64 << 20).into()), "{card:#}");
    Ok(())
}

#[test]
fn memory_in_nobodys_name_is_shown() -> Tested {
    let scene = Scene::new(vec![Card { nobodys_mib: 2_048, ..Card::default() }])?;
    let shown = json(&mut devices(&scene))?;
    assert_eq!(shown["devices"][0]["memory_unattributed_bytes"], 2_u64 << 30);
    assert!(text(&mut devices(&scene))?.contains("2.0 GiB  in no process's name"));
    Ok(())
}

#[test]
fn an_old_driver_answers_what_it_can() -> Tested {
    let scene = Scene::new(vec![Card { reserved_mib: 500, ..Card::default() }])?;
    scene.hold(std::process::id(), "0", 1_024)?;
    let lacks =
        ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetMemoryAffinity"];
    let shown = json(devices(&scene).env("TRAINYARD_NVML", scene.old_driver(&lacks)?))?;
    let card = &shown["devices"][0];
    assert_eq!((&card["memory_call"], &card["memory_reserved_bytes"]), (&"v1".into(), &Value::Null));
    assert_eq!(card["memory_used_bytes"], 1_524_u64 << 20);
    assert_eq!(card["processes"][0]["memory_bytes"], 1_u64 << 30);
    assert_eq!(card["numa_node"], Value::Null);
    Ok(())
}

#[test]
fn what_a_card_does_not_support_is_null_and_not_zero() -> Tested {
    let scene = Scene::new(cards(1))?;
    let calls = [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    ];
    scene.change(|machine| {
        machine.cards[0].fails = calls.iter().map(|call| ((*call).to_owned(), NOT_SUPPORTED)).collect();
    })?;
    let shown = json(&mut devices(&scene))?;
    let card = &shown["devices"][0];
    for key in
        ["memory_bytes", "utilisation_percent", "temperature_celsius", "power_milliwatts", "mig_mode", "processes"]
    {
        assert_eq!(card[key], Value::Null, "{key}");
    }
    assert_eq!((&card["compute_capability"], &card["fault"]), (&Value::Null, &Value::Null));
    let table = text(&mut devices(&scene))?;
    assert!(table.contains(" -  ") && table.contains("its memory is not told"), "{table}");
    Ok(())
}

#[test]
fn a_lost_card_is_a_row_that_says_so_and_the_others_keep_their_numbers() -> Tested {
    let scene = Scene::new(cards(3))?;
    scene.change(|machine| {
        machine.cards[1].fails.insert("*".to_owned(), GPU_IS_LOST);
        (machine.cards[0].nvlink, machine.cards[2].nvlink) = (vec![2], vec![0]);
    })?;
    let shown = json(&mut devices(&scene))?;
    assert_eq!(names(&shown), ["gpu0", "gpu1", "gpu2"]);
    let (lost, last) = (&shown["devices"][1], &shown["devices"][2]);
    assert_eq!((&lost["uuid"], &lost["memory_bytes"], &lost["pci_index"]), (&Value::Null, &Value::Null, &1.into()));
    assert!(lost["fault"].as_str().is_some_and(|fault| fault.starts_with("lost: ")), "{lost}");
    assert_eq!((&last["pci_bus_id"], &last["nvlink_group"]), (&"00000000:12:00.0".into(), &0.into()));
    let ends = shown["links"][0]["between"].as_array().cloned().unwrap_or_default();
    assert!(ends[0].as_str().is_some_and(|end| end.ends_with("gpu0")), "{ends:?}");
    assert!(ends[1].as_str().is_some_and(|end| end.ends_with("gpu2")), "{ends:?}");
    assert!(shown["warnings"][0].as_str().is_some_and(|text| text.starts_with("gpu1 is not used: lost: ")));
    let table = text(&mut devices(&scene))?;
    assert!(table.lines().any(|line| line.starts_with("gpu1  -") && line.contains("lost: ")), "{table}");
    assert_eq!(names(&json(devices(&scene).env("CUDA_VISIBLE_DEVICES", "1,2"))?), ["gpu1", "gpu2"]);

    scene.change(|machine| {
        machine.cards[0].fails.insert("*".to_owned(), UNKNOWN);
        machine.cards[2].fails.insert("*".to_owned(), UNKNOWN);
    })?;
    let none = json(&mut devices(&scene))?;
    assert!(none["no_gpu"].as_str().is_some_and(|text| text.starts_with("none of the 3 GPUs can be used")));
    assert_eq!(names(&none), ["gpu0", "gpu1", "gpu2"]);
    assert!(text(&mut devices(&scene))?.lines().any(|line| line.starts_with("gpu2  -")));
    Ok(())
}

#[test]
fn a_card_whose_memory_cannot_be_read_is_faulty() -> Tested {
    let scene = Scene::new(cards(1))?;
    scene.change(|machine| {
        machine.cards[0].fails.insert("nvmlDeviceGetMemoryInfo_v2".to_owned(), UNKNOWN);
    })?;
    let shown = json(&mut devices(&scene))?;
    assert_eq!(shown["devices"][0]["fault"], "unreadable: an internal driver error occurred");
    assert_eq!(shown["devices"][0]["memory_bytes"], Value::Null);
    Ok(())
}

#[test]
fn health_clocks_and_links_are_shown_and_what_ails_is_noted() -> Tested {
    const HOT: u64 = 0x40;
    let scene = Scene::new(cards(2))?;
    scene.change(|machine| (machine.cards[1].slowed, machine.cards[1].remapped) = (HOT, 2))?;
    let shown = json(&mut devices(&scene))?;
    let (well, ails) = (&shown["devices"][0], &shown["devices"][1]);
    for (key, value) in [
        ("sm_clock_mhz", Value::from(1_980)),
        ("memory_clock_mhz", 3_201.into()),
        ("persistence", true.into()),
        ("pcie_generation", 5.into()),
        ("pcie_width", 16.into()),
        ("slowed", Value::Array(Vec::new())),
        // A driver that does not say is not one that says no.
        ("ecc", Value::Null),
        ("compute_mode", Value::Null),
    ] {
        assert_eq!(well[key], value, "{key}");
    }
    scene.change(|machine| {
        let card = &mut machine.cards[0];
        (card.ecc, card.uncorrected, card.compute_mode) = (Some(true), 2, Some(3));
    })?;
    let said = &json(&mut devices(&scene))?["devices"][0];
    let told = (&said["ecc"], &said["uncorrected_memory_errors"], &said["compute_mode"]);
    assert_eq!(told, (&true.into(), &2.into(), &"exclusive-process".into()));
    assert_eq!((&ails["slowed"][0], &ails["remapped_rows"]["uncorrected"]), (&"hot (hardware)".into(), &2.into()));
    let table = text(&mut devices(&scene))?;
    assert!(table.contains("slowed: hot (hardware), memory rows wait for a reset"), "{table}");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_ends_the_watch() -> Tested {
    let scene = Scene::new(cards(1))?;
    let mut watching = devices(&scene).args(["--watch", "1", "--json"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().ok_or("piped")?));
    for _ in 0..2 {
        let look: Value = serde_json::from_str(&lines.next().ok_or("a line for each look")??)?;
        assert_eq!(names(&look), ["gpu0"]);
    }
    drop(lines);
    assert!(watching.wait()?.success());
    Ok(())
}
