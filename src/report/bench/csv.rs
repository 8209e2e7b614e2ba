//! Comparisons as CSV (RFC 4180): a line for each policy, under the names of the JSON. What is not known is empty.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Comparison, rows};

/// Returns all comparisons, with a heading.
#[must_use]
pub fn csv(comparisons: &[Comparison]) -> String {
    lines(&rows(comparisons))
}

/// Returns a heading and a line for each row.
pub(super) fn lines(rows: &[impl Serialize]) -> String {
    let mut out = String::new();
    for row in rows {
        let Ok(Value::Object(fields)) = serde_json::to_value(row) else { continue };
        let fields = flat("", fields);
        if out.is_empty() {
            line(&mut out, fields.iter().map(|(name, _)| name.clone()));
        }
        line(&mut out, fields.iter().map(|(_, value)| plain(value)));
    }
    out
}

/// Returns the fields of objects within the object as its own: `live_runs`.
fn flat(prefix: &str, fields: Map<String, Value>) -> Vec<(String, Value)> {
    let named = fields.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value));
    let flat = named.flat_map(|(name, value)| match value {
        Value::Object(fields) => flat(&format!("{name}_"), fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => vec![(name, value)],
    });
    flat.collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn line(out: &mut String, fields: impl Iterator<Item = String>) {
    let fields: Vec<String> = fields.map(quoted).collect();
    out.push_str(&fields.join(","));
    out.push_str("\r\n");
}

/// Returns a field as it stands in a line, in quotes where it must be.
#[must_use]
pub fn quoted(field: String) -> String {
    if field.contains([',', '"', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}
