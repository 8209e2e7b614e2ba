//! One `[stage.NAME]`: its keys, its matrix, what it runs, reads and writes.
//!
//! Knows one stage at a time: whether the stages that it names exist is the graph's question.

use super::backup::{self, WrittenBackup};
use super::common::{Common, check_templates};
use super::decode::{Decoder, Key};
use super::keys::{AfterKey, CommonKey, OutputKey, REPLICAS, ResourceKey, StageKey};
use super::op::Op;
use super::problem::did_you_mean;
use super::resources::{self, WrittenMode};
use super::tree::{Content, Entry, Node};
use super::{Action, After, Axis, Located, Output, Problem, Span, Stage, Value, suspend, value, with};

/// Parameters as written: name, value, place of the value.
type With = Vec<(Located, Value, Span)>;

/// What the keys of a stage said that is put together only at the end.
#[derive(Default)]
struct Written {
    run: Option<(Option<Action>, Span)>,
    uses: Option<(Option<Located>, Span)>,
    with: Option<(With, Span)>,
    modes: Option<(Vec<WrittenMode>, Span)>,
    mode: WrittenMode,
    backup: WrittenBackup,
    suspend: Option<(bool, Span)>,
    /// Whether an input or output is written that could not be read.
    lacks_files: bool,
    /// Keys that belong into each of the modes, if there are modes.
    mode_keys: Vec<Located>,
}

/// Reads a stage. A stage that is wrong is still returned, with what is right, so that others may refer to it.
pub(super) fn stage(decoder: &mut Decoder<'_>, entry: &Entry, defaults: &Common, catalogue: &[Op]) -> Stage {
    let mut stage = Stage {
        name: entry.key.text.clone(),
        span: entry.key.span.clone(),
        kind: "task".to_owned(),
        ..Stage::default()
    };
    decoder.check_name(&entry.key);
    let Some(table) = decoder.table(&entry.node, "a table: the keys of a stage") else {
        decoder.lack_output();
        return stage;
    };
    // Templates anywhere in the stage may name its axes, so the matrix is read first.
    let axes = match table.get(StageKey::Matrix.word()) {
        Some(node) => matrix(decoder, node),
        // It may be there behind a syntax error.
        None if decoder.is_torn() => None,
        None => Some(Vec::new()),
    };
    let (own, rest) = Decoder::fields_and_rest::<StageKey>(table);
    let mut written = Written::default();
    for (key, entry) in own {
        own_key(decoder, key, entry, axes.as_deref(), &mut stage, &mut written);
    }
    let mut common = Common::default();
    for entry in rest {
        match CommonKey::find(&entry.key.text) {
            Some(key) => {
                common.read(decoder, key, entry, axes.as_deref());
                if key == CommonKey::Resources {
                    written.mode_keys.push(entry.key.clone());
                }
            }
            None if ResourceKey::find(&entry.key.text).is_some() => {
                let word = &entry.key.text;
                let problem = Problem::new(entry.key.span.clone(), format!("`{word}` is not a key of a stage"));
                decoder.report(problem.help(format!("write it into `resources = {{ {word} = … }}`")));
            }
            None => {
                decoder.unknown("key", &entry.key, words());
                // Of files that are meant, nobody can say that they are missing.
                let meant = did_you_mean(&entry.key.text, words()).and_then(StageKey::find);
                written.lacks_files |= matches!(meant, Some(StageKey::Inputs | StageKey::Outputs));
                if meant == Some(StageKey::Outputs) {
                    decoder.lack_output();
                }
            }
        }
    }
    common.settle(decoder);
    stage.matrix = axes.unwrap_or_default();
    let backup = std::mem::take(&mut written.backup);
    let suspend = written.suspend.take();
    let single = WrittenMode { span: stage.span.clone(), ..written.mode };
    stage.modes = settle_modes(decoder, written.modes, single, &written.mode_keys, &common, defaults);
    // A parameter that could not be read is not absent.
    let all_read = match (table.get(StageKey::With.word()).map(|node| &node.content), &written.with) {
        (Some(Content::Table(table)), Some((with, _))) => with.len() == table.entries.len(),
        (with, _) => with.is_none(),
    };
    stage.action = action(decoder, &stage, written.run, written.uses, written.with);
    with::check(&stage, catalogue, all_read, !written.lacks_files)
        .into_iter()
        .for_each(|problem| decoder.report(problem));
    let second = backup.place();
    stage.backup = backup.settle(decoder, &stage, !written.lacks_files);
    if let Some((true, place)) = suspend {
        suspend::settle(decoder, &mut stage, place, second);
    }
    let common = common.over(defaults);
    stage.priority = common.priority.unwrap_or(0);
    stage.limits = common.limits();
    stage.retry = common.retry();
    stage.memory_limit = common.memory_limit();
    stage.memory_limit_at = common.memory_limit_at;
    stage.env = common.env;
    stage.cwd = common.cwd;
    stage.cache = common.cache;
    stage
}

/// All keys that a stage may hold.
pub(super) fn words() -> impl Iterator<Item = &'static str> + Clone {
    StageKey::FIELDS.iter().chain(CommonKey::FIELDS).map(|field| field.word)
}

fn own_key(
    decoder: &mut Decoder<'_>,
    key: StageKey,
    entry: &Entry,
    axes: Option<&[Axis]>,
    stage: &mut Stage,
    written: &mut Written,
) {
    let node = &entry.node;
    let place = entry.key.span.clone();
    match key {
        StageKey::Kind => {
            if let Some(kind) = decoder.name(node, "a word like \"train\"") {
                stage.kind = kind.text;
            }
        }
        StageKey::Run => written.run = Some((run(decoder, node, axes), place)),
        StageKey::Use => written.uses = Some((decoder.text(node, "the name of a built-in op"), place)),
        StageKey::With => written.with = Some((with(decoder, node, axes), place)),
        StageKey::Inputs => {
            let (read, all) = files(decoder, node, |decoder, node| path(decoder, node, axes));
            stage.inputs = read;
            written.lacks_files |= !all;
        }
        StageKey::Outputs => {
            let (read, all) = files(decoder, node, |decoder, node| output(decoder, node, axes));
            stage.outputs = read;
            written.lacks_files |= !all;
            if !all {
                decoder.lack_output();
            }
        }
        StageKey::After => stage.after = after(decoder, node),
        StageKey::Matrix => {}
        StageKey::Modes => written.modes = Some((resources::modes(decoder, node), place)),
        StageKey::Backup => written.backup.backup = Some((backup::after(decoder, node), place)),
        StageKey::Replicas => written.backup.replicas = Some((decoder.whole(node, REPLICAS), place)),
        StageKey::Suspend => written.suspend = decoder.flag(node).map(|suspend| (suspend, place)),
        StageKey::Duration => {
            written.mode.duration = resources::duration(decoder, node);
            written.mode_keys.push(entry.key.clone());
        }
        StageKey::Spend => {
            written.mode.spend = resources::spend(decoder, node);
            written.mode_keys.push(entry.key.clone());
        }
    }
}

/// Puts the modes together: those written, or the one that the stage's own keys make up.
fn settle_modes(
    decoder: &mut Decoder<'_>,
    modes: Option<(Vec<WrittenMode>, Span)>,
    mut single: WrittenMode,
    mode_keys: &[Located],
    common: &Common,
    defaults: &Common,
) -> Vec<super::Mode> {
    let below = defaults.resources.clone().unwrap_or_default().0;
    let Some((modes, place)) = modes else {
        if let Some((wanted, span)) = common.resources.clone() {
            (single.wanted, single.span) = (wanted, span);
        }
        return single.settle(&below).collect();
    };
    for key in mode_keys {
        let problem = Problem::new(key.span.clone(), format!("`{}` has no effect beside `modes`", key.text));
        decoder.report(problem.help("write it into each of the modes").related(place.clone(), "the modes"));
    }
    modes.into_iter().flat_map(|mode| mode.settle(&below)).collect()
}

/// Puts `run`, or `use` and `with`, together.
fn action(
    decoder: &mut Decoder<'_>,
    stage: &Stage,
    run: Option<(Option<Action>, Span)>,
    uses: Option<(Option<Located>, Span)>,
    with: Option<(With, Span)>,
) -> Action {
    if let (Some((_, place)), None) = (&with, &uses) {
        let problem = Problem::new(place.clone(), "`with` has no meaning without `use`");
        decoder.report_absent(problem.help("`with` holds the parameters of a built-in op"));
    }
    match (run, uses) {
        (Some((_, run)), Some((_, uses))) => {
            let problem = Problem::new(uses, format!("stage `{}` has both `run` and `use`", stage.name));
            decoder.report(problem.help("keep one of the two").related(run, "`run` is here"));
            Action::default()
        }
        (Some((action, _)), None) => action.unwrap_or_default(),
        (None, Some((name, _))) => match name {
            Some(name) => Action::Op { name, with: with.map(|(with, _)| with).unwrap_or_default() },
            None => Action::default(),
        },
        (None, None) => {
            let message = format!("stage `{}` has neither `run` nor `use`", stage.name);
            let help = "add `run = \"…\"` with a command, or `use = \"…\"` with a built-in op";
            decoder.report_absent(Problem::new(stage.span.clone(), message).help(help));
            Action::default()
        }
    }
}

fn run(decoder: &mut Decoder<'_>, node: &Node, axes: Option<&[Axis]>) -> Option<Action> {
    let Content::Array(nodes) = &node.content else {
        let line = decoder.text(node, "a shell line, or an array of program and arguments")?;
        check_templates(decoder, &line, axes, true);
        if line.text.trim().is_empty() {
            decoder.report(Problem::new(line.span, "this command is empty"));
            return None;
        }
        return Some(Action::Shell(line));
    };
    let words: Vec<_> = nodes.iter().map(|node| decoder.text(node, "a text: one argument")).collect();
    for word in words.iter().flatten() {
        check_templates(decoder, word, axes, true);
    }
    let words = words.into_iter().collect::<Option<Vec<_>>>()?;
    if words.first().is_none_or(|program| program.text.is_empty()) {
        let problem = Problem::new(node.span.clone(), "this command has no program");
        decoder.report(problem.help("write the program first, then its arguments"));
        return None;
    }
    Some(Action::Exec(words))
}

fn with(decoder: &mut Decoder<'_>, node: &Node, axes: Option<&[Axis]>) -> With {
    let Some(table) = decoder.table(node, "a table of parameters") else {
        return Vec::new();
    };
    let mut with = Vec::with_capacity(table.entries.len());
    for entry in &table.entries {
        if let Some(value) = value::value(decoder, &entry.node) {
            check_value_templates(decoder, &entry.node, axes);
            with.push((entry.key.clone(), value, entry.node.span.clone()));
        }
    }
    with
}

fn check_value_templates(decoder: &mut Decoder<'_>, node: &Node, axes: Option<&[Axis]>) {
    match &node.content {
        Content::Text(text) => {
            let text = Located { text: text.clone(), span: node.span.clone() };
            check_templates(decoder, &text, axes, false);
        }
        Content::Array(nodes) => nodes.iter().for_each(|node| check_value_templates(decoder, node, axes)),
        Content::Bool(_) | Content::Int(_) | Content::Float(_) | Content::Date => {}
        Content::Table(_) | Content::Broken => {}
    }
}

/// Reads a path that is not empty and whose templates all stand for something.
fn path(decoder: &mut Decoder<'_>, node: &Node, axes: Option<&[Axis]>) -> Option<Located> {
    let path = decoder.text(node, "a path")?;
    if path.text.is_empty() {
        decoder.report(Problem::new(path.span, "this path is empty"));
        return None;
    }
    check_templates(decoder, &path, axes, false).then_some(path)
}

/// Reads an array of files; the second value is whether all could be read.
fn files<T>(
    decoder: &mut Decoder<'_>,
    node: &Node,
    mut read: impl FnMut(&mut Decoder<'_>, &Node) -> Option<T>,
) -> (Vec<T>, bool) {
    let Some(nodes) = decoder.array(node, "an array of paths") else { return (Vec::new(), false) };
    let files: Vec<_> = nodes.iter().filter_map(|node| read(decoder, node)).collect();
    let all = files.len() == nodes.len();
    (files, all)
}

fn output(decoder: &mut Decoder<'_>, node: &Node, axes: Option<&[Axis]>) -> Option<Output> {
    let Content::Table(table) = &node.content else {
        return Some(Output { path: path(decoder, node, axes)?, ..Output::default() });
    };
    let mut written = None;
    let mut output = Output::default();
    for (key, entry) in decoder.fields::<OutputKey>(table) {
        match key {
            OutputKey::Path => written = Some(path(decoder, &entry.node, axes)),
            OutputKey::Size => output.size = decoder.quantity(&entry.node).unwrap_or_default(),
        }
    }
    if written.is_none() {
        decoder.report_absent(Problem::new(node.span.clone(), "this output has no `path`"));
    }
    output.path = written??;
    Some(output)
}

fn after(decoder: &mut Decoder<'_>, node: &Node) -> Vec<After> {
    let nodes = decoder.array(node, "an array of stages").unwrap_or_default();
    nodes.iter().filter_map(|node| after_one(decoder, node)).collect()
}

fn after_one(decoder: &mut Decoder<'_>, node: &Node) -> Option<After> {
    let Content::Table(table) = &node.content else {
        return Some(After { stage: decoder.text(node, "the name of a stage")?, ..After::default() });
    };
    let mut written = None;
    let mut after = After::default();
    for (key, entry) in decoder.fields::<AfterKey>(table) {
        match key {
            AfterKey::Stage => written = Some(decoder.text(&entry.node, "the name of a stage")),
            AfterKey::Data => after.data = decoder.quantity(&entry.node).unwrap_or_default(),
        }
    }
    if written.is_none() {
        decoder.report_absent(Problem::new(node.span.clone(), "this entry has no `stage`"));
    }
    after.stage = written??;
    Some(after)
}

/// Reads the axes; `None` if not even their names are known. An axis whose points are wrong has none.
fn matrix(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<Axis>> {
    let table = decoder.table(node, "a table of axes, like { lr = [0.1, 0.01] }")?;
    Some(table.entries.iter().map(|entry| axis(decoder, entry)).collect())
}

fn axis(decoder: &mut Decoder<'_>, entry: &Entry) -> Axis {
    let mut axis = Axis { name: entry.key.clone(), points: Vec::new() };
    decoder.check_name(&entry.key);
    let Some(nodes) = decoder.array(&entry.node, "an array of values") else {
        return axis;
    };
    if nodes.is_empty() {
        let message = format!("axis `{}` is empty: the stage would have no task at all", axis.name.text);
        decoder.report(Problem::new(entry.node.span.clone(), message).help("write at least one value"));
    }
    let mut first_places = std::collections::HashMap::new();
    for node in nodes {
        let Some(point) = value::value(decoder, node) else { continue };
        if let Some(first) = first_places.insert(point.to_string(), node.span.clone()) {
            let message = format!("`{point}` is twice on the axis `{}`", axis.name.text);
            decoder.report(Problem::new(node.span.clone(), message).related(first, "first written here"));
        }
        axis.points.push(point);
    }
    axis
}
