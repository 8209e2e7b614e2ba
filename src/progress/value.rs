//! Values of figures in JSON: a training that diverges has a loss that is no number, which JSON cannot write.
//!
//! Those are the words `"NaN"`, `"Infinity"` and `"-Infinity"`, as in Protocol Buffers' JSON mapping.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A value that is a number, or a word for what is none.
#[derive(Clone, Copy)]
struct Spelled(f64);

impl Serialize for Spelled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match word(self.0) {
            Some(word) => serializer.serialize_str(word),
            None => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Spelled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        of_json(&value)
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("neither a number nor a word for what is none"))
    }
}

/// Returns the word for what is no number.
fn word(value: f64) -> Option<&'static str> {
    match value {
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        value => value.is_nan().then_some("NaN"),
    }
}

/// Returns a value as JSON has it.
#[must_use]
pub fn to_json(value: f64) -> Value {
    word(value).map_or_else(|| value.into(), Value::from)
}

/// Reads a value from JSON.
#[must_use]
pub fn of_json(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}

/// Whether two values are the same: also where both are no number.
pub(super) fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

/// For a value that may be unknown.
pub(super) mod maybe {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Spelled};

    pub(in super::super) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Spelled).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Spelled>::deserialize(deserializer)?.map(|value| value.0))
    }
}

/// For many values.
pub(super) mod each {
    use super::{Deserialize, Deserializer, Serializer, Spelled};

    pub(in super::super) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().copied().map(Spelled))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Spelled>::deserialize(deserializer)?.into_iter().map(|value| value.0).collect())
    }
}
