//! What a plan makes of the devices: how much of their memory and compute it uses, and in how many pieces it leaves the
//! rest.
//!
//! Reads pipeline, graph and fleet themselves, like [`check`](super::check::check). Does not know who made the plan.

use super::{Plan, wanted_memory};
use crate::fleet::{Device, Fleet};
use crate::graph::TaskGraph;
use crate::spec::{Gpus, Mode, Pipeline};
use crate::units::{Bytes, Millis, Share};

/// Parts between 0 and 1 of what the devices offer until the last task ends; `None` where the plan has no time or the
/// fleet no device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Device memory that tasks ask for; a task that names no memory counts with all of a device that it has to itself, and
    /// with as large a part as its share of another.
    pub memory: Option<f64>,
    /// Compute that tasks ask for; a task that only asks for memory counts with none.
    pub share: Option<f64>,
    /// Free memory that no single request can have, because it lies on several devices: one minus the largest request
    /// that still fits, over the largest that would fit were all that is free in one place. Mean over time.
    pub fragmentation: Option<f64>,
}

/// What one task changes on one device.
struct Change {
    at: Millis,
    device: usize,
    /// What it takes of the free memory, negative when it ends.
    memory: i128,
}

impl Usage {
    /// Measures a plan for `graph`, which was built from `pipeline`, on `fleet`.
    #[must_use]
    pub fn of(pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet, plan: &Plan) -> Self {
        let (mut memory, mut share) = (0_u128, 0_u128);
        let mut changes = Vec::new();
        for (task, placed) in graph.tasks.iter().zip(&plan.placed) {
            let Some(mode) = pipeline.stages[task.stage].modes.get(placed.mode) else { continue };
            let (time, ran) = (u128::from((placed.finish - placed.start).0), u128::from(placed.ran().0));
            for device in placed.devices.iter().map(|id| id.index()) {
                let of = &fleet.devices[device];
                let asked = asked(mode, of);
                memory += time * u128::from(asked.0);
                share += ran * u128::from(share_of(mode).0);
                let held = if matches!(mode.resources.gpus, Gpus::Whole(_)) { of.usable_memory() } else { asked };
                let held = i128::from(held.0);
                changes.push(Change { at: placed.start, device, memory: held });
                changes.push(Change { at: placed.finish, device, memory: -held });
            }
        }
        let until = u128::from(plan.makespan.0);
        let room: u128 = fleet.devices.iter().map(|device| u128::from(device.usable_memory().0)).sum();
        let compute = fleet.devices.len() as u128 * u128::from(Share::WHOLE.0);
        Self {
            memory: part(memory, room * until),
            share: part(share, compute * until),
            fragmentation: fragmentation(&fleet.devices, changes, plan.makespan),
        }
    }
}

/// What a task asks for of a device.
fn asked(mode: &Mode, device: &Device) -> Bytes {
    match mode.resources.gpus {
        Gpus::Whole(_) if mode.resources.gpu_memory == Bytes::ZERO => device.usable_memory(),
        Gpus::None | Gpus::Shared | Gpus::Share(_) | Gpus::Whole(_) => wanted_memory(mode, device),
    }
}

const fn share_of(mode: &Mode) -> Share {
    match mode.resources.gpus {
        Gpus::None | Gpus::Shared => Share::ZERO,
        Gpus::Share(share) => share,
        Gpus::Whole(_) => Share::WHOLE,
    }
}

fn fragmentation(devices: &[Device], mut changes: Vec<Change>, until: Millis) -> Option<f64> {
    let mut free: Vec<_> = devices.iter().map(|device| i128::from(device.usable_memory().0)).collect();
    let largest_device = free.iter().copied().max()?;
    changes.sort_unstable_by_key(|change| change.at);
    let (mut fits, mut would_fit) = (0_u128, 0_u128);
    let mut since = Millis::ZERO;
    let end = Change { at: until, device: 0, memory: 0 };
    for change in changes.into_iter().chain([end]) {
        if change.at > since {
            let time = u128::from((change.at - since).0);
            let largest = free.iter().copied().max().unwrap_or(0).max(0);
            let together = free.iter().map(|free| (*free).max(0)).sum::<i128>().min(largest_device);
            fits += time * largest.unsigned_abs();
            would_fit += time * together.unsigned_abs();
            since = change.at;
        }
        free[change.device] -= change.memory;
    }
    part(fits, would_fit).map(|part| 1.0 - part)
}

#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn part(of: u128, whole: u128) -> Option<f64> {
    (whole > 0).then(|| of as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{add_node, on_gpus, on_host, problem};
    use super::super::{Limits, Options, make};
    use super::*;

    fn measured(modes: Vec<Vec<Mode>>, devices: &[(&str, u64, u64)]) -> Usage {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 8, 64, devices);
        let problem = problem(modes, &[], fleet);
        let limits = Limits { evaluations: Some(1), ..Limits::default() };
        let options = Options { limits, ..Options::default() };
        let plan = make(&problem.pipeline, &problem.graph, &problem.fleet, &options).unwrap();
        Usage::of(&problem.pipeline, &problem.graph, &problem.fleet, &plan)
    }

    #[test]
    fn half_the_memory_for_the_whole_time_is_a_half() {
        let usage = measured(vec![vec![on_gpus(Gpus::Shared, 4, 10)]], &[("A", 8, 1_000)]);
        assert_eq!((usage.memory, usage.share, usage.fragmentation), (Some(0.5), Some(0.0), Some(0.0)));
    }

    #[test]
    fn free_memory_on_two_devices_is_in_two_pieces() {
        // Each device has 2 GiB left, and a request for 4 would fit were they in one place.
        let usage = measured(vec![vec![on_gpus(Gpus::Shared, 6, 10)]; 2], &[("A", 8, 1_000), ("A", 8, 1_000)]);
        assert_eq!((usage.memory, usage.fragmentation), (Some(0.75), Some(0.5)));
    }

    #[test]
    fn a_device_that_one_task_has_to_itself_is_used_as_a_whole() {
        let usage = measured(vec![vec![on_gpus(Gpus::Whole(1), 0, 10)]], &[("A", 8, 1_000), ("B", 8, 1_000)]);
        assert_eq!((usage.memory, usage.share), (Some(0.5), Some(0.5)));
    }

    #[test]
    fn a_share_without_a_word_about_memory_uses_as_large_a_part_of_it() {
        let usage = measured(vec![vec![on_gpus(Gpus::Share(Share(250_000)), 0, 10)]], &[("A", 8, 1_000)]);
        assert_eq!((usage.memory, usage.share), (Some(0.25), Some(0.25)));
    }

    #[test]
    fn without_devices_nothing_is_known() {
        assert_eq!(measured(vec![vec![on_host(1, 10)]], &[]), Usage::default());
    }
}
