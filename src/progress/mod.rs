//! How far an unmodified program says it is: what it prints, to a part of its work and the figures it reports.
//!
//! [`Reader`] takes raw bytes in pieces of any size: `lines` cuts them, `clean` drops colours and notes cursor movements,
//! `scan` finds what a line says, `position` puts nested bars and epochs together, [`series`] keeps the figures.
//! [`explicit`] reads what a program says on purpose, and [`record`] is what stays. Nothing here fails: bytes that say
//! nothing are passed over, and how they are cut into pieces does not matter. Does not know time, files or tasks.

use serde::{Deserialize, Serialize};

mod clean;
pub mod explicit;
mod lines;
mod number;
mod position;
mod reader;
pub mod record;
mod scan;
pub mod series;
#[cfg(test)]
mod tests;
pub mod value;

pub use reader::{Figure, Reader};

/// How far a running task says it is. Every part may be unknown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// 0 to 1.
    pub progress: Option<f64>,
    /// A few words: `epoch 4/10`.
    pub phase: Option<String>,
    /// The latest loss; not a number where the training has diverged.
    #[serde(with = "value::maybe")]
    pub loss: Option<f64>,
    /// The latest accuracy, 0 to 1.
    pub accuracy: Option<f64>,
}

impl PartialEq for Progress {
    fn eq(&self, other: &Self) -> bool {
        let Self { progress, phase, loss, accuracy } = self;
        let loss_is_same = match (loss, other.loss) {
            (Some(a), Some(b)) => value::same(*a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        (progress, phase, accuracy) == (&other.progress, &other.phase, &other.accuracy) && loss_is_same
    }
}

impl Progress {
    /// Returns this with its gaps filled from `other`.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            progress: self.progress.or(other.progress),
            phase: self.phase.or_else(|| other.phase.clone()),
            loss: self.loss.or(other.loss),
            accuracy: self.accuracy.or(other.accuracy),
        }
    }

    /// Takes a figure in, if it is one that is shown beside a bar.
    pub(crate) fn note(&mut self, name: &str, value: f64) {
        let last = name.rsplit(['/', ' ', '-', '_']).next().unwrap_or(name);
        if last.ends_with("loss") || name == "Loss" {
            self.loss = Some(value);
        } else if matches!(last, "accuracy" | "acc" | "Accuracy" | "Acc") && (0.0..=1.0).contains(&value) {
            self.accuracy = Some(value);
        }
    }
}
