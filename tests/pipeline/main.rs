//! The pipeline file from the outside: what it means, what is said about one that is wrong, and what always holds.

mod backup;
mod command;
mod meaning;
mod places;
mod problems;
mod properties;
mod suspend;
mod syntax;

use trainyard::graph::{self, Limits, TaskGraph};
use trainyard::spec::op::{Default, Files, Kind, Op, Param};
use trainyard::spec::{Pipeline, Problem, Source, Span};

const fn files(least: usize, most: usize) -> Files {
    Files { least, most, about: "the files", as_inputs: false }
}

const fn param(name: &'static str, kind: Kind, default: Default) -> Param {
    Param { name, kind, default, about: "what it is" }
}

/// One op with a parameter of every kind.
static OPS: &[Op] = &[Op {
    name: "test.op",
    about: "Tests",
    inputs: files(0, usize::MAX),
    outputs: files(0, 1),
    params: &[
        param("epochs", Kind::Int { least: 1, most: 100 }, Default::Required),
        param("lr", Kind::Float { least: 0.0, most: 10.0, above: true }, Default::Float(0.1)),
        param("model", Kind::Choice(&["mlp", "cnn"]), Default::Text("mlp")),
        param("hidden", Kind::Ints { least: 1, most: 4096, len: 3 }, Default::Ints(&[64])),
        param("shuffle", Kind::Bool, Default::Absent),
        param("note", Kind::Text, Default::Absent),
    ],
}];

fn source(text: &str) -> Source {
    Source { name: "p.toml".to_owned(), text: text.to_owned() }
}

fn load_with(text: &str, sets: &[&str]) -> Result<(Pipeline, TaskGraph), Vec<Problem>> {
    let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
    graph::load(&source(text), &sets, OPS, Limits::default())
}

#[track_caller]
fn load(text: &str) -> (Pipeline, TaskGraph) {
    load_with(text, &[]).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn problems(text: &str) -> Vec<Problem> {
    load_with(text, &[]).err().unwrap_or_default()
}

/// Returns what is wrong, each as `line:column marked text: message (help)`.
fn said_with(text: &str, sets: &[&str]) -> Vec<String> {
    let line = |problem: &Problem| {
        let place = match &problem.span {
            Span::Whole => "-".to_owned(),
            Span::File(range) => {
                let (line, column) = source(text).position(range.start);
                format!("{line}:{column} {}", &text[range.clone()])
            }
            Span::Set(n, range) => format!("--set {}", &sets[*n][range.clone()]),
        };
        let help = problem.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{place}: {}{help}", problem.message)
    };
    load_with(text, sets).err().unwrap_or_default().iter().map(line).collect()
}

fn said(text: &str) -> Vec<String> {
    said_with(text, &[])
}

/// Returns what is wrong with one more line in an otherwise good stage; the line is the third.
fn said_of(line: &str) -> Vec<String> {
    said(&format!("[stage.a]\nrun = 'true'\n{line}\n"))
}
