//! Tasks that are kept to the memory that is reserved for them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::world::{Tested, World, attempts, cards};

#[test]
fn a_watched_task_that_takes_more_is_ended_and_gets_more() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 6000 $((TRAINYARD_ATTEMPT == 1 ? 600 : 0))'\nbackoff = '100ms'\n\
                    memory_limit = 'watch'\nresources = { gpu_memory = '4000MiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    assert!(world.printed(&["plan", "p.toml"])?.contains("limit watch"));
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "outcome"), ["out-of-memory", "succeeded"]);
    assert_eq!(attempts(&run, "memory_limit"), ["watch", "watch"]);
    assert_eq!(attempts(&run, "gpu_memory_bytes")[1], 9_000_u64 << 20);
    let words = "it took more than its limit and was ended (3.9 GiB reserved, 5.9 GiB seen)";
    assert!(said.contains(words), "{said}");
    Ok(())
}

#[test]
fn who_takes_more_than_it_was_told_to_is_named_once_for_its_stage() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 6000 600 & until test -e go; do sleep 0.05; done; kill $!; wait'\n\
                    memory_limit = 'framework'\nmatrix = { n = [1, 2] }\nresources = { cpus = 0, gpu_memory = '4GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let mut run = world.start()?;
    let mut said = BufReader::new(run.stderr.take().ok_or("piped")?).lines();
    let words = "` holds 5.9 GiB of ";
    let warned = said.by_ref().map_while(Result::ok).find(|line| line.contains(words));
    assert!(warned.is_some_and(|line| line.contains("where 4.0 GiB are reserved for it")));
    fs::write(world.path().join("go"), "")?;
    assert_eq!(said.map_while(Result::ok).filter(|line| line.contains(words)).count(), 0, "it is said once");
    assert!(run.wait()?.success());
    // All of a card that it has whole is its own, whatever its number says.
    let (code, said, _) = World::new(
        cards(&[16_384]),
        &pipeline.replace("cpus = 0", "cpus = 0, gpus = 1").replace("test -e go", "test -e /"),
    )?
    .run()?;
    assert_eq!((code, said.contains("are reserved for it")), (Some(0), false), "{said}");
    Ok(())
}

#[test]
fn frameworks_are_told_and_what_is_set_stays() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo $PYTORCH_CUDA_ALLOC_CONF $XLA_PYTHON_CLIENT_MEM_FRACTION >said'\n\
                    env = { PYTORCH_CUDA_ALLOC_CONF = 'expandable_segments:True' }\n\
                    memory_limit = 'framework'\nresources = { gpu_memory = '4GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let told = fs::read_to_string(world.path().join("said"))?;
    assert_eq!(told, "expandable_segments:True,per_process_memory_fraction:0.218 0.218\n");
    assert_eq!(attempts(&run, "memory_limit"), ["framework"]);
    Ok(())
}

#[test]
fn without_an_mps_server_the_task_is_watched_and_that_is_said() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 1000 0.1'\nmemory_limit = 'mps'\nresources = { gpu_memory = '4GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no MPS server runs here") && said.contains("watched instead: `train`"), "{said}");
    assert_eq!(attempts(&run, "memory_limit"), ["watch"]);
    Ok(())
}

#[test]
fn a_plan_says_how_parts_of_a_card_are_limited_and_nothing_of_what_is_not() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nmemory_limit = 'mps'\nresources = { gpus = 0.5 }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    assert!(world.printed(&["plan", "p.toml"])?.contains("limit watch"));
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    assert_eq!(plan["tasks"][0]["memory_limit"], "watch");
    assert_eq!(plan["tasks"][0]["gpu_memory_from"], "declared", "{plan:#}");
    assert_eq!(attempts(&world.run()?.2, "memory_limit"), ["watch"]);
    for all in ["gpus = 1", "gpu_memory = 'auto'"] {
        let world = World::new(cards(&[16_384]), &pipeline.replace("gpus = 0.5", all))?;
        let (code, said, run) = world.run()?;
        assert_eq!((code, attempts(&run, "memory_limit")), (Some(0), vec!["none".into()]), "{said}");
        assert!(!said.contains("watched instead"), "{said}");
    }
    Ok(())
}

#[test]
fn an_mps_server_that_ends_limits_nobody_who_starts_later() -> Tested {
    let pipeline = "[stage.train]\nrun = 'test -e go'\nretries = 1000\nbackoff = '50ms'\nmemory_limit = 'mps'\n\
                    resources = { cpus = 0, gpu_memory = '4GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let pipes = world.path().join("mps");
    fs::create_dir(&pipes)?;
    // What no daemon says about itself is believed.
    fs::write(pipes.join("control"), "")?;
    let mut run = world.prepare(&["run", "p.toml"]);
    let mut run = run.env("CUDA_MPS_PIPE_DIRECTORY", &pipes).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let limits = |shown: &Value, limit: &str| attempts(shown, "memory_limit").last().is_some_and(|last| last == limit);
    world.until(&["show", "--json"], |shown| limits(shown, "mps"))?;
    fs::remove_file(pipes.join("control"))?;
    world.until(&["show", "--json"], |shown| limits(shown, "watch"))?;
    fs::write(world.path().join("go"), "")?;
    assert!(run.wait()?.success());
    Ok(())
}

#[test]
fn who_computes_through_an_mps_server_is_seen_to_hold_what_it_holds() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 7000 1'\nmatrix = { i = [1, 2, 3] }\nmemory_limit = 'watch'\n\
                    resources = { cpus = 0, gpu_memory = '7000MiB' }\n";
    let mut card = cards(&[24_576]);
    card[0].through_mps = true;
    let world = World::new(card, pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    for task in run["tasks"].as_array().into_iter().flatten() {
        let attempts = task["attempts"].as_array().ok_or("attempts")?;
        assert_eq!(attempts.len(), 1, "{said}");
        assert_eq!(attempts[0]["peak_gpu_memory_bytes"], 7_000_u64 << 20, "{said}");
    }
    Ok(())
}

#[test]
fn where_processes_are_hidden_for_a_while_the_watch_goes_on() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo $$ >draft; mv draft pid; exec sleep 600'\nmemory_limit = 'watch'\noom_retries = 0\n\
                    resources = { gpu_memory = '6000MiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let mut run = world.start()?;
    let mut said = BufReader::new(run.stderr.take().ok_or("piped")?).lines();
    world.until(&["show", "--json"], |_| world.path().join("pid").exists())?;
    let pid = fs::read_to_string(world.path().join("pid"))?.trim().parse()?;
    world.scene.change(|machine| machine.cards[0].hides_processes = true)?;
    world.scene.hold(pid, "0", 4_000)?;
    assert!(said.by_ref().map_while(Result::ok).any(|line| line.contains("the driver hides who holds memory")));
    world.scene.change(|machine| machine.cards[0].hides_processes = false)?;
    world.scene.hold(pid, "0", 12_000)?;
    let ended = "it took more than its limit and was ended";
    assert!(said.by_ref().map_while(Result::ok).any(|line| line.contains(ended)));
    assert_eq!(run.wait()?.code(), Some(1));
    assert_eq!(attempts(&world.shown()?, "memory_limit"), ["watch"]);
    Ok(())
}

#[test]
fn where_processes_are_hidden_nobody_is_said_to_be_watched() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 600 & until test -e go; do sleep 0.05; done; kill $!; wait'\n\
                    memory_limit = 'watch'\nresources = { gpu_memory = '4000MiB' }\n\
                    [stage.more]\nrun = 'true'\nafter = ['train']\nmemory_limit = 'watch'\n\
                    resources = { gpu_memory = '1GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    world.scene.change(|machine| machine.cards[0].hides_processes = true)?;
    // Nobody holds any yet: that they are hidden turns out only now.
    let mut run = world.start()?;
    let mut said = BufReader::new(run.stderr.take().ok_or("piped")?).lines();
    let words = "the driver hides who holds memory";
    let warning = said.by_ref().map_while(Result::ok).find(|line| line.contains(words));
    assert!(warning.is_some_and(|line| line.contains("`train`")));
    fs::write(world.path().join("go"), "")?;
    assert_eq!(said.map_while(Result::ok).filter(|line| line.contains(words)).count(), 0, "it is said once");
    assert!(run.wait()?.success());
    assert!(world.printed(&["show"])?.contains("none (processes are hidden)"));
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "memory_limit"), ["none"]);
    assert_eq!(shown["tasks"][1]["attempts"][0]["memory_limit"], "none");

    // Where it is known before, it is said before.
    world.scene.change(|machine| machine.cards[0].nobodys_mib = 1_000)?;
    assert!(world.printed(&["plan", "p.toml"])?.contains("limit none (processes are hidden)"));
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("not watched there: `train`, `more`"), "{said}");
    assert_eq!(attempts(&run, "memory_limit"), ["none"]);
    Ok(())
}

#[test]
fn a_desktop_on_a_card_hides_nobody() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nmemory_limit = 'watch'\nresources = { gpu_memory = '1GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    world.scene.change(|machine| machine.cards[0].desktop_mib = 600)?;
    assert!(world.printed(&["plan", "p.toml"])?.contains("limit watch"));
    let (code, said, run) = world.run()?;
    assert_eq!((code, attempts(&run, "memory_limit")), (Some(0), vec!["watch".into()]), "{said}");
    assert!(!said.contains("hides"), "{said}");
    Ok(())
}

#[test]
fn an_unknown_limit_is_rejected_with_the_near_word() -> Tested {
    let world = World::new(cards(&[]), "[stage.train]\nrun = 'true'\nmemory_limit = 'wacth'\n")?;
    let checked = world.command(&["check", "p.toml"])?;
    assert_eq!(checked.status.code(), Some(3));
    let words = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(words.contains("did you mean `watch`?"), "{words}");
    Ok(())
}
