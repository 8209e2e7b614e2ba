//! Values of parameters and matrix points: read from the file, shown in task names, handed on as JSON.

use std::fmt;

use super::Value;
use super::decode::Decoder;
use super::tree::{Content, Node};

impl fmt::Display for Value {
    /// Writes what stands in a command line: `0.1`, `mlp`, `[64,32]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            // `{:?}` keeps 1e-5 short, where `{}` writes all zeros; a whole number is shown as one.
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => write!(f, "{value:.0}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => f.write_str(value),
            Self::List(values) => {
                f.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if i > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl Value {
    /// Returns how it stands in a task's name: a text that would blur the name's own punctuation is quoted.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Text(text)
                if text.is_empty() || text.contains(|c: char| ",=[]\"\\".contains(c) || c.is_control()) =>
            {
                format!("{text:?}")
            }
            Self::List(values) => format!("[{}]", values.iter().map(Self::label).collect::<Vec<_>>().join(",")),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) => self.to_string(),
        }
    }
}

/// Reads a value of a parameter or a matrix point: anything but a table or a date.
pub(super) fn value(decoder: &mut Decoder<'_>, node: &Node) -> Option<Value> {
    match &node.content {
        Content::Bool(value) => Some(Value::Bool(*value)),
        Content::Int(value) => Some(Value::Int(*value)),
        Content::Float(value) => Some(Value::Float(*value)),
        Content::Text(_) => decoder.text(node, "a text").map(|text| Value::Text(text.text)),
        Content::Array(nodes) => {
            let values: Vec<_> = nodes.iter().map(|node| value(decoder, node)).collect();
            values.into_iter().collect::<Option<Vec<_>>>().map(Value::List)
        }
        Content::Date | Content::Table(_) | Content::Broken => {
            decoder.mismatch(node, "a text, a number, true, false or an array of them");
            None
        }
    }
}
