//! Why a task waits.

use std::process::{Command, Stdio};

use crate::world::{Tested, World, cards};

#[test]
fn a_task_without_room_says_what_it_waits_for_in_numbers() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 0.1'\nresources = { gpu_memory = '8GiB' }\n\
                    [stage.best]\nrun = 'true'\nafter = ['train']\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let mut stranger = Command::new("cat").stdin(Stdio::piped()).spawn()?;
    world.scene.hold(stranger.id(), "0", 10_240)?;
    let mut run = world.start()?;
    let why = world.until(&["explain", "train", "--json"], |said| said["why"] == "room")?;
    let lacks = &why["devices"][0]["lacks"];
    assert_eq!((&lacks["is"], &lacks["free_bytes"]), (&"memory".into(), &(6_144_u64 << 20).into()));
    let words = world.printed(&["explain", "train"])?;
    assert!(words.contains("needs 8.0 GiB of one GPU, 1 CPU; gpu0 free 6.0 GiB, promised 0 B, headroom"), "{words}");
    let words = world.printed(&["explain", "best"])?;
    assert!(words.contains("it needs train (waiting) to succeed first"), "{words}");
    stranger.kill()?;
    stranger.wait()?;
    assert!(run.wait()?.success());
    assert_eq!(world.until(&["explain", "train", "--json"], |_| true)?["why"], "succeeded");
    assert!(!world.command(&["explain", "trian"])?.status.success());
    Ok(())
}

#[test]
fn memory_that_is_given_back_late_is_waited_for() -> Tested {
    let pipeline = "[stage.first]\nrun = 'TRAIN 12000 0.1'\nresources = { gpu_memory = '12000MiB' }\n\
                    [stage.second]\nrun = 'TRAIN 12000 0.1'\nafter = ['first']\nresources = { gpu_memory = '12000MiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    world.scene.change(|machine| machine.cards[0].releases_late = true)?;
    let mut run = world.start()?;
    // Before the next reading it is what the first one was promised that counts.
    world.until(&["explain", "second", "--json"], |said| {
        said["why"] == "room" && said["devices"][0]["lacks"]["free_bytes"] == 4_384_u64 << 20
    })?;
    world.scene.change(|machine| machine.cards[0].releases_late = false)?;
    assert!(run.wait()?.success());
    let shown = world.shown()?;
    assert_eq!(shown["tasks"][1]["attempts"].as_array().map(Vec::len), Some(1), "{shown:#}");
    Ok(())
}

#[test]
fn a_stage_of_several_tasks_says_a_line_of_each() -> Tested {
    let pipeline = "[stage.train]\nrun = 'until [ -e go ]; do sleep 0.1; done'\nmatrix = { i = [1, 2] }\n\
                    resources = { cpus = 0, gpus = 1 }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let mut run = world.start()?;
    let said = world.until_printed(&["explain", "train"], |said| said.contains("is taken whole"))?;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("train of run ") && lines[0].ends_with(": 2 tasks"), "{said}");
    assert!(lines[2].starts_with("train[i=1]: running: attempt 1 has run for "), "{said}");
    assert!(lines[3].starts_with("train[i=2]: waiting: needs 1 whole GPU; gpu0 is taken whole; for "), "{said}");
    assert!(lines[5].contains("trainyard explain ") && lines[5].ends_with(" 'train[i=1]'"), "{said}");
    let both = world.until(&["explain", "train", "--json"], |_| true)?;
    assert_eq!((&both[0]["why"], &both[1]["why"]), (&"running".into(), &"room".into()), "{both:#}");
    std::fs::write(world.path().join("go"), "")?;
    assert!(run.wait()?.success());
    Ok(())
}

#[test]
fn what_an_old_driver_may_keep_for_itself_is_said_with_a_number_that_starts() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nresources = { gpu_memory = '23500MiB' }\n";
    let mut card = cards(&[24_576]);
    card[0].reserved_mib = 600;
    let world = World::new(card, pipeline)?;
    let driver = world.scene.old_driver(&["nvmlDeviceGetMemoryInfo_v2"])?;
    let run = |world: &World| {
        let mut command = world.prepare(&["run", "p.toml"]);
        command.env("TRAINYARD_NVML", &driver).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn()
    };
    let mut waits = run(&world)?;
    let words = "where that is the driver's own, it gets at most 22972 MiB as `gpu_memory`";
    world.until_printed(&["explain", "train"], |said| said.contains(words))?;
    assert!(world.command(&["cancel"])?.status.success());
    waits.wait()?;
    world.write(&pipeline.replace("23500MiB", "22972MiB"))?;
    assert!(run(&world)?.wait()?.success());
    Ok(())
}
