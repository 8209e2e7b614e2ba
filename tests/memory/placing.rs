//! Which cards, CPUs and ports a task gets.

use std::collections::BTreeSet;

use mock_nvml::Card;
use serde_json::Value;

use crate::world::{Tested, World, cards};

/// The names within the machine of the cards of each task's first attempt.
fn cards_of(run: &Value) -> Vec<Vec<String>> {
    let names = |task: &Value| {
        let ids = task["attempts"][0]["devices"].as_array().into_iter().flatten().filter_map(Value::as_str);
        ids.map(|id| id.rsplit('/').next().unwrap_or(id).to_owned()).collect()
    };
    run["tasks"].as_array().into_iter().flatten().map(names).collect()
}

const ON_TWO: &str = "[stage.train]\nrun = 'echo $MASTER_PORT'\nresources = { cpus = 0, gpus = 2 }\n";

#[test]
fn several_cards_are_those_that_nvlink_joins() -> Tested {
    let mut four = cards(&[16_384; 4]);
    for (card, other) in [(0, 2), (2, 0)] {
        four[card].nvlink = vec![other];
    }
    let (code, said, run) = World::new(four, ON_TWO)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cards_of(&run), [["gpu0", "gpu2"]]);
    Ok(())
}

#[test]
fn without_nvlink_they_are_behind_one_switch_or_at_one_socket() -> Tested {
    let at = |numa, switch| Card { numa, switch, ..cards(&[16_384])[0].clone() };
    let sockets = vec![at(0, None), at(1, None), at(0, None), at(1, None)];
    let (code, said, run) = World::new(sockets, ON_TWO)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cards_of(&run), [["gpu0", "gpu2"]]);
    let switches = vec![at(0, None), at(0, Some(7)), at(0, None), at(0, Some(7))];
    let (code, said, run) = World::new(switches, ON_TWO)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cards_of(&run), [["gpu1", "gpu3"]]);
    Ok(())
}

#[test]
fn who_wants_one_card_leaves_the_joined_ones_together() -> Tested {
    let mut three = cards(&[16_384; 3]);
    (three[0].nvlink, three[1].nvlink) = (vec![1], vec![0]);
    let pipeline = "[stage.one]\nrun = 'true'\nresources = { cpus = 0, gpu_memory = '1GiB' }\nduration = '9s'\n\
                    [stage.two]\nrun = 'true'\nresources = { cpus = 0, gpus = 2 }\nduration = '9s'\n";
    let (code, said, run) = World::new(three, pipeline)?.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(cards_of(&run)[1], ["gpu0", "gpu1"]);
    Ok(())
}

#[test]
fn two_tasks_on_several_cards_never_have_the_same_port() -> Tested {
    let pipeline = format!("{ON_TWO}matrix = {{ seed = [1, 2, 3, 4] }}\n");
    let world = World::new(cards(&[16_384; 4]), &pipeline)?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let ports: Result<BTreeSet<u16>, Box<dyn std::error::Error>> =
        (1..=4).map(|seed| Ok(world.printed(&["logs", &format!("train[seed={seed}]")])?.trim().parse()?)).collect();
    assert_eq!(ports?.len(), 4);
    Ok(())
}

#[test]
fn a_task_runs_on_the_cpus_beside_its_card() -> Tested {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).ok_or("Linux says")?.trim();
    let last: u32 = allowed.rsplit([',', '-']).next().ok_or("at least one")?.parse()?;
    let show = "run = \"sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status\"";
    let pipeline = format!(
        "[stage.near]\n{show}\nresources = {{ gpu_memory = '1GiB' }}\n\
         [stage.many]\n{show}\nresources = {{ cpus = 1.5, gpu_memory = '1GiB' }}\n\
         [stage.host]\n{show}\n"
    );
    let mut card = cards(&[16_384]);
    card[0].cpus = vec![last];
    let world = World::new(
        card,
        &pipeline.replace("cpus = 1.5", if allowed.contains(['-', ',']) { "cpus = 1.5" } else { "cpus = 1" }),
    )?;
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(world.printed(&["logs", "near"])?.trim(), last.to_string());
    assert_eq!(world.printed(&["logs", "host"])?.trim(), allowed);
    // One CPU is too few for it, wherever that is.
    assert_eq!(world.printed(&["logs", "many"])?.trim(), allowed);
    Ok(())
}
