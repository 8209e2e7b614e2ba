//! The parameters of built-in ops: checked against the catalogue at every point of the matrix, and filled up with
//! defaults for the op itself.
//!
//! Takes the catalogue as an argument; does not know what an op computes.

use serde_json::{Map, Value as Json};

use super::op::{Default, Kind, Op};
use super::problem::did_you_mean;
use super::template::{Names, Piece, pieces};
use super::{Action, Axis, Located, Problem, Span, Stage, Value};

/// Points that are tried for one parameter: more than a matrix may have unless the user says so.
const MOST_POINTS: usize = 10_000;

/// Returns what is wrong with the op of a stage; nothing if it runs a command. `all_read`: whether every parameter that
/// is written could be read, so that one that is missing is really absent; `all_files` says so of inputs and outputs.
#[must_use]
pub(super) fn check(stage: &Stage, catalogue: &[Op], all_read: bool, all_files: bool) -> Vec<Problem> {
    let Action::Op { name, with } = &stage.action else {
        return Vec::new();
    };
    let Some(op) = catalogue.iter().find(|op| op.name == name.text) else {
        return vec![super::decode::unknown("op", name, catalogue.iter().map(|op| op.name))];
    };
    let mut problems = if all_files { files(stage, op, &name.span) } else { Vec::new() };
    for (key, value, span) in with {
        match op.params.iter().find(|param| param.name == key.text) {
            Some(param) => problems.extend(first_misfit(value, param.kind, span, &stage.matrix)),
            None => {
                let message = format!("`{}` has no parameter `{}`", op.name, key.text.escape_debug());
                let problem = Problem::new(key.span.clone(), message);
                let known = op.params.iter().map(|param| param.name);
                problems.push(super::decode::help_with_name(problem, &key.text, known));
            }
        }
    }
    for param in op.params.iter().filter(|param| param.default == Default::Required && all_read) {
        // A near miss is reported as unknown already: the same slip of the pen is not said twice.
        let meant = |key: &str| key == param.name || did_you_mean(key, [param.name]).is_some();
        if !with.iter().any(|(key, ..)| meant(&key.text)) {
            let problem =
                Problem::new(name.span.clone(), format!("`{}` needs the parameter `{}`", op.name, param.name));
            problems.push(problem.help(format!("{}: {}", param.name, param.about)));
        }
    }
    problems
}

/// Checks how many files the stage declares. A pattern stands for at least one.
fn files(stage: &Stage, op: &Op, place: &Span) -> Vec<Problem> {
    let mut problems = Vec::new();
    let patterns = stage.inputs.iter().any(|input| input.text.contains(['*', '?']));
    let counts =
        [("input", stage.inputs.len(), op.inputs, patterns), ("output", stage.outputs.len(), op.outputs, false)];
    for (what, found, files, open) in counts {
        if found > files.most || found < files.least {
            let wanted = match (files.least, files.most) {
                (least, most) if least == most => plural(least, what),
                (least, usize::MAX) => format!("at least {}", plural(least, what)),
                (least, most) => format!("{least} to {}", plural(most, what)),
            };
            let message = format!("`{}` needs {wanted}, found {found}", op.name);
            problems.push(Problem::new(place.clone(), message).help(format!("{what}s: {}", files.about)));
        } else if files.as_inputs && !open && !patterns && found != stage.inputs.len() {
            let message = format!("`{}` needs as many {what}s as inputs", op.name);
            problems.push(Problem::new(place.clone(), message).help(format!("{what}s: {}", files.about)));
        }
    }
    problems
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Returns the first point of the matrix at which a value is not what it should be. Only the axes that the value
/// names are walked through.
fn first_misfit(value: &Value, kind: Kind, span: &Span, matrix: &[Axis]) -> Option<Problem> {
    let mut named = Vec::new();
    axes_of(value, &mut named);
    // An axis that is not there is reported as such.
    if named.iter().any(|name| matrix.iter().all(|axis| axis.name.text != *name)) {
        return None;
    }
    let axes: Vec<&Axis> = matrix.iter().filter(|axis| named.contains(&axis.name.text.as_str())).collect();
    let size = axes.iter().map(|axis| axis.points.len()).fold(1_usize, usize::saturating_mul);
    (0..size.min(MOST_POINTS)).find_map(|n| {
        let point = point_of(&axes, n);
        let filled = Names { point: &point, inputs: &[], outputs: &[] }.fill_value(value);
        let misfit = misfit(&filled, kind)?;
        let at: Vec<_> = point.iter().map(|(axis, value)| format!("{axis}={}", value.label())).collect();
        let message = if at.is_empty() { misfit } else { format!("{misfit} (at {})", at.join(", ")) };
        Some(Problem::new(span.clone(), message))
    })
}

fn axes_of<'v>(value: &'v Value, axes: &mut Vec<&'v str>) {
    match value {
        Value::Text(text) => axes.extend(pieces(text).filter_map(|(piece, _)| match piece {
            Piece::Axis(axis) => Some(axis),
            Piece::Text(_) | Piece::Inputs | Piece::Outputs | Piece::Open | Piece::Slip(_) => None,
        })),
        Value::List(values) => values.iter().for_each(|value| axes_of(value, axes)),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

/// Returns the n-th point of the axes, the last one running fastest.
fn point_of(axes: &[&Axis], mut n: usize) -> Vec<(String, Value)> {
    let mut point: Vec<_> = axes
        .iter()
        .rev()
        .map(|axis| {
            let value = axis.points[n % axis.points.len()].clone();
            n /= axis.points.len();
            (axis.name.text.clone(), value)
        })
        .collect();
    point.reverse();
    point
}

/// Returns in words why a value is not of this kind.
fn misfit(value: &Value, kind: Kind) -> Option<String> {
    let expected = match kind {
        Kind::Bool => matches!(value, Value::Bool(_)).then_some(()).ok_or("true or false".to_owned()),
        Kind::Int { least, most } => {
            int_fits(value, least, most).then_some(()).ok_or(format!("a whole number from {least} to {most}"))
        }
        Kind::Float { least, most, above } => {
            let number = match value {
                #[expect(clippy::cast_precision_loss, reason = "compared with the bounds of a parameter")]
                Value::Int(number) => Some(*number as f64),
                Value::Float(number) => Some(*number),
                Value::Bool(_) | Value::Text(_) | Value::List(_) => None,
            };
            let fits = number.is_some_and(|n| n <= most && if above { n > least } else { n >= least });
            let from = if above { format!("above {least}") } else { format!("from {least}") };
            let bounds = match most < f64::MAX {
                true if above => format!("{from} and at most {most}"),
                true => format!("{from} to {most}"),
                false => from,
            };
            fits.then_some(()).ok_or(format!("a number {bounds}"))
        }
        Kind::Text => matches!(value, Value::Text(_)).then_some(()).ok_or("a text".to_owned()),
        Kind::Choice(words) => return choice_misfit(value, words),
        Kind::Ints { least, most, len } => {
            let fits = matches!(value, Value::List(values)
                if values.len() <= len && values.iter().all(|value| int_fits(value, least, most)));
            fits.then_some(()).ok_or(format!("an array of at most {len} whole numbers from {least} to {most}"))
        }
    };
    expected.err().map(|expected| format!("expected {expected}, found {}", shown(value)))
}

fn int_fits(value: &Value, least: i64, most: i64) -> bool {
    matches!(value, Value::Int(number) if (least..=most).contains(number))
}

fn choice_misfit(value: &Value, words: &[&str]) -> Option<String> {
    let list = || words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    match value {
        Value::Text(text) if words.contains(&text.as_str()) => None,
        Value::Text(text) => Some(match did_you_mean(text, words.iter().copied()) {
            Some(near) => format!("expected one of {}, found {}: did you mean \"{near}\"?", list(), shown(value)),
            None => format!("expected one of {}, found {}", list(), shown(value)),
        }),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::List(_) => {
            Some(format!("expected one of {}, found {}", list(), shown(value)))
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Float(number) => format!("{number:?}"),
        Value::Bool(_) | Value::Int(_) | Value::List(_) => value.to_string(),
    }
}

/// Returns the complete parameters of an op, defaults filled in: what `trainyard-ops` is started with.
///
/// `with` has passed [`parse`](super::parse()). A whole number where a number is meant becomes one; a parameter that stays absent is
/// left out.
#[must_use]
pub fn op_params(op: &Op, with: &[(Located, Value, Span)]) -> Map<String, Json> {
    let mut params = Map::new();
    for param in op.params {
        let given = with.iter().find(|(key, ..)| key.text == param.name).map(|(_, value, _)| value);
        let value = match given {
            Some(value) => Some(given_json(value, param.kind)),
            None => param.default.to_json(),
        };
        if let Some(value) = value {
            params.insert(param.name.to_owned(), value);
        }
    }
    params
}

fn given_json(value: &Value, kind: Kind) -> Json {
    match value {
        Value::Bool(value) => Json::from(*value),
        #[expect(clippy::cast_precision_loss, reason = "a parameter that is a number holds no more")]
        Value::Int(value) if matches!(kind, Kind::Float { .. }) => Json::from(*value as f64),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Text(value) => Json::from(value.as_str()),
        Value::List(values) => values.iter().map(|value| given_json(value, kind)).collect(),
    }
}

impl Default {
    /// Returns the default as JSON; `None` where there is none.
    #[must_use]
    pub fn to_json(self) -> Option<Json> {
        match self {
            Self::Required | Self::Absent => None,
            Self::Bool(value) => Some(Json::from(value)),
            Self::Int(value) => Some(Json::from(value)),
            Self::Float(value) => Some(Json::from(value)),
            Self::Text(value) => Some(Json::from(value)),
            Self::Ints(values) => Some(Json::from(values)),
        }
    }
}
