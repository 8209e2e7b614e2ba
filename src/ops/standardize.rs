//! `feature.standardize`: mean 0 and deviation 1, as measured on the first data set and applied to all.
//!
//! Sums in 64 bits and in order, so that the result does not depend on the machine.

use std::path::PathBuf;

use crate::dataset::Dataset;
use crate::error::OpError;
use crate::params::Standardize;

/// Measures the first data set and writes every one in the same order.
pub(crate) fn run(params: &Standardize, inputs: &[PathBuf], outputs: &[PathBuf]) -> Result<(), OpError> {
    let first = Dataset::read(&inputs[0])?;
    let moments = Moments::of(&first, params.scale);
    moments.apply(first).write(&outputs[0])?;
    for (input, output) in inputs.iter().zip(outputs).skip(1) {
        let set = Dataset::read(input)?;
        set.check_features(moments.mean.len(), "the first data set", input)?;
        moments.apply(set).write(output)?;
    }
    println!("{} data sets, {} features each", inputs.len(), moments.mean.len());
    Ok(())
}

/// What is subtracted from and what divides each feature.
struct Moments {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Moments {
    /// Measures; a feature that never varies is only shifted.
    #[expect(clippy::cast_precision_loss, reason = "rows are fewer than 2^52")]
    fn of(set: &Dataset, scale: bool) -> Self {
        let rows = set.rows() as f64;
        let mut mean = vec![0.0; set.features];
        let mut deviation = vec![0.0; set.features];
        for row in set.x.chunks_exact(set.features) {
            mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) / rows);
        }
        for row in set.x.chunks_exact(set.features) {
            for ((sum, value), mean) in deviation.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(*value) - mean).powi(2) / rows;
            }
        }
        for (variance, mean) in deviation.iter_mut().zip(&mean) {
            // Rounding leaves a trace of variance in a constant feature.
            let constant = variance.sqrt() <= 1e-7 * mean.abs() || *variance == 0.0;
            *variance = if constant || !scale { 1.0 } else { variance.sqrt() };
        }
        Self { mean, deviation }
    }

    #[expect(clippy::cast_possible_truncation, reason = "data sets hold 32-bit numbers")]
    fn apply(&self, mut set: Dataset) -> Dataset {
        for row in set.x.chunks_exact_mut(set.features) {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *value = ((f64::from(*value) - mean) / deviation) as f32;
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(x: &[f32]) -> Dataset {
        Dataset { x: x.to_vec(), features: 1, ..Dataset::default() }
    }

    #[test]
    fn the_first_set_decides_for_all() {
        let moments = Moments::of(&column(&[1.0, 3.0]), true);
        assert_eq!(moments.apply(column(&[1.0, 3.0, 7.0])).x, [-1.0, 1.0, 5.0]);
    }

    #[test]
    fn a_constant_feature_becomes_zero_not_infinite() {
        let set = column(&[0.1; 7]);
        assert!(Moments::of(&set, true).apply(set).x.iter().all(|value| value.abs() < 1e-6));
    }

    #[test]
    fn without_scale_it_only_shifts() {
        assert_eq!(Moments::of(&column(&[1.0, 3.0]), false).apply(column(&[1.0, 3.0])).x, [-1.0, 1.0]);
    }
}
