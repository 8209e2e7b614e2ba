//! `data.csv`: a table of numbers with a column for the class.
//!
//! Knows what a header may look like; leaves quoting and line ends to the `csv` crate.

use std::io::BufRead;
use std::path::Path;

use ::csv::{ReaderBuilder, StringRecord, Trim};

use crate::dataset::{self, Dataset, MOST_VALUES};
use crate::error::{OpError, Place};
use crate::file;
use crate::params::{Csv, Header};

/// Reads the CSV file and writes the data set.
pub(crate) fn run(params: &Csv, input: &Path, output: &Path) -> Result<(), OpError> {
    let set = read(file::open(input)?, input, params)?;
    println!("{} rows, {} features, {} classes", set.rows(), set.features, set.classes.len());
    set.write(output)
}

fn read(text: impl BufRead, path: &Path, params: &Csv) -> Result<Dataset, OpError> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true) // a ragged line is reported by us, with its number
        .trim(Trim::All)
        .delimiter(u8::try_from(params.delimiter).unwrap_or(b','))
        .from_reader(text);
    let mut records = reader.records().map(|record| record.map_err(|error| unreadable(path, &error)));
    let lead: Vec<StringRecord> = records.by_ref().take(2).collect::<Result<_, _>>()?;
    let first = lead.first().ok_or_else(|| no_rows(path))?;
    let head = Head::of(params, first, lead.get(1));
    let layout = Layout::new(params, &head, first, lead.get(1), path)?;
    let mut table = Table { path, layout, x: Vec::new(), labels: Vec::new() };
    for record in lead.iter().skip(usize::from(head != Head::Row)) {
        table.push(record)?;
    }
    for record in records {
        table.push(&record?)?;
    }
    table.finish(&head)
}

/// What the first line is.
#[derive(Debug, PartialEq)]
enum Head {
    /// Data like any other line.
    Row,
    /// The names of the columns.
    Names(Vec<String>),
    /// Rows, features and the names of the classes, as scikit-learn's files begin.
    Counts { rows: String, features: String, classes: Vec<String> },
}

impl Head {
    fn of(params: &Csv, first: &StringRecord, second: Option<&StringRecord>) -> Self {
        let names = || Self::Names(first.iter().map(str::to_owned).collect());
        let counts = || Self::Counts {
            rows: first.get(0).unwrap_or_default().to_owned(),
            features: first.get(1).unwrap_or_default().to_owned(),
            classes: first.iter().skip(2).map(str::to_owned).collect(),
        };
        match params.header {
            Header::No => Self::Row,
            Header::Yes => names(),
            Header::Counts => counts(),
            Header::Auto => {
                if is_counts(first, second.map_or(first.len(), StringRecord::len)) {
                    return counts();
                }
                let named = !matches!(params.label.as_str(), "first" | "last" | "none");
                let label = if params.label == "first" { 0 } else { first.len() - 1 };
                let is_word = |(column, field): (usize, &str)| column != label && field.parse::<f32>().is_err();
                let words = first.iter().enumerate().any(is_word);
                // No row at all: whatever is wrong with the second line is to be said of that one.
                let only_words =
                    first.iter().enumerate().all(|(column, field)| column == label || is_word((column, field)));
                let then_numbers = second.is_some_and(|second| !second.iter().enumerate().any(is_word));
                if named || (words && (only_words || then_numbers)) { names() } else { Self::Row }
            }
        }
    }
}

/// Whether a line holds rows, features and class names, and cannot be a row of a table of this width.
fn is_counts(line: &StringRecord, width: usize) -> bool {
    let whole = |field: Option<&str>| field.and_then(|field| field.parse::<usize>().ok());
    whole(line.get(0)).is_some()
        && whole(line.get(1)) == Some(width - 1)
        && line.iter().skip(2).all(|field| field.parse::<f32>().is_err())
        && (line.len() != width || line.len() > 3)
}

/// Where the class stands, and what the columns are called.
struct Layout {
    width: usize,
    label: Option<usize>,
    names: Vec<String>,
}

impl Layout {
    fn new(
        params: &Csv,
        head: &Head,
        first: &StringRecord,
        second: Option<&StringRecord>,
        path: &Path,
    ) -> Result<Self, OpError> {
        let (width, names) = match head {
            Head::Row => (first.len(), Vec::new()),
            Head::Names(names) => (names.len(), names.clone()),
            Head::Counts { .. } => (second.ok_or_else(|| no_rows(path))?.len(), Vec::new()),
        };
        let label = match params.label.as_str() {
            "first" => Some(0),
            "last" => Some(width - 1),
            "none" => None,
            name => Some(names.iter().position(|known| known == name).ok_or_else(|| {
                let help = format!("label = \"first\", \"last\", \"none\" or one of: {}", names.join(", "));
                OpError::input(Place::line(path, 1), format!("no column is called `{name}`"), help)
            })?),
        };
        if width == usize::from(label.is_some()) {
            let help = "check `delimiter` and `label`";
            return Err(OpError::input(Place::line(path, 1), "there is no column of features", help));
        }
        Ok(Self { width, label, names })
    }

    fn column(&self, index: usize) -> String {
        self.names.get(index).map_or_else(|| (index + 1).to_string(), |name| format!("`{name}`"))
    }
}

/// The rows read so far.
struct Table<'a> {
    path: &'a Path,
    layout: Layout,
    x: Vec<f32>,
    labels: Vec<String>,
}

impl Table<'_> {
    fn push(&mut self, record: &StringRecord) -> Result<(), OpError> {
        let at = || Place::line(self.path, record.position().map_or(0, ::csv::Position::line));
        let Layout { width, label, .. } = self.layout;
        if record.len() != width {
            let what = format!("{} fields, but the table has {width} columns", record.len());
            return Err(OpError::input(at(), what, "check the line, `delimiter` and `header`"));
        }
        if self.x.len() + width > MOST_VALUES {
            return Err(OpError::input(at(), "the table is larger than 16 GiB", "split it into several files"));
        }
        for (column, field) in record.iter().enumerate() {
            let wrong =
                |what: String, help: &str| Err(OpError::input(at().column(self.layout.column(column)), what, help));
            if field.is_empty() {
                return wrong("the value is missing".to_owned(), "fill it in or leave the row out");
            }
            if Some(column) == label {
                self.labels.push(field.to_owned());
                continue;
            }
            match field.parse::<f32>() {
                Ok(value) if value.is_finite() => self.x.push(value),
                Ok(_) => {
                    return wrong(format!("`{field}` is not a finite 32-bit number"), "scale it or leave the row out");
                }
                Err(_) => {
                    return wrong(
                        format!("`{field}` is not a number"),
                        "name the column of the class with `label`, or set `header`",
                    );
                }
            }
        }
        Ok(())
    }

    fn finish(self, head: &Head) -> Result<Dataset, OpError> {
        let Self { path, layout, x, labels } = self;
        if x.is_empty() {
            return Err(no_rows(path));
        }
        let features = layout.width - usize::from(layout.label.is_some());
        let rows = x.len() / features;
        let set = Dataset { x, features, y: None, classes: Vec::new() };
        if let Head::Counts { rows: counted, features: wide, .. } = head
            && (*counted != rows.to_string() || *wide != features.to_string())
        {
            let what = format!("it promises {counted} rows and {wide} features, but there are {rows} and {features}");
            return Err(OpError::input(Place::line(path, 1), what, "the file is cut off, or `header` is not `counts`"));
        }
        if layout.label.is_none() {
            return Ok(set);
        }
        if let Head::Counts { classes, .. } = head
            && !classes.is_empty()
        {
            let index = |label: &String| label.parse().ok().filter(|class: &usize| *class < classes.len());
            let y: Option<Vec<i64>> =
                labels.iter().map(|label| index(label).and_then(|class| i64::try_from(class).ok())).collect();
            let y = y.ok_or_else(|| {
                let what = format!("it names {} classes, but a row has another", classes.len());
                OpError::input(Place::line(path, 1), what, "classes are numbered from 0 in such a file")
            })?;
            return Ok(Dataset { y: Some(y), classes: classes.clone(), ..set });
        }
        let (y, classes) = dataset::encode(&labels);
        Ok(Dataset { y: Some(y), classes, ..set })
    }
}

fn no_rows(path: &Path) -> OpError {
    OpError::input(Place::file(path), "there are no rows in it", "check the path and `header`")
}

fn unreadable(path: &Path, error: &::csv::Error) -> OpError {
    let at = error.position().map_or_else(|| Place::file(path), |position| Place::line(path, position.line()));
    let utf8 = matches!(error.kind(), ::csv::ErrorKind::Utf8 { .. });
    let what = if utf8 { "the text is not UTF-8".to_owned() } else { error.to_string() };
    OpError::input(at, what, "convert or fetch the file anew")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, label: &str, header: Header) -> Result<Dataset, String> {
        let params = Csv { label: label.to_owned(), header, delimiter: ',' };
        read(text.as_bytes(), Path::new("f.csv"), &params).map_err(|error| error.to_string())
    }

    #[test]
    fn the_label_may_be_first_last_named_or_absent() {
        let x = vec![1.0, 2.0, 3.0, 4.0];
        for (text, label) in
            [("1,2,no\n3,4,yes\n", "last"), ("no,1,2\nyes,3,4\n", "first"), ("a,c,b\n1,no,2\n3,yes,4\n", "c")]
        {
            let set = parse(text, label, Header::Auto).unwrap();
            assert_eq!((&set.x, set.y, set.classes), (&x, Some(vec![0, 1]), vec!["no".to_owned(), "yes".to_owned()]));
        }
        let set = parse("1,2\n3,4\n", "none", Header::Auto).unwrap();
        assert_eq!((set.x, set.y), (x, None));
    }

    #[test]
    fn a_line_of_names_is_told_from_a_line_of_numbers() {
        assert_eq!(parse("a,b,c\n1,2,0\n", "last", Header::Auto).unwrap().rows(), 1);
        assert_eq!(parse("1,2,0\n1,2,0\n", "last", Header::Auto).unwrap().rows(), 2);
        assert_eq!(parse("1,2,0\n1,2,0\n", "last", Header::Yes).unwrap().rows(), 1);
    }

    #[test]
    fn a_line_of_counts_gives_the_names_of_the_classes() {
        let set = parse("2,3,bad,good\n1,2,3,1\n4,5,6,0\n", "last", Header::Auto).unwrap();
        assert_eq!((set.features, set.y, set.classes.join(" ")), (3, Some(vec![1, 0]), "bad good".to_owned()));
        let error = parse("9,3,bad,good\n1,2,3,1\n", "last", Header::Counts).unwrap_err();
        assert!(error.contains("promises 9 rows"), "{error}");
    }

    #[test]
    fn a_bad_field_is_found_by_line_and_column() {
        let error = parse("a,b,c\n1,2,0\n1,x,0\n", "last", Header::Auto).unwrap_err();
        assert!(error.starts_with("f.csv: line 3, column `b`: `x` is not a number"), "{error}");
        let error = parse("a,b,label\n1,abc,x\n", "last", Header::Auto).unwrap_err();
        assert!(error.starts_with("f.csv: line 2, column `b`: `abc` is not a number"), "{error}");
        let error = parse("1,2,0\n1,,0\n", "last", Header::No).unwrap_err();
        assert!(error.starts_with("f.csv: line 2, column 2: the value is missing"), "{error}");
        let error = parse("1,2,0\n1,2\n", "last", Header::No).unwrap_err();
        assert!(error.starts_with("f.csv: line 2: 2 fields, but the table has 3 columns"), "{error}");
        let error = parse("1,1e99,0\n", "last", Header::No).unwrap_err();
        assert!(error.contains("not a finite"), "{error}");
    }

    #[test]
    fn an_empty_file_and_a_missing_column_are_named() {
        assert!(parse("", "last", Header::Auto).unwrap_err().contains("no rows"));
        assert!(parse("a,b\n", "last", Header::Yes).unwrap_err().contains("no rows"));
        let error = parse("a,b\n1,2\n", "c", Header::Auto).unwrap_err();
        assert!(error.contains("no column is called `c`") && error.contains("one of: a, b"), "{error}");
    }

    #[test]
    fn text_that_is_not_utf8_is_found_by_its_line() {
        let params = Csv { label: "last".to_owned(), header: Header::No, delimiter: ',' };
        let error = read(&b"1,2\n\xff,2\n"[..], Path::new("f.csv"), &params).unwrap_err().to_string();
        assert!(error.starts_with("f.csv: line 2: the text is not UTF-8"), "{error}");
    }
}
