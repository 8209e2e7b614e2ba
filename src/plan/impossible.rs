//! Why a task can never be placed on a fleet, with the numbers and what would help.
//!
//! Looks at an idle fleet: what is running now, ours or others', never makes a task impossible.

use std::fmt;

use super::build::{CPUS, HOST_MEMORY, asked, capacity, gang};
use crate::fleet::{Device, Fleet, Node};
use crate::spec::{Mode, Resources, Stage};
use crate::units::{Bytes, Cpus};

/// Tasks of one stage that fit nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// Index of the stage in the pipeline.
    pub stage: usize,
    /// Names of its tasks.
    pub tasks: Vec<String>,
    /// `[n_modes]`: why each mode fits nowhere.
    pub modes: Vec<Vec<Reason>>,
}

/// One reason why a mode fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It asks for more of a node's resource than any node has.
    Node {
        /// `CPUs`, `host memory` or a custom resource.
        resource: String,
        /// What is asked for, in the resource's unit.
        asked: u64,
        /// The most that a node has.
        most: u64,
        /// That node's name.
        node: String,
    },
    /// It asks for a device and the fleet has none.
    NoDevice,
    /// It asks for more memory than any device has.
    DeviceMemory {
        /// What is asked for, on each device.
        asked: Bytes,
        /// The most that tasks can have of a device.
        most: Bytes,
        /// That device's id.
        device: String,
        /// Its model.
        model: String,
        /// What of its memory no task can have.
        headroom: Bytes,
    },
    /// It asks for more devices than any node has with enough memory.
    Gang {
        /// How many are asked for.
        asked: u32,
        /// The most on one node.
        most: u32,
        /// That node's name.
        node: String,
        /// What is asked for on each device.
        memory: Bytes,
        /// Whether that node has MIG slices, of which none counts.
        slices: bool,
    },
    /// Each part fits on some node, but no node has all of it.
    Together,
}

/// Returns, mode by mode, why a stage that fits nowhere does not.
pub(super) fn reasons(stage: &Stage, fleet: &Fleet) -> Vec<Vec<Reason>> {
    stage.modes.iter().map(|mode| reasons_of(mode, fleet)).collect()
}

fn reasons_of(mode: &Mode, fleet: &Fleet) -> Vec<Reason> {
    let held = &mode.resources;
    let names = [CPUS, HOST_MEMORY].into_iter().chain(held.custom.keys().map(String::as_str));
    let mut reasons: Vec<_> = names.filter_map(|name| node_reason(held, name, fleet)).collect();
    reasons.extend(device_reason(mode, fleet));
    if reasons.is_empty() {
        reasons.push(Reason::Together);
    }
    reasons
}

fn node_reason(held: &Resources, resource: &str, fleet: &Fleet) -> Option<Reason> {
    let asked = asked(held, resource);
    // The first of equal nodes is named.
    let largest = fleet.nodes.iter().rev().max_by_key(|node| capacity(node, resource));
    let (most, node) = largest.map_or((0, String::new()), |node: &Node| (capacity(node, resource), node.name.clone()));
    (asked > most).then(|| Reason::Node { resource: resource.to_owned(), asked, most, node })
}

fn device_reason(mode: &Mode, fleet: &Fleet) -> Option<Reason> {
    let held = &mode.resources;
    let gang = gang(mode);
    if gang == 0 {
        return None;
    }
    let Some(largest) = fleet.devices.iter().rev().max_by_key(|device| device.whole_memory()) else {
        return Some(Reason::NoDevice);
    };
    if held.gpu_memory > largest.whole_memory() {
        return Some(Reason::DeviceMemory {
            asked: held.gpu_memory,
            most: largest.whole_memory(),
            device: largest.id.clone(),
            model: largest.model.clone(),
            headroom: largest.headroom,
        });
    }
    let fits = |device: &&Device| held.gpu_memory <= device.whole_memory() && device.can_join(gang);
    let mut on_node = vec![0_u32; fleet.nodes.len()];
    fleet.devices.iter().filter(fits).for_each(|device| on_node[device.node.index()] += 1);
    let (node, most) = on_node.iter().enumerate().rev().max_by_key(|(_, count)| **count)?;
    let slices = fleet.devices.iter().any(|device| device.node.index() == node && !device.can_join(gang));
    let node = fleet.nodes[node].name.clone();
    (gang > *most).then_some(Reason::Gang { asked: gang, most: *most, node, memory: held.gpu_memory, slices })
}

/// Writes an amount of a node's resource in its own unit.
fn amount(resource: &str, amount: u64) -> String {
    match resource {
        CPUS => Cpus(amount).to_string(),
        HOST_MEMORY => Bytes(amount).to_string(),
        _ => amount.to_string(),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { resource, asked, most, node } => {
                let (asked, most) = (amount(resource, *asked), amount(resource, *most));
                write!(f, "it asks for {asked} {resource}, and the most on one node is {most} (`{node}`)")
            }
            Self::NoDevice => f.write_str("it asks for a GPU, and the fleet has none"),
            Self::DeviceMemory { asked, most, device, model, headroom } => {
                write!(
                    f,
                    "it asks for {asked} of GPU memory, and the most on one device is {most} (`{device}`, {model}"
                )?;
                if *headroom > Bytes::ZERO {
                    write!(f, ", {headroom} kept as headroom")?;
                }
                f.write_str(")")
            }
            Self::Gang { asked, most, node, memory, slices } => {
                write!(f, "it asks for {asked} GPUs")?;
                if *memory > Bytes::ZERO {
                    write!(f, " with {memory} each")?;
                }
                write!(f, ", and the most on one node is {most} (`{node}`)")?;
                if *slices {
                    f.write_str("; MIG slices do not count, since a process can use only one")?;
                }
                Ok(())
            }
            Self::Together => f.write_str("each part of its request fits on some node, but no node has all of it"),
        }
    }
}

impl Reason {
    /// Returns what would help, one sentence.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Node { resource, most, .. } if *most > 0 => {
                format!("ask for at most {} {resource}, or add a node that has more", amount(resource, *most))
            }
            Self::Node { resource, .. } => format!("declare {resource} on a node of the fleet file"),
            Self::NoDevice => "write gpus = \"prefer\" to let it run on the CPU where there is no GPU".to_owned(),
            Self::DeviceMemory { most, .. } => format!("ask for at most {most}, or use a larger device"),
            Self::Gang { slices: true, most, .. } => {
                let most = most.max(&1);
                format!("ask for at most {most} GPU{}, or turn MIG mode off", if *most == 1 { "" } else { "s" })
            }
            Self::Gang { most, .. } => {
                let plural = if *most == 1 { "" } else { "s" };
                format!("ask for at most {most} GPU{plural}, or use a node that has more")
            }
            Self::Together => "split the stage, or use a node that has all of it".to_owned(),
        }
    }
}
