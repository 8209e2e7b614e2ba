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
        let read = self.pipeline.read(true);
        if self.json {
            let problems = match &read {
                Ok(loaded) => {
                    loaded.result.as_ref().err().into_iter().flatten().map(|p| loaded.texts.line(p)).collect()
                }
                Err(unread) => vec![Line::of_no_place(unread.report.to_string())],
            };
            let report = Report { file: self.pipeline.file.display().to_string(), problems };
            output::print(&format!("{}\n", serde_json::json!(report)))?;
            return Ok(if report.problems.is_empty() { Exit::Done } else { Exit::Rejected });
        }
        let loaded = read?;
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
