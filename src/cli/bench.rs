//! `trainyard bench [PIPELINE…]`: what every policy makes of a pipeline on a fleet, side by side; with `--live` also what
//! becomes of that here.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use self::arrivals::Replaying;
use super::pipeline_file::PipelineFile;
use super::planning::{self, Planning, Stopwatch};
use super::replay::Recorded;
use super::state::{self, StateArgs};
use super::{Exit, Failure, no_plan, output, shapes};
use crate::fleet::Fleet;
use crate::graph::{Limits, Task, TaskGraph};
use crate::plan::policy::UnknownPolicy;
use crate::plan::usage::Usage;
use crate::plan::{self, Objective, Options, Plan, PlanError, Policy};
use crate::report::bench::{self, Comparison, Entry, Gantt, Trial};
use crate::report::paint::Colour;
use crate::report::text;
use crate::run::learn::Basis;
use crate::spec::Pipeline;
use crate::timing::DEFAULT_DURATION;
use crate::units::Millis;

mod arrivals;
mod copy;
mod live;
mod trace;

/// Compare policies on pipelines and fleets: how long, how far from the best, how full
#[derive(Args)]
pub(super) struct Command {
    /// Pipeline files; without any, the shapes of usual pipelines on usual machines
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<PathBuf>,
    /// Fleets to plan for; this machine when absent
    #[arg(long = "fleet", value_name = "FILE", value_delimiter = ',')]
    fleets: Vec<PathBuf>,
    /// Policies, `*+FIT`, `ORDER+*` or `all` [default: every order, every fit and every search once; with --live `auto` and
    /// `fifo+first-fit`]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = selected)]
    policies: Vec<Vec<Policy>>,
    /// How often each policy plans, each time with another seed
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=1_000)
    )]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = planning::whole)]
    seed: u64,
    /// Schedules that each search may try, alike for all
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 1_000,
        value_parser = planning::whole,
        conflicts_with = "budget"
    )]
    evaluations: u64,
    /// Time that each search may take, instead of a number of schedules
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    budget: Option<Millis>,
    /// How long a task runs with `time-slice` before others have their turn [default: 1m]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = planning::quantum)]
    quantum: Option<Millis>,
    /// What plans are to be good for, and are compared by: `makespan`, `weighted-completion`, or, with fleets that say watts,
    /// `energy`
    #[arg(long, value_name = "NAME", default_value_t)]
    objective: Objective,
    /// Use the durations of the newest recorded run of each pipeline instead of those that it declares or that were learned
    #[arg(long)]
    from_history: bool,
    #[command(flatten)]
    live: live::Arguments,
    #[command(flatten)]
    state: StateArgs,
    /// Override a value of every file: `--set train.with.epochs=5`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    sets: Vec<String>,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also write a page with tables and charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    replaying: Replaying,
}

/// Reads what one name between commas stands for.
fn selected(text: &str) -> Result<Vec<Policy>, UnknownPolicy> {
    Policy::select(text.trim())
}

/// Leaves out what was named before.
fn each_once<T: Copy + Eq + Hash>(mut named: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::new();
    named.retain(|one| seen.insert(*one));
    named
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure { exit: Exit::Bug, report: miette::miette!("cannot write {}: {error}", path.display()) }
}

/// A pipeline and a fleet to compare policies on.
struct Case {
    /// The pipeline's file; `None` of the usual shapes.
    file: Option<PathBuf>,
    pipeline: Pipeline,
    graph: TaskGraph,
    fleet: Fleet,
}

impl Case {
    /// Fills in what the file leaves open by what earlier runs used, as `plan` and `run` do, and what was recorded of a
    /// run. Returns the stages of which it is not known how long they take.
    fn learn(&mut self, bench: &Command, recorded: Option<&Recorded>) -> BTreeSet<String> {
        let Self { file, pipeline, graph, fleet } = self;
        let Some(file) = file else { return BTreeSet::new() };
        let origins = Planning::learn(pipeline, fleet, &bench.history(file));
        let is_guessed = |task: &Task| {
            let modes = pipeline.stages[task.stage].modes.len();
            let guessed = (0..modes).any(|mode| origins.mode(task.stage, mode).duration == Basis::Default);
            guessed && !recorded.is_some_and(|recorded| recorded.has(task))
        };
        let guessed = graph.tasks.iter().filter(|task| is_guessed(task));
        let guessed = guessed.map(|task| pipeline.stages[task.stage].name.clone()).collect();
        if let Some(recorded) = recorded {
            recorded.write_into(pipeline, graph, fleet);
        }
        guessed
    }
}

/// Says of which stages plans do not know how long they take.
fn say_what_is_guessed(guessed: &BTreeSet<String>) {
    let names: Vec<_> = guessed.iter().map(|name| format!("`{}`", text::visible(name))).collect();
    if !names.is_empty() {
        let names = names.join(", ");
        output::note(&format!(
            "taken to need {DEFAULT_DURATION} each, until `duration` or a run that succeeded says it: {names}"
        ));
    }
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if let Some(path) = &self.replaying.trace {
            return self.replaying.run(path, &self);
        }
        self.replaying.refuse()?;
        let cases = match self.cases()? {
            Ok(cases) => cases,
            Err(exit) => return Ok(exit),
        };
        if self.live.live {
            live::get_ready(&self, &cases)?;
        }
        let policies: Vec<Policy> = match self.policies.concat() {
            none if none.is_empty() && self.live.live => live::usual(),
            none if none.is_empty() => Policy::usual().into_iter().filter(|policy| self.can(*policy)).collect(),
            named => each_once(named),
        };
        if let Some(policy) = policies.first().filter(|_| !policies.iter().any(|policy| self.can(*policy)))
            && let Some(case) = cases.first()
        {
            let error = PlanError::OnlyMakespan { policy: *policy, objective: self.objective };
            return Err(no_plan::failure(&case.pipeline, &error));
        }
        let mut progress = Progress::new(cases.len() * policies.len() * usize::try_from(self.seeds).unwrap_or(1));
        let mut comparisons = Vec::with_capacity(cases.len());
        // Where one pipeline can never run, the others are compared all the same.
        let mut impossible: Option<Failure> = None;
        let mut possible = Vec::with_capacity(cases.len());
        for case in cases {
            match self.compare(&case, &policies, &mut progress) {
                Ok(comparison) => {
                    comparisons.push(comparison);
                    possible.push(case);
                }
                Err(failure) if failure.exit == Exit::Impossible => {
                    if let Some(earlier) = impossible.replace(failure) {
                        progress.clear();
                        output::warn(&earlier.report.to_string());
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        progress.clear();
        if comparisons.is_empty()
            && let Some(failure) = impossible
        {
            return Err(failure);
        }
        let ended = if self.live.live {
            live::carry_out(&self, &possible, &policies, &mut comparisons)
        } else {
            Ok(Exit::Done)
        };
        // What was measured before something went wrong is shown all the same.
        self.show(&comparisons)?;
        impossible.map_or(ended, Err)
    }

    /// Writes the page, if one is wanted.
    fn keep_page(&self, page: impl FnOnce() -> String) -> Result<(), Failure> {
        let Some(path) = &self.html else { return Ok(()) };
        std::fs::write(path, page()).map_err(|error| unwritten(path, &error))
    }

    fn show(&self, comparisons: &[Comparison]) -> Result<Exit, Failure> {
        self.keep_page(|| bench::page(comparisons))?;
        if self.json {
            return output::print_json(&bench::rows(comparisons));
        }
        if self.csv {
            return output::print(&bench::csv(comparisons));
        }
        let texts = comparisons.iter().map(|one| one.text(Colour::for_stdout(), output::columns()));
        output::print(&texts.collect::<Vec<_>>().join("\n"))
    }

    fn file(&self, path: &Path) -> PipelineFile {
        let max_tasks = Limits::default().max_tasks;
        PipelineFile { file: path.to_owned(), sets: self.sets.clone(), max_tasks }
    }

    /// Returns the state folder that knows what earlier runs of a pipeline used.
    fn history(&self, file: &Path) -> PathBuf {
        let beside = || self.file(file).folder().join(state::FOLDER);
        self.state.named().map_or_else(beside, Path::to_owned)
    }

    /// Whether a policy knows the objective.
    fn can(&self, policy: Policy) -> bool {
        self.objective == Objective::Makespan || !matches!(policy, Policy::Search(_))
    }

    /// Returns every pipeline on every fleet.
    fn cases(&self) -> Result<Result<Vec<Case>, Exit>, Failure> {
        let mut pipelines = Vec::new();
        for path in &self.pipelines {
            match self.file(path).load(self.live.live)? {
                Ok(loaded) => pipelines.push(loaded),
                Err(exit) => return Ok(Err(exit)),
            }
        }
        let unnamed = pipelines.is_empty();
        if unnamed {
            pipelines = shapes::pipelines();
        }
        let mut cases = Vec::new();
        for (at, (pipeline, graph)) in pipelines.into_iter().enumerate() {
            let file = self.pipelines.get(at).cloned();
            let recorded = self.from_history.then(|| Recorded::newest(&self.state, &pipeline)).transpose()?;
            if let Some(recorded) = &recorded {
                recorded.say_what_is_untold(&graph);
            }
            let mut fleets = Vec::new();
            for path in &self.fleets {
                match planning::fleet_of_file(path)? {
                    Ok(fleet) => fleets.push(fleet),
                    Err(exit) => return Ok(Err(exit)),
                }
            }
            match (fleets.is_empty(), unnamed) {
                (true, true) => fleets = shapes::fleets(),
                (true, false) => fleets.push(planning::fleet_of_this_machine(&pipeline)),
                (false, _) => {}
            }
            for (nth, fleet) in fleets.into_iter().enumerate() {
                let (pipeline, graph, file) = (pipeline.clone(), graph.clone(), file.clone());
                let mut case = Case { file, pipeline, graph, fleet };
                let guessed = case.learn(self, recorded.as_ref());
                // The same is not known for any of the fleets.
                if nth == 0 {
                    say_what_is_guessed(&guessed);
                }
                cases.push(case);
            }
        }
        Ok(Ok(cases))
    }

    fn compare(&self, case: &Case, policies: &[Policy], progress: &mut Progress) -> Result<Comparison, Failure> {
        let Case { pipeline, graph, fleet, .. } = case;
        let mut best: Option<Plan> = None;
        let mut entries = Vec::with_capacity(policies.len());
        for policy in policies {
            let mut trials = Ok(Vec::new());
            for seed in (0..self.seeds).map(|more| self.seed.wrapping_add(more)) {
                progress.next(&format!("{policy} on {}", fleet.name));
                let Ok(found) = &mut trials else { continue };
                match self.plan(case, *policy, seed) {
                    Ok((plan, planning_us)) => {
                        let usage = Usage::of(pipeline, graph, fleet, &plan);
                        found.push(Trial::new(seed, &plan, planning_us, usage));
                        let worth = |plan: &Plan| (plan.measured().0, plan.makespan);
                        if best.as_ref().is_none_or(|best| worth(&plan) < worth(best)) {
                            best = Some(plan);
                        }
                    }
                    // One policy may fail to keep to the budgets, or know the makespan only, where another does better.
                    Err(error @ (PlanError::Budgets | PlanError::OnlyMakespan { .. })) => {
                        trials = Err(error.to_string())
                    }
                    Err(error) => return Err(no_plan::failure(pipeline, &error)),
                }
            }
            entries.push(Entry { policy: policy.to_string(), trials, live: None });
        }
        let chart = best.filter(|_| self.html.is_some()).map(|plan| Gantt::new(graph, fleet, &plan));
        let (tasks, devices) = (graph.len(), fleet.devices.len());
        let (pipeline, fleet, objective) = (pipeline.name.clone(), fleet.name.clone(), self.objective);
        Ok(Comparison { pipeline, tasks, fleet, devices, objective, entries, chart })
    }

    /// Makes one plan and returns it with how long that took, in microseconds.
    fn plan(&self, case: &Case, policy: Policy, seed: u64) -> Result<(Plan, u64), PlanError> {
        let watch = Stopwatch::start();
        let clock = || watch.elapsed();
        let evaluations = self.budget.is_none().then_some(self.evaluations);
        let limits = plan::Limits { evaluations, budget: self.budget, clock: Some(&clock) };
        let options =
            Options { policy, seed, limits, objective: self.objective, quantum: self.quantum, ..Options::default() };
        let plan = plan::make(&case.pipeline, &case.graph, &case.fleet, &options)?;
        Ok((plan, watch.micros()))
    }
}

/// How far the comparison is, on a terminal only.
struct Progress {
    term: console::Term,
    watch: Stopwatch,
    done: usize,
    all: usize,
    shown: Millis,
}

/// Between two drawings.
const REDRAW: Millis = Millis(100);

impl Progress {
    fn new(all: usize) -> Self {
        Self { term: console::Term::stderr(), watch: Stopwatch::start(), done: 0, all, shown: Millis::ZERO }
    }

    /// Says that the next plan is being made, and how long the rest may take.
    fn next(&mut self, what: &str) {
        let left = self.watch.elapsed().0 / self.done.max(1) as u64 * (self.all - self.done) as u64;
        self.tell(&format!("{what}, about {} left", Millis(left.next_multiple_of(1_000))));
        self.done += 1;
    }

    /// Says what is being done, not too often.
    fn tell(&mut self, what: &str) {
        let now = self.watch.elapsed();
        if self.term.is_term() && now >= self.shown + REDRAW {
            self.shown = now;
            let filled = self.done * 20 / self.all.max(1);
            let bar = "#".repeat(filled) + &".".repeat(20 - filled);
            let line = format!("[{bar}] {}/{} {what}", self.done, self.all);
            let line = crate::report::text::fit_middle(&line, usize::from(self.term.size().1)).into_owned();
            // A terminal that cannot be drawn on shows nothing; the comparison goes on.
            drop(self.term.clear_line().and_then(|()| write!(&self.term, "\r{line}")));
        }
    }

    fn clear(&self) {
        if self.term.is_term() {
            drop(self.term.clear_line());
        }
    }
}
