//! List schedules: tasks are placed in a given order, one after the other, each on the device where it ends first. Devices
//! are shared as far as their memory goes.
//!
//! A task counts as holding its memory up to its end, also before its start: a later one never slips in before an earlier
//! one, and nothing is held twice. So this is a quick guess at an order's worth, not the planner's decoder.

use super::orders::{Orders, Precedence};
use super::{MOST_TICKS, Unfit};
use crate::graph::TaskGraph;

/// The time of a task on a device that it cannot run on, and the makespan of an order with a task that fits nowhere.
pub const NEVER: u32 = u32::MAX;

/// Tasks that a device runs at the same time.
const SEATS: usize = 4;

/// Amounts of memory are below this, so that what all seats hold and one more can be added up.
const MOST_MEMORY: u32 = 1 << 29;

/// Tasks and devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lists {
    /// Who waits for whom.
    pub precedence: Precedence,
    /// `[n_tasks][n_devices]`, in ticks, or [`NEVER`].
    pub time: Vec<u32>,
    /// `[n_tasks]`: what it holds of a device's memory.
    pub memory: Vec<u32>,
    /// `[n_devices]`: what there is.
    pub capacity: Vec<u32>,
}

impl Lists {
    /// Makes a problem.
    ///
    /// # Errors
    /// Where numbers may grow beyond what is counted.
    ///
    /// # Panics
    /// When an array has another length than it should.
    pub fn new(graph: &TaskGraph, time: Vec<u32>, memory: Vec<u32>, capacity: Vec<u32>) -> Result<Self, Unfit> {
        assert_eq!((time.len(), memory.len()), (graph.len() * capacity.len(), graph.len()), "shapes of a problem");
        if capacity.is_empty() || capacity.len() > 32 {
            return Err(Unfit::TooManyDevices);
        }
        let longest =
            |row: &[u32]| row.iter().filter(|time| **time != NEVER).map(|time| u64::from(*time)).max().unwrap_or(0);
        if time.chunks(capacity.len()).map(longest).sum::<u64>() >= MOST_TICKS {
            return Err(Unfit::TooLong);
        }
        if memory.iter().chain(&capacity).any(|amount| *amount >= MOST_MEMORY) {
            return Err(Unfit::TooLarge);
        }
        Ok(Self { precedence: Precedence::new(graph)?, time, memory, capacity })
    }

    /// Returns when the last task ends, for every order.
    #[must_use]
    pub fn makespans(&self, orders: &Orders) -> Vec<u32> {
        orders.iter().map(|order| makespan(self, order)).collect()
    }
}

/// A task on a device: until when, and what it holds.
#[derive(Clone, Copy, Default)]
struct Seat {
    until: u32,
    holds: u32,
}

/// Returns when the last task ends, or [`NEVER`].
#[must_use]
pub fn makespan(lists: &Lists, order: &[u16]) -> u32 {
    let n_devices = lists.capacity.len();
    let mut seats = vec![[Seat::default(); SEATS]; n_devices];
    let mut finish = vec![0; lists.memory.len()];
    let mut latest = 0;
    for task in order {
        let ready = lists.precedence.of(*task).iter().map(|source| finish[usize::from(*source)]).max().unwrap_or(0);
        let task = usize::from(*task);
        let wants = lists.memory[task];
        let on = |device: usize| {
            let (takes, room) = (lists.time[task * n_devices + device], lists.capacity[device]);
            let fits = takes != NEVER && wants <= room;
            let (start, seat) = if fits { first_start(&seats[device], ready, wants, room) } else { return None };
            Some((start + takes, device, seat))
        };
        // The first device among equals: tuples are compared in this order.
        let Some((end, device, seat)) = (0..n_devices).filter_map(on).min() else { return NEVER };
        seats[device][seat] = Seat { until: end, holds: wants };
        finish[task] = end;
        latest = latest.max(end);
    }
    latest
}

/// Returns the first moment from `ready` on at which a seat is free and the memory suffices, and that seat.
fn first_start(seats: &[Seat; SEATS], ready: u32, wants: u32, room: u32) -> (u32, usize) {
    let mut start = ready;
    loop {
        let busy = || seats.iter().filter(|seat| seat.until > start);
        let held: u32 = busy().map(|seat| seat.holds).sum();
        let open = seats.iter().position(|seat| seat.until <= start);
        match (open, busy().map(|seat| seat.until).min()) {
            (Some(seat), _) if held + wants <= room => return (start, seat),
            (_, Some(end)) => start = end,
            // With nothing on the device there is room: what is larger than the device is not asked for.
            (_, None) => return (start, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::sample::graph_of;

    fn lists(edges: &[(usize, usize)], time: &[u32], memory: &[u32], capacity: &[u32]) -> Lists {
        let graph = graph_of(memory.len(), edges);
        Lists::new(&graph, time.to_vec(), memory.to_vec(), capacity.to_vec()).unwrap()
    }

    #[test]
    fn tasks_share_a_device_as_long_as_its_memory_lasts() {
        let three = lists(&[], &[4, 4, 4], &[5, 5, 5], &[10]);
        assert_eq!(makespan(&three, &[0, 1, 2]), 8);
        assert_eq!(makespan(&Lists { capacity: vec![15], ..three }, &[0, 1, 2]), 4);
    }

    #[test]
    fn a_device_runs_no_more_than_four_tasks() {
        let five = lists(&[], &[3; 5], &[1; 5], &[100]);
        assert_eq!(makespan(&five, &[0, 1, 2, 3, 4]), 6);
    }

    #[test]
    fn a_task_goes_where_it_ends_first_and_waits_for_its_sources() {
        let two = lists(&[(0, 1)], &[9, 3, 2, 8], &[1, 1], &[1, 1]);
        assert_eq!(makespan(&two, &[0, 1]), 5);
    }

    #[test]
    fn what_fits_nowhere_is_never_done() {
        assert_eq!(makespan(&lists(&[], &[1, NEVER], &[5, 1], &[4, 9][..1]), &[0, 1]), NEVER);
        assert_eq!(makespan(&lists(&[], &[NEVER], &[1], &[9]), &[0]), NEVER);
    }
}
