//! What tasks leave behind.

use serde_json::Value;

use crate::world::{Tested, World, cards};

/// It leaves the group, closes its output, and goes on holding memory: nobody sees it when the task ends.
const LEAVES_ONE: &str = "[stage.train]\nrun = 'setsid TRAIN 3000 600 >/dev/null 2>&1 </dev/null & while ! grep -qs 3000 $MOCK_NVML_STATE/held/*; do :; done'\n\
                          resources = { gpu_memory = '4000MiB' }\n[stage.wait]\nafter = ['train']\nrun = 'while [ ! -e go ]; do sleep 0.1; done'\n";

#[test]
fn what_a_task_left_on_a_card_is_listed_and_ended_only_when_asked() -> Tested {
    let world = World::new(cards(&[16_384]), LEAVES_ONE)?;
    let mut run = world.start()?;
    // What the runs of other tests leave at the same time is listed too.
    let id = world.until(&["show", "--json"], |run| run["run"].is_string())?["run"].as_str().map(str::to_owned);
    let id = id.ok_or("a run has an id")?;
    let ours = |list: &Value| {
        let all = list.as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|one| one["run"] == *id).collect::<Vec<_>>()
    };
    let listed = world.until(&["devices", "--orphans", "--json"], |list| {
        ours(list).iter().any(|one| one["task"] == "train" && one["held"][0][1] == 3_000_u64 << 20)
    })?;
    let one = &ours(&listed)[0];
    assert_eq!((&one["why"], &one["attempt"], &one["ended"]), (&"attempt-ended".into(), &1.into(), &false.into()));
    assert!(world.printed(&["devices", "--orphans"])?.contains("its attempt is over"));
    for args in [&["--end"][..], &["--end", "no-such-run"], &["--end", "1"]] {
        let refused = world.command(&[&["devices", "--orphans"][..], args].concat())?;
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
    }
    let ended: Value = serde_json::from_str(&world.printed(&["devices", "--orphans", "--json", "--end", &id])?)?;
    let ended = ours(&ended);
    assert!(!ended.is_empty() && ended.iter().all(|one| one["ended"] == true), "{ended:#?}");
    let left = serde_json::from_str(&world.printed(&["devices", "--orphans", "--json"])?)?;
    assert_eq!(ours(&left), Vec::<Value>::new());
    std::fs::write(world.path().join("go"), "")?;
    assert!(run.wait()?.success());
    Ok(())
}

#[test]
fn what_is_ended_with_the_run_is_said() -> Tested {
    let world = World::new(cards(&[16_384]), LEAVES_ONE.split("[stage.wait]").next().unwrap_or_default())?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("what tasks had left behind is ended: process "), "{said}");
    Ok(())
}

#[test]
fn who_waits_for_what_an_earlier_task_left_is_told_so() -> Tested {
    let pipeline = LEAVES_ONE.replace(
        "run = 'while [ ! -e go ]; do sleep 0.1; done'",
        "run = 'true'\nresources = { gpu_memory = '14000MiB' }",
    );
    // NVML's number for a card that lets in one process at a time: there it is in the way of little as well.
    for (mode, needs) in [(None, "14000MiB"), (Some(3), "100MiB")] {
        let world = World::new(cards(&[16_384]), &pipeline.replace("14000MiB", needs))?;
        world.scene.change(|machine| machine.cards[0].compute_mode = mode)?;
        let mut run = world.start()?;
        let why = world.until_printed(&["explain", "wait"], |why| why.contains("left behind"))?;
        assert!(why.contains("what train left behind holds 2.9 GiB of "), "{why}");
        let ended =
            world.command(&["devices", "--orphans", "--end", world.shown()?["run"].as_str().unwrap_or_default()])?;
        assert!(ended.status.success());
        assert!(run.wait()?.success());
    }
    Ok(())
}
