//! Machines and settings that are not as one would wish: MIG slices, masks, old drivers, a fleet file that is wrong.

use mock_nvml::{Card, Slice};
use serde_json::Value;

use crate::world::{Stranger, Tested, World, cards};

const SHOW: &str =
    "[stage.train]\nrun = 'echo [$CUDA_VISIBLE_DEVICES]'\nresources = { cpus = 0, gpu_memory = '1GiB' }\n";

/// A card in MIG mode with two slices.
fn sliced() -> Card {
    let slice = |n: u32| Slice {
        name: "NVIDIA A100-SXM4-80GB MIG 3g.40gb".to_owned(),
        uuid: format!("MIG-{n}"),
        mib: 40_192,
        compute_slices: 3,
    };
    Card { name: "NVIDIA A100-SXM4-80GB".to_owned(), slices: vec![slice(1), slice(2)], ..Card::default() }
}

#[test]
fn a_slice_is_a_whole_device_but_never_one_of_several() -> Tested {
    let one = SHOW.replace("gpu_memory = '1GiB'", "gpus = 1");
    let world = World::new(vec![sliced()], &one)?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(world.printed(&["logs", "train"])?, "[MIG-1]\n");

    let two = one.replace("gpus = 1", "gpus = 2");
    let world = World::new(vec![sliced()], &two)?;
    for command in ["plan", "run"] {
        let refused = world.command(&[command, "p.toml"])?;
        assert_eq!(refused.status.code(), Some(4));
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(words.contains("a process can use only one"), "{words}");
    }
    // Beside whole cards it is passed over, and they are named so that it does not matter how CUDA counts beside it.
    let world = World::new(vec![sliced(), Card::default(), Card::default()], &two)?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let uuid = |card: u32| format!("GPU-{card:08x}-0000-4000-8000-000000000000");
    assert_eq!(world.printed(&["logs", "train"])?, format!("[{},{}]\n", uuid(1), uuid(2)));
    Ok(())
}

#[test]
fn a_card_that_is_closed_to_programs_gets_none() -> Tested {
    let mut machine = cards(&[16_384; 2]);
    machine[0].compute_mode = Some(2);
    let world = World::new(machine.clone(), SHOW)?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(world.printed(&["logs", "train"])?, "[1]\n");
    let words = "gpu0 is not used: it is closed to programs (compute mode prohibited)";
    let plan = world.command(&["plan", "p.toml"])?;
    for said in [said, String::from_utf8_lossy(&plan.stderr).into_owned(), world.printed(&["devices"])?] {
        assert!(said.contains(words), "{said}");
    }
    machine.truncate(1);
    let world = World::new(machine, SHOW)?;
    let refused = world.command(&["run", "p.toml"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("nvidia-smi --compute-mode=DEFAULT"), "{said}");
    Ok(())
}

#[test]
fn a_run_keeps_to_the_mask_that_it_inherits() -> Tested {
    let mut machine = cards(&[16_384; 2]);
    machine.push(sliced());
    let world = World::new(machine, SHOW)?;
    for (mask, seen) in [("1", "[1]\n"), ("GPU-00000001", "[1]\n"), ("MIG-2", "[MIG-2]\n"), ("1,nonsense,0", "[1]\n")] {
        let run = world.command_under(&[("CUDA_VISIBLE_DEVICES", mask)], &["run", "p.toml", "--force"])?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{mask}: {said}");
        assert_eq!(said.contains("neither an index nor a UUID"), mask.contains("nonsense"), "{said}");
        assert_eq!(world.printed(&["logs", "train"])?, seen, "{mask}");
    }
    for (mask, why) in [("", "hides every GPU"), ("all", "neither an index nor a UUID")] {
        let run = world.command_under(&[("CUDA_VISIBLE_DEVICES", mask)], &["run", "p.toml", "--force"])?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(4), "{mask}: {said}");
        assert!(said.contains(why), "{said}");
    }
    Ok(())
}

#[test]
fn where_a_card_is_lost_the_others_are_named_so_that_nobody_counts_otherwise() -> Tested {
    let world = World::new(cards(&[16_384; 3]), SHOW)?;
    world.scene.change(|machine| {
        machine.cards[0].fails.insert("*".to_owned(), 15);
    })?;
    for (mask, seen) in [("1", 1), ("0,2", 2)] {
        let run = world.command_under(&[("CUDA_VISIBLE_DEVICES", mask)], &["run", "p.toml", "--force"])?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{mask}: {said}");
        assert!(said.contains("gpu0 is not used: lost: "), "{said}");
        let name = format!("[GPU-{seen:08x}-0000-4000-8000-000000000000]\n");
        assert_eq!(world.printed(&["logs", "train"])?, name, "{mask}");
    }
    let drained = world.command(&["devices", "--drain", "gpu0"])?;
    assert_eq!(drained.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&drained.stderr).contains("gpu0 does not answer"));
    Ok(())
}

#[test]
fn what_waits_hears_of_a_card_that_was_lost_when_the_run_began() -> Tested {
    let pipeline = "[stage.train]\nrun = 'until [ -e go ]; do sleep 0.1; done'\nmatrix = { i = [1, 2] }\n\
                    resources = { cpus = 0, gpus = 1 }\n";
    let world = World::new(cards(&[16_384; 2]), pipeline)?;
    world.scene.change(|machine| {
        machine.cards[0].fails.insert("*".to_owned(), 15);
    })?;
    let mut run = world.start()?;
    world.until_printed(&["explain", "train[i=2]"], |said| {
        said.contains("; gpu1 is taken whole; gpu0 was lost when the run began: `trainyard resume` and new runs use it once it answers; for ")
    })?;
    std::fs::write(world.path().join("go"), "")?;
    assert!(run.wait()?.success());
    Ok(())
}

#[test]
fn where_no_gpu_can_be_used_the_remedy_is_that_of_the_cause() -> Tested {
    let world = World::new(cards(&[16_384; 2]), SHOW)?;
    let refused = |env: &[(&str, &str)]| -> Result<String, Box<dyn std::error::Error>> {
        let plan = world.command_under(env, &["plan", "p.toml"])?;
        assert_eq!(plan.status.code(), Some(4));
        // Long lines are broken and set off.
        let words = String::from_utf8_lossy(&plan.stderr).into_owned();
        assert!(!words.contains("prefer"), "{words}");
        Ok(words.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" "))
    };
    let words = refused(&[("CUDA_VISIBLE_DEVICES", "")])?;
    assert!(words.contains("CUDA_VISIBLE_DEVICES hides every one help: unset CUDA_VISIBLE_DEVICES"), "{words}");
    // It is Trainyard that hides GPUs from the tasks of a run.
    let words = refused(&[("CUDA_VISIBLE_DEVICES", ""), ("TRAINYARD_TASK", "sweep")])?;
    assert!(
        words.contains("hides every one help: task `sweep` of another run has started this and sees no GPUs but"),
        "{words}"
    );
    assert!(!words.contains("unset"), "{words}");
    world.scene.change(|machine| {
        for card in &mut machine.cards {
            card.fails.insert("*".to_owned(), 15);
        }
    })?;
    let words = refused(&[])?;
    assert!(words.contains("none may be used: gpu0, gpu1 lost help: reset what is lost"), "{words}");
    // 999 is NVML's word for what it does not know.
    world.scene.change(|machine| machine.init = 999)?;
    let words = refused(&[])?;
    assert!(words.contains("the driver does not answer help: see what the driver says to `nvidia-smi`"), "{words}");
    Ok(())
}

#[test]
fn a_driver_that_is_older_than_most_calls_still_runs_tasks() -> Tested {
    let world = World::new(
        cards(&[16_384]),
        "[stage.train]\nrun = 'TRAIN 3000 0.1'\nresources = { gpu_memory = '6000MiB' }\n",
    )?;
    let lacks = [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetMemoryAffinity",
        "nvmlDeviceGetTopologyCommonAncestor",
        "nvmlDeviceGetP2PStatus",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetSupportedEventTypes",
    ];
    let run = |lacks: &[&str]| -> Result<String, Box<dyn std::error::Error>> {
        let old = world.scene.old_driver(lacks)?.display().to_string();
        let run = world.command_under(&[("TRAINYARD_NVML", &old)], &["run", "p.toml"])?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "without {lacks:?}: {said}");
        Ok(said)
    };
    run(&lacks)?;
    // What every driver has that anybody uses is no reason to panic or to wait for ever either.
    run(&["nvmlShutdown", "nvmlDeviceGetHandleByUUID"])?;
    let said = run(&["nvmlEventSetCreate"])?;
    assert!(said.contains("the driver does not report errors (Xid): a GPU that fails is noticed once"), "{said}");
    Ok(())
}

#[test]
fn a_mask_that_leaves_a_lost_card_only_is_not_said_to_hide_all() -> Tested {
    let world = World::new(cards(&[16_384; 2]), "[stage.train]\nrun = 'true'\nresources = { gpus = 1 }\n")?;
    world.scene.change(|machine| {
        machine.cards[1].fails.insert("*".to_owned(), 15);
    })?;
    let refused = world.command_under(&[("CUDA_VISIBLE_DEVICES", "1")], &["plan", "p.toml"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("CUDA_VISIBLE_DEVICES=\"1\" names no GPU that can be used: gpu1 is lost: "), "{said}");
    assert!(said.contains("none may be used: gpu1 lost") && !said.contains("unset"), "{said}");
    Ok(())
}

#[test]
fn of_cards_that_tell_no_memory_none_is_blamed_for_another() -> Tested {
    let world = World::new(cards(&[16_384; 2]), SHOW)?;
    world.scene.change(|machine| {
        let calls = ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"];
        machine.cards[0].fails = calls.iter().map(|call| ((*call).to_owned(), 999)).collect();
        machine.cards[1].fails = calls.iter().map(|call| ((*call).to_owned(), 3)).collect();
    })?;
    let refused = world.command(&["plan", "p.toml"])?;
    let said = String::from_utf8_lossy(&refused.stderr).replace('│', " ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(
        said.contains("/gpu1` tells how much it has") && said.contains("it asks for GPU memory, and none of `"),
        "{said}"
    );
    Ok(())
}

#[test]
fn how_much_of_a_card_stays_free_can_be_said() -> Tested {
    let large = SHOW.replace("1GiB", "15.5GiB");
    let world = World::new(cards(&[16_384]), &large)?;
    let refused = world.command(&["run", "p.toml"])?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{words}");
    assert!(words.contains("ask for at most 15544 MiB"), "{words}");
    let run = world.command(&["run", "p.toml", "--headroom", "1%"])?;
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let run = world.command_under(&[("TRAINYARD_HEADROOM", "2GiB+5%")], &["plan", "p.toml"])?;
    let words = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(4), "{words}");
    assert!(words.contains("2.8 GiB kept as headroom"), "{words}");
    let wrong = world.command(&["run", "p.toml", "--headroom", "much"])?;
    assert_eq!(wrong.status.code(), Some(2));
    // An empty variable is none, a wrong one is named, and the option goes before.
    let under = |set: &str, args: &[&str]| world.command_under(&[("TRAINYARD_HEADROOM", set)], args);
    assert!(under("", &["plan", "p.toml", "--headroom", "1%"])?.status.success());
    assert!(under("much", &["plan", "p.toml", "--headroom", "1%"])?.status.success());
    let wrong = under("much", &["plan", "p.toml"])?;
    let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(2), "{words}");
    assert!(words.contains("TRAINYARD_HEADROOM=\"much\": ") && !words.contains("--headroom"), "{words}");
    assert_eq!(under("", &["plan", "p.toml"])?.status.code(), Some(4));
    Ok(())
}

#[test]
fn a_fleet_file_that_is_wrong_about_this_machine_is_noticed() -> Tested {
    let world = World::new(cards(&[16_384]), SHOW)?;
    let here: Value = serde_json::from_slice(&world.command(&["devices", "--json"])?.stdout)?;
    let name = here["host"]["name"].as_str().ok_or("a host has a name")?;
    let plan = |node: &str, gpus: &str| -> Result<String, Box<dyn std::error::Error>> {
        let fleet = format!("[[node]]\nname = '{node}'\n[[node.gpu]]\n{gpus}\n");
        std::fs::write(world.path().join("fleet.toml"), fleet)?;
        let plan = world.command(&["plan", "p.toml", "--fleet", "fleet.toml"])?;
        assert!(plan.status.success(), "{}", String::from_utf8_lossy(&plan.stderr));
        Ok(String::from_utf8_lossy(&plan.stderr).into_owned())
    };
    assert!(plan(name, "count = 8\nmemory = '80GiB'")?.contains("8 GPUs in the file, 1 here"));
    assert!(plan(name, "memory = '80GiB'")?.contains("gpu0 has 80.0 GiB in the file, 16.0 GiB here"));
    assert!(!plan(name, "memory = '16GiB'")?.contains("in the file"));
    assert!(!plan("another-box", "count = 8\nmemory = '80GiB'")?.contains("in the file"));
    Ok(())
}

#[test]
fn the_memory_that_is_advised_is_planned() -> Tested {
    let asking = |memory: &str| SHOW.replace("1GiB", memory);
    let world = World::new(cards(&[24_540]), &asking("23GiB"))?;
    let planned = |env: &[(&str, &str)]| -> Result<(Option<i32>, String), Box<dyn std::error::Error>> {
        let plan = world.command_under(env, &["plan", "p.toml"])?;
        Ok((plan.status.code(), String::from_utf8_lossy(&plan.stderr).into_owned()))
    };
    let (code, words) = planned(&[])?;
    assert_eq!(code, Some(4), "{words}");
    let advised = words.split("ask for at most ").nth(1).and_then(|rest| rest.split(',').next()).ok_or("advice")?;
    world.write(&asking(advised))?;
    let (code, words) = planned(&[])?;
    assert_eq!(code, Some(0), "{words}");

    let (code, words) = planned(&[("TRAINYARD_HEADROOM", "30GiB")])?;
    assert_eq!(code, Some(4), "{words}");
    assert!(words.contains("keep less headroom than a GPU has"), "{words}");
    // 3 is NVML's word for what a device does not support.
    world.scene.change(|machine| {
        for call in ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"] {
            machine.cards[0].fails.insert(call.to_owned(), 3);
        }
    })?;
    let (code, words) = planned(&[])?;
    assert_eq!(code, Some(4), "{words}");
    assert!(words.contains("leave `gpu_memory` out and ask for whole GPUs"), "{words}");
    Ok(())
}

#[test]
fn a_card_that_lets_in_one_process_is_given_to_one_task_at_a_time_and_to_none_beside_others() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 1000 0; until test -e go; do sleep 0.05; done'\nmatrix = { i = [1, 2] }\n\
                    duration = '10s'\nresources = { cpus = 0, gpu_memory = '4GiB' }\n";
    let mut card = cards(&[24_576]);
    // NVML's number for exclusive-process.
    card[0].compute_mode = Some(3);
    let world = World::new(card, pipeline)?;
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    assert_eq!(plan["makespan_ms"], 20_000, "one after the other");
    let words = "is used, and lets in one process at a time (compute mode exclusive-process)";
    let stranger = Stranger::on(&world, 0, 1_000)?;
    let run = world.start()?;
    world.until_printed(&["explain", "train[i=1]"], |why| why.contains(&format!("gpu0 {words}")))?;
    drop(stranger);
    world.until_printed(&["explain", "train[i=1]"], |why| why.contains(": running\n"))?;
    let why = world.until_printed(&["explain", "train[i=2]"], |why| why.contains(words))?;
    assert!(why.contains("needs 4.0 GiB of one GPU"), "{why}");
    std::fs::write(world.path().join("go"), "")?;
    let ended = run.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("warning: gpu0 lets in one process at a time"), "{said}");
    let shown = world.shown()?;
    let at = |task: usize, what: &str| shown["tasks"][task]["attempts"][0][what].as_str().map(str::to_owned);
    assert!(at(0, "finished") <= at(1, "started"), "{shown:#}");
    Ok(())
}

#[test]
fn an_mps_server_is_the_one_process_that_is_let_in() -> Tested {
    let pipeline = "[stage.train]\nrun = 'until test -e go; do sleep 0.05; done'\nmatrix = { i = [1, 2] }\n\
                    resources = { cpus = 0, gpu_memory = '4GiB' }\n";
    let mut card = cards(&[24_576]);
    card[0].compute_mode = Some(3);
    let world = World::new(card, pipeline)?;
    let mps = world.path().join("mps");
    std::fs::create_dir(&mps)?;
    std::fs::write(mps.join("control"), "")?;
    let mut run = world.prepare(&["run", "p.toml"]);
    let mut run = run.env("CUDA_MPS_PIPE_DIRECTORY", &mps).stdout(std::process::Stdio::null()).spawn()?;
    world.until_all_run()?;
    std::fs::write(world.path().join("go"), "")?;
    assert!(run.wait()?.success());
    Ok(())
}

#[test]
fn a_card_in_mig_mode_without_slices_is_named_with_what_makes_some() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nresources = { gpu_memory = '4GiB' }\n";
    let words = "gpu0 is not used: in MIG mode without slices: `nvidia-smi mig -cgi PROFILE -C` makes some";
    let mut two = cards(&[24_576, 24_576]);
    two[0].is_sliced = true;
    let world = World::new(two, pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(run["tasks"][0]["attempts"][0]["devices"][0].as_str().is_some_and(|id| id.ends_with("/gpu1")), "{run:#}");
    let shown: Value = serde_json::from_str(&world.printed(&["devices", "--json"])?)?;
    let devices = shown["devices"].as_array().ok_or("devices")?;
    assert!(devices[0]["fault"].as_str().is_some_and(|fault| fault.starts_with("in MIG mode without slices")));
    assert_eq!(devices[0]["uuid"], "GPU-00000000-0000-4000-8000-000000000000");
    assert!(world.printed(&["devices", "--drain", "gpu0"])?.starts_with("gpu0 is drained"));
    assert!(world.printed(&["devices"])?.contains("`nvidia-smi -mig 0` ends it; drained by hand"));
    assert!(world.printed(&["devices", "--json"])?.contains("; drained by hand"));
    // As the only one.
    let mut one = cards(&[24_576]);
    one[0].is_sliced = true;
    let world = World::new(one, pipeline)?;
    let (code, said) = {
        let run = world.command(&["run", "p.toml"])?;
        (run.status.code(), String::from_utf8_lossy(&run.stderr).replace("\n  │ ", " "))
    };
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("none may be used: gpu0 in MIG mode without slices   help: `nvidia-smi mig -cgi"), "{said}");
    Ok(())
}

#[test]
fn links_are_of_the_cards_that_devices_name() -> Tested {
    let mut three = cards(&[81_920, 24_576, 24_576]);
    three[0] = sliced();
    three[1].is_sliced = true;
    let world = World::new(three, "[stage.train]\nrun = 'true'\n")?;
    let shown: Value = serde_json::from_str(&world.printed(&["devices", "--json"])?)?;
    let named: Vec<&Value> = shown["devices"].as_array().into_iter().flatten().map(|device| &device["card"]).collect();
    let links = shown["links"].as_array().ok_or("links")?;
    assert_eq!(links.len(), 3);
    for end in links.iter().flat_map(|link| link["between"].as_array().into_iter().flatten()) {
        assert!(named.contains(&end), "{end}: {shown:#}");
    }
    Ok(())
}

#[test]
fn a_driver_that_is_too_old_and_a_card_that_cannot_be_read_are_called_so() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nresources = { gpus = 1 }\n";
    let planned = |world: &World, env: &[(&str, &str)]| -> Result<String, Box<dyn std::error::Error>> {
        let plan = world.command_under(env, &["plan", "p.toml"])?;
        Ok(String::from_utf8_lossy(&plan.stderr).replace("\n  │ ", " "))
    };
    let world = World::new(cards(&[24_576]), pipeline)?;
    let old = world.scene.old_driver(&["nvmlInit_v2"])?.display().to_string();
    let said = planned(&world, &[("TRAINYARD_NVML", &old)])?;
    assert!(
        said.contains("the NVIDIA driver is too old, or ") && said.contains("undefined symbol: nvmlInit_v2"),
        "{said}"
    );
    assert!(said.contains("help: update the NVIDIA driver"), "{said}");
    let old = world.scene.old_driver(&["nvmlDeviceGetUUID"])?.display().to_string();
    let said = planned(&world, &[("TRAINYARD_NVML", &old)])?;
    assert!(said.contains("gpu0 is not used: unreadable: its driver is too old, or does not support it: "), "{said}");
    assert!(said.contains("none may be used: gpu0 unreadable ") && !said.contains("reset"), "{said}");
    world.scene.change(|machine| {
        let calls = ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"];
        machine.cards[0].fails = calls.iter().map(|call| ((*call).to_owned(), 999)).collect();
    })?;
    let said = planned(&world, &[])?;
    assert!(said.contains("gpu0 is not used as long as it is unreadable: an internal driver error occurred"), "{said}");
    Ok(())
}

#[test]
fn words_that_were_nearly_meant_are_named() -> Tested {
    for (wrong, right) in [("gpu_memory = 'atuo'", "auto"), ("gpus = 'prefre'", "prefer")] {
        let world = World::new(cards(&[]), &format!("[stage.a]\nrun = 'true'\nresources = {{ {wrong} }}\n"))?;
        let checked = world.command(&["check", "p.toml"])?;
        let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
        assert!(said.contains(&format!("did you mean `{right}`?")), "{said}");
    }
    Ok(())
}

#[test]
fn a_driver_that_does_not_know_for_once_is_asked_again_and_another_version_s_memory_is_read() -> Tested {
    let pipeline =
        "[stage.train]\nrun = 'echo [$CUDA_VISIBLE_DEVICES]'\nresources = { cpus = 0, gpu_memory = '6GiB' }\n";
    for call in ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetMigMode"] {
        let mut one = cards(&[16_384]);
        // NVML's numbers: unknown, and a struct of another version.
        one[0].fails_once.insert(call.to_owned(), 999);
        let (code, said, _) = World::new(one, pipeline)?.run()?;
        assert_eq!(code, Some(0), "{call}: {said}");
    }
    let mut one = cards(&[16_384]);
    one[0].fails.insert("nvmlDeviceGetMemoryInfo_v2".to_owned(), 25);
    assert_eq!(World::new(one, pipeline)?.run()?.0, Some(0));
    // What may be slices is no whole card.
    let mut unknown = sliced();
    unknown.fails.insert("nvmlDeviceGetMigMode".to_owned(), 999);
    let (code, said, _) = World::new(vec![unknown, Card::default()], pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    let world =
        World::new(vec![Card { fails: [("nvmlDeviceGetMigMode".to_owned(), 999)].into(), ..sliced() }], pipeline)?;
    assert_eq!(world.command(&["plan", "p.toml"])?.status.code(), Some(4));
    Ok(())
}

#[test]
fn a_model_of_unknown_speed_takes_nothing_from_those_that_are_known_and_is_named() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nmatrix = { n = [1, 2, 3, 4] }\nduration = '1h'\nresources = { cpus = 0, gpus = 1 }\n";
    let mut two = cards(&[24_576; 2]);
    (two[0].name, two[1].name) = ("NVIDIA GeForce RTX 4090".to_owned(), "NVIDIA GeForce GTX 1080 Ti".to_owned());
    let world = World::new(two.clone(), pipeline)?;
    let planned = world.command(&["plan", "p.toml", "--json"])?;
    let said = String::from_utf8(planned.stderr)?;
    assert!(said.contains("how fast GTX-1080-Ti is") && said.contains("devices --calibrate"), "{said}");
    let plan: Value = serde_json::from_slice(&planned.stdout)?;
    let ids = plan["tasks"].as_array().into_iter().flatten().map(|task| task["devices"][0].to_string());
    assert_eq!(ids.filter(|id| id.contains("gpu0")).count(), 2, "{plan:#}");
    two[0].name = two[1].name.clone();
    let world = World::new(two, pipeline)?;
    assert!(!String::from_utf8(world.command(&["plan", "p.toml"])?.stderr)?.contains("how fast"), "there is no other");
    Ok(())
}

#[test]
fn who_asks_for_more_than_the_mask_shows_is_told_that_it_hides_others() -> Tested {
    let stage = |resources: &str| format!("[stage.train]\nrun = 'true'\nresources = {{ {resources} }}\n");
    let world = World::new(cards(&[8_192, 24_576]), "")?;
    for resources in ["gpu_memory = '20GiB'", "gpus = 2"] {
        world.write(&stage(resources))?;
        assert!(world.command(&["plan", "p.toml"])?.status.success());
        for (mask, hides) in [("0", true), ("1,0,7", false)] {
            let refused = world.command_under(&[("CUDA_VISIBLE_DEVICES", mask)], &["plan", "p.toml"])?;
            let said = String::from_utf8(refused.stderr)?.replace('│', " ");
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(said.contains("CUDA_VISIBLE_DEVICES hides others of this machine"), hides, "{mask}: {said}");
            assert_eq!(refused.status.code() == Some(4), hides, "{said}");
            let within = [("CUDA_VISIBLE_DEVICES", mask), ("TRAINYARD_TASK", "sweep")];
            let said = String::from_utf8(world.command_under(&within, &["plan", "p.toml"])?.stderr)?;
            assert_eq!(said.contains("`sweep`"), hides, "{mask}: {said}");
        }
    }
    Ok(())
}
