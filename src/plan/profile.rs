//! What is free at one place over time: a list of events, exact at every instant.
//!
//! Free amounts only ever shrink while a schedule is built, so a gap that was too small stays too small. Does not know
//! tasks.

use super::amounts::{Amounts, Lanes};

/// Free amounts of a node or device as a step function of time.
#[derive(Clone, Debug)]
pub(super) struct Profile<const W: usize> {
    /// Ascending; the first begins at 0, the last lasts for ever.
    steps: Vec<Step<W>>,
    /// Before this instant not even the least request fits, so no search begins earlier.
    open: u64,
}

/// What is free from an instant to the beginning of the next step.
#[derive(Clone, Copy, Debug)]
struct Step<const W: usize> {
    /// In milliseconds.
    begin: u64,
    free: Amounts<W>,
}

impl<const W: usize> Profile<W> {
    /// Makes a place that is empty at all times.
    pub(super) fn new(capacity: Amounts<W>) -> Self {
        Self { steps: vec![Step { begin: 0, free: capacity }], open: 0 }
    }

    /// Makes the place empty again.
    pub(super) fn clear(&mut self, capacity: Amounts<W>) {
        self.steps.clear();
        self.steps.push(Step { begin: 0, free: capacity });
        self.open = 0;
    }

    /// Returns the earliest instant in `from..=latest` from which `need` fits for `duration`.
    ///
    /// A task without duration holds nothing and fits at once.
    #[inline]
    pub(super) fn earliest(
        &self,
        lanes: &Lanes<W>,
        need: Amounts<W>,
        from: u64,
        duration: u64,
        latest: u64,
    ) -> Option<u64> {
        if from > latest {
            return None;
        }
        if duration == 0 || need == Amounts::NONE {
            return Some(from);
        }
        let mut start = from.max(self.open);
        if start > latest {
            return None;
        }
        let mut steps = &self.steps[self.step_at(start)..];
        while let [step, rest @ ..] = steps {
            if lanes.fits(step.free, need) {
                // A need that fits the empty place fits the last step, which has no next.
                if rest.first().is_none_or(|next| next.begin - start >= duration) {
                    return Some(start);
                }
            } else {
                start = rest.first()?.begin;
                if start > latest {
                    return None;
                }
            }
            steps = rest;
        }
        None
    }

    /// Takes `need`, which fits, from `start` to `finish`. Nobody ever asks for less than `least`, save for nothing.
    pub(super) fn take(&mut self, lanes: &Lanes<W>, least: Amounts<W>, need: Amounts<W>, start: u64, finish: u64) {
        if start == finish || need == Amounts::NONE {
            return;
        }
        let first = self.split(start, self.step_at(start));
        let (mut end, mut before) = (first, self.steps[first].free);
        while let Some(step) = self.steps.get_mut(end).filter(|step| step.begin < finish) {
            before = step.free;
            step.free = before.less(need);
            end += 1;
        }
        if self.steps.get(end).is_some_and(|step| step.begin == finish) {
            self.join(end);
        } else {
            self.steps.insert(end, Step { begin: finish, free: before });
        }
        self.join(first);
        if start <= self.open {
            let from = self.step_at(self.open);
            let open = self.steps[from..].iter().position(|step| lanes.fits(step.free, least));
            self.open = self.steps[from + open.unwrap_or(0)].begin.max(self.open);
        }
    }

    /// Returns what is free at an instant.
    pub(super) fn at(&self, time: u64) -> Amounts<W> {
        self.steps[self.step_at(time)].free
    }

    /// Index of the step that holds at `time`.
    fn step_at(&self, time: u64) -> usize {
        let mut end = self.steps.len();
        let mut width = 4;
        loop {
            let from = end.saturating_sub(width);
            if from == 0 || self.steps[from].begin <= time {
                return from + self.steps[from..end].partition_point(|step| step.begin <= time) - 1;
            }
            (end, width) = (from, width * 2);
        }
    }

    /// Makes a step begin at `time`, which lies in `step`, and returns its index.
    fn split(&mut self, time: u64, step: usize) -> usize {
        let Step { begin, free } = self.steps[step];
        if begin == time {
            return step;
        }
        self.steps.insert(step + 1, Step { begin: time, free });
        step + 1
    }

    /// Removes the beginning of a step that offers the same as the one before.
    fn join(&mut self, index: usize) {
        if index > 0 && self.steps[index].free == self.steps[index - 1].free {
            self.steps.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::amounts::Demand;
    use super::*;

    fn lanes(capacity: u64) -> (Lanes<1>, Amounts<1>) {
        let mut demand = Demand::default();
        demand.ask(1, 1_000);
        demand.offer(capacity);
        let lanes = Lanes::new(&[demand]);
        let offer = lanes.offer([capacity]);
        (lanes, offer)
    }

    #[test]
    fn a_gap_is_filled_before_the_end() {
        let (lanes, capacity) = lanes(2);
        let mut profile = Profile::new(capacity);
        profile.take(&lanes, lanes.request([1]), lanes.request([2]), 0, 5);
        profile.take(&lanes, lanes.request([1]), lanes.request([2]), 8, 20);
        assert_eq!(profile.earliest(&lanes, lanes.request([1]), 0, 3, u64::MAX), Some(5));
        assert_eq!(profile.earliest(&lanes, lanes.request([1]), 0, 4, u64::MAX), Some(20));
        assert_eq!(profile.earliest(&lanes, lanes.request([1]), 0, 4, 19), None);
        assert_eq!(profile.earliest(&lanes, lanes.request([1]), 3, 0, u64::MAX), Some(3));
    }

    #[test]
    fn steps_that_offer_the_same_are_one() {
        let (lanes, capacity) = lanes(1);
        let mut profile = Profile::new(capacity);
        for start in [0, 10, 5, 20, 15] {
            profile.take(&lanes, lanes.request([1]), lanes.request([1]), start, start + 5);
        }
        assert_eq!(profile.steps.iter().map(|step| step.begin).collect::<Vec<_>>(), [0, 25]);
    }

    proptest! {
        #[test]
        fn the_earliest_gap_equals_a_search_instant_by_instant(
            capacity in 1_u64..6,
            asks in prop::collection::vec((1_u64..6, 0_u64..20, 0_u64..8), 1..20),
        ) {
            let (lanes, offer) = lanes(capacity);
            let mut profile = Profile::new(offer);
            let mut used = vec![0; 400];
            for (need, from, duration) in asks {
                let need = need.min(capacity);
                let idle = |start: &usize| (*start..*start + duration as usize).all(|t| used[t] + need <= capacity);
                let expected = (from as usize..).find(idle).unwrap();
                let start = profile.earliest(&lanes, lanes.request([need]), from, duration, u64::MAX).unwrap();
                prop_assert_eq!(start, expected as u64);
                profile.take(&lanes, lanes.request([1]), lanes.request([need]), start, start + duration);
                used[expected..expected + duration as usize].iter_mut().for_each(|amount| *amount += need);
            }
        }
    }
}
