//! Trainings that need more memory than they said.

use serde_json::Value;

use crate::world::{Tested, World, attempts, cards};

#[test]
fn a_training_that_runs_out_gets_more_then_a_card_then_a_larger_one() -> Tested {
    let pipeline =
        "[stage.train]\nrun = 'TRAIN 20000 0.1'\nbackoff = '100ms'\nresources = { gpu_memory = '4000MiB' }\n";
    let world = World::new(cards(&[16_384, 40_960]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(attempts(&run, "outcome"), ["out-of-memory", "out-of-memory", "out-of-memory", "succeeded"]);
    assert_eq!(attempts(&run, "raised"), [Value::Null, "more".into(), "alone".into(), "larger".into()]);
    let mib = |mib: u64| Value::from(mib << 20);
    assert_eq!(attempts(&run, "gpu_memory_bytes")[..3], [mib(4_000), mib(6_000), mib(6_000)]);
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
    assert!(said.contains("it had a GPU to itself, and none here is larger"), "{said}");
    Ok(())
}
