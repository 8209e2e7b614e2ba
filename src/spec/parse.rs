//! The whole pipeline file: its top keys, then every stage, then what `--set` says, all problems together.

use super::common::{self, Common};
use super::decode::{Decoder, Key};
use super::keys::{CommonKey, TopKey};
use super::op::Op;
use super::tree::{Content, Table};
use super::{Pipeline, Problem, Source, Span, on_finish, sets, stage};

/// A pipeline file as far as it could be read.
#[derive(Debug)]
pub struct Parsed {
    /// What is right of it. Only without problems it is what the user meant.
    pub pipeline: Pipeline,
    /// Everything that is wrong, sorted by place.
    pub problems: Vec<Problem>,
    /// Whether a syntax error may have hidden something, so that nothing can be said about what is absent.
    pub torn: bool,
    /// Whether an output is written that could not be read, so that nobody can say which files no stage writes.
    pub lacks_outputs: bool,
}

/// Reads a pipeline file with `--set` overrides, checks built-in ops against `catalogue`, and reports all problems.
#[must_use]
pub fn parse(source: &Source, sets: &[String], catalogue: &[Op]) -> Parsed {
    let (mut decoder, mut root) = Decoder::open(source, sets);
    sets::apply(&mut decoder, &mut root, sets);
    let mut pipeline = top(&mut decoder, root, catalogue);
    if pipeline.name.is_empty() {
        pipeline.name = stem(&source.name);
    }
    let (torn, lacks_outputs) = (decoder.is_torn(), decoder.lacks_outputs());
    let mut problems = decoder.finish();
    super::problem::sort(&mut problems);
    Parsed { pipeline, problems, torn, lacks_outputs }
}

/// Reads the top keys and the stages.
fn top(decoder: &mut Decoder<'_>, mut root: Table, catalogue: &[Op]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    let mut defaults = Common::default();
    let stages = root.entries.iter().position(|entry| entry.key.text == TopKey::Stage.word());
    let stages = stages.map(|i| root.entries.remove(i).node);
    for (key, entry) in decoder.fields::<TopKey>(&root) {
        match key {
            TopKey::Name => {
                pipeline.name = decoder.name(&entry.node, "a name").map(|name| name.text).unwrap_or_default();
            }
            TopKey::Env => pipeline.env = common::env(decoder, &entry.node, Some(&[])),
            TopKey::Defaults => {
                let Some(table) = decoder.table(&entry.node, "a table: what every stage starts from") else { continue };
                for (key, entry) in decoder.fields::<CommonKey>(table) {
                    defaults.read(decoder, key, entry, Some(&[]));
                }
                defaults.settle(decoder);
            }
            TopKey::OnFinish => pipeline.on_finish = on_finish::on_finish(decoder, &entry.node),
            TopKey::Stage => {}
        }
    }
    let Some(node) = stages else {
        let problem = Problem::new(Span::Whole, "there is no stage");
        let is_fleet = root.entries.iter().any(|entry| entry.key.text == "node");
        decoder.report_absent(problem.help(if is_fleet {
            "this looks like a fleet: give each with a `--fleet` of its own"
        } else {
            "add one: [stage.hello] with the line run = \"echo hello\""
        }));
        return pipeline;
    };
    if decoder.table(&node, "a table: [stage.NAME] for every stage").is_some_and(|table| table.entries.is_empty()) {
        decoder.report_absent(Problem::new(node.span, "there is no stage in this table"));
    } else if let Content::Table(table) = node.content {
        // Each stage's part of the tree is given back when it is read: of 10,000 stages that is most of the memory.
        let stages = table.entries.into_iter().map(|entry| stage::stage(decoder, &entry, &defaults, catalogue));
        pipeline.stages = stages.collect();
    }
    pipeline
}

/// Returns a file's name without folder and ending, as a name may be written: `p ü.toml` is `p`.
fn stem(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(".toml").unwrap_or(name);
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let parts: Vec<&str> = name.split(|c| !good(c)).filter(|part| !part.is_empty()).collect();
    match parts.join("-") {
        name if name.chars().all(|c| c == '.') => "pipeline".to_owned(),
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use super::stem;

    #[test]
    fn the_name_of_a_file_becomes_a_name() {
        for (path, name) in [
            ("a/digits.toml", "digits"),
            ("digits.v2", "digits.v2"),
            ("p ü.toml", "p"),
            ("a b--c.toml", "a-b--c"),
            ("ü.toml", "pipeline"),
            ("...toml", "pipeline"),
        ] {
            assert_eq!(stem(path), name, "{path}");
        }
    }
}
