//! Brackets and quotes that are never closed: named where they open, and cut out, so that one slip is one problem and
//! what stands below is read as it is meant.
//!
//! The parser itself reads on until something else goes wrong, far below. Where a bracket should have ended is a guess:
//! a line that begins like `key =` or `[table]` belongs to no array. Nothing is guessed about a text that is TOML.

use std::ops::Range;

use super::tokens::{Bracket, Kind, Token, is_long, tokens};
use super::{Problem, Span};

/// A text of the same length, in which something else stands in for what is never closed.
#[derive(Debug, Default)]
pub(super) struct Mended {
    pub(super) text: String,
    pub(super) problems: Vec<Problem>,
    /// Where values start that only stand in.
    pub(super) broken: Vec<usize>,
    /// Where keys of headers start that only stand in.
    pub(super) dropped: Vec<usize>,
}

/// Parts that a key may have: the parser reads no more.
const MOST_PARTS: usize = 80;

/// Finds what is never closed; `None` if there is nothing.
pub(super) fn mend(text: &str) -> Option<Mended> {
    let tokens = tokens(text);
    let mut search = Search { text, closed: Vec::new(), tokens, cuts: Vec::new(), found: Mended::default() };
    search.closed = search.closed();
    let mut at = 0;
    while at < search.tokens.len() {
        at = search.statement(at);
    }
    let Search { cuts, mut found, .. } = search;
    if found.problems.is_empty() {
        return None;
    }
    let mut end = 0;
    for (range, stand_in) in cuts {
        found.text.push_str(&text[end..range.start]);
        found.text.push_str(&stand_in);
        let blank = |c: char| std::iter::repeat_n(if c == '\n' { '\n' } else { ' ' }, c.len_utf8());
        found.text.extend(text[range.clone()].chars().flat_map(blank).skip(stand_in.len()));
        end = range.end;
    }
    found.text.push_str(&text[end..]);
    Some(found)
}

/// A key, or what begins like one.
#[derive(Clone, Copy, Debug)]
struct Key {
    parts: usize,
    /// Whether it could not be a value.
    is_no_value: bool,
    /// The token behind it.
    next: usize,
}

/// The search through a text, statement by statement.
struct Search<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    /// `[n_tokens]`: opening brackets that some bracket closes before the next header.
    closed: Vec<bool>,
    /// What is cut out, ascending, and what takes its place.
    cuts: Vec<(Range<usize>, String)>,
    found: Mended,
}

impl Search<'_> {
    fn kind(&self, at: usize) -> Kind {
        self.tokens.get(at).map_or(Kind::End, |token| token.kind)
    }

    fn start(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(self.text.len(), |token| token.start)
    }

    fn written(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &self.text[token.start..token.end])
    }

    fn skip_space(&self, mut at: usize) -> usize {
        while self.kind(at) == Kind::Space {
            at += 1;
        }
        at
    }

    fn end_of_line(&self, mut at: usize) -> usize {
        while !matches!(self.kind(at), Kind::Newline | Kind::End) {
            at += 1;
        }
        at
    }

    /// Reads a key as far as it goes; strings of several lines are none.
    fn key(&self, mut at: usize) -> Key {
        let mut key = Key { parts: 0, is_no_value: false, next: at };
        let mut has_string = false;
        loop {
            let word = self.written(at);
            let is_quoted = matches!(self.kind(at), Kind::Quoted(quotes) if !is_long(quotes));
            if !is_quoted && self.kind(at) != Kind::Word {
                break;
            }
            let is_name = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
            key.is_no_value |= is_name && !["true", "false", "inf", "nan"].contains(&word);
            has_string |= is_quoted;
            key.parts += 1;
            key.next = self.skip_space(at + 1);
            if self.kind(key.next) != Kind::Dot {
                break;
            }
            at = self.skip_space(key.next + 1);
        }
        key.is_no_value |= has_string && key.parts > 1;
        key
    }

    /// Returns the token that the key of a header begins at.
    fn header_key(&self, at: usize) -> (usize, bool) {
        let is_array = self.kind(at + 1) == Kind::Open(Bracket::Square);
        (self.skip_space(at + 1 + usize::from(is_array)), is_array)
    }

    /// Whether a header stands here that could not be an array of values.
    fn is_header(&self, at: usize) -> bool {
        let (first, is_array) = self.header_key(at);
        let key = self.key(first);
        let behind = self.skip_space(key.next + 1 + usize::from(is_array));
        self.kind(at) == Kind::Open(Bracket::Square)
            && key.is_no_value
            && self.kind(key.next) == Kind::Close(Bracket::Square)
            && matches!(self.kind(behind), Kind::Newline | Kind::Comment | Kind::End)
    }

    /// Returns which opening brackets are closed by some bracket before the next header.
    fn closed(&self) -> Vec<bool> {
        let mut closed = vec![false; self.tokens.len()];
        let (mut open, mut line_start) = (Open::default(), true);
        for (at, token) in self.tokens.iter().enumerate() {
            if line_start && token.kind == Kind::Open(Bracket::Square) && self.is_header(at) {
                open = Open::default();
            }
            if let Kind::Open(bracket) = token.kind {
                open.push(at, bracket);
            }
            // One that is passed over, because one further out is closed, is not closed itself.
            if let Kind::Close(bracket) = token.kind
                && let Some(opened) = open.pop_to(bracket)
            {
                closed[opened] = true;
            }
            line_start = token.kind == Kind::Newline || (token.kind == Kind::Space && line_start);
        }
        closed
    }

    /// Looks through what begins at a token at the start of a line; returns the token to go on at.
    fn statement(&mut self, at: usize) -> usize {
        if matches!(self.kind(at), Kind::Space | Kind::Newline | Kind::End) {
            return at + 1;
        }
        if self.kind(at) == Kind::Open(Bracket::Square) {
            let (first, _) = self.header_key(at);
            let key = self.key(first);
            if self.is_too_deep(first, key) {
                // Each is another one, or they would be said to be written twice.
                let stand_in = self.found.dropped.len().to_string();
                self.cuts.push((self.start(first)..self.start(key.next), stand_in));
                self.found.dropped.push(self.start(first));
            }
            return self.end_of_line(at);
        }
        let key = self.key(at);
        if self.kind(key.next) != Kind::Equals {
            return self.end_of_line(at).max(at + 1);
        }
        if !self.is_too_deep(at, key) {
            return self.value(key.next + 1);
        }
        // The whole line goes, and with it whatever is cut out of the value.
        let (n_cuts, n_broken) = (self.cuts.len(), self.found.broken.len());
        let end = self.value(key.next + 1);
        self.cuts.truncate(n_cuts);
        self.found.broken.truncate(n_broken);
        self.cuts.push((self.start(at)..self.start(end), String::new()));
        end
    }

    /// Looks through a value up to the end of its last line, or to the line that cannot belong to it any more; returns
    /// the token to go on at.
    fn value(&mut self, mut at: usize) -> usize {
        let mut value = ValueSoFar::default();
        let (mut before, mut line_start) = (Kind::Equals, false);
        while let Some(token) = self.tokens.get(at).copied() {
            match token.kind {
                Kind::End => break,
                Kind::Newline if value.open.is_empty() => break,
                Kind::Newline => line_start = true,
                Kind::Space | Kind::Comment => {}
                Kind::Open(_)
                | Kind::Close(_)
                | Kind::Quoted(_)
                | Kind::Word
                | Kind::Dot
                | Kind::Equals
                | Kind::Comma => {
                    if line_start && self.resumes(at, before, value.open.last()) {
                        break;
                    }
                    line_start = false;
                    self.part(at, before, &mut value);
                    before = token.kind;
                    // What is behind a string that swallows everything is not known.
                    if value.swallowed {
                        at += 1;
                        break;
                    }
                }
            }
            at += 1;
        }
        if let (Some((bracket, _)), false) = (value.open.last(), value.is_wrong) {
            self.report_open(bracket);
            value.is_wrong = true;
        }
        if let (Some(first), true) = (value.first, value.is_wrong) {
            self.cuts.push((first..self.start(at), "0".to_owned()));
            self.found.broken.push(first);
        }
        at
    }

    /// Whether the line that begins here cannot belong to the innermost bracket any more.
    fn resumes(&self, at: usize, before: Kind, innermost: Option<(usize, Bracket)>) -> bool {
        let Some((opened, bracket)) = innermost else { return false };
        if self.kind(at) == Kind::Open(Bracket::Square) && self.is_header(at) {
            return true;
        }
        let key = self.key(at);
        let is_entry = bracket == Bracket::Curly && matches!(before, Kind::Comma | Kind::Open(Bracket::Curly));
        // Whoever closes it further down has forgotten something else.
        key.parts > 0 && self.kind(key.next) == Kind::Equals && !is_entry && !self.closed[opened]
    }

    /// Takes in one token of a value that is neither space nor comment.
    fn part(&mut self, at: usize, before: Kind, value: &mut ValueSoFar) {
        let token = self.tokens[at];
        if let Kind::Open(bracket) = token.kind {
            value.first.get_or_insert(token.start);
            value.open.push(at, bracket);
        } else if let Kind::Close(bracket) = token.kind {
            self.close(at, bracket, value);
        } else if let Some(quotes) = token.open_quotes(self.text) {
            // Elsewhere it is an apostrophe in something that lacks its quotes.
            if before == Kind::Equals || !value.open.is_empty() {
                value.first.get_or_insert(token.start);
                value.is_wrong = true;
                self.report_quotes(token.start, quotes);
            }
            value.swallowed = is_long(quotes);
        } else if value.open.last().is_some_and(|(_, bracket)| bracket == Bracket::Curly)
            && matches!(before, Kind::Comma | Kind::Open(_))
        {
            let key = self.key(at);
            value.is_wrong |= self.is_too_deep(at, key);
        }
    }

    /// Closes the innermost bracket; reports one of the other kind, unless the value is known to be wrong.
    fn close(&mut self, at: usize, bracket: Bracket, value: &mut ValueSoFar) {
        let Some((opened, innermost)) = value.open.last() else { return };
        if innermost == bracket {
            value.open.pop();
            return;
        }
        let was_wrong = std::mem::replace(&mut value.is_wrong, true);
        if value.open.pop_to(bracket).is_some() {
            if !was_wrong {
                self.report_open(opened);
            }
            return;
        }
        if !was_wrong {
            let wanted = innermost.closing();
            let message = format!("expected `{wanted}`, found `{}`", self.written(at));
            let (place, opening) = (self.start(at), self.start(opened));
            let problem = Problem::new(Span::File(place..place + 1), message);
            self.found.problems.push(problem.related(Span::File(opening..opening + 1), "opened here"));
        }
        // Otherwise it is one too many.
        if !self.closed[opened] {
            value.open.pop();
        }
    }

    fn report(&mut self, place: Range<usize>, message: String, help: String) {
        self.found.problems.push(Problem::new(Span::File(place), message).help(help));
    }

    fn report_open(&mut self, bracket: usize) {
        let (place, word) = (self.start(bracket), self.written(bracket));
        let closing = if word == "[" { "]" } else { "}" };
        let (message, help) = (format!("this `{word}` is never closed"), format!("close it with `{closing}`"));
        self.report(place..place + 1, message, help);
    }

    fn report_quotes(&mut self, place: usize, quotes: &str) {
        let where_to = if is_long(quotes) { "" } else { " on the same line" };
        let (message, help) =
            (format!("this `{quotes}` is never closed"), format!("close it with `{quotes}`{where_to}"));
        self.report(place..place + quotes.len(), message, help);
    }

    /// Whether a key has too many parts; reports it.
    fn is_too_deep(&mut self, first: usize, key: Key) -> bool {
        let too_deep = key.parts > MOST_PARTS;
        if too_deep {
            let message = format!("this key has {} parts, more than {MOST_PARTS}", key.parts);
            let place = self.tokens[first];
            self.report(place.start..place.end, message, "write a key with fewer points".to_owned());
        }
        too_deep
    }
}

/// A value as far as it has been looked through.
#[derive(Default)]
struct ValueSoFar {
    open: Open,
    /// Where its first bracket or open quote is.
    first: Option<usize>,
    is_wrong: bool,
    /// Whether a string of several lines has no end.
    swallowed: bool,
}

/// The brackets that are open, from the outside inwards, with how many there are of one kind: a wrong one is looked for
/// only where there is one.
#[derive(Default)]
struct Open {
    brackets: Vec<(usize, Bracket)>,
    n_square: usize,
}

impl Open {
    fn push(&mut self, at: usize, bracket: Bracket) {
        self.n_square += usize::from(bracket == Bracket::Square);
        self.brackets.push((at, bracket));
    }

    fn pop(&mut self) -> Option<(usize, Bracket)> {
        let last = self.brackets.pop()?;
        self.n_square -= usize::from(last.1 == Bracket::Square);
        Some(last)
    }

    /// Takes the innermost bracket of a kind and all within it away; nothing if there is none.
    fn pop_to(&mut self, bracket: Bracket) -> Option<usize> {
        let n_curly = self.brackets.len() - self.n_square;
        let n = if bracket == Bracket::Square { self.n_square } else { n_curly };
        if n == 0 {
            return None;
        }
        std::iter::from_fn(|| self.pop()).find(|(_, popped)| *popped == bracket).map(|(at, _)| at)
    }

    fn last(&self) -> Option<(usize, Bracket)> {
        self.brackets.last().copied()
    }

    fn is_empty(&self) -> bool {
        self.brackets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::*;

    fn line() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "[a.\"b\"]\n",
            "[[c]] # x\n",
            "x = [\n[1.5], ['y'], [true],\n [inf]\n]\n",
            "y = {\n a = 1, b = [\n{ c.d = 2 }\n],\n\n e = { } }\r\n",
            "'z w' = \"\"\"\\\"\"\" [ \nx = \"\\\\\"\"\"\"\n",
            "v = '''\n{ [ ''''\n",
            "u = \"\\\\\" # [\n",
            "t = [[1979-05-27], [\"a\"]]\n",
            "s = [",
            "'b'",
            ", ",
            "]\n",
            "r = { q = 1",
            "}\n",
            "\"\"\"",
            "'",
            "\n",
        ])
    }

    proptest! {
        #[test]
        fn nothing_is_found_in_a_text_that_is_toml(lines in prop::collection::vec(line(), 0..8)) {
            let text = lines.concat();
            // A key may come twice.
            let errors = DeTable::parse_recoverable(&text).1;
            if errors.iter().all(|error| error.message() == "duplicate key") {
                prop_assert_eq!(mend(&text).map(|mended| mended.problems), None);
            }
        }

        #[test]
        fn a_mended_text_has_everything_in_its_place(text in r#"([\[\]{}'=, \n."aé\\#]|"""|a = ){0,40}"#) {
            if let Some(mended) = mend(&text) {
                prop_assert_eq!(mended.text.len(), text.len());
                prop_assert!(mended.broken.iter().all(|start| mended.text[*start..].starts_with('0')));
                let kept = text.lines().zip(mended.text.lines()).all(|(a, b)| a.len() >= b.trim_end().len());
                prop_assert!(kept, "{:?}", mended.text);
            }
        }
    }
}
