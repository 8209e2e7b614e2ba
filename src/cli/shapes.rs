//! The shapes of usual pipelines and usual machines, for `bench` where nobody names others: files of `pipelines/` that are
//! compiled in.

use crate::fleet::{Fleet, file};
use crate::graph::{self, Limits, TaskGraph};
use crate::spec::{Pipeline, Source, op};

const PIPELINES: [(&str, &str); 5] = [
    ("sweep.toml", include_str!("../../pipelines/shapes/sweep.toml")),
    ("cross-validation.toml", include_str!("../../pipelines/shapes/cross-validation.toml")),
    ("finetune.toml", include_str!("../../pipelines/shapes/finetune.toml")),
    ("recommender.toml", include_str!("../../pipelines/shapes/recommender.toml")),
    ("vision.toml", include_str!("../../pipelines/shapes/vision.toml")),
];

const FLEETS: [(&str, &str); 2] = [
    ("a100x8.toml", include_str!("../../pipelines/fleets/a100x8.toml")),
    ("mixed.toml", include_str!("../../pipelines/fleets/mixed.toml")),
];

fn source((name, text): &(&str, &str)) -> Source {
    Source { name: (*name).to_owned(), text: (*text).to_owned() }
}

/// Returns the pipelines.
pub(super) fn pipelines() -> Vec<(Pipeline, TaskGraph)> {
    let load = |file| graph::load(&source(file), &[], op::CATALOGUE, Limits::default());
    PIPELINES.iter().map(|file| load(file).expect("a test reads every shipped pipeline")).collect()
}

/// Returns the machines.
pub(super) fn fleets() -> Vec<Fleet> {
    FLEETS.iter().map(|fleet| file::parse(&source(fleet)).expect("a test reads every shipped fleet")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_pipeline_and_every_fleet_can_be_read() {
        assert!(pipelines().iter().all(|(_, graph)| graph.len() > 10));
        assert!(fleets().iter().all(|fleet| !fleet.devices.is_empty()));
    }
}
