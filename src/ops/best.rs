//! `report.best`: the reports of several models side by side, and which is the best.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{OpError, Place};
use crate::evaluate::Evaluation;
use crate::file;
use crate::params::{Best, Metric};

/// The gathered report.
#[derive(Debug, Serialize)]
struct Gathered {
    metric: Metric,
    best: Evaluation,
    /// In the order of the inputs.
    models: Vec<Evaluation>,
}

/// Gathers the reports, prints a table, the best first, and writes them together.
pub(crate) fn run(params: &Best, inputs: &[PathBuf], output: &Path) -> Result<(), OpError> {
    let models = inputs.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut ranked: Vec<&Evaluation> = models.iter().collect();
    // The sort keeps the order of the inputs among equals.
    ranked.sort_by(|a, b| merit(params.metric, b).total_cmp(&merit(params.metric, a)));
    let best = ranked.first().map(|best| (*best).clone());
    let best = best.ok_or_else(|| OpError::Job("report.best got no report".to_owned()))?;
    print!("{}", table(&ranked));
    println!("best: {} with accuracy {:.4}", name(&best), best.accuracy);
    file::write_json(output, &Gathered { metric: params.metric, best, models })
}

fn read(path: &Path) -> Result<Evaluation, OpError> {
    serde_json::from_slice(&file::read(path)?).map_err(|error| {
        let what = format!("this is not a report of `torch.evaluate`: {error}");
        OpError::input(Place::file(path), what, "check the stage's `inputs`")
    })
}

/// Returns what is to be as large as possible.
fn merit(metric: Metric, evaluation: &Evaluation) -> f64 {
    match metric {
        Metric::Accuracy => evaluation.accuracy,
        Metric::MacroF1 => evaluation.macro_f1.unwrap_or(f64::NEG_INFINITY),
        Metric::Loss => -evaluation.loss,
    }
}

/// Returns the name of the model's file without folder and suffix.
fn name(evaluation: &Evaluation) -> String {
    Path::new(&evaluation.model).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn table(ranked: &[&Evaluation]) -> String {
    let width = ranked.iter().map(|evaluation| name(evaluation).chars().count()).max().unwrap_or(0).max("model".len());
    let mut text = format!(
        "{:<width$} {:>9} {:>8} {:>6} {:>6} {:>9} {:>9} {:>8}\n",
        "model", "kind", "lr", "seed", "epochs", "accuracy", "macro F1", "loss"
    );
    for evaluation in ranked {
        let Evaluation { parameters, epochs, accuracy, macro_f1, loss, .. } = evaluation;
        let macro_f1 = macro_f1.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let kind = format!("{:?}", parameters.model).to_lowercase();
        let (name, lr, seed) = (name(evaluation), parameters.lr, parameters.seed);
        text += &format!(
            "{name:<width$} {kind:>9} {lr:>8} {seed:>6} {epochs:>6} {accuracy:>9.4} {macro_f1:>9} {loss:>8.4}\n"
        );
    }
    text
}
