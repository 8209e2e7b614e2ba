//! `trainyard plan FILE`: shows where and when every task would run, and how far that is from the best, without running
//! any of it.

use std::path::PathBuf;

use clap::Args;

use super::pipeline_file::PipelineFile;
use super::planning::Planning;
use super::{Exit, Failure, output, state};
use crate::plan::Instance;
use crate::probe::mps;
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
            // A fleet of a file is believed to have what is asked for.
            mps: self.planning.fleet.is_some() || mps::runs(),
            timing: &timing,
            loads: loads.as_ref(),
        };
        let text = || sheet.text(Colour::for_stdout(), output::columns());
        output::print(&if self.json { sheet.json() + "\n" } else { text() })
    }
}
