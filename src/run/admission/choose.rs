//! Which of the devices that have room a request gets: the intended ones, else those that it fits best.
//!
//! One device: the one that it leaves least memory on, so that large requests still find room later. Several: within
//! one NVLink group if one has enough, and in the smallest such group, so that larger groups stay whole.

use std::collections::BTreeMap;

use super::book::Left;
use crate::fleet::{DeviceId, NodeId};
use crate::spec::Gpus;
use crate::units::{Bytes, Share};

/// A device with room for the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) device: DeviceId,
    pub(super) group: Option<u32>,
    pub(super) left: Left,
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
    /// NVLink groups that the devices lie in.
    groups: usize,
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
    if let Some(wished) = intended.and_then(|wished| find(wished, rooms, count)) {
        return Some(candidate(node, wished, false));
    }
    if rooms.len() < count {
        return None;
    }
    let mut by_fit = rooms.to_vec();
    by_fit.sort_by_key(|room| (room.left, room.device));
    let chosen = if count < 2 { by_fit[..count].to_vec() } else { gang(&by_fit, count) };
    Some(candidate(node, chosen, true))
}

/// Returns the intended devices if all of them have room.
fn find(wished: &[DeviceId], rooms: &[Room], count: usize) -> Option<Vec<Room>> {
    if wished.len() != count {
        return None;
    }
    wished.iter().map(|device| rooms.iter().find(|room| room.device == *device).copied()).collect()
}

/// Chooses `count` devices out of at least that many, in as few NVLink groups as the simple rule finds.
fn gang(by_fit: &[Room], count: usize) -> Vec<Room> {
    // A device without NVLink is a group of its own.
    let mut groups: BTreeMap<(Option<u32>, Option<DeviceId>), Vec<Room>> = BTreeMap::new();
    for room in by_fit {
        let alone = room.group.is_none().then_some(room.device);
        groups.entry((room.group, alone)).or_default().push(*room);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    if let Some(smallest) = groups.iter().filter(|group| group.len() >= count).min_by_key(|group| group.len()) {
        return smallest[..count].to_vec();
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    groups.concat()[..count].to_vec()
}

fn candidate(node: NodeId, mut rooms: Vec<Room>, unintended: bool) -> Candidate {
    rooms.sort_by_key(|room| room.device);
    let mut groups: Vec<_> =
        rooms.iter().map(|room| (room.group, room.group.is_none().then_some(room.device))).collect();
    groups.sort_unstable();
    groups.dedup();
    let cost = Cost {
        unintended,
        groups: groups.len(),
        left: rooms.iter().map(|room| room.left.memory).sum(),
        share_left: rooms.iter().map(|room| room.left.share).sum(),
    };
    Candidate { node, devices: rooms.into_iter().map(|room| room.device).collect(), cost }
}
