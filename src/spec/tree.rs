//! The values of a TOML text as a tree in which every key and value keeps its place.
//!
//! Reads on after a syntax error, so that what follows is judged too. Knows TOML, not what any key means: both the
//! pipeline file and the fleet file are decoded from this.

use std::collections::HashSet;

use toml::de::{DeTable, DeValue};

use super::{Located, Problem, Source, Span};

mod portions;

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub content: Content,
    /// Its place; of a table the header `[stage.train]` or the braces.
    pub span: Span,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Content {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// A date or a time of day, which no key takes.
    Date,
    /// Several values.
    Array(Vec<Node>),
    /// Keys and values.
    Table(Table),
    /// Something whose problem is reported already: decoding it says nothing more.
    Broken,
}

/// Keys and values, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Each key once.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key, without quotes.
    pub key: Located,
    /// Its value.
    pub node: Node,
}

impl Table {
    /// Returns the value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.node)
    }
}

impl Content {
    /// Returns what it is in words, for "expected …, found …".
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Date => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Broken => "a syntax error",
        }
    }
}

/// A text as far as it could be read.
#[derive(Debug)]
pub struct Parsed {
    /// The top table.
    pub root: Table,
    /// Where the text is not TOML, and numbers that nothing can hold.
    pub problems: Vec<Problem>,
    /// Whether something may be missing from `root` although it was written: then nothing can be said about what is
    /// absent.
    pub torn: bool,
}

/// Reads a whole TOML text.
#[must_use]
pub fn parse(source: &Source) -> Parsed {
    portions::parse(&source.text, PORTION).unwrap_or_else(|| parse_whole(source))
}

/// Bytes that are parsed at a time: with the parser's own tables a few MB.
const PORTION: usize = 128 * 1024;

fn parse_whole(source: &Source) -> Parsed {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let mut problems = Vec::new();
    let mut torn = false;
    let mut lines = HashSet::new();
    for error in errors {
        let (start, problem, tears) = syntax_problem(&source.text, &error);
        torn |= tears;
        // What follows on the same line is mostly the parser finding its way back.
        if lines.insert(source.text[..start].rfind('\n')) || !tears {
            problems.push(problem);
        }
    }
    let mut reader = Reader { span: &|range| Span::File(range), problems };
    let root = reader.table(table.into_inner());
    Parsed { root, problems: reader.problems, torn }
}

/// Reads one value, the argument number `set` of `--set` from byte `start` on. A text that is not TOML stands for
/// itself, so that `--set train.resources.memory=8GiB` needs no quotes.
#[must_use]
pub fn parse_set_value(set: usize, start: usize, text: &str) -> (Node, Vec<Problem>) {
    let whole = Span::Set(set, start..start + text.len());
    match DeValue::parse(text).map(|value| (value.span(), value.into_inner())) {
        Ok((_, DeValue::Datetime(_))) | Err(_) => {
            (Node { content: Content::Text(text.to_owned()), span: whole }, Vec::new())
        }
        Ok((range, value)) => {
            let place = |range: std::ops::Range<usize>| Span::Set(set, start + range.start..start + range.end);
            let mut reader = Reader { span: &place, problems: Vec::new() };
            let node = reader.node(range, value);
            (node, reader.problems)
        }
    }
}

/// Puts a syntax error into words. Also returns where it begins and whether the parser may have skipped something that was written.
fn syntax_problem(text: &str, error: &toml::de::Error) -> (usize, Problem, bool) {
    let range = error.span().unwrap_or(text.len()..text.len());
    // An error at the end of the text would otherwise have no place at all.
    let start = text.floor_char_boundary(range.start.min(text.len()));
    let end = text.ceil_char_boundary(range.end.clamp(start, text.len()));
    let span = Span::File(start..end);
    if error.message() == "duplicate key" {
        let key = &text[start..end];
        let problem = Problem::new(span, format!("`{key}` is written twice")).help("keep one of the two");
        return (start, problem, false);
    }
    (start, Problem::new(span, format!("this is not TOML: {}", error.message())), true)
}

/// Turns the parser's values into ours.
struct Reader<'p> {
    span: &'p dyn Fn(std::ops::Range<usize>) -> Span,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Table {
        let mut entries: Vec<_> = table.into_iter().collect();
        // A table that is continued further down moves to the end of the parser's map.
        entries.sort_by_key(|(key, _)| key.span().start);
        // Not collected: that would reuse the parser's allocations, which are larger.
        let mut own = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = Located { span: (self.span)(key.span()), text: key.into_inner().into_owned() };
            let range = value.span();
            own.push(Entry { key, node: self.node(range, value.into_inner()) });
        }
        Table { entries: own }
    }

    fn node(&mut self, range: std::ops::Range<usize>, value: DeValue<'_>) -> Node {
        let span = (self.span)(range.clone());
        let content = match value {
            // The parser's stand-in for a value that is not there.
            DeValue::Integer(_) if range.is_empty() => Content::Broken,
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Content::Int(number),
                Err(_) => self.broken(&span, "this number is too large: whole numbers have 64 bits"),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Content::Float(number),
                Ok(_) | Err(_) => self.broken(&span, "this is not a finite number"),
            },
            DeValue::String(text) => Content::Text(text.into_owned()),
            DeValue::Boolean(value) => Content::Bool(value),
            DeValue::Datetime(_) => Content::Date,
            DeValue::Array(values) => {
                let mut own = Vec::with_capacity(values.len());
                for value in values {
                    let range = value.span();
                    own.push(self.node(range, value.into_inner()));
                }
                Content::Array(own)
            }
            DeValue::Table(table) => Content::Table(self.table(table)),
        };
        Node { content, span }
    }

    fn broken(&mut self, span: &Span, message: &str) -> Content {
        self.problems.push(Problem::new(span.clone(), message));
        Content::Broken
    }
}
