//! What the tasks of a run are made of, as the pipeline file said when it began, and what differs from another run.
//!
//! Pure. Does not know where the file's text was kept.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use serde::Serialize;

use super::text;
use crate::graph::{Task, TaskGraph};
use crate::spec::{Action, Gpus, Mode, Pipeline};

/// Differences that are told one by one.
const MOST: usize = 20;

/// The definition of a run's tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// By task: what it is made of, by key of the pipeline file.
    tasks: HashMap<String, BTreeMap<String, String>>,
}

/// A key of the pipeline file that has another value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Change {
    /// `run`, `env.SEED`, `with.epochs`, `resources.cpus`.
    pub key: String,
    /// In the first run; `null` where it is not set.
    pub a: Option<String>,
    /// In the second run.
    pub b: Option<String>,
}

impl Definition {
    /// Takes what a run's pipeline says.
    #[must_use]
    pub fn new(pipeline: &Pipeline, graph: &TaskGraph) -> Self {
        Self { tasks: graph.tasks.iter().map(|task| (task.name.clone(), parts(pipeline, task))).collect() }
    }

    /// Returns what differs of a task that both have.
    #[must_use]
    pub fn changes(&self, other: &Self, task: &str) -> Vec<Change> {
        let (Some(a), Some(b)) = (self.tasks.get(task), other.tasks.get(task)) else { return Vec::new() };
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let different = keys.into_iter().filter(|key| a.get(*key) != b.get(*key));
        different.map(|key| Change { key: key.clone(), a: a.get(key).cloned(), b: b.get(key).cloned() }).collect()
    }
}

/// Returns what a task is made of, templates filled in; what is not set is left out.
fn parts(pipeline: &Pipeline, task: &Task) -> BTreeMap<String, String> {
    let stage = &pipeline.stages[task.stage];
    let mut parts = BTreeMap::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            parts.insert(key.to_owned(), value);
        }
    };
    match &task.action {
        Action::Shell(line) => add("run", line.text.clone()),
        Action::Exec(words) => {
            let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            add("run", serde_json::to_string(&words).unwrap_or_default());
        }
        Action::Op { name, with } => {
            add("use", name.text.clone());
            with.iter().for_each(|(key, value, _)| add(&format!("with.{}", key.text), value.to_string()));
        }
    }
    task.env(pipeline).into_iter().for_each(|(name, value)| add(&format!("env.{name}"), format!("{value:?}")));
    let cwd = task.cwd(pipeline);
    add("cwd", if cwd == "." { String::new() } else { cwd });
    add("inputs", task.inputs.join(", "));
    add("outputs", task.outputs.join(", "));
    let after: Vec<&str> = stage.after.iter().map(|after| after.stage.text.as_str()).collect();
    add("after", after.join(", "));
    match stage.modes.as_slice() {
        [mode] => of_mode(mode, "", &mut add),
        modes => (0..).zip(modes).for_each(|(i, mode)| of_mode(mode, &format!("modes[{i}]."), &mut add)),
    }
    let limits = &stage.limits;
    let time = |time: Option<crate::units::Millis>| time.map_or_else(String::new, |time| time.to_string());
    add("timeout", time(limits.timeout));
    add("idle_timeout", time(limits.idle_timeout));
    add("first_output_timeout", time(limits.first_output_timeout));
    let of = |value: i64| if value == 0 { String::new() } else { value.to_string() };
    add("retries", of(stage.retry.retries.into()));
    add("priority", of(stage.priority));
    add("memory_limit", stage.memory_limit.word().to_owned());
    add("cache", stage.is_cached().to_string());
    parts
}

/// Tells what a way to run a stage holds, and how long it is said to take.
fn of_mode(mode: &Mode, before: &str, add: &mut impl FnMut(&str, String)) {
    let resources = &mode.resources;
    let mut add = |key: &str, value: String| add(&format!("{before}{key}"), value);
    add("resources.cpus", resources.cpus.to_string());
    if resources.memory.0 > 0 {
        add("resources.memory", resources.memory.to_string());
    }
    add(
        "resources.gpus",
        match mode.auto.unwrap_or(resources.gpus) {
            Gpus::None => String::new(),
            Gpus::Whole(count) => count.to_string(),
            Gpus::Share(share) => share.to_string(),
            Gpus::Shared => "shared".to_owned(),
        },
    );
    match mode.auto {
        Some(_) => add("resources.gpu_memory", "auto".to_owned()),
        None if resources.gpu_memory.0 > 0 => add("resources.gpu_memory", resources.gpu_memory.to_string()),
        None => {}
    }
    resources.custom.iter().for_each(|(name, count)| add(&format!("resources.{name}"), count.to_string()));
    add("duration", mode.duration.base.map_or_else(String::new, |base| base.to_string()));
    for (model, duration) in &mode.duration.by_model {
        add(&format!("duration.{model}"), duration.to_string());
    }
}

/// Returns what differs for people: tasks in which the same differs are told together. Empty where nothing does.
#[must_use]
pub fn shown<'c>(sets: (&[String], &[String]), tasks: impl Iterator<Item = (&'c str, &'c [Change])>) -> String {
    let mut all: Vec<(&Change, Vec<&str>)> = Vec::new();
    let mut place: HashMap<&Change, usize> = HashMap::new();
    for (task, change) in tasks.flat_map(|(task, changes)| changes.iter().map(move |change| (task, change))) {
        let at = *place.entry(change).or_insert_with(|| {
            all.push((change, Vec::new()));
            all.len() - 1
        });
        all[at].1.push(task);
    }
    let mut shown = String::new();
    let mut tell = |head: &str, a: Option<&str>, b: Option<&str>| {
        let [a, b] = [a, b].map(|value| value.map_or("(not set)".into(), text::visible));
        writeln!(shown, "{}\n  a  {a}\n  b  {b}", text::visible(head)).expect("a String takes everything");
    };
    if sets.0 != sets.1 {
        let [a, b] = [sets.0.join("  "), sets.1.join("  ")];
        let given = |sets: &'_ str| if sets.is_empty() { None } else { Some(sets.to_owned()) };
        tell("--set", given(&a).as_deref(), given(&b).as_deref());
    }
    for (change, tasks) in all.iter().take(MOST) {
        let more = if tasks.len() > 1 { format!(" and {} more", tasks.len() - 1) } else { String::new() };
        tell(&format!("{}{more}: {}", tasks[0], change.key), change.a.as_deref(), change.b.as_deref());
    }
    if let Some(left @ 1..) = all.len().checked_sub(MOST) {
        shown.push_str(&format!("and {left} more, which --json tells\n"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{self, Limits};
    use crate::spec::Source;

    fn of(text: &str) -> Definition {
        let source = Source { name: "p.toml".into(), text: text.into() };
        let (pipeline, graph) = graph::load(&source, &[], &[], Limits::default()).unwrap();
        Definition::new(&pipeline, &graph)
    }

    #[test]
    fn tasks_in_which_the_same_differs_are_told_together() {
        let stage = "[stage.train]\nmatrix = { seed = [1, 2, 3] }\n";
        let a = of(&format!("{stage}run = 'train'\nenv = {{ OLD = '1' }}\nresources = {{ cpus = 2 }}"));
        let b = of(&format!("{stage}run = 'train --fast'\nenv = {{ NEW = 'x' }}\nresources = {{ cpus = 2 }}"));
        let names = ["train[seed=1]", "train[seed=2]", "train[seed=3]"];
        let changes: Vec<Vec<Change>> = names.iter().map(|name| a.changes(&b, name)).collect();
        let tasks = names.iter().zip(&changes).map(|(name, changes)| (*name, changes.as_slice()));
        insta::assert_snapshot!(shown((&[], &["train.retries=2".into()]), tasks), @r#"
        --set
          a  (not set)
          b  train.retries=2
        train[seed=1] and 2 more: env.NEW
          a  (not set)
          b  "x"
        train[seed=1] and 2 more: env.OLD
          a  "1"
          b  (not set)
        train[seed=1] and 2 more: run
          a  train
          b  train --fast
        "#);
    }

    #[test]
    fn what_only_one_run_has_and_what_is_alike_is_no_change() {
        let a = of("[stage.a]\nrun = ['echo', '1']\n[stage.b]\nrun = 'b'");
        assert!(a.changes(&a, "a").is_empty() && a.changes(&of("[stage.b]\nrun = 'x'"), "a").is_empty());
    }
}
