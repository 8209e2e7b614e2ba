//! `trainyard check FILE`: says everything that is wrong with a pipeline file, without running any of it.

use clap::Args;
use serde::Serialize;

use super::pipeline_file::PipelineFile;
use super::problems::Line;
use super::{Exit, Failure, output};

/// Check a pipeline file and report all of its problems
#[derive(Args)]
pub(super) struct Command {
    #[command(flatten)]
    pipeline: PipelineFile,
    /// Print the problems as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    file: String,
    problems: Vec<Line>,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let loaded = self.pipeline.read(true)?;
        if self.json {
            let problems = loaded.result.as_ref().err().map(Vec::as_slice).unwrap_or_default();
            let report = Report {
                file: self.pipeline.file.display().to_string(),
                problems: problems.iter().map(|problem| loaded.texts.line(problem)).collect(),
            };
            output::print(&format!("{}\n", serde_json::json!(report)))?;
            return Ok(if problems.is_empty() { Exit::Done } else { Exit::Rejected });
        }
        match loaded.result {
            Ok((pipeline, graph)) => {
                let (stages, tasks) = (pipeline.stages.len(), graph.len());
                let file = self.pipeline.file.display();
                output::print(&format!("{file}: no problems; stages: {stages}, tasks: {tasks}\n"))
            }
            Err(problems) => Ok(loaded.texts.reject(&problems)),
        }
    }
}
