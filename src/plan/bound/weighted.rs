//! The least weighted sum of ends.
//!
//! While a resource is in use by one task it is in use by no other. Were it one machine whose whole capacity went to one
//! task at a time, the weighted sum of the instants at which tasks are half done would be least with the largest weight for
//! its area first (Smith's rule), and a task that takes some time ends half that time after the middle of when it ran. Source:
//! Eastman, Even and Isaacs, 1964; Goemans, 1997, for the middles.

use super::{Area, areas};
use crate::graph::TaskId;
use crate::plan::instance::Instance;
use crate::timing::Timing;

/// Areas are counted in parts of a millisecond.
const PARTS: u128 = 1 << 10;

/// Returns what no plan's sum over all tasks of weight times end can be under, where it can be counted.
pub(in crate::plan) fn weighted_ends(
    instance: &Instance<'_>,
    timing: &Timing,
    weight: impl Fn(TaskId) -> u128,
) -> Option<u128> {
    areas(instance).iter().filter_map(|area| of_area(area, instance, timing, &weight)).max()
}

fn of_area(area: &Area, instance: &Instance<'_>, timing: &Timing, weight: impl Fn(TaskId) -> u128) -> Option<u128> {
    // Rounded down: what takes less ends no later.
    let of_kind: Vec<_> = area.least.iter().map(|least| least.saturating_mul(PARTS) / area.scale).collect();
    let small = |value: u128| u64::try_from(value).ok().map(u128::from);
    let ids = instance.graph.ids();
    let of = |task: TaskId| Some((task, small(weight(task))?, small(of_kind[instance.kind[task.index()] as usize])?));
    let mut tasks = ids.map(of).collect::<Option<Vec<_>>>()?;
    // Exact: by any other order the sum would be larger than the least.
    tasks.sort_unstable_by(|(_, weight, area), (_, other, of_other)| (area * other).cmp(&(of_other * weight)));
    let (mut before, mut twice) = (0_u128, 0_u128);
    for (task, weight, area) in tasks {
        let time = u128::from(timing.duration[task.index()].0) * PARTS;
        let end = before.checked_mul(2)?.checked_add(area)?.checked_add(time)?;
        twice = twice.checked_add(weight.checked_mul(end)?)?;
        before += area;
    }
    Some(twice.div_ceil(2 * PARTS))
}

#[cfg(test)]
mod tests {
    use crate::fleet::Fleet;
    use crate::plan::fixture::{add_node, on_gpus, problem};
    use crate::plan::{self, Objective, Options};
    use crate::spec::Gpus;

    fn gap(gpus: Gpus, tasks: usize) -> (u128, u128) {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 64, 64, &[("A", 16, 1_000)]);
        let problem = problem(vec![vec![on_gpus(gpus, 1, 10_000)]; tasks], &[], fleet);
        let options = Options { objective: Objective::WeightedCompletion, ..Options::default() };
        let plan = plan::make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap();
        (plan.value, plan.value_bound)
    }

    #[test]
    fn tasks_that_need_all_of_a_device_end_one_after_the_other() {
        assert_eq!(gap(Gpus::Whole(1), 10), (550_000, 550_000));
    }

    #[test]
    fn of_a_device_that_two_share_the_bound_is_a_sixth_away_at_most() {
        let (value, bound) = gap(Gpus::Share(crate::units::Share(500_000)), 6);
        assert_eq!(value, 2 * (10_000 + 20_000 + 30_000));
        assert!(bound <= value && 6 * bound >= 5 * value, "{bound} of {value}");
    }
}
