//! Replays against hand-made traces and a second telling of what is allowed and what FGD prefers.

use proptest::prelude::*;

use super::*;

fn node(cpus: u64, gpus: usize, model: &str) -> Node {
    Node { name: String::new(), cpus: Cpus(cpus * 1_000), memory: Bytes(64), gpus, model: model.to_owned() }
}

/// Asks for so many CPUs and thousandths of GPUs.
fn ask(cpus: u64, milli: u32) -> Request {
    let gpus = milli.div_ceil(1_000) as usize;
    let share = Share(milli.min(1_000) * 1_000);
    Request { cpus: Cpus(cpus * 1_000), memory: Bytes(1), gpus, share, ..Request::default() }
}

fn in_order(arrivals: &[usize]) -> Order {
    Order { name: "test".into(), seed: 1, arrivals: arrivals.to_vec(), ranks: Vec::new() }
}

/// Where everything goes: the node and its first device.
fn sites(nodes: &[Node], requests: &[Request], arrivals: &[usize], rule: Rule) -> Vec<Option<(usize, Option<usize>)>> {
    let trace = Trace { nodes: nodes.to_vec(), requests: requests.to_vec() };
    let outcome = replay(&trace, &in_order(arrivals), rule);
    let first = |site: Site| (site.node, site.devices.first().copied());
    outcome.sites.into_iter().map(|site| site.map(first)).collect()
}

#[test]
fn what_is_given_asked_for_and_turned_away_is_counted() {
    let trace = Trace { nodes: vec![node(8, 2, "T4")], requests: vec![ask(1, 500), ask(1, 1_000), ask(99, 0)] };
    let outcome = replay(&trace, &in_order(&[0, 1, 0, 0, 2]), Rule::FirstFit);
    let site = |device| Some(Site { node: 0, devices: vec![device] });
    assert_eq!(outcome.sites, [site(0), site(1), site(0), None, None]);
    assert_eq!((outcome.capacity, outcome.asked, outcome.given), (2_000_000, 2_500_000, 2_000_000));
    assert_eq!((outcome.rejected(), outcome.fragmented), (2, 0));
}

#[test]
fn best_fit_keeps_a_device_whole_and_worst_fit_does_not() {
    let (nodes, requests) = ([node(8, 1, "T4"), node(8, 1, "T4")], [ask(1, 500), ask(1, 1_000)]);
    let of = |rule| sites(&nodes, &requests, &[0, 0, 1], rule);
    assert_eq!(of(Rule::BestFit), [Some((0, Some(0))), Some((0, Some(0))), Some((1, Some(0)))]);
    assert_eq!(of(Rule::WorstFit), [Some((0, Some(0))), Some((1, Some(0))), None]);
}

#[test]
fn dot_product_goes_where_most_is_free_of_what_is_asked_for() {
    let nodes = [node(64, 1, "T4"), node(8, 8, "T4")];
    let requests = [ask(8, 0), ask(1, 1_000)];
    assert_eq!(sites(&nodes, &requests, &[0, 1], Rule::DotProduct), [Some((0, None)), Some((1, Some(0)))]);
}

#[test]
fn a_request_goes_only_to_models_that_it_names() {
    let nodes = [node(8, 1, "T4"), node(8, 1, "A100")];
    let picky = Request { models: vec!["H100".into(), "A100".into()], ..ask(1, 1_000) };
    for (_, rule) in Rule::ALL {
        assert_eq!(sites(&nodes, std::slice::from_ref(&picky), &[0, 0], rule), [Some((1, Some(0))), None], "{rule}");
    }
}

#[test]
fn fragmentation_keeps_whole_devices_for_those_that_need_them() {
    // A third would leave two that need a whole device one of three; on the broken device it costs them nothing.
    let nodes = [node(64, 2, "T4"), node(64, 1, "T4")];
    let requests = [ask(1, 300), ask(1, 1_000), ask(1, 600)];
    let found = sites(&nodes, &requests, &[2, 0, 1, 1], Rule::Fragmentation);
    assert!(found.iter().all(Option::is_some), "{found:?}");
}

#[test]
fn fill_keeps_cpus_where_devices_need_them() {
    // The first node has CPUs to spare; on the second every device needs its part of them.
    let nodes = [node(16, 4, "T4"), node(64, 1, "T4")];
    let requests = [ask(4, 1_000), ask(8, 0)];
    let arrivals = [0, 1, 1, 1, 0, 0, 0, 0];
    let found = sites(&nodes, &requests, &arrivals, Rule::Fill);
    assert_eq!(found.iter().filter(|site| site.is_none()).count(), 0, "{found:?}");
    assert!(found[1..4].iter().all(|site| *site == Some((1, None))), "{found:?}");
}

#[test]
fn fill_leaves_a_whole_node_to_those_that_ask_for_all_of_it() {
    let nodes = [node(64, 2, "T4"), node(64, 2, "T4")];
    let requests = [ask(1, 2_000), ask(1, 500)];
    let found = sites(&nodes, &requests, &[0, 1, 1, 1, 1, 0], Rule::Fill);
    // One node for the first, all halves on the other.
    assert_eq!(found[1..5], [Some((1, Some(0))), Some((1, Some(0))), Some((1, Some(1))), Some((1, Some(1)))]);
    let trace = Trace { nodes: nodes.to_vec(), requests: requests.to_vec() };
    assert_eq!(replay(&trace, &in_order(&[0, 1, 1, 1, 1]), Rule::Fill).given, 4_000_000);
}

#[test]
fn an_order_is_drawn_until_enough_is_asked_for() {
    let trace = Trace { nodes: vec![node(8, 8, "T4"); 4], requests: vec![ask(1, 500), ask(1, 1_000), ask(1, 0)] };
    let order = Order::drawn(&trace, 130, 5);
    let outcome = replay(&trace, &order, Rule::FirstFit);
    assert!((41_600_000..42_600_000).contains(&outcome.asked), "{outcome:?}");
    let mut first = order.arrivals[..3].to_vec();
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2], "everything arrives once before anything is drawn");
    assert_eq!(order, Order::drawn(&trace, 130, 5));
    assert_ne!(order.arrivals, Order::drawn(&trace, 130, 6).arrivals);
}

/// A cluster with CPUs to spare on its small nodes, and pods that share GPUs, want several, or only CPUs.
fn saturated() -> Trace {
    let kinds =
        [(3, 810, 13), (11, 1_000, 24), (3, 1_000, 8), (12, 470, 9), (18, 1_000, 6), (4, 320, 5), (88, 8_000, 1)];
    let host = [(12, 0, 5), (32, 0, 3)];
    let requests = kinds.into_iter().chain(host).flat_map(|(cpus, milli, times)| vec![ask(cpus, milli); times]);
    let nodes = [(96, 8, 20), (104, 2, 14), (16, 2, 4), (32, 4, 2)];
    let nodes = nodes.into_iter().flat_map(|(cpus, gpus, times)| {
        let one = Node { memory: Bytes(1_000_000), ..node(cpus, gpus, "T4") };
        vec![one; times]
    });
    Trace { nodes: nodes.collect(), requests: requests.collect() }
}

#[test]
fn at_saturation_fill_leaves_less_than_fragmentation_and_that_less_than_chance() {
    let trace = saturated();
    let left = |rule| -> u64 {
        let of = |seed| replay(&trace, &Order::drawn(&trace, 130, seed), rule);
        (1..=5).map(of).map(|outcome| outcome.capacity - outcome.given).sum()
    };
    let (fill, fragmentation, random) = (left(Rule::Fill), left(Rule::Fragmentation), left(Rule::Random));
    assert!(fill < fragmentation && fragmentation < random, "{fill} {fragmentation} {random}");
}

/// A cluster told once more, plainly: what is left, by node.
struct Naive {
    trace: Trace,
    cpus: Vec<u64>,
    memory: Vec<u64>,
    devices: Vec<Vec<u32>>,
}

impl Naive {
    fn new(trace: &Trace) -> Self {
        let nodes = || trace.nodes.iter();
        Self {
            trace: trace.clone(),
            cpus: nodes().map(|node| node.cpus.0).collect(),
            memory: nodes().map(|node| node.memory.0).collect(),
            devices: nodes().map(|node| vec![1_000_000; node.gpus]).collect(),
        }
    }

    fn allows(&self, pod: usize, node: usize) -> bool {
        let pod = &self.trace.requests[pod];
        let model = &self.trace.nodes[node].model;
        let fits = self.devices[node].iter().filter(|left| **left >= pod.share.0).count() >= pod.gpus;
        let wanted = pod.models.is_empty() || pod.models.contains(model);
        self.cpus[node] >= pod.cpus.0 && self.memory[node] >= pod.memory.0 && (pod.gpus == 0 || fits && wanted)
    }

    fn take(&mut self, pod: usize, site: &Site) {
        let pod = &self.trace.requests[pod];
        self.cpus[site.node] -= pod.cpus.0;
        self.memory[site.node] -= pod.memory.0;
        site.devices.iter().for_each(|device| self.devices[site.node][*device] -= pod.share.0);
    }

    /// What the pods of the trace cannot use of a node's devices, summed over all pods: FGD's definition.
    fn fragments(&self, node: usize) -> u64 {
        let all = |pod: &Request| {
            let devices = || self.devices[node].iter().map(|left| u64::from(*left));
            let share = u64::from(pod.share.0);
            let model = pod.models.is_empty() || pod.models.contains(&self.trace.nodes[node].model);
            let room = devices().filter(|left| *left >= share).count() >= pod.gpus;
            let usable = pod.gpus > 0 && model && room && self.cpus[node] >= pod.cpus.0;
            if usable { devices().filter(|left| *left < share).sum() } else { devices().sum::<u64>() }
        };
        self.trace.requests.iter().map(all).sum()
    }
}

fn any_trace() -> impl Strategy<Value = Trace> {
    let model = || prop_oneof![Just("T4"), Just("A100")];
    let nodes = prop::collection::vec((0..12_u64, 0..3_u64, 0..5_usize, model()), 1..5).prop_map(|nodes| {
        let node = |(cpus, memory, gpus, model)| Node { memory: Bytes(memory), ..node(cpus, gpus, model) };
        nodes.into_iter().map(node).collect()
    });
    let milli = prop_oneof![Just(0), Just(250), Just(400), Just(500), Just(700), Just(1_000), Just(2_000), Just(3_000)];
    let pods = prop::collection::vec((0..5_u64, 0..2_u64, milli, prop::option::of(model())), 1..6);
    let requests = pods.prop_map(|pods| {
        let request = |(cpus, memory, milli, model): (_, _, _, Option<&str>)| Request {
            memory: Bytes(memory),
            models: model.map(str::to_owned).into_iter().collect(),
            ..ask(cpus, milli)
        };
        pods.into_iter().map(request).collect()
    });
    (nodes, requests).prop_map(|(nodes, requests)| Trace { nodes, requests })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_given_twice_and_nothing_turned_away_that_fits(
        trace in any_trace(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        rule in prop::sample::select(Rule::ALL.to_vec()),
        ranks in Just((0..4_u64).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let (_, rule) = rule;
        let arrivals: Vec<usize> = picks.iter().map(|pick| pick.index(trace.requests.len())).collect();
        let ranks = ranks[..trace.nodes.len()].to_vec();
        let order = Order { arrivals, ranks, seed: 3, name: String::new() };
        let outcome = replay(&trace, &order, rule);
        let mut naive = Naive::new(&trace);
        let mut given = 0;
        for (pod, site) in order.arrivals.iter().zip(&outcome.sites) {
            let hosts: Vec<usize> = (0..trace.nodes.len()).filter(|node| naive.allows(*pod, *node)).collect();
            let Some(site) = site else {
                prop_assert!(hosts.is_empty(), "{rule}: pod {pod} fits on {hosts:?}");
                continue;
            };
            let request = &trace.requests[*pod];
            prop_assert!(hosts.contains(&site.node));
            prop_assert_eq!(site.devices.len(), request.gpus);
            prop_assert!(site.devices.is_sorted_by(|a, b| a < b));
            let left = |device: &usize| naive.devices[site.node][*device];
            prop_assert!(site.devices.iter().all(|device| left(device) >= request.share.0));
            if rule == Rule::FirstFit {
                let first = hosts.iter().min_by_key(|node| order.ranks[**node]);
                prop_assert_eq!(first, Some(&site.node));
            }
            naive.take(*pod, site);
            given += request.gpus as u64 * u64::from(request.share.0);
        }
        prop_assert_eq!(outcome.given, given);
        prop_assert_eq!(&outcome, &replay(&trace, &order, rule), "the same again");
    }

    /// What FGD takes makes what is left usable for more than any other place would, but for the rounding.
    #[test]
    fn fragmentation_takes_the_place_that_its_definition_prefers(
        trace in any_trace(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..25),
    ) {
        let arrivals: Vec<usize> = picks.iter().map(|pick| pick.index(trace.requests.len())).collect();
        let outcome = replay(&trace, &in_order(&arrivals), Rule::Fragmentation);
        let pods = trace.requests.len() as f64;
        let mut naive = Naive::new(&trace);
        for (pod, site) in arrivals.iter().zip(&outcome.sites) {
            let Some(site) = site else { continue };
            let request = &trace.requests[*pod];
            let gain = |site: &Site| {
                let mut after = Naive { trace: trace.clone(), cpus: naive.cpus.clone(), memory: naive.memory.clone(),
                    devices: naive.devices.clone() };
                after.take(*pod, site);
                let usable = (naive.fragments(site.node) as f64 - after.fragments(site.node) as f64) / pods / 1e6;
                (100.0 / (1.0 + (-usable).exp())).floor()
            };
            let of_node = |node: usize| -> Vec<Site> {
                let fit = |device: &usize| naive.devices[node][*device] >= request.share.0;
                let devices: Vec<usize> = (0..naive.devices[node].len()).filter(fit).collect();
                match request.gpus {
                    0 => vec![Site { node, devices: Vec::new() }],
                    1 => devices.into_iter().map(|device| Site { node, devices: vec![device] }).collect(),
                    gpus => vec![Site { node, devices: devices[..gpus].to_vec() }],
                }
            };
            let hosts = (0..trace.nodes.len()).filter(|node| naive.allows(*pod, *node));
            let ways: Vec<Site> = hosts.flat_map(of_node).collect();
            let best = ways.iter().map(gain).fold(f64::MIN, f64::max);
            // The last digit of a sum of parts may fall to either side of a step.
            prop_assert!(gain(site) >= best - 1.0, "{} of {best}", gain(site));
            naive.take(*pod, site);
        }
    }
}
