//! What attempts used, and what is reserved for the next ones.

use std::error::Error;

use serde_json::Value;

use crate::world::{Stranger, Tested, World, cards};

/// Returns what `plan --json` says of the pipeline's first task.
fn planned(world: &World) -> Result<Value, Box<dyn Error>> {
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    Ok(plan["tasks"][0].clone())
}

/// Returns the device memory that each task's last attempt reserved; null for a device alone.
fn reserved(run: &Value) -> Vec<Value> {
    let tasks = run["tasks"].as_array().into_iter().flatten();
    tasks.filter_map(|task| Some(task["attempts"].as_array()?.last()?["gpu_memory_bytes"].clone())).collect()
}

/// Runs until it is known what the first task needs, and returns what `plan` says of it then: on a machine with much to
/// do, devices may not be looked at often enough at first.
fn until_learned(world: &World) -> Result<Value, Box<dyn Error>> {
    let mut next = Value::Null;
    for _ in 0..20 {
        let (code, said, _) = world.run()?;
        assert_eq!(code, Some(0), "{said}");
        next = planned(world)?;
        if next["gpu_memory_from"] == "learned" {
            return Ok(next);
        }
    }
    Err(format!("nothing was learned: {next:#}").into())
}

#[test]
fn who_is_measured_is_asked_to_take_no_more_than_it_needs() -> Tested {
    let run = "'echo $XLA_PYTHON_CLIENT_PREALLOCATE $TF_FORCE_GPU_ALLOW_GROWTH'";
    let stage = |name: &str, memory: &str| {
        format!("[stage.{name}]\nrun = {run}\nresources = {{ cpus = 0, gpu_memory = '{memory}' }}\n")
    };
    let world = World::new(cards(&[16_384]), &(stage("learned", "auto") + &stage("said", "1GiB")))?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(world.printed(&["logs", "learned"])?, "false true\n");
    assert_eq!(world.printed(&["logs", "said"])?, "\n");
    let own = world.command_under(&[("XLA_PYTHON_CLIENT_PREALLOCATE", "true")], &["run", "p.toml", "--force"])?;
    assert!(own.status.success());
    assert_eq!(world.printed(&["logs", "learned"])?, "true true\n", "what the shell says stays");
    Ok(())
}

#[test]
fn what_a_stage_needs_is_measured_once_and_then_reserved() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 1.6'\nresources = { gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let first = planned(&world)?;
    assert_eq!((&first["gpu_memory_from"], &first["duration_from"]), (&"default".into(), &"default".into()));
    assert!(world.printed(&["plan", "p.toml"])?.contains("1 task of unknown GPU memory: alone on a GPU"));
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("alone on a GPU until it is known how much of its memory they need: `train`"), "{said}");
    assert_eq!(reserved(&run), [Value::Null]);

    // 3,000 MiB and a quarter, since one attempt says little.
    let next = planned(&world)?;
    assert_eq!((&next["gpu_memory_from"], &next["gpu_memory_runs"]), (&"learned".into(), &1.into()));
    assert_eq!(next["gpu_memory_bytes"], 3_750_u64 << 20);
    assert_eq!((&next["duration_from"], &next["duration_runs"]), (&"learned".into(), &1.into()));
    assert!(world.printed(&["plan", "p.toml"])?.contains("duration from 1 attempt, memory from 1 attempt"));
    let (code, said, run) = world.run()?;
    assert_eq!((code, said.contains("alone on a GPU")), (Some(0), false), "{said}");
    assert_eq!(reserved(&run), [Value::from(3_750_u64 << 20)]);

    // Another command is another stage, of which nothing is known.
    world.write(&pipeline.replace("3000", "2000"))?;
    assert_eq!(planned(&world)?["gpu_memory_from"], "default");
    Ok(())
}

#[test]
fn what_holds_more_than_it_declares_is_said() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 6000 1.6'\nduration = '2s'\nresources = { gpu_memory = '2GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!((code, said.contains("instead of")), (Some(0), false), "{said}");
    assert_eq!(reserved(&run), [Value::from(2_u64 << 30)]);
    let said = |world: &World| Ok::<_, Box<dyn Error>>(String::from_utf8(world.command(&["plan", "p.toml"])?.stderr)?);
    let warned = said(&world)?;
    assert!(warned.contains("seen to need more GPU memory than declared"), "{warned}");
    assert!(warned.contains("`train` held 5.9 GiB instead of 2.0 GiB"), "{warned}");
    world.write(&pipeline.replace("2GiB", "6GiB"))?;
    assert_eq!(said(&world)?, "");
    Ok(())
}

#[test]
fn a_sweep_of_unknown_need_shares_the_card_after_its_first_task() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 1.6'\nmatrix = { seed = [1, 2, 3, 4] }\n\
                    resources = { cpus = 0, gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let learned = Value::from(3_750_u64 << 20);
    assert_eq!(reserved(&run), [Value::Null, learned.clone(), learned.clone(), learned]);
    Ok(())
}

#[test]
fn what_was_not_enough_is_learned_too() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 5000 0.1'\nbackoff = '100ms'\noom_retries = 0\n\
                    resources = { gpu_memory = '16GiB' }\n";
    let world = World::new(cards(&[20_480]), &pipeline.replace("TRAIN 5000", "TRAIN 30000"))?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(1), "{said}");
    // Nobody has seen it hold that.
    world.write(&pipeline.replace("TRAIN 5000", "TRAIN 30000").replace("16GiB", "6GiB"))?;
    let said = String::from_utf8(world.command(&["plan", "p.toml"])?.stderr)?;
    assert!(said.contains("`train` ran out with 16.0 GiB instead of 6.0 GiB"), "{said}");
    world.write(&pipeline.replace("TRAIN 5000", "TRAIN 30000").replace("16GiB", "auto"))?;
    let next = planned(&world)?;
    // Half as much again is more than the card has: it is asked for alone.
    assert_eq!((&next["gpu_memory_from"], &next["gpu_memory_runs"]), (&"learned".into(), &1.into()));
    Ok(())
}

#[test]
fn what_the_driver_keeps_is_counted_in_what_a_card_can_give() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 19500 0.1'\ncache = false\nresources = { gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[24_576]), pipeline)?;
    world.scene.change(|machine| machine.cards[0].reserved_mib = 600)?;
    for _ in 0..2 {
        let (code, said, _) = world.run()?;
        assert_eq!(code, Some(0), "{said}");
    }
    world.write("[stage.train]\nrun = 'TRAIN 100 0.1'\nresources = { gpu_memory = '24GiB' }\n")?;
    let refused = world.command(&["run", "p.toml"])?;
    let said = String::from_utf8_lossy(&refused.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("600.0 MiB kept by its driver"), "{said}");
    let (_, most) = said.split_once("ask for at most ").ok_or("what can be had is said")?;
    let most = most.split_once("iB").ok_or("with its unit")?.0.replace(' ', "");
    world.write(&format!("[stage.train]\nrun = 'TRAIN 100 0.1'\nresources = {{ gpu_memory = '{most}iB' }}\n"))?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{most}: {said}");
    Ok(())
}

#[test]
fn who_takes_no_memory_of_a_card_is_known_to_once_it_was_watched_throughout() -> Tested {
    let pipeline = "[stage.train]\nrun = 'sleep 1.6'\ncache = false\nresources = { cpus = 0, gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let next = until_learned(&world)?;
    // A context may be missed between two readings.
    assert_eq!(next["gpu_memory_bytes"], 512_u64 << 20);
    Ok(())
}

#[test]
fn who_runs_out_after_nobody_saw_it_hold_memory_is_of_unknown_need_again() -> Tested {
    let pipeline = "[stage.train]\nrun = 'if test -e takes; then TRAIN 12000 0.1; else sleep 1.6; fi'\ncache = false\n\
                    oom_retries = 0\nresources = { cpus = 0, gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    until_learned(&world)?;
    std::fs::write(world.path().join("takes"), "")?;
    let stranger = Stranger::on(&world, 0, 10_000)?;
    let (code, said, run) = world.run()?;
    assert_eq!((code, reserved(&run)), (Some(1), vec![Value::from(512_u64 << 20)]), "{said}");
    drop(stranger);
    assert_eq!(planned(&world)?["gpu_memory_from"], "default");
    let (code, said, run) = world.run()?;
    assert_eq!((code, reserved(&run)), (Some(0), vec![Value::Null]), "{said}");
    Ok(())
}

#[test]
fn what_needs_more_than_any_card_has_is_said_to_get_all_of_one() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 8000 1.3'\nresources = { gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    world.scene.change(|machine| machine.cards[0].mib = 6_000)?;
    let printed = world.printed(&["plan", "p.toml"])?;
    assert!(printed.contains("all of a GPU: 7.8 GiB seen in 1 attempt"), "{printed}");
    Ok(())
}

#[test]
fn what_was_seen_to_need_more_than_any_card_gives_is_said_before_it_is_tried() -> Tested {
    let pipeline =
        "[stage.train]\nrun = 'TRAIN 30000 1.6'\ncache = false\noom_retries = 0\nresources = { gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[40_960]), pipeline)?;
    until_learned(&world)?;
    world.scene.change(|machine| machine.cards[0].mib = 16_384)?;
    let words = "`train` will hardly have enough memory: earlier runs have seen it hold 29.3 GiB of a GPU";
    let plan = world.command(&["plan", "p.toml"])?;
    let said = String::from_utf8_lossy(&plan.stderr).into_owned();
    assert!(plan.status.success() && said.contains(words) && said.contains("may be used here is 15.2 GiB"), "{said}");
    let (code, said, _) = world.run()?;
    assert!(code == Some(1) && said.contains(words), "{said}");
    Ok(())
}

#[test]
fn a_plan_says_that_all_of_a_smaller_card_may_do() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 14000 1.1'\nmatrix = { seed = [1, 2, 3] }\n\
                    resources = { cpus = 0, gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[16_384, 24_576]), pipeline)?;
    let words = "proven optimal, unless tasks get by with all of a smaller GPU";
    assert!(!world.printed(&["plan", "p.toml"])?.contains("unless"));
    until_learned(&world)?;
    let plan = world.printed(&["plan", "p.toml"])?;
    assert!(plan.contains(words), "{plan}");
    Ok(())
}
