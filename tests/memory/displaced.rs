//! Tasks whose device cannot keep what was promised: others take it, the card fails, somebody drains it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use mock_nvml::{Card, Slice};
use serde_json::Value;

use crate::world::{Stranger, Tested, World, attempts, card_of_first, cards};

/// The first attempt never takes its memory; the next one does and ends.
const SLOW_TO_START: &str = "[stage.train]\nrun = 'if [ $TRAINYARD_ATTEMPT = 1 ]; then exec sleep 600; fi; TRAIN 8000 0.1'\n\
                             backoff = '100ms'\nresources = { gpu_memory = '8000MiB' }\n";

/// Waits for the end of a run; returns whether it succeeded, and what it said.
fn end_of(run: Child) -> Result<(bool, String), Box<dyn std::error::Error>> {
    let output = run.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn devices(run: &Value) -> Vec<Value> {
    attempts(run, "devices").iter().map(|devices| devices[0].clone()).collect()
}

#[test]
fn a_stranger_that_comes_before_the_memory_is_taken_moves_the_task() -> Tested {
    for resources in ["gpu_memory = '8000MiB'", "gpus = 1", "gpu_memory = 'auto'"] {
        let pipeline = SLOW_TO_START.replace("gpu_memory = '8000MiB'", resources);
        let world = World::new(cards(&[16_384, 16_384]), &pipeline)?;
        let run = world.start()?;
        let _stranger = Stranger::on(&world, card_of_first(&world)?, 10_000)?;
        let ended = end_of(run)?;
        assert!(ended.0, "{resources}: {}", ended.1);
        let shown = world.shown()?;
        assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"], "{resources}");
        assert_ne!(devices(&shown)[0], devices(&shown)[1]);
        assert!(ended.1.contains("others took memory that was promised on"), "{}", ended.1);
    }
    Ok(())
}

#[test]
fn who_holds_memory_of_a_card_that_it_was_not_given_is_named() -> Tested {
    let pipeline = "[stage.stray]\nrun = 'echo 10000 >$MOCK_NVML_STATE/held/$$-$((1 - CUDA_VISIBLE_DEVICES)); \
                    until test -e go; do sleep 0.05; done'\nresources = { cpus = 0, gpu_memory = '12000MiB' }\n\
                    [stage.gate]\nrun = 'until test -e seen; do sleep 0.05; done'\nresources = { cpus = 0 }\n\
                    [stage.late]\nrun = 'true'\nafter = ['gate']\nresources = { cpus = 0, gpu_memory = '12000MiB' }\n";
    let world = World::new(cards(&[16_384, 16_384]), pipeline)?;
    let mut run = world.start()?;
    let mut said = BufReader::new(run.stderr.take().ok_or("piped")?).lines();
    let warned = said.by_ref().map_while(Result::ok).find(|line| line.contains("which it was not given"));
    assert!(warned.is_some_and(|line| line.contains("`stray` holds 9.8 GiB of ")));
    std::fs::write(world.path().join("seen"), "")?;
    world
        .until_printed(&["explain", "late"], |said| said.contains("stray, which runs elsewhere, holds 9.8 GiB of "))?;
    std::fs::write(world.path().join("go"), "")?;
    assert_eq!(said.map_while(Result::ok).filter(|line| line.contains("not given")).count(), 0, "it is said once");
    assert!(run.wait()?.success());
    Ok(())
}

#[test]
fn a_small_stranger_that_comes_first_to_a_card_that_lets_in_one_process_moves_the_task() -> Tested {
    let mut two = cards(&[16_384, 16_384]);
    // NVML's number for exclusive-process.
    two.iter_mut().for_each(|card| card.compute_mode = Some(3));
    let world = World::new(two, SLOW_TO_START)?;
    let run = world.start()?;
    let _stranger = Stranger::on(&world, card_of_first(&world)?, 300)?;
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"]);
    assert_ne!(devices(&shown)[0], devices(&shown)[1]);
    assert!(ended.1.contains(", which lets in one process at a time"), "{}", ended.1);
    Ok(())
}

#[test]
fn of_two_runs_that_come_to_a_card_for_one_process_at_once_one_waits_for_the_other() -> Tested {
    // Neither takes its memory before both are there.
    let pipeline = "[stage.train]\nrun = 'touch here-$TRAINYARD_RUN; until [ $(ls | grep -c here-) = 2 ]; do sleep 0.05; \
        done; TRAIN 9000 0.1'\nbackoff = '100ms'\nresources = { gpu_memory = '10GiB' }\n";
    let mut one = cards(&[24_576]);
    one[0].compute_mode = Some(3);
    let world = World::new(one, pipeline)?;
    let states = ["one", "other"];
    let start = |state: &str| {
        let mut run = world.prepare(&["run", "p.toml", "--state", state]);
        // They do not know of each other, as those of two users.
        run.env("TRAINYARD_BOX", world.path().join(format!("{state}.box")));
        run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    let runs = [start(states[0])?, start(states[1])?];
    for run in runs {
        let ended = end_of(run)?;
        assert!(ended.0, "{}", ended.1);
    }
    let outcomes = |state: &str| -> Result<Vec<Value>, Box<dyn std::error::Error>> {
        let shown = world.command(&["show", "--json", "--state", state])?;
        Ok(attempts(&serde_json::from_slice(&shown.stdout)?, "outcome"))
    };
    let mut outcomes = [outcomes(states[0])?, outcomes(states[1])?];
    outcomes.sort_by_key(Vec::len);
    assert_eq!(outcomes, [vec!["succeeded"], vec!["displaced", "succeeded"]]);
    Ok(())
}

#[test]
fn what_a_task_starts_with_another_environment_is_no_stranger() -> Tested {
    let train =
        "env -i PATH=$PATH MOCK_NVML_STATE=$MOCK_NVML_STATE CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES TRAIN 13000 600";
    for how in [format!("{train}; true"), format!("exec {train}"), format!("{train} & cat wait")] {
        let world = World::new(
            cards(&[24_576]),
            &format!("[stage.train]\nrun = '{how}'\nresources = {{ gpu_memory = '14000MiB' }}\n"),
        )?;
        assert!(Command::new("mkfifo").arg(world.path().join("wait")).status()?.success());
        let run = world.start()?;
        card_of_first(&world)?;
        world.until_seen("ours", 0, 13_000)?;
        assert!(world.command(&["cancel"])?.status.success());
        end_of(run)?;
        assert_eq!(attempts(&world.shown()?, "outcome"), ["interrupted"], "{how}");
    }
    Ok(())
}

#[test]
fn who_has_had_its_memory_and_gone_on_without_stays() -> Tested {
    let pipeline = "[stage.train]\nrun = \"echo 8000 >$MOCK_NVML_STATE/held/$$-0; until test -e trained; do sleep 0.05; done; \
        rm $MOCK_NVML_STATE/held/$$-0; until test -e go; do sleep 0.05; done\"\nresources = { gpu_memory = '9000MiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let run = world.start()?;
    card_of_first(&world)?;
    world.until_seen("ours", 0, 8_000)?;
    std::fs::write(world.path().join("trained"), "")?;
    world.until_seen("used", 0, 0)?;
    // A shortage has to be there in two readings.
    for mib in [10_000, 11_000, 12_000] {
        let _stranger = Stranger::on(&world, 0, mib)?;
        world.until_seen("used", 0, mib)?;
    }
    std::fs::write(world.path().join("go"), "")?;
    assert!(end_of(run)?.0);
    assert_eq!(attempts(&world.shown()?, "outcome"), ["succeeded"]);
    Ok(())
}

#[test]
fn a_task_of_ours_that_takes_what_others_were_promised_is_named() -> Tested {
    let hog = "[stage.hog]\nrun = 'TRAIN 14000 600'\nresources = { cpus = 0, gpu_memory = '2000MiB' }\n";
    let slow = SLOW_TO_START.replace("{ gpu", "{ cpus = 0, gpu");
    let world = World::new(cards(&[16_384]), &format!("{slow}{hog}"))?;
    let run = world.start()?;
    world
        .until(&["show", "--json"], |run| attempts(run, "outcome").first().is_some_and(|first| first == "displaced"))?;
    assert!(world.command(&["cancel"])?.status.success());
    let (_, said) = end_of(run)?;
    assert!(said.contains("`hog` holds more than is reserved for it and took memory that was promised on"), "{said}");
    Ok(())
}

#[test]
fn what_runs_on_a_card_that_fails_is_tried_again_elsewhere() -> Tested {
    let world = World::new(cards(&[16_384, 16_384]), SLOW_TO_START)?;
    let run = world.start()?;
    let card = card_of_first(&world)?;
    // An error of a program says nothing about the card, however often; falling off the bus does.
    world.scene.change(|machine| machine.cards[card].xids.extend([[31; 40].as_slice(), &[79]].concat()))?;
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    assert_eq!(ended.1.matches("the driver reports an error on").count(), 1, "{}", ended.1);
    assert!(ended.1.contains(" 40 times: "), "{}", ended.1);
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"]);
    assert_ne!(devices(&shown)[0], devices(&shown)[1]);
    assert!(ended.1.contains("in quarantine: Xid 79, it has fallen off the bus"), "{}", ended.1);

    // Every later run keeps off it, until somebody takes it back.
    let words = world.printed(&["devices"])?;
    assert!(words.contains("in quarantine: Xid 79"), "{words}");
    let name = format!("gpu{card}");
    assert!(world.command(&["devices", "--undrain", &name])?.status.success());
    assert!(!world.printed(&["devices"])?.contains("quarantine"));
    Ok(())
}

#[test]
fn a_card_that_is_lost_is_left() -> Tested {
    let world = World::new(cards(&[16_384, 16_384]), SLOW_TO_START)?;
    let run = world.start()?;
    let card = card_of_first(&world)?;
    world.scene.change(|machine| {
        machine.cards[card].fails.insert("*".to_owned(), 15);
    })?;
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    assert_eq!(attempts(&world.shown()?, "outcome"), ["displaced", "succeeded"]);
    Ok(())
}

#[test]
fn a_card_that_was_lost_is_not_used_again_until_somebody_takes_it_back() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo [$CUDA_VISIBLE_DEVICES]; until test -e go; do sleep 0.05; done'\n\
                    backoff = '100ms'\nresources = { gpu_memory = '8000MiB' }\n";
    let world = World::new(cards(&[16_384, 16_384]), pipeline)?;
    let run = world.start()?;
    let card = card_of_first(&world)?;
    world.scene.change(|machine| {
        machine.cards[card].fails.insert("*".to_owned(), 15);
    })?;
    let moved = |run: &Value| attempts(run, "outcome").len() == 2 && run["tasks"][0]["state"] == "running";
    world.until(&["show", "--json"], moved)?;
    // The lost one has no index for CUDA, so that the other may have another one there.
    let told = world.until_printed(&["logs", "train"], |log| log.contains("GPU-0000000"))?;
    assert!(told.contains(&format!("[GPU-0000000{}-", 1 - card)), "{told}");

    // It answers again, and is not trusted.
    world.scene.change(|machine| machine.cards[card].fails.clear())?;
    let said = String::from_utf8_lossy(&world.command(&["plan", "p.toml"])?.stderr).into_owned();
    assert!(said.contains(&format!("gpu{card} is not used: it is in quarantine: it was lost (")), "{said}");
    std::fs::write(world.path().join("go"), "")?;
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    assert!(world.printed(&["devices"])?.contains("in quarantine: it was lost ("));
    let name = format!("gpu{card}");
    assert!(world.command(&["devices", "--undrain", &name])?.status.success());
    assert!(!world.printed(&["devices"])?.contains("quarantine"));
    Ok(())
}

#[test]
fn a_run_that_waits_for_a_card_in_quarantine_goes_on_once_it_is_taken_back() -> Tested {
    let world = World::new(cards(&[16_384]), SLOW_TO_START)?;
    let run = world.start()?;
    card_of_first(&world)?;
    let lose = |code: Option<u32>| {
        world
            .scene
            .change(|machine| machine.cards[0].fails = code.map(|code| ("*".to_owned(), code)).into_iter().collect())
    };
    lose(Some(15))?;
    world.until(&["show", "--json"], |run| attempts(run, "outcome").first().is_some_and(|how| how == "displaced"))?;
    lose(None)?;
    let words = "gpu0 is in quarantine: it was lost (it fell off the bus or cannot be reached), until `trainyard";
    world.until_printed(&["explain", "train"], |why| why.contains(words))?;
    assert!(world.command(&["devices", "--undrain", "gpu0"])?.status.success());
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    assert_eq!(attempts(&world.shown()?, "outcome"), ["displaced", "succeeded"]);
    Ok(())
}

#[test]
fn what_a_drained_card_could_hold_is_refused_with_its_name() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nresources = { gpu_memory = '20GiB' }\n";
    let world = World::new(cards(&[16_384, 24_576]), pipeline)?;
    let unnamed = world.command(&["devices", "--drain", ""])?;
    assert_eq!(unnamed.status.code(), Some(2), "an unset variable of a shell names no card");
    let devices: Value = serde_json::from_str(&world.printed(&["devices", "--json"])?)?;
    let long = format!("{}/gpu1", devices["host"]["name"].as_str().ok_or("a host has a name")?);
    assert!(world.printed(&["devices", "--drain", &long])?.starts_with("gpu1 is drained"));
    let refused = |gpus: &str| -> Result<String, Box<dyn std::error::Error>> {
        world.write(&pipeline.replace("gpu_memory = '20GiB'", gpus))?;
        let refused = world.command(&["plan", "p.toml"])?;
        assert_eq!(refused.status.code(), Some(4));
        let said = String::from_utf8(refused.stderr)?.replace('│', " ");
        Ok(said.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let remedy = "gpu1 is set aside: `trainyard devices --undrain gpu1` takes it back";
    for gpus in ["gpu_memory = '20GiB'", "gpus = 2"] {
        let said = refused(gpus)?;
        assert!(said.contains(remedy), "{said}");
    }
    let said = refused("gpu_memory = '30GiB'")?;
    assert!(!said.contains("--undrain gpu1` takes it back; ") && !said.contains("larger device; "), "{said}");
    assert!(world.printed(&["devices", "--undrain", &long])?.starts_with("gpu1 is used again"));
    Ok(())
}

#[test]
fn a_drained_card_is_given_nothing_new() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 0.1'\nmatrix = { seed = [1, 2, 3] }\n\
                    resources = { cpus = 0, gpu_memory = '6000MiB' }\n";
    let world = World::new(cards(&[16_384, 16_384]), pipeline)?;
    assert!(world.command(&["devices", "--drain", "gpu0"])?.status.success());
    assert!(world.printed(&["devices"])?.contains("drained by hand"));
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("gpu0 is not used: it is drained by hand"), "{said}");
    let tasks = run["tasks"].as_array().into_iter().flatten();
    assert!(
        tasks
            .map(|task| &task["attempts"][0]["devices"][0])
            .all(|id| id.as_str().is_some_and(|id| id.ends_with("gpu1")))
    );
    let unknown = world.command(&["devices", "--drain", "gpu7"])?;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(world.command(&["devices", "--drain", "gpu1"])?.status.success());
    let refused = world.command(&["plan", "p.toml"])?;
    let said = String::from_utf8(refused.stderr)?.replace('│', " ");
    // Wherever its lines are broken.
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("it asks for a GPU, and none may be used: gpu0, gpu1 set aside"), "{said}");
    assert!(said.contains("`trainyard devices --undrain gpu0` takes it back"), "{said}");
    Ok(())
}

#[test]
fn a_card_with_slices_is_set_aside_as_a_whole_or_slice_by_slice() -> Tested {
    let slice =
        |n: u32| Slice { name: "MIG 3g.40gb".into(), uuid: format!("MIG-{n}"), mib: 20_000, ..Slice::default() };
    let card = Card { slices: vec![slice(0), slice(1)], ..Card::default() };
    let world = World::new(vec![card, Card::default()], "[stage.a]\nrun = 'true'\n")?;
    let card = "GPU-00000000-0000-4000-8000-000000000000";
    for whole in ["gpu0", card, &card[..12]] {
        assert!(world.printed(&["devices", "--drain", whole])?.starts_with("gpu0 is drained"), "{whole}");
        let back = world.printed(&["devices", "--undrain", "gpu0.0"])?;
        assert_eq!(back, "gpu0.0 is used again, and with it gpu0.1: all of its card was set aside\n");
    }
    let devices: Value = serde_json::from_str(&world.printed(&["devices", "--json"])?)?;
    let one = format!("{}/gpu0.1", devices["host"]["name"].as_str().unwrap_or_default());
    assert!(world.printed(&["devices", "--drain", &one])?.starts_with("gpu0.1 is drained"), "{devices:#}");
    world.printed(&["devices", "--drain", "gpu0"])?;
    let back = world.printed(&["devices", "--undrain", "gpu0.0"])?;
    assert_eq!(back, "gpu0.0 is used again: all of its card was set aside\n", "the other one is drained by itself");
    // A mask says what programs see, and not what there is.
    for command in ["--drain", "--undrain"] {
        let done = world.command_under(&[("CUDA_VISIBLE_DEVICES", "1")], &["devices", command, "gpu0"])?;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(!world.command(&["devices", "--undrain", "gpu0"])?.status.success());
    assert_eq!(world.printed(&["devices", "--undrain", "MIG-1"])?, "gpu0.1 is used again\n");
    assert_eq!(world.command(&["devices", "--drain", "GPU-0"])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn a_card_that_was_drained_before_the_run_is_used_by_it_once_it_is_taken_back() -> Tested {
    let pipeline = "[stage.train]\nrun = 'TRAIN 3000 0; until test -e go; do sleep 0.05; done'\nmatrix = { seed = [1, 2] }\n\
                    resources = { cpus = 0, gpus = 1 }\n";
    let world = World::new(cards(&[16_384, 16_384]), pipeline)?;
    assert!(world.command(&["devices", "--drain", "gpu0"])?.status.success());
    let run = world.start()?;
    let words = "gpu0 is drained by hand, until `trainyard devices --undrain` takes it back";
    let why = world.until_printed(&["explain", "train[seed=2]"], |why| why.contains(words))?;
    assert!(why.contains("gpu1 is taken whole"), "{why}");
    assert!(world.command(&["devices", "--undrain", "gpu0"])?.status.success());
    let shown = world.until(&["show", "--json"], |run| run["tasks"][1]["state"] == "running")?;
    let on = |task: usize| shown["tasks"][task]["attempts"][0]["devices"][0].as_str().map(str::to_owned);
    assert!(on(0).is_some_and(|id| id.ends_with("gpu1")) && on(1).is_some_and(|id| id.ends_with("gpu0")), "{shown:#}");
    std::fs::write(world.path().join("go"), "")?;
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    assert!(!ended.1.contains("has fallen out"), "it was so from the beginning: {}", ended.1);
    Ok(())
}

#[test]
fn who_prefers_a_card_goes_on_without_one_where_the_only_one_is_lost() -> Tested {
    let pipeline = "[stage.train]\nrun = 'if [ $TRAINYARD_ATTEMPT = 1 ]; then exec sleep 600; fi; echo [$CUDA_VISIBLE_DEVICES]'\n\
                    backoff = '100ms'\nresources = { gpus = 'prefer' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let run = world.start()?;
    card_of_first(&world)?;
    world.scene.change(|machine| {
        machine.cards[0].fails.insert("*".to_owned(), 15);
    })?;
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    assert_eq!(attempts(&world.shown()?, "outcome"), ["displaced", "succeeded"]);
    assert_eq!(world.printed(&["logs", "train"])?, "[]\n");
    Ok(())
}

#[test]
fn a_card_that_is_turned_to_mig_mode_is_left_and_gets_nothing_more() -> Tested {
    for slices in [vec![], vec![Slice { uuid: "MIG-1".into(), mib: 8_000, ..Slice::default() }]] {
        let world = World::new(cards(&[16_384, 16_384]), SLOW_TO_START)?;
        let run = world.start()?;
        let card = card_of_first(&world)?;
        world.scene.change(|machine| {
            (machine.cards[card].is_sliced, machine.cards[card].slices) = (true, slices);
        })?;
        let ended = end_of(run)?;
        assert!(ended.0, "{}", ended.1);
        let shown = world.shown()?;
        assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"]);
        assert_ne!(devices(&shown)[0], devices(&shown)[1]);
        let words = format!("gpu{card} fell out: it is in MIG mode now, no device of its own");
        assert!(ended.1.contains(&words), "{}", ended.1);
        assert!(!world.printed(&["devices"])?.contains("quarantine"));
    }
    Ok(())
}

#[test]
fn what_ran_on_a_slice_that_is_destroyed_is_tried_again_on_one_that_is_there() -> Tested {
    let slice = |n: u32| Slice { uuid: format!("MIG-{n}"), mib: 20_000, compute_slices: 3, ..Slice::default() };
    let card = Card { slices: vec![slice(1), slice(2)], ..Card::default() };
    let world = World::new(vec![card], &SLOW_TO_START.replace("TRAIN 8000 0.1", "true"))?;
    let run = world.start()?;
    let shown = world.until(&["show", "--json"], |run| run["tasks"][0]["state"] == "running")?;
    let at = usize::from(devices(&shown)[0].as_str().is_some_and(|id| id.ends_with("gpu0.1")));
    world.scene.change(|machine| drop(machine.cards[0].slices.remove(at)))?;
    let ended = end_of(run)?;
    assert!(ended.0, "{}", ended.1);
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"]);
    assert_ne!(devices(&shown)[0], devices(&shown)[1]);
    let words = format!("gpu0.{at} fell out: it is gone: its card has no such MIG slice any more");
    assert!(ended.1.contains(&words), "{}", ended.1);
    assert!(!world.printed(&["devices"])?.contains("quarantine"));
    Ok(())
}

#[test]
fn who_waits_for_slices_that_are_destroyed_is_told_so() -> Tested {
    let slice = Slice { uuid: "MIG-1".into(), mib: 20_000, ..Slice::default() };
    let pipeline = "[stage.train]\nrun = 'until test -e go; do sleep 0.05; done'\nmatrix = { i = [1, 2] }\n\
                    resources = { cpus = 0, gpus = 1 }\n";
    let world = World::new(vec![Card { slices: vec![slice], ..Card::default() }], pipeline)?;
    let run = world.start()?;
    world.until_printed(&["explain", "train[i=2]"], |why| why.contains("gpu0.0 is taken whole"))?;
    world.scene.change(|machine| machine.cards[0].slices.clear())?;
    let words = "gpu0.0 is gone: its card has no such MIG slice any more, `trainyard resume` and new runs use those that it has by then";
    world.until_printed(&["explain", "train[i=2]"], |why| why.contains(words))?;
    assert!(world.command(&["cancel"])?.status.success());
    end_of(run)?;
    Ok(())
}
