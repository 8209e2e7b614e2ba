//! `torch.evaluate`: how good a model is on rows it has not seen.
//!
//! A figure that is not defined (the precision of a class that was never predicted) is absent, never zero.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use crate::dataset::Dataset;
use crate::error::OpError;
use crate::file;
use crate::model::Model;
use crate::params::{Evaluate, Family, Train};
use crate::surroundings::Surroundings;
use crate::tensor;

/// The report on one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    /// Path of the model.
    pub(crate) model: String,
    pub(crate) family: Family,
    /// What it was trained with.
    pub(crate) parameters: Train,
    /// Epochs it was trained for.
    pub(crate) epochs: u64,
    /// Path of the data set.
    pub(crate) data: String,
    pub(crate) rows: usize,
    /// Part of the rows whose class was predicted, 0 to 1.
    pub(crate) accuracy: f64,
    /// Mean of the F1 of the classes for which it is defined.
    pub(crate) macro_f1: Option<f64>,
    /// Mean cross-entropy, in nats.
    pub(crate) loss: f64,
    pub(crate) per_class: Vec<ClassFigures>,
    /// `[true class][predicted class]`, rows.
    pub(crate) confusion: Vec<Vec<u64>>,
}

/// The figures of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClassFigures {
    pub(crate) class: String,
    /// Of the rows predicted as this class, the part that is.
    pub(crate) precision: Option<f64>,
    /// Of the rows of this class, the part predicted so.
    pub(crate) recall: Option<f64>,
    /// Harmonic mean of the two.
    pub(crate) f1: Option<f64>,
    /// Rows of this class.
    pub(crate) support: u64,
}

/// Measures the model, prints the figures and writes the report.
pub(crate) fn run(
    params: &Evaluate,
    model: &Path,
    data: &Path,
    output: &Path,
    around: &Surroundings,
) -> Result<(), OpError> {
    let device = around.device();
    let trained = Model::read(model, device)?;
    let set = Dataset::read(data)?;
    set.check_features(trained.architecture.features, "the model", data)?;
    let y = set.labels_in(&trained.classes, data)?;
    let scores = trained.log_probabilities(&set, params.batch_size, device)?;
    let truth = tensor::classes(&y, Device::Cpu)?;
    let loss = scores.f_to_kind(Kind::Double)?.f_nll_loss::<Tensor>(&truth, None, Reduction::Mean, -100)?;
    let predicted: Vec<i64> = Vec::try_from(scores.f_argmax(-1, false)?)?;
    let confusion = confusion(&y, &predicted, trained.classes.len());
    let per_class = figures(&confusion, &trained.classes);
    let evaluation = Evaluation {
        model: file::named(model),
        family: trained.params.model,
        parameters: trained.params,
        epochs: trained.epochs,
        data: file::named(data),
        rows: y.len(),
        accuracy: accuracy(&confusion),
        macro_f1: mean(per_class.iter().filter_map(|class| class.f1)),
        loss: loss.f_double_value(&[])?,
        per_class,
        confusion,
    };
    print!("{}", table(&evaluation));
    file::write_json(output, &evaluation)
}

fn confusion(truth: &[i64], predicted: &[i64], classes: usize) -> Vec<Vec<u64>> {
    let mut confusion = vec![vec![0; classes]; classes];
    let index = |class: &i64| usize::try_from(*class).unwrap_or(usize::MAX);
    for (truth, predicted) in truth.iter().zip(predicted) {
        confusion[index(truth)][index(predicted)] += 1;
    }
    confusion
}

/// Returns `part / whole` if there is a whole.
#[expect(clippy::cast_precision_loss, reason = "rows are fewer than 2^52")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn accuracy(confusion: &[Vec<u64>]) -> f64 {
    let correct = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    ratio(correct, confusion.iter().flatten().sum()).unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "classes are few")]
fn mean(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let count = values.clone().count();
    (count > 0).then(|| values.sum::<f64>() / count as f64)
}

fn figures(confusion: &[Vec<u64>], classes: &[String]) -> Vec<ClassFigures> {
    let of = |(class, name): (usize, &String)| {
        let support = confusion[class].iter().sum();
        let predicted: u64 = confusion.iter().map(|row| row[class]).sum();
        let hits = confusion[class][class];
        ClassFigures {
            class: name.clone(),
            precision: ratio(hits, predicted),
            recall: ratio(hits, support),
            f1: ratio(2 * hits, support + predicted),
            support,
        }
    };
    classes.iter().enumerate().map(of).collect()
}

/// The most classes whose confusion matrix is printed; the report holds it whatever its size.
const MOST_PRINTED: usize = 20;

fn table(evaluation: &Evaluation) -> String {
    let percent = |part: Option<f64>| part.map_or_else(|| "-".to_owned(), |part| format!("{:.2}", part * 100.0));
    let names = evaluation.per_class.iter().map(|class| class.class.chars().count());
    let width = names.max().unwrap_or(0).max("class".len());
    let mut text = format!("{:<width$} {:>9} {:>7} {:>7} {:>7}\n", "class", "precision", "recall", "F1", "rows");
    for ClassFigures { class, precision, recall, f1, support } in &evaluation.per_class {
        let (precision, recall, f1) = (percent(*precision), percent(*recall), percent(*f1));
        text += &format!("{class:<width$} {precision:>9} {recall:>7} {f1:>7} {support:>7}\n");
    }
    if evaluation.per_class.len() <= MOST_PRINTED {
        let widest = evaluation.confusion.iter().flatten().max().map_or(1, |most| most.to_string().len()).max(3);
        text += "confusion, a line for each true class:\n";
        for (class, row) in evaluation.per_class.iter().zip(&evaluation.confusion) {
            let cells: String = row.iter().map(|count| format!(" {count:>widest$}")).collect();
            text += &format!("{:<width$}{cells}\n", class.class);
        }
    }
    let Evaluation { accuracy, loss, rows, .. } = evaluation;
    text + &format!("accuracy {accuracy:.4}, loss {loss:.4}, {rows} rows\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_definition_and_absent_where_undefined() {
        let names: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let confusion = confusion(&[0, 0, 0, 1], &[0, 0, 1, 1], 3);
        assert_eq!(confusion, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
        assert!((accuracy(&confusion) - 0.75).abs() < 1e-12);
        let figures = figures(&confusion, &names);
        assert_eq!((figures[0].precision, figures[0].recall, figures[0].f1), (Some(1.0), Some(2.0 / 3.0), Some(0.8)));
        assert_eq!((figures[1].precision, figures[1].recall), (Some(0.5), Some(1.0)));
        assert_eq!((figures[2].precision, figures[2].recall, figures[2].f1), (None, None, None));
    }
}
