//! `data.split`: rows at random into two parts, every class in proportion.
//!
//! Works on classes alone; training uses it too, to hold rows out.

use std::path::Path;

use crate::dataset::Dataset;
use crate::error::{OpError, Place};
use crate::params::Split;

/// Splits the data set and writes both parts.
pub(crate) fn run(params: &Split, input: &Path, train: &Path, test: &Path) -> Result<(), OpError> {
    let set = Dataset::read(input)?;
    let strata = if params.stratify { set.y.as_deref() } else { None };
    if params.stratify && strata.is_none() {
        let help = "set `stratify = false`, or read it with a `label`";
        return Err(OpError::input(Place::file(input), "its rows have no class", help));
    }
    let (kept, held) = split(set.rows(), strata, params.test, params.seed);
    if kept.is_empty() || held.is_empty() {
        let what = format!("{} rows cannot be split into two parts with `test = {}`", set.rows(), params.test);
        return Err(OpError::input(Place::file(input), what, "choose another `test` or take more rows"));
    }
    println!("{} rows to train, {} to test", kept.len(), held.len());
    set.select(&kept).write(train)?;
    set.select(&held).write(test)
}

/// Returns the rows that stay and those held out, each ascending. About `part` of every class is held out, the total
/// being `part` of all rows, rounded; with no classes, all rows count as one.
pub(crate) fn split(rows: usize, classes: Option<&[i64]>, part: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut strata: std::collections::BTreeMap<i64, Vec<usize>> = std::collections::BTreeMap::new();
    for row in 0..rows {
        strata.entry(classes.map_or(0, |classes| classes[row])).or_default().push(row);
    }
    let sizes: Vec<usize> = strata.values().map(Vec::len).collect();
    let quotas = quotas(&sizes, part);
    let mut random = Random(seed);
    let mut parts = (Vec::new(), Vec::new());
    for (stratum, quota) in strata.values_mut().zip(quotas) {
        random.shuffle(stratum);
        parts.1.extend_from_slice(&stratum[..quota]);
        parts.0.extend_from_slice(&stratum[quota..]);
    }
    parts.0.sort_unstable();
    parts.1.sort_unstable();
    parts
}

/// Returns how many of each class are held out: the largest-remainder method (Hamilton), so that rounding does not
/// favour a class and the total is right.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "rows are fewer than 2^52, and `part` lies between 0 and 1"
)]
fn quotas(sizes: &[usize], part: f64) -> Vec<usize> {
    let rows: usize = sizes.iter().sum();
    let total = (rows as f64 * part).round() as usize;
    let exact: Vec<f64> = sizes.iter().map(|size| *size as f64 * part).collect();
    let mut quotas: Vec<usize> = exact.iter().map(|quota| quota.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..sizes.len()).collect();
    by_remainder.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()).then(a.cmp(b)));
    let missing = total.saturating_sub(quotas.iter().sum());
    for class in by_remainder.into_iter().take(missing) {
        quotas[class] += 1;
    }
    quotas
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, seeded, the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fisher and Yates. The bias of the multiplication is below 2^-32 for fewer than 2^32 rows.
    fn shuffle(&mut self, items: &mut [usize]) {
        for last in (1..items.len()).rev() {
            let choice = (u128::from(self.next()) * (last as u128 + 1)) >> 64;
            items.swap(last, usize::try_from(choice).unwrap_or(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_lands_in_one_part_and_every_class_in_proportion(
            classes in prop::collection::vec(0i64..4, 1..200), part in 0.01f64..0.99, seed: u64,
        ) {
            let (kept, held) = split(classes.len(), Some(&classes), part, seed);
            let mut all: Vec<usize> = kept.iter().chain(&held).copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..classes.len()).collect::<Vec<_>>());
            prop_assert!((held.len() as f64 - classes.len() as f64 * part).abs() <= 0.5 + 1e-9);
            for class in 0..4 {
                let size = classes.iter().filter(|c| **c == class).count() as f64;
                let taken = held.iter().filter(|row| classes[**row] == class).count() as f64;
                prop_assert!((taken - size * part).abs() < 1.0 + 1e-9);
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(split(50, None, 0.3, 7), split(50, None, 0.3, 7));
        assert_ne!(split(50, None, 0.3, 7), split(50, None, 0.3, 8));
    }
}
