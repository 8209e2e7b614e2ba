//! How long the critical path method takes on large graphs: `cargo bench --bench timing`, with `-- 10` also for ten million
//! tasks. One core. Prints medians of runs in turn: petgraph's order and one pass over it, which is half of the work; the
//! definition; sweeps over a layout that is ready, one task at a time and in vectors; and one changed duration.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};
use trainyard::graph::{TaskGraph, TaskId};
use trainyard::timing::Timing;
use trainyard::timing::kept::Kept;
use trainyard::timing::sample::{Random, durations, even};
use trainyard::timing::sweep::{Step, Sweep};
use trainyard::timing::ticks::Ticks;
use trainyard::units::Millis;

/// Levels of every graph, and edges into each task.
const SHAPE: (usize, usize) = (1_000, 4);
const RUNS: usize = 5;

fn timed(times: &mut Vec<Duration>, work: impl FnOnce() -> u64, expected: u64) {
    let start = Instant::now();
    let made = black_box(work());
    times.push(start.elapsed());
    assert_eq!(made, expected, "every way finds the same longest path");
}

fn millis(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn peer(graph: &TaskGraph, duration: &[Millis]) -> DiGraph<u64, ()> {
    let mut peer = DiGraph::with_capacity(graph.len(), graph.after.edges.len());
    for time in duration {
        peer.add_node(time.0);
    }
    for task in (0..graph.len()).map(|i| TaskId(u32::try_from(i).expect("ids are u32"))) {
        for edge in graph.after.of(task) {
            peer.add_edge(NodeIndex::new(task.index()), NodeIndex::new(edge.task.index()), ());
        }
    }
    peer
}

/// Earliest times only, over petgraph's order.
fn longest(peer: &DiGraph<u64, ()>) -> u64 {
    let mut start = vec![0; peer.node_count()];
    let mut makespan = 0;
    for node in toposort(peer, None).expect("no cycle") {
        let finish = start[node.index()] + peer[node];
        makespan = makespan.max(finish);
        for next in peer.neighbors(node) {
            start[next.index()] = start[next.index()].max(finish);
        }
    }
    makespan
}

fn measure(million: usize) {
    let (levels, sources) = SHAPE;
    let graph = even(levels, million * 1_000_000 / levels, sources, 7);
    let duration = durations(graph.len(), 3);
    let makespan = Timing::new(&graph, duration.clone()).makespan.0;
    let other = (million == 1).then(|| peer(&graph, &duration));
    let mut sweeps = [Step::Scalar, Step::best()].map(|step| Sweep::new(&graph, step));
    let ticks = Ticks::new(&duration, sweeps[0].n_levels()).expect("fits");
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..RUNS {
        if let Some(other) = &other {
            timed(&mut times[0], || longest(other), makespan);
        }
        let spare = duration.clone();
        timed(&mut times[1], || Timing::new(&graph, spare).makespan.0, makespan);
        for (sweep, times) in sweeps.iter_mut().zip(&mut times[2..]) {
            timed(times, || ticks.time(sweep.run(&ticks)).0, makespan);
        }
    }
    println!("{million} million tasks, {:.1} million edges, {levels} levels", graph.before.edges.len() as f64 / 1e6);
    let vectors = millis(&mut times[3]);
    if other.is_some() {
        let peer = millis(&mut times[0]);
        println!(
            "  petgraph, earliest times only     {peer:8.1} ms: {:.1} times the sweep in both directions",
            peer / vectors
        );
    }
    println!("  definition, both directions       {:8.1} ms", millis(&mut times[1]));
    println!("  sweep, one task at a time         {:8.1} ms", millis(&mut times[2]));
    let step = format!("{:?}", Step::best());
    println!("  sweep, {step:26} {vectors:8.1} ms");
    changes(&graph, duration);
}

/// Changes durations of tasks drawn at random.
fn changes(graph: &TaskGraph, duration: Vec<Millis>) {
    let mut random = Random::new(11);
    let mut kept = Kept::new(graph, duration);
    let (mut times, mut looked) = (Vec::new(), 0);
    for _ in 0..101 {
        let task = TaskId(u32::try_from(random.index(graph.len())).expect("ids are u32"));
        let start = Instant::now();
        looked += kept.set(task, Millis(random.below(9_000)));
        times.push(start.elapsed());
    }
    let mean = looked as f64 / times.len() as f64;
    println!("  one changed duration              {:8.4} ms, {mean:.0} tasks looked at", millis(&mut times));
}

fn main() {
    let most = std::env::args().filter_map(|arg| arg.parse::<usize>().ok()).next().unwrap_or(1);
    for million in [1, 10].into_iter().filter(|million| *million <= most) {
        measure(million);
    }
}
