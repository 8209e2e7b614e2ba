//! How long one admission takes: 64 devices, 1,000 running tasks, live readings of all of them.
//!
//! `cargo bench --bench admission` prints the median over 1,000 decisions, admitted and refused ones apart.

#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::time::{Duration, Instant};

use trainyard::fleet::{Device, Fleet, Node, NodeId};
use trainyard::graph::TaskId;
use trainyard::run::admission::{Ledger, Live, Readings, Seen};
use trainyard::spec::{Gpus, Resources};
use trainyard::units::{Bytes, Cpus, Millis};

const DEVICES: u32 = 64;
const TASKS: u32 = 1_000;
const ROUNDS: u32 = 1_000;

fn shared(gib: u64) -> Resources {
    Resources { gpus: Gpus::Shared, gpu_memory: Bytes(gib << 30), ..Resources::default() }
}

fn main() {
    let device = |node| Device { node: NodeId(node / 8), memory: Bytes(80 << 30), ..Device::default() };
    let node = Node { cpus: Cpus(1_000_000), memory: Bytes(1 << 42), ..Node::default() };
    let fleet = Fleet {
        nodes: vec![node; DEVICES as usize / 8],
        devices: (0..DEVICES).map(device).collect(),
        ..Fleet::default()
    };
    let mut ledger = Ledger::new(&fleet);
    let mut held = vec![Vec::new(); DEVICES as usize];
    for task in 0..TASKS {
        let grant = ledger.try_admit(TaskId(task), &shared(4), None, &Readings::unwatched(DEVICES as usize), Millis(0));
        let grant = grant.expect("64 devices hold 1,280 tasks of 4 GiB");
        held[grant.devices[0].index()].push((TaskId(task), Bytes(2 << 30)));
    }
    let live = held.into_iter().map(|held| {
        let used: Bytes = held.iter().map(|(_, bytes)| *bytes).sum();
        Live::Seen(Seen { free: Bytes(80 << 30) - used, used, held: Some(held), ..Seen::default() })
    });
    let readings = Readings { at: Millis(1), devices: live.collect(), ..Readings::default() };
    for (what, request) in [("admitted", shared(4)), ("refused", shared(70))] {
        let mut times: Vec<Duration> = (0..ROUNDS).map(|_| decide(&mut ledger, &request, &readings)).collect();
        times.sort_unstable();
        let of = |part: usize| times[times.len() * part / 100];
        println!("{what}: median {:?}, 99th percentile {:?}", of(50), of(99));
    }
}

fn decide(ledger: &mut Ledger, request: &Resources, readings: &Readings) -> Duration {
    let start = Instant::now();
    let decided = ledger.try_admit(TaskId(TASKS), request, None, readings, Millis(2));
    let taken = start.elapsed();
    std::hint::black_box(&decided);
    ledger.release(TaskId(TASKS), Millis(0));
    taken
}
