//! The course of a figure in bounded memory: when it is full, every other point goes.
//!
//! The points that stay depend on nothing but how many there were.

use serde::{Deserialize, Serialize};

/// The most points of a series: a curve on a screen shows no more.
pub const POINTS: usize = 512;

/// The most series of an attempt.
pub const NAMES: usize = 64;

/// The course of one figure. Arrays of one length, by point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Series {
    /// The figure's name, as the program calls it: `loss`, `it/s`.
    pub name: String,
    /// When, ms since the attempt started.
    pub ms: Vec<u64>,
    /// At which step of the work, where that is known.
    pub step: Vec<Option<f64>>,
    /// The values; not numbers where a training has diverged.
    #[serde(with = "super::value::each")]
    pub value: Vec<f64>,
    /// One of so many points is kept; a power of two. Not part of the record.
    #[serde(skip)]
    stride: u64,
    /// How many points there were.
    #[serde(skip)]
    seen: u64,
}

impl Series {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), stride: 1, ..Self::default() }
    }

    /// Returns the latest value.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        self.value.last().copied()
    }

    /// Adds a point. The newest one is always there, the others a stride apart.
    fn push(&mut self, ms: u64, step: Option<f64>, value: f64) {
        let newest_is_extra = self.seen > 0 && !(self.seen - 1).is_multiple_of(self.stride);
        if newest_is_extra {
            self.pop();
        }
        if self.ms.len() >= POINTS {
            self.halve();
        }
        self.seen += 1;
        self.ms.push(ms);
        self.step.push(step);
        self.value.push(value);
    }

    fn pop(&mut self) {
        self.ms.pop();
        self.step.pop();
        self.value.pop();
    }

    fn halve(&mut self) {
        fn every_other<T: Copy>(points: &mut Vec<T>) {
            *points = points.iter().copied().step_by(2).collect();
        }
        every_other(&mut self.ms);
        every_other(&mut self.step);
        every_other(&mut self.value);
        self.stride *= 2;
    }
}

/// The series of one attempt, in the order in which their names were first seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book(Vec<Series>);

impl Book {
    /// Goes on with series that were kept.
    #[must_use]
    pub fn going_on(mut series: Vec<Series>) -> Self {
        series.truncate(NAMES);
        for series in &mut series {
            (series.stride, series.seen) = (1, series.ms.len() as u64);
        }
        Self(series)
    }

    /// Adds a point to the series of that name. Beyond [`NAMES`] names nothing is added.
    pub fn push(&mut self, name: &str, ms: u64, step: Option<f64>, value: f64) {
        let at = self.0.iter().position(|series| series.name == name);
        let at = match at {
            Some(at) => at,
            None if self.0.len() == NAMES => return,
            None => {
                self.0.push(Series::new(name));
                self.0.len() - 1
            }
        };
        self.0[at].push(ms, step.filter(|step| step.is_finite()), value);
    }

    /// Returns the series.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(count: u64) -> Series {
        let mut book = Book::default();
        (0..count).for_each(|i| book.push("loss", i, Some(i as f64), i as f64));
        book.series()[0].clone()
    }

    #[test]
    fn a_short_course_is_kept_whole() {
        assert_eq!(of(POINTS as u64).ms, (0..POINTS as u64).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn a_long_one_keeps_its_first_and_last_point_and_even_steps(count in 1_u64..20_000) {
            let series = of(count);
            prop_assert!(series.ms.len() <= POINTS && series.ms.len() == series.value.len());
            prop_assert_eq!((series.ms[0], *series.ms.last().unwrap()), (0, count - 1));
            let kept = &series.ms[..series.ms.len() - 1];
            let gaps: std::collections::BTreeSet<u64> = kept.windows(2).map(|pair| pair[1] - pair[0]).collect();
            prop_assert!(gaps.len() <= 1, "{:?}", gaps);
            if count > POINTS as u64 {
                prop_assert!(series.ms.len() > POINTS / 2);
            }
        }
    }

    #[test]
    fn neither_names_nor_values_can_fill_the_memory() {
        let mut book = Book::default();
        (0..1_000).for_each(|i| book.push(&format!("m{i}"), 0, None, 1.0));
        assert_eq!((book.series().len(), book.series()[0].value.len()), (NAMES, 1));
    }
}
