//! Matrices expanded: the tasks of a stage, their names, points and outputs, and in the end what they do.

use super::{Limits, Task, path};
use crate::spec::template::{Names, Piece, pieces, shell_quote};
use crate::spec::{Action, Axis, Located, Pipeline, Problem, Stage, Value};

/// Returns the tasks of a stage, with names, points and outputs; nothing if there are too many.
pub(super) fn tasks(stage: &Stage, index: usize, limits: Limits, problems: &mut Vec<Problem>) -> Vec<Task> {
    let size = stage.matrix.iter().map(|axis| axis.points.len()).try_fold(1_usize, usize::checked_mul);
    let Some(size) = size.filter(|size| *size <= limits.max_tasks.max(1)) else {
        problems.push(too_many(stage, size, limits));
        return Vec::new();
    };
    let mut wrong = vec![false; stage.outputs.len()];
    (0..size)
        .map(|n| {
            let point = point(&stage.matrix, n);
            let names = Names { point: &point, inputs: &[], outputs: &[] };
            let outputs = stage.outputs.iter().zip(&mut wrong).map(|(output, wrong)| {
                let written = names.fill(&output.path.text, str::to_owned);
                let normal = path::normalise(&written);
                if !*wrong && let Some(problem) = misplaced(&output.path, &written, &normal) {
                    problems.push(problem);
                    *wrong = true;
                }
                normal
            });
            let outputs = outputs.collect();
            Task { name: name(&stage.name, &point), stage: index, point, outputs, ..Task::default() }
        })
        .collect()
}

fn too_many(stage: &Stage, size: Option<usize>, limits: Limits) -> Problem {
    let axes: Vec<_> = stage.matrix.iter().map(|axis| axis.points.len().to_string()).collect();
    let count = size.map_or("far too many".to_owned(), |size| size.to_string());
    let message = format!("the matrix of `{}` has {count} points, more than {}", stage.name, limits.max_tasks);
    let span = stage.matrix.first().map_or(stage.span.clone(), |axis| axis.name.span.clone());
    let problem = Problem::new(span, message);
    match size {
        Some(size) => problem.help(format!("{}: if that is meant, allow it with --max-tasks {size}", axes.join(" × "))),
        None => problem.help(format!("{}: split the stage, or name fewer values", axes.join(" × "))),
    }
}

/// Returns the n-th point of a matrix in row-major order: the last axis runs fastest.
fn point(matrix: &[Axis], mut n: usize) -> Vec<(String, Value)> {
    let mut point = Vec::with_capacity(matrix.len());
    for axis in matrix.iter().rev() {
        point.push((axis.name.text.clone(), axis.points[n % axis.points.len()].clone()));
        n /= axis.points.len();
    }
    point.reverse();
    point
}

fn name(stage: &str, point: &[(String, Value)]) -> String {
    if point.is_empty() {
        return stage.to_owned();
    }
    let point: Vec<_> = point.iter().map(|(axis, value)| format!("{axis}={}", value.label())).collect();
    format!("{stage}[{}]", point.join(","))
}

/// Returns why an output cannot be where it is meant to be.
fn misplaced(declared: &Located, written: &str, normal: &str) -> Option<Problem> {
    let problem = |message: String| Some(Problem::new(declared.span.clone(), message));
    if written.starts_with('/') {
        let help = "write it relative to the pipeline file; copy it elsewhere in the command if need be";
        return problem(format!("the output `{written}` is an absolute path")).map(|problem| problem.help(help));
    }
    if !path::is_inside(normal) {
        let help = "outputs lie beside or below the pipeline file";
        return problem(format!("the output `{written}` leaves the project")).map(|problem| problem.help(help));
    }
    if normal == "." {
        return problem("the project's own folder cannot be an output".to_owned());
    }
    if path::is_pattern(normal) {
        let help = "patterns are for inputs; of many files name the folder";
        return problem(format!("the output `{written}` is a pattern")).map(|problem| problem.help(help));
    }
    None
}

/// Fills in what a task does, once its inputs are known, where it writes to these `outputs`.
pub(super) fn action(stage: &Stage, task: &Task, outputs: &[String]) -> Action {
    let cwd = cwd(stage, &task.point).unwrap_or_else(|| ".".to_owned());
    let seen = |files: &[String]| -> Vec<String> { files.iter().map(|file| path::seen_from(&cwd, file)).collect() };
    let (inputs, from_there) = match cwd.as_str() {
        "." => (None, None),
        _ => (Some(seen(&task.inputs)), Some(seen(outputs))),
    };
    let names = Names {
        point: &task.point,
        inputs: inputs.as_deref().unwrap_or(&task.inputs),
        outputs: from_there.as_deref().unwrap_or(outputs),
    };
    match &stage.action {
        Action::Shell(line) => Action::Shell(Located { text: names.fill(&line.text, quote), span: line.span.clone() }),
        Action::Exec(words) => {
            let words = words.iter().flat_map(|word| {
                let filled = names.fill_argument(&word.text);
                filled.into_iter().map(|text| Located { text, span: word.span.clone() })
            });
            Action::Exec(words.collect())
        }
        Action::Op { name, with } => {
            let with = with.iter().map(|(key, value, span)| (key.clone(), names.fill_value(value), span.clone()));
            Action::Op { name: name.clone(), with: with.collect() }
        }
    }
}

/// Quotes a file for the shell. A pattern, which means files that exist, keeps its `*` and `?` for the shell to expand.
fn quote(file: &str) -> String {
    let piece = |piece: &str| match piece.strip_suffix(['*', '?']) {
        Some("") => piece.to_owned(),
        Some(rest) => format!("{}{}", shell_quote(rest), &piece[rest.len()..]),
        None => shell_quote(piece),
    };
    match path::is_pattern(file) {
        true => file.split_inclusive(['*', '?']).map(piece).collect(),
        false => shell_quote(file),
    }
}

/// Returns the folder of a stage's command at a point, normalised; `None` if the stage names none.
pub(super) fn cwd(stage: &Stage, point: &[(String, Value)]) -> Option<String> {
    let names = Names { point, inputs: &[], outputs: &[] };
    stage.cwd.as_ref().map(|cwd| path::normalise(&names.fill(&cwd.text, str::to_owned)))
}

/// Reports `{inputs}` and `{outputs}` in a command whose folder is outside the project: nobody can say, from the text
/// alone, how the files are reached from there.
pub(super) fn check_cwd(pipeline: &Pipeline, task: &Task, problems: &mut Vec<Problem>) {
    let stage = &pipeline.stages[task.stage];
    let Some(cwd) = cwd(stage, &task.point).filter(|cwd| !path::is_inside(cwd)) else { return };
    let words: &[Located] = match &stage.action {
        Action::Shell(line) => std::slice::from_ref(line),
        Action::Exec(words) => words,
        Action::Op { .. } => &[],
    };
    let names_files = |text: &str| pieces(text).any(|(piece, _)| matches!(piece, Piece::Inputs | Piece::Outputs));
    if let (Some(word), Some(place)) = (words.iter().find(|word| names_files(&word.text)), &stage.cwd) {
        let message = format!("`{cwd}` is outside the project: `{{inputs}}` and `{{outputs}}` are unknown there");
        let problem = Problem::new(place.span.clone(), message).related(word.span.clone(), "used here");
        problems.push(problem.help("leave `cwd` out and change the folder in the command, or write the paths out"));
    }
}
