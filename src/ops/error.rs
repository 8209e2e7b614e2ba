//! What can go wrong in an op, in one line: what, where, and what mends it.
//!
//! Nobody branches on these; they are read by a person, so what differs from case to case is text.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tch::TchError;

/// Why an op failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    /// The operating system refused a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A file does not hold what it should.
    #[error("{at}: {what}; {help}")]
    Input { at: Place, what: String, help: String },
    /// The job itself is malformed: the caller's mistake.
    #[error("{0}")]
    Job(String),
    /// The parameters do not fit each other or the data.
    #[error("{what}; {help}")]
    Unfit { what: String, help: String },
    /// libtorch refused, for example for want of memory. Its own text is kept, because the orchestrator recognises an
    /// out-of-memory by it.
    #[error("libtorch: {}", first_part(.0))]
    Torch(#[from] TchError),
}

/// Where in a file.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    line: Option<u64>,
    column: Option<String>,
}

impl Place {
    /// The file as a whole.
    pub(crate) fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), line: None, column: None }
    }

    /// A line, counted from 1.
    pub(crate) fn line(path: &Path, line: u64) -> Self {
        Self { line: Some(line), ..Self::file(path) }
    }

    /// Adds the column: its name or its number, counted from 1.
    pub(crate) fn column(self, column: impl ToString) -> Self {
        Self { column: Some(column.to_string()), ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ": line {line}")?;
        }
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        Ok(())
    }
}

impl OpError {
    /// A file does not hold what it should.
    pub(crate) fn input(at: Place, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Input { at, what: what.into(), help: help.into() }
    }

    /// Parameters and data do not fit each other.
    pub(crate) fn unfit(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Unfit { what: what.into(), help: help.into() }
    }

    /// The operating system refused a file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Returns libtorch's message without the frames of its C++ stack.
fn first_part(error: &TchError) -> String {
    let text = if let TchError::Torch(text) = error { text.clone() } else { error.to_string() };
    let ends = ["\nException raised from", "\nframe #"].map(|mark| text.find(mark).unwrap_or(text.len()));
    text[..ends[0].min(ends[1])].trim_end().to_owned()
}
