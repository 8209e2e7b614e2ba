//! Tables that are written twice: the parser goes on in the first one under the second one's header, so the first
//! header is looked up here.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use toml_parser::Source;
use toml_parser::lexer::{Token, TokenKind};

/// A header like `[stage.train]`.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Its last key.
    pub(super) key: Range<usize>,
    /// All of it, with brackets.
    pub(super) whole: Range<usize>,
}

/// Headers that name a table a second time.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    /// The first header, by where the last key of a later one starts.
    first: HashMap<usize, Header>,
    /// The lines below later headers, up to the next header, ascending.
    below: Vec<Range<usize>>,
}

impl Repeated {
    /// Finds the first headers of the tables whose last keys start in `twice`.
    pub(super) fn find(text: &str, twice: &HashSet<usize>) -> Self {
        let mut found = Self::default();
        let mut known: HashMap<Vec<String>, Header> = HashMap::new();
        let mut is_below = None;
        for (path, header, is_array) in headers(text) {
            if let Some(start) = is_below.take() {
                found.below.push(start..header.whole.start);
            }
            if is_array {
                // What is below the next entry of an array is another table.
                known.retain(|other, _| !other.starts_with(&path));
            } else if twice.contains(&header.key.start)
                && let Some(first) = known.get(&path)
            {
                found.first.insert(header.key.start, first.clone());
                is_below = Some(header.whole.end);
            } else {
                known.entry(path).or_insert(header);
            }
        }
        if let Some(start) = is_below {
            found.below.push(start..text.len() + 1);
        }
        found
    }

    /// Returns the first header of a table, given where the last key of a later one starts.
    pub(super) fn first(&self, key: usize) -> Option<&Header> {
        self.first.get(&key)
    }

    /// Whether a place is below a header that comes a second time.
    pub(super) fn is_below(&self, place: usize) -> bool {
        let next = self.below.partition_point(|range| range.end <= place);
        self.below.get(next).is_some_and(|range| range.contains(&place))
    }
}

/// Returns the headers of a text whose brackets are closed, each with its keys, and whether it adds to an array.
fn headers(text: &str) -> Vec<(Vec<String>, Header, bool)> {
    let source = Source::new(text);
    let (mut found, mut depth, mut line_start) = (Vec::new(), 0_usize, true);
    let tokens = source.lex().into_vec();
    for (at, token) in tokens.iter().enumerate() {
        let kind = token.kind();
        let opens = matches!(kind, TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket);
        if kind == TokenKind::LeftSquareBracket && depth == 0 && line_start {
            found.extend(header(source, &tokens[at..]));
        }
        if opens {
            depth += 1;
        } else if matches!(kind, TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket) {
            depth = depth.saturating_sub(1);
        }
        line_start = kind == TokenKind::Newline || (kind == TokenKind::Whitespace && line_start);
    }
    found
}

/// Reads a header at the start of some tokens.
fn header(source: Source<'_>, tokens: &[Token]) -> Option<(Vec<String>, Header, bool)> {
    let is_array = tokens.get(1)?.kind() == TokenKind::LeftSquareBracket;
    let start = tokens[0].span().start();
    let mut path = Vec::new();
    let mut last = None;
    for token in &tokens[1 + usize::from(is_array)..] {
        let span = token.span();
        if token.kind() == TokenKind::RightSquareBracket {
            let whole = start..span.end() + usize::from(is_array);
            return Some((path, Header { key: last?, whole }, is_array));
        }
        if token.kind() == TokenKind::Newline {
            return None;
        }
        if token.kind() == TokenKind::Atom || token.kind().encoding().is_some() {
            let mut key = Cow::Borrowed("");
            source.get(token)?.decode_key(&mut key, &mut ());
            path.push(key.into_owned());
            last = Some(span.start()..span.end());
        }
    }
    None
}
