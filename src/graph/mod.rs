//! From a [`Pipeline`] to a [`TaskGraph`]: matrices expanded, files turned into edges, order
//! found, cycles named.
//!
//! Knows names and precedence; does not know time or devices.

use std::collections::BTreeMap;

use crate::spec::template::Names;
use crate::spec::{self, Action, Pipeline, Problem, Source, Value};
use crate::units::Bytes;

mod build;
mod cycle;
mod expand;
mod files;
pub mod path;
mod rest;
mod rows;

pub use build::build;

/// Index of a task in its graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u32);

impl TaskId {
    /// Returns the index for arrays that are held by task.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A node of the graph: a stage, or one point of its matrix.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// The stage's name, with the point behind it for a matrix: `train[lr=0.1,seed=1]`.
    pub name: String,
    /// Index of the stage in the pipeline.
    pub stage: usize,
    /// Its point of the matrix, in the order of the axes.
    pub point: Vec<(String, Value)>,
    /// What it does, all templates filled in.
    pub action: Action,
    /// Files it reads, patterns replaced by the declared outputs that they match. A pattern that matches no declared
    /// output is kept as written and means files that exist.
    pub inputs: Vec<String>,
    /// Files it promises.
    pub outputs: Vec<String>,
}

impl Task {
    /// Returns the variables that the pipeline and the stage give it, templates filled in. The stage's go before.
    #[must_use]
    pub fn env(&self, pipeline: &Pipeline) -> BTreeMap<String, String> {
        let names = Names { point: &self.point, inputs: &[], outputs: &[] };
        let stage = pipeline.stages[self.stage].env.iter();
        let filled = stage.map(|(name, value)| (name.clone(), names.fill(value, str::to_owned)));
        pipeline.env.clone().into_iter().chain(filled).collect()
    }

    /// Returns what it does where it writes its outputs to these paths instead, which are absolute.
    #[must_use]
    pub fn action_writing_to(&self, pipeline: &Pipeline, outputs: &[String]) -> Action {
        expand::action(&pipeline.stages[self.stage], self, outputs)
    }

    /// Returns the folder that its command runs in, relative to the pipeline file; `.` is the pipeline file's own.
    #[must_use]
    pub fn cwd(&self, pipeline: &Pipeline) -> String {
        expand::cwd(&pipeline.stages[self.stage], &self.point).unwrap_or_else(|| ".".to_owned())
    }
}

/// One end of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The task at the other end.
    pub task: TaskId,
    /// Data that moves along it, between different nodes only.
    pub data: Bytes,
}

/// Adjacency in compressed rows: the edges of task `i` are `edges[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// `[n_tasks + 1]`, indices into `edges`.
    pub offsets: Vec<u32>,
    /// `[n_edges]`, ascending by task within a row, each task once.
    pub edges: Vec<Edge>,
}

impl Rows {
    /// Returns the edges of one task.
    #[must_use]
    #[inline]
    pub fn of(&self, task: TaskId) -> &[Edge] {
        let i = task.index();
        &self.edges[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }
}

/// An input that no task writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideInput {
    /// Index of the stage that reads it.
    pub stage: usize,
    /// Index into the stage's inputs.
    pub input: usize,
    /// The path or pattern, normalised.
    pub path: String,
}

/// How large a graph may become.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Points of one matrix.
    pub max_tasks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_tasks: 10_000 }
    }
}

/// A pipeline file that has been looked through.
#[derive(Debug)]
pub struct Examined {
    /// What is right of the file; without problems, what the user meant.
    pub pipeline: Pipeline,
    /// Its graph, as far as it goes.
    pub graph: TaskGraph,
    /// Everything that is wrong with both, sorted by place.
    pub problems: Vec<Problem>,
    /// Whether something that was written may be missing from the pipeline or the graph: then nothing can be said about
    /// what is absent.
    pub torn: bool,
}

/// Reads a pipeline file with `--set` overrides and builds its graph, going on wherever something is wrong. `roots`: the
/// absolute names of the project's folder, normalised, as far as they are known; inputs below it are seen from it.
#[must_use]
pub fn examine(
    source: &Source,
    sets: &[String],
    catalogue: &[spec::op::Op],
    limits: Limits,
    roots: &[String],
) -> Examined {
    let spec::Parsed { mut pipeline, mut problems, torn, lacks_outputs } = spec::parse(source, sets, catalogue);
    for input in pipeline.stages.iter_mut().flat_map(|stage| &mut stage.inputs) {
        if let Some(seen) = path::seen_from_root(roots, &input.text) {
            input.text = seen;
        }
    }
    // Behind a syntax error half a pipeline may be missing: what it seems to lack is not the user's fault.
    if torn {
        return Examined { pipeline, graph: TaskGraph::default(), problems, torn };
    }
    let (graph, more) = build::draft(&pipeline, limits);
    problems.extend(more);
    spec::problem::sort(&mut problems);
    let n_expanded = graph.tasks.chunk_by(|a, b| a.stage == b.stage).count();
    let torn = lacks_outputs || n_expanded < pipeline.stages.len();
    Examined { pipeline, graph, problems, torn }
}

/// Reads a pipeline file with `--set` overrides and builds its graph; all problems of both together, sorted by place.
pub fn load(
    source: &Source,
    sets: &[String],
    catalogue: &[spec::op::Op],
    limits: Limits,
) -> Result<(Pipeline, TaskGraph), Vec<Problem>> {
    let examined = examine(source, sets, catalogue, limits, &[]);
    match examined.problems.is_empty() {
        true => Ok((examined.pipeline, examined.graph)),
        false => Err(examined.problems),
    }
}

/// Tasks and their precedence.
#[derive(Clone, Debug, Default)]
pub struct TaskGraph {
    /// `[n_tasks]`, by TaskId: stages in the order of the file, matrix points in row-major order.
    pub tasks: Vec<Task>,
    /// Who must finish before.
    pub before: Rows,
    /// Who waits.
    pub after: Rows,
    /// A topological order; among equals the smaller TaskId first.
    pub order: Vec<TaskId>,
}

impl TaskGraph {
    /// Returns how many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is no task at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Returns the inputs that no task of the graph writes: files that must exist before a run.
    #[must_use]
    pub fn outside_inputs(&self, pipeline: &Pipeline) -> Vec<OutsideInput> {
        build::outside_inputs(pipeline, &self.tasks)
    }

    /// Returns all ids, ascending.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = TaskId> + use<> {
        (0..u32::try_from(self.tasks.len()).unwrap_or(u32::MAX)).map(TaskId)
    }
}
