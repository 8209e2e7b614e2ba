//! Plans for devices that others hold memory of.

use serde_json::Value;

use crate::world::{Stranger, Tested, World, cards};

/// The card that the plan has for its first task, and what `plan` prints.
fn planned(world: &World) -> Result<(String, String), Box<dyn std::error::Error>> {
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    let id = plan["tasks"][0]["devices"][0].as_str().unwrap_or_default().to_owned();
    Ok((id.rsplit('/').next().unwrap_or_default().to_owned(), world.printed(&["plan", "p.toml"])?))
}

#[test]
fn a_plan_keeps_off_what_others_hold_and_says_so() -> Tested {
    for resources in ["gpus = 1", "gpu_memory = '8GiB'", "gpu_memory = 'auto'"] {
        let pipeline = format!("[stage.train]\nrun = 'true'\nresources = {{ {resources} }}\n");
        let world = World::new(cards(&[16_384, 16_384]), &pipeline)?;
        let _stranger = Stranger::on(&world, 0, 10_240)?;
        let (card, printed) = planned(&world)?;
        assert_eq!(card, "gpu1", "{resources}");
        assert!(
            printed.contains("in use now     10.0 GiB of ") && printed.contains("/gpu0: planned around\n"),
            "{printed}"
        );
        let (code, said, run) = world.run()?;
        assert_eq!(code, Some(0), "{said}");
        let on = &run["tasks"][0]["attempts"][0]["devices"][0];
        assert!(on.as_str().is_some_and(|id| id.ends_with("/gpu1")), "{resources}: {on}");
    }
    Ok(())
}

#[test]
fn a_plan_that_has_to_wait_for_others_says_who_waits() -> Tested {
    let pipeline = "[stage.train]\nrun = 'true'\nmatrix = { seed = [1, 2, 3] }\nresources = { gpu_memory = '8GiB' }\n";
    let world = World::new(cards(&[16_384]), pipeline)?;
    let _stranger = Stranger::on(&world, 0, 10_240)?;
    let (card, printed) = planned(&world)?;
    assert_eq!(card, "gpu0");
    assert!(printed.contains("/gpu0: train[seed=1] and 2 tasks more wait for it\n"), "{printed}");
    let plan: Value = serde_json::from_str(&world.printed(&["plan", "p.toml", "--json"])?)?;
    assert_eq!(plan["devices"][0]["memory_free_bytes"], 6_144_u64 << 20);
    Ok(())
}

#[test]
fn what_the_driver_keeps_for_itself_is_in_nobodys_use_and_nobodys_to_have() -> Tested {
    let pipeline = "[stage.train]\nrun = 'echo $TRAINYARD_GPU_MEMORY >said'\nresources = { gpus = 1 }\n";
    let mut card = cards(&[24_576]);
    card[0].reserved_mib = 700;
    let world = World::new(card, pipeline)?;
    {
        let _stranger = Stranger::on(&world, 0, 1_200)?;
        let printed = world.printed(&["plan", "p.toml"])?;
        assert!(printed.contains("in use now     1.2 GiB of "), "{printed}");
    }
    let (code, said, _) = world.run()?;
    assert_eq!(code, Some(0), "{said}");
    let told: u64 = std::fs::read_to_string(world.path().join("said"))?.trim().parse()?;
    // 24,576 MiB less the driver's 700, and a headroom of 512 and 2 %.
    assert_eq!(told >> 20, 24_576 - 700 - 512 - 492);
    Ok(())
}
