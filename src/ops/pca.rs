//! `feature.pca`: projection on the principal components of the first data set, by singular values.
//!
//! Runs on the CPU in 64 bits: the tables that fit a pipeline's feature stage take a second there.

use std::path::PathBuf;

use tch::{Kind, Tensor};

use crate::dataset::Dataset;
use crate::error::OpError;
use crate::params::Pca;

/// Analyses the first data set and writes every one, projected, in the same order.
pub(crate) fn run(params: &Pca, inputs: &[PathBuf], outputs: &[PathBuf]) -> Result<(), OpError> {
    let first = Dataset::read(&inputs[0])?;
    let basis = Basis::of(&first, params)?;
    basis.project(&first)?.write(&outputs[0])?;
    for (input, output) in inputs.iter().zip(outputs).skip(1) {
        let set = Dataset::read(input)?;
        set.check_features(first.features, "the first data set", input)?;
        basis.project(&set)?.write(output)?;
    }
    println!(
        "{} of {} components explain {:.1} % of the variance",
        basis.count,
        first.features,
        basis.explained * 100.0
    );
    Ok(())
}

/// The principal components.
struct Basis {
    /// `[features]`
    mean: Tensor,
    /// `[features, count]`
    axes: Tensor,
    count: usize,
    /// Part of the variance, 0 to 1.
    explained: f64,
}

impl Basis {
    /// Finds the components: the right singular vectors of the centred table (Jolliffe, Principal Component Analysis,
    /// 3.5). A vector's sign is chosen so that its largest entry is positive: else it would be left to the library.
    #[expect(clippy::cast_precision_loss, reason = "rows are fewer than 2^52")]
    fn of(set: &Dataset, params: &Pca) -> Result<Self, OpError> {
        let x = tensor(set)?;
        let mean = x.f_mean_dim(&[0i64][..], false, Kind::Double)?;
        let (_, singular, axes) = x.f_sub(&mean)?.f_svd(true, true)?;
        let variances: Vec<f64> = Vec::try_from(singular.f_square()?)?;
        let total: f64 = variances.iter().sum();
        if total <= 0.0 {
            return Err(OpError::unfit("all rows are equal: there are no components", "check the data"));
        }
        let count = match params.components {
            Some(count) if count > variances.len() => {
                let what = format!("{count} components asked of {} rows with {} features", set.rows(), set.features);
                return Err(OpError::unfit(what, format!("at most {} can be had", variances.len())));
            }
            Some(count) => count,
            None => enough(&variances, params.variance),
        };
        let length = i64::try_from(count).unwrap_or(i64::MAX);
        let axes = axes.f_narrow(1, 0, length)?;
        let largest = axes.f_gather(0, &axes.f_abs()?.f_argmax(0, true)?, false)?;
        let mut axes = axes.f_mul(&largest.f_sign()?)?;
        if params.whiten {
            let scale = (set.rows() as f64).sqrt();
            let deviation = singular.f_narrow(0, 0, length)?.f_div_scalar(scale)?.f_clamp_min(f64::MIN_POSITIVE)?;
            axes = axes.f_div(&deviation)?;
        }
        let explained = variances[..count].iter().sum::<f64>() / total;
        Ok(Self { mean, axes, count, explained })
    }

    fn project(&self, set: &Dataset) -> Result<Dataset, OpError> {
        let projected = tensor(set)?.f_sub(&self.mean)?.f_matmul(&self.axes)?;
        let x = Vec::try_from(projected.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?)?;
        Ok(Dataset { x, features: self.count, y: set.y.clone(), classes: set.classes.clone() })
    }
}

/// Returns how many of the leading variances sum to this part of all.
fn enough(variances: &[f64], part: f64) -> usize {
    let total: f64 = variances.iter().sum();
    let mut sum = 0.0;
    let reached = variances.iter().position(|variance| {
        sum += variance;
        sum >= part * total
    });
    reached.map_or(variances.len(), |last| last + 1)
}

fn tensor(set: &Dataset) -> Result<Tensor, OpError> {
    let shape = [set.rows(), set.features].map(|length| i64::try_from(length).unwrap_or(i64::MAX));
    Ok(Tensor::f_from_slice(&set.x)?.f_view(shape)?.f_to_kind(Kind::Double)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(x: &[f32], features: usize) -> Dataset {
        Dataset { x: x.to_vec(), features, ..Dataset::default() }
    }

    fn params(components: Option<usize>, variance: f64, whiten: bool) -> Pca {
        Pca { components, variance, whiten }
    }

    #[test]
    fn points_on_a_line_have_one_component() {
        let line = set(&[0.0, 0.0, 3.0, 4.0, 6.0, 8.0], 2);
        let basis = Basis::of(&line, &params(None, 0.99, false)).unwrap();
        assert_eq!(basis.count, 1);
        let projected = basis.project(&line).unwrap().x;
        assert!(projected.iter().zip([-5.0, 0.0, 5.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{projected:?}");
    }

    #[test]
    fn whitened_components_have_variance_one() {
        let cloud = set(&[0.0, 1.0, 5.0, -1.0, 10.0, 2.0, 15.0, -2.0], 2);
        let projected = Basis::of(&cloud, &params(Some(2), 1.0, true)).unwrap().project(&cloud).unwrap();
        for component in 0..2 {
            let variance: f32 = (0..4).map(|row| projected.row(row)[component].powi(2) / 4.0).sum();
            assert!((variance - 1.0).abs() < 1e-4, "{variance}");
        }
    }

    #[test]
    fn more_components_than_there_are_is_refused() {
        let error = Basis::of(&set(&[1.0, 2.0, 3.0, 5.0], 2), &params(Some(3), 1.0, false)).err().unwrap().to_string();
        assert!(error.contains("at most 2 can be had"), "{error}");
    }
}
