//! Which observers watch a run, by what the user asked for and where the output goes.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use super::bars::Bars;
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
}

/// Makes the observers of a run, to be told in this order.
#[must_use]
pub fn observers(options: Options) -> Vec<Box<dyn Observer>> {
    let Options { style, mirror, dir, elsewhere, screen, logs_only } = options;
    let err = || if logs_only { Box::new(io::sink()) as Box<dyn Write> } else { Box::new(screen.clone()) };
    let out = || Box::new(io::stdout()) as Box<dyn Write>;
    let mut all: Vec<Box<dyn Observer>> = vec![Box::<Journal>::default(), Box::new(Reasons::new(dir.clone()))];
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
