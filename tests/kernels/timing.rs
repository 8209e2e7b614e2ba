//! `kernels/timing.cu` against `Timing::new`: every path through the dispatcher on every shape.

use kernels_cpu::Launch;
use trainyard::graph::TaskGraph;
use trainyard::timing::Timing;
use trainyard::timing::chunks::Chunks;
use trainyard::timing::layout::{Both, Layout};
use trainyard::timing::ticks::Ticks;
use trainyard::units::Millis;

use super::{ORDERS, launch, params};
use trainyard::graph::Rows;
use trainyard::timing::sample::{any, durations, edge_shapes, graph_of, layered};

/// Which kernels find the longest paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Levels,
    Dataflow,
    Transfer,
}

const NOT_READY: u32 = u32::MAX;

/// The finish of every task by place, and the latest of all. `None` where a graph is too wide for this path.
fn longest(path: Path, layout: &Layout, sources: &Rows, duration: &[u32], order: u32) -> Option<(Vec<u32>, u32)> {
    let duration = layout.by_place(duration);
    let mut finish = vec![NOT_READY; duration.len()];
    let mut latest = 0_u32;
    let how = Launch { grid: 3, block: 64, shared_bytes: 0, cooperative: true, order };
    let (d, f, l) = (duration.as_ptr(), finish.as_mut_ptr(), &raw mut latest);
    let (task, slot, source) = (layout.slice_task.as_ptr(), layout.slice_slot.as_ptr(), layout.source.as_ptr());
    match path {
        Path::Levels => {
            let (levels, level_slice) = (layout.n_levels() as u32, layout.level_slice.as_ptr());
            let mut arrived = 0_u32;
            let a = &raw mut arrived;
            // SAFETY: the arguments of the kernel, arrays as large as it says.
            unsafe {
                launch(c"longest_levels", how, &mut params![levels, level_slice, task, slot, source, d, f, l, a])
            };
        }
        Path::Dataflow => {
            let slices = layout.n_slices() as u32;
            // SAFETY: as above.
            unsafe { launch(c"longest_dataflow", how, &mut params![slices, task, slot, source, d, f, l]) };
        }
        Path::Transfer => {
            let chunks = Chunks::new(layout, sources, 8)?;
            let n = chunks.n_chunks() as u32;
            let mut path = vec![NOT_READY; duration.len() * 32];
            let mut matrix = vec![NOT_READY; chunks.n_chunks() * 1_024];
            let mut start = vec![NOT_READY; (chunks.n_chunks() + 1) * 32];
            let (p, m, s) = (path.as_mut_ptr(), matrix.as_mut_ptr(), start.as_mut_ptr());
            let (task, offset, of) = (chunks.chunk_task.as_ptr(), chunks.offset.as_ptr(), chunks.chunk_of.as_ptr());
            let (reference, carried) = (chunks.reference.as_ptr(), chunks.carried.as_ptr());
            let tasks = duration.len() as u32;
            let apart = Launch { cooperative: false, grid: n.div_ceil(2), ..how };
            // SAFETY: as above.
            unsafe {
                launch(c"transfer_chunks", apart, &mut params![n, task, offset, reference, carried, d, p, m]);
                launch(c"transfer_scan", Launch { grid: 1, block: 32, ..apart }, &mut params![n, m, s]);
                launch(c"transfer_finish", Launch { grid: 3, ..apart }, &mut params![tasks, of, p, s, f, l]);
            }
        }
    }
    Some((finish, latest))
}

/// The times as the kernels find them, and the slack.
fn on_kernels(path: Path, graph: &TaskGraph, duration: &[Millis], order: u32) -> Option<(Timing, Vec<Millis>)> {
    let Both { forward, backward } = Both::new(graph);
    let ticks = Ticks::new(duration, forward.n_levels()).expect("small durations");
    let (finish, makespan) = longest(path, &forward, &graph.before, &ticks.count, order)?;
    let (tail, same) = longest(path, &backward, &graph.after, &ticks.count, order)?;
    assert_eq!(makespan, same, "the longest path is as long in both directions");
    let n = graph.len() as u32;
    let (mut early, mut late, mut slack) =
        (vec![0_u32; graph.len()], vec![0_u32; graph.len()], vec![0_u32; graph.len()]);
    let (to, back) = (forward.place_of.as_ptr(), backward.place_of.as_ptr());
    let (f, t, d, m) = (finish.as_ptr(), tail.as_ptr(), ticks.count.as_ptr(), &raw const makespan);
    let (e, l, s) = (early.as_mut_ptr(), late.as_mut_ptr(), slack.as_mut_ptr());
    let how = Launch { grid: 2, block: 96, shared_bytes: 0, cooperative: false, order };
    // SAFETY: the arguments of the kernel, arrays as large as it says.
    unsafe { launch(c"slack", how, &mut params![n, to, back, f, t, d, m, e, l, s]) };
    let times = |counts: &[u32]| counts.iter().map(|count| ticks.time(*count)).collect::<Vec<_>>();
    let timing = Timing {
        duration: duration.to_vec(),
        earliest_start: times(&early),
        latest_start: times(&late),
        makespan: ticks.time(makespan),
    };
    Some((timing, times(&slack)))
}

/// Asserts that a path equals the CPU in every order of threads; returns whether it could be taken.
fn assert_equal(path: Path, name: &str, graph: &TaskGraph, duration: &[Millis]) -> bool {
    let cpu = Timing::new(graph, duration.to_vec());
    let slack: Vec<Millis> = graph.ids().map(|task| cpu.slack(task)).collect();
    for order in ORDERS {
        let Some((timing, its_slack)) = on_kernels(path, graph, duration, order) else { return false };
        assert_eq!(timing, cpu, "{path:?}: {name}, order {order}");
        assert_eq!(its_slack, slack, "{path:?}: {name}, order {order}");
    }
    true
}

#[test]
fn both_wide_paths_equal_the_cpu_on_every_edge_shape() {
    for (name, graph) in edge_shapes() {
        let duration = durations(graph.len(), 5);
        assert!(assert_equal(Path::Levels, &name, &graph, &duration));
        assert!(assert_equal(Path::Dataflow, &name, &graph, &duration));
    }
}

#[test]
fn all_paths_equal_the_cpu_on_random_graphs() {
    let mut narrow = 0;
    for seed in 0..40 {
        let n = 1 + seed as usize * 3;
        let graph = any(n, n * 2, seed);
        let duration = durations(n, seed);
        let name = format!("random graph {seed}");
        assert!(assert_equal(Path::Levels, &name, &graph, &duration));
        assert!(assert_equal(Path::Dataflow, &name, &graph, &duration));
        narrow += u32::from(assert_equal(Path::Transfer, &name, &graph, &duration));
    }
    assert!(narrow >= 10, "the transfer was tried on {narrow} graphs only");
}

#[test]
fn the_transfer_equals_the_cpu_on_deep_and_narrow_graphs() {
    for (levels, width, seed) in [(100, 1, 1), (60, 5, 2), (40, 10, 3), (64, 24, 4)] {
        let graph = layered(levels, width, seed);
        let duration = durations(graph.len(), seed);
        assert!(assert_equal(Path::Transfer, &format!("{levels} levels of {width}"), &graph, &duration));
    }
}

#[test]
fn a_graph_with_too_many_live_tasks_is_not_cut() {
    let (_, wide) = edge_shapes().into_iter().find(|(name, _)| name == "complete, 33 wide").unwrap();
    assert!(!assert_equal(Path::Transfer, "complete", &wide, &durations(wide.len(), 1)));
}

#[test]
fn paths_up_to_the_largest_tick_are_exact() {
    // The sum is one below the limit of 2^31, and 1 as a common divisor keeps a tick a millisecond.
    let graph = graph_of(3, &[(0, 1), (1, 2)]);
    let duration = [Millis((1 << 31) - 3), Millis(1), Millis(1)];
    for path in [Path::Levels, Path::Dataflow, Path::Transfer] {
        assert!(assert_equal(path, "the largest tick", &graph, &duration));
    }
}
