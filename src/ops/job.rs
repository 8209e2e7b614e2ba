//! What the orchestrator asks for: one op, its parameters, its files.
//!
//! The job comes as a JSON file with parameters that have passed `check` and are complete. Paths are relative to the
//! working directory.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use trainyard::spec::op;

use crate::error::OpError;
use crate::surroundings::Surroundings;
use crate::{best, csv, evaluate, file, libsvm, pca, predict, split, standardize, train};

/// One call of an op.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    op: String,
    with: Map<String, Value>,
    inputs: Vec<PathBuf>,
    outputs: Vec<PathBuf>,
}

impl Job {
    /// Reads a job file.
    pub(crate) fn read(path: &Path) -> Result<Self, OpError> {
        serde_json::from_slice(&file::read(path)?)
            .map_err(|error| OpError::Job(format!("{} is not a job: {error}", path.display())))
    }

    /// Carries the job out.
    pub(crate) fn perform(&self, around: &Surroundings) -> Result<(), OpError> {
        self.check_files()?;
        let (inputs, outputs) = (&self.inputs, &self.outputs);
        match self.op.as_str() {
            "data.csv" => csv::run(&self.with()?, &inputs[0], &outputs[0]),
            "data.libsvm" => libsvm::run(&self.with()?, &inputs[0], &outputs[0]),
            "data.split" => split::run(&self.with()?, &inputs[0], &outputs[0], &outputs[1]),
            "feature.standardize" => standardize::run(&self.with()?, inputs, outputs),
            "feature.pca" => pca::run(&self.with()?, inputs, outputs),
            "torch.train" => train::run(&self.with()?, inputs, &outputs[0], around),
            "torch.evaluate" => evaluate::run(&self.with()?, &inputs[0], &inputs[1], &outputs[0], around),
            "torch.predict" => predict::run(&self.with()?, &inputs[0], &inputs[1], &outputs[0], around),
            "report.best" => best::run(&self.with()?, inputs, &outputs[0]),
            other => Err(OpError::Job(format!("`{other}` is no built-in stage of this version"))),
        }
    }

    fn with<T: DeserializeOwned>(&self) -> Result<T, OpError> {
        serde_json::from_value(Value::Object(self.with.clone()))
            .map_err(|error| OpError::Job(format!("parameters of {}: {error}", self.op)))
    }

    /// Checks the number of files, which the ops rely on.
    fn check_files(&self) -> Result<(), OpError> {
        let Some(op) = op::find(&self.op) else { return Ok(()) };
        for (what, files, given) in [("inputs", op.inputs, &self.inputs), ("outputs", op.outputs, &self.outputs)] {
            let matched = !files.as_inputs || given.len() == self.inputs.len();
            if given.len() < files.least || given.len() > files.most || !matched {
                let text = format!("{}: {} {what} given; they are: {}", self.op, given.len(), files.about);
                return Err(OpError::Job(text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(op: &str, inputs: &[&str], outputs: &[&str]) -> Job {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Job { op: op.to_owned(), with: Map::new(), inputs: paths(inputs), outputs: paths(outputs) }
    }

    #[test]
    fn every_op_of_the_catalogue_is_known_here() {
        for op in op::CATALOGUE {
            let inputs = vec!["x"; op.inputs.least];
            let outputs = vec!["y"; op.outputs.least];
            // No parameters: each known op stops at the first one it misses or, with none to miss, at its file.
            let error = job(op.name, &inputs, &outputs).perform(&Surroundings::default()).unwrap_err().to_string();
            assert!(error.contains("missing field"), "{}: {error}", op.name);
        }
    }

    #[test]
    fn a_wrong_number_of_files_is_refused() {
        let error = |job: Job| job.perform(&Surroundings::default()).unwrap_err().to_string();
        assert!(error(job("data.split", &["a"], &["b"])).contains("1 outputs given"));
        assert!(error(job("feature.pca", &["a", "b"], &["c"])).contains("1 outputs given"));
        assert!(error(job("data.parquet", &[], &[])).contains("no built-in stage"));
    }
}
