//! The real binary on an emulated driver: it plans on the device, gives the device back before anything runs, and whatever
//! goes wrong, at whatever call, plans on the CPU and says why in one line.

use std::error::Error;
use std::fs;
use std::process::{Command, Output};

use emulated_cuda::{Card, Scene};
use tempfile::TempDir;

type Tested = Result<(), Box<dyn Error>>;

/// Two stages with a matrix, every task of the second behind all of the first, and one at the end.
const PIPELINE: &str = r#"
[stage.a]
run = ["true"]
duration = "3s"
matrix = { i = [1, 2, 3] }
[stage.b]
run = ["true"]
after = ["a"]
duration = "5s"
matrix = { i = [1, 2, 3, 4] }
[stage.c]
run = "cat $EMULATED_CUDA_LOG > seen"
after = ["b"]
duration = "1s"
"#;

struct World {
    scene: Scene,
    folder: TempDir,
    /// What NVML shows; without, there is none.
    nvml: Option<mock_nvml::Scene>,
}

impl World {
    fn new(pipeline: &str) -> Result<Self, Box<dyn Error>> {
        let (scene, folder) = (Scene::new()?, tempfile::tempdir()?);
        fs::write(folder.path().join("p.toml"), pipeline)?;
        Ok(Self { scene, folder, nvml: None })
    }

    /// A pipeline with more edges than are timed without asking for a device.
    fn large() -> Result<Self, Box<dyn Error>> {
        let numbers = (0..512).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        let stage = |name: &str, after: &str| {
            format!("[stage.{name}]\nrun = ['true']\nduration = '1s'\n{after}matrix = {{ i = [{numbers}] }}\n")
        };
        Self::new(&(stage("a", "") + &stage("b", "after = ['a']\n")))
    }

    fn command(&self, card: &Card, args: &[&str]) -> Result<Output, Box<dyn Error>> {
        #[expect(clippy::disallowed_methods, reason = "runs the real binary")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("TRAINYARD_BOX", self.folder.path().join(".box"))
            .envs(self.scene.environment(card)?);
        command.env("XDG_CACHE_HOME", self.folder.path().join("cache")).env_remove("RUST_LOG");
        command.env("XDG_STATE_HOME", self.folder.path().join("state")).env_remove("CUDA_VISIBLE_DEVICES");
        command.env("TRAINYARD_NVML", "none.so").env("NO_COLOR", "1");
        command.envs(self.nvml.iter().flat_map(mock_nvml::Scene::environment));
        Ok(command.output()?)
    }

    /// Plans; returns what was printed and what was said.
    fn plan(&self, card: &Card, more: &[&str]) -> Result<(String, String), Box<dyn Error>> {
        let output = self.command(card, &[&["plan", "p.toml", "--json", "--budget", "0s"], more].concat())?;
        let said = String::from_utf8(output.stderr)?;
        if output.status.code() != Some(0) {
            return Err(format!("{:?}: {said}", output.status).into());
        }
        Ok((String::from_utf8(output.stdout)?, said))
    }

    /// Returns where the binary remembers what it measured.
    fn remembered(&self) -> Result<std::path::PathBuf, Box<dyn Error>> {
        let mut files = fs::read_dir(self.folder.path().join("cache/trainyard"))?;
        Ok(files.next().ok_or("nothing is remembered")??.path())
    }

    /// Has the binary believe that a device needs hardly any time.
    fn praise_the_device(&self) -> Tested {
        let path = self.remembered()?;
        let mut known: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        let cost = known["devices"][0]["cost"].as_object_mut().ok_or("a device was measured")?;
        cost.values_mut().for_each(|value| *value = 1.into());
        Ok(fs::write(path, known.to_string())?)
    }
}

/// Asserts that the CPU did it, and that one line says why.
fn assert_falls_back(what: &str, (plan, said): &(String, String), by_cpu: &str, reason: &str) {
    assert_eq!(plan, by_cpu, "{what}");
    let lines: Vec<_> = said.lines().collect();
    assert!(matches!(lines[..], [line] if line.starts_with("timing on the CPU: ")), "{what}: {said}");
    assert!(said.contains(reason), "{what}: {said}");
}

#[test]
fn a_plan_on_the_device_is_the_plan_on_the_cpu() -> Tested {
    let world = World::new(PIPELINE)?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cpu"])?;
    assert!(world.scene.log()?.0.is_empty(), "nobody asked for the device");
    // The first time it is measured, the second time remembered.
    for measures in [true, false] {
        let (plan, said) = world.plan(&Card::default(), &["--timing", "cuda", "-v"])?;
        assert_eq!(plan, by_cpu);
        let computed: Vec<_> =
            said.lines().filter(|line| line.contains("predicted") && line.contains("took")).collect();
        assert!(
            matches!(computed[..], [loads, times]
                if loads.contains("load matrix of 3 durations at 1 speed by CUDA: ")
                && times.contains("earliest and latest times of 8 tasks and 16 edges by CUDA, ")),
            "{said}"
        );
        let log = world.scene.log()?;
        assert_eq!(log.kernels().last(), Some(&"slack"));
        assert_eq!(log.count("cuEventRecord") > 0, measures);
        assert!(log.kernels().contains(&"load_matrix"));
        // How long it takes to open is a median; what is opened for the load matrix serves for the times, too.
        let opened = if measures { 3 } else { 1 };
        let given_back = log.count("cuDevicePrimaryCtxRelease_v2");
        assert_eq!((log.count("cuDevicePrimaryCtxRetain"), given_back), (opened, opened));
        assert_eq!(log.count("cuMemAlloc_v2"), log.count("cuMemFree_v2"));
        assert_eq!(log.0.last().map(String::as_str), Some("cuDevicePrimaryCtxRelease_v2 0 0 bytes held"));
        assert!(log.0.iter().all(|line| !line.contains(" sm_70")), "Hopper gets its own code");
    }
    Ok(())
}

#[test]
fn the_load_matrix_of_a_plan_on_the_device_is_that_of_the_cpu() -> Tested {
    let pipeline = "[stage.plain]\nrun = ['true']\nduration = '10s'\nresources = { gpus = 1 }\n\
        [stage.listed]\nrun = ['true']\nduration = { A = '7s', B = '3s' }\nresources = { gpu_memory = '2GiB' }\n\
        [stage.both]\nrun = ['true']\nduration = { default = '11s', B = '5s' }\nresources = { gpus = 2 }\n\
        [stage.host]\nrun = ['true']\nduration = '1s'\n\
        [stage.unknown]\nrun = ['true']\nresources = { gpus = 0.5 }\n\
        [stage.modes]\nrun = ['true']\nafter = ['host']\nmodes = [{ resources = { gpus = 1 }, duration = '9s' }, \
        { resources = { cpus = 2 }, duration = '1m' }]\n";
    let world = World::new(pipeline)?;
    let gpu =
        |model: &str, speed| format!("[[node.gpu]]\nmodel = '{model}'\ncount = 2\nmemory = '16GiB'\nspeed = {speed}\n");
    let node = |name: &str, speed| format!("[[node]]\nname = '{name}'\ncpus = 8\nmemory = '64GiB'\nspeed = {speed}\n");
    let fleet =
        ["name = 'f'\n", &node("one", 1.7), &gpu("A", 1.0), &gpu("C", 2.3), &node("two", 0.9), &gpu("B", 3.1)].concat();
    fs::write(world.folder.path().join("fleet.toml"), fleet)?;
    let whole = ["--fleet", "fleet.toml", "--load-matrix", "--timing"];
    let (by_cpu, _) = world.plan(&Card::default(), &[&whole[..], &["cpu"]].concat())?;
    let (plan, said) = world.plan(&Card::default(), &[&whole[..], &["cuda", "-v"]].concat())?;
    assert!(said.contains("load matrix of 7 durations at 5 speeds by CUDA: predicted"), "{said}");
    assert!(world.scene.log()?.kernels().contains(&"load_matrix"));
    assert_eq!(plan, by_cpu);
    Ok(())
}

#[test]
fn a_nearly_full_card_is_measured_with_less() -> Tested {
    let world = World::new(PIPELINE)?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cpu"])?;
    // As many threads as a large card has: measured in full it takes some 100 MiB.
    let card = Card { multiprocessors: 132, memory: 1 << 20, ..Card::default() };
    let (plan, said) = world.plan(&card, &["--timing", "cuda"])?;
    assert_eq!((plan, said), (by_cpu, String::new()));
    // What was measured so is not what the card can do.
    assert!(world.remembered().is_err());
    Ok(())
}

#[test]
fn durations_that_no_kernel_counts_are_the_cpus_and_one_line_says_why() -> Tested {
    let world =
        World::new("[stage.a]\nrun = ['true']\nduration = '2000h'\n[stage.b]\nrun = ['true']\nduration = '1ms'\n")?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cpu"])?;
    let planned = world.plan(&Card::default(), &["--timing", "cuda"])?;
    assert_falls_back("too long", &planned, &by_cpu, "do not fit 32 bits");
    Ok(())
}

#[test]
fn devices_are_counted_by_their_addresses_whatever_the_drivers_order_is() -> Tested {
    let world = World::new(PIPELINE)?;
    for (backwards, opened) in [(false, "card 0"), (true, "card 1")] {
        world.plan(&Card { count: 2, backwards, ..Card::default() }, &["--timing", "cuda"])?;
        let log = world.scene.log()?;
        let opens = log.0.iter().find(|line| line.starts_with("cuDevicePrimaryCtxRetain")).ok_or("it was opened")?;
        assert!(opens.ends_with(opened), "{opens}");
    }
    Ok(())
}

#[test]
fn the_device_is_given_back_before_anything_runs() -> Tested {
    let world = World::new(PIPELINE)?;
    let ran = world.command(&Card::default(), &["run", "p.toml", "--timing", "cuda"])?;
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    let seen = fs::read_to_string(world.folder.path().join("seen"))?;
    assert!(seen.ends_with("cuDevicePrimaryCtxRelease_v2 0 0 bytes held\n"), "{seen}");
    Ok(())
}

#[test]
fn few_tasks_are_timed_without_asking_for_a_device() -> Tested {
    let world = World::new(PIPELINE)?;
    let (_, said) = world.plan(&Card::default(), &["-v"])?;
    assert!(said.contains("by CPU: not predicted (nothing was measured here yet), took"), "{said}");
    assert!(world.scene.log()?.0.is_empty());
    Ok(())
}

#[test]
fn many_edges_are_measured_once_and_go_where_they_are_faster() -> Tested {
    let world = World::large()?;
    let (by_cpu, said) = world.plan(&Card::default(), &["-v"])?;
    assert!(said.contains("by CPU: predicted"), "an emulated device is slower: {said}");
    assert!(world.scene.log()?.count("cuDevicePrimaryCtxRelease_v2") == 3, "it was measured");
    let (again, said) = world.plan(&Card::default(), &["-v"])?;
    assert_eq!(again, by_cpu);
    assert!(said.contains("by CPU: predicted") && said.contains(" (CUDA: at least "), "{said}");
    assert!(world.scene.log()?.0.is_empty(), "what was measured is remembered");
    world.praise_the_device()?;
    let (on_device, said) = world.plan(&Card::default(), &["-v"])?;
    assert!(said.contains("by CUDA, "), "{said}");
    assert_eq!(on_device, by_cpu);
    Ok(())
}

#[test]
fn each_device_of_a_machine_is_measured_once() -> Tested {
    let world = World::new(PIPELINE)?;
    for measures in [true, false] {
        // The device that is seen first is another one each time.
        for backwards in [false, true] {
            world.plan(&Card { count: 2, backwards, ..Card::default() }, &["--timing", "cuda"])?;
            assert_eq!(world.scene.log()?.count("cuEventRecord") > 0, measures, "backwards: {backwards}");
        }
    }
    Ok(())
}

/// Nobody asked for a device here, but there should be one.
#[test]
fn a_broken_driver_is_named_also_where_nobody_insists() -> Tested {
    let mut world = World::large()?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cpu"])?;
    let no_card = Card { count: 0, ..Card::default() };
    assert_eq!(world.plan(&no_card, &[])?, (by_cpu.clone(), String::new()), "a driver without a card may be meant so");
    world.nvml = Some(mock_nvml::Scene::new(vec![mock_nvml::Card::default()])?);
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cpu"])?;
    assert_falls_back("NVML shows one", &world.plan(&no_card, &[])?, &by_cpu, "there is no CUDA device 0");
    let lost = mock_nvml::Card { fails: [("*".to_owned(), 15)].into(), ..Default::default() };
    let lost = World { nvml: Some(mock_nvml::Scene::new(vec![lost])?), ..World::large()? };
    let (_, said) = lost.plan(&no_card, &[])?;
    assert!(said.lines().any(|line| line == "timing on the CPU: there is no CUDA device 0"), "{said}");
    let variables = world.scene.environment(&Card::default())?;
    let (_, folder) =
        variables.iter().find(|(name, _)| *name == "LD_LIBRARY_PATH").ok_or("it is found by its folder")?;
    fs::write(folder.join("libcuda.so.1"), "no library at all")?;
    for how in ["auto", "cuda", "auto"] {
        let planned = world.plan(&Card::default(), &["--timing", how])?;
        assert_falls_back(how, &planned, &by_cpu, "the CUDA driver cannot be loaded: ");
    }
    Ok(())
}

#[test]
fn planning_takes_a_device_that_has_memory_to_spare() -> Tested {
    let mut world = World::new(PIPELINE)?;
    let card = Card { count: 2, ..Card::default() };
    let of = |number| mock_nvml::Card { uuid: emulated_cuda::uuid(number), ..Default::default() };
    let full = |number| mock_nvml::Card { nobodys_mib: of(number).mib - of(number).reserved_mib - 900, ..of(number) };
    world.nvml = Some(mock_nvml::Scene::new(vec![full(0), of(1)])?);
    let (by_cpu, _) = world.plan(&card, &["--timing", "cpu"])?;
    assert_eq!(world.plan(&card, &["--timing", "cuda"])?, (by_cpu, String::new()));
    let log = world.scene.log()?;
    let mut opened = log.0.iter().filter(|line| line.starts_with("cuDevicePrimaryCtxRetain"));
    assert!(opened.all(|line| line.ends_with("card 1")), "{log:?}");
    let drained = world.command(&card, &["devices", "--drain", "gpu1"])?;
    assert_eq!(drained.status.code(), Some(0), "{}", String::from_utf8_lossy(&drained.stderr));
    let (_, said) = world.plan(&card, &["--timing", "cuda"])?;
    let said: Vec<_> = said.lines().filter(|line| !line.contains("--undrain")).collect();
    assert_eq!(world.scene.log()?.count("cuDevicePrimaryCtxRetain"), 0);
    let reason = "gpu0 has 900.0 MiB of its memory free, and others may need it";
    assert!(
        matches!(said[..], [line] if line.starts_with("timing on the CPU: ") && line.ends_with(reason)),
        "{said:?}"
    );
    Ok(())
}

#[test]
fn drivers_and_cards_that_will_not_do_are_named() -> Tested {
    let world = World::new(PIPELINE)?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cpu"])?;
    let fails = |name: &str, code| Card { fails: [(name.to_owned(), code)].into(), ..Card::default() };
    let cases = [
        ("no card", Card { count: 0, ..Card::default() }, "there is no CUDA device 0"),
        ("a driver that does not match", fails("cuInit", 803), "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        (
            "an old driver",
            Card { version: 11_080, ..Card::default() },
            "it speaks CUDA 11.8, and the kernels need 12.0; driver 525 or newer",
        ),
        ("an old card", Card { capability: (6, 1), ..Card::default() }, "has compute capability 6.1"),
        ("a full card, no context", fails("cuDevicePrimaryCtxRetain", 2), "make a CUDA context: out of memory"),
        ("a full card, no arrays", Card { memory: 100, ..Card::default() }, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("no launch", fails("cuLaunchCooperativeKernel", 720), "too many blocks in cooperative launch"),
        ("a kernel that goes wrong", fails("cuMemcpyDtoH_v2", 719), "copy from the CUDA device"),
    ];
    for (what, card, reason) in cases {
        let planned = world.plan(&card, &["--timing", "cuda"])?;
        assert_falls_back(what, &planned, &by_cpu, reason);
    }
    // A card before Hopper is served by the older code.
    let (plan, said) = world.plan(&Card { capability: (8, 0), ..Card::default() }, &["--timing", "cuda"])?;
    assert_eq!((plan.as_str(), said.as_str()), (by_cpu.as_str(), ""));
    assert!(world.scene.log()?.0.iter().any(|line| line.ends_with(" sm_70")));
    Ok(())
}

#[test]
fn a_driver_without_some_function_is_too_old_whichever_it_is() -> Tested {
    let mut world = World::new(PIPELINE)?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cuda"])?;
    let mut called: Vec<String> =
        world.scene.log()?.0.iter().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
    called.sort_unstable();
    called.dedup();
    assert!(called.len() > 20, "{called:?}");
    for name in called {
        world.scene = Scene::without(&[&name])?;
        let planned = world.plan(&Card::default(), &["--timing", "cuda"])?;
        assert_falls_back(&name, &planned, &by_cpu, &format!("it has no {name}; driver 525 or newer"));
    }
    Ok(())
}

#[test]
fn a_card_may_be_lost_or_full_at_any_call() -> Tested {
    let world = World::new(PIPELINE)?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--timing", "cuda"])?;
    world.plan(&Card::default(), &["--timing", "cuda"])?;
    let log = world.scene.log()?.0;
    let gives_back = |line: &str| {
        ["cuMemFree", "cuModuleUnload", "cuCtxSetCurrent", "cuDevicePrimaryCtxRelease"]
            .iter()
            .any(|of| line.starts_with(of))
    };
    // From here on it only gives back; before, it does so with the arrays of the load matrix.
    let works = log.iter().rposition(|line| !gives_back(line)).ok_or("it works")? as u64;
    let calls = log.len() as u64;
    for at in 0..calls {
        let matters = at <= works && !log[at as usize].starts_with("cuMemFree");
        for (what, card, falls_back) in [
            ("lost", Card { lost_at: Some(at), ..Card::default() }, at <= works),
            ("full", Card { fails_at: Some((at, 2)), ..Card::default() }, matters),
        ] {
            let planned = world.plan(&card, &["--timing", "cuda"])?;
            let what = format!("{what} at call {at} of {calls}, {}", log[at as usize]);
            if falls_back {
                assert_falls_back(&what, &planned, &by_cpu, "CUDA_ERROR");
            } else {
                assert_eq!(planned, (by_cpu.clone(), String::new()), "{what}");
            }
        }
    }
    Ok(())
}
