//! Which cards, CPUs and ports a task gets.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

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
fn what_the_shell_says_of_a_rendezvous_is_about_others() -> Tested {
    let pipeline = "[stage.one]\nrun = 'env >one'\nresources = { cpus = 0, gpus = 1 }\n\
                    [stage.two]\nrun = 'env >two'\nresources = { cpus = 0, gpus = 2 }\nenv = { MASTER_PORT = '1234', RANK = '0' }\n";
    let world = World::new(cards(&[16_384; 2]), pipeline)?;
    let names = ["RANK", "WORLD_SIZE", "PET_NNODES", "PET_NPROC_PER_NODE", "MASTER_PORT", "PET_MASTER_PORT"];
    let around: Vec<_> = names.iter().map(|name| (*name, "29500")).collect();
    let run = world.command_under(&around, &["run", "p.toml"])?;
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let told = |stage: &str| -> Result<Vec<Option<String>>, std::io::Error> {
        let env = std::fs::read_to_string(world.path().join(stage))?;
        let value =
            |name: &&str| env.lines().find_map(|line| Some(line.strip_prefix(*name)?.strip_prefix('=')?.to_owned()));
        Ok(names.iter().map(value).collect())
    };
    assert_eq!(told("one")?, [const { None }; 6]);
    let own = ["0", "", "", "2", "1234", "1234"].map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()));
    assert_eq!(told("two")?, own);
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

/// Whether somebody says that a port is taken, in the file that runs share.
fn is_taken(world: &World, port: u16) -> Result<bool, Box<dyn std::error::Error>> {
    let file = std::fs::File::options().write(true).open(world.path().join("home/trainyard/ports"))?;
    // SAFETY: plain numbers, for which zeroes are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (libc::F_WRLCK as libc::c_short, port.into(), 1);
    // SAFETY: an open file and a live lock.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if answer == 0 { Ok(lock.l_type != libc::F_UNLCK as libc::c_short) } else { Err("no locks here".into()) }
}

#[test]
fn a_port_stays_taken_while_its_task_lives_though_the_orchestrator_is_dead() -> Tested {
    // It takes its grace.
    let pipeline = "[stage.train]\nrun = \"trap 'until test -e go; do sleep 0.05; done; exit' TERM; \
        echo $MASTER_PORT >draft; mv draft port; while :; do sleep 0.05; done\"\n\
        grace = '10m'\nresources = { cpus = 0, gpus = 2 }\n";
    let world = World::new(cards(&[16_384; 2]), pipeline)?;
    let mut run = world.start()?;
    world.until(&["show", "--json"], |_| world.path().join("port").exists())?;
    let port: u16 = std::fs::read_to_string(world.path().join("port"))?.trim().parse()?;
    run.kill()?;
    run.wait()?;
    assert!(is_taken(&world, port)?);
    std::fs::write(world.path().join("go"), "")?;
    let until = Instant::now() + Duration::from_secs(120);
    while is_taken(&world, port)? {
        assert!(Instant::now() < until, "its task has ended, or was ended");
        world.printed(&["runs"])?;
    }
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
