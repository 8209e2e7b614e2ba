//! `trainyard plan FILE`: shows where and when every task would run, and how far that is from the best, without running
//! any of it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use super::pipeline_file::PipelineFile;
use super::planning::Planning;
use super::{Exit, Failure, state};
use crate::plan::Instance;
use crate::report::paint::Colour;
use crate::report::plan::Sheet;

/// Show where and when every task would run, and how good that is
#[derive(Args)]
pub(super) struct Command {
    #[command(flatten)]
    pipeline: PipelineFile,
    #[command(flatten)]
    planning: Planning,
    /// Show how long every task takes on every device
    #[arg(long)]
    load_matrix: bool,
    /// Where earlier runs are recorded, from which what the file leaves open is learned [default: .trainyard beside FILE]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (mut pipeline, graph) = match self.pipeline.load(false)? {
            Ok(loaded) => loaded,
            Err(exit) => return Ok(exit),
        };
        let fleet = match self.planning.fleet(&pipeline)? {
            Ok(fleet) => fleet,
            Err(exit) => return Ok(exit),
        };
        let dir = self.state.clone().unwrap_or_else(|| self.pipeline.folder().join(state::FOLDER));
        let origins = Planning::learn(&mut pipeline, &fleet, &dir);
        let (plan, timing) = self.planning.make_timed(&pipeline, &graph, &fleet)?;
        let instance = Instance::new(&pipeline, &graph, &fleet).expect("there is a plan, so every task fits somewhere");
        let loads = self.load_matrix.then(|| instance.load_matrix(&fleet));
        let sheet = Sheet {
            pipeline: &pipeline,
            graph: &graph,
            fleet: &fleet,
            plan: &plan,
            origins: &origins,
            timing: &timing,
            loads: loads.as_ref(),
        };
        let shown = if self.json { sheet.json() + "\n" } else { sheet.text(Colour::for_stdout(), terminal_width()) };
        match io::stdout().lock().write_all(shown.as_bytes()) {
            // Whoever reads us has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
            Err(error) => Err(Failure { exit: Exit::Bug, report: miette::miette!("cannot write the plan: {error}") }),
            Ok(()) => Ok(Exit::Done),
        }
    }
}

/// Returns the columns of the terminal behind standard output, if it is one.
fn terminal_width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}
