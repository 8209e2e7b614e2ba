//! Where logs are printed to: line by line and made safe to a terminal, as JSON if asked for, and byte by byte as they are
//! elsewhere.

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;

use serde_json::json;

use super::holes::Holes;
use crate::report::text;

/// Bytes of a line that are printed at once; a longer line is printed in parts.
const PIECE: usize = 64 << 10;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bytes,
    Terminal,
    Json,
}

/// Prints logs on standard output.
pub(super) struct LogOut {
    out: io::StdoutLock<'static>,
    form: Form,
    /// Whether nothing has been printed yet.
    first: bool,
    /// Whose log follows: task and attempt.
    of: (String, Option<u32>),
    /// What has come of a line.
    line: Vec<u8>,
}

impl LogOut {
    pub(super) fn new(json: bool) -> Self {
        let out = io::stdout();
        let form = match (json, out.is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Terminal,
            (false, false) => Form::Bytes,
        };
        Self { out: out.lock(), form, first: true, of: (String::new(), None), line: Vec::new() }
    }

    /// Says whose log follows; an attempt of an earlier run has no number.
    pub(super) fn of(&mut self, task: &str, attempt: Option<u32>) {
        self.of = (task.to_owned(), attempt);
    }

    /// Writes a heading with an empty line before it, the first one excepted. JSON needs none.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        if self.form == Form::Json {
            return Ok(());
        }
        let gap = if std::mem::replace(&mut self.first, false) { "" } else { "\n" };
        writeln!(self.out, "{gap}==> {} <==", text::visible(text))
    }

    /// Writes a whole log; returns whether it holds anything. One that is not there is that of a task that printed
    /// nothing.
    pub(super) fn file(&mut self, path: &Path) -> io::Result<bool> {
        let mut log = match Holes::open(path) {
            Ok(file) => BufReader::with_capacity(PIECE, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let holds_any = !log.fill_buf()?.is_empty();
        self.rest(&mut log)?;
        self.end_line()?;
        Ok(holds_any)
    }

    /// Writes what can be read up to the end.
    pub(super) fn rest(&mut self, log: &mut impl BufRead) -> io::Result<()> {
        loop {
            let bytes = log.fill_buf()?;
            if bytes.is_empty() {
                return self.out.flush();
            }
            let length = bytes.len();
            if self.form == Form::Bytes {
                self.out.write_all(bytes)?;
            } else {
                for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                    self.line.extend_from_slice(piece);
                    if piece.ends_with(b"\n") || self.line.len() > PIECE {
                        self.write_line()?;
                    }
                }
            }
            log.consume(length);
        }
    }

    /// Writes a last line that had no end.
    pub(super) fn end_line(&mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.write_line()?;
        }
        self.out.flush()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn write_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        if self.form != Form::Json {
            return writeln!(self.out, "{}", text::log_line(&line));
        }
        let (task, attempt) = &self.of;
        let line = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
        writeln!(self.out, "{}", json!({"task": task, "attempt": attempt, "line": line}))
    }
}
