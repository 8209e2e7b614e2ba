//! How many candidate schedules one core judges in a second: longest paths of 1,000 tasks with 4,000 edges, list schedules
//! on eight devices, and decoded projects of 120 tasks.
//!
//! `cargo bench --bench batch` prints medians by this thread's own CPU time, so that other load on the machine does not
//! count, and for the longest paths the ratio to timing each candidate by itself.

use rustix::time::{ClockId, clock_gettime};
use trainyard::batch::lists::Lists;
use trainyard::batch::orders::{Orders, Precedence};
use trainyard::batch::sgs::Project;
use trainyard::batch::tape::Tape;
use trainyard::batch::timing::{Choices, Times, makespans};
use trainyard::graph::TaskGraph;
use trainyard::timing::Timing;
use trainyard::timing::sample::{Random, even};
use trainyard::units::Millis;

const ROUNDS: usize = 15;

/// Seconds of CPU time that this thread has had.
fn spent() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Returns the median of the seconds that some work takes, after a first round that does not count.
fn median<T>(mut work: impl FnMut() -> T) -> f64 {
    let mut times: Vec<f64> = (0..=ROUNDS)
        .map(|_| {
            let before = spent();
            std::hint::black_box(work());
            spent() - before
        })
        .skip(1)
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn longest_paths(name: &str, graph: &TaskGraph, n_kinds: usize) {
    const CANDIDATES: usize = 1 << 10;
    let mut random = Random::new(7);
    let times: Vec<u32> = (0..graph.len() * n_kinds).map(|_| 1 + random.below(1_000) as u32).collect();
    let tape = Tape::new(graph).expect("a tape");
    let of_tape = Times::new(graph, &tape, &times, n_kinds).expect("times");
    let chosen = (0..graph.len() * CANDIDATES).map(|_| random.index(n_kinds) as u8).collect();
    let choices = Choices::new(&of_tape, CANDIDATES, chosen).expect("choices");
    let batch = median(|| makespans(&tape, &of_tape, &choices)) / CANDIDATES as f64;
    let duration: Vec<Millis> = times.chunks(n_kinds).map(|row| Millis(row[0].into())).collect();
    let alone = median(|| Timing::new(graph, duration.clone()));
    let edges = tape.n_edges() as f64;
    println!(
        "longest paths, {name}, {n_kinds} durations each, {} rows: {:.2} M/s, {:.2} G edge-candidates/s, {:.0} times as fast as one by one",
        tape.n_rows(),
        1e-6 / batch,
        edges / batch / 1e9,
        alone / batch,
    );
}

fn main() {
    longest_paths("50 levels of 20", &even(50, 20, 4, 1), 1);
    longest_paths("50 levels of 20", &even(50, 20, 4, 1), 8);
    longest_paths("10 levels of 100", &even(10, 100, 4, 1), 8);
    let graph = even(50, 20, 4, 1);
    let mut random = Random::new(7);
    let time = (0..graph.len() * 8).map(|_| 1 + random.below(1_000) as u32).collect();
    let memory = (0..graph.len()).map(|_| random.below(40) as u32).collect();
    let lists = Lists::new(&graph, time, memory, vec![80; 8]).expect("a problem");
    let orders = Orders::random(&graph, &lists.precedence, 64, 1);
    println!("list schedules, 1,000 tasks on 8 devices: {:.4} M/s", 64e-6 / median(|| lists.makespans(&orders)));
    let graph = even(12, 10, 3, 1);
    let duration = (0..graph.len()).map(|_| 1 + random.below(10) as u32).collect();
    let need: Vec<_> = (0..graph.len()).map(|_| [0; 4].map(|_: u32| random.below(10) as u32)).collect();
    let project = Project::new(&graph, duration, &need, [20; 4]).expect("a project");
    let precedence = Precedence::new(&graph).expect("a small graph");
    let orders = Orders::random(&graph, &precedence, 256, 1);
    println!("projects of 120 tasks: {:.3} M/s", 256e-6 / median(|| project.makespans(&orders)));
}
