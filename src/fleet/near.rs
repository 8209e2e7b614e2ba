//! Where a device sits in its host, and which of several devices sit closest together. Pure.
//!
//! NVLink before a shared PCIe switch before a shared NUMA node: what several devices say to each other takes the fastest
//! way that all of them have, and the slowest one decides.

use std::collections::BTreeMap;

/// Where a device sits. Devices of one host with the same number are close in that way; `None`: to no other, or nobody
/// says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spot {
    /// Joined by NVLink, every one to every other.
    pub nvlink: Option<u32>,
    /// Behind one PCIe switch.
    pub switch: Option<u32>,
    /// At one NUMA node of the host.
    pub numa: Option<u32>,
}

impl Spot {
    /// The ways in which devices can be close, the closest first.
    const WAYS: [fn(&Self) -> Option<u32>; 3] = [|spot| spot.nvlink, |spot| spot.switch, |spot| spot.numa];

    /// Whether it is in the part of a host that another spot names; what that leaves open does not matter.
    #[must_use]
    pub fn is_within(&self, part: &Self) -> bool {
        Self::WAYS.iter().all(|way| way(part).is_none() || way(part) == way(self))
    }

    fn set(&mut self, way: usize, to: Option<u32>) {
        match way {
            0 => self.nvlink = to,
            1 => self.switch = to,
            _ => self.numa = to,
        }
    }
}

/// Returns the part of a host in which `count` of these devices are closest together: way by way, the smallest group that
/// has enough of them, so that larger ones stay whole. Open in every way if none has enough.
#[must_use]
pub fn closest(spots: &[Spot], count: usize) -> Spot {
    let mut part = Spot::default();
    for (index, way) in Spot::WAYS.into_iter().enumerate() {
        let mut groups: BTreeMap<u32, usize> = BTreeMap::new();
        for group in spots.iter().filter(|spot| spot.is_within(&part)).filter_map(way) {
            *groups.entry(group).or_default() += 1;
        }
        let enough = groups.into_iter().filter(|(_, size)| *size >= count);
        part.set(index, enough.min_by_key(|(group, size)| (*size, *group)).map(|(group, _)| group));
    }
    part
}

/// Returns the indices of `count` of these devices that are as close together as this finds, or all where there are fewer;
/// among equally close ones those that come first.
///
/// Where no group has enough of them, the largest are filled one after the other.
#[must_use]
pub fn nearest(spots: &[Spot], count: usize) -> Vec<usize> {
    let part = closest(spots, count);
    let mut inside: Vec<usize> = (0..spots.len()).filter(|index| spots[*index].is_within(&part)).collect();
    // Each device with how many share its group, the widest way first; one that shares with nobody is alone.
    let sizes = |way: fn(&Spot) -> Option<u32>| -> Vec<(usize, u32)> {
        let mut groups: BTreeMap<u32, usize> = BTreeMap::new();
        inside.iter().filter_map(|index| way(&spots[*index])).for_each(|group| *groups.entry(group).or_default() += 1);
        let of = |spot: &Spot| way(spot).map_or((1, u32::MAX), |group| (*groups.get(&group).unwrap_or(&1), group));
        spots.iter().map(of).collect()
    };
    let [nvlink, switch, numa] = Spot::WAYS.map(sizes);
    let rank = |sizes: &[(usize, u32)], index: usize| (std::cmp::Reverse(sizes[index].0), sizes[index].1);
    inside.sort_by_key(|index| (rank(&nvlink, *index), rank(&numa, *index), rank(&switch, *index)));
    inside.truncate(count);
    inside
}

/// Returns how many of some devices of a host are close to one of them, way by way, the closest first; itself counts.
#[must_use]
pub fn beside(spot: Spot, all: &[Spot]) -> [u32; 3] {
    Spot::WAYS.map(|way| {
        let group = way(&spot);
        let close = all.iter().filter(|other| group.is_some() && way(other) == group).count();
        u32::try_from(close).unwrap_or(u32::MAX)
    })
}

/// Returns in how many groups of each way these devices lie, the closest way first: fewer is closer.
#[must_use]
pub fn spread(spots: &[Spot]) -> [usize; 3] {
    Spot::WAYS.map(|way| {
        let mut groups: Vec<u32> = spots.iter().filter_map(way).collect();
        let alone = spots.len() - groups.len();
        groups.sort_unstable();
        groups.dedup();
        groups.len() + alone
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(nvlink: Option<u32>, switch: Option<u32>, numa: Option<u32>) -> Spot {
        Spot { nvlink, switch, numa }
    }

    #[test]
    fn nvlink_comes_before_a_switch_and_a_switch_before_a_numa_node() {
        // Two cards by NVLink across the sockets, two behind a switch, two at a socket.
        let spots = [
            spot(Some(0), None, Some(0)),
            spot(None, Some(0), Some(0)),
            spot(None, Some(0), Some(0)),
            spot(Some(0), None, Some(1)),
        ];
        assert_eq!(nearest(&spots, 2), [0, 3]);
        assert_eq!(nearest(&spots[1..], 2), [0, 1]);
        assert_eq!(nearest(&[spots[0], spots[3], spots[1]], 2), [0, 1]);
        assert_eq!(nearest(&[spots[1], spot(None, None, Some(1)), spot(None, None, Some(0))], 2), [0, 2]);
    }

    #[test]
    fn within_one_nvlink_group_the_socket_decides() {
        let spots: Vec<Spot> = (0..8).map(|n| spot(Some(0), None, Some(n % 2))).collect();
        assert_eq!(nearest(&spots, 4), [0, 2, 4, 6]);
    }

    #[test]
    fn the_smallest_group_that_suffices_is_taken_so_that_larger_ones_stay_whole() {
        let groups = [0, 0, 0, 0, 1, 1, 2, 2, 2];
        let spots = groups.map(|group| spot(Some(group), None, None));
        assert_eq!(nearest(&spots, 2), [4, 5]);
        assert_eq!(nearest(&spots, 3), [6, 7, 8]);
        assert_eq!(nearest(&spots, 6), [0, 1, 2, 3, 6, 7], "filled from the largest on");
    }

    #[test]
    fn more_than_a_socket_has_fills_one_and_takes_the_rest_from_the_other() {
        let spots: Vec<Spot> = [0, 1, 1, 1, 0].map(|numa| spot(None, None, Some(numa))).to_vec();
        assert_eq!(nearest(&spots, 4), [1, 2, 3, 0]);
        assert_eq!(spread(&[spots[0], spots[1]]), [2, 2, 2]);
        assert_eq!(spread(&[spots[1], spots[2]]), [2, 2, 1]);
    }

    #[test]
    fn a_device_by_itself_has_nobody_beside_it() {
        let spots = [spot(Some(0), None, Some(0)), spot(Some(0), None, Some(1)), spot(None, None, Some(1))];
        assert_eq!(beside(spots[0], &spots), [2, 0, 1]);
        assert_eq!(beside(spots[2], &spots), [0, 0, 2]);
    }

    #[test]
    fn where_nothing_is_known_the_first_are_taken() {
        assert_eq!(nearest(&[Spot::default(); 4], 2), [0, 1]);
        assert_eq!(nearest(&[Spot::default()], 2), [0]);
    }
}
