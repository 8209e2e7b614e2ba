//! Whose turn it is at a device that several share: round robin by quantum.
//!
//! Whoever has begun a turn keeps it for a quantum; then those go on that have stood still the longest. One that does not fit
//! beside those lets nobody pass who stands still as well, so that its turn comes within a quantum; a turn that is over goes on
//! as long as nobody wants its place. Pure; plans and runs ask the same function.

use crate::units::{Millis, Share};

/// How long a turn lasts where nobody says: loading its working set into caches again costs a training step or two, and a
/// minute has hundreds of them.
pub const QUANTUM: Millis = Millis(60_000);

/// The shortest quantum: a process is stopped and continued in a few milliseconds.
pub const QUANTUM_LEAST: Millis = Millis(100);

/// Somebody who takes turns at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// What it takes of the device while it runs.
    pub share: Share,
    /// Whether it runs now.
    pub runs: bool,
    /// Since when it runs or stands still.
    pub since: Millis,
}

impl Sharer {
    /// Returns when its turn is over, if it has one.
    fn end(&self, quantum: Millis) -> Option<Millis> {
        self.runs.then(|| self.since + quantum)
    }
}

/// Returns who runs from now on, `[n_sharers]`, where there is so much room for all of them together. Of those that have waited
/// as long the first goes first. Somebody always runs: room that is missing is somebody else's fault.
#[must_use]
pub fn turns(sharers: &[Sharer], room: Share, quantum: Millis, now: Millis) -> Vec<bool> {
    /// In this order they are asked.
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Standing {
        InTurn,
        Waiting,
        Over,
    }
    let standing = |sharer: &Sharer| match sharer.end(quantum) {
        Some(end) if now < end => Standing::InTurn,
        Some(_) => Standing::Over,
        None => Standing::Waiting,
    };
    let mut order: Vec<usize> = (0..sharers.len()).collect();
    order.sort_by_key(|at| match (standing(&sharers[*at]), sharers[*at].since) {
        // Of turns that are over the one that has lasted the longest ends first.
        (Standing::Over, since) => (Standing::Over, u64::MAX - since.0, usize::MAX - at),
        (standing, since) => (standing, since.0, *at),
    });
    let mut chosen = vec![false; sharers.len()];
    let (mut left, mut any, mut blocked) = (room, false, false);
    for at in order {
        let (sharer, waits) = (&sharers[at], standing(&sharers[at]) == Standing::Waiting);
        if (sharer.share <= left || !any) && !(waits && blocked) {
            (chosen[at], any) = (true, true);
            left -= sharer.share;
        } else if waits {
            blocked = true;
        }
    }
    chosen
}

/// Returns when it is next time to ask [`turns`] although nothing has happened; `None` while nobody stands still.
#[must_use]
pub fn next(sharers: &[Sharer], quantum: Millis, now: Millis) -> Option<Millis> {
    if sharers.iter().all(|sharer| sharer.runs) {
        return None;
    }
    let ends = sharers.iter().filter_map(|sharer| sharer.end(quantum));
    ends.filter(|end| *end > now).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const Q: Millis = Millis(10);

    fn sharer(share: u32, runs: bool, since: u64) -> Sharer {
        Sharer { share: Share(share * 10_000), runs, since: Millis(since) }
    }

    fn chosen(sharers: &[Sharer], now: u64) -> Vec<bool> {
        turns(sharers, Share::WHOLE, Q, Millis(now))
    }

    #[test]
    fn a_turn_lasts_a_quantum_and_then_the_longest_waiting_goes_on() {
        let all = [sharer(60, true, 0), sharer(60, false, 3), sharer(60, false, 2)];
        assert_eq!(chosen(&all, 9), [true, false, false]);
        assert_eq!(next(&all, Q, Millis(9)), Some(Millis(10)));
        assert_eq!(chosen(&all, 10), [false, false, true]);
        assert_eq!(next(&all, Q, Millis(10)), None, "it is decided at that very time");
    }

    #[test]
    fn what_fits_together_is_never_stopped() {
        let all = [sharer(50, true, 0), sharer(50, true, 0)];
        assert_eq!(chosen(&all, 99), [true, true]);
        assert_eq!(next(&all, Q, Millis(9)), None);
    }

    #[test]
    fn a_turn_that_is_over_goes_on_while_nobody_can_use_its_place() {
        // The wide one waits for the turn of the second one to end.
        let all = [sharer(40, true, 0), sharer(40, true, 5), sharer(90, false, 2)];
        assert_eq!(chosen(&all, 10), [true, true, false]);
        assert_eq!(chosen(&all, 15), [false, false, true]);
    }

    #[test]
    fn of_turns_that_are_over_the_longest_ends_first() {
        let all = [sharer(50, true, 3), sharer(50, true, 0), sharer(50, false, 5)];
        assert_eq!(chosen(&all, 13), [true, false, true]);
        let all = [sharer(50, true, 0), sharer(50, true, 0), sharer(50, false, 5)];
        assert_eq!(chosen(&all, 13), [false, true, true]);
    }

    #[test]
    fn nobody_passes_one_that_does_not_fit_yet() {
        let all = [sharer(40, true, 5), sharer(90, false, 2), sharer(40, false, 3)];
        assert_eq!(chosen(&all, 6), [true, false, false]);
    }

    #[test]
    fn somebody_runs_even_where_there_is_no_room() {
        assert_eq!(turns(&[sharer(40, false, 1)], Share::ZERO, Q, Millis(2)), [true]);
    }

    proptest! {
        /// Everybody's turn comes: nobody stands still for longer than a quantum for each of the others.
        #[test]
        fn everybodys_turn_comes(shares in prop::collection::vec(1_u32..=100, 1..7)) {
            let mut all: Vec<_> = shares.iter().map(|share| sharer(*share, false, 0)).collect();
            let longest = Q.0 * all.len() as u64;
            let mut now = Millis::ZERO;
            for _ in 0..40 {
                let runs = turns(&all, Share::WHOLE, Q, now);
                let together: u64 = all.iter().zip(&runs).filter(|(_, runs)| **runs).map(|(one, _)| u64::from(one.share.0)).sum();
                prop_assert!(together <= u64::from(Share::WHOLE.0));
                for (one, runs) in all.iter_mut().zip(runs) {
                    if one.runs != runs {
                        prop_assert!(one.runs || (now - one.since).0 <= longest, "{:?} at {}", one, now);
                        (one.runs, one.since) = (runs, now);
                    }
                    prop_assert!(one.runs || (now - one.since).0 <= longest, "{:?} at {}", one, now);
                }
                let Some(next) = next(&all, Q, now) else { break };
                now = next;
            }
        }
    }
}
