//! The way from a pipeline to its graph: expand, find who waits for whom, order, name what goes wrong.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::files::{Files, Made};
use super::rows::{self, Found};
use super::{Limits, OutsideInput, Rows, Task, TaskGraph, TaskId, cycle, expand, path};
use crate::spec::template::Names;
use crate::spec::{Located, Pipeline, Problem, Span, decode, problem};

/// Precedences of one graph: 10 million take about half a GB while the graph is built.
const MOST_EDGES: usize = 10_000_000;
/// Unknown stages for which a near name is looked for.
const MOST_SUGGESTIONS: usize = 100;
/// Hops of a cycle that are shown one by one.
const MOST_HOPS: usize = 8;

/// Builds the graph of a pipeline, or returns all that is wrong with it, sorted by place.
pub fn build(pipeline: &Pipeline, limits: Limits) -> Result<TaskGraph, Vec<Problem>> {
    let (graph, mut problems) = draft(pipeline, limits);
    problem::sort(&mut problems);
    if problems.is_empty() { Ok(graph) } else { Err(problems) }
}

/// Builds the graph as far as it goes: with problems, some tasks, edges or the order may be missing.
pub(super) fn draft(pipeline: &Pipeline, limits: Limits) -> (TaskGraph, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut tasks = Vec::new();
    let mut of_stage = Vec::with_capacity(pipeline.stages.len());
    for (index, stage) in pipeline.stages.iter().enumerate() {
        let start = tasks.len();
        tasks.extend(expand::tasks(stage, index, limits, &mut problems));
        of_stage.push(start..tasks.len());
        if let Some(task) = tasks[start..].first() {
            expand::check_cwd(pipeline, task, &mut problems);
        }
    }
    let (files, twice) = Files::new(made(pipeline, &tasks));
    problems.extend(written_twice(pipeline, &tasks, &twice));
    problems.extend(written_within(pipeline, &tasks, &files.nested()));
    let mut search = Search { pipeline, tasks: &tasks, of_stage, files, found: Vec::new(), problems };
    search.explicit();
    let inputs = search.files();
    let (before, after) = rows::rows(tasks.len(), std::mem::take(&mut search.found));
    let order = rows::order(&before, &after);
    if order.len() < tasks.len() {
        search.name_cycles(&after);
    }
    let problems = search.problems;
    for (task, inputs) in tasks.iter_mut().zip(inputs) {
        task.inputs = inputs;
        task.action = expand::action(&pipeline.stages[task.stage], task, &task.outputs);
    }
    (TaskGraph { tasks, before, after, order }, problems)
}

/// Returns the tasks with their ids.
fn with_ids(tasks: &[Task]) -> impl Iterator<Item = (TaskId, &Task)> {
    (0..u32::MAX).map(TaskId).zip(tasks)
}

/// Returns the inputs that no task writes.
pub(super) fn outside_inputs(pipeline: &Pipeline, tasks: &[Task]) -> Vec<OutsideInput> {
    let made = made(pipeline, tasks);
    // Most inputs are outputs, and are found without looking for patterns and folders.
    let outputs: HashSet<&str> = made.iter().map(|made| made.path).collect();
    let files = LazyCell::new(|| Files::new(made.clone()).0);
    let mut outside = Vec::new();
    for (id, task) in with_ids(tasks) {
        // Where every input is an output, they are all there, whatever they were written as.
        if task.inputs.iter().all(|path| outputs.contains(path.as_str())) {
            continue;
        }
        for (input, declared) in pipeline.stages[task.stage].inputs.iter().enumerate() {
            let path = written_input(declared, task);
            if files.read(&path, id).from.is_empty() {
                outside.push(OutsideInput { stage: task.stage, input, path });
            }
        }
    }
    outside
}

/// Returns all declared outputs that lie where they may.
fn made<'t>(pipeline: &Pipeline, tasks: &'t [Task]) -> Vec<Made<'t>> {
    let of_task = |(id, task): (TaskId, &'t Task)| {
        let declared = &pipeline.stages[task.stage].outputs;
        let paths = task.outputs.iter().zip(declared).enumerate();
        paths.map(move |(output, (path, declared))| Made { path, task: id, output, size: declared.size })
    };
    with_ids(tasks).flat_map(of_task).filter(|made| path::is_inside(made.path)).collect()
}

/// Reports outputs that are written twice, once for each pair of places in the file.
fn written_twice(pipeline: &Pipeline, tasks: &[Task], twice: &[(Made<'_>, Made<'_>)]) -> Vec<Problem> {
    let declared = |made: &Made<'_>| (tasks[made.task.index()].stage, made.output);
    let span = |(stage, output): (usize, usize)| pipeline.stages[stage].outputs[output].path.span.clone();
    let mut said = HashSet::new();
    let mut problems = Vec::new();
    for (first, second) in twice {
        let (one, two) = (declared(first), declared(second));
        if !said.insert((one, two)) {
            continue;
        }
        let (a, b) = (&tasks[first.task.index()].name, &tasks[second.task.index()].name);
        let path = second.path;
        problems.push(match (one == two, one.0 == two.0) {
            (true, _) => Problem::new(span(two), format!("`{a}` and `{b}` both write `{path}`"))
                .help("name the axes of the matrix in the path, like `model-{matrix.lr}.bin`"),
            (false, true) if a == b => Problem::new(span(two), format!("`{a}` names the output `{path}` twice"))
                .related(span(one), "first here"),
            (false, _) => Problem::new(span(two), format!("`{a}` and `{b}` both write `{path}`"))
                .help("let each write a file of its own")
                .related(span(one), format!("`{a}` writes it here")),
        });
    }
    problems
}

/// Reports outputs that lie within another task's, once for each pair of places in the file.
fn written_within(pipeline: &Pipeline, tasks: &[Task], nested: &[(Made<'_>, Made<'_>)]) -> Vec<Problem> {
    let declared = |made: &Made<'_>| (tasks[made.task.index()].stage, made.output);
    let span = |(stage, output): (usize, usize)| pipeline.stages[stage].outputs[output].path.span.clone();
    let mut said = HashSet::new();
    let mut problems = Vec::new();
    for (outer, inner) in nested {
        let (around, within) = (declared(outer), declared(inner));
        if !said.insert((around, within)) {
            continue;
        }
        let (a, b) = (&tasks[outer.task.index()].name, &tasks[inner.task.index()].name);
        let message = format!("`{b}` writes `{}` within `{}`, which `{a}` writes", inner.path, outer.path);
        let problem = Problem::new(span(within), message);
        let problem =
            problem.help("let each write a folder of its own: nobody could tell when one of both is complete");
        problems.push(if around == within {
            problem
        } else {
            problem.related(span(around), format!("`{a}` writes it here"))
        });
    }
    problems
}

/// The search for who waits for whom.
struct Search<'p> {
    pipeline: &'p Pipeline,
    tasks: &'p [Task],
    /// `[n_stages]`: the tasks of each stage.
    of_stage: Vec<Range<usize>>,
    files: Files<'p>,
    found: Vec<Found>,
    problems: Vec<Problem>,
}

impl Search<'_> {
    fn ids(&self, stage: usize) -> impl ExactSizeIterator<Item = TaskId> + use<> {
        // A graph of 2^32 tasks would not fit into memory.
        let id = |i: usize| u32::try_from(i).unwrap_or(u32::MAX);
        (id(self.of_stage[stage].start)..id(self.of_stage[stage].end)).map(TaskId)
    }

    /// Finds the order that `after` asks for.
    fn explicit(&mut self) {
        let pipeline = self.pipeline;
        let index: HashMap<&str, usize> =
            pipeline.stages.iter().enumerate().map(|(i, stage)| (stage.name.as_str(), i)).collect();
        for (s, stage) in pipeline.stages.iter().enumerate() {
            for entry in &stage.after {
                match index.get(entry.stage.text.as_str()) {
                    None => {
                        // Every suggestion looks at all names: a file that is wrong throughout gets no more of them.
                        let most = if self.problems.len() < MOST_SUGGESTIONS { usize::MAX } else { 0 };
                        let known = pipeline.stages.iter().map(|stage| stage.name.as_str()).take(most);
                        self.problems.push(decode::unknown("stage", &entry.stage, known));
                    }
                    Some(before) if *before == s => {
                        let message = format!("stage `{}` waits for itself", stage.name);
                        self.problems.push(Problem::new(entry.stage.span.clone(), message));
                    }
                    Some(before) => self.all_after_all(*before, s, entry),
                }
            }
        }
    }

    fn all_after_all(&mut self, before: usize, after: usize, entry: &crate::spec::After) {
        let pairs = self.ids(before).len().saturating_mul(self.ids(after).len());
        if self.too_many(pairs, &entry.stage.span) {
            return;
        }
        for after in self.ids(after) {
            let found = self.ids(before).map(|before| Found { after, before, data: entry.data });
            self.found.extend(found);
        }
    }

    /// Whether so many more precedences are too many; reports it.
    fn too_many(&mut self, more: usize, place: &Span) -> bool {
        let too_many = self.found.len().saturating_add(more) > MOST_EDGES;
        if too_many {
            let message = format!("this makes more than {MOST_EDGES} pairs of tasks that wait for each other");
            let help = "put a stage with a single task between the two";
            self.problems.push(Problem::new(place.clone(), message).help(help));
        }
        too_many
    }

    /// Finds the order that files ask for and returns the inputs of every task.
    fn files(&mut self) -> Vec<Vec<String>> {
        let mut refused = HashSet::new();
        let mut all = Vec::with_capacity(self.tasks.len());
        for (id, task) in with_ids(self.tasks) {
            let mut inputs = Vec::new();
            for (i, input) in self.pipeline.stages[task.stage].inputs.iter().enumerate() {
                let written = written_input(input, task);
                let read = self.files.read(&written, id);
                if !refused.contains(&(task.stage, i)) && !self.follow(id, input, &written, &read.from) {
                    refused.insert((task.stage, i));
                }
                match read.gathers {
                    true => inputs.extend(read.from.iter().map(|made| made.path.to_owned())),
                    false => inputs.push(written),
                }
            }
            all.push(inputs);
        }
        all
    }

    /// Notes that `reader` comes after those who write one of its inputs; `false` if that cannot be.
    fn follow(&mut self, reader: TaskId, input: &Located, written: &str, from: &[Made<'_>]) -> bool {
        if self.too_many(from.len(), &input.span) {
            return false;
        }
        for made in from {
            if made.task == reader {
                let task = &self.tasks[reader.index()];
                let own = &self.pipeline.stages[task.stage].outputs[made.output];
                let problem =
                    Problem::new(input.span.clone(), format!("`{}` reads `{written}`, its own output", task.name));
                self.problems.push(problem.related(own.path.span.clone(), "written here"));
                return false;
            }
            self.found.push(Found { after: reader, before: made.task, data: made.size });
        }
        true
    }

    /// Reports every cycle, hop by hop; one that runs through the same stages as another only once.
    fn name_cycles(&mut self, after: &Rows) {
        let mut said = HashSet::new();
        for cycle in cycle::cycles(after) {
            let stages: Vec<_> = cycle.iter().map(|task| self.tasks[task.index()].stage).collect();
            if said.insert(stages) {
                let problem = self.cycle_problem(&cycle);
                self.problems.push(problem);
            }
        }
    }

    fn cycle_problem(&self, cycle: &[TaskId]) -> Problem {
        let name = |task: TaskId| self.tasks[task.index()].name.as_str();
        let mut names: Vec<_> = cycle.iter().take(MOST_HOPS).map(|task| name(*task)).collect();
        if cycle.len() > MOST_HOPS {
            names.push("…");
        }
        names.push(name(cycle[0]));
        let hops = cycle.iter().zip(cycle.iter().cycle().skip(1)).take(MOST_HOPS);
        let hops: Vec<_> = hops.map(|(before, after)| self.why(*before, *after)).collect();
        let problem = Problem {
            message: format!("these wait for each other: {}", names.join(" → ")),
            related: hops,
            ..Problem::default()
        };
        // The place is the first of them in the file.
        let span = problem.related.iter().map(|(span, _)| span).min_by_key(|span| problem::place(span)).cloned();
        Problem { span: span.unwrap_or_default(), ..problem }.help("take one of these dependencies away")
    }

    /// Returns where the file says that `after` comes after `before`, and how.
    fn why(&self, before: TaskId, after: TaskId) -> (Span, String) {
        let (earlier, later) = (&self.tasks[before.index()], &self.tasks[after.index()]);
        let stage = &self.pipeline.stages[later.stage];
        let earlier_stage = &self.pipeline.stages[earlier.stage].name;
        if let Some(entry) = stage.after.iter().find(|entry| entry.stage.text == *earlier_stage) {
            return (entry.stage.span.clone(), format!("`{}` comes after `{}`", later.name, earlier.name));
        }
        let reads = stage.inputs.iter().find_map(|input| {
            let read = self.files.read(&written_input(input, later), after);
            let made = read.from.into_iter().find(|made| made.task == before)?;
            let words = format!("`{}` reads `{}`, which `{}` writes", later.name, made.path, earlier.name);
            Some((input.span.clone(), words))
        });
        // Every edge comes from one of the two.
        reads.unwrap_or_default()
    }
}

/// Returns an input at a task's point, normalised.
fn written_input(input: &Located, task: &Task) -> String {
    let names = Names { point: &task.point, inputs: &[], outputs: &[] };
    path::normalise(&names.fill(&input.text, str::to_owned))
}
