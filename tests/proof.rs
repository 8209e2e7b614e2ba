//! `plan --policy exact --proof FILE`: every step of a proof is checked here by somebody who knows neither the solver nor
//! the planner, and real plans are held against what it is about.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and runs the real binary")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// What is known of a variable: its least and greatest value and what it is not.
type Domain = (i64, i64, Vec<i64>);

/// A variable, `>=`, `<=`, `==` or `!=`, and a value.
#[derive(Clone, Debug, PartialEq)]
struct Atom {
    name: String,
    is: &'static str,
    value: i64,
}

impl Atom {
    fn read(text: &str) -> Self {
        let mut parts = text.trim_matches(['[', ']']).split(' ');
        let name = parts.next().unwrap().to_owned();
        let is = match parts.next().unwrap() {
            ">=" => ">=",
            "<=" => "<=",
            "==" => "==",
            "!=" => "!=",
            other => panic!("{other}"),
        };
        Self { name, is, value: parts.next().unwrap().parse().unwrap() }
    }

    fn negated(&self) -> Self {
        let (is, value) = match self.is {
            ">=" => ("<=", self.value - 1),
            "<=" => (">=", self.value + 1),
            "==" => ("!=", self.value),
            _ => ("==", self.value),
        };
        Self { name: self.name.clone(), is, value }
    }
}

/// What is known of all variables.
#[derive(Clone)]
struct Known(BTreeMap<String, Domain>);

impl Known {
    /// Takes an atom in; whether a value is left for its variable.
    fn assume(&mut self, atom: &Atom) -> bool {
        let (min, max, holes) = self.0.get_mut(&atom.name).unwrap_or_else(|| panic!("no variable {}", atom.name));
        match atom.is {
            ">=" => *min = (*min).max(atom.value),
            "<=" => *max = (*max).min(atom.value),
            "==" => (*min, *max) = ((*min).max(atom.value), (*max).min(atom.value)),
            _ => holes.push(atom.value),
        }
        while holes.contains(min) && *min <= *max {
            *min += 1;
        }
        while holes.contains(max) && *min <= *max {
            *max -= 1;
        }
        *min <= *max
    }

    fn holds(&self, atom: &Atom) -> bool {
        !self.clone().assume(&atom.negated())
    }
}

/// A fact that steps may use: when all premises hold, so does the consequent, or nothing can be.
struct Fact {
    premises: Vec<Atom>,
    consequent: Option<Atom>,
}

/// What the steps are about.
struct Statement {
    known: Known,
    constraints: BTreeMap<u64, Value>,
}

impl Statement {
    fn read(text: &str) -> Self {
        let whole: Value = serde_json::from_str(text).unwrap();
        let int = |value: &Value| value.as_i64().unwrap();
        let variables = whole["variables"].as_array().unwrap().iter();
        let known = variables
            .map(|of| (of["name"].as_str().unwrap().to_owned(), (int(&of["min"]), int(&of["max"]), Vec::new())));
        let constraints = whole["constraints"].as_array().unwrap().iter();
        let constraints = constraints.map(|of| (of["id"].as_u64().unwrap(), of.clone()));
        Self { known: Known(known.collect()), constraints: constraints.collect() }
    }

    /// Whether nothing that is known so leaves a solution of one constraint.
    fn refutes(&self, constraint: u64, known: &Known) -> bool {
        let of = &self.constraints[&constraint];
        let int = |value: &Value| value.as_i64().unwrap();
        if of["kind"] == "sum" {
            let least = of["terms"].as_array().unwrap().iter().map(|term| {
                let (min, max, _) = &known.0[term[1].as_str().unwrap()];
                (int(&term[0]) * min).min(int(&term[0]) * max)
            });
            return least.sum::<i64>() > int(&of["at_most"]);
        }
        // What surely runs from its latest start on to its earliest end.
        let parts: Vec<_> = of["uses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                let (min, max, _) = &known.0[one["start"].as_str().unwrap()];
                (*max, min + int(&one["duration"]), int(&one["amount"]))
            })
            .collect();
        let at = |instant: i64| {
            parts.iter().filter(|(from, to, _)| *from <= instant && instant < *to).map(|part| part.2).sum::<i64>()
        };
        parts.iter().any(|(from, ..)| at(*from) > int(&of["capacity"]))
    }
}

/// Checks every step; returns how many there were.
fn check(statement: &Statement, proof: &str) -> usize {
    let mut atoms: BTreeMap<i64, Atom> = BTreeMap::new();
    let mut facts: BTreeMap<u64, Fact> = BTreeMap::new();
    let mut nogoods: BTreeMap<u64, Vec<Atom>> = BTreeMap::new();
    let (mut is_refuted, mut is_concluded, mut steps) = (false, false, 0);
    for line in proof.lines() {
        let (kind, rest) = line.split_once(' ').unwrap();
        if kind == "a" {
            let (code, text) = rest.split_once(' ').unwrap();
            atoms.insert(code.parse().unwrap(), Atom::read(text));
            continue;
        }
        if kind == "c" {
            assert_eq!(rest, "UNSAT");
            is_concluded = true;
            continue;
        }
        steps += 1;
        let atom = |code: &str| {
            let code: i64 = code.parse().unwrap();
            let atom = atoms[&code.abs()].clone();
            if code < 0 { atom.negated() } else { atom }
        };
        let mut words = rest.split(' ').filter(|word| !word.is_empty());
        let id: u64 = words.next().unwrap().parse().unwrap();
        let premises: Vec<Atom> = words.by_ref().take_while(|word| *word != "0").map(atom).collect();
        let mut known = statement.known.clone();
        if kind == "i" {
            let mut consequent = None;
            let mut by = None;
            for word in words {
                match word.split_once(':') {
                    Some(("c", of)) => by = Some(of.parse::<u64>().unwrap()),
                    Some(_) => {}
                    None => consequent = Some(atom(word)),
                }
            }
            let opposite = consequent.iter().map(Atom::negated);
            let possible = premises.iter().cloned().chain(opposite).all(|atom| known.assume(&atom));
            let follows = !possible
                || by.is_some_and(|by| match nogoods.get(&by) {
                    Some(nogood) => nogood.iter().all(|atom| known.holds(atom)),
                    None => statement.refutes(by, &known),
                });
            assert!(follows, "{line}: {premises:?} -> {consequent:?}");
            facts.insert(id, Fact { premises, consequent });
            continue;
        }
        assert_eq!(kind, "n", "{line}");
        let mut is_left = premises.iter().all(|atom| known.assume(atom));
        let used: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        // Some facts need others that are named behind them.
        for of in used.iter().cycle().take(used.len() * used.len()) {
            if !is_left {
                break;
            }
            match (facts.get(of), nogoods.get(of)) {
                (Some(fact), _) if fact.premises.iter().all(|atom| known.holds(atom)) => {
                    is_left = fact.consequent.as_ref().is_some_and(|consequent| known.assume(consequent));
                }
                (None, Some(nogood)) => {
                    let open: Vec<_> = nogood.iter().filter(|atom| !known.holds(atom)).collect();
                    if let [] | [_] = open[..] {
                        is_left = open.first().is_some_and(|atom| known.assume(&atom.negated()));
                    }
                }
                (Some(_), _) => {}
                (None, None) => panic!("{line}: {of} is unknown"),
            }
        }
        assert!(!is_left, "{line}: {premises:?} can be");
        is_refuted |= premises.is_empty();
        nogoods.insert(id, premises);
    }
    assert!(is_refuted && is_concluded, "the proof has no end");
    steps
}

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(path)
}

/// Has a proof written; returns its folder, where it is called `proof`, what was said, and the plan as JSON.
fn proven(pipeline: &Path, fleet: &Path, args: &[&str]) -> (tempfile::TempDir, String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let output = trainyard(folder.path(), pipeline, fleet, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let plan = serde_json::from_slice(&output.stdout).unwrap();
    (folder, said, plan)
}

fn trainyard(folder: &Path, pipeline: &Path, fleet: &Path, args: &[&str]) -> Output {
    let mut plan = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    plan.arg("plan").arg(pipeline).arg("--fleet").arg(fleet).args(["--json", "--proof", "proof"]).args(args);
    // Steps are counted, not seconds: it ends alike on every machine.
    plan.args(["--evaluations", "200000"]).current_dir(folder).env_remove("RUST_LOG").output().unwrap()
}

const EXACT: &[&str] = &["--policy", "exact"];

fn read(folder: &tempfile::TempDir) -> (Statement, String) {
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    (Statement::read(&text("proof.json")), text("proof"))
}

/// Writes a pipeline and a fleet and returns where they are.
fn files(pipeline: &str, fleet: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (of_pipeline, of_fleet) = (folder.path().join("p.toml"), folder.path().join("fleet.toml"));
    fs::write(&of_pipeline, pipeline).unwrap();
    fs::write(&of_fleet, fleet).unwrap();
    (folder, of_pipeline, of_fleet)
}

/// Three stages of 3 s and two of 4 s on two GPUs: 8.5 s of work each, but no plan ends before 9 s.
const FIVE: &str = "name = 'five'\n[stage.a]\nrun = ['true']\nmatrix = { n = [1, 2, 3] }\nduration = '3s'\n\
    resources = { gpus = 1 }\n[stage.b]\nrun = ['true']\nmatrix = { n = [1, 2] }\nduration = '4s'\n\
    resources = { gpus = 1 }\n[stage.c]\nrun = ['true']\nafter = ['a', 'b']\nduration = '1s'\n";
const TWO: &str = "[[node]]\nname = 'box'\ncpus = 8\n[[node.gpu]]\ncount = 2\nmemory = '16GiB'\n";

#[test]
fn a_proof_stands_up_to_whoever_does_not_trust_the_solver() {
    let (_folder, pipeline, fleet) = files(FIVE, TWO);
    let (folder, said, plan) = proven(&pipeline, &fleet, EXACT);
    assert!(said.contains("proof that no plan ends before 10s: proof, about proof.json"), "{said}");
    let (statement, proof) = read(&folder);
    assert!(check(&statement, &proof) > 1);
    // Whatever plan there is satisfies all that was stated but the end.
    let tick = serde_json::from_str::<Value>(&fs::read_to_string(folder.path().join("proof.json")).unwrap()).unwrap();
    let tick = tick["tick_ms"].as_i64().unwrap();
    let mut values = statement.known.clone();
    for (index, task) in plan["tasks"].as_array().unwrap().iter().enumerate() {
        let start = task["start_ms"].as_i64().unwrap() / tick;
        values.0.insert(format!("s{index}"), (start, start, Vec::new()));
    }
    let end = plan["makespan_ms"].as_i64().unwrap() / tick;
    values.0.insert("end".to_owned(), (end, end, Vec::new()));
    assert!(statement.constraints.keys().all(|id| !statement.refutes(*id, &values)));
}

#[test]
fn a_proof_that_was_changed_does_not() {
    let (_folder, pipeline, fleet) = files(FIVE, TWO);
    let (folder, ..) = proven(&pipeline, &fleet, EXACT);
    let (mut statement, proof) = read(&folder);
    // Were there more of what is scarce, the same steps would not hold.
    for constraint in statement.constraints.values_mut().filter(|one| one["kind"] == "cumulative") {
        constraint["capacity"] = (constraint["capacity"].as_i64().unwrap() * 2).into();
    }
    assert!(std::panic::catch_unwind(|| check(&statement, &proof)).is_err());
}

#[test]
fn ways_to_run_and_budgets_are_part_of_what_is_proven() {
    let (devices, units) = ("articles/devices", "articles/units");
    for name in [devices, units] {
        let fleet = example(&format!("{name}.fleet.toml"));
        let (folder, said, _) = proven(&example(&format!("{name}.toml")), &fleet, EXACT);
        assert!(said.contains("proof that no plan ends before"), "{name}: {said}");
        let (statement, proof) = read(&folder);
        assert!(check(&statement, &proof) > 0, "{name}");
    }
    let pipeline = "[stage.a]\nrun = ['true']\nmatrix = { n = [1, 2, 3, 4] }\nmodes = [\n\
        { resources = { gpus = 1 }, duration = '4s', spend = { money = 2 } },\n\
        { resources = { cpus = 3 }, duration = '7s' } ]\n";
    let (_folder, pipeline, fleet) = files(pipeline, &format!("{TWO}[budgets]\nmoney = 4\n"));
    let (folder, said, plan) = proven(&pipeline, &fleet, EXACT);
    let (statement, proof) = read(&folder);
    assert!(check(&statement, &proof) > 1 && statement.known.0.contains_key("t0_1"), "{said}");
    assert_eq!(plan["makespan_ms"], 7_000, "two on GPUs, one after the other or at once, and two on CPUs");
}

#[test]
fn a_bound_that_rests_on_more_than_pools_is_proven_as_far_as_they_go() {
    // Together they fit two GPUs of 16 GiB, but no two of them fit one.
    let pipeline = "[stage.a]\nrun = ['true']\nmatrix = { n = [1, 2, 3] }\nduration = '10s'\n\
        resources = { gpu_memory = '9GiB' }\n";
    let (_folder, pipeline, fleet) = files(pipeline, TWO);
    let (folder, said, plan) = proven(&pipeline, &fleet, EXACT);
    assert_eq!(plan["makespan_ms"], 20_000);
    let (statement, proof) = read(&folder);
    assert!(check(&statement, &proof) > 0 && said.contains("proof that no plan ends before"), "{said}");
}

#[test]
fn who_makes_no_proof_is_told_and_what_cannot_be_written_too() {
    let (folder, pipeline, fleet) = files(FIVE, TWO);
    let output = trainyard(folder.path(), &pipeline, &fleet, &["--policy", "auto"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("plan with `--policy exact`"), "{said}");
    let output = trainyard(folder.path(), &pipeline, &fleet, &["--policy", "exact", "--objective", "energy"]);
    assert_eq!(output.status.code(), Some(2));
    fs::create_dir(folder.path().join("proof")).unwrap();
    let output = trainyard(folder.path(), &pipeline, &fleet, EXACT);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(70) && said.contains("cannot write the proof to proof"), "{said}");
}
