//! Plans for devices that others hold memory of.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::world::{Stranger, Tested, World, attempts, cards};

/// The card that the plan has for its first task, and what `plan` prints.
fn planned(world: &World) -> Result<(String, String), Box<dyn std::error::Error>> {
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    let id = plan["tasks"][0]["devices"][0].as_str().unwrap_or_default().to_owned();
    Ok((id.rsplit('/').next().unwrap_or_default().to_owned(), world.printed(&["plan", "p.toml"])?))
}

#[test]
fn a_plan_keeps_off_what_others_hold_and_says_so() -> Tested {
    for resources in ["gpus = 1", "gpu_memory = '8GiB'", "gpu_memory = 'auto'"] {
        let pipeline = format!("[stage.train]\nrun = 'true'\nresources = {{ {resources} }}\n");
        let world = World::new(cards(&[16_384, 16_384]), &pipeline)?;
        let _stranger = Stranger::on(&world, 0, 10_240)?;
        let (card, printed) = planned(&world)?;
        assert_eq!(card, "gpu1", "{resources}");
        assert!(
            printed.contains("in use now     10.0 GiB of ") && printed.contains("/gpu0: planned around\n"),
            "{printed}"
        );
        let (code, said, run) = world.run()?;
        assert_eq!(code, Some(0), "{said}");
        let on = &run["tasks"][0]["attempts"][0]["devices"][0];
        assert!(on.as_str().is_some_and(|id| id.ends_with("/gpu1")), "{resources}: {on}");
    }
    Ok(())
}

#[test]
fn a_plan_that_has_to_wait_for_others_says_who_waits() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nmatrix = { seed = [1, 2, 3] }\nresources = { gpu_memory = '8GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let _stranger = Stranger::on(&world, 0, 10_240)?;
    let (card, printed) = planned(&world)?;
    assert_eq!(card, "gpu0");
    assert!(printed.contains("/gpu0: train[seed=1] and 2 tasks more wait for it\n"), "{printed}");
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    assert_eq!(plan["devices"][0]["memory_free_bytes"], 6_144_u64 << 20);
    Ok(())
}

#[test]
fn a_bound_that_falls_once_others_leave_says_so() -> Tested {
    let pipeline = "[stage.a]\nrun = 'true'\nduration = '12s'\nresources = { gpu_memory = '10GiB' }\n\
                    [stage.b]\nrun = 'true'\nduration = '12s'\nresources = { gpu_memory = '2GiB' }\n";
    let world = World::new(cards(&[24_576]), pipeline)?;
    {
        let _stranger = Stranger::on(&world, 0, 19_968)?;
        let (_, printed) = planned(&world)?;
        let words =
            "24s by GPU memory: proven optimal, unless others give back the 19.5 GiB of GPU memory that they hold\n";
        assert!(printed.contains(words), "{printed}");
    }
    let (_, printed) = planned(&world)?;
    assert!(printed.contains("12s by critical path: proven optimal\n"), "{printed}");
    Ok(())
}

#[test]
fn a_plan_begins_beside_a_little_of_a_desktop_and_waits_for_as_much_of_who_computes() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nresources = { gpus = 1 }\n";
    let printed = |desktop_mib: u64, stranger: u64, hidden: bool| -> Result<String, Box<dyn std::error::Error>> {
        let mut card = cards(&[24_576]);
        (card[0].desktop_mib, card[0].hides_processes) = (desktop_mib, hidden);
        let world = World::new(card, pipeline)?;
        let _stranger = Stranger::on(&world, 0, stranger)?;
        Ok(planned(&world)?.1)
    };
    for (desktop, stranger, hidden, words) in [
        (1_500, 0, false, "planned around"),
        (1_500, 500, false, "planned around"),
        (0, 1_500, false, "train waits for it"),
        (1_500, 1_500, false, "train waits for it"),
        (0, 1_500, true, "planned around"),
    ] {
        let said = printed(desktop, stranger, hidden)?;
        assert!(said.contains(&format!("/gpu0: {words}\n")), "{desktop}, {stranger}: {said}");
    }
    Ok(())
}

#[test]
fn what_the_driver_keeps_for_itself_is_in_nobodys_use_and_nobodys_to_have() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo $TRAINYARD_GPU_MEMORY >said'\nresources = { gpus = 1 }\n";
    let mut card = cards(&[24_576]);
    card[0].reserved_mib = 700;
    let world = World::new(card, pipeline)?;
    {
        let _stranger = Stranger::on(&world, 0, 1_200)?;
        let printed = world.printed(&["plan", "p.toml"])?;
        assert!(printed.contains("in use now     1.2 GiB of "), "{printed}");
    }
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let told: u64 = std::fs::read_to_string(world.path().join("said"))?.trim().parse()?;
    // 24,576 MiB less the driver's 700, and a headroom of 512 and 2 %.
    assert_eq!(told >> 20, 24_576 - 700 - 512 - 492);
    Ok(())
}

#[test]
fn who_wants_a_card_alone_beside_others_who_train_is_told_how_to_start() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nresources = { gpus = 1 }\n";
    let mut card = cards(&[24_576]);
    card[0].desktop_mib = 8_000;
    let world = World::new(card, pipeline)?;
    let remedy = "it may start beside them with a number in `gpu_memory` (at most 15572 MiB)";
    let (_, printed) = planned(&world)?;
    assert!(printed.contains("/gpu0: train waits for it\n"), "{printed}");
    let mut run = world.start()?;
    world.until_printed(&["explain", "train"], |said| {
        said.contains(&format!("gpu0 has 7.8 GiB held by others; {remedy}; for "))
    })?;
    // What is said in the run is said once it has waited, which ends when the others have gone.
    let mut lines = BufReader::new(run.stderr.take().ok_or("a pipe")?).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains(remedy))));
    world.scene.change(|machine| machine.cards[0].desktop_mib = 0)?;
    lines.for_each(drop);
    assert!(run.wait()?.success());
    // The remedy is true.
    world.scene.change(|machine| machine.cards[0].desktop_mib = 8_000)?;
    world.write(&pipeline.replace("gpus = 1", "gpu_memory = '15572MiB'"))?;
    assert_eq!(world.run()?.0, Some(0));
    Ok(())
}

#[test]
fn beside_a_desktop_on_every_card_whole_cards_are_all_but_its_part() -> Tested {
    let pipeline = "[stage.whole]\nrun = 'test $TRAINYARD_GPU_MEMORY -lt 23200000000 && TRAIN 20000 0.1'\n\
                    resources = { cpus = 0, gpus = 1 }\n\
                    [stage.auto]\nrun = 'TRAIN 3000 1.6'\nmatrix = { seed = [1, 2] }\n\
                    resources = { cpus = 0, gpu_memory = 'auto' }\nmemory_limit = 'watch'\n\
                    [stage.more]\nafter = ['auto']\nrun = 'test $TRAINYARD_GPU_MEMORY -gt 17000000000 || \
                    { echo torch.OutOfMemoryError: CUDA out of memory; exit 1; }'\n\
                    resources = { cpus = 0, gpu_memory = '10GiB' }\n";
    let mut card = cards(&[24_576]);
    card[0].desktop_mib = 1_500;
    let world = World::new(card, pipeline)?;
    let (_, printed) = planned(&world)?;
    assert!(printed.contains("/gpu0: planned around"), "{printed}");
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let attempts = |name: &str| {
        let mut tasks = run["tasks"].as_array().into_iter().flatten();
        tasks.find(|task| task["name"] == name).map(|task| task["attempts"].clone()).unwrap_or_default()
    };
    assert_eq!(attempts("auto[seed=2]")[0]["gpu_memory_bytes"].as_u64().map(|bytes| bytes >> 20), Some(3_750));
    let ended: Vec<_> = attempts("more").as_array().into_iter().flatten().map(|of| of["outcome"].clone()).collect();
    assert_eq!(ended, ["out-of-memory", "out-of-memory", "succeeded"], "10 GiB, 15 GiB, and alone: {said}");
    Ok(())
}

#[test]
fn a_small_card_that_is_busy_is_not_waited_for_where_a_larger_one_has_a_desktop_only() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 1000 0; until test -e go; do sleep 0.05; done'\nmatrix = { seed = [1, 2] }\n\
                    resources = { cpus = 0, gpu_memory = 'auto' }\n";
    let mut two = cards(&[8_192, 24_576]);
    two[1].desktop_mib = 1_500;
    let world = World::new(two, pipeline)?;
    let mut run = world.start()?;
    world.until_all_run()?;
    std::fs::write(world.path().join("go"), "")?;
    assert!(run.wait()?.success());
    Ok(())
}

#[test]
fn where_one_card_is_empty_whole_cards_are_those_without_a_desktop() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 1000 0.1'\nmatrix = { seed = [1, 2, 3] }\n\
                    resources = { cpus = 0, gpus = 1 }\n";
    let mut two = cards(&[24_576; 2]);
    two[0].desktop_mib = 1_500;
    let (code, said, run) = World::new(two, pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    for task in run["tasks"].as_array().ok_or("tasks")? {
        assert!(task["attempts"][0]["devices"][0].as_str().is_some_and(|id| id.ends_with("gpu1")), "{task}");
    }
    Ok(())
}

#[test]
fn who_was_seen_to_need_nearly_all_of_a_card_has_it_beside_a_desktop_again_and_again() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 22000 3'\nresources = { gpu_memory = 'auto' }\n";
    let mut card = cards(&[24_576]);
    card[0].desktop_mib = 1_500;
    let world = World::new(card, pipeline)?;
    for _ in 0..2 {
        let (code, said, run) = world.run()?;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(attempts(&run, "outcome"), ["succeeded"], "{said}");
    }
    assert!(planned(&world)?.1.contains("all of a GPU: 21.5 GiB seen in 2 attempts"));
    Ok(())
}

#[test]
fn beside_desktops_a_larger_card_is_reached_and_where_there_is_none_the_end() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 30000 0.1'\nbackoff = '100ms'\nresources = { gpu_memory = '10GiB' }\n";
    let desktops = |sizes: &[u64]| {
        let mut cards = cards(sizes);
        cards.iter_mut().for_each(|card| card.desktop_mib = 1_500);
        cards
    };
    let (code, said, run) = World::new(desktops(&[24_576, 40_960]), pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "raised"), [Value::Null, "more".into(), "alone".into(), "larger".into()], "{said}");
    let (code, said, run) = World::new(desktops(&[24_576]), pipeline)?.run()?;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(attempts(&run, "raised"), [Value::Null, "more".into(), "alone".into()], "{said}");
    assert!(said.contains("no GPU here is larger"), "{said}");
    Ok(())
}

#[test]
fn where_nobody_knows_how_much_is_free_one_who_computes_is_waited_for() -> Tested {
    let world = World::new(cards(&[16_384]), "[stage.train]\nrun = 'touch began'\nresources = { gpus = 1 }\n")?;
    // Not supported, as where a card shares the memory of its host.
    world.scene.change(|machine| {
        let calls = ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"];
        machine.cards[0].fails = calls.iter().map(|call| ((*call).to_owned(), 3)).collect();
    })?;
    let stranger = Stranger::on(&world, 0, 10_000)?;
    let mut run = world.start()?;
    let words = "in use by others, and its driver does not tell how much of its memory is free";
    world.until_printed(&["explain", "train"], |why| why.contains(words))?;
    assert!(!world.path().join("began").exists());
    drop(stranger);
    assert!(run.wait()?.success());
    Ok(())
}
