//! A table of numbers with a class for each row: what the readers make and everything else works on.
//!
//! Knows its file; does not know where the numbers came from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::archive::{self, Array, Content, Values};
use crate::error::{OpError, Place};

/// Rows of features, and the class of each row if it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Dataset {
    /// `[rows, features]`, row-major.
    pub(crate) x: Vec<f32>,
    /// How many numbers a row has: at least one.
    pub(crate) features: usize,
    /// `[rows]`, indices into `classes`.
    pub(crate) y: Option<Vec<i64>>,
    /// Names of the classes.
    pub(crate) classes: Vec<String>,
}

/// The most numbers a data set may hold: 16 GiB of them. A sparse file with a huge index is refused instead of
/// filling the machine with zeros.
pub(crate) const MOST_VALUES: usize = 1 << 32;

#[derive(Serialize, Deserialize)]
struct About {
    classes: Vec<String>,
}

impl Dataset {
    /// Returns how many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.x.len() / self.features
    }

    /// Returns the features of one row.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.x[row * self.features..(row + 1) * self.features]
    }

    /// Returns these rows, in this order.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        Self {
            x: rows.iter().flat_map(|row| self.row(*row)).copied().collect(),
            features: self.features,
            y: self.y.as_ref().map(|y| rows.iter().map(|row| y[*row]).collect()),
            classes: self.classes.clone(),
        }
    }

    /// Reads a file that an op wrote.
    pub(crate) fn read(path: &Path) -> Result<Self, OpError> {
        let mut archive = archive::read::<About>(path, Content::Dataset)?;
        let (shape, x) = archive.take_f32("x")?;
        let y = archive.take("y").and_then(|array| match array.values {
            Values::I64(values) => Some(values),
            Values::F32(_) => None,
        });
        let set = Self { x, features: shape.get(1).copied().unwrap_or(0), y, classes: archive.about.classes };
        let whole = shape.len() == 2 && !set.x.is_empty() && set.y.as_ref().is_none_or(|y| y.len() == shape[0]);
        let known = |y: &i64| usize::try_from(*y).is_ok_and(|class| class < set.classes.len());
        if whole && set.y.iter().flatten().all(known) {
            return Ok(set);
        }
        Err(OpError::input(Place::file(path), "its arrays do not fit each other", "make the file anew"))
    }

    /// Writes the file that [`Dataset::read`] reads: `x` f32 `[rows, features]` and, where classes are known, `y` i64
    /// `[rows]`.
    pub(crate) fn write(&self, path: &Path) -> Result<(), OpError> {
        let x = Array {
            name: "x".to_owned(),
            shape: vec![self.rows(), self.features],
            values: Values::F32(self.x.clone()),
        };
        let y = self.y.as_ref().map(|y| Array {
            name: "y".to_owned(),
            shape: vec![y.len()],
            values: Values::I64(y.clone()),
        });
        let arrays: Vec<Array> = std::iter::once(x).chain(y).collect();
        archive::write(path, Content::Dataset, &About { classes: self.classes.clone() }, &arrays)
    }

    /// Returns the class of each row as an index into `classes`, which may be in another order or have more.
    pub(crate) fn labels_in(&self, classes: &[String], path: &Path) -> Result<Vec<i64>, OpError> {
        let y = self.y.as_ref().ok_or_else(|| {
            OpError::input(Place::file(path), "its rows have no class", "read it with a `label` other than `none`")
        })?;
        let places: Vec<Option<i64>> = (self.classes.iter())
            .map(|name| classes.iter().position(|known| known == name).and_then(|place| i64::try_from(place).ok()))
            .collect();
        let class_of = |(row, class): (usize, &i64)| {
            let class = usize::try_from(*class).unwrap_or(usize::MAX);
            places.get(class).copied().flatten().ok_or_else(|| {
                let what = format!(
                    "row {} has class `{}`, which is not one of {}",
                    row + 1,
                    self.classes[class],
                    classes.join(", ")
                );
                OpError::input(Place::file(path), what, "train on data that holds every class")
            })
        };
        y.iter().enumerate().map(class_of).collect()
    }

    /// Checks that a row has as many numbers as `expected`.
    pub(crate) fn check_features(&self, expected: usize, whose: &str, path: &Path) -> Result<(), OpError> {
        if self.features == expected {
            return Ok(());
        }
        let what = format!("{} features in a row, but {whose} has {expected}", self.features);
        Err(OpError::input(
            Place::file(path),
            what,
            "prepare both in the same way (`features` sets the number for libsvm)",
        ))
    }
}

/// Returns the class of each row and the names of the classes: in numeric order if all are numbers, by letters
/// otherwise.
pub(crate) fn encode(labels: &[String]) -> (Vec<i64>, Vec<String>) {
    let mut classes: Vec<&String> = labels.iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let numbers: Option<Vec<f64>> = classes.iter().map(|name| name.parse().ok()).collect();
    if numbers.is_some() {
        let value = |name: &String| name.parse::<f64>().unwrap_or(f64::NAN);
        classes.sort_by(|a, b| value(a).total_cmp(&value(b)));
    }
    let index: std::collections::HashMap<&String, i64> = classes.iter().copied().zip(0..).collect();
    (labels.iter().map(|label| index[label]).collect(), classes.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn numeric_classes_are_in_numeric_order() {
        assert_eq!(encode(&words("10 9 -1 9")), (vec![2, 1, 0, 1], words("-1 9 10")));
        assert_eq!(encode(&words("10 9 b")), (vec![0, 1, 2], words("10 9 b")));
    }

    #[test]
    fn a_data_set_reads_back_as_it_was_and_equal_sets_give_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let set = Dataset { x: vec![1.0, -2.5, 3.0, 4.0], features: 2, y: Some(vec![1, 0]), classes: words("no yes") };
        set.write(&a).unwrap();
        set.write(&b).unwrap();
        assert_eq!(Dataset::read(&a).unwrap(), set);
        assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
    }

    #[test]
    fn classes_are_matched_by_name_not_by_number() {
        let set = Dataset { x: vec![0.0; 3], features: 1, y: Some(vec![0, 1, 0]), classes: words("b c") };
        assert_eq!(set.labels_in(&words("a b c"), Path::new("f")).unwrap(), [1, 2, 1]);
        let error = set.labels_in(&words("a b"), Path::new("f")).unwrap_err().to_string();
        assert!(error.contains("row 2 has class `c`"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_data_set_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "1,2,3\n").unwrap();
        let error = Dataset::read(&path).unwrap_err().to_string();
        assert!(error.contains("expected a data set"), "{error}");
    }
}
