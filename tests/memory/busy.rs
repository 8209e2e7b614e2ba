//! Cards in compute mode exclusive-process that turn tasks away, though nobody is seen there.

use std::fs;

use crate::world::{Tested, World, attempts, cards};

/// As PyTorch says it.
const BUSY: &str = "echo 'CUDA error: CUDA-capable device(s) is/are busy or unavailable' >&2; exit 1";

#[test]
fn who_is_turned_away_takes_another_card_as_soon_as_that_is_free() -> Tested {
    let pipeline = format!(
        "[stage.train]\nrun = \"[ $CUDA_VISIBLE_DEVICES = 0 ] || {{ {BUSY}; }}\"\nbackoff = '1h'\n\
         resources = {{ cpus = 0, gpu_memory = '4GiB' }}\n\
         [stage.long]\nrun = 'until test -e go; do sleep 0.05; done'\npriority = 5\n\
         resources = {{ cpus = 0, gpus = 1, gpu_memory = '20GiB' }}\n"
    );
    let mut two = cards(&[24_576, 16_384]);
    // NVML's number for exclusive-process.
    two[1].compute_mode = Some(3);
    let world = World::new(two, &pipeline)?;
    let run = world.start()?;
    let why = world.until_printed(&["explain", "train"], |why| why.contains("gpu1 turned a task away as busy"))?;
    assert!(why.contains("gpu0 is taken whole; gpu1 turned"), "{why}");
    assert!(why.contains("/gpu1 turned it away as busy (compute mode exclusive-process)"), "{why}");
    fs::write(world.path().join("go"), "")?;
    let output = run.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("elsewhere once there is room"), "{said}");
    let shown = world.shown()?;
    assert_eq!(attempts(&shown, "outcome"), ["displaced", "succeeded"]);
    let cards: Vec<_> =
        attempts(&shown, "devices").iter().map(|at| at[0].as_str().map(|id| id.ends_with("gpu0"))).collect();
    assert_eq!(cards, [Some(false), Some(true)]);
    Ok(())
}

#[test]
fn who_has_several_cards_does_not_know_which_one_turned_it_away() -> Tested {
    let pipeline = format!(
        "[stage.train]\nrun = \"[ $TRAINYARD_ATTEMPT = 2 ] || {{ {BUSY}; }}\"\nbackoff = '100ms'\n\
         resources = {{ cpus = 0, gpus = 2 }}\n"
    );
    let mut two = cards(&[16_384, 16_384]);
    two.iter_mut().for_each(|card| card.compute_mode = Some(3));
    let world = World::new(two, &pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "outcome"), ["displaced", "succeeded"]);
    let words: Vec<_> = said.lines().filter(|line| line.contains("turned it away as busy")).collect();
    assert!(words.len() == 1 && words[0].contains("/gpu0 or ") && words[0].contains("/gpu1 turned it away"), "{said}");
    Ok(())
}
