//! Typed reading of a [`tree`]: keys against a table of keys, values against what they should be.
//!
//! Every read that fails reports one [`Problem`] at the exact place and returns `None`, so that a caller goes on and
//! all problems of a file are found at once. A file format declares each of its tables with [`keys!`](crate::keys):
//! the one place that decoding, "did you mean" and the JSON Schema take its keys from. This file knows no key itself.
//!
//! ```
//! use trainyard::spec::{Source, decode::{Decoder, Form}};
//! use trainyard::units::Bytes;
//!
//! trainyard::keys! {
//!     /// Keys of a box.
//!     pub enum BoxKey {
//!         /// How much it holds.
//!         Memory = "memory": Form::Size,
//!     }
//! }
//!
//! let source = Source { name: "box.toml".to_owned(), text: "memory = '2GiB'\nmemry = 1".to_owned() };
//! let (mut decoder, root) = Decoder::open(&source, &[]);
//! let mut memory = None;
//! for (key, entry) in decoder.fields::<BoxKey>(&root) {
//!     match key {
//!         BoxKey::Memory => memory = decoder.quantity::<Bytes>(&entry.node),
//!     }
//! }
//! assert_eq!(memory, Some(Bytes(2 << 30)));
//! assert_eq!(decoder.finish()[0].help.as_deref(), Some("did you mean `memory`?"));
//! ```

use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

pub use super::form::{Field, Form, Key};
use super::tree::{self, Content, Entry, Node, Table};
use super::{Located, Problem, Source, Span, problem::did_you_mean, quoted};
use crate::units::{Bandwidth, Bytes, Millis};

/// A quantity that is written as a text with a unit.
pub trait Quantity: FromStr<Err: std::fmt::Display> {
    /// What it is called, for "this is not …".
    const NAME: &'static str;

    /// Returns what was probably meant by a text that is none, where one can tell.
    #[must_use]
    fn meant(_text: &str) -> Option<String> {
        None
    }
}

impl Quantity for Bytes {
    const NAME: &'static str = "a memory size";

    fn meant(text: &str) -> Option<String> {
        // `20gib`, and `20G` or `20Gi` as other programs write it.
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let letters = text[number.len()..].to_ascii_lowercase();
        let unit = match letters.as_bytes() {
            [_] => format!("{letters}iB"),
            [_, b'i'] => format!("{letters}B"),
            _ => letters,
        };
        let known = ["kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(&unit))?;
        let meant = format!("{number}{known}");
        meant.parse::<Self>().is_ok().then_some(meant)
    }
}

impl Quantity for Millis {
    const NAME: &'static str = "a duration";
}

impl Quantity for Bandwidth {
    const NAME: &'static str = "a transfer rate";
}

/// Reads values and collects what is wrong with them.
#[derive(Debug)]
pub struct Decoder<'s> {
    source: &'s Source,
    sets: &'s [String],
    problems: Vec<Problem>,
    torn: bool,
    lacks_outputs: bool,
}

impl<'s> Decoder<'s> {
    /// Parses a TOML text; `sets` are the `--set` arguments that spans may point into.
    pub fn open(source: &'s Source, sets: &'s [String]) -> (Self, Table) {
        let parsed = tree::parse(source);
        (Self { source, sets, problems: parsed.problems, torn: parsed.torn, lacks_outputs: false }, parsed.root)
    }

    /// Returns all problems, in the order in which they were found.
    #[must_use]
    pub fn finish(self) -> Vec<Problem> {
        self.problems
    }

    /// Adds a problem.
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Adds a problem about something that is absent, unless it may be there behind a syntax error.
    pub fn report_absent(&mut self, problem: Problem) {
        if !self.torn {
            self.problems.push(problem);
        }
    }

    /// Whether a syntax error may have hidden something.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Notes that an output is written that could not be read.
    pub fn lack_output(&mut self) {
        self.lacks_outputs = true;
    }

    /// Whether an output is written that could not be read.
    #[must_use]
    pub fn lacks_outputs(&self) -> bool {
        self.lacks_outputs
    }

    /// Returns the known keys of a table in the order of the file and reports the unknown ones.
    pub fn fields<'n, K: Key>(&mut self, table: &'n Table) -> Vec<(K, &'n Entry)> {
        let (known, rest) = Self::fields_and_rest(table);
        for entry in rest {
            self.unknown("key", &entry.key, K::FIELDS.iter().map(|field| field.word));
        }
        known
    }

    /// Returns the known keys of a table and, apart, the free ones.
    #[must_use]
    pub fn fields_and_rest<K: Key>(table: &Table) -> (Vec<(K, &Entry)>, Vec<&Entry>) {
        let mut known = Vec::with_capacity(table.entries.len());
        let mut rest = Vec::new();
        for entry in &table.entries {
            match K::find(&entry.key.text) {
                Some(key) => known.push((key, entry)),
                None => rest.push(entry),
            }
        }
        (known, rest)
    }

    /// Reports a name that is not known, with the one that was probably meant or all that are known.
    pub fn unknown<'k>(&mut self, what: &str, name: &Located, known: impl Iterator<Item = &'k str> + Clone) {
        self.problems.push(unknown(what, name, known));
    }

    /// Reports that a value is something else than expected. What is broken anyway is passed over.
    pub fn mismatch(&mut self, node: &Node, expected: &str) {
        if !matches!(node.content, Content::Broken) {
            let found = node.content.kind();
            self.problems.push(Problem::new(node.span.clone(), format!("expected {expected}, found {found}")));
        }
    }

    /// Reads a table.
    pub fn table<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n Table> {
        if let Content::Table(table) = &node.content {
            return Some(table);
        }
        self.mismatch(node, expected);
        None
    }

    /// Reads an array.
    pub fn array<'n>(&mut self, node: &'n Node, expected: &str) -> Option<&'n [Node]> {
        if let Content::Array(nodes) = &node.content {
            return Some(nodes);
        }
        self.mismatch(node, expected);
        None
    }

    /// Reads a text.
    pub fn text(&mut self, node: &Node, expected: &str) -> Option<Located> {
        if let Some(word) = self.bare_word(node) {
            return Some(Located { text: word.to_owned(), span: node.span.clone() });
        }
        if let Content::Text(text) = &node.content {
            // Neither a file name nor an argument nor a variable can hold it.
            if let Some(at) = text.find('\0') {
                let span = self.inside(&node.span, at..at + 1);
                self.report(Problem::new(span, "a text cannot contain the character NUL"));
                return None;
            }
            return Some(Located { text: text.clone(), span: node.span.clone() });
        }
        self.mismatch(node, expected);
        None
    }

    /// Returns the value of a `--set` that is a number or truth value and nothing else: written without quotes, it is as
    /// good a text.
    fn bare_word(&self, node: &Node) -> Option<&'s str> {
        let Span::Set(n, range) = &node.span else { return None };
        let is_word = matches!(node.content, Content::Bool(_) | Content::Int(_) | Content::Float(_));
        let (path, value) = self.sets.get(*n)?.split_once('=')?;
        (is_word && *range == (path.len() + 1..path.len() + 1 + value.len())).then_some(value)
    }

    /// Reads a text that is not empty and has only the characters of names.
    pub fn name(&mut self, node: &Node, expected: &str) -> Option<Located> {
        let text = self.text(node, expected)?;
        self.check_name(&text).then_some(text)
    }

    /// Whether a text is a name; reports it if not.
    pub fn check_name(&mut self, name: &Located) -> bool {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        // Files are named so.
        let is_folder = matches!(name.text.as_str(), "." | "..");
        let is_name = !name.text.is_empty() && !is_folder && name.text.chars().all(good);
        if !is_name {
            let message = match (name.text.is_empty(), is_folder) {
                (true, _) => "this name is empty".to_owned(),
                (_, true) => format!("`{}` is a folder, not a name", name.text),
                (_, false) => format!("`{}` is not a name", name.text.escape_debug()),
            };
            let help = "a name has letters (a to z, A to Z), digits, `_`, `.` and `-`";
            self.report(Problem::new(name.span.clone(), message).help(help));
        }
        is_name
    }

    /// Reads a quantity with its unit: a memory size, a duration, a rate.
    pub fn quantity<T: Quantity>(&mut self, node: &Node) -> Option<T> {
        let is_number = matches!(node.content, Content::Int(_) | Content::Float(_));
        let expected = if is_number { format!("{} as a text with its unit", T::NAME) } else { T::NAME.to_owned() };
        let text = self.text(node, &expected)?;
        match text.text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let problem = Problem::new(text.span, format!("this is not {}: {error}", T::NAME));
                self.report(match T::meant(&text.text) {
                    Some(meant) => problem.help(format!("did you mean `{meant}`?")),
                    None => problem,
                });
                None
            }
        }
    }

    /// Reads `true` or `false`.
    pub fn flag(&mut self, node: &Node) -> Option<bool> {
        if let Content::Bool(flag) = node.content {
            return Some(flag);
        }
        self.mismatch(node, "true or false");
        None
    }

    /// Reads a whole number within bounds.
    pub fn whole(&mut self, node: &Node, bounds: RangeInclusive<i64>) -> Option<i64> {
        let Content::Int(number) = node.content else {
            self.mismatch(node, "a whole number");
            return None;
        };
        if bounds.contains(&number) {
            return Some(number);
        }
        self.out_of_bounds(node, number, &bounds);
        None
    }

    /// Reads a number within bounds, in units of `10^-decimals`, rounded to the nearest one. A number above zero
    /// never becomes zero.
    pub fn fixed(&mut self, node: &Node, decimals: u32, bounds: RangeInclusive<f64>) -> Option<u64> {
        #[expect(clippy::cast_precision_loss, reason = "the bounds of every caller are far below 2^53")]
        let number = match node.content {
            Content::Int(number) => number as f64,
            Content::Float(number) => number,
            Content::Bool(_)
            | Content::Text(_)
            | Content::Date
            | Content::Array(_)
            | Content::Table(_)
            | Content::Broken => {
                self.mismatch(node, "a number");
                return None;
            }
        };
        if !bounds.contains(&number) {
            self.out_of_bounds(node, number, &bounds);
            return None;
        }
        let scaled = (number * 10_f64.powi(i32::try_from(decimals).unwrap_or(0))).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the bounds above")]
        let units = scaled as u64;
        Some(if number > 0.0 { units.max(1) } else { units })
    }

    fn out_of_bounds<T>(&mut self, node: &Node, number: T, bounds: &RangeInclusive<T>)
    where
        T: std::fmt::Display + PartialOrd + Default,
    {
        let (least, most) = (bounds.start(), bounds.end());
        let message = match () {
            () if number < T::default() && *least >= T::default() => format!("{number} is negative"),
            () if number > *most => format!("{number} is too large"),
            () => format!("{number} is too small"),
        };
        self.report(Problem::new(node.span.clone(), message).help(format!("write a number from {least} to {most}")));
    }

    /// Returns the place of a part of a text value, given in bytes of the value, past quotes and escapes.
    #[must_use]
    pub fn inside(&self, span: &Span, part: Range<usize>) -> Span {
        let shift = |whole: &Range<usize>, text: &str| {
            let raw = text.get(whole.clone()).unwrap_or_default();
            quoted::raw_range(raw, part.clone()).map(|part| whole.start + part.start..whole.start + part.end)
        };
        match span {
            Span::File(whole) => Span::File(shift(whole, &self.source.text).unwrap_or_else(|| whole.clone())),
            Span::Set(n, whole) => {
                let text = self.sets.get(*n).map_or("", String::as_str);
                Span::Set(*n, shift(whole, text).unwrap_or_else(|| whole.clone()))
            }
            Span::Whole => Span::Whole,
        }
    }
}

/// Makes the problem of a name that is not known, with the one that was probably meant or all that are known.
#[must_use]
pub fn unknown<'k>(what: &str, name: &Located, known: impl Iterator<Item = &'k str> + Clone) -> Problem {
    let problem = Problem::new(name.span.clone(), format!("unknown {what} `{}`", name.text.escape_debug()));
    help_with_name(problem, &name.text, known)
}

/// Adds to a problem which name was probably meant, or all that are known.
#[must_use]
pub(super) fn help_with_name<'k>(
    problem: Problem,
    written: &str,
    known: impl Iterator<Item = &'k str> + Clone,
) -> Problem {
    // More names than this help nobody; the documentation lists them.
    const MOST_SHOWN: usize = 24;
    if let Some(near) = did_you_mean(written, known.clone()) {
        return problem.help(format!("did you mean `{near}`?"));
    }
    let names: Vec<_> = known.clone().take(MOST_SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if known.count() > MOST_SHOWN { ", …" } else { "" };
    match names.is_empty() {
        true => problem,
        false => problem.help(format!("known: {}{more}", names.join(", "))),
    }
}
