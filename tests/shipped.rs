//! Every shipped pipeline can be planned on every shipped fleet that it fits, and no plan beats its bound.

use std::path::{Path, PathBuf};

use trainyard::fleet::{self, Fleet};
use trainyard::graph::{self, Limits, TaskGraph};
use trainyard::plan::{self, Options, PlanError};
use trainyard::spec::{Pipeline, Source, op};

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

fn fleets() -> Vec<Fleet> {
    files("fleets").iter().map(|path| fleet::file::parse(&source(path)).expect("a fleet without problems")).collect()
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
                Err(PlanError::Impossible(_)) => {}
                Err(other) => panic!("{} on {}: {other}", pipeline.name, fleet.name),
            }
        }
        assert!(planned >= 3, "{} fits on {planned} fleets", pipeline.name);
    }
}

#[test]
fn what_every_shipped_pipeline_says_is_right() {
    for path in files(".") {
        assert!(!pipeline(&path).1.is_empty(), "{}", path.display());
    }
}
