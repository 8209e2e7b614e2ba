//! The entries of the catalogue: one table for each built-in stage.
//!
//! A default is what an experienced person would try first on a table of a few thousand rows. The file holds data
//! only; what a parameter may be is defined one level up.

use super::{Default, Files, Kind, Op, Param};

/// All built-in stages, in the order of the documentation.
pub static CATALOGUE: &[Op] = &[
    Op {
        name: "data.csv",
        about: "Reads a CSV file, also gzipped, into a data set",
        inputs: files(1, "the CSV file"),
        outputs: files(1, "the data set"),
        params: &[
            param(
                "label",
                Kind::Text,
                Default::Text("last"),
                "Column of the class: `first`, `last`, its name in the header, or `none`",
            ),
            param(
                "header",
                Kind::Choice(&["auto", "yes", "no", "counts"]),
                Default::Text("auto"),
                "Whether the first line names the columns; `counts`: it holds rows, features and class names",
            ),
            param("delimiter", Kind::Choice(&[",", ";", "\t", "|"]), Default::Text(","), "What separates the fields"),
        ],
    },
    Op {
        name: "data.libsvm",
        about: "Reads a file in libsvm format, also gzipped, into a data set",
        inputs: files(1, "the libsvm file"),
        outputs: files(1, "the data set"),
        params: &[
            param(
                "features",
                int(1, 16_777_216),
                Default::Absent,
                "Number of features; the largest index in the file when absent",
            ),
            param("first_index", int(0, 1), Default::Int(1), "Index of the first feature"),
        ],
    },
    Op {
        name: "data.split",
        about: "Splits a data set at random into a training and a test part",
        inputs: files(1, "the data set"),
        outputs: files(2, "the training set, then the test set"),
        params: &[
            param(
                "test",
                Kind::Float { least: 0.0, most: 0.99, above: true },
                Default::Float(0.25),
                "Part of the rows that goes to the test set",
            ),
            param("stratify", Kind::Bool, Default::Bool(true), "Keeps the proportions of the classes in both parts"),
            SEED,
        ],
    },
    Op {
        name: "feature.standardize",
        about: "Shifts every feature to mean 0 and scales it to deviation 1, as measured on the first data set",
        inputs: any_files(1, "the data set that is measured, then others that are treated alike"),
        outputs: Files { as_inputs: true, ..any_files(1, "the data sets in the same order") },
        params: &[param("scale", Kind::Bool, Default::Bool(true), "Scales too; `false` only shifts")],
    },
    Op {
        name: "feature.pca",
        about: "Projects the features on the principal components of the first data set",
        inputs: any_files(1, "the data set that is analysed, then others that are treated alike"),
        outputs: Files { as_inputs: true, ..any_files(1, "the data sets in the same order") },
        params: &[
            param(
                "components",
                int(1, 1_048_576),
                Default::Absent,
                "Number of components; as many as explain `variance` when absent",
            ),
            param(
                "variance",
                Kind::Float { least: 0.0, most: 1.0, above: true },
                Default::Float(0.95),
                "Part of the variance that the components explain, where `components` is absent",
            ),
            param("whiten", Kind::Bool, Default::Bool(false), "Scales every component to variance 1"),
        ],
    },
    Op {
        name: "torch.train",
        about: "Trains a classifier",
        inputs: Files { least: 1, most: 2, about: "the training set, then a validation set if any", as_inputs: false },
        outputs: files(1, "the model"),
        params: TRAIN,
    },
    Op {
        name: "torch.evaluate",
        about: "Measures a model on a data set: accuracy, precision, recall, confusion matrix",
        inputs: files(2, "the model, then the data set"),
        outputs: files(1, "the report, JSON"),
        params: &[BATCH],
    },
    Op {
        name: "torch.predict",
        about: "Predicts the class of every row",
        inputs: files(2, "the model, then the data set"),
        outputs: files(1, "the predictions, CSV"),
        params: &[
            param("probabilities", Kind::Bool, Default::Bool(true), "Adds a column with the probability of each class"),
            BATCH,
        ],
    },
    Op {
        name: "report.best",
        about: "Gathers the reports of `torch.evaluate` and names the best model",
        inputs: any_files(1, "reports of `torch.evaluate`"),
        outputs: files(1, "the gathered report, JSON"),
        params: &[param(
            "metric",
            Kind::Choice(&["accuracy", "macro_f1", "loss"]),
            Default::Text("accuracy"),
            "What makes a model the best; for `loss` the smallest",
        )],
    },
];

/// The parameters of `torch.train`.
const TRAIN: &[Param] = &[
    param(
        "model",
        Kind::Choice(&["logistic", "mlp", "cnn"]),
        Default::Required,
        "Logistic regression, multi-layer perceptron, or convolutional network for square images",
    ),
    param(
        "hidden",
        Kind::Ints { least: 1, most: 65_536, len: 16 },
        Default::Ints(&[64]),
        "Width of each hidden layer of the MLP and the CNN's head",
    ),
    param(
        "channels",
        Kind::Ints { least: 1, most: 4_096, len: 8 },
        Default::Ints(&[16, 32]),
        "Channels of each 3×3 convolution of the CNN; all but the first are followed by 2×2 pooling",
    ),
    param(
        "dropout",
        Kind::Float { least: 0.0, most: 0.95, above: false },
        Default::Float(0.0),
        "Part of the hidden units that is dropped while training",
    ),
    param("optimizer", Kind::Choice(&["adam", "sgd"]), Default::Text("adam"), "How the weights are updated"),
    param("lr", Kind::Float { least: 0.0, most: 1_000.0, above: true }, Default::Float(0.001), "Learning rate"),
    param(
        "momentum",
        Kind::Float { least: 0.0, most: 0.9999, above: false },
        Default::Float(0.9),
        "Momentum of SGD; Adam does not use it",
    ),
    param(
        "weight_decay",
        Kind::Float { least: 0.0, most: 1.0, above: false },
        Default::Float(0.0),
        "Pull of every weight towards 0 (L2)",
    ),
    param("epochs", int(1, 1_000_000), Default::Int(20), "Passes over the training set, at most"),
    param("batch_size", int(1, 16_777_216), Default::Int(64), "Rows of one step"),
    param(
        "patience",
        int(1, 1_000_000),
        Default::Absent,
        "Epochs without a better validation loss before training stops early; never when absent",
    ),
    param(
        "validation",
        Kind::Float { least: 0.0, most: 0.9, above: true },
        Default::Float(0.1),
        "Part of the training set held out for `patience` where no validation set is given",
    ),
    SEED,
];

const SEED: Param = param("seed", int(0, i64::MAX), Default::Int(0), "The same seed gives the same result");
const BATCH: Param = param("batch_size", int(1, 16_777_216), Default::Int(1_024), "Rows of one step");

const fn param(name: &'static str, kind: Kind, default: Default, about: &'static str) -> Param {
    Param { name, kind, default, about }
}

const fn int(least: i64, most: i64) -> Kind {
    Kind::Int { least, most }
}

/// Exactly so many files.
const fn files(count: usize, about: &'static str) -> Files {
    Files { least: count, most: count, about, as_inputs: false }
}

/// At least so many files.
const fn any_files(least: usize, about: &'static str) -> Files {
    Files { least, most: usize::MAX, about, as_inputs: false }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let ops: BTreeSet<_> = CATALOGUE.iter().map(|op| op.name).collect();
        assert_eq!(ops.len(), CATALOGUE.len());
        for op in CATALOGUE {
            let params: BTreeSet<_> = op.params.iter().map(|param| param.name).collect();
            assert_eq!(params.len(), op.params.len(), "{}", op.name);
        }
    }

    #[test]
    fn a_default_is_itself_allowed() {
        for (op, param) in CATALOGUE.iter().flat_map(|op| op.params.iter().map(move |param| (op, param))) {
            let allowed = match (param.kind, param.default) {
                (_, Default::Required | Default::Absent)
                | (Kind::Bool, Default::Bool(_))
                | (Kind::Text, Default::Text(_)) => true,
                (Kind::Int { least, most }, Default::Int(value)) => (least..=most).contains(&value),
                (Kind::Float { least, most, above }, Default::Float(value)) => {
                    (least..=most).contains(&value) && !(above && value <= least)
                }
                (Kind::Choice(words), Default::Text(word)) => words.contains(&word),
                (Kind::Ints { least, most, len }, Default::Ints(values)) => {
                    values.len() <= len && values.iter().all(|value| (least..=most).contains(value))
                }
                (_, Default::Bool(_) | Default::Int(_) | Default::Float(_) | Default::Text(_) | Default::Ints(_)) => {
                    false
                }
            };
            assert!(allowed, "{}: the default of `{}` is not of its kind", op.name, param.name);
        }
    }
}
