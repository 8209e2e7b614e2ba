//! What a command prints. A reader that has seen enough, or a disk that is full, is never a reason to panic.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Exit, Failure, trace};
use crate::report::text;

/// Writes the whole of a command's output. That the reader has seen enough (`| head`) is no failure.
pub(super) fn print(text: &str) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    finish(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes a value as JSON, indented on a terminal and in one line otherwise.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<Exit, Failure> {
    let text =
        if io::stdout().is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    print(&(text.expect("our views are plain data with text keys") + "\n"))
}

/// Writes a line, or more, on standard error. Where that is closed or full, nobody can be told.
pub(super) fn say(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Says what a person should know though nothing is wrong: a line on standard error, or a log line where those are
/// JSON. Not with `--quiet`.
pub(super) fn note(text: &str) {
    match (HUSHED.load(Ordering::Relaxed), trace::is_json()) {
        (true, _) => {}
        (false, true) => tracing::info!("{text}"),
        (false, false) => say(text),
    }
}

/// Shows on a terminal a line that the next one takes the place of, and nothing at last; whether there is a terminal, and
/// somebody wants to know.
pub(super) fn pass(text: &str) -> bool {
    let terminal = console::Term::stderr();
    if HUSHED.load(Ordering::Relaxed) || trace::is_json() || !terminal.is_term() {
        return false;
    }
    let columns = usize::from(terminal.size().1).saturating_sub(1);
    let line = format!("\r{}\x1b[K", text::fit_middle(text, columns));
    drop(io::stderr().lock().write_all(line.as_bytes()));
    true
}

/// Warns, also with `--quiet`.
pub(super) fn warn(text: &str) {
    if trace::is_json() { tracing::warn!("{text}") } else { say(&format!("warning: {text}")) }
}

/// Says from here on only what is wrong.
pub(super) fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
}

static HUSHED: AtomicBool = AtomicBool::new(false);

/// Returns how a command ended by how its last write went.
pub(super) fn finish(written: io::Result<()>) -> Result<Exit, Failure> {
    match written {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(Failure { exit: Exit::Bug, report: miette::miette!("cannot write the output: {error}") }),
    }
}

/// Returns the width of the terminal behind standard output, if it is one.
pub(super) fn columns() -> Option<usize> {
    size().map(|(_, columns)| columns)
}

/// Returns the rows and columns of the terminal behind standard output, if it is one.
pub(super) fn size() -> Option<(usize, usize)> {
    console::Term::stdout().size_checked().map(|(rows, columns)| (rows.into(), columns.into()))
}
