//! Trainings that need more memory than they said.

use std::error::Error;
use std::fs;

use serde_json::Value;

use crate::world::{Stranger, Tested, World, attempts, card_of_first, cards};

#[test]
fn a_training_that_runs_out_gets_more_then_a_card_then_a_larger_one() -> Tested {
    let pipeline =
        "[stage.train]\nrun = 'TRAIN 20000 0.1'\nbackoff = '100ms'\nresources = { gpu_memory = '4000MiB' }\n";
    let world = World::new(cards(&[16_384, 40_960]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "outcome"), ["out-of-memory", "out-of-memory", "out-of-memory", "succeeded"]);
    assert_eq!(attempts(&run, "raised"), [Value::Null, "more".into(), "alone".into(), "larger".into()]);
    let on = |number: usize| attempts(&run, "devices")[number][0].clone();
    assert_eq!(attempts(&run, "ran_out_of"), [on(0), on(1), on(2), Value::Null]);
    let mib = |mib: u64| Value::from(mib << 20);
    let reserved = attempts(&run, "gpu_memory_bytes");
    assert_eq!(reserved[..2], [mib(4_000), mib(6_000)]);
    let all = |at: usize| reserved[at].as_u64().unwrap_or_default() >> 20;
    assert!((15_000..16_384).contains(&all(2)) && all(3) > 39_000, "alone all but the headroom: {reserved:?}");
    for words in ["with 5.9 GiB of a GPU", "alone on a GPU", "alone on a larger GPU, of more than 15.2 GiB"] {
        assert!(said.contains(words), "{words} is missing in\n{said}");
        let shown = world.printed(&["show"])?;
        assert!(shown.contains(words), "{words} is missing in\n{shown}");
    }
    Ok(())
}

#[test]
fn running_out_of_memory_is_tried_again_no_oftener_than_asked() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 20000 0.1'\nbackoff = '100ms'\nretries = 5\noom_retries = 1\nresources = { gpu_memory = '4000MiB' }\n";
    let (code, _, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!(code, Some(1));
    assert_eq!(attempts(&run, "outcome"), ["out-of-memory", "out-of-memory"]);
    Ok(())
}

#[test]
fn a_neighbour_that_took_too_much_is_waited_for() -> Tested {
    // One takes more than it said, and the other finds too little; once that is seen, it waits for room.
    let pipeline = "[stage.train]\nrun = 'TRAIN 11000 1.2'\nbackoff = '100ms'\nmatrix = { seed = [1, 2] }\n\
                    resources = { cpus = 0, gpu_memory = '4000MiB' }\n";
    let (code, said, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    let tries =
        run["tasks"].as_array().into_iter().flatten().map(|task| task["attempts"].as_array().map_or(0, Vec::len));
    assert_eq!(tries.sum::<usize>(), 3, "{run:#}");
    Ok(())
}

#[test]
fn the_peak_of_an_attempt_is_what_its_processes_were_seen_to_hold() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 1.3'\nresources = { gpu_memory = '4000MiB' }\n";
    let (code, said, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "peak_gpu_memory_bytes"), [Value::from(3_000_u64 << 20)]);
    Ok(())
}

#[test]
fn where_no_larger_card_is_left_that_is_said() -> Tested {
    let pipeline =
        "[stage.train]\nrun = 'TRAIN 20000 0.1'\nbackoff = '100ms'\nresources = { gpu_memory = '4000MiB' }\n";
    let (code, said, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!(code, Some(1));
    assert_eq!(attempts(&run, "raised"), [Value::Null, "more".into(), "alone".into()]);
    assert!(said.contains("no GPU here is larger"), "{said}");
    Ok(())
}

#[test]
fn who_is_alone_on_a_card_may_take_all_of_it_whatever_is_printed_behind_the_message() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo $XLA_PYTHON_CLIENT_MEM_FRACTION >>said; [ $TRAINYARD_ATTEMPT = 3 ] && exit 0; \
                    echo CUDA out of memory; seq 9999; exit 1'\nbackoff = '100ms'\nmemory_limit = 'framework'\n\
                    resources = { gpu_memory = '4000MiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "raised"), [Value::Null, "more".into(), "alone".into()]);
    // 15,544 of 16,384 MiB: all but the headroom.
    assert_eq!(fs::read_to_string(world.path().join("said"))?, "0.212\n0.334\n0.948\n");
    Ok(())
}

#[test]
fn what_a_stranger_took_is_not_asked_for_besides() -> Tested {
    let pipeline = "[stage.train]\nrun = 'if [ $TRAINYARD_ATTEMPT -gt 1 ]; then TRAIN 8000 0.1; exit; fi; \
                    echo 4000 >$MOCK_NVML_STATE/held/$$-$CUDA_VISIBLE_DEVICES; touch begun; \
                    until test -e go; do sleep 0.05; done; echo CUDA out of memory; exit 1'\n\
                    backoff = '100ms'\nresources = { gpu_memory = '8000MiB' }\n";
    let world = World::new(cards(&[16_384, 16_384]), pipeline)?;
    let run = world.start()?;
    let card = card_of_first(&world)?;
    world.until(&["show", "--json"], |_| world.path().join("begun").exists())?;
    let _stranger = Stranger::on(&world, card, 10_000)?;
    fs::write(world.path().join("go"), "")?;
    let ended = run.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    let shown = world.shown()?;
    let first = attempts(&shown, "outcome")[0].clone();
    // Where the stranger was seen before the end, that is said at once.
    let (raised, words) = if first == "displaced" {
        (Value::Null, "others took memory that was promised")
    } else {
        ("again".into(), "with as much: others hold what it lacked")
    };
    assert_eq!(attempts(&shown, "raised"), [Value::Null, raised], "{said}");
    assert!(said.contains(words), "{said}");
    assert_eq!(attempts(&shown, "gpu_memory_bytes"), [Value::from(8_000_u64 << 20), Value::from(8_000_u64 << 20)]);
    assert_ne!(attempts(&shown, "devices")[0], attempts(&shown, "devices")[1]);
    Ok(())
}

#[test]
fn a_whole_card_beside_a_stranger_is_left_for_one_without() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 12000 0.1'\nbackoff = '100ms'\n\
                    resources = { gpus = 1, gpu_memory = '6GiB' }\n";
    let world = World::new(cards(&[24_576, 24_576]), pipeline)?;
    let _stranger = Stranger::on(&world, 0, 14_000)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let devices = attempts(&run, "devices");
    let on = |attempt: &Value, name: &str| attempt[0].as_str().is_some_and(|id| id.ends_with(name));
    assert!(devices.last().is_some_and(|last| on(last, "gpu1")), "{devices:?}");
    assert!(devices.len() == 1 || attempts(&run, "raised")[1] == "more", "{run:#}");
    Ok(())
}

#[test]
fn alone_on_a_card_is_beside_no_stranger() -> Tested {
    for (sizes, mib, needs) in [(&[24_576, 24_576][..], 12_000, 15_000), (&[16_384, 40_960, 40_960], 14_000, 30_000)] {
        let pipeline = format!(
            "[stage.train]\nrun = 'TRAIN {needs} 0.1'\nbackoff = '100ms'\nresources = {{ gpu_memory = '6GiB' }}\n"
        );
        let world = World::new(cards(sizes), &pipeline)?;
        let crowded = sizes.len() - 2;
        let _stranger = Stranger::on(&world, crowded, mib)?;
        let (code, said, run) = world.run()?;
        assert_eq!(code, Some(0), "{said}");
        let last = attempts(&run, "devices").pop().unwrap_or_default();
        let free = format!("gpu{}", crowded + 1);
        assert!(last[0].as_str().is_some_and(|id| id.ends_with(&free)), "{run:#}");
    }
    Ok(())
}

/// Runs a stage that has one of two cards to itself, lets `come` put something beside it there, and then lets it run out
/// of memory; returns the run, in which it has succeeded elsewhere.
fn out_of_memory_beside<T>(
    come: impl FnOnce(&World, usize) -> Result<T, Box<dyn Error>>,
) -> Result<Value, Box<dyn Error>> {
    let pipeline = "[stage.train]\nrun = \"[ $TRAINYARD_ATTEMPT = 2 ] && exit 0; echo 1000 >$MOCK_NVML_STATE/held/$$-0; \
        touch begun; until test -e go; do sleep 0.05; done; echo CUDA out of memory; exit 1\"\n\
        backoff = '100ms'\nresources = { gpus = 1 }\n";
    let world = World::new(cards(&[24_576, 24_576]), pipeline)?;
    let run = world.start()?;
    let card = card_of_first(&world)?;
    while !world.path().join("begun").exists() {
        world.printed(&["runs"])?;
    }
    let _it = come(&world, card)?;
    world.until_seen("used", card, 11_000)?;
    fs::write(world.path().join("go"), "")?;
    let said = String::from_utf8_lossy(&run.wait_with_output()?.stderr).into_owned();
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["out-of-memory", "succeeded"], "{said}");
    let devices = attempts(&shown, "devices");
    assert_ne!(devices[0], devices[1]);
    Ok(shown)
}

#[test]
fn who_should_be_alone_and_was_not_when_it_ran_out_is_tried_again_elsewhere() -> Tested {
    let shown = out_of_memory_beside(|world, card| Stranger::on(world, card, 10_000))?;
    assert_eq!(attempts(&shown, "raised"), [Value::Null, "alone".into()]);
    Ok(())
}

#[test]
fn what_nobody_is_seen_to_hold_was_in_the_way_of_who_should_be_alone() -> Tested {
    // As where another container's processes are not listed.
    out_of_memory_beside(|world, card| Ok(world.scene.change(|machine| machine.cards[card].nobodys_mib = 10_000)?))?;
    Ok(())
}

/// It takes more than it has reserved, nearly all of the card, and fails as soon as it may. What it holds is a file that
/// counts while its process lives.
const FILLS_THE_CARD: &str = "[stage.train]\nrun = \"[ $TRAINYARD_ATTEMPT = 2 ] && exit 0; \
    echo 16200 >$MOCK_NVML_STATE/held/$$-0; until test -e seen; do sleep 0.05; done; echo SAYS; exit 1\"\n\
    backoff = '100ms'\nresources = { gpu_memory = '9000MiB' }\n";

#[test]
fn who_fills_a_card_and_fails_without_a_word_ran_out_of_its_memory() -> Tested {
    for (says, outcomes) in
        [("nothing", &["out-of-memory", "succeeded"][..]), ("Traceback '(most recent call last):'", &["exited:1"])]
    {
        let world = World::new(cards(&[16_384]), &FILLS_THE_CARD.replace("SAYS", says))?;
        let run = world.start()?;
        let shown = world.until(&["show", "--json"], |run| run["tasks"][0]["state"] == "running")?;
        let folder = world.path().join(".trainyard/runs").join(shown["run"].as_str().ok_or("a run has an id")?);
        world.until_file(&folder.join("memory.json"), |held| {
            let ours = held["ours"][0]["value"].as_array().and_then(|values| values.last()?.as_f64());
            ours.is_some_and(|bytes| bytes > 15e9)
        })?;
        fs::write(world.path().join("seen"), "")?;
        let said = String::from_utf8_lossy(&run.wait_with_output()?.stderr).into_owned();
        assert_eq!(attempts(&world.shown()?, "outcome"), outcomes, "{said}");
        let words = "it did not say why it failed; ";
        assert_eq!(said.contains(words), says == "nothing", "{said}");
        let log = fs::read_to_string(folder.join("trainyard.log")).unwrap_or_default();
        assert_eq!(log.contains(words), says == "nothing", "{log}");
    }
    Ok(())
}

#[test]
fn a_task_without_a_card_does_not_run_out_of_the_memory_of_one() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo CUDA out of memory; exit 1'\n";
    let (code, said, run) = World::new(cards(&[16_384]), pipeline)?.run()?;
    assert_eq!((code, attempts(&run, "outcome")), (Some(1), vec!["exited:1".into()]), "{said}");
    Ok(())
}

#[test]
fn a_card_that_is_too_small_for_one_of_a_stage_is_tried_by_no_other() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 10000 0.1'\nmatrix = { i = [1, 2, 3, 4] }\noom_retries = 1\n\
                    backoff = '100ms'\nresources = { cpus = 0, gpu_memory = 'auto' }\n";
    let world = World::new(cards(&[8_192, 40_960]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let tasks = run["tasks"].as_array().into_iter().flatten();
    let tried: usize = tasks.filter_map(|task| Some(task["attempts"].as_array()?.len())).sum();
    assert!(tried <= 5, "one has found out: {said}");
    Ok(())
}

#[test]
fn who_needs_a_larger_card_that_is_set_aside_waits_for_it() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 20000 0.1'\nbackoff = '100ms'\nresources = { gpus = 1 }\n";
    // NVML's numbers for prohibited and default.
    let close = |world: &World, mode: u32| world.scene.change(|machine| machine.cards[1].compute_mode = Some(mode));
    let drain = |world: &World, how: &str| world.command(&["devices", how, "gpu1"]).map(drop);
    for (is_drained, words) in [(true, "gpu1 is drained by hand, until"), (false, "gpu1 is closed to programs")] {
        let world = World::new(cards(&[16_384, 40_960]), pipeline)?;
        if is_drained {
            drain(&world, "--drain")?
        } else {
            close(&world, 2)?
        }
        let run = world.start()?;
        let why = world.until_printed(&["explain", "train"], |why| why.contains(words))?;
        assert!(why.contains("needs 1 whole GPU of more than 15.2 GiB"), "{why}");
        if is_drained {
            drain(&world, "--undrain")?
        } else {
            close(&world, 0)?
        }
        let ended = run.wait_with_output()?;
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(attempts(&world.shown()?, "raised"), [Value::Null, "larger".into()]);
    }
    Ok(())
}

#[test]
fn who_prefers_a_card_and_finds_the_largest_too_small_takes_the_cpu() -> Tested {
    let pipeline = "[stage.train]\nrun = 'if [ -n \"$CUDA_VISIBLE_DEVICES\" ]; then TRAIN 20000 0.1; fi'\n\
                    backoff = '100ms'\nresources = { gpus = 'prefer' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "raised"), [Value::Null, "on-cpu".into()], "{said}");
    assert_eq!(attempts(&run, "devices")[1], serde_json::json!([]));
    assert!(said.contains("/gpu0 (all of it reserved); again in "), "{said}");
    assert!(said.contains("out of memory on") && said.contains(", on the CPU\n"), "{said}");
    // As often as `oom_retries` says.
    world.write(&pipeline.replace("backoff", "oom_retries = 0\nbackoff"))?;
    assert_eq!(world.run()?.0, Some(1));
    Ok(())
}

#[test]
fn who_prefers_a_card_takes_the_cpu_once_the_largest_of_two_sizes_was_too_small() -> Tested {
    let pipeline = "[stage.train]\nrun = 'if [ -n \"$CUDA_VISIBLE_DEVICES\" ]; then TRAIN 60000 0.1; fi'\n\
                    backoff = '100ms'\nresources = { gpus = 'prefer', gpu_memory = '4GiB' }\n";
    let world = World::new(cards(&[16_384, 40_960]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let raised = attempts(&run, "raised");
    // As often as it is helped by default, and then not by a GPU.
    assert_eq!((raised.len(), raised.last()), (5, Some(&"on-cpu".into())), "{said}");
    Ok(())
}
