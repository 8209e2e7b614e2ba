//! Several amounts in one machine word: a request is compared with what is free in one subtraction.
//!
//! Each resource has a lane of bits with a guard bit above it. The guards of what is free are set; subtracting a
//! request clears the guard of every lane that is too small. The unit of a lane is the greatest common divisor of all
//! requests for it and its capacity is capped at what all tasks together ask for, so that the packing is exact.
//! Source: Lamport, "Multiple byte processing with full-word instructions", 1975. Does not know what the lanes mean.

use super::instance::gcd;

/// Amounts of several resources, packed into `W` words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amounts<const W: usize>([u64; W]);

/// Where each resource lies in the words.
#[derive(Clone, Debug)]
pub(super) struct Lanes<const W: usize> {
    lanes: Vec<Lane>,
    guards: Amounts<W>,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    word: usize,
    shift: u32,
    mask: u64,
    unit: u64,
}

/// What is known of one resource before lanes are laid out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    /// Greatest common divisor of all requests; 0 where nobody asks.
    unit: u64,
    /// What all tasks ask for together.
    total: u64,
    /// The largest capacity.
    capacity: u64,
}

impl Demand {
    /// Counts a request that `times` tasks may make.
    pub(super) fn ask(&mut self, amount: u64, times: u64) {
        if self.unit == 0 || !amount.is_multiple_of(self.unit) {
            self.unit = gcd(self.unit, amount);
        }
        self.total = self.total.saturating_add(amount.saturating_mul(times));
    }

    /// Counts a place that offers so much.
    pub(super) fn offer(&mut self, amount: u64) {
        self.capacity = self.capacity.max(amount);
    }

    /// The largest value that its lane must hold, in units.
    fn largest(&self) -> u64 {
        self.capacity.min(self.total).checked_div(self.unit).unwrap_or(0)
    }

    /// Bits of its lane with the guard; none where nobody asks.
    fn bits(&self) -> u32 {
        if self.unit == 0 { 0 } else { u64::BITS - self.largest().leading_zeros() + 1 }
    }
}

/// Makes something with a constant `W` of at least so many words; `None` for more than can be planned with.
macro_rules! in_words {
    ($words:expr, $w:ident => $made:expr) => {
        match $words {
            1 => {
                const $w: usize = 1;
                Some($made)
            }
            2..=4 => {
                const $w: usize = 4;
                Some($made)
            }
            5..=32 => {
                const $w: usize = 32;
                Some($made)
            }
            _ => None,
        }
    };
}
pub(super) use in_words;

/// Returns how many words the lanes of these resources need.
pub(super) fn words(demands: &[Demand]) -> usize {
    let (mut words, mut used) = (1, 0);
    for bits in demands.iter().map(Demand::bits) {
        if used + bits > u64::BITS {
            words += 1;
            used = 0;
        }
        used += bits;
    }
    words
}

impl<const W: usize> Lanes<W> {
    /// Lays out the lanes, in the order of the resources. `W` must be at least [`words`] of them.
    pub(super) fn new(demands: &[Demand]) -> Self {
        let (mut word, mut used) = (0, 0);
        let mut guards = [0; W];
        let mut lanes = Vec::with_capacity(demands.len());
        for demand in demands {
            let bits = demand.bits();
            if used + bits > u64::BITS {
                word += 1;
                used = 0;
            }
            if bits == 0 {
                lanes.push(Lane { word: 0, shift: 0, mask: 0, unit: 1 });
                continue;
            }
            let mask = (1_u64 << (bits - 1)) - 1;
            lanes.push(Lane { word, shift: used, mask, unit: demand.unit });
            guards[word] |= 1 << (used + bits - 1);
            used += bits;
        }
        Self { lanes, guards: Amounts(guards) }
    }

    /// Returns the guards of all lanes.
    pub(super) const fn guards(&self) -> Amounts<W> {
        self.guards
    }

    /// Packs what somebody asks for.
    pub(super) fn request(&self, amounts: impl IntoIterator<Item = u64>) -> Amounts<W> {
        let mut words = [0; W];
        for (lane, amount) in self.lanes.iter().zip(amounts) {
            words[lane.word] |= (amount / lane.unit).min(lane.mask) << lane.shift;
        }
        Amounts(words)
    }

    /// Packs what a place offers, with the guards set.
    pub(super) fn offer(&self, amounts: impl IntoIterator<Item = u64>) -> Amounts<W> {
        let Amounts(mut words) = self.request(amounts);
        words.iter_mut().zip(self.guards.0).for_each(|(word, guard)| *word |= guard);
        Amounts(words)
    }

    /// Whether `need` fits into `free`.
    #[inline]
    pub(super) fn fits(&self, free: Amounts<W>, need: Amounts<W>) -> bool {
        (0..W).all(|i| free.0[i].wrapping_sub(need.0[i]) & self.guards.0[i] == self.guards.0[i])
    }

    /// Returns the part of an offer that is asked for when all of it is: the offer without its guards.
    pub(super) fn all_of(&self, offer: Amounts<W>) -> Amounts<W> {
        Amounts(std::array::from_fn(|i| offer.0[i] & !self.guards.0[i]))
    }

    /// Returns every lane's amount as a part of the offer, in 2^-20; 0 for a lane that offers nothing.
    pub(super) fn relative(&self, amounts: Amounts<W>, offer: Amounts<W>) -> impl Iterator<Item = u64> {
        let part = move |lane| (self.lane(amounts, lane).saturating_mul(1 << 20)).checked_div(self.lane(offer, lane));
        (0..self.lanes.len()).map(move |lane| part(lane).unwrap_or(0))
    }

    /// Returns one lane's amount, in its unit.
    pub(super) fn lane(&self, amounts: Amounts<W>, lane: usize) -> u64 {
        let Lane { word, shift, mask, .. } = self.lanes[lane];
        amounts.0[word] >> shift & mask
    }
}

impl<const W: usize> Amounts<W> {
    /// Nothing of everything, without guards.
    pub(super) const NONE: Self = Self([0; W]);

    /// Returns all of it as one word; `None` where it takes more.
    pub(super) const fn word(self) -> Option<u64> {
        if W == 1 { Some(self.0[0]) } else { None }
    }

    /// Returns what is left of `self` after `need`, which fits.
    #[inline]
    pub(super) fn less(self, need: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - need.0[i]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_requests_fit_exactly_when_every_amount_does(
            capacity in prop::collection::vec(0_u64..1 << 40, 4),
            first in prop::collection::vec(0_u64..1 << 39, 4),
            second in prop::collection::vec(0_u64..1 << 39, 4),
        ) {
            let mut demands = [Demand::default(); 4];
            for (i, demand) in demands.iter_mut().enumerate() {
                demand.ask(first[i], 1);
                demand.ask(second[i], 1);
                demand.offer(capacity[i]);
            }
            prop_assert!(words(&demands) <= 4);
            let lanes = Lanes::<4>::new(&demands);
            let fits = |i: usize| first[i] <= capacity[i];
            let free = lanes.offer(capacity.iter().copied());
            // A request larger than the largest capacity never reaches a lane: such a choice is not offered.
            if (0..4).all(fits) && second.iter().zip(&capacity).all(|(need, most)| need <= most) {
                let (a, b) = (lanes.request(first.iter().copied()), lanes.request(second.iter().copied()));
                prop_assert!(lanes.fits(free, a));
                let both = (0..4).all(|i| first[i] + second[i] <= capacity[i]);
                prop_assert_eq!(lanes.fits(free.less(a), b), both);
                prop_assert!(!both || lanes.all_of(free.less(a).less(b)) != Amounts([u64::MAX; 4]));
            }
        }
    }

    #[test]
    fn an_exclusive_request_takes_all_of_the_offer() {
        let mut demands = [Demand::default(); 2];
        demands[0].ask(6, 3);
        demands[0].offer(16);
        demands[1].ask(1_000_000, 2);
        demands[1].offer(1_000_000);
        let lanes = Lanes::<1>::new(&demands);
        let free = lanes.offer([16, 1_000_000]);
        let left = free.less(lanes.all_of(free));
        assert!(!lanes.fits(left, lanes.request([6, 0])));
        assert!(lanes.fits(left, Amounts::NONE));
    }
}
