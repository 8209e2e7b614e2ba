//! A large text read in portions: the parser holds every token of what it reads, which for a file of 10,000 stages is
//! several times the file and its tree together.
//!
//! The text is cut before headers like `[stage.train]`, and the portions' tables are put together where it is certain
//! that the whole text means the same. Where it is not, or anything is wrong, the text has to be read whole: what is
//! said about a file never depends on where it was cut.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::{Content, Entry, Faults, Parsed, Reader, Span, Table};

/// Reads a text in portions of at least so many bytes; `None` if it has to be read whole.
pub(super) fn parse(text: &str, least: usize) -> Option<Parsed> {
    let cuts = cuts(text, least);
    if cuts.len() < 2 {
        return None;
    }
    let mut whole = Whole::default();
    let (mut problems, faults) = (Vec::new(), Faults::default());
    for range in cuts {
        let (table, errors) = DeTable::parse_recoverable(&text[range.clone()]);
        if !errors.is_empty() {
            return None;
        }
        let place = |part: Range<usize>| Span::File(range.start + part.start..range.start + part.end);
        let mut reader = Reader { span: &place, problems, faults: &faults };
        let portion = reader.table(table.into_inner());
        problems = reader.problems;
        for entry in portion.entries {
            whole.add(text, entry)?;
        }
    }
    Some(Parsed { root: whole.root, problems, torn: false })
}

/// Returns the portions of a text: each but the first begins with a header at the start of a line.
fn cuts(text: &str, least: usize) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let (mut start, mut depth, mut line_is_empty) = (0, 0_usize, true);
    for token in toml_parser::Source::new(text).lex() {
        let kind = token.kind();
        let opens = matches!(kind, TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket);
        let at = token.span().start();
        if kind == TokenKind::LeftSquareBracket && depth == 0 && line_is_empty && at - start >= least {
            cuts.push(start..at);
            start = at;
        }
        if opens {
            depth += 1;
        } else if matches!(kind, TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket) {
            depth = depth.saturating_sub(1);
        }
        line_is_empty = kind == TokenKind::Newline || (kind == TokenKind::Whitespace && line_is_empty);
    }
    cuts.push(start..text.len());
    cuts
}

/// The tables of all portions so far.
#[derive(Default)]
struct Whole {
    root: Table,
    /// By the key of a table in `root`, its own keys: they must not come twice.
    known: HashMap<String, HashSet<String>>,
}

impl Whole {
    /// Adds an entry of a portion's top table; `None` if its table was begun before in a way that may not go on.
    fn add(&mut self, text: &str, entry: Entry) -> Option<()> {
        let Some(before) = self.root.entries.iter_mut().find(|known| known.key.text == entry.key.text) else {
            self.root.entries.push(entry);
            return Some(());
        };
        if !is_path_only(text, before) || !is_path_only(text, &entry) {
            return None;
        }
        let (Content::Table(before), Content::Table(more)) = (&mut before.node.content, entry.node.content) else {
            return None;
        };
        let known = self
            .known
            .entry(entry.key.text)
            .or_insert_with(|| before.entries.iter().map(|entry| entry.key.text.clone()).collect());
        let new = more.entries.iter().all(|entry| known.insert(entry.key.text.clone()));
        before.entries.extend(more.entries);
        new.then_some(())
    }
}

/// Whether a table is there only because headers name tables in it: it has no header, braces or dotted key of its own,
/// so that any number of further headers may add to it.
fn is_path_only(text: &str, entry: &Entry) -> bool {
    let Span::File(key) = &entry.key.span else { return false };
    let line_start = text[..key.start].rfind('\n').map_or(0, |newline| newline + 1);
    entry.node.span == entry.key.span && text[line_start..].trim_start().starts_with('[')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::Source;

    fn line() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "[stage]\n",
            "[stage.a]\n",
            "  [stage.b]\n",
            "[stage.b.with]\n",
            "[stage.\"a\"]\n",
            "[[node]]\n",
            "[[node.gpu]]\n",
            "[other]\n",
            "stage.c.run = 1\n",
            "stage = { d = 1 }\n",
            "run = \"\"\"\n[stage.e]\n\"\"\"\n",
            "inputs = [\n[1],\n]\n",
            "x = '[stage.f]' # [stage.g]\r\n",
            "y = 1\n",
            "broken = \"\n",
            "\n",
        ])
    }

    #[test]
    fn a_file_of_many_stages_is_read_in_portions() {
        let text: String = (0..100).map(|i| format!("[stage.s{i}]\nrun = 'x'\n")).collect();
        let parsed = parse(&text, 100).expect("portions");
        let Some(Content::Table(stages)) = parsed.root.get("stage").map(|node| &node.content) else { panic!("stages") };
        assert_eq!(stages.entries.len(), 100);
    }

    proptest! {
        #[test]
        fn portions_mean_what_the_whole_means(lines in prop::collection::vec(line(), 0..12), least in 0_usize..40) {
            let text: String = lines.concat();
            let source = Source { name: String::new(), text: text.clone() };
            if let Some(portions) = parse(&text, least) {
                prop_assert_eq!(format!("{portions:?}"), format!("{:?}", super::super::parse_whole(&source)));
            }
        }
    }
}
