//! How the problems of a file look: on a terminal with excerpt and caret, as JSON with line and column.
//!
//! The one place where problems are rendered: `check`, `plan` and `run` reject a file alike.

use std::fmt;

use miette::{
    Diagnostic, LabeledSpan, MietteError, MietteSpanContents, ReportHandler, Severity, SourceCode, SourceSpan,
    SpanContents,
};
use serde::Serialize;

use super::{Exit, output, trace};
use crate::report::text;
use crate::spec::{Problem, Source, Span};

/// The texts that problems point into.
#[derive(Debug)]
pub(super) struct Texts {
    file: Text,
    sets: Vec<Text>,
}

/// A problem as `check --json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// Counted from 1; `None` for a problem of an argument, and of a file that cannot be read.
    line: Option<usize>,
    /// In characters, counted from 1; `None` where there is no line.
    column: Option<usize>,
    message: String,
    help: Option<String>,
    /// The argument that is wrong: `--set train.retries=-1`. Absent for a problem of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<String>,
}

impl Line {
    /// Makes the problem of a file that cannot be read.
    pub(super) const fn of_no_place(message: String) -> Self {
        Self { line: None, column: None, message, help: None, argument: None }
    }
}

/// Problems that are shown to a person; of more, only how many there are.
const MOST_SHOWN: usize = 50;

impl Texts {
    /// Takes a file and the `--set` arguments.
    pub(super) fn new(source: Source, sets: &[String]) -> Self {
        let set = |set: &String| Text::new("--set".to_owned(), set.clone());
        Self { file: Text::new(source.name, source.text), sets: sets.iter().map(set).collect() }
    }

    /// Returns the text that a span points into, and its bytes; a span without place means the start of the file.
    fn at<'t>(&'t self, span: &Span) -> (&'t Text, std::ops::Range<usize>) {
        match span {
            Span::Whole => (&self.file, 0..0),
            Span::File(range) => (&self.file, range.clone()),
            Span::Set(n, range) => (self.sets.get(*n).unwrap_or(&self.file), range.clone()),
        }
    }

    /// Returns a problem for JSON.
    pub(super) fn line(&self, problem: &Problem) -> Line {
        let (text, range) = self.at(&problem.span);
        let (line, column) = text.position(range.start);
        let argument = match problem.span {
            Span::Set(n, _) => Some(self.sets.get(n).map_or("--set".to_owned(), |set| format!("--set {}", set.text))),
            Span::File(_) | Span::Whole => None,
        };
        let in_file = argument.is_none();
        Line {
            line: in_file.then_some(line),
            column: in_file.then_some(column),
            message: problem.message.clone(),
            help: problem.help.clone(),
            argument,
        }
    }

    /// Prints to standard error what is no reason to reject the file.
    pub(super) fn warn(&self, problems: &[Problem]) {
        let handler = miette::MietteHandlerOpts::new().terminal_links(false).build();
        for problem in problems {
            if trace::is_json() {
                let (text, range) = self.at(&problem.span);
                let (line, column) = text.position(range.start);
                output::warn(&format!("{}:{line}:{column}: {}", text.name, problem.message));
                continue;
            }
            let diagnostic = Shown { severity: Severity::Warning, ..self.shown(problem) };
            let rendered = Rendered { diagnostic: &diagnostic, handler: &handler }.to_string();
            output::say(text::coloured(&rendered).trim_end());
        }
    }

    /// Prints problems to standard error, in their order, and returns how the command ends.
    pub(super) fn reject(&self, problems: &[Problem]) -> Exit {
        let handler = miette::MietteHandlerOpts::new().terminal_links(false).build();
        output::say(text::coloured(&self.render(problems, &handler)).trim_end());
        Exit::Rejected
    }

    /// Writes problems one below the other, and how many there are.
    pub(super) fn render(&self, problems: &[Problem], handler: &dyn ReportHandler) -> String {
        let mut all = String::new();
        for problem in problems.iter().take(MOST_SHOWN) {
            all += &Rendered { diagnostic: &self.shown(problem), handler }.to_string();
        }
        let plural = if problems.len() == 1 { "" } else { "s" };
        let more = match problems.len().saturating_sub(MOST_SHOWN) {
            0 => String::new(),
            more => format!("; {more} more are not shown: `trainyard check --json` lists all"),
        };
        all + &format!("{} problem{plural} in {}{more}\n", problems.len(), self.file.name)
    }

    /// Returns a problem with what is shown around it.
    fn shown<'t>(&'t self, problem: &'t Problem) -> Shown<'t> {
        let (text, range) = self.at(&problem.span);
        let same_text = |span: &Span| std::ptr::eq(self.at(span).0, text);
        let mut labels = Vec::new();
        let mut help = problem.help.clone();
        for (span, words) in &problem.related {
            if same_text(span) {
                labels.push(label(Some(words.clone()), self.at(span).1));
            } else {
                let (other, range) = self.at(span);
                let (line, column) = other.position(range.start);
                let place = format!("{words} ({}:{line}:{column})", other.name);
                help = Some(help.map_or(place.clone(), |help| format!("{help}; {place}")));
            }
        }
        // The place itself is marked, unless one of the others says more about it.
        if !labels.iter().any(|label| label.offset() == range.start) && problem.span != Span::Whole {
            labels.insert(0, LabeledSpan::new_primary_with_span(None, (range.start, range.len())));
        }
        Shown { severity: Severity::Error, message: &problem.message, help, text, labels }
    }
}

fn label(words: Option<String>, range: std::ops::Range<usize>) -> LabeledSpan {
    LabeledSpan::new_with_span(words, (range.start, range.len()))
}

/// A problem in the form that miette draws.
#[derive(Debug)]
struct Shown<'t> {
    severity: Severity,
    message: &'t str,
    help: Option<String>,
    text: &'t Text,
    labels: Vec<LabeledSpan>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.text)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
}

/// A diagnostic drawn by a handler.
struct Rendered<'d> {
    diagnostic: &'d dyn Diagnostic,
    handler: &'d dyn ReportHandler,
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handler.debug(self.diagnostic, f)
    }
}

/// A text whose lines are found without reading it from the start: thousands of problems in a large file are drawn in
/// one pass each.
#[derive(Debug)]
struct Text {
    name: String,
    text: String,
    /// Where each line starts, in bytes.
    starts: Vec<usize>,
}

impl Text {
    fn new(name: String, text: String) -> Self {
        // An excerpt goes to a terminal, which must not obey what somebody wrote into the file.
        let text = text::in_place(&text).into_owned();
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { name, text, starts }
    }

    /// Returns the line of a byte, counted from 0.
    fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// Returns line and column of a byte, both counted from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.line_of(offset);
        (line + 1, self.text[self.starts[line]..offset].chars().count() + 1)
    }
}

/// Bytes of an excerpt beyond which only the part around the place is shown.
const LONGEST_EXCERPT: usize = 1_000;

impl Text {
    /// Returns what stands around a place in a line that is too long to be shown.
    fn part_of_line(&self, span: &SourceSpan) -> MietteSpanContents<'_> {
        const AROUND: usize = 40;
        let line = self.line_of(span.offset());
        let line_start = self.starts[line];
        let line_end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let start = self.text.ceil_char_boundary(span.offset().saturating_sub(AROUND).max(line_start));
        let wanted_end = (span.offset() + span.len()).max((span.offset() + AROUND).min(line_end));
        let end = self.text.floor_char_boundary(wanted_end.max(start));
        let data = &self.text.as_bytes()[start..end];
        let covered = SourceSpan::from((start, data.len()));
        MietteSpanContents::new_named(self.name.clone(), data, covered, line, start - line_start, 1)
    }
}

impl SourceCode for Text {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let end = span.offset().saturating_add(span.len());
        if end > self.text.len() {
            return Err(MietteError::OutOfBounds);
        }
        let first = self.line_of(span.offset()).saturating_sub(lines_before);
        let last = self.line_of(end.saturating_sub(1).max(span.offset())) + lines_after;
        let data_end = self.starts.get(last + 1).copied().unwrap_or(self.text.len());
        let (start, column) = match lines_before {
            // miette asks so for what it writes behind the file's name.
            0 => (span.offset(), self.position(span.offset()).1 - 1),
            _ => (self.starts[first], 0),
        };
        if lines_before > 0 && data_end - start > LONGEST_EXCERPT.max(4 * span.len()) {
            return Ok(Box::new(self.part_of_line(span)));
        }
        let data = &self.text.as_bytes()[start..data_end];
        let covered = SourceSpan::from((start, data.len()));
        let count = last.min(self.starts.len() - 1) - first + 1;
        Ok(Box::new(MietteSpanContents::new_named(self.name.clone(), data, covered, first, column, count)))
    }
}
