//! `data.libsvm`: `label index:value index:value …`, one row a line, absent features being zero.
//!
//! The format is that of LIBSVM's `svm-train` (Chang and Lin, 2001). The result is dense.

use std::io::BufRead;
use std::path::Path;

use crate::dataset::{self, Dataset, MOST_VALUES};
use crate::error::{OpError, Place};
use crate::file;
use crate::params::Libsvm;

/// Reads the libsvm file and writes the data set.
pub(crate) fn run(params: &Libsvm, input: &Path, output: &Path) -> Result<(), OpError> {
    let set = read(file::open(input)?, input, params)?;
    println!("{} rows, {} features, {} classes", set.rows(), set.features, set.classes.len());
    set.write(output)
}

/// One line: its class and the features that are not zero, by position from 0.
type Row = (String, Vec<(usize, f32)>);

fn read(text: impl BufRead, path: &Path, params: &Libsvm) -> Result<Dataset, OpError> {
    let mut rows: Vec<Row> = Vec::new();
    let mut widest = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.map_err(OpError::io("read", path))?;
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let row = parse(line, params).map_err(|(what, help)| OpError::input(Place::line(path, number), what, help))?;
        widest = row.1.iter().map(|(index, _)| index + 1).fold(widest, usize::max);
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(OpError::input(Place::file(path), "there are no rows in it", "check the path"));
    }
    let features = params.features.unwrap_or(widest).max(1);
    if rows.len().saturating_mul(features) > MOST_VALUES {
        let what = format!("{} rows of {features} features would take more than 16 GiB", rows.len());
        return Err(OpError::input(Place::file(path), what, "leave rare features out"));
    }
    let mut x = vec![0.0; rows.len() * features];
    for (dense, (_, sparse)) in x.chunks_exact_mut(features).zip(&rows) {
        for (index, value) in sparse {
            dense[*index] = *value;
        }
    }
    let labels: Vec<String> = rows.into_iter().map(|(label, _)| label).collect();
    let (y, classes) = dataset::encode(&labels);
    Ok(Dataset { x, features, y: Some(y), classes })
}

/// Reads one line, or says what is wrong with it and what mends it.
fn parse(line: &str, params: &Libsvm) -> Result<Row, (String, String)> {
    let mut words = line.split_whitespace();
    let label = words.next().unwrap_or_default();
    // `+1` and `1.0` are the same class as `1`.
    let class: f64 =
        label.parse().ok().filter(|class: &f64| class.is_finite()).ok_or_else(|| {
            (format!("the label `{label}` is not a number"), "one label, then index:value".to_owned())
        })?;
    let mut features: Vec<(usize, f32)> = Vec::new();
    for word in words {
        let pair = word.split_once(':').and_then(|(index, value)| Some((index.parse().ok()?, value.parse().ok()?)));
        let (index, value): (usize, f32) =
            pair.filter(|(_, value): &(usize, f32)| value.is_finite()).ok_or_else(|| {
                (format!("`{word}` is not index:value"), "write a whole number, a colon, a number".to_owned())
            })?;
        let position = index
            .checked_sub(params.first_index)
            .ok_or_else(|| ("index 0 in a file that counts from 1".to_owned(), "set `first_index = 0`".to_owned()))?;
        if let Some(most) = params.features.filter(|most| position >= *most) {
            return Err((
                format!("feature {index} is beyond the {most} that `features` allows"),
                "raise `features`".to_owned(),
            ));
        }
        if features.last().is_some_and(|(last, _)| *last >= position) {
            return Err((
                format!("feature {index} is repeated or out of order"),
                "write each once, ascending".to_owned(),
            ));
        }
        features.push((position, value));
    }
    Ok((class.to_string(), features))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str, features: Option<usize>, first_index: usize) -> Result<Dataset, String> {
        read(text.as_bytes(), Path::new("f"), &Libsvm { features, first_index }).map_err(|error| error.to_string())
    }

    #[test]
    fn absent_features_are_zero_and_equal_labels_are_one_class() {
        let set = parse_text("+1 1:0.5 3:2\n-1 2:1 # a note\n\n1.0 1:1\n", None, 1).unwrap();
        assert_eq!(set.x, [0.5, 0.0, 2.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!((set.y, set.classes.join(" ")), (Some(vec![1, 0, 1]), "-1 1".to_owned()));
        assert_eq!(parse_text("1 1:1\n", Some(4), 1).unwrap().features, 4);
        assert_eq!(parse_text("1 0:1\n", None, 0).unwrap().x, [1.0]);
    }

    #[test]
    fn a_bad_line_is_named_with_what_mends_it() {
        for (text, expected) in [
            ("1 1:1\nx 1:1\n", "f: line 2: the label `x` is not a number"),
            ("1 1:1 2\n", "f: line 1: `2` is not index:value"),
            ("1 0:1\n", "set `first_index = 0`"),
            ("1 5:1\n", "beyond the 4"),
            ("1 2:1 2:1\n", "repeated or out of order"),
            ("1 2:inf\n", "is not index:value"),
            ("# nothing\n", "no rows"),
        ] {
            let error = parse_text(text, Some(4), 1).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_huge_index_is_refused_before_memory_is_taken() {
        let error = parse_text("1 99999999999:1\n", None, 1).unwrap_err();
        assert!(error.contains("16 GiB"), "{error}");
    }
}
