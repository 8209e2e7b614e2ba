//! What is asked for how often: the mix of requests that a placement should leave room for.
//!
//! Does not know what a request is.

/// Different requests, the most frequent first, each with how many make it.
#[derive(Clone, Debug, Default)]
pub(super) struct Mix<R>(Vec<(R, u64)>);

impl<R: Ord> Mix<R> {
    /// Merges equal requests. Of those made equally often the greater comes first.
    pub(super) fn new(requests: impl IntoIterator<Item = (R, u64)>) -> Self {
        let mut all: Vec<_> = requests.into_iter().filter(|(_, times)| *times > 0).collect();
        all.sort_unstable();
        let mut merged: Vec<(R, u64)> = Vec::new();
        for (request, times) in all {
            match merged.last_mut() {
                Some((last, sum)) if *last == request => *sum += times,
                Some(_) | None => merged.push((request, times)),
            }
        }
        merged.sort_unstable_by(|(a, of_a), (b, of_b)| (of_b, b).cmp(&(of_a, a)));
        Self(merged)
    }

    /// Keeps the most frequent ones, so many at most.
    pub(super) fn at_most(mut self, most: usize) -> Self {
        self.0.truncate(most);
        self
    }

    /// Keeps the most frequent ones that make up so many percent of all.
    pub(super) fn covering(self, percent: u64) -> Self {
        let enough = u128::from(self.total()) * u128::from(percent);
        let mut sum = 0_u128;
        let kept = self.0.iter().take_while(|(_, times)| {
            let wanted = sum * 100 < enough;
            sum += u128::from(*times);
            wanted
        });
        let kept = kept.count();
        self.at_most(kept)
    }
}

impl<R> Mix<R> {
    /// How many requests it stands for.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(_, times)| times).sum()
    }

    /// Sums over the mix what is lost to each request: how much of what is free it cannot use.
    /// Source: FGD, Weng et al., 2023.
    pub(super) fn lost(&self, to: impl Fn(&R) -> i128) -> i128 {
        self.0.iter().map(|(request, times)| i128::from(*times) * to(request)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_requests_are_one_and_the_most_frequent_comes_first() {
        let mix = Mix::new([(1, 2), (3, 4), (1, 1), (2, 4), (9, 0)]);
        assert_eq!((mix.0.as_slice(), mix.total()), ([(3, 4), (2, 4), (1, 3)].as_slice(), 11));
        assert_eq!(mix.lost(|request| request * 10), 120 + 80 + 30);
    }

    #[test]
    fn a_part_of_the_mix_is_covered_by_its_most_frequent_requests() {
        let mix = || Mix::new([(1, 50), (2, 45), (3, 5)]);
        assert_eq!(mix().covering(95).0, [(1, 50), (2, 45)]);
        assert_eq!(mix().covering(96).0.len(), 3);
        assert_eq!(mix().covering(50).0, [(1, 50)]);
        assert_eq!(mix().at_most(1).total(), 50);
    }
}
