//! What is wrong with a file, and where: the one kind of error that the spec, the graph and the fleet file report.
//!
//! All problems of a file are collected and shown together. This file knows byte offsets and lines, but not how a
//! problem looks on a terminal.

use std::fmt;
use std::ops::Range;

/// A text with a name, in which spans are byte offsets.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path as the user gave it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// Takes the bytes of a file. If they are not UTF-8, also returns where that begins; the text is then as good as it
    /// can be shown.
    #[must_use]
    pub fn from_bytes(name: String, mut bytes: Vec<u8>) -> (Self, Option<Problem>) {
        // Some editors put a byte-order mark first, which no line and column counts.
        if bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(..3);
        }
        match String::from_utf8(bytes) {
            Ok(text) => (Self { name, text }, None),
            Err(error) => {
                // Up to there, bytes and text are the same.
                let start = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let end = text.ceil_char_boundary(start + 1);
                let message = format!("this file is not UTF-8 text: byte {} cannot be read", start + 1);
                let problem = Problem::new(Span::File(start..end), message);
                (Self { name, text }, Some(problem.help("save it as UTF-8")))
            }
        }
    }

    /// Returns line and column of a byte offset, both counted from 1, the column in characters.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Where something stands: in the file, or in a `--set` argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// Bytes of the source.
    File(Range<usize>),
    /// The n-th `--set` argument, bytes within its text.
    Set(usize, Range<usize>),
    /// Nowhere in particular: the file as a whole.
    #[default]
    Whole,
}

/// One thing that is wrong, in the user's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Where to point.
    pub span: Span,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What would mend it, if that can be said.
    pub help: Option<String>,
    /// Other places that belong to it, each with a few words ("first written here").
    pub related: Vec<(Span, String)>,
}

impl Problem {
    /// Makes a problem at a place.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), ..Self::default() }
    }

    /// Adds what would mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place that belongs to it.
    #[must_use]
    pub fn related(mut self, span: Span, words: impl Into<String>) -> Self {
        self.related.push((span, words.into()));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Sorts problems by place.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| place(&problem.span));
}

/// Returns what places are ordered by: nowhere, then the file from top to bottom, then the `--set` arguments.
#[must_use]
pub fn place(span: &Span) -> impl Ord + use<> {
    match span {
        Span::Whole => (0, 0, 0),
        Span::File(range) => (1, 0, range.start),
        Span::Set(n, range) => (2, *n, range.start),
    }
}

/// Returns the known name that the user probably meant, if one is near.
#[must_use]
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong, as in rustc's own suggestions; swapped neighbours count as one.
    let tolerance = (written.chars().count().max(3) / 3).max(1);
    let lower = written.to_lowercase();
    let near = |name: &&'a str| {
        let distance = strsim::damerau_levenshtein(&lower, &name.to_lowercase());
        // Of a name of one letter nothing would be left.
        let is_near = distance <= tolerance && distance < written.len().min(name.len());
        // Half of a word or more, cut off behind.
        let is_begun = written.len() >= 3 && written.len() * 2 >= name.len() && name.to_lowercase().starts_with(&lower);
        (is_near || is_begun).then_some(distance)
    };
    known
        .into_iter()
        .filter_map(|name| Some((near(&name)?, name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
