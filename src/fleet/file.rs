//! The fleet file: hardware to plan for, whether one owns it or not.
//!
//! Every problem of the file is reported, each at its place. Does not know what this machine really has.

use std::collections::BTreeMap;

use super::keys::{AMOUNT, COUNT, CPUS, GpuKey, LINKS, LinkKey, NodeKey, SPEED, TopKey, WATTS};
use super::{Device, Fleet, Headroom, Link, Node, NodeId};
use crate::spec::decode::Decoder;
use crate::spec::tree::{self, Table};
use crate::spec::{Located, Problem, Source, Span, problem};
use crate::units::{Bandwidth, Bytes, Cpus, Speed};

/// What a node has of a resource that its entry does not mention: more than all tasks together may ask for.
pub const NO_LIMIT: u64 = 1 << 60;

/// Reads a fleet file.
///
/// # Errors
/// Everything that is wrong with it, sorted by place.
pub fn parse(source: &Source) -> Result<Fleet, Vec<Problem>> {
    let (mut decoder, root) = Decoder::open(source, &[]);
    let fleet = fleet(&mut decoder, &root, source);
    let mut problems = decoder.finish();
    problem::sort(&mut problems);
    if problems.is_empty() { Ok(fleet) } else { Err(problems) }
}

/// Where each node was named.
type Names = BTreeMap<String, (NodeId, Span)>;

fn fleet(decoder: &mut Decoder<'_>, root: &Table, source: &Source) -> Fleet {
    let mut fleet = Fleet { name: stem(&source.name), ..Fleet::default() };
    let (mut names, mut links, mut has_nodes) = (Names::new(), None, false);
    for (key, entry) in decoder.fields::<TopKey>(root) {
        match key {
            TopKey::Name => {
                if let Some(name) = decoder.name(&entry.node, "a name") {
                    fleet.name = name.text;
                }
            }
            TopKey::Node => {
                has_nodes = true;
                for table in tables(decoder, &entry.node, "[[node]] for every host") {
                    node(decoder, table, &mut fleet, &mut names);
                }
            }
            TopKey::Link => links = Some(&entry.node),
            TopKey::Budgets => fleet.budgets = amounts(decoder, &entry.node, "a table of budgets"),
        }
    }
    if fleet.nodes.is_empty() {
        let problem = Problem::new(Span::Whole, "there is no node to run on");
        let is_pipeline = root.entries.iter().any(|entry| entry.key.text == "stage");
        if !has_nodes {
            decoder.report_absent(problem.help(if is_pipeline {
                "this looks like a pipeline: give it without `--fleet`"
            } else {
                "add one: [[node]] with the lines name = \"box\" and cpus = 8"
            }));
        }
    }
    // Only now are all nodes known, wherever the links stand in the file.
    if let Some(node) = links {
        for table in tables(decoder, node, "[[link]] for every connection") {
            link(decoder, table, &mut fleet, &names);
        }
    }
    fleet
}

/// Reads an array of tables.
fn tables<'n>(decoder: &mut Decoder<'_>, node: &'n tree::Node, expected: &str) -> Vec<(&'n Table, &'n Span)> {
    let Some(nodes) = decoder.array(node, expected) else { return Vec::new() };
    if nodes.is_empty() {
        decoder.report(Problem::new(node.span.clone(), format!("this array is empty: expected {expected}")));
    }
    nodes.iter().filter_map(|node| Some((decoder.table(node, "a table")?, &node.span))).collect()
}

fn node(decoder: &mut Decoder<'_>, (table, span): (&Table, &Span), fleet: &mut Fleet, names: &mut Names) {
    let id = NodeId(u32::try_from(fleet.nodes.len()).unwrap_or(u32::MAX));
    let mut node = Node { cpus: Cpus(NO_LIMIT), memory: Bytes(NO_LIMIT), ..Node::default() };
    let (mut name, mut gpus) = (None, Vec::new());
    for (key, entry) in decoder.fields::<NodeKey>(table) {
        let value = &entry.node;
        match key {
            NodeKey::Name => name = Some(decoder.name(value, "a name")),
            NodeKey::Cpus => node.cpus = decoder.fixed(value, 3, CPUS).map_or(node.cpus, Cpus),
            NodeKey::Memory => node.memory = decoder.quantity(value).unwrap_or(node.memory),
            NodeKey::Speed => node.speed = speed(decoder, value),
            NodeKey::Resources => node.resources = amounts(decoder, value, "a table of countable resources"),
            NodeKey::Gpu => gpus = tables(decoder, value, "[[node.gpu]] for every kind of GPU"),
        }
    }
    match name {
        Some(Some(name)) => {
            if let Some((_, first)) = names.get(&name.text) {
                let problem = Problem::new(name.span.clone(), format!("two nodes are called `{}`", name.text));
                decoder.report(problem.related(first.clone(), "first used here"));
            } else {
                names.insert(name.text.clone(), (id, name.span));
            }
            node.name = name.text;
        }
        Some(None) => {}
        None => decoder.report_absent(Problem::new(span.clone(), "this node has no name").help("add name = \"box\"")),
    }
    let mut devices = Vec::new();
    for (group, gpu) in (0..).zip(gpus) {
        devices.extend(gpu_entry(decoder, gpu, group));
    }
    for (index, device) in devices.into_iter().enumerate() {
        fleet.devices.push(Device { id: format!("{}/gpu{index}", node.name), node: id, ..device });
    }
    fleet.nodes.push(node);
}

/// Reads one kind of GPU: as many devices as it counts, joined by NVLink as group `group` if it says so.
fn gpu_entry(decoder: &mut Decoder<'_>, (table, span): (&Table, &Span), group: u32) -> Vec<Device> {
    let mut device = Device { model: "GPU".to_owned(), ..Device::default() };
    let (mut count, mut memory, mut headroom) = (1, None, None);
    let (mut idle, mut active) = (None, None);
    for (key, entry) in decoder.fields::<GpuKey>(table) {
        let value = &entry.node;
        match key {
            GpuKey::Count => count = decoder.whole(value, COUNT).unwrap_or(1),
            GpuKey::Model => {
                if let Some(model) = decoder.name(value, "a model like \"H100\"") {
                    device.model = model.text;
                }
            }
            GpuKey::Memory => memory = Some(decoder.quantity::<Bytes>(value)),
            GpuKey::Headroom => headroom = decoder.quantity::<Headroom>(value),
            GpuKey::Speed => device.speed = speed(decoder, value),
            GpuKey::Link => device.spot.nvlink = is_nvlink(decoder, value).then_some(group),
            GpuKey::IdleWatts => idle = watts(decoder, value),
            GpuKey::ActiveWatts => active = watts(decoder, value),
        }
    }
    match memory {
        Some(Some(Bytes::ZERO)) => {
            decoder.report(
                Problem::new(span.clone(), "these GPUs have no memory").help("write what each has, like \"80GiB\""),
            );
        }
        Some(memory) => device.memory = memory.unwrap_or_default(),
        None => {
            let problem = Problem::new(span.clone(), "the memory of these GPUs is missing");
            decoder.report_absent(problem.help("write what each has, like memory = \"80GiB\""));
        }
    }
    device.headroom = headroom.map_or(Bytes::ZERO, |headroom| headroom.of(device.memory));
    device.watts = idle.zip(active);
    if idle.is_some() != active.is_some() || device.watts.is_some_and(|(idle, active)| idle > active) {
        let problem = Problem::new(span.clone(), "idle_watts and active_watts belong together, the smaller one first");
        decoder.report(problem.help("write both, like idle_watts = 70 and active_watts = 700"));
    }
    vec![device; usize::try_from(count).unwrap_or(1)]
}

fn watts(decoder: &mut Decoder<'_>, node: &tree::Node) -> Option<u64> {
    decoder.whole(node, WATTS).and_then(|watts| u64::try_from(watts).ok())
}

fn is_nvlink(decoder: &mut Decoder<'_>, node: &tree::Node) -> bool {
    let Some(word) = decoder.text(node, "\"nvlink\" or \"pcie\"") else { return false };
    if !LINKS.contains(&word.text.as_str()) {
        decoder.unknown("link", &word, LINKS.into_iter());
    }
    word.text == LINKS[0]
}

fn link(decoder: &mut Decoder<'_>, (table, span): (&Table, &Span), fleet: &mut Fleet, names: &Names) {
    let (mut between, mut bandwidth) = (None, None);
    for (key, entry) in decoder.fields::<LinkKey>(table) {
        match key {
            LinkKey::Between => between = Some(ends(decoder, &entry.node, names)),
            LinkKey::Bandwidth => bandwidth = Some(rate(decoder, &entry.node)),
        }
    }
    if between.is_none() {
        let problem = Problem::new(span.clone(), "this link joins nothing");
        decoder.report_absent(problem.help("add between = [\"box\", \"box2\"]"));
    }
    if bandwidth.is_none() {
        let problem = Problem::new(span.clone(), "this link has no bandwidth");
        decoder.report_absent(problem.help("add bandwidth = \"12GB/s\""));
    }
    let (Some(Some((a, b))), Some(Some(bandwidth))) = (between, bandwidth) else { return };
    if fleet.links.iter().any(|link| link.between == (a, b) || link.between == (b, a)) {
        decoder.report(Problem::new(span.clone(), "these two nodes are linked already"));
        return;
    }
    fleet.links.push(Link { between: (a, b), bandwidth });
}

/// Reads the two nodes that a link joins.
fn ends(decoder: &mut Decoder<'_>, node: &tree::Node, names: &Names) -> Option<(NodeId, NodeId)> {
    let ends = decoder.array(node, "the names of two nodes")?;
    let mut known = Vec::new();
    for end in ends {
        let name = decoder.text(end, "the name of a node")?;
        match names.get(&name.text) {
            Some((id, _)) => known.push((*id, name)),
            None => decoder.unknown("node", &name, names.keys().map(String::as_str)),
        }
    }
    if ends.len() != 2 {
        decoder.report(Problem::new(node.span.clone(), format!("a link joins two nodes, not {}", ends.len())));
        return None;
    }
    let [(a, _), (b, second)]: [(NodeId, Located); 2] = known.try_into().ok()?;
    if a == b {
        decoder.report(Problem::new(second.span, "a node needs no link to itself"));
        return None;
    }
    Some((a, b))
}

fn rate(decoder: &mut Decoder<'_>, node: &tree::Node) -> Option<Bandwidth> {
    let rate = decoder.quantity::<Bandwidth>(node)?;
    if rate == Bandwidth(0) {
        let problem = Problem::new(node.span.clone(), "nothing would ever arrive over this link");
        decoder.report(
            problem.help("say how fast data gets there; nodes without a link share a file system: data takes no time"),
        );
        return None;
    }
    Some(rate)
}

fn speed(decoder: &mut Decoder<'_>, node: &tree::Node) -> Speed {
    decoder.fixed(node, 6, SPEED).map_or(Speed::ONE, Speed)
}

/// Reads named amounts.
fn amounts(decoder: &mut Decoder<'_>, node: &tree::Node, expected: &str) -> BTreeMap<String, u64> {
    let mut amounts = BTreeMap::new();
    let Some(table) = decoder.table(node, expected) else { return amounts };
    for entry in &table.entries {
        if decoder.check_name(&entry.key)
            && let Some(amount) = decoder.whole(&entry.node, AMOUNT)
        {
            amounts.insert(entry.key.text.clone(), amount.unsigned_abs());
        }
    }
    amounts
}

/// Returns a file's name without folder and ending.
fn stem(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".toml").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Fleet, Vec<String>> {
        let source = Source { name: "fleets/two.toml".to_owned(), text: text.to_owned() };
        let words = |problem: &Problem| {
            let help = problem.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
            let Span::File(range) = &problem.span else { return format!("{}{help}", problem.message) };
            let (line, column) = source.position(range.start);
            format!("{line}:{column} {}{help}", problem.message)
        };
        parse(&source).map_err(|problems| problems.iter().map(words).collect())
    }

    const TWO: &str = r#"
        [[node]]
        name = "box"
        cpus = 112
        memory = "2TiB"
        resources = { licenses = 4 }
        [[node.gpu]]
        count = 2
        model = "H100"
        memory = "80GiB"
        link = "nvlink"
        [[node.gpu]]
        model = "L4"
        memory = "24GiB"
        headroom = "512MiB+2.5%"
        speed = 0.1
        [[node]]
        name = "box2"
        cpus = 0.5
        [[link]]
        between = ["box2", "box"]
        bandwidth = "12GB/s"
        [budgets]
        money = 100
    "#;

    #[test]
    fn a_fleet_is_read_whole() {
        let fleet = read(TWO).unwrap();
        assert_eq!(fleet.name, "two");
        let ids: Vec<_> = fleet.devices.iter().map(|device| device.id.as_str()).collect();
        assert_eq!(ids, ["box/gpu0", "box/gpu1", "box/gpu2"]);
        let groups: Vec<_> = fleet.devices.iter().map(|device| device.spot.nvlink).collect();
        assert_eq!(groups, [Some(0), Some(0), None]);
        assert_eq!((fleet.devices[0].memory, fleet.devices[2].speed), (Bytes(80 << 30), Speed(100_000)));
        let headrooms: Vec<_> = fleet.devices.iter().map(|device| device.headroom).collect();
        assert_eq!(headrooms, [Bytes::ZERO, Bytes::ZERO, Bytes((512 << 20) + (24 << 30) / 40)]);
        assert_eq!((fleet.nodes[0].cpus, fleet.nodes[1].cpus), (Cpus(112_000), Cpus(500)));
        assert_eq!(fleet.nodes[0].resources["licenses"], 4);
        assert_eq!(fleet.links, [Link { between: (NodeId(1), NodeId(0)), bandwidth: Bandwidth(12_000_000_000) }]);
        assert_eq!(fleet.budgets["money"], 100);
    }

    #[test]
    fn all_problems_come_together_and_in_order() {
        let text = "
[[node]]
name = 'box'
cpu = 4
speed = 0
[[node.gpu]]
count = 0
memory = '80'
link = 'nvlnk'
[[node]]
name = 'box'
[[node.gpu]]
model = 'H100'
[[link]]
between = ['box', 'bax']
bandwidth = '12GB'
";
        let problems = read(text).unwrap_err();
        let starts = [
            "4:1 unknown key `cpu` (did you mean `cpus`?)",
            "5:9 0 is too small",
            "7:9 0 is too small",
            "8:10 this is not a memory size: the unit is missing",
            "9:8 unknown link `nvlnk` (did you mean `nvlink`?)",
            "11:8 two nodes are called `box`",
            "12:1 the memory of these GPUs is missing",
            "15:19 unknown node `bax` (did you mean `box`?)",
            "16:13 this is not a transfer rate",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem} does not start with {start}");
        }
    }

    #[test]
    fn a_fleet_without_a_node_is_refused() {
        let none = |help: &str| format!("there is no node to run on ({help})");
        let help = "add one: [[node]] with the lines name = \"box\" and cpus = 8";
        assert_eq!(read("name = 'empty'").unwrap_err(), [none(help)]);
        let pipeline = read("[stage.a]\nrun = 'true'").unwrap_err();
        assert_eq!(pipeline[0], none("this looks like a pipeline: give it without `--fleet`"));
        assert_eq!(read("node = []").unwrap_err().len(), 1);
        assert_eq!(read("[[node]]").unwrap_err(), ["1:1 this node has no name (add name = \"box\")"]);
    }

    #[test]
    fn a_link_joins_two_different_nodes_once() {
        let nodes = "node = [{ name = 'a' }, { name = 'b' }]\n";
        let link = |between: &str| format!("[[link]]\nbetween = {between}\nbandwidth = '1GB/s'\n");
        for wrong in ["['a', 'a']", "['a']", "['a', 'b', 'a']", "'a'"] {
            assert_eq!(read(&format!("{nodes}{}", link(wrong))).unwrap_err().len(), 1, "{wrong}");
        }
        let twice = format!("{nodes}{}{}", link("['a', 'b']"), link("['b', 'a']"));
        assert_eq!(read(&twice).unwrap_err(), ["5:1 these two nodes are linked already"]);
        assert!(read(&format!("{nodes}{}", link("['a', 'b']"))).is_ok());
    }

    #[test]
    fn what_is_broken_is_reported_once() {
        assert_eq!(read("[[node]]\nname = 'a'\nmemory = 2TiB\n").unwrap_err().len(), 1);
        assert_eq!(read("node = 3").unwrap_err().len(), 1);
        assert_eq!(read("[budgets]\nmoney = -1\n[[node]]\nname = 'a'").unwrap_err().len(), 1);
    }
}
