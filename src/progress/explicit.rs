//! What a program says on purpose: JSON lines in the file that `TRAINYARD_EVENTS` names.
//!
//! `progress`, `phase`, `loss` and `accuracy` are shown; `step` says where the line belongs; every other number is a
//! figure as well. `NaN` and `Infinity` count as numbers: Python writes them although JSON has no such thing.

use serde_json::{Map, Value};

use super::{Progress, value};

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
    let object: Map<String, Value> =
        serde_json::from_slice(line).or_else(|_| serde_json::from_slice(&spelled(line))).ok()?;
    let number = |key: &str| object.get(key).and_then(value::of_json);
    let progress = Progress {
        progress: number("progress").filter(|part| (0.0..=1.0).contains(part)),
        phase: object.get("phase").and_then(Value::as_str).map(str::to_owned),
        loss: number("loss"),
        accuracy: number("accuracy").filter(|part| part.is_finite()),
    };
    let is_figure = |key: &str| !matches!(key, "progress" | "phase" | "step");
    let figures = object.iter().filter(|(key, _)| is_figure(key));
    let figures: Vec<(String, f64)> =
        figures.filter_map(|(key, value)| Some((tidy(key)?, value::of_json(value)?))).collect();
    let says = progress != Progress::default() || !figures.is_empty();
    says.then(|| Told { progress, step: number("step"), figures })
}

/// The most characters of a figure's name.
const NAME: usize = 120;

/// Returns the name of a figure as others can show it: no control characters, not too long; `None` where nothing is left.
fn tidy(name: &str) -> Option<String> {
    let plain: String = name.chars().filter(|c| !c.is_control()).take(NAME).collect();
    let plain = plain.trim();
    (!plain.is_empty()).then(|| plain.to_owned())
}

/// Returns the line with words in quotes in the place of what JSON does not take for a number: `NaN`, `-Infinity`, `1e999`.
fn spelled(line: &[u8]) -> Vec<u8> {
    let mut spelled = Vec::with_capacity(line.len() + 8);
    let mut rest = line;
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => {
                let mut escaped = true;
                let ends = |byte: &u8| {
                    let ends = *byte == b'"' && !escaped;
                    escaped = *byte == b'\\' && !escaped;
                    ends
                };
                rest.iter().position(ends).map_or(rest.len(), |end| end + 1)
            }
            _ => rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count().max(1),
        };
        let (token, behind) = rest.split_at(length);
        let value = std::str::from_utf8(token).ok().and_then(|text| text.parse::<f64>().ok());
        match value.filter(|value| !value.is_finite()) {
            Some(value) => spelled.extend(value::to_json(value).to_string().bytes()),
            None => spelled.extend(token),
        }
        rest = behind;
    }
    spelled
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
    fn a_figure_has_a_name_that_can_be_shown() {
        let told = line(br#"{"":1,"\u0007 ":2,"a\u001b[31m\nb":3}"#).unwrap();
        assert_eq!(told.figures, [("a[31mb".to_owned(), 3.0)]);
    }

    #[test]
    fn a_training_that_diverges_says_so() {
        let told =
            line(br#"{"progress": 0.5, "loss": NaN, "grad": -Infinity, "big": 1e999, "phase": "a \" NaN", "x": null}"#);
        let told = told.unwrap();
        assert_eq!((told.progress.progress, told.progress.phase.as_deref()), (Some(0.5), Some("a \" NaN")));
        assert!(told.progress.loss.unwrap().is_nan());
        let named = |name: &str| told.figures.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        assert_eq!(
            (named("grad"), named("big"), told.figures.len()),
            (Some(f64::NEG_INFINITY), Some(f64::INFINITY), 3)
        );
    }

    #[test]
    fn a_part_is_between_nothing_and_all() {
        for wrong in ["-2", "90", "1e308", "NaN"] {
            assert_eq!(line(format!("{{\"progress\":{wrong}}}").as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_object_or_says_nothing_is_passed_over() {
        for nothing in ["", "noise", "[1]", "{}", r#"{"note":"x"}"#, r#"{"progr"#] {
            assert_eq!(line(nothing.as_bytes()), None, "{nothing}");
        }
    }
}
