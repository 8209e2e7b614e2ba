//! Two runs and one card: neither starts what the other holds the memory for.

use crate::world::{Stranger, Tested, World, attempts, card_of_first, cards};

#[test]
fn two_runs_never_take_more_of_a_card_than_there_is() -> Tested {
    // Two of them do not fit, and one fails if another is at it.
    let world = World::new(
        cards(&[16_384]),
        "[stage.train]\nrun = 'until test -e gate; do sleep 0.05; done; mkdir busy && TRAIN 8000 0.1 && rmdir busy'\n\
         resources = { gpu_memory = '10000MiB' }\nmatrix = { n = [1, 2, 3] }\n",
    )?;
    let one = world.start()?;
    let first = world.until(&["show", "--json"], |run| run["tasks"][0]["state"] == "running")?["run"].clone();
    let other = world.start()?;
    let holds = |why: &serde_json::Value| why["runs"][0]["run"] == first;
    let why = world.until(&["explain", "latest", "train[n=1]", "--json"], holds)?;
    assert_eq!(why["runs"][0]["holds"], "9.8 GiB of gpu0", "{why:#}");
    std::fs::write(world.path().join("gate"), "")?;
    for run in [one, other] {
        let ended = run.wait_with_output()?;
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    Ok(())
}

#[test]
fn what_a_run_has_taken_before_another_begins_is_said_to_be_its() -> Tested {
    for resources in ["gpu_memory = '10000MiB'", "gpus = 1"] {
        let held = "[stage.train]\nrun = 'echo 8000 >$MOCK_NVML_STATE/held/$$-0; until test -e gate; do sleep 0.05; done'\n\
                    resources = { cpus = 0, gpu_memory = '9000MiB' }\n";
        let world = World::new(cards(&[16_384]), held)?;
        let one = world.start()?;
        let first = world.until(&["show", "--json"], |run| run["tasks"][0]["state"] == "running")?["run"].clone();
        world.until_seen("ours", 0, 8_000)?;
        world.write(&format!("[stage.other]\nrun = 'true'\nresources = {{ cpus = 0, {resources} }}\n"))?;
        let other = world.start()?;
        let holds = |why: &serde_json::Value| why["runs"][0]["run"] == first;
        let why = world.until(&["explain", "latest", "other", "--json"], holds)?;
        assert_eq!(why["runs"][0]["holds"], "8.8 GiB of gpu0", "{why:#}");
        std::fs::write(world.path().join("gate"), "")?;
        for run in [one, other] {
            let ended = run.wait_with_output()?;
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        }
    }
    Ok(())
}

#[test]
fn runs_of_two_state_folders_never_take_more_of_a_card_than_there_is() -> Tested {
    // Two of them do not fit, and each takes its time to take what it was promised.
    let world = World::new(
        cards(&[16_384, 16_384]),
        "[stage.train]\nrun = 'until test -e gate; do sleep 0.05; done; TRAIN 9000 0.2 0.2'\noom_retries = 0\n\
         resources = { cpus = 0, gpu_memory = '9000MiB' }\nmatrix = { n = [1, 2, 3, 4] }\n",
    )?;
    let start = |state: &str| world.prepare(&["run", "p.toml", "--quiet", "--keep-going", "--state", state]).spawn();
    let one = start("a")?;
    let first = world.until(&["show", "--json", "--state", "a"], |run| run["tasks"][1]["state"] == "running")?;
    let other = start("b")?;
    let folder = world.path().canonicalize()?.join("a");
    let called = format!("{} in {}", first["run"].as_str().ok_or("a run has an id")?, folder.display());
    let holds = |why: &serde_json::Value| why["runs"][0]["run"] == called.as_str();
    world.until(&["explain", "latest", "train[n=1]", "--json", "--state", "b"], holds)?;
    std::fs::write(world.path().join("gate"), "")?;
    for run in [one, other] {
        assert!(run.wait_with_output()?.status.success());
    }
    for state in ["a", "b"] {
        let run: serde_json::Value = serde_json::from_str(&world.printed(&["show", "--json", "--state", state])?)?;
        let attempts = run["tasks"].as_array().into_iter().flatten().map(|task| task["attempts"].as_array());
        assert!(attempts.map(|all| all.map_or(0, Vec::len)).eq([1; 4]), "{run:#}");
    }
    Ok(())
}

#[test]
fn a_task_that_starts_a_run_is_not_short_by_what_that_takes() -> Tested {
    // Both together are more than the card has; a third run still finds what is left beside the larger of the two.
    let ty = env!("CARGO_BIN_EXE_trainyard");
    for outer in ["gpu_memory = '10000MiB'", "gpus = 1"] {
        let world = World::new(
            cards(&[16_384]),
            &format!("[stage.outer]\nrun = '{ty} run q.toml --state b'\nresources = {{ cpus = 0, {outer} }}\n"),
        )?;
        let within = "[stage.within]\nrun = 'echo 8000 >$MOCK_NVML_STATE/held/$$-0; until test -e gate; do sleep 0.05; done'\n\
                      resources = { cpus = 0, gpu_memory = '9000MiB' }\n";
        std::fs::write(world.path().join("q.toml"), within)?;
        let one = world.start()?;
        // By then whoever had to leave would have.
        world.until(&["show", "--json"], |run| run["tasks"][0]["state"] == "running")?;
        world.until_seen("used", 0, 8_000)?;
        if outer.starts_with("gpu_memory") {
            let beside = "[stage.beside]\nrun = 'true'\nresources = { cpus = 0, gpu_memory = '4000MiB' }\n";
            std::fs::write(world.path().join("r.toml"), beside)?;
            assert!(world.command(&["run", "r.toml", "--state", "c"])?.status.success());
        }
        std::fs::write(world.path().join("gate"), "")?;
        let ended = one.wait_with_output()?;
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        assert_eq!(attempts(&world.shown()?, "outcome"), ["succeeded"]);
    }
    Ok(())
}

#[test]
fn a_task_around_a_run_on_the_host_leaves_for_strangers_before_it_has_taken_anything() -> Tested {
    let ty = env!("CARGO_BIN_EXE_trainyard");
    let world = World::new(
        cards(&[16_384, 16_384]),
        &format!(
            "[stage.outer]\nrun = '{ty} run q.toml --state b-$TRAINYARD_ATTEMPT'\n\
             resources = {{ cpus = 0, gpu_memory = '10000MiB' }}\n"
        ),
    )?;
    let within =
        "[stage.within]\nrun = 'touch within; until test -e gate; do sleep 0.05; done'\nresources = { cpus = 0 }\n";
    std::fs::write(world.path().join("q.toml"), within)?;
    let run = world.start()?;
    let card = card_of_first(&world)?;
    world.until(&["show", "--json", "--state", "b-1"], |run| run["tasks"][0]["state"] == "running")?;
    let _stranger = Stranger::on(&world, card, 14_000)?;
    world
        .until(&["show", "--json"], |run| attempts(run, "outcome").first().is_some_and(|first| first == "displaced"))?;
    std::fs::write(world.path().join("gate"), "")?;
    let ended = run.wait_with_output()?;
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(attempts(&world.shown()?, "outcome"), ["displaced", "succeeded"]);
    Ok(())
}

#[test]
fn a_task_around_a_run_whose_task_runs_out_of_memory_has_failed_and_not_run_out() -> Tested {
    let ty = env!("CARGO_BIN_EXE_trainyard");
    let world = World::new(
        cards(&[16_384]),
        &format!("[stage.outer]\nrun = '{ty} run q.toml --state b'\nresources = {{ cpus = 0, gpu_memory = '6GiB' }}\n"),
    )?;
    let within = "[stage.within]\nrun = 'echo torch.OutOfMemoryError: CUDA out of memory.; exit 1'\noom_retries = 0\n\
                  resources = { cpus = 0, gpu_memory = '6GiB' }\n";
    std::fs::write(world.path().join("q.toml"), within)?;
    assert_eq!(world.start()?.wait_with_output()?.status.code(), Some(1));
    assert_eq!(attempts(&world.shown()?, "outcome"), ["exited:1"]);
    Ok(())
}
