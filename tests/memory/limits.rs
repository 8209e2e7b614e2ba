//! Tasks that are kept to the memory that is reserved for them.

use std::fs;

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
fn frameworks_are_told_and_what_is_set_stays() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo $PYTORCH_CUDA_ALLOC_CONF $XLA_PYTHON_CLIENT_MEM_FRACTION >said'\n\
                    env = { PYTORCH_CUDA_ALLOC_CONF = 'expandable_segments:True' }\n\
                    memory_limit = 'framework'\nresources = { gpu_memory = '4GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let (code, said, run) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let told = fs::read_to_string(world.path().join("said"))?;
    assert_eq!(told, "expandable_segments:True,per_process_memory_fraction:0.250 0.250\n");
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
fn an_unknown_limit_is_rejected_with_the_near_word() -> Tested {
    let world = World::new(cards(&[]), "[stage.train]\nrun = 'true'\nmemory_limit = 'wacth'\n")?;
    let checked = world.command(&["check", "p.toml"])?;
    assert_eq!(checked.status.code(), Some(3));
    let words = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(words.contains("did you mean `watch`?"), "{words}");
    Ok(())
}
