//! A fleet file that describes this very machine, and is wrong about it: whoever plans by it should know.

use super::output;
use crate::fleet::{Device, Fleet, NodeId, file};
use crate::probe::{self, Host};
use crate::report::text;
use crate::units::Cpus;

/// Says what a node of the fleet that is called like this machine has otherwise than it. Looks at the devices only where
/// there is such a node.
pub(super) fn say(fleet: &Fleet, options: &probe::Options) {
    let host = Host::read(&options.root);
    let Some(index) = fleet.nodes.iter().position(|node| node.name == host.name) else { return };
    let here = probe::this_machine(options).fleet();
    let differences = differences(fleet, index, &here);
    if !differences.is_empty() {
        let name = text::visible(&host.name).into_owned();
        output::warn(&format!("this machine is called `{name}` too, and is another: {}", differences.join("; ")));
    }
}

/// Returns what a node has otherwise than a fleet of one node, each in words.
fn differences(fleet: &Fleet, node: usize, here: &Fleet) -> Vec<String> {
    let of = |device: &&Device| device.node == NodeId(u32::try_from(node).unwrap_or(u32::MAX));
    let (listed, machine): (Vec<_>, Vec<_>) =
        (fleet.devices.iter().filter(of).collect(), here.devices.iter().collect());
    let mut differences = Vec::new();
    let (said, real) = (fleet.nodes[node].cpus, here.nodes.first().map(|node| node.cpus).unwrap_or_default());
    // Less than there is may be meant, as a limit; so with memory. Without a word there is no limit.
    if said > real && said < Cpus(file::NO_LIMIT) {
        differences.push(format!("{said} CPUs in the file, {real} here"));
    }
    if listed.len() != machine.len() {
        differences.push(format!("{} GPUs in the file, {} here", listed.len(), machine.len()));
        return differences;
    }
    for (said, real) in listed.into_iter().zip(machine) {
        let name = said.id.rsplit('/').next().unwrap_or(&said.id);
        if said.memory > real.memory {
            differences.push(format!("{name} has {} in the file, {} here", said.memory, real.memory));
        } else if said.model != "GPU" && said.model != real.model {
            let (said, real) = (text::visible(&said.model), text::visible(&real.model));
            differences.push(format!("{name} is {said} in the file, {real} here"));
        }
    }
    differences
}
