//! What always holds: no text makes the reader fail, every place lies in the text, and order and cycles are those that
//! petgraph finds.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::{is_cyclic_directed, tarjan_scc};
use petgraph::graph::{DiGraph, NodeIndex};
use proptest::prelude::*;
use trainyard::graph::{self, Limits};
use trainyard::spec::{Problem, Span};

use super::{OPS, load_with, source};

/// A file in which every key is used.
pub(super) const GOOD: &str = include_str!("../fixtures/every-key.toml");

fn assert_places(problems: &[Problem], text: &str, sets: &[String]) -> Result<(), TestCaseError> {
    for problem in problems {
        for span in std::iter::once(&problem.span).chain(problem.related.iter().map(|(span, _)| span)) {
            let (text, range) = match span {
                Span::Whole => continue,
                Span::File(range) => (text, range),
                Span::Set(n, range) => (sets[*n].as_str(), range),
            };
            prop_assert!(text.get(range.clone()).is_some(), "{problem:?}");
        }
    }
    Ok(())
}

fn check(text: &str, sets: &[String]) -> Result<(), TestCaseError> {
    let limits = Limits { max_tasks: 100 };
    let problems = graph::load(&source(text), sets, OPS, limits).err().unwrap_or_default();
    assert_places(&problems, text, sets)
}

/// A part of the good file replaced by something else.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(String::new()),
        any::<String>(),
        r#"[\[\]{}"'=.,#\\\n -é0-9]{1,4}"#,
        Just("{matrix.".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("[stage.train]\n".to_owned()),
    ];
    (0..GOOD.len(), 0_usize..12, piece).prop_map(|(at, length, piece)| {
        let start = GOOD.floor_char_boundary(at);
        let end = GOOD.ceil_char_boundary((start + length).min(GOOD.len()));
        format!("{}{piece}{}", &GOOD[..start], &GOOD[end..])
    })
}

/// Stages named by number, each with those that it comes after.
fn dependencies() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    (1_usize..12).prop_flat_map(|n| {
        prop::collection::vec(prop::collection::btree_set(0..n, 0..3), n).prop_map(|all| {
            all.into_iter().enumerate().map(|(i, set)| set.into_iter().filter(|j| *j != i).collect()).collect()
        })
    })
}

/// Writes dependencies as a file: odd ones by files, even ones by `after`.
fn written(dependencies: &[BTreeSet<usize>]) -> String {
    let mut text = String::new();
    for (i, before) in dependencies.iter().enumerate() {
        let (files, stages): (Vec<usize>, Vec<usize>) = before.iter().partition(|j| *j % 2 == 1);
        let files: Vec<_> = files.iter().map(|j| format!("'f{j}'")).collect();
        let stages: Vec<_> = stages.iter().map(|j| format!("'s{j}'")).collect();
        let (files, stages) = (files.join(","), stages.join(","));
        text += &format!("[stage.s{i}]\nrun = 'x'\ninputs = [{files}]\nafter = [{stages}]\noutputs = ['f{i}']\n");
    }
    text
}

#[test]
fn the_good_file_is_good() {
    let loaded = load_with(GOOD, &[]);
    assert_eq!(loaded.expect("no problems").1.len(), 6);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_fail(text in any::<String>()) {
        check(&text, &[])?;
    }

    #[test]
    fn no_mutation_of_a_good_file_makes_the_reader_fail(text in mutated()) {
        check(&text, &[])?;
    }

    #[test]
    fn no_override_makes_the_reader_fail(
        sets in prop::collection::vec(prop_oneof![
            any::<String>(),
            r#"(stage\.)?(train|clean|last|name|env|defaults)(\.(with|matrix|modes|0|e|run|cwd|resources|gpus)){0,3}=[\[\]{}"'a-zé0-9.]{0,6}"#,
        ], 0..4)
    ) {
        check(GOOD, &sets)?;
    }

    #[test]
    fn a_matrix_makes_one_task_for_each_point(sizes in prop::collection::vec(1_usize..5, 1..4)) {
        let axis = |(i, size): (usize, &usize)| {
            format!("a{i} = [{}]", (0..*size).map(|n| n.to_string()).collect::<Vec<_>>().join(","))
        };
        let axes: Vec<_> = sizes.iter().enumerate().map(axis).collect();
        let text = format!("[stage.t]\nrun = 'x'\nmatrix = {{ {} }}\n", axes.join(", "));
        let (_, graph) = load_with(&text, &[]).expect("a good file");
        let names: BTreeSet<_> = graph.tasks.iter().map(|task| &task.name).collect();
        prop_assert_eq!(names.len(), sizes.iter().product::<usize>());
        prop_assert_eq!(names.len(), graph.len());
        // The last axis runs fastest: read as digits, the points count upwards.
        let points: Vec<Vec<String>> =
            graph.tasks.iter().map(|task| task.point.iter().map(|(_, value)| value.to_string()).collect()).collect();
        prop_assert!(points.is_sorted());
    }

    #[test]
    fn order_and_cycles_are_those_of_petgraph(dependencies in dependencies()) {
        let mut oracle = DiGraph::<(), ()>::new();
        dependencies.iter().for_each(|_| {
            oracle.add_node(());
        });
        for (i, before) in dependencies.iter().enumerate() {
            for j in before {
                oracle.add_edge(NodeIndex::new(*j), NodeIndex::new(i), ());
            }
        }
        match load_with(&written(&dependencies), &[]) {
            Ok((_, graph)) => {
                prop_assert!(!is_cyclic_directed(&oracle));
                let edges: BTreeSet<_> = graph.ids()
                    .flat_map(|id| graph.before.of(id).iter().map(move |edge| (edge.task.index(), id.index())))
                    .collect();
                let ends = oracle.edge_indices().filter_map(|edge| oracle.edge_endpoints(edge));
                let expected: BTreeSet<_> = ends.map(|(a, b)| (a.index(), b.index())).collect();
                prop_assert_eq!(&edges, &expected);
                let mirrored: BTreeSet<_> = graph.ids()
                    .flat_map(|id| graph.after.of(id).iter().map(move |edge| (id.index(), edge.task.index())))
                    .collect();
                prop_assert_eq!(&edges, &mirrored);
                let place: BTreeMap<_, _> = graph.order.iter().enumerate().map(|(at, id)| (id.index(), at)).collect();
                prop_assert_eq!(place.len(), dependencies.len());
                prop_assert!(edges.iter().all(|(a, b)| place[a] < place[b]));
            }
            Err(problems) => {
                let tangles = tarjan_scc(&oracle).into_iter().filter(|tangle| tangle.len() > 1).count();
                prop_assert_eq!(problems.len(), tangles);
                for problem in problems {
                    let names = problem.message.strip_prefix("these wait for each other: ").expect("a cycle");
                    let cycle: Vec<&str> = names.split(" → ").collect();
                    prop_assert_eq!(cycle.first(), cycle.last());
                    let number = |name: &str| NodeIndex::new(name[1..].parse().expect("the number of a stage"));
                    for hop in cycle.windows(2).filter(|hop| !hop.contains(&"…")) {
                        prop_assert!(oracle.contains_edge(number(hop[0]), number(hop[1])));
                    }
                }
            }
        }
    }
}
