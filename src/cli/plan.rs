//! `trainyard plan FILE`: shows where and when every task would run, and how far that is from the best, without running
//! any of it.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::pipeline_file::PipelineFile;
use super::planning::{self, Planning};
use super::{Exit, Failure, output, state};
use crate::fleet::Fleet;
use crate::graph::TaskGraph;
use crate::plan::proof::NoProof;
use crate::plan::{Instance, Plan};
use crate::probe::mps;
use crate::report::paint::Colour;
use crate::report::plan::Sheet;
use crate::spec::Pipeline;

/// Show where and when every task would run, and how good that is
#[derive(Args)]
pub(super) struct Command {
    #[command(flatten)]
    pipeline: PipelineFile,
    #[command(flatten)]
    planning: Planning,
    /// With --policy exact: write a proof of the lower bound to FILE (DRCP), and what its steps are about to FILE.json
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
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
        self.proof.as_ref().map_or(Ok(()), |_| self.planning.can_prove())?;
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
        if let Some(file) = &self.proof {
            self.prove((&pipeline, &graph, &fleet), &plan, file)?;
        }
        let text = || sheet.text(Colour::for_stdout(), output::columns());
        output::print(&if self.json { sheet.json() + "\n" } else { text() })
    }

    /// Writes a proof of the plan's bound, and says what it proves.
    fn prove(&self, of: (&Pipeline, &TaskGraph, &Fleet), plan: &Plan, file: &Path) -> Result<(), Failure> {
        let proof = match self.planning.prove(of, plan.lower_bound, file) {
            Ok(proof) => proof,
            Err(NoProof::File(error)) if error.kind() == io::ErrorKind::NotFound => {
                let report = miette::miette!(
                    help = "make the folder first, or name a file in another one",
                    "cannot write the proof to {}: there is no such folder",
                    file.display()
                );
                return Err(Failure { exit: Exit::Usage, report });
            }
            Err(NoProof::File(error)) => {
                let report = miette::miette!("cannot write the proof to {}: {error}", file.display());
                return Err(Failure { exit: Exit::Bug, report });
            }
            Err(error) => {
                output::warn(&format!("no proof: {error}"));
                return Ok(());
            }
        };
        let (bound, of_plan) = (proof.bound, plan.lower_bound);
        let less = if bound < of_plan {
            format!(" (that none ends before {of_plan} rests on {}, which is not part of it)", plan.bound_by)
        } else {
            String::new()
        };
        let (file, about) = (file.display(), planning::about(file));
        output::note(&format!("proof that no plan ends before {bound}{less}: {file}, about {}", about.display()));
        Ok(())
    }
}
