//! A driver that does not answer, as one does whose card has fallen off the bus.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::world::{Tested, World, card_of_first, cards};

const PIPELINE: &str = "[stage.train]\nrun = 'TRAIN 3000 600'\nresources = { cpus = 0, gpu_memory = '4000MiB' }\n\
    [stage.gate]\nrun = 'until test -e go; do sleep 0.05; done'\nresources = { cpus = 0 }\n\
    [stage.clean]\nafter = ['gate']\nrun = 'true'\nresources = { cpus = 0 }\n\
    [stage.more]\nafter = ['gate']\nrun = 'true'\nresources = { cpus = 0, gpu_memory = '4000MiB' }\n";

#[test]
fn a_driver_that_does_not_answer_holds_up_nothing_but_starts_on_its_devices() -> Tested {
    let world = World::new(cards(&[16_384]), PIPELINE)?;
    let run = world.start()?;
    card_of_first(&world)?;
    world.scene.change(|machine| machine.cards[0].stuck = true)?;
    while !world.scene.is_waited_for() {
        // A process of its own takes its time.
        world.printed(&["runs"])?;
    }
    fs::write(world.path().join("go"), "")?;
    world.until(&["show", "--json"], |run| {
        let mut tasks = run["tasks"].as_array().into_iter().flatten();
        tasks.any(|task| task["name"] == "clean" && task["state"] == "succeeded")
    })?;
    assert!(world.command(&["cancel"])?.status.success());
    assert_eq!(run.wait_with_output()?.status.code(), Some(130));
    Ok(())
}

#[test]
fn a_driver_that_answers_no_more_when_the_run_begins_holds_up_nothing_else() -> Tested {
    let prefer = "[stage.prefer]\nrun = 'true'\nresources = { cpus = 0, gpus = 'prefer' }\n";
    let world = World::new(cards(&[16_384]), &format!("{PIPELINE}{prefer}"))?;
    fs::write(world.path().join("go"), "")?;
    let mut run = world.prepare(&["run", "p.toml"]);
    let run =
        run.env("TRAINYARD_CRASH_AT", "begun").env("TRAINYARD_CRASH_BY", "STOP").stderr(Stdio::piped()).spawn()?;
    let pid = rustix::process::Pid::from_child(&run);
    let stat = format!("/proc/{}/stat", run.id());
    while !fs::read_to_string(&stat)?.contains(") T ") {
        std::thread::yield_now();
    }
    world.scene.change(|machine| machine.cards[0].stuck = true)?;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT)?;
    world.until(&["show", "--json"], |run| {
        let mut tasks = run["tasks"].as_array().into_iter().flatten();
        tasks.any(|task| task["name"] == "clean" && task["state"] == "succeeded")
    })?;
    assert!(world.scene.is_waited_for());
    let why = world.until_printed(&["explain", "prefer"], |why| why.contains("waiting"))?;
    let words =
        "gpu0 was not read yet: its driver does not answer; where that lasts, `nvidia-smi --gpu-reset` or a reboot";
    assert!(why.contains(words), "{why}");
    assert!(world.command(&["cancel"])?.status.success());
    assert_eq!(run.wait_with_output()?.status.code(), Some(130));
    Ok(())
}

#[test]
fn who_asks_a_driver_that_does_not_answer_is_told_so() -> Tested {
    let world = World::new(cards(&[16_384]), PIPELINE)?;
    for args in [&["devices"][..], &["plan", "p.toml"]] {
        world.scene.change(|machine| machine.cards[0].stuck = true)?;
        let mut asks = world.prepare(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(asks.stderr.take().ok_or("a pipe")?).lines();
        let words = "the NVIDIA driver does not answer: waiting for it";
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains(words))), "{args:?}");
        world.scene.change(|machine| machine.cards[0].stuck = false)?;
        lines.for_each(drop);
        assert!(asks.wait()?.success());
    }
    Ok(())
}
