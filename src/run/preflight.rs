//! What only the file system can tell before a run: inputs and folders that nobody makes and that are not there, and
//! outputs that leave the project through links.
//!
//! Looks, and changes nothing. Whether a command exists is found out when it is started.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::graph::{TaskGraph, path};
use crate::spec::{Pipeline, Problem};

/// Missing inputs for which a near output is looked for.
const MOST_SUGGESTIONS: usize = 100;

/// Returns everything that is wrong with the files of a pipeline, sorted by place. `folder` is that of the pipeline
/// file.
#[must_use]
pub fn check(pipeline: &Pipeline, graph: &TaskGraph, folder: &Path) -> Vec<Problem> {
    let mut problems = missing_inputs(pipeline, graph, folder);
    problems.extend(missing_folders(pipeline, graph, folder));
    problems.extend(linked_outputs(pipeline, graph, folder));
    crate::spec::problem::sort(&mut problems);
    problems
}

/// Reports inputs that no task writes and that do not exist, one problem for each place in the file.
fn missing_inputs(pipeline: &Pipeline, graph: &TaskGraph, folder: &Path) -> Vec<Problem> {
    let mut there: HashMap<String, bool> = HashMap::new();
    let mut problems: Vec<Problem> = Vec::new();
    let mut said = std::collections::HashSet::new();
    for outside in graph.outside_inputs(pipeline) {
        let exists = *there.entry(outside.path.clone()).or_insert_with(|| match path::is_pattern(&outside.path) {
            true => !existing(folder, &outside.path).is_empty(),
            false => folder.join(&outside.path).exists(),
        });
        if !exists && said.insert((outside.stage, outside.input)) {
            let stage = &pipeline.stages[outside.stage];
            let what = if path::is_pattern(&outside.path) { "no file matches" } else { "there is no file" };
            let message = format!("{what} `{}`, and no stage writes it", outside.path);
            let problem = Problem::new(stage.inputs[outside.input].span.clone(), message);
            // Every suggestion looks at all outputs: a file that is wrong throughout gets no more of them.
            let most = if problems.len() < MOST_SUGGESTIONS { usize::MAX } else { 0 };
            let outputs = pipeline.stages.iter().flat_map(|stage| &stage.outputs).take(most);
            let outputs = outputs.map(|output| output.path.text.as_str()).filter(|path| *path != outside.path);
            let near = crate::spec::problem::did_you_mean(&outside.path, outputs);
            problems.push(match near {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help("paths are relative to the pipeline file"),
            });
        }
    }
    problems
}

/// Reports folders of commands that are not there and that no output makes, one problem for each place in the file.
fn missing_folders(pipeline: &Pipeline, graph: &TaskGraph, folder: &Path) -> Vec<Problem> {
    // What a task writes is made together with the folders around it.
    fn around(path: &str) -> impl Iterator<Item = &str> {
        path.match_indices('/').map(|(end, _)| &path[..end])
    }
    let asked = pipeline.stages.iter().any(|stage| stage.cwd.is_some());
    let outputs = || graph.tasks.iter().filter(|_| asked).flat_map(|task| &task.outputs).map(String::as_str);
    let made: HashSet<&str> = outputs().collect();
    let around_made: HashSet<&str> = outputs().flat_map(around).collect();
    // What lies within an output, nobody can say.
    let is_made =
        |cwd: &str| made.contains(cwd) || around_made.contains(cwd) || around(cwd).any(|path| made.contains(path));
    let mut said = HashSet::new();
    let mut problems = Vec::new();
    for task in &graph.tasks {
        let Some(written) = &pipeline.stages[task.stage].cwd else { continue };
        let cwd = task.cwd(pipeline);
        let there = folder.join(&cwd);
        if there.is_dir() || is_made(&cwd) || !said.insert(task.stage) {
            continue;
        }
        let problem = match there.exists() {
            true => Problem::new(written.span.clone(), format!("`{cwd}` is not a folder")),
            false => Problem::new(written.span.clone(), format!("there is no folder `{cwd}`, and no stage writes it"))
                .help("paths are relative to the pipeline file; a stage that makes it names it in its `outputs`"),
        };
        problems.push(problem);
    }
    problems
}

/// Returns the existing files that match a pattern, sorted, as the pattern is written: relative to `folder` or absolute.
#[must_use]
pub fn existing(folder: &Path, pattern: &str) -> Vec<String> {
    let (mut found, rest) = match pattern.strip_prefix('/') {
        Some(rest) => (vec!["/".to_owned()], rest),
        None => (vec![String::new()], pattern),
    };
    for part in rest.split('/') {
        found = found.iter().flat_map(|parent| children(folder, parent, part)).collect();
    }
    found.sort();
    found
}

/// Returns what lies in a folder and matches one part of a pattern. Hidden files match only a part that starts with a
/// point, as in a shell.
fn children(folder: &Path, parent: &str, part: &str) -> Vec<String> {
    let join = |name: &str| match parent {
        "" | "/" => format!("{parent}{name}"),
        parent => format!("{parent}/{name}"),
    };
    if !path::is_pattern(part) {
        let child = join(part);
        return if folder.join(&child).exists() { vec![child] } else { Vec::new() };
    }
    // A folder that cannot be read has nothing that a stage could read.
    let Ok(entries) = std::fs::read_dir(folder.join(parent)) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let visible = |name: &String| part.starts_with('.') || !name.starts_with('.');
    names.filter(visible).filter(|name| path::matches(part, name)).map(|name| join(&name)).collect()
}

/// Reports outputs whose folder, or which themselves, lead out of the project through a link.
fn linked_outputs(pipeline: &Pipeline, graph: &TaskGraph, folder: &Path) -> Vec<Problem> {
    // A folder that cannot be resolved has no links in it that could be followed.
    let Ok(root) = folder.canonicalize() else {
        return Vec::new();
    };
    let mut folders = Folders { root: &root, outputs: count(graph), known: HashMap::new() };
    let mut said = HashSet::new();
    let mut problems = Vec::new();
    for task in &graph.tasks {
        for (i, output) in task.outputs.iter().enumerate() {
            // One that leaves the project by its text alone is the graph's problem.
            if !path::is_inside(output) {
                continue;
            }
            let message = match folders.escape(output) {
                Escape::None => continue,
                Escape::To(target) => format!("the output `{output}` leaves the project: a link leads to `{target}`"),
                Escape::Nowhere => format!("the output `{output}` goes through a link that leads nowhere"),
            };
            if said.insert((task.stage, i)) {
                let place = pipeline.stages[task.stage].outputs[i].path.span.clone();
                problems.push(Problem::new(place, message).help("outputs lie beside or below the pipeline file"));
            }
        }
    }
    problems
}

/// Where the links of a path lead.
#[derive(Clone, Debug)]
enum Escape {
    /// They stay in the project, or there are none.
    None,
    /// Out of it.
    To(String),
    /// To something that does not exist.
    Nowhere,
}

/// Returns how many outputs lie in each folder, by its path relative to the root.
fn count(graph: &TaskGraph) -> HashMap<&str, usize> {
    let mut count = HashMap::new();
    for output in graph.tasks.iter().flat_map(|task| &task.outputs) {
        *count.entry(split(output).0).or_default() += 1;
    }
    count
}

/// Returns folder and name of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The folders of outputs, each looked at once.
struct Folders<'a> {
    root: &'a Path,
    /// By folder: outputs in it.
    outputs: HashMap<&'a str, usize>,
    /// By folder: where it leads, and the links in it if they are known.
    known: HashMap<&'a str, (Escape, Option<HashSet<OsString>>)>,
}

impl<'a> Folders<'a> {
    /// Returns where the links of a path within the root lead.
    fn escape(&mut self, path: &'a str) -> Escape {
        let (folder, name) = split(path);
        let root = self.root;
        let (above, links) = self.look_at(folder);
        if !matches!(above, Escape::None) {
            return above.clone();
        }
        let is_link = match links {
            Some(links) => !links.is_empty() && links.contains(OsStr::new(name)),
            None => root.join(path).symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()),
        };
        match is_link.then(|| root.join(path).canonicalize()) {
            None => Escape::None,
            Some(Ok(target)) if target.starts_with(root) => Escape::None,
            Some(Ok(target)) => Escape::To(target.display().to_string()),
            Some(Err(_)) => Escape::Nowhere,
        }
    }

    fn look_at(&mut self, folder: &'a str) -> &(Escape, Option<HashSet<OsString>>) {
        if !self.known.contains_key(folder) {
            let above = if folder.is_empty() { Escape::None } else { self.escape(folder) };
            let links = self.links_among(folder);
            self.known.insert(folder, (above, links));
        }
        &self.known[folder]
    }

    /// Returns the links in a folder with many outputs, all of whose entries are read at once: that costs less than a look
    /// at each output.
    fn links_among(&self, folder: &str) -> Option<HashSet<OsString>> {
        const MANY: usize = 64;
        let outputs = self.outputs.get(folder).copied().filter(|outputs| *outputs >= MANY)?;
        let mut links = HashSet::new();
        for (n, entry) in std::fs::read_dir(self.root.join(folder)).ok()?.enumerate() {
            let entry = entry.ok()?;
            // So much else is in there that looking at the outputs is cheaper.
            if n > 8 * outputs {
                return None;
            }
            if entry.file_type().ok()?.is_symlink() {
                links.insert(entry.file_name());
            }
        }
        Some(links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{self, Limits};
    use crate::spec::Source;

    fn messages(folder: &Path, text: &str) -> Vec<String> {
        let source = Source { name: "p.toml".to_owned(), text: text.to_owned() };
        let (pipeline, graph) = graph::load(&source, &[], &[], Limits::default()).expect("a good file");
        check(&pipeline, &graph, folder).into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn an_input_that_nobody_makes_and_that_is_not_there_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("raw.csv"), "1").expect("a file");
        let text = "[stage.a]\nrun = 'a'\ninputs = ['raw.csv', 'rwa.csv', 'x/*.csv', '*.csv']\noutputs = ['b']\n\
                    [stage.b]\nrun = 'b'\ninputs = ['b']\n";
        assert_eq!(
            messages(folder.path(), text),
            ["there is no file `rwa.csv`, and no stage writes it", "no file matches `x/*.csv`, and no stage writes it"]
        );
    }

    #[test]
    fn a_folder_that_nobody_makes_and_that_is_not_there_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("there")).expect("a folder");
        std::fs::write(folder.path().join("file"), "1").expect("a file");
        let stages: String = ["there", "file", "nosuch", "work", "work/deep", "model/part", "/", "there/../nosuch"]
            .iter()
            .enumerate()
            .map(|(n, cwd)| format!("[stage.s{n}]\nrun = 's'\ncwd = '{cwd}'\n"))
            .collect();
        let text = format!("[stage.a]\nrun = 'a'\noutputs = ['work/deep/x', 'model']\n{stages}");
        let missing = "there is no folder `nosuch`, and no stage writes it";
        assert_eq!(messages(folder.path(), &text), ["`file` is not a folder", missing, missing]);
    }

    #[test]
    fn a_pattern_finds_files_in_folders_but_not_hidden_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("folders");
        for name in ["a/b/x.csv", "a/b/y.csv", "a/b/.z.csv", "a/b/w.txt"] {
            std::fs::write(folder.path().join(name), "1").expect("a file");
        }
        assert_eq!(existing(folder.path(), "a/*/?.csv"), ["a/b/x.csv", "a/b/y.csv"]);
    }

    #[test]
    fn an_output_that_leaves_the_project_through_a_link_is_reported() {
        let outside = tempfile::tempdir().expect("a folder");
        let folder = tempfile::tempdir().expect("a folder");
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, folder.path().join(name)).expect("a link");
        };
        link(outside.path(), "out");
        link(Path::new("gone"), "dangling");
        std::fs::create_dir(folder.path().join("in")).expect("a folder");
        link(Path::new("in"), "alias");
        let text = "[stage.a]\nrun = 'a'\noutputs = ['out/deep/x', 'dangling', 'alias/x', 'new/x']\n";
        let found = messages(folder.path(), text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("the output `out/deep/x` leaves the project: a link leads to"));
        assert_eq!(found[1], "the output `dangling` goes through a link that leads nowhere");
    }

    #[test]
    fn a_link_among_many_outputs_is_found_as_well() {
        let outside = tempfile::tempdir().expect("a folder");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("work")).expect("a folder");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("work/77")).expect("a link");
        let points: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        let text = format!(
            "[stage.a]\nrun = 'a'\noutputs = ['work/{{matrix.i}}']\nmatrix = {{ i = [{}] }}\n",
            points.join(",")
        );
        let found = messages(folder.path(), &text);
        assert!(found.len() == 1 && found[0].starts_with("the output `work/77` leaves the project"), "{found:?}");
    }
}
