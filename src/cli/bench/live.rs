//! `bench --live`: every plan that was compared is carried out on this machine, one after another.
//!
//! Each is a `trainyard run` of its own in a fresh [copy](super::copy) of the pipeline's folder, with an empty record and
//! without the cache, so that nothing is there that an earlier one has made, and nothing that the user has is touched.
//! What it says is kept from the terminal; what its record says is reported.

#![expect(clippy::disallowed_methods, reason = "a command starts itself again")]

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::copy::{Copy, CopyError, Original};
use super::{Case, Command, Progress};
use crate::cli::planning;
use crate::cli::rehearsal::Rehearsal;
use crate::cli::state::{self, broken};
use crate::cli::{Exit, Failure, output, session, stops};
use crate::engine::{process, warden};
use crate::graph::TaskGraph;
use crate::plan::Policy;
use crate::plan::fit::FitRule;
use crate::plan::order::OrderRule;
use crate::report::bench::{Comparison, Live};
use crate::report::{held, text};
use crate::run::launch::run_mark;
use crate::run::state::RunState;
use crate::run::store::Store;
use crate::spec::{Action, Pipeline, Value};
use crate::units::Millis;

/// Whether and how plans are carried out.
#[derive(Args)]
pub(super) struct Arguments {
    /// Carry every plan out on this machine as well, each in a fresh copy of the pipeline's folder
    #[arg(long, conflicts_with = "from_history")]
    pub(super) live: bool,
    /// With --live: link this file or folder into the copies instead of copying it; stages must only read it
    #[arg(long, value_name = "PATH", value_delimiter = ',', requires = "live")]
    link: Vec<PathBuf>,
    /// With --live: keep the record and the logs of each run, as a state folder of its own in DIR
    #[arg(long, value_name = "DIR", requires = "live")]
    keep: Option<PathBuf>,
}

/// Refuses what cannot be carried out, and says what would disturb it.
pub(super) fn get_ready(bench: &Command, cases: &[Case]) -> Result<(), Failure> {
    if !bench.fleets.is_empty() {
        let help = "leave out one of them: plans for other hardware are compared without --live";
        return Err(usage(help, "`--live` carries plans out on this machine, and `--fleet` names another"));
    }
    if bench.pipelines.is_empty() {
        let help = "name a pipeline: `trainyard bench FILE --live`";
        return Err(usage(help, "`--live` needs a pipeline to carry out: the usual shapes do nothing"));
    }
    for (file, Case { pipeline, graph, .. }) in bench.pipelines.iter().zip(cases) {
        let folder = bench.file(file).folder().to_owned();
        keep_to_copies(pipeline, graph, &folder)?;
        let history = bench.history(file);
        let begun = Store::open_existing(&history).map_or_else(|_| Ok(Vec::new()), |store| store.without_end());
        if let Some(row) = begun.map_err(broken)?.iter().find(|row| state::is_alive(row)) {
            let run = &row.header.id;
            output::warn(&format!("run {run} is under way: what is measured beside it is longer than it would be"));
        }
    }
    Ok(())
}

/// Returns what is carried out where nobody says: the best there is, and what one would do without it.
pub(super) fn usual() -> Vec<Policy> {
    vec![Policy::Auto, Policy::List(OrderRule::Fifo, FitRule::FirstFit)]
}

fn usage(help: &str, words: &str) -> Failure {
    Failure { exit: Exit::Usage, report: miette::miette!(help = help.to_owned(), "{words}") }
}

/// Refuses commands that would write their outputs into the folder itself, and warns of others that name it.
fn keep_to_copies(pipeline: &Pipeline, graph: &TaskGraph, folder: &Path) -> Result<(), Failure> {
    let roots: Vec<String> = [Some(session::absolute(folder)), folder.canonicalize().ok()]
        .into_iter()
        .flatten()
        .filter_map(|root| Some(format!("{}/", root.to_str()?)))
        .collect();
    let outputs = || graph.tasks.iter().flat_map(|task| &task.outputs);
    let mut named = None;
    for task in &graph.tasks {
        let stage = text::visible(&pipeline.stages[task.stage].name);
        let texts: Vec<String> = words(&task.action).into_iter().chain(task.env(pipeline).into_values()).collect();
        let names = |path: &str| texts.iter().any(|text| text.contains(path));
        for root in &roots {
            if let Some(output) = outputs().find(|output| names(&format!("{root}{output}"))) {
                let words = format!("stage `{stage}` names {root}{output}, which a run in a copy would overwrite");
                return Err(usage(
                    "write it as it is seen from the pipeline file, or as `{inputs}` or `{outputs}`",
                    &words,
                ));
            }
            if names(root) {
                named.get_or_insert_with(|| format!("stage `{stage}` names {root}: there it is not in the copy"));
            }
        }
    }
    named.iter().for_each(|words| output::warn(words));
    Ok(())
}

/// Returns all text of what a task does.
fn words(action: &Action) -> Vec<String> {
    match action {
        Action::Shell(line) => vec![line.text.clone()],
        Action::Exec(args) => args.iter().map(|arg| arg.text.clone()).collect(),
        Action::Op { with, .. } => {
            let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
            with.iter().filter_map(|(_, value, _)| text(value)).collect()
        }
    }
}

/// Carries out all plans that were compared, and adds how they did. Returns how the command ends.
pub(super) fn carry_out(
    bench: &Command,
    cases: &[Case],
    policies: &[Policy],
    comparisons: &mut [Comparison],
) -> Result<Exit, Failure> {
    let stops = Stops::listen().map_err(broken)?;
    comparisons.iter_mut().flat_map(|one| &mut one.entries).for_each(|entry| entry.live = Some(Vec::new()));
    let wanted = || comparisons.iter().flat_map(|one| &one.entries).filter_map(|entry| entry.trials.as_ref().ok());
    let expected: Millis = wanted().flatten().map(|trial| trial.makespan).sum();
    let count: usize = wanted().map(Vec::len).sum();
    let plans = if count == 1 { "one plan".to_owned() } else { format!("{count} plans, one after another") };
    output::note(&format!("carrying out {plans}: about {expected} by what is planned"));
    let mut progress = Progress::new(count);
    let mut exit = Exit::Done;
    for (case, comparison) in cases.iter().zip(comparisons) {
        let Some(file) = &case.file else { continue };
        let history = bench.history(file);
        let folder = bench.file(file).folder().to_owned();
        // It is known where it lies once it is there.
        bench.live.keep.as_ref().map_or(Ok(()), std::fs::create_dir_all).map_err(broken)?;
        let records: Vec<&Path> = bench.live.keep.iter().map(PathBuf::as_path).chain([&*history]).collect();
        let original = Original::new(&folder, &case.graph, &records, &bench.live.link).map_err(not_copied)?;
        original.remove_leftovers();
        let stage = Stage { bench, case, file, history: &history, original: &original, stops: &stops };
        // One seed after the other: what changes on the machine meanwhile changes for all policies.
        for at in 0..usize::try_from(bench.seeds).unwrap_or(1) {
            for (policy, entry) in policies.iter().zip(&mut comparison.entries) {
                let Some(trial) = entry.trials.as_ref().ok().and_then(|trials| trials.get(at)) else { continue };
                let act = Act { policy: *policy, seed: trial.seed, planned: trial.makespan };
                let Some(live) = stage.carry_out(&act, &mut progress)? else {
                    progress.clear();
                    return Ok(Exit::Interrupted);
                };
                if live.done.is_err() {
                    exit = Exit::StageFailed;
                }
                entry.live.get_or_insert_default().push(live);
            }
        }
    }
    progress.clear();
    Ok(exit)
}

fn not_copied(error: CopyError) -> Failure {
    let exit = if matches!(error, CopyError::Link { .. }) { Exit::Usage } else { Exit::Bug };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure { exit, report: miette::miette!(help = error.help(), "{error}{cause}") }
}

/// A pipeline whose plans are carried out.
struct Stage<'a> {
    bench: &'a Command,
    case: &'a Case,
    file: &'a Path,
    history: &'a Path,
    original: &'a Original,
    stops: &'a Stops,
}

/// One plan to carry out.
struct Act {
    policy: Policy,
    seed: u64,
    planned: Millis,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seed {}", self.policy, self.seed)
    }
}

impl Stage<'_> {
    /// Carries one plan out; `None` where the user wants no more.
    fn carry_out(&self, act: &Act, progress: &mut Progress) -> Result<Option<Live>, Failure> {
        progress.tell(&format!("{act}: copying {}", self.original.root().display()));
        let copy = match self.original.copy(&|| self.stops.asked()) {
            Ok(copy) => copy,
            Err(CopyError::Stopped) => return Ok(None),
            Err(error) => return Err(not_copied(error)),
        };
        let state = self.state(&copy, act)?;
        let said = state.join("output.log");
        let status = self.run(&copy, &state, &said, act, progress).map_err(broken)?;
        progress.done += 1;
        let said = std::fs::read(&said).unwrap_or_default();
        if self.stops.asked() {
            return Ok(None);
        }
        let exit = status.code().and_then(Exit::of_code);
        if let Some(exit @ (Exit::Usage | Exit::Rejected | Exit::Impossible | Exit::Bug)) = exit {
            let words = text::report_words(&said);
            let report = miette::miette!("{act} cannot be carried out: {words}");
            return Err(Failure { exit, report });
        }
        let live = self.measured(&state, act, status)?;
        if live.done.is_err() {
            progress.clear();
            self.tell_failure(act, &String::from_utf8_lossy(&said));
        }
        Ok(Some(live))
    }

    /// Makes the state folder of a run, which is gone with the copy or kept where the user wants it.
    fn state(&self, copy: &Copy, act: &Act) -> Result<PathBuf, Failure> {
        let Act { policy, seed, .. } = act;
        let dir = match &self.bench.live.keep {
            Some(keep) => session::absolute(keep).join(format!("{}.{policy}.{seed}", self.case.pipeline.name)),
            None => copy.path().join(state::FOLDER),
        };
        if dir.join("state.db").exists() {
            let words = format!("{} has a record of an earlier run", dir.display());
            return Err(usage("name another folder, or remove that one", &words));
        }
        std::fs::create_dir_all(&dir).map_err(broken)?;
        Ok(dir)
    }

    /// Starts the run and waits for its end, passing on what the user asks for by signals.
    fn run(
        &self,
        copy: &Copy,
        state: &Path,
        said: &Path,
        act: &Act,
        progress: &mut Progress,
    ) -> io::Result<ExitStatus> {
        let bench = self.bench;
        let said = File::create(said)?;
        let mut run = std::process::Command::new(std::env::current_exe()?);
        run.arg("run").arg(copy.path().join(self.file.file_name().unwrap_or_default())).arg("--state").arg(state);
        run.args(["--quiet", "--policy", &act.policy.to_string(), "--seed", &act.seed.to_string()]);
        run.args(["--objective", bench.objective.name()]);
        match bench.budget {
            Some(budget) => run.args(["--budget", &format!("{}ms", budget.0)]),
            None => run.args(["--evaluations", &bench.evaluations.to_string()]),
        };
        run.args(bench.quantum.map(|quantum| format!("--quantum={}ms", quantum.0)));
        run.args(bench.sets.iter().flat_map(|set| ["--set", set]));
        if !bench.sets.iter().any(|set| set.starts_with("defaults.cache")) {
            run.args(["--set", "defaults.cache=false"]);
        }
        run.args(Rehearsal::args(&session::absolute(self.history)));
        run.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        // A Ctrl-C at the terminal comes to us, and is passed on once.
        let mut child = run.process_group(0).spawn()?;
        let end = process::watch(child.id())?;
        let watch = planning::Stopwatch::start();
        loop {
            let mut wake = [PollFd::new(&end, PollFlags::IN), PollFd::new(&self.stops.pipe, PollFlags::IN)];
            match poll(&mut wake, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for _ in 0..self.stops.heard() {
                process::signal(child.id(), Signal::TERM);
            }
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            let so_far = Millis(watch.elapsed().0 / 1_000 * 1_000);
            progress.tell(&format!("{act}: {so_far} of about {}", act.planned));
        }
    }

    /// Reads how the run went from its record.
    fn measured(&self, state: &Path, act: &Act, status: ExitStatus) -> Result<Live, Failure> {
        let Case { pipeline, graph, fleet, .. } = self.case;
        let ended_by = |status: ExitStatus| {
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            signal.map(|signal| format!("the run was ended by signal {signal}"))
        };
        let newest = match Store::open_existing(state) {
            Ok(store) => {
                let newest = store.marks().map_err(broken)?.into_iter().next();
                let row = newest.map(|mark| store.run(&mark.run)).transpose().map_err(broken)?.flatten();
                row.map(|row| (store, row))
            }
            Err(_) if !status.success() => None,
            Err(error) => return Err(broken(error)),
        };
        let Some((store, row)) = newest else {
            let reason = ended_by(status).unwrap_or_else(|| "the run recorded nothing".to_owned());
            return Ok(Live { seed: act.seed, planned: None, done: Err(reason) });
        };
        let run: RunState = state::replay(&store, &row)?;
        let held = held::read(&store.run_dir(&row.header.id));
        let mut live = Live::of(act.seed, (pipeline, graph, fleet), (&row.header.tasks, &run), &held);
        if let Some(reason) = ended_by(status) {
            // Whoever was to end its tasks may not have done so yet, and the next run wants the machine for itself.
            warden::end_leftovers(&run_mark(&row.header.id), Vec::new);
            live.done = Err(reason);
        }
        Ok(live)
    }

    /// Says what a run that failed said, while its logs are still there or because they are kept.
    fn tell_failure(&self, act: &Act, said: &str) {
        let kept = self.bench.live.keep.is_some();
        let line = |line: &str| match line.trim_start().strip_prefix("log: ") {
            Some(_) if !kept => "  log: gone with the copy; `--keep DIR` keeps it".to_owned(),
            Some(_) | None => line.to_owned(),
        };
        let lines: Vec<String> = said.lines().map(line).collect();
        output::say(&text::coloured(&format!("{act}:\n{}", lines.join("\n"))));
    }
}

/// Signals that ask this command to end.
struct Stops {
    pipe: UnixStream,
    asked: Cell<bool>,
}

impl Stops {
    /// Hears of them from here on, instead of ending by them.
    fn listen() -> io::Result<Self> {
        let pipe = stops::heard()?;
        pipe.set_nonblocking(true)?;
        Ok(Self { pipe, asked: Cell::new(false) })
    }

    /// Returns how many came since it was last asked.
    fn heard(&self) -> usize {
        let mut heard = 0;
        let mut bytes = [0; 64];
        loop {
            match (&self.pipe).read(&mut bytes) {
                Ok(0) => break,
                Ok(some) => heard += some,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.asked.set(self.asked.get() || heard > 0);
        heard
    }

    /// Whether one ever came.
    fn asked(&self) -> bool {
        self.heard();
        self.asked.get()
    }
}
