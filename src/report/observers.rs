//! Which observers watch a run, by what the user asked for and where the output goes.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::rc::Rc;

use super::bars::Bars;
use super::held::Keeper;
use super::journal::Journal;
use super::lines::{Lines, Quiet};
use super::mirror::Mirror;
use super::paint::Colour;
use super::reasons::Reasons;
use super::screen::Screen;
use super::stream::Stream;
use crate::run::observer::Observer;

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bars that move.
    Bars,
    /// A line per fact.
    Lines,
    /// Failures and the last line.
    Quiet,
    /// A JSON object per fact on standard output.
    Json,
}

impl Style {
    /// Chooses: what the user asked for, otherwise bars on a terminal and lines elsewhere.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "what the terminal can do is told by the environment only")]
    pub fn choose(quiet: bool, json: bool) -> Self {
        // On a dumb terminal, an editor's for example, the cursor cannot be moved.
        let moves = io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        match (json, quiet, moves) {
            (true, _, _) => Self::Json,
            (false, true, _) => Self::Quiet,
            (false, false, true) => Self::Bars,
            (false, false, false) => Self::Lines,
        }
    }
}

/// The first write to standard output that failed; a reader that has gone away is no failure.
pub type Lost = Rc<RefCell<Option<io::Error>>>;

/// Standard output that remembers what could not be written: an observer cannot stop a run.
struct Watched {
    out: io::Stdout,
    lost: Lost,
}

impl Watched {
    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.inspect_err(|error| {
            if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) {
                let same = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
                self.lost.borrow_mut().get_or_insert(same);
            }
        })
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.out.write(bytes);
        self.note(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.out.flush();
        self.note(done)
    }
}

/// What observers are made from.
#[derive(Clone)]
pub struct Options {
    /// How the run is shown.
    pub style: Style,
    /// Whether what stages print is shown as well.
    pub mirror: bool,
    /// The run's folder.
    pub dir: PathBuf,
    /// The state folder, where commands called from here would not find it by themselves.
    pub elsewhere: Option<PathBuf>,
    /// The terminal, shared with the log lines.
    pub screen: Screen,
    /// Whether standard error is for log lines only.
    pub logs_only: bool,
    /// Where it is noted that standard output could not be written.
    pub lost: Lost,
}

/// Makes the observers of a run, to be told in this order.
#[must_use]
pub fn observers(options: Options) -> Vec<Box<dyn Observer>> {
    let Options { style, mirror, dir, elsewhere, screen, logs_only, lost } = options;
    let err = || if logs_only { Box::new(io::sink()) as Box<dyn Write> } else { Box::new(screen.clone()) };
    let out = || Box::new(Watched { out: io::stdout(), lost: Rc::clone(&lost) }) as Box<dyn Write>;
    let mut all: Vec<Box<dyn Observer>> =
        vec![Box::<Journal>::default(), Box::new(Reasons::new(dir.clone())), Box::new(Keeper::new(dir.clone()))];
    if mirror {
        all.push(Box::new(Mirror::new(Box::new(screen.clone()), Colour::for_stderr())));
    }
    all.push(match style {
        Style::Bars if !logs_only => Box::new(Bars::new(screen.clone(), out(), dir, elsewhere)),
        Style::Bars | Style::Lines => Box::new(Lines::new(err(), out(), dir, elsewhere)),
        Style::Quiet => Box::new(Quiet::new(err(), dir)),
        Style::Json => Box::new(Stream::new(out(), dir)),
    });
    all
}
