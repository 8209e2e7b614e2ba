//! Which of the devices that have room a request gets: the intended ones, else those that it fits best.
//!
//! One device: the one that it leaves least memory on, so that large requests still find room later; of equal ones, one
//! that has the fewest others beside it, so that those who want several still find them together. Several: those that sit
//! closest together. Those that were busy when tasks came are left out where there are enough without them.

use std::borrow::Cow;

use super::book::Left;
use crate::fleet::{DeviceId, NodeId, Spot, near};
use crate::spec::Gpus;
use crate::units::{Bytes, Share};

/// A device with room for the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) device: DeviceId,
    pub(super) spot: Spot,
    pub(super) left: Left,
    /// How often it was busy when a task came, since it let one in.
    pub(super) busy: u32,
}

/// A choice on one node, and how it compares with one on another node.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) devices: Vec<DeviceId>,
    pub(super) cost: Cost,
}

/// Smaller is better, the first field first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    unintended: bool,
    /// In how many groups the devices lie: of NVLink, of PCIe switches, of NUMA nodes.
    spread: [usize; 3],
    /// Memory left on the chosen devices.
    left: Bytes,
    share_left: Share,
}

/// Chooses devices of a node among those with room; `None` if they are too few.
pub(super) fn devices(node: NodeId, rooms: &[Room], gpus: Gpus, intended: Option<&[DeviceId]>) -> Option<Candidate> {
    let count = match gpus {
        Gpus::None => 0,
        Gpus::Whole(count) => count as usize,
        Gpus::Share(_) | Gpus::Shared => 1,
    };
    let rooms = &least_busy(rooms, count)[..];
    if let Some(wished) = intended.and_then(|wished| find(wished, rooms, count)) {
        return Some(candidate(node, wished, false));
    }
    if rooms.len() < count {
        return None;
    }
    if count == 1 {
        let spots: Vec<Spot> = rooms.iter().map(|room| room.spot).collect();
        let best = rooms.iter().min_by_key(|room| (room.left, near::beside(room.spot, &spots), room.device));
        return best.map(|room| candidate(node, vec![*room], true));
    }
    let mut by_fit = rooms.to_vec();
    by_fit.sort_by_key(|room| (room.left, room.device));
    let spots: Vec<Spot> = by_fit.iter().map(|room| room.spot).collect();
    let chosen = near::nearest(&spots, count).into_iter().map(|index| by_fit[index]).collect();
    Some(candidate(node, chosen, true))
}

/// Leaves out those that were busy more often than so many others; where some of the rest were, too, all but as many as it
/// takes.
fn least_busy(rooms: &[Room], count: usize) -> Cow<'_, [Room]> {
    if count == 0 || rooms.len() < count || rooms.iter().all(|room| room.busy == 0) {
        return Cow::Borrowed(rooms);
    }
    let mut rooms = rooms.to_vec();
    rooms.sort_by_key(|room| (room.busy, room.left, room.device));
    let (least, most) = (rooms[0].busy, rooms[count - 1].busy);
    if least == most {
        rooms.retain(|room| room.busy == most);
    } else {
        rooms.truncate(count);
    }
    Cow::Owned(rooms)
}

/// Returns the intended devices if all of them have room.
fn find(wished: &[DeviceId], rooms: &[Room], count: usize) -> Option<Vec<Room>> {
    if wished.len() != count {
        return None;
    }
    wished.iter().map(|device| rooms.iter().find(|room| room.device == *device).copied()).collect()
}

fn candidate(node: NodeId, mut rooms: Vec<Room>, unintended: bool) -> Candidate {
    rooms.sort_by_key(|room| room.device);
    let spots: Vec<Spot> = rooms.iter().map(|room| room.spot).collect();
    let cost = Cost {
        unintended,
        spread: near::spread(&spots),
        left: rooms.iter().map(|room| room.left.memory).sum(),
        share_left: rooms.iter().map(|room| room.left.share).sum(),
    };
    Candidate { node, devices: rooms.into_iter().map(|room| room.device).collect(), cost }
}
