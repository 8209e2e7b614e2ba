//! Every shipped pipeline can be planned on every shipped fleet that it fits, and no plan beats its bound.

use std::path::{Path, PathBuf};

use trainyard::fleet::{self, Fleet};
use trainyard::graph::{self, Limits, TaskGraph};
use trainyard::plan::{self, Options, PlanError};
use trainyard::probe::model;
use trainyard::spec::{Pipeline, Source, op};
use trainyard::units::Millis;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(folder);
    let entries = std::fs::read_dir(folder).expect("a folder of the project");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    files
}

fn source(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).expect("a file that can be read");
    Source { name: path.display().to_string(), text }
}

fn pipeline(path: &Path) -> (Pipeline, TaskGraph) {
    graph::load(&source(path), &[], op::CATALOGUE, Limits::default()).expect("a pipeline without problems")
}

fn fleet(path: &Path) -> Fleet {
    fleet::file::parse(&source(path)).expect("a fleet without problems")
}

fn fleets() -> Vec<Fleet> {
    files("fleets").iter().map(|path| fleet(path)).collect()
}

/// Plans one of the articles' examples and returns its makespan and modes, proven optimal.
fn solved(name: &str, fleet_name: &str) -> (Millis, Vec<usize>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/articles");
    let (pipeline, graph) = pipeline(&folder.join(name));
    let fleet = fleet(&folder.join(fleet_name));
    let limits = plan::Limits { evaluations: Some(10_000), ..plan::Limits::default() };
    let plan = plan::make(&pipeline, &graph, &fleet, &Options { limits, ..Options::default() }).expect("a plan");
    assert!(plan.is_optimal(), "{name}: {} and {}", plan.makespan, plan.lower_bound);
    (plan.makespan, plan.placed.iter().map(|placed| placed.mode).collect())
}

const HOUR: u64 = 3_600_000;

#[test]
fn the_examples_of_the_articles_have_their_exact_answers() {
    assert_eq!(solved("devices.toml", "devices.fleet.toml").0, Millis(4 * HOUR));
    assert_eq!(solved("chain.toml", "units.fleet.toml").0, Millis(7 * HOUR));
    assert_eq!(solved("phases.toml", "units.fleet.toml").0, Millis(7 * HOUR));
    assert_eq!(solved("efficiency.toml", "units.fleet.toml"), (Millis(HOUR / 2 + HOUR / 3 * 5 / 3), vec![0, 1]));
    assert_eq!(solved("units.toml", "units.fleet.toml"), (Millis(23 * HOUR / 4), vec![0, 1, 1, 1, 1]));
}

#[test]
fn the_smallest_total_load_of_the_five_tasks_is_that_of_the_fastest_device() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/articles");
    let (pipeline, graph) = pipeline(&folder.join("devices.toml"));
    let fleet = fleet(&folder.join("devices.fleet.toml"));
    let loads = plan::Instance::new(&pipeline, &graph, &fleet).expect("every task fits").load_matrix(&fleet);
    let least = |task: usize| loads.times.iter().filter_map(|row| row[task]).min().unwrap_or_default();
    let total: Millis = graph.ids().map(|task| least(task.index())).sum();
    assert_eq!(total, Millis(33 * HOUR / 4));
    let all_on = |device: usize| loads.times[device].iter().copied().flatten().sum::<Millis>();
    assert_eq!(all_on(2), total);
}

#[test]
fn every_shape_is_planned_on_every_fleet_that_can_hold_it() {
    let fleets = fleets();
    assert!(fleets.len() >= 6);
    let shapes = files("shapes");
    assert!(shapes.len() >= 5);
    for path in shapes {
        let (pipeline, graph) = pipeline(&path);
        let mut planned = 0;
        for fleet in &fleets {
            let limits = plan::Limits { evaluations: Some(20), ..plan::Limits::default() };
            match plan::make(&pipeline, &graph, fleet, &Options { limits, ..Options::default() }) {
                Ok(plan) => {
                    planned += 1;
                    assert!(plan.makespan >= plan.lower_bound, "{} on {}", pipeline.name, fleet.name);
                }
                // A card of 24 GB holds no training that asks for 60.
                Err(PlanError::Impossible { .. }) => {}
                Err(other) => panic!("{} on {}: {other}", pipeline.name, fleet.name),
            }
        }
        assert!(planned >= 3, "{} fits on {planned} fleets", pipeline.name);
    }
}

/// What NVML calls the cards of the shipped fleets.
const CARDS: [&str; 6] = [
    "NVIDIA A100-SXM4-80GB",
    "NVIDIA GeForce RTX 4090",
    "NVIDIA H100 80GB HBM3",
    "NVIDIA H200",
    "NVIDIA L4",
    "NVIDIA L40S",
];

#[test]
fn models_and_speeds_of_fleets_are_those_that_real_cards_are_given() {
    let known: Vec<String> = CARDS.iter().map(|full| model::short_name(full)).collect();
    for fleet in fleets() {
        for device in &fleet.devices {
            assert!(known.contains(&device.model), "{}: no card is called {}", fleet.name, device.model);
            let real = model::speed(&device.model).expect("a known model");
            assert!(real.0.abs_diff(device.speed.0) < 1_000, "{}: {} is {real} as fast", fleet.name, device.model);
        }
    }
}

#[test]
fn what_every_shipped_pipeline_says_is_right() {
    for path in files(".") {
        assert!(!pipeline(&path).1.is_empty(), "{}", path.display());
    }
}
