//! `trainyard devices --orphans`: what finished, failed or killed tasks left behind, and its end on request. What is left
//! when a run ends is ended by the run itself.

use std::collections::BTreeMap;
use std::path::Path;

use miette::Diagnostic;
use thiserror::Error;

use super::state;
use super::{Exit, Failure, output};
use crate::engine::orphans::{self, Marked};
use crate::probe::{Machine, process};
use crate::report::orphans::{self as view, Orphan, Why};
use crate::report::paint::Colour;
use crate::report::text;
use crate::run::launch;
use crate::run::state::RunState;
use crate::run::store::{RunRow, Store, StoreError};

/// Why nothing is ended.
#[derive(Debug, Error, Diagnostic)]
#[error("nothing that was left behind has the process id or the run `{0}`; nothing was ended")]
#[diagnostic(help("`trainyard devices --orphans` lists what there is; `all` stands for every one"))]
struct Unlisted(String);

/// Lists what was left behind; of what is named, ends it and lists only that.
pub(super) fn run(machine: &Machine, named: &[String], json: bool) -> Result<Exit, Failure> {
    let mut runs = Runs::default();
    let marked = orphans::marked();
    let mut left: Vec<(Marked, Why)> =
        marked.into_iter().filter_map(|one| Some((runs.why(&one)?, one))).map(|(why, one)| (one, why)).collect();
    let end = !named.is_empty();
    let is = |name: &String, one: &Marked| *name == "all" || *name == one.run || *name == one.process.pid.to_string();
    if let Some(name) = named.iter().find(|name| *name != "all" && !left.iter().any(|(one, _)| is(name, one))) {
        return Err(Failure { exit: Exit::Usage, report: Unlisted(text::visible(name).into_owned()).into() });
    }
    left.retain(|(one, _)| !end || named.iter().any(|name| is(name, one)));
    let still =
        if end { orphans::end(&left.iter().map(|(one, _)| one.process).collect::<Vec<_>>()) } else { Vec::new() };
    let shown: Vec<Orphan> = left
        .iter()
        .map(|(one, why)| {
            let pid = one.process.pid;
            let identity = process::identify(Path::new("/"), pid);
            let held = machine.gpus.devices().iter().filter_map(|gpu| {
                let on = gpu.reading.processes.iter().flatten().find(|process| process.pid == pid)?;
                Some((gpu.name(), on.memory))
            });
            Orphan {
                pid,
                user: identity.as_ref().map(|identity| identity.user.clone()),
                command: identity.map(|identity| identity.command),
                run: one.run.clone(),
                task: one.task.clone(),
                attempt: one.attempt,
                why: *why,
                held: held.collect(),
                ended: end && !still.contains(&one.process),
            }
        })
        .collect();
    if json {
        return output::print_json(&shown);
    }
    if shown.is_empty() {
        return output::print("nothing was left behind\n");
    }
    let hint = if end {
        ""
    } else {
        "\na run ends what its tasks have left when it ends; to end some now: trainyard devices --orphans --end PID|RUN\n"
    };
    output::print(&(view::table(&shown, end).render(Colour::for_stdout(), output::columns()) + hint))
}

/// The runs that were looked up, by their folder.
#[derive(Default)]
struct Runs(BTreeMap<std::path::PathBuf, Record>);

/// What is on record of a run.
enum Record {
    Run(Box<(RunRow, RunState)>),
    /// Nothing, or nothing that can be read.
    Nothing,
    /// What another version of this program has written.
    Foreign,
}

impl Runs {
    /// Returns why a marked process should not be there any more; `None` if it may.
    fn why(&mut self, one: &Marked) -> Option<Why> {
        // Whoever survives its orchestrator is taken up by `resume`.
        let survives = || launch::sentinel(&one.dir, &one.task, one.attempt).is_file();
        let known = self.0.entry(one.dir.clone()).or_insert_with(|| Record::of(one));
        let (row, state) = match known {
            Record::Run(known) => (&known.0, &known.1),
            Record::Nothing => return (!orphans::is_attended(one)).then_some(Why::NotOnRecord),
            Record::Foreign => return (!orphans::is_attended(one) && !survives()).then_some(Why::RunGone),
        };
        let task = row.header.tasks.iter().position(|task| task.name == one.task);
        let attempts = task.map(|task| state.tasks[task].attempts.as_slice()).unwrap_or_default();
        let attempt = (one.attempt as usize).checked_sub(1).and_then(|index| attempts.get(index));
        let has_ended = attempt.is_none_or(|attempt| attempt.ended.is_some());
        if has_ended {
            return Some(Why::AttemptEnded);
        }
        (!state::is_alive(row) && !survives()).then_some(Why::RunGone)
    }
}

impl Record {
    /// Looks a process's run up, in whatever state folder that is: nothing is changed there.
    fn of(one: &Marked) -> Self {
        // `STATE/runs/RUN`
        let Some(dir) = one.dir.ancestors().nth(2) else { return Self::Nothing };
        let store = match Store::open_foreign(dir) {
            Err(StoreError::Format { .. }) => return Self::Foreign,
            opened => opened.ok(),
        };
        let run = store.and_then(|store| {
            let row = store.run(&one.run).ok().flatten()?;
            let state = state::replay(&store, &row).ok()?;
            Some((row, state))
        });
        run.map_or(Self::Nothing, |known| Self::Run(Box::new(known)))
    }
}
