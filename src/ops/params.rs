//! The parameters of each op as it uses them: the typed side of the catalogue.
//!
//! Defaults stand in the catalogue alone; a job arrives complete. A test holds the two together.

use serde::{Deserialize, Serialize};

/// `data.csv`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Csv {
    pub(crate) label: String,
    pub(crate) header: Header,
    pub(crate) delimiter: char,
}

/// What the first line of a CSV file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Header {
    Auto,
    Yes,
    No,
    Counts,
}

/// `data.libsvm`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Libsvm {
    pub(crate) features: Option<usize>,
    pub(crate) first_index: usize,
}

/// `data.split`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Split {
    pub(crate) test: f64,
    pub(crate) stratify: bool,
    pub(crate) seed: u64,
}

/// `feature.standardize`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Standardize {
    pub(crate) scale: bool,
}

/// `feature.pca`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pca {
    pub(crate) components: Option<usize>,
    pub(crate) variance: f64,
    pub(crate) whiten: bool,
}

/// `torch.train`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Train {
    pub(crate) model: Family,
    pub(crate) hidden: Vec<i64>,
    pub(crate) channels: Vec<i64>,
    pub(crate) dropout: f64,
    pub(crate) optimizer: Rule,
    pub(crate) lr: f64,
    pub(crate) momentum: f64,
    pub(crate) weight_decay: f64,
    pub(crate) epochs: u64,
    pub(crate) batch_size: i64,
    pub(crate) patience: Option<u64>,
    pub(crate) validation: f64,
    pub(crate) seed: u64,
}

/// The kinds of classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    Logistic,
    Mlp,
    Cnn,
}

/// How weights are updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rule {
    Adam,
    Sgd,
}

/// `torch.evaluate`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evaluate {
    pub(crate) batch_size: i64,
}

/// `torch.predict`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Predict {
    pub(crate) probabilities: bool,
    pub(crate) batch_size: i64,
}

/// `report.best`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Best {
    pub(crate) metric: Metric,
}

/// What makes a model the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    Accuracy,
    MacroF1,
    Loss,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::{Map, Value, json};
    use trainyard::spec::op::{self, Default, Kind, Param};

    use super::*;

    /// Values that the catalogue allows for a parameter: its bounds, every choice, its default.
    fn allowed(param: &Param) -> Vec<Value> {
        let mut values = match param.kind {
            Kind::Bool => vec![json!(true), json!(false)],
            Kind::Int { least, most } => vec![json!(least), json!(most)],
            Kind::Float { least, most, above } => vec![json!(if above { most } else { least }), json!(most)],
            Kind::Text => vec![json!("text")],
            Kind::Choice(words) => words.iter().map(|word| json!(word)).collect(),
            Kind::Ints { least, most, .. } => vec![json!([least, most]), json!([])],
        };
        match param.default {
            Default::Required | Default::Absent => {}
            Default::Bool(value) => values.push(json!(value)),
            Default::Int(value) => values.push(json!(value)),
            Default::Float(value) => values.push(json!(value)),
            Default::Text(value) => values.push(json!(value)),
            Default::Ints(value) => values.push(json!(value)),
        }
        values
    }

    /// A job with nothing set but what must be.
    fn complete(params: &[Param]) -> Map<String, Value> {
        let given = params.iter().filter(|param| param.default != Default::Absent);
        given.map(|param| (param.name.to_owned(), allowed(param).pop().unwrap())).collect()
    }

    fn agrees<T: Serialize + DeserializeOwned>(name: &str) {
        let params = op::find(name).unwrap_or_else(|| panic!("{name} is not in the catalogue")).params;
        for param in params {
            for value in allowed(param) {
                let mut with = complete(params);
                with.insert(param.name.to_owned(), value.clone());
                let typed: T = serde_json::from_value(Value::Object(with))
                    .unwrap_or_else(|error| panic!("{name}: {} = {value}: {error}", param.name));
                let written = serde_json::to_value(typed).unwrap();
                let fields: BTreeSet<&str> = written.as_object().unwrap().keys().map(String::as_str).collect();
                assert_eq!(fields, params.iter().map(|param| param.name).collect(), "{name}");
                assert_eq!(written[param.name], value, "{name}: {}", param.name);
            }
        }
    }

    #[test]
    fn every_parameter_of_the_catalogue_is_understood_and_there_are_no_others() {
        agrees::<Csv>("data.csv");
        agrees::<Libsvm>("data.libsvm");
        agrees::<Split>("data.split");
        agrees::<Standardize>("feature.standardize");
        agrees::<Pca>("feature.pca");
        agrees::<Train>("torch.train");
        agrees::<Evaluate>("torch.evaluate");
        agrees::<Predict>("torch.predict");
        agrees::<Best>("report.best");
        assert_eq!(op::CATALOGUE.len(), 9);
    }
}
