//! What is kept of an attempt's progress: its last word and the course of its figures. One small JSON object.

use serde::{Deserialize, Serialize};

use super::Progress;
use super::series::Series;

/// What became known of an attempt while it ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When it was last heard of, ms since the attempt started.
    pub at_ms: u64,
    /// The latest.
    pub progress: Progress,
    /// How its figures went.
    pub series: Vec<Series>,
}

impl Record {
    /// Reads a record; `None` where it is damaged: it tells of the work and is not needed for it.
    #[must_use]
    pub fn read(json: &[u8]) -> Option<Self> {
        let mut record: Self = serde_json::from_slice(json).ok()?;
        // Arrays of different lengths are no points.
        record.series.retain(|series| {
            let points = series.value.len();
            points > 0 && series.ms.len() == points && series.step.len() == points
        });
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::super::series::Book;
    use super::*;

    #[test]
    fn a_record_survives_the_disk() {
        let mut book = Book::default();
        book.push("loss", 10, Some(1.0), 0.5);
        book.push("loss", 20, None, 0.25);
        let progress = Progress { progress: Some(0.5), ..Progress::default() };
        let record = Record { at_ms: 20, progress, series: book.series().to_vec() };
        let read = Record::read(&serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!((read.at_ms, &read.progress), (20, &record.progress));
        assert_eq!(read.series[0].value, [0.5, 0.25]);
        assert_eq!(read.series[0].step, [Some(1.0), None]);
    }

    #[test]
    fn what_is_no_number_survives_as_well() {
        let mut book = Book::default();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.5] {
            book.push("loss", 1, None, value);
        }
        let progress = Progress { loss: Some(f64::NAN), ..Progress::default() };
        let json = serde_json::to_string(&Record { at_ms: 1, progress, series: book.series().to_vec() }).unwrap();
        assert!(json.contains(r#""loss":"NaN""#) && json.contains(r#"["NaN","Infinity","-Infinity",1.5]"#), "{json}");
        let read = Record::read(json.as_bytes()).unwrap();
        assert!(read.progress.loss.unwrap().is_nan() && read.series[0].value[0].is_nan());
        assert_eq!(read.series[0].value[1..], [f64::INFINITY, f64::NEG_INFINITY, 1.5]);
    }

    #[test]
    fn a_torn_record_is_none_and_a_lame_series_is_left_out() {
        assert_eq!(Record::read(b"{\"at_ms\":3"), None);
        let lame = br#"{"series":[{"name":"loss","ms":[1],"step":[],"value":[0.5]}]}"#;
        assert_eq!(Record::read(lame).unwrap().series, []);
    }
}
