//! Cards whose driver hides processes, as in most containers.

use std::fs;

use mock_nvml::Card;
use serde_json::Value;

use crate::world::{Stranger, Tested, World, attempts, card_of_first, cards};

/// Cards of so many MiB whose processes are hidden.
fn hiding(sizes: &[u64]) -> Vec<Card> {
    cards(sizes).into_iter().map(|card| Card { hides_processes: true, ..card }).collect()
}

#[test]
fn a_stranger_that_comes_before_a_hidden_task_has_begun_moves_it() -> Tested {
    let pipeline = "[stage.train]\nrun = 'if [ $TRAINYARD_ATTEMPT = 1 ]; then exec sleep 600; fi; TRAIN 8000 0.1'\n\
                    backoff = '100ms'\nresources = { gpu_memory = '8000MiB' }\n";
    let world = World::new(hiding(&[16_384, 16_384]), pipeline)?;
    let run = world.start()?;
    let _stranger = Stranger::on(&world, card_of_first(&world)?, 10_000)?;
    let ended = run.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"], "{said}");
    assert_ne!(attempts(&shown, "devices")[0], attempts(&shown, "devices")[1]);
    Ok(())
}

#[test]
fn what_a_stranger_takes_is_not_taken_for_a_hidden_task_s() -> Tested {
    let pipeline = "[stage.slow]\nrun = 'until test -e slow; do sleep 0.05; done; TRAIN 12000 0.1'\noom_retries = 0\n\
                    resources = { cpus = 0, gpu_memory = '12GiB' }\n\
                    [stage.gate]\nrun = 'until test -e gate; do sleep 0.05; done'\nresources = { cpus = 0 }\n\
                    [stage.next]\nafter = ['gate']\nrun = 'TRAIN 9900 0.1'\n\
                    resources = { cpus = 0, gpu_memory = '10GiB' }\n";
    let world = World::new(hiding(&[24_576]), pipeline)?;
    let run = world.start()?;
    card_of_first(&world)?;
    let stranger = Stranger::on(&world, 0, 10_000)?;
    world.until_seen("used", 0, 10_000)?;
    fs::write(world.path().join("gate"), "")?;
    let why = world.until_printed(&["explain", "next"], |why| why.contains("needs 10.0 GiB"))?;
    assert!(why.contains("gpu0 free 14.2 GiB, promised 12.0 GiB"), "{why}");
    fs::write(world.path().join("slow"), "")?;
    drop(stranger);
    let ended = run.wait_with_output()?;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(())
}

#[test]
fn what_a_card_gains_under_one_task_alone_is_learned_where_processes_are_hidden() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 1.6'\nresources = { gpu_memory = 'auto' }\n";
    let world = World::new(hiding(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "peak_gpu_memory_bytes"), [Value::from(3_000_u64 << 20)]);
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    assert_eq!(plan["tasks"][0]["gpu_memory_bytes"], 3_750_u64 << 20);
    Ok(())
}
