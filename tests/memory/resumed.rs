//! Runs that go on in another process after the machine has changed: cards that are lost, hidden or set aside by then.

use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

use serde_json::Value;

use crate::world::{Tested, World, attempts, card_of_first, cards};

/// It runs out on the smaller card. Its next attempt stands on the larger one until it may go on.
const TOO_LARGE: &str = "[stage.train]\nrun = 'if [ $TRAINYARD_ATTEMPT -gt 1 ]; then until test -e go; do sleep 0.05; done; fi; \
    TRAIN 20000 0.1'\nbackoff = '100ms'\nresources = { gpus = 1 }\n";

/// The index of the larger card.
const LARGER: usize = 1;

fn small_and_large(pipeline: &str) -> Result<World, Box<dyn std::error::Error>> {
    World::new(cards(&[16_384, 40_960]), pipeline)
}

/// Ends the orchestrator of a run where it stands.
fn kill(mut run: Child) -> Tested {
    run.kill()?;
    run.wait()?;
    Ok(())
}

/// Starts a run, and ends its orchestrator once its second attempt is on the larger card.
fn killed_on_the_larger(world: &World) -> Tested {
    let run = world.start()?;
    world.until(&["show", "--json"], |run| {
        let on = attempts(run, "devices").get(1).and_then(|devices| devices[0].as_str().map(str::to_owned));
        run["tasks"][0]["state"] == "running" && on.is_some_and(|id| id.ends_with("gpu1"))
    })?;
    kill(run)
}

fn lose(world: &World, card: usize) -> Tested {
    world.scene.change(|machine| {
        machine.cards[card].fails.insert("*".to_owned(), 15);
    })?;
    Ok(())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_kept_free_is_what_was_when_the_run_was_started() -> Tested {
    let pipeline = "[stage.train]\nrun = 'test -e go'\nretries = 0\nresources = { cpus = 0, gpu_memory = '15.5GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let run = world.command(&["run", "p.toml", "--headroom", "256MiB"])?;
    assert_eq!(run.status.code(), Some(1), "{}", said(&run));
    std::fs::write(world.path().join("go"), "")?;
    let resumed = world.command(&["resume", "--headroom", "1GiB"])?;
    assert_eq!(resumed.status.code(), Some(4), "{}", said(&resumed));
    let resumed = world.command(&["resume"])?;
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    Ok(())
}

#[test]
fn who_asks_for_a_larger_card_that_is_lost_by_then_fails_and_goes_on_once_it_is_back() -> Tested {
    let world = small_and_large(&TOO_LARGE.replace("100ms", "1h"))?;
    let run = world.start()?;
    world.until(&["explain", "train", "--json"], |said| said["why"] == "back-off")?;
    kill(run)?;
    lose(&world, LARGER)?;
    let resumed = world.command(&["resume"])?;
    let words = said(&resumed);
    assert_eq!(resumed.status.code(), Some(1), "{words}");
    assert!(words.contains("out of memory on") && words.contains("no GPU here is larger"), "{words}");

    world.scene.change(|machine| machine.cards[LARGER].fails.clear())?;
    std::fs::write(world.path().join("go"), "")?;
    let resumed = world.command(&["resume"])?;
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "raised"), [Value::Null, "larger".into()]);
    assert_eq!(attempts(&shown, "outcome"), ["out-of-memory", "succeeded"]);
    Ok(())
}

#[test]
fn who_was_on_a_larger_card_that_is_hidden_by_then_fails() -> Tested {
    let world = small_and_large(TOO_LARGE)?;
    killed_on_the_larger(&world)?;
    let resumed = world.command_under(&[("CUDA_VISIBLE_DEVICES", "0")], &["resume"])?;
    let words = said(&resumed);
    assert_eq!(resumed.status.code(), Some(1), "{words}");
    assert!(words.contains("interrupted; no GPU here is larger"), "{words}");
    assert_eq!(attempts(&world.shown()?, "outcome"), ["out-of-memory", "interrupted"]);
    Ok(())
}

#[test]
fn who_asks_for_a_larger_card_that_is_set_aside_by_then_waits_for_it() -> Tested {
    let world = small_and_large(TOO_LARGE)?;
    killed_on_the_larger(&world)?;
    assert!(world.command(&["devices", "--drain", "gpu1"])?.status.success());
    let mut resumed = world.prepare(&["resume"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let words = "gpu1 is drained by hand, until `trainyard devices --undrain` takes it back";
    let mut lines = BufReader::new(resumed.stderr.take().ok_or("a pipe")?).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains(words))), "the run says so");
    let why = world.printed(&["explain", "train"])?;
    let needs = "needs 1 whole GPU of more than 15.2 GiB, 1 CPU; gpu0 gives 15.2 GiB at most; ";
    assert!(why.contains(&format!("{needs}{words}")), "{why}");
    assert!(world.command(&["devices", "--undrain", "gpu1"])?.status.success());
    std::fs::write(world.path().join("go"), "")?;
    lines.for_each(drop);
    assert!(resumed.wait()?.success());
    assert_eq!(attempts(&world.shown()?, "outcome"), ["out-of-memory", "interrupted", "succeeded"]);
    Ok(())
}

/// Its first attempt holds memory until it may end; the next one holds some and ends.
const SURVIVES: &str = "[stage.train]\nrun = 'if [ $TRAINYARD_ATTEMPT = 1 ]; then touch begun; until test -e go; do \
    sleep 0.05; done; else TRAIN 3000 0; fi'\nbackoff = '100ms'\nresources = { gpu_memory = '8000MiB' }\n";

/// Starts a run whose tasks survive, and ends its orchestrator; returns the card that its task goes on with.
fn survives(world: &World) -> Result<usize, Box<dyn std::error::Error>> {
    let run = world.prepare(&["run", "p.toml", "--survive"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let card = card_of_first(world)?;
    while !world.path().join("begun").exists() {
        world.printed(&["runs"])?;
    }
    kill(run)?;
    Ok(card)
}

#[test]
fn who_goes_on_alone_on_a_card_that_is_lost_is_tried_again_elsewhere() -> Tested {
    let world = World::new(cards(&[16_384, 16_384]), SURVIVES)?;
    let card = survives(&world)?;
    lose(&world, card)?;
    let resumed = world.command(&["resume"])?;
    let words = said(&resumed);
    assert!(resumed.status.success(), "{words}");
    assert!(words.contains(&format!("gpu{card} fell out: it is lost: it does not answer")), "{words}");
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"]);
    assert!(attempts(&shown, "devices")[1][0].as_str().is_some_and(|id| id.ends_with(&format!("gpu{}", 1 - card))));
    Ok(())
}

#[test]
fn who_goes_on_alone_on_a_lost_card_and_prefers_one_is_tried_again_on_the_cpu() -> Tested {
    let pipeline = SURVIVES.replace("gpu_memory = '8000MiB'", "gpus = 'prefer'").replace("TRAIN 3000 0", "true");
    let world = World::new(cards(&[16_384]), &pipeline)?;
    let card = survives(&world)?;
    lose(&world, card)?;
    let resumed = world.command(&["resume"])?;
    assert!(resumed.status.success(), "{}", said(&resumed));
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"]);
    assert_eq!(attempts(&shown, "devices")[1], serde_json::json!([]));
    Ok(())
}

#[test]
fn who_has_ended_alone_needs_no_card_any_more() -> Tested {
    let world = World::new(cards(&[16_384]), SURVIVES)?;
    let card = survives(&world)?;
    std::fs::write(world.path().join("go"), "")?;
    let run = world.shown()?["run"].as_str().ok_or("a run has an id")?.to_owned();
    let record = world.path().join(".trainyard/runs").join(run).join("attempts/train.1.json");
    world.until_file(&record, |record| record["ended"].is_object())?;
    lose(&world, card)?;
    let resumed = world.command(&["resume"])?;
    assert!(resumed.status.success(), "{}", said(&resumed));
    assert_eq!(attempts(&world.shown()?, "outcome"), ["succeeded"]);
    Ok(())
}

#[test]
fn who_goes_on_alone_on_a_card_that_is_only_hidden_stays_there() -> Tested {
    let world = World::new(cards(&[16_384, 16_384]), SURVIVES)?;
    let card = survives(&world)?;
    let other = (1 - card).to_string();
    let mut resumed = world.prepare(&["resume"]);
    let resumed = resumed.env("CUDA_VISIBLE_DEVICES", other).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let shown = world.until(&["show", "--json"], |run| run["state"] == "running")?;
    assert_eq!(attempts(&shown, "outcome"), [Value::Null], "{shown:#}");
    std::fs::write(world.path().join("go"), "")?;
    let ended = resumed.wait_with_output()?;
    assert!(ended.status.success(), "{}", said(&ended));
    assert_eq!(attempts(&world.shown()?, "outcome"), ["succeeded"]);
    Ok(())
}

/// One that goes on alone with the only card, one that needs that card afterwards, and one that needs none.
fn on_the_only_card() -> String {
    SURVIVES.replace("backoff", "outputs = ['begun']\nbackoff")
        + "[stage.more]\nrun = 'true'\ninputs = ['begun']\nresources = { gpu_memory = '1000MiB' }\n\
           [stage.cpu]\nrun = 'touch cpu'\nafter = ['train']\n"
}

fn states(run: &Value) -> Vec<(String, String)> {
    let tasks = run["tasks"].as_array().into_iter().flatten();
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    tasks.map(|task| (text(&task["name"]), text(&task["state"]))).collect()
}

#[test]
fn who_goes_on_alone_on_the_only_card_fails_where_that_is_lost() -> Tested {
    let world = World::new(cards(&[16_384]), &on_the_only_card())?;
    let card = survives(&world)?;
    lose(&world, card)?;
    let resumed = world.command(&["resume", "--keep-going"])?;
    let words = said(&resumed);
    assert_eq!(resumed.status.code(), Some(1), "{words}");
    assert!(words.contains("gpu0 fell out: it is lost: it does not answer; nothing here could hold it"), "{words}");
    assert_eq!(attempts(&world.shown()?, "outcome"), ["displaced"], "{words}");
    Ok(())
}

#[test]
fn who_goes_on_alone_on_the_only_card_ends_well_where_that_is_hidden_and_others_follow() -> Tested {
    let world = World::new(cards(&[16_384]), &on_the_only_card())?;
    survives(&world)?;
    let mut resumed = world.prepare(&["resume", "--keep-going"]);
    let resumed = resumed.env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    world.until(&["show", "--json"], |run| run["state"] == "running")?;
    std::fs::write(world.path().join("go"), "")?;
    let ended = resumed.wait_with_output()?;
    let words = said(&ended);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    assert!(words.contains("more: it was never tried; nothing here could hold it"), "{words}");
    let shown = world.shown()?;
    let is = |name: &str, state: &str| (name.to_owned(), state.to_owned());
    assert_eq!(states(&shown), [is("train", "succeeded"), is("more", "failed"), is("cpu", "succeeded")], "{words}");
    assert_eq!(attempts(&shown, "outcome"), ["succeeded"]);
    let why = world.printed(&["explain", "more"])?;
    assert!(
        why.contains("it failed: it was never tried; nothing here could hold it: needs 1000.0 MiB of one GPU"),
        "{why}"
    );
    let refused = world.command_under(&[("CUDA_VISIBLE_DEVICES", "")], &["resume"])?;
    let words = said(&refused);
    assert!(words.contains("`more`: it asks for a GPU"), "{words}");
    Ok(())
}

#[test]
fn who_goes_on_alone_on_the_only_card_ends_well_where_that_is_drained_and_others_wait() -> Tested {
    let world = World::new(cards(&[16_384]), &on_the_only_card())?;
    survives(&world)?;
    assert!(world.command(&["devices", "--drain", "gpu0"])?.status.success());
    let mut resumed = world.prepare(&["resume"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    world.until(&["show", "--json"], |run| run["state"] == "running")?;
    std::fs::write(world.path().join("go"), "")?;
    world.until_printed(&["explain", "more"], |why| why.contains("gpu0 is drained by hand, until"))?;
    assert!(world.command(&["devices", "--undrain", "gpu0"])?.status.success());
    assert!(resumed.wait()?.success());
    assert_eq!(attempts(&world.shown()?, "outcome"), ["succeeded"]);
    Ok(())
}

#[test]
fn what_is_up_to_date_needs_no_card() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo 1 >made'\noutputs = ['made']\nresources = { gpu_memory = '8GiB' }\n\
                    [stage.read]\nrun = 'cat made'\ninputs = ['made']\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    assert_eq!(world.run()?.0, Some(0));
    lose(&world, 0)?;
    let dry = world.command(&["run", "p.toml", "--dry-run"])?;
    assert!(dry.status.success(), "{}", said(&dry));
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(states(&run)[0].1, "cached", "{said}");
    Ok(())
}

#[test]
fn who_goes_on_alone_on_a_card_that_has_no_slices_by_then_leaves_it_for_that() -> Tested {
    let world = World::new(cards(&[16_384, 16_384]), SURVIVES)?;
    let card = survives(&world)?;
    world.scene.change(|machine| machine.cards[card].is_sliced = true)?;
    let resumed = world.command(&["resume"])?;
    let words = said(&resumed);
    assert!(resumed.status.success(), "{words}");
    assert!(words.contains(&format!("gpu{card} fell out: it is in MIG mode now, without slices")), "{words}");
    Ok(())
}

#[test]
fn what_fits_nowhere_any_more_stops_nothing_else_and_says_what_it_lacks() -> Tested {
    let more = "[stage.large]\nrun = 'true'\ninputs = ['begun']\nresources = { cpus = 0, gpu_memory = '20GiB' }\n\
                [stage.end]\nrun = 'true'\nafter = ['large']\n\
                [stage.cpu]\nrun = 'true'\nafter = ['train']\n";
    let pipeline = SURVIVES.replace("backoff", "outputs = ['begun']\nbackoff");
    let world =
        World::new(cards(&[16_384, 40_960]), &(pipeline.replace("resources = {", "resources = { cpus = 0,") + more))?;
    let card = survives(&world)?;
    lose(&world, 1)?;
    let resumed = world.prepare(&["resume"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    assert_eq!(card, 0);
    world.until(&["show", "--json"], |run| run["state"] == "running")?;
    std::fs::write(world.path().join("go"), "")?;
    let ended = resumed.wait_with_output()?;
    let words = said(&ended);
    assert_eq!(ended.status.code(), Some(1), "{words}");
    let shown = world.shown()?;
    let is = |name: &str, state: &str| (name.to_owned(), state.to_owned());
    let expected = [is("train", "succeeded"), is("large", "failed"), is("end", "skipped"), is("cpu", "succeeded")];
    assert_eq!(states(&shown), expected, "{words}");
    let lacks = "needs 20.0 GiB of one GPU; gpu0 gives 15.2 GiB at most; gpu1 was lost when the run began";
    let why = shown["tasks"][1]["lacks"].as_str().unwrap_or_default();
    assert!(why.starts_with(lacks), "{why}");
    for args in [&["show"][..], &["explain", "large"]] {
        let printed = world.printed(args)?;
        assert!(printed.contains(lacks), "{printed}");
    }
    Ok(())
}
