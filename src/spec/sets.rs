//! `--set stage.key=value`: written into the tree of the file before it is decoded, so that an override is checked
//! exactly as if it stood in the file, and pointed at where it is wrong.
//!
//! Knows where stages are in the tree, but no other key.

use std::ops::Range;

use super::decode::{Decoder, Key, unknown};
use super::keys::TopKey;
use super::tree::{Content, Entry, Node, Table, parse_set_value};
use super::{Located, Problem, Span};

/// Writes all overrides into the tree, in the order of the command line.
pub(super) fn apply(decoder: &mut Decoder<'_>, root: &mut Table, sets: &[String]) {
    for (n, set) in sets.iter().enumerate() {
        if let Err(problem) = apply_one(decoder, root, n, set) {
            decoder.report(problem);
        }
    }
}

fn apply_one(decoder: &mut Decoder<'_>, root: &mut Table, n: usize, set: &str) -> Result<(), Problem> {
    let Some((path, value)) = set.split_once('=') else {
        let problem = Problem::new(Span::Set(n, 0..set.len()), "this override has no `=`");
        return Err(problem.help("write it like `--set train.with.epochs=5`"));
    };
    let mut keys = split(n, path);
    if let Some(empty) = keys.iter().find(|key| key.text.is_empty()) {
        let problem = Problem::new(empty.span.clone(), "a key is missing here");
        return Err(problem.help("write it like `--set train.with.epochs=5`"));
    }
    let (node, problems) = parse_set_value(n, path.len() + 1, value);
    problems.into_iter().for_each(|problem| decoder.report(problem));
    if TopKey::find(&keys[0].text).is_none_or(|key| key == TopKey::Stage) {
        keys = in_stage(n, path, keys, root)?;
    }
    insert(root, &keys, node)
}

/// Splits a path at its points.
fn split(n: usize, path: &str) -> Vec<Located> {
    let mut start = 0;
    path.split('.')
        .map(|part| {
            let range = start..start + part.len();
            start = range.end + 1;
            Located { text: part.to_owned(), span: Span::Set(n, range) }
        })
        .collect()
}

/// Turns `train.key` or `stage.train.key` into `stage`, `train`, `key`. The name of a stage may contain points itself:
/// the longest one that is there is taken.
fn in_stage(n: usize, path: &str, keys: Vec<Located>, root: &Table) -> Result<Vec<Located>, Problem> {
    let stage_word = TopKey::Stage.word();
    let skipped = usize::from(keys[0].text == stage_word && keys.len() > 1);
    let start = if skipped == 1 { stage_word.len() + 1 } else { 0 };
    let empty = Table::default();
    let stages = match root.get(stage_word).map(|node| &node.content) {
        Some(Content::Table(stages)) => stages,
        Some(_) | None => &empty,
    };
    let is_stage = |name: &str| stages.entries.iter().any(|entry| entry.key.text == name);
    let end_of = |count: usize| keys[skipped..skipped + count].iter().map(|key| key.text.len() + 1).sum::<usize>() - 1;
    let found = (1..=keys.len() - skipped).rev().find(|count| is_stage(&path[start..start + end_of(*count)]));
    let Some(count) = found else {
        let first = keys[skipped].clone();
        let tops = TopKey::FIELDS.iter().map(|field| field.word).filter(|_| skipped == 0);
        let known = stages.entries.iter().map(|entry| entry.key.text.as_str()).chain(tops);
        return Err(unknown("stage", &first, known));
    };
    let name = &path[start..start + end_of(count)];
    let range: Range<usize> = start..start + name.len();
    if keys.len() == skipped + count {
        let problem = Problem::new(Span::Set(n, range), format!("which key of stage `{name}` is meant?"));
        return Err(problem.help(format!("write it like `--set {name}.retries=2`")));
    }
    let name = Located { text: name.to_owned(), span: Span::Set(n, range) };
    let stage = Located { text: stage_word.to_owned(), span: name.span.clone() };
    Ok([stage, name].into_iter().chain(keys.into_iter().skip(skipped + count)).collect())
}

/// Writes a value at a path; tables that are missing are made, entries of arrays are counted from 0.
fn insert(table: &mut Table, keys: &[Located], node: Node) -> Result<(), Problem> {
    let [key, rest @ ..] = keys else { return Ok(()) };
    let position = table.entries.iter().position(|entry| entry.key.text == key.text);
    if rest.is_empty() {
        let entry = Entry { key: key.clone(), node };
        match position {
            Some(i) => table.entries[i] = entry,
            None => table.entries.push(entry),
        }
        return Ok(());
    }
    let position = position.unwrap_or_else(|| {
        let node = Node { content: Content::Table(Table::default()), span: key.span.clone() };
        table.entries.push(Entry { key: key.clone(), node });
        table.entries.len() - 1
    });
    insert_below(&mut table.entries[position].node, key, rest, node)
}

fn insert_below(parent: &mut Node, key: &Located, rest: &[Located], node: Node) -> Result<(), Problem> {
    match &mut parent.content {
        Content::Table(table) => insert(table, rest, node),
        Content::Array(nodes) => {
            let [index, rest @ ..] = rest else { return Ok(()) };
            let count = nodes.len();
            let Some(child) = index.text.parse::<usize>().ok().and_then(|i| nodes.get_mut(i)) else {
                let problem = Problem::new(index.span.clone(), format!("`{}` has no entry `{}`", key.text, index.text));
                return Err(problem.help(format!("its {count} entries are counted from 0")));
            };
            match rest {
                [] => *child = node,
                rest => return insert_below(child, index, rest, node),
            }
            Ok(())
        }
        Content::Broken => Ok(()),
        content @ (Content::Bool(_) | Content::Int(_) | Content::Float(_) | Content::Text(_) | Content::Date) => {
            let message = format!("`{}` is {} and has no keys", key.text, content.kind());
            Err(Problem::new(rest[0].span.clone(), message))
        }
    }
}
