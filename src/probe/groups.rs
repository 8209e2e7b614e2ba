//! Which devices are joined, by NVLink or behind a PCIe switch, as groups in which every one is joined to every other.

/// Returns a group number for each of `n` devices, `None` for one that is joined to nobody.
///
/// Greedy: a device enters the first group whose members are all joined to it. That is exact for switches (one group)
/// and bridges (pairs), and finds the two halves of a DGX-1's cube, whose largest cliques hold four.
pub(super) fn groups(n: usize, joined: impl Fn(usize, usize) -> bool) -> Vec<Option<u32>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for device in 0..n {
        match groups.iter_mut().find(|group| group.iter().all(|other| joined(device, *other))) {
            Some(group) => group.push(device),
            None => groups.push(vec![device]),
        }
    }
    let mut numbers = vec![None; n];
    for (number, group) in (0..).zip(groups.into_iter().filter(|group| group.len() > 1)) {
        for device in group {
            numbers[device] = Some(number);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_joins_all() {
        assert_eq!(groups(4, |_, _| true), [Some(0); 4]);
    }

    #[test]
    fn without_links_there_are_no_groups() {
        assert_eq!(groups(3, |_, _| false), [None; 3]);
    }

    #[test]
    fn bridges_join_pairs_and_leave_one_alone() {
        let joined = |a: usize, b: usize| a / 2 == b / 2;
        assert_eq!(groups(5, joined), [Some(0), Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn a_cube_falls_into_its_two_halves() {
        // DGX-1: each half is fully joined, and each device also to its twin in the other half.
        let joined = |a: usize, b: usize| a / 4 == b / 4 || a % 4 == b % 4;
        let halves = groups(8, joined);
        assert_eq!(halves, [[Some(0); 4], [Some(1); 4]].concat());
    }
}
