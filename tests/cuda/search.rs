//! Whole searches on the device against the same on the CPU, and the real binary with `--device`: it plans, gives the device
//! back, and goes on without one whatever goes wrong.

use std::error::Error;
use std::fs;
use std::process::{Command, Output};

use emulated_cuda::{Card, Scene};
use tempfile::TempDir;
use trainyard::batch::Unfit;
use trainyard::batch::device::OffDevice;
use trainyard::batch::lists::Lists;
use trainyard::batch::search::{Effort, Judge, Method, Problem, on_cpu, on_device};
use trainyard::batch::sgs::Project;
use trainyard::graph::{TaskGraph, TaskId};
use trainyard::timing::sample::{Random, any, edge_shapes, graph_of};

use super::equality::device;

type Tested = Result<(), Box<dyn Error>>;

const METHODS: [Method; 4] = [Method::Genetic, Method::Annealing, Method::Ants, Method::Swarm];

/// Lists for even seeds, projects for odd ones.
fn problem(graph: &TaskGraph, seed: u64) -> Result<Problem, Unfit> {
    let mut random = Random::new(seed);
    let mut draw = |end| random.below(end) as u32;
    let n = graph.len();
    let judge = if seed.is_multiple_of(2) {
        let time = (0..n * 3).map(|_| 1 + draw(40)).collect();
        let memory = (0..n).map(|_| draw(10)).collect();
        Judge::Lists(Lists::new(graph, time, memory, vec![10, 15, 20])?)
    } else {
        let need: Vec<_> = (0..n).map(|_| [0; 4].map(|_: u32| draw(6))).collect();
        Judge::Project(Project::new(graph, (0..n).map(|_| draw(20)).collect(), &need, [7, 9, 11, 13])?)
    };
    let ways: Vec<u64> = (0..n).map(|_| draw(1_000).into()).collect();
    let ids: Vec<TaskId> = graph.ids().collect();
    Problem::new(graph, judge, &ways, &[ids])
}

fn never() -> u32 {
    0
}

#[test]
fn a_search_on_the_device_finds_what_the_cpu_finds() {
    let device = device();
    let random = (0..6).map(|seed| (format!("random {seed}"), any(5 + seed as usize * 9, seed as usize * 20, seed)));
    for (seed, (name, graph)) in (0..).zip(edge_shapes().into_iter().chain(random)) {
        let problem = match problem(&graph, seed) {
            Ok(problem) => problem,
            Err(why) => {
                assert_eq!((why, graph.len()), (Unfit::TooFewTasks, 1), "{name}");
                continue;
            }
        };
        for method in METHODS {
            let effort = Effort { method, seed, candidates: 5, generations: 2, wanted: 4, spent: &never };
            let found = on_device(&device, &problem, &effort).expect("a search on the device");
            assert_eq!(found, on_cpu(&problem, &effort), "{method:?}: {name}");
            assert_eq!((found.generations, found.evaluations), (2, 15));
        }
    }
}

#[test]
fn a_graph_that_needs_more_shared_memory_than_a_block_has_is_refused() {
    let device = device();
    let graph = graph_of(30_000, &[]);
    let problem = problem(&graph, 0).unwrap();
    let effort = Effort { method: Method::Ants, seed: 1, candidates: 2, generations: 1, wanted: 1, spent: &never };
    let refused = on_device(&device, &problem, &effort).unwrap_err();
    assert!(matches!(refused, OffDevice::TooLarge { .. }), "{refused}");
    let words = refused.to_string();
    // The four tiles of a warp have a word for each task.
    assert!(words.starts_with("30000 tasks are too many") && words.ends_with("enough for about 14528"), "{words}");
}

/// Thirty tasks whose best order is not obvious, on two devices of different speeds.
struct World {
    scene: Scene,
    folder: TempDir,
}

impl World {
    fn new() -> Result<Self, Box<dyn Error>> {
        Self::on(Scene::new()?)
    }

    fn on(scene: Scene) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let mut random = Random::new(11);
        let mut pipeline = String::new();
        for task in 0..30 {
            let gib = 4 + random.below(9);
            pipeline += &format!("[stage.s{task}]\nrun = ['true']\nduration = '{}s'\n", 20 + random.below(200));
            pipeline += &format!("resources = {{ gpu_memory = '{gib}GiB' }}\n");
            if task > 5 && random.below(2) == 0 {
                pipeline += &format!("after = ['s{}']\n", random.below(task - 3));
            }
        }
        fs::write(folder.path().join("p.toml"), pipeline)?;
        let gpu = |model, speed| format!("[[node.gpu]]\nmodel = '{model}'\nmemory = '16GiB'\nspeed = {speed}\n");
        let fleet = ["name = 'f'\n[[node]]\nname = 'n'\ncpus = 64\n", &gpu("A", 1), &gpu("B", 2)].concat();
        fs::write(folder.path().join("fleet.toml"), fleet)?;
        Ok(Self { scene, folder })
    }

    fn command(&self, card: &Card, args: &[&str]) -> Result<Output, Box<dyn Error>> {
        #[expect(clippy::disallowed_methods, reason = "runs the real binary")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.args(["plan", "p.toml", "--fleet", "fleet.toml", "--json", "--timing", "cpu"]).args(args);
        command.current_dir(self.folder.path()).envs(self.scene.environment(card)?).env_remove("RUST_LOG");
        command.env("TRAINYARD_NVML", "none.so").env("NO_COLOR", "1");
        Ok(command.output()?)
    }

    /// Plans; returns what was printed and what was said.
    fn plan(&self, card: &Card, args: &[&str]) -> Result<(String, String), Box<dyn Error>> {
        let output = self.command(card, &[&["--evaluations", "700"], args].concat())?;
        let said = String::from_utf8(output.stderr)?;
        if output.status.code() != Some(0) {
            return Err(format!("{:?}: {said}", output.status).into());
        }
        Ok((String::from_utf8(output.stdout)?, said))
    }
}

#[test]
fn a_plan_found_on_the_device_is_the_one_found_in_its_place_on_the_cpu() -> Tested {
    let world = World::new()?;
    for policy in ["ga", "sa", "aco", "pso"] {
        let (by_cpu, _) = world.plan(&Card::default(), &["--policy", policy, "--device", "cpu"])?;
        assert!(world.scene.log()?.0.is_empty(), "nobody asked for the device");
        let (plan, said) = world.plan(&Card::default(), &["--policy", policy, "--device", "cuda:0", "-v"])?;
        assert_eq!(plan, by_cpu, "{policy}");
        assert!(said.contains("searched on Emulated 0 (cuda:0): "), "{said}");
        assert!(said.contains(" generations of ") && said.contains(" orders, took "), "{said}");
        let log = world.scene.log()?;
        assert!(log.kernels().contains(&"leaders"), "{policy}: {:?}", log.kernels());
        assert_eq!(log.count("cuDevicePrimaryCtxRetain"), 1);
        assert_eq!(log.count("cuMemAlloc_v2"), log.count("cuMemFree_v2"));
        assert_eq!(log.0.last().map(String::as_str), Some("cuDevicePrimaryCtxRelease_v2 0 0 bytes held"));
    }
    Ok(())
}

#[test]
fn what_does_not_search_in_batches_says_so() -> Tested {
    let world = World::new()?;
    for args in [&["--policy", "lns"][..], &["--policy", "fifo"], &["--objective", "weighted-completion"]] {
        let output = world.command(&Card::default(), &[&["--device", "cuda:0"], args].concat())?;
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr)?.contains("`--device` is for"));
    }
    let unknown = world.command(&Card::default(), &["--device", "cuda:x"])?;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(world.scene.log()?.0.is_empty());
    Ok(())
}

/// Asserts that the plan is the one with the device, and that one line says why there was none.
fn assert_goes_on(what: &str, (plan, said): &(String, String), with: &str, reason: &str) {
    assert_eq!(plan, with, "{what}");
    let lines: Vec<_> = said.lines().collect();
    assert!(matches!(lines[..], [line] if line.starts_with("searching on the CPU: ")), "{what}: {said}");
    assert!(said.contains(reason), "{what}: {said}");
}

#[test]
fn without_a_device_that_will_do_the_cpu_searches() -> Tested {
    let world = World::new()?;
    let (by_cpu, _) = world.plan(&Card::default(), &["--policy", "ga", "--device", "cpu"])?;
    let ask = ["--policy", "ga", "--device", "cuda:0"];
    let fails = |name: &str, code| Card { fails: [(name.to_owned(), code)].into(), ..Card::default() };
    let cases = [
        ("no card", Card { count: 0, ..Card::default() }, "there is no CUDA device 0"),
        ("an old driver", Card { version: 11_080, ..Card::default() }, "driver 525 or newer is needed"),
        ("an old card", Card { capability: (6, 1), ..Card::default() }, "has compute capability 6.1"),
        ("a full card", Card { memory: 100, ..Card::default() }, "CUDA_ERROR_OUT_OF_MEMORY"),
        ("no launch", fails("cuLaunchKernel", 719), "start a kernel"),
    ];
    for (what, card, reason) in cases {
        assert_goes_on(what, &world.plan(&card, &ask)?, &by_cpu, reason);
    }
    let other = world.plan(&Card::default(), &["--policy", "ga", "--device", "cuda:7"])?;
    assert_goes_on("another number", &other, &by_cpu, "there is no CUDA device 7");
    let bare = World::on(Scene::without(&["cuMemAlloc_v2"])?)?;
    assert_goes_on(
        "a driver that lacks something",
        &bare.plan(&Card::default(), &ask)?,
        &by_cpu,
        "has no cuMemAlloc_v2",
    );
    Ok(())
}

#[test]
fn a_first_plan_that_is_optimal_needs_no_device_and_says_so() -> Tested {
    let world = World::new()?;
    fs::write(world.folder.path().join("p.toml"), "[stage.a]\nrun = ['true']\nduration = '1s'\n")?;
    let (_, said) = world.plan(&Card::default(), &["--device", "cuda:9", "-v"])?;
    assert!(said.contains("nothing to search on cuda:9: the first plan is proven optimal"), "{said}");
    Ok(())
}

#[test]
fn a_card_may_be_lost_or_full_in_the_middle_of_a_search() -> Tested {
    let world = World::new()?;
    let ask = ["--policy", "sa", "--device", "cuda:0"];
    let (on_device, _) = world.plan(&Card::default(), &ask)?;
    let log = world.scene.log()?.0;
    let given_back = |line: &String| line.starts_with("cuMemFree") || line.starts_with("cuModuleUnload");
    let first_free = log.iter().position(given_back).ok_or("memory is freed")? as u64;
    let calls = log.len() as u64;
    // Calls of every kind: many are alike.
    for at in (0..calls).filter(|at| at % 17 == 0 || calls - at < 3) {
        for (what, card) in [
            ("lost", Card { lost_at: Some(at), ..Card::default() }),
            ("full", Card { fails_at: Some((at, 2)), ..Card::default() }),
        ] {
            let planned = world.plan(&card, &ask)?;
            let what = format!("{what} at call {at} of {calls}, {}", log[at as usize]);
            if planned.1.is_empty() {
                // Only what is given back can fail without being noticed.
                assert!(at >= first_free, "{what}");
                assert_eq!(planned.0, on_device, "{what}");
            } else {
                assert_goes_on(&what, &planned, &on_device, "CUDA_ERROR");
            }
        }
    }
    Ok(())
}
