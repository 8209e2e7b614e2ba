//! What a program says on purpose: JSON lines in the file that `TRAINYARD_EVENTS` names.
//!
//! `progress`, `phase`, `loss` and `accuracy` are shown; `step` says where the line belongs; every other number is a
//! figure as well.

use serde_json::{Map, Value};

use super::Progress;

/// One line, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What is shown beside the bar.
    pub progress: Progress,
    /// Where it belongs.
    pub step: Option<f64>,
    /// Numbers by name, `loss` and `accuracy` among them.
    pub figures: Vec<(String, f64)>,
}

/// Reads a line; `None` where it says nothing.
#[must_use]
pub fn line(line: &[u8]) -> Option<Told> {
    let object: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let number = |key: &str| object.get(key).and_then(Value::as_f64);
    let progress = Progress {
        progress: number("progress"),
        phase: object.get("phase").and_then(Value::as_str).map(str::to_owned),
        loss: number("loss"),
        accuracy: number("accuracy"),
    };
    let is_figure = |key: &str| !matches!(key, "progress" | "phase" | "step");
    let figures = object.iter().filter(|(key, _)| is_figure(key));
    let figures: Vec<(String, f64)> = figures.filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect();
    let says = progress != Progress::default() || !figures.is_empty();
    says.then(|| Told { progress, step: number("step"), figures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_figure() {
        let told = line(br#"{"progress":0.5,"loss":0.25,"lr":0.001,"step":7,"phase":"fit"}"#).unwrap();
        assert_eq!((told.progress.progress, told.progress.phase.as_deref()), (Some(0.5), Some("fit")));
        assert_eq!((told.step, told.figures), (Some(7.0), vec![("loss".into(), 0.25), ("lr".into(), 0.001)]));
    }

    #[test]
    fn what_is_no_object_or_says_nothing_is_passed_over() {
        for nothing in ["", "noise", "[1]", "{}", r#"{"note":"x"}"#, r#"{"progr"#] {
            assert_eq!(line(nothing.as_bytes()), None, "{nothing}");
        }
    }
}
