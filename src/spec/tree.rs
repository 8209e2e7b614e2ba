//! The values of a TOML text as a tree in which every key and value keeps its place.
//!
//! Reads on after a syntax error, so that what follows is judged too. Knows TOML, not what any key means: both the
//! pipeline file and the fleet file are decoded from this.

use std::collections::HashSet;
use std::num::IntErrorKind;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use self::headers::Repeated;
use super::{Located, Problem, Source, Span};

mod headers;
mod mend;
mod portions;
mod tokens;

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
    let mended = errors.iter().any(tears).then(|| mend::mend(&source.text)).flatten();
    match mended {
        None => read(&source.text, table.into_inner(), &errors, mend::Mended::default()),
        Some(mut mended) => {
            let text = std::mem::take(&mut mended.text);
            let (table, errors) = DeTable::parse_recoverable(&text);
            read(&text, table.into_inner(), &errors, mended)
        }
    }
}

/// Reads the parser's table, with what it found wrong and what was found before.
fn read(text: &str, table: DeTable<'_>, errors: &[toml::de::Error], mended: mend::Mended) -> Parsed {
    let mut torn = !mended.problems.is_empty();
    let line_of = |start: usize| text[..start].rfind('\n');
    let start_of = |problem: &Problem| if let Span::File(range) = &problem.span { range.start } else { 0 };
    let mut lines: HashSet<_> = mended.problems.iter().map(|problem| line_of(start_of(problem))).collect();
    let twice: HashSet<_> = errors.iter().filter(|error| !tears(error)).map(|error| place(text, error).start).collect();
    let mut faults = Faults { text, points: mended.broken, dropped: mended.dropped, repeated: Repeated::default() };
    if !twice.is_empty() {
        faults.repeated = Repeated::find(text, &twice);
    }
    let mut problems = mended.problems;
    for error in errors {
        let place = place(text, error);
        if !tears(error) {
            // A table that is written twice has many keys twice.
            if !faults.repeated.is_below(place.start) {
                problems.push(written_twice(text, place, &faults.repeated));
            }
            continue;
        }
        torn = true;
        faults.points.push(place.start);
        // What follows on the same line is mostly the parser finding its way back.
        if lines.insert(line_of(place.start)) {
            problems.push(Problem::new(Span::File(place), format!("this is not TOML: {}", error.message())));
        }
    }
    faults.points.sort_unstable();
    let mut reader = Reader { span: &Span::File, problems, faults: &faults };
    let root = reader.table(table);
    Parsed { root, problems: reader.problems, torn }
}

/// Reads one value, the argument number `set` of `--set` from byte `start` on. A text that is not TOML stands for
/// itself, so that `--set train.resources.memory=8GiB` needs no quotes, unless it begins with a bracket or quotes.
#[must_use]
pub fn parse_set_value(set: usize, start: usize, text: &str) -> (Node, Vec<Problem>) {
    let whole = Span::Set(set, start..start + text.len());
    match DeValue::parse(text).map(|value| (value.span(), value.into_inner())) {
        Err(error) if text.trim_start().starts_with(['[', '"', '\'']) => {
            let what = if text.trim_start().starts_with('[') { "an array" } else { "a text in quotes" };
            let message = format!("this begins like {what} and is none: {}", error.message());
            let problem = Problem::new(whole.clone(), message);
            let help = "close it, or put quotes around the whole value: --set 'train.run=\"…\"'";
            (Node { content: Content::Broken, span: whole }, vec![problem.help(help)])
        }
        Ok((_, DeValue::Datetime(_))) | Err(_) => {
            (Node { content: Content::Text(text.to_owned()), span: whole }, Vec::new())
        }
        Ok((range, value)) => {
            let place = |range: Range<usize>| Span::Set(set, start + range.start..start + range.end);
            let faults = Faults::default();
            let mut reader = Reader { span: &place, problems: Vec::new(), faults: &faults };
            let node = reader.node(range, value);
            (node, reader.problems)
        }
    }
}

/// Whether the parser may have skipped something that was written.
fn tears(error: &toml::de::Error) -> bool {
    error.message() != "duplicate key"
}

/// Returns where a syntax error is.
fn place(text: &str, error: &toml::de::Error) -> Range<usize> {
    let range = error.span().unwrap_or(text.len()..text.len());
    let start = text.floor_char_boundary(range.start.min(text.len()));
    start..text.ceil_char_boundary(range.end.clamp(start, text.len()))
}

fn written_twice(text: &str, place: Range<usize>, repeated: &Repeated) -> Problem {
    let first = repeated.first(place.start);
    let message = format!("`{}` is written twice", &text[place.clone()]);
    let problem = Problem::new(Span::File(place), message).help("keep one of the two");
    match first {
        Some(first) => problem.related(Span::File(first.key.clone()), "first written here"),
        None => problem,
    }
}

/// Where the parser went wrong: what it made up there is not taken for what was written.
#[derive(Debug, Default)]
struct Faults<'t> {
    text: &'t str,
    /// Where it went wrong, or something stands in for a value, ascending.
    points: Vec<usize>,
    /// Keys that only stand in.
    dropped: Vec<usize>,
    repeated: Repeated,
}

impl Faults<'_> {
    /// Returns how many there are in a value, or at its end.
    fn within(&self, range: &Range<usize>) -> usize {
        let before = self.points.partition_point(|point| *point < range.start);
        self.points[before..].partition_point(|point| *point <= range.end)
    }

    /// Whether a value is written with brackets: a table may also have a header.
    fn is_written(&self, range: &Range<usize>, bracket: u8) -> bool {
        self.text.as_bytes().get(range.start) == Some(&bracket)
    }
}

/// Turns the parser's values into ours.
struct Reader<'p> {
    span: &'p dyn Fn(Range<usize>) -> Span,
    problems: Vec<Problem>,
    faults: &'p Faults<'p>,
}

impl Reader<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Table {
        self.table_and_faults(table).0
    }

    /// Reads a table; also returns how many faults its values have.
    fn table_and_faults(&mut self, table: DeTable<'_>) -> (Table, usize) {
        let mut entries: Vec<_> =
            table.into_iter().map(|(key, value)| (self.place(&key, &value), key, value)).collect();
        // A table that is continued further down moves to the end of the parser's map.
        entries.sort_by_key(|(place, ..)| place.0.start);
        let mut n_faults = 0;
        // Not collected: that would reuse the parser's allocations, which are larger.
        let mut own = Vec::with_capacity(entries.len());
        for ((key_range, range), key, value) in entries {
            n_faults += self.faults.within(&range);
            // A key that is missing is reported as such.
            let is_missing = key_range.is_empty() && self.faults.within(&key_range) > 0;
            if !is_missing && !self.faults.dropped.contains(&key_range.start) {
                let key = Located { span: (self.span)(key_range), text: key.into_inner().into_owned() };
                own.push(Entry { key, node: self.node(range, value.into_inner()) });
            }
        }
        (Table { entries: own }, n_faults)
    }

    /// Returns where a key and its value are: of a table that is written twice, the first time.
    fn place(&self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> (Range<usize>, Range<usize>) {
        match self.faults.repeated.first(key.span().start) {
            Some(first) => (first.key.clone(), first.whole.clone()),
            None => (key.span(), value.span()),
        }
    }

    fn node(&mut self, range: Range<usize>, value: DeValue<'_>) -> Node {
        let span = (self.span)(range.clone());
        let faults = self.faults.within(&range);
        let content = match value {
            DeValue::Array(values) => {
                let mut own = Vec::with_capacity(values.len());
                let (mut n_faults, mut of_headers) = (0, false);
                for value in values {
                    let range = value.span();
                    n_faults += self.faults.within(&range);
                    of_headers |= self.faults.is_written(&range, b'[') && value.get_ref().is_table();
                    own.push(self.node(range, value.into_inner()));
                }
                let is_torn = faults > n_faults && !of_headers;
                if is_torn { Content::Broken } else { Content::Array(own) }
            }
            DeValue::Table(table) => {
                let (table, n_faults) = self.table_and_faults(table);
                let is_torn = faults > n_faults && self.faults.is_written(&range, b'{');
                if is_torn { Content::Broken } else { Content::Table(table) }
            }
            // The parser's stand-in for a value that is not there.
            DeValue::Integer(_) if range.is_empty() => Content::Broken,
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
                if faults > 0 =>
            {
                Content::Broken
            }
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Content::Int(number),
                Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
                    self.broken(&span, "this number is too large: whole numbers have 64 bits")
                }
                // The parser takes `0x` for a number.
                Err(_) => self.broken(&span, "this is not a whole number"),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Content::Float(number),
                Ok(_) | Err(_) => self.broken(&span, "this is not a finite number"),
            },
            DeValue::String(text) => Content::Text(text.into_owned()),
            DeValue::Boolean(value) => Content::Bool(value),
            DeValue::Datetime(_) => Content::Date,
        };
        Node { content, span }
    }

    fn broken(&mut self, span: &Span, message: &str) -> Content {
        self.problems.push(Problem::new(span.clone(), message));
        Content::Broken
    }
}
