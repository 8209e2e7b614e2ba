//! Log lines of our own (`tracing`): to standard error as loud as asked for, and all of them into the run's folder.
//!
//! Lines for standard error go through the [`Screen`], so that they scroll by above the bars.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use clap::{ArgAction, ValueEnum};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, ParseError, dynamic_filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::{output, rotate};
use crate::report::paint::Colour;
use crate::report::screen::Screen;
use crate::run::event::Recorded;
use crate::run::observer::{Observer, View};
use crate::units::Millis;

/// The process has one terminal.
static SCREEN: LazyLock<Screen> = LazyLock::new(Screen::default);

/// How log lines are written, once it is known.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// The run's own log file, once there is a run. What happens in one tick is written together: three lines for each of
/// many short tasks would be as many calls.
static RUN_LOG: OnceLock<Mutex<BufWriter<LongFile>>> = OnceLock::new();

#[derive(clap::Args)]
pub(super) struct Args {
    /// Say more about what happens; twice for details [env: RUST_LOG]
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// How log lines are written
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Returns the terminal that log lines go to; whatever else is written to standard error during a run shares it.
pub(super) fn screen() -> Screen {
    SCREEN.clone()
}

/// Whether standard error is for programs: one JSON object a line.
pub(super) fn is_json() -> bool {
    matches!(FORMAT.get(), Some(Format::Json))
}

/// Begins logging. `RUST_LOG` wins over `-v`.
pub(super) fn start(args: &Args) {
    // Only a second call could fail, and there is one `main`.
    let _ = FORMAT.set(args.log_format);
    let chosen = match args.verbose {
        // What would be lines for people are log lines, then.
        0 if is_json() => "warn,trainyard=info",
        0 => "warn",
        1 => "warn,trainyard=info",
        2 => "info,trainyard=debug",
        _ => "trace",
    };
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|error| {
        let unread = std::error::Error::source(&error).is_some_and(|cause| cause.is::<ParseError>());
        if unread {
            output::say(&format!("warning: RUST_LOG is ignored: {error}"));
        }
        EnvFilter::new(chosen)
    });
    let screen = match args.log_format {
        Format::Text => {
            let ansi = Colour::for_stderr() == Colour::Ansi;
            let stamp = if io::stderr().is_terminal() { Stamp::SinceStart(now()) } else { Stamp::Utc };
            let line = fmt::layer().compact().with_timer(stamp).with_target(false).with_ansi(ansi);
            line.with_writer(screen).with_filter(chosen).boxed()
        }
        Format::Json => fmt::layer().json().with_ansi(false).with_writer(screen).with_filter(chosen).boxed(),
    };
    // A run that does nothing has no folder, and ten thousand lines that nobody reads.
    let file = EnvFilter::new("warn,trainyard=debug").and(dynamic_filter_fn(|_, _| RUN_LOG.get().is_some()));
    let file = fmt::layer().with_ansi(false).with_writer(RunLog).with_filter(file);
    // As above.
    drop(tracing_subscriber::registry().with(screen).with(file).try_init());
}

/// Writes log lines from here on also into `trainyard.log` in the run's folder, which must exist.
///
/// # Errors
/// Where the file cannot be made.
pub(super) fn to_run_folder(dir: &Path) -> io::Result<()> {
    let path = dir.join("trainyard.log");
    let file = rotate::open(&path)?;
    let length = file.metadata()?.len();
    // A process carries out one run; a second call keeps the first file.
    drop(RUN_LOG.set(Mutex::new(BufWriter::new(LongFile { path, file, length }))));
    Ok(())
}

/// Writes out what the run's log file has been told and has not written yet.
pub(super) fn flush() {
    if let Some(mut log) = run_log() {
        // A log that cannot be written stops nothing.
        let _ = log.flush();
    }
}

/// Returns the run's log file. Another thread's panic leaves a whole one.
fn run_log() -> Option<MutexGuard<'static, BufWriter<LongFile>>> {
    Some(RUN_LOG.get()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Writes the run's log out at every tick.
pub(super) struct Flush;

impl Observer for Flush {
    fn recorded(&mut self, _: View<'_>, _: &Recorded) {}

    fn ticked(&mut self, _: View<'_>, _: Millis) {
        flush();
    }
}

/// Stamps a line: on a terminal with the seconds since the start, since whoever looks on knows what day it is; elsewhere
/// with the time in UTC, as the lines of a run have it.
enum Stamp {
    SinceStart(Instant),
    Utc,
}

impl FormatTime for Stamp {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        match self {
            Self::SinceStart(start) => write!(w, "{:8.3}s", now().duration_since(*start).as_secs_f64()),
            Self::Utc => write!(w, "{}", jiff::Timestamp::now().strftime("%FT%TZ")),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line has a time")]
fn now() -> Instant {
    Instant::now()
}

/// A log file that makes room for a new one once it is long.
struct LongFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Write for LongFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Where it cannot be put aside, lines go on to where they went.
        if let Ok(Some(fresh)) = rotate::rotate(&self.path, self.length, rotate::LONGEST) {
            (self.file, self.length) = (fresh, 0);
        }
        let written = self.file.write(line)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes to the run's log file, or nowhere before there is one. What is wrong is written at once.
struct RunLog;

/// One line for the run's log file.
struct Line {
    at_once: bool,
}

impl<'a> MakeWriter<'a> for RunLog {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { at_once: true }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line {
        Line { at_once: *of.level() <= Level::WARN }
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Some(mut log) = run_log() else { return Ok(line.len()) };
        let written = log.write(line)?;
        if self.at_once {
            log.flush()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        run_log().map_or(Ok(()), |mut log| log.flush())
    }
}
