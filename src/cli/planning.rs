//! The arguments that say for what and how to plan, taken alike by every subcommand that plans.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;

use super::problems::Texts;
use super::searching::{Place, Searching};
use super::threads::Threads;
use super::timing::{Timer, Where};
use super::{Exit, Failure, contradiction, models, no_plan, output, patience};
use crate::batch::search::Searcher;
use crate::fleet::{Fleet, Headroom, Link, NodeId, file};
use crate::graph::TaskGraph;
use crate::plan::order::OrderRule;
use crate::plan::policy::Engine;
use crate::plan::proof::{self, NoProof, Proof};
use crate::plan::team::Team;
use crate::plan::turns::{QUANTUM, QUANTUM_LEAST};
use crate::plan::{self, Objective, Plan, Policy};
use crate::probe::{self, Machine, mps};
use crate::report::text;
use crate::run::learn::{self, Basis, Exceeded, Origins, Sample};
use crate::run::limit;
use crate::run::store::{Invocation, Store, StoreError, Turns};
use crate::spec::{Backup, Gpus, MemoryLimit, Pipeline, Source, Stage};
use crate::timing::Timing;
use crate::units::{Bytes, Millis, ParseUnitError};

/// Says what `--headroom` does, where that is absent.
const HEADROOM: &str = "TRAINYARD_HEADROOM";

/// Arguments of planning.
#[derive(Args, Clone, Debug)]
pub(super) struct Planning {
    /// Plan for the hardware in this file instead of this machine
    #[arg(long, value_name = "FILE")]
    pub(super) fleet: Option<PathBuf>,
    /// `auto`, a search, or ORDER+FIT like `critical-path+best-fit`
    ///
    /// Searches: ga, sa, lns, aco, pso, exact.
    /// Orders: fifo, sjf, ljf, priority, critical-path, least-slack, most-successors, efficiency, time-slice (stages that may
    /// be suspended take turns).
    /// Fits: earliest-finish, first-fit, best-fit, worst-fit, dot-product, fragmentation, random, round-robin, least-loaded,
    /// least-connections.
    /// An order alone goes with `earliest-finish`, a fit alone with `critical-path`.
    #[arg(long, value_name = "NAME", default_value_t)]
    policy: Policy,
    /// How long a task runs with `time-slice` before others have their turn [default: 1m]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = quantum)]
    quantum: Option<Millis>,
    /// Equal seeds give equal plans, unless time runs out: with `--evaluations` always
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = whole)]
    seed: u64,
    /// Time that `auto` may spend on a better plan; `0s` takes the first one
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    budget: Option<Millis>,
    /// Schedules that may be tried: a limit that does not depend on the machine
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole)]
    evaluations: Option<u64>,
    /// What a good plan is: `makespan`, `weighted-completion`, or, with a fleet file that says watts, `energy`
    #[arg(long, value_name = "NAME", default_value_t)]
    objective: Objective,
    /// What of each GPU's memory no task may have: a size, a part, or both [default: $TRAINYARD_HEADROOM or 512MiB+2%]
    #[arg(long, value_name = "SIZE")]
    headroom: Option<Headroom>,
    /// Who computes the earliest and latest times: the CPU, a CUDA device, or whoever is faster
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    timing: Where,
    /// Let `ga`, `sa`, `aco`, `pso` or `auto` search among orders by the thousand there first: `cuda:0`, or `cpu`
    #[arg(long, value_name = "WHERE")]
    device: Option<Place>,
    /// Let `ga`, `sa`, `lns`, `aco` or `pso` search on N islands at once, which share the schedules that may be tried
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=64))]
    islands: Option<u32>,
}

/// Reads a number that cannot be out of range but by its sign or its length.
pub(super) fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("write a whole number from 0 to {}", u64::MAX))
}

/// Reads how long a turn lasts.
pub(super) fn quantum(text: &str) -> Result<Millis, String> {
    let quantum: Millis = text.parse().map_err(|error: ParseUnitError| error.to_string())?;
    if quantum < QUANTUM_LEAST {
        return Err(format!("a process is not stopped more often than every {QUANTUM_LEAST}"));
    }
    Ok(quantum)
}

impl Planning {
    /// Returns the fleet to plan for, or prints what is wrong with its file.
    pub(super) fn fleet(&self, pipeline: &Pipeline) -> Result<Result<Fleet, Exit>, Failure> {
        let Some(path) = &self.fleet else { return Ok(Ok(this_machine(pipeline, &self.probe()?).fleet())) };
        let headroom = self.headroom()?;
        let fleet = fleet_of_file(path)?;
        if let Ok(fleet) = &fleet {
            contradiction::say(fleet, &self.probe()?);
        }
        Ok(fleet.map(|mut fleet| {
            if let Some(headroom) = headroom {
                fleet.devices.iter_mut().for_each(|device| device.headroom = headroom.of(device.memory));
            }
            fleet
        }))
    }

    /// Returns how long a turn lasts with `time-slice`.
    pub(super) fn quantum(&self) -> Millis {
        self.quantum.unwrap_or(QUANTUM)
    }

    /// Returns how turns are taken, so that whoever goes on with a run goes on so; `None` where none are.
    pub(super) fn turns(&self) -> Option<Turns> {
        let policy = self.policy.to_string();
        matches!(self.policy, Policy::List(OrderRule::TimeSlice, _)).then(|| Turns { policy, quantum: self.quantum() })
    }

    /// Returns these with turns and headroom as they were before, unless others are asked for.
    pub(super) fn going_on(&self, before: &Invocation) -> Self {
        let asked = self.policy != Policy::default();
        let planning = Self { headroom: self.headroom.or(before.headroom), ..self.clone() };
        let Some(Turns { policy, quantum }) = before.turns.as_ref().filter(|_| !asked) else { return planning };
        let policy = policy.parse().unwrap_or_default();
        Self { policy, quantum: self.quantum.or(Some(*quantum)), ..planning }
    }

    /// Returns where to look for this machine's devices, and how much of them is left free.
    pub(super) fn probe(&self) -> Result<probe::Options, Failure> {
        let options = probe::Options::from_env();
        Ok(probe::Options { headroom: self.headroom()?.unwrap_or(options.headroom), ..options })
    }

    /// Returns the headroom that is asked for, by the option or else by the variable.
    pub(super) fn headroom(&self) -> Result<Option<Headroom>, Failure> {
        let set = std::env::var_os(HEADROOM).filter(|set| self.headroom.is_none() && !set.is_empty());
        let Some(set) = set else { return Ok(self.headroom) };
        let set = set.to_string_lossy();
        set.parse().map(Some).map_err(|error| {
            let report = miette::miette!("{HEADROOM}=\"{}\": {error}", text::visible(&set));
            Failure { exit: Exit::Usage, report }
        })
    }

    /// Fills in what the pipeline leaves open by what earlier runs in this state folder used, and says where its numbers
    /// come from, and which of those declared were seen to be too small or are of models that are not there. A record that cannot be read leaves them open.
    pub(super) fn learn(pipeline: &mut Pipeline, fleet: &Fleet, dir: &Path) -> Origins {
        models::say_which_are_missing(pipeline, fleet);
        if !learn::has_open_numbers(pipeline) && !learn::declares_memory(pipeline) {
            return Origins::of(pipeline);
        }
        let history = history(pipeline, dir).unwrap_or_else(|error| {
            if !matches!(error, StoreError::NoState(_)) {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                let words = format!("{error}{cause}");
                output::warn(&format!("what earlier runs used is not known: {}", text::visible(&words)));
            }
            Vec::new()
        });
        say_what_holds_more(pipeline, &learn::exceeded(pipeline, fleet, &history));
        let origins = learn::fill_in(pipeline, fleet, &history);
        say_what_needs_more(pipeline, &origins);
        origins
    }

    /// Makes a plan.
    pub(super) fn make(&self, pipeline: &Pipeline, graph: &TaskGraph, fleet: &Fleet) -> Result<Plan, Failure> {
        Ok(self.make_timed(pipeline, graph, fleet)?.0)
    }

    /// Makes a plan for the tasks that are not done (`[n_tasks]`); those that are take no time in it.
    pub(super) fn make_rest(
        &self,
        pipeline: &Pipeline,
        graph: &TaskGraph,
        fleet: &Fleet,
        done: &[bool],
    ) -> Result<Plan, Failure> {
        if !done.contains(&true) {
            return self.make(pipeline, graph, fleet);
        }
        let (rest, left) = graph.rest(done);
        Ok(self.make(pipeline, &rest, fleet)?.among(&left, graph.len()))
    }

    /// Makes a plan; returns it with the earliest and latest times that it rests on.
    pub(super) fn make_timed(
        &self,
        pipeline: &Pipeline,
        graph: &TaskGraph,
        fleet: &Fleet,
    ) -> Result<(Plan, Timing), Failure> {
        if self.device.is_some() && (self.policy.in_batches().is_none() || self.objective != Objective::Makespan) {
            let Self { policy, objective, .. } = self;
            let words = format!(
                "`--device` is for the makespan and `ga`, `sa`, `aco`, `pso` or `auto`, not for {objective} and `{policy}`"
            );
            return Err(Failure { exit: Exit::Usage, report: miette::miette!("{words}") });
        }
        if self.islands.is_some() && !matches!(self.policy, Policy::Search(engine) if engine != Engine::Exact) {
            let report = miette::miette!(
                help = "name one of these with `--policy`, or leave `--islands` out",
                "`--islands` is for `ga`, `sa`, `lns`, `aco` and `pso`, not for `{}`",
                self.policy
            );
            return Err(Failure { exit: Exit::Usage, report });
        }
        let searching = self.device.map(Searching::new);
        let watch = Stopwatch::start();
        let clock = || watch.elapsed();
        let limits = plan::Limits { evaluations: self.evaluations, budget: self.budget, clock: Some(&clock) };
        let options = plan::Options {
            policy: self.policy,
            seed: self.seed,
            limits,
            objective: self.objective,
            searcher: searching.as_ref().map(|searching| searching as &dyn Searcher),
            islands: self.islands.map(|count| Team { count, crew: &Threads }),
            decoders: Some(Team { count: decoders(), crew: &Threads }),
            quantum: self.quantum,
        };
        let timer = Timer::new(self.timing);
        let plan = plan::make_timed(pipeline, graph, fleet, &options, &timer);
        let plan = plan.map_err(|error| no_plan::failure(pipeline, &error))?;
        searching.iter().for_each(|searching| searching.say_if_idle(&plan));
        say_what_falls_back(pipeline, graph, &plan);
        say_what_needs_no_link(graph, fleet, &plan);
        Ok((plan, timer.into_timing()))
    }

    /// Writes a proof that no plan ends before `bound` to a file, and what it is about to another beside it.
    pub(super) fn prove(
        &self,
        of: (&Pipeline, &TaskGraph, &Fleet),
        bound: Millis,
        file: &Path,
    ) -> Result<Proof, NoProof> {
        let watch = Stopwatch::start();
        let clock = || watch.elapsed();
        let limited = self.evaluations.is_some() || self.budget.is_some();
        let budget = self.budget.or((!limited).then_some(LONGEST_PROOF));
        let limits = plan::Limits { evaluations: self.evaluations, budget, clock: Some(&clock) };
        let proof = proof::prove(of, bound, file, &limits).and_then(|proof| {
            let statement = serde_json::to_vec(&proof.statement).expect("plain data with text keys");
            std::fs::write(about(file), statement).map_err(NoProof::File)?;
            Ok(proof)
        });
        proof.inspect_err(|_| drop(std::fs::remove_file(file)))
    }

    /// Refuses a proof from whoever makes none.
    pub(super) fn can_prove(&self) -> Result<(), Failure> {
        if self.policy == Policy::Search(Engine::Exact) && self.objective == Objective::Makespan {
            return Ok(());
        }
        let report = miette::miette!(
            help = "plan with `--policy exact` for the makespan",
            "only `exact` proves a bound, that of the makespan; this would plan for {} with `{}`",
            self.objective,
            self.policy
        );
        Err(Failure { exit: Exit::Usage, report })
    }
}

/// Threads that make schedules at once, at most: beyond, a generation of a search has too few for each.
const DECODERS: usize = 8;

fn decoders() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores.min(DECODERS)).unwrap_or(1)
}

/// The time that a proof may take where nobody says.
const LONGEST_PROOF: Millis = Millis(10_000);

/// Returns where it stands what the steps of a proof are about.
pub(super) fn about(proof: &Path) -> PathBuf {
    proof.with_added_extension("json")
}

/// Returns what earlier runs used for stages like those of the pipeline.
fn history(pipeline: &Pipeline, dir: &Path) -> Result<Vec<Sample>, StoreError> {
    let mut store = Store::open_existing(dir)?;
    store.learn()?;
    let of = |stage| move |mode| learn::definition(pipeline, stage, mode);
    let definitions: BTreeSet<_> = pipeline.stages.iter().flat_map(|stage| stage.modes.iter().map(of(stage))).collect();
    store.history(definitions.iter().map(String::as_str))
}

/// Reads a fleet file, or prints what is wrong with it.
pub(super) fn fleet_of_file(path: &Path) -> Result<Result<Fleet, Exit>, Failure> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| Failure { exit: Exit::Rejected, report: miette::miette!("cannot read {name}: {error}") })?;
    let (source, problem) = Source::from_bytes(name, bytes);
    let fleet = problem.map_or_else(|| file::parse(&source), |problem| Err(vec![problem]));
    Ok(fleet.map_err(|problems| Texts::new(source, &[]).reject(&problems)))
}

/// Returns what this machine has.
pub(super) fn fleet_of_this_machine(pipeline: &Pipeline) -> Fleet {
    this_machine(pipeline, &probe::Options::from_env()).fleet()
}

/// The clock of a budget.
pub(super) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the clock of a budget starts where the command does")]
    pub(super) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(super) fn elapsed(&self) -> Millis {
        Millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn micros(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Looks at this machine. Says so where stages ask for a GPU and there is none.
pub(super) fn this_machine(pipeline: &Pipeline, options: &probe::Options) -> Machine {
    let machine = patience::asking_driver(|| probe::this_machine(options));
    machine.warnings.iter().for_each(|warning| output::warn(&format!("{warning}")));
    let mut modes = pipeline.stages.iter().flat_map(|stage| &stage.modes);
    if modes.any(|mode| mode.resources.gpus != Gpus::None) {
        let unknown = machine.models_of_unknown_speed();
        if let probe::Gpus::None { reason, .. } = &machine.gpus {
            output::note(&reason.to_string());
        } else if !unknown.is_empty() {
            let unknown = text::visible(&unknown.join(", ")).into_owned();
            output::note(&format!(
                "how fast {unknown} is compared to the other GPUs is not known: taken to be as slow as the slowest that is; `trainyard devices --calibrate` measures it, `duration` by model says it"
            ));
        }
    }
    machine
}

/// Says which stages would rather have a GPU than the CPU that they get.
fn say_what_falls_back(pipeline: &Pipeline, graph: &TaskGraph, plan: &Plan) {
    let placed = graph.tasks.iter().zip(&plan.placed);
    let falls_back = placed.filter(|(task, placed)| pipeline.stages[task.stage].modes[placed.mode].fallback);
    let stages: BTreeSet<usize> = falls_back.map(|(task, _)| task.stage).collect();
    let names = stages.iter().map(|stage| format!("`{}`", text::visible(&pipeline.stages[*stage].name)));
    let names: Vec<String> = names.collect();
    if !names.is_empty() {
        output::note(&format!("on the CPU, since no GPU could hold it: {}", names.join(", ")));
    }
}

/// Says between which nodes data takes no time because the fleet file has no link for it.
fn say_what_needs_no_link(graph: &TaskGraph, fleet: &Fleet, plan: &Plan) {
    let joined = |ends: (NodeId, NodeId)| {
        let is = |link: &Link| link.between == ends || link.between == (ends.1, ends.0);
        fleet.links.iter().any(is)
    };
    let mut pairs = BTreeMap::new();
    for (task, placed) in graph.ids().zip(&plan.placed) {
        for edge in graph.before.of(task).iter().filter(|edge| edge.data > Bytes::ZERO) {
            let from = plan.placed[edge.task.index()].node;
            if from != placed.node && !joined((from, placed.node)) {
                let ends = (from.min(placed.node), from.max(placed.node));
                let most: &mut Bytes = pairs.entry(ends).or_default();
                *most = edge.data.max(*most);
            }
        }
    }
    let name = |node: &NodeId| text::visible(&fleet.nodes[node.index()].name).into_owned();
    let mut names = pairs.iter().map(|((a, b), most)| format!("{} and {} (up to {most})", name(a), name(b)));
    if let Some(first) = names.next() {
        let more = names.len();
        let rest = if more > 0 { format!(", nor for {more} more pairs of nodes") } else { String::new() };
        output::note(&format!(
            "no [[link]] for {first}{rest}: data is taken to need no time there, as on a shared file system"
        ));
    }
}

/// Says which stages were seen to need more of a GPU than they declare.
fn say_what_holds_more(pipeline: &Pipeline, exceeded: &[Exceeded]) {
    let name = |stage: usize| text::visible(&pipeline.stages[stage].name);
    let each = exceeded.iter().map(|&Exceeded { stage, declared, seen, ran_out }| {
        let how = if ran_out { "ran out with" } else { "held" };
        format!("`{}` {how} {seen} instead of {declared}", name(stage))
    });
    let each: Vec<_> = each.collect();
    if !each.is_empty() {
        output::warn(&format!(
            "seen to need more GPU memory than declared, so others beside it may run out: {} (raise `gpu_memory`, or write \"auto\")",
            each.join(", ")
        ));
    }
}

/// Says which stages were seen to need more of a device than any gives.
fn say_what_needs_more(pipeline: &Pipeline, origins: &Origins) {
    for (index, stage) in pipeline.stages.iter().enumerate() {
        let numbers = (0..stage.modes.len()).map(|mode| origins.mode(index, mode));
        let needs = numbers.filter_map(|numbers| Some((numbers.too_small?, numbers.beyond?))).max();
        if let Some((gives, needs)) = needs {
            output::warn(&format!(
                "`{}` will hardly have enough memory: earlier runs have seen it hold {needs} of a GPU, or find that too \
                 little, and the most that one gives which may be used here is {gives}",
                text::visible(&stage.name)
            ));
        }
    }
}

/// Says which stages get a GPU to themselves because nobody knows how much of one they need.
pub(super) fn say_what_is_unknown(pipeline: &Pipeline, origins: &Origins) {
    let unknown = |stage: usize, modes: usize| {
        (0..modes).any(|mode| origins.mode(stage, mode).gpu_memory == Some(Basis::Default))
    };
    let stages = pipeline.stages.iter().enumerate().filter(|(index, stage)| unknown(*index, stage.modes.len()));
    let names: Vec<_> = stages.map(|(_, stage)| format!("`{}`", text::visible(&stage.name))).collect();
    if !names.is_empty() {
        output::note(&format!(
            "alone on a GPU until it is known how much of its memory they need: {}",
            names.join(", ")
        ));
    }
}

/// Says of which stages no second attempt is started because nobody knows how long the first one should take.
pub(super) fn say_which_have_no_backup(pipeline: &Pipeline, origins: &Origins) {
    let unknown =
        |stage: usize, modes: usize| (0..modes).any(|mode| origins.mode(stage, mode).duration == Basis::Default);
    let stages = pipeline.stages.iter().enumerate().filter(|(index, stage)| {
        matches!(stage.backup, Some(Backup::After { .. })) && unknown(*index, stage.modes.len())
    });
    let names: Vec<_> = stages.map(|(_, stage)| format!("`{}`", text::visible(&stage.name))).collect();
    if !names.is_empty() {
        let names = names.join(", ");
        output::say(&format!(
            "no backup until it is known how long they take (`duration` says it, and a run that succeeds): {names}"
        ));
    }
}

/// Says which stages want a limit that nobody here keeps, or that is not what their memory says.
pub(super) fn say_what_is_not_limited(pipeline: &Pipeline, fleet: &Fleet, around: &BTreeMap<String, String>) {
    let mps = mps::runs();
    let reserves = |stage: &&Stage| stage.modes.iter().any(|mode| mode.resources.reserves_memory());
    let names_of = |is: &dyn Fn(MemoryLimit) -> bool| {
        let wants = pipeline.stages.iter().filter(|stage| is(stage.memory_limit)).filter(reserves);
        wants.map(|stage| format!("`{}`", text::visible(&stage.name))).collect::<Vec<_>>().join(", ")
    };
    let want_mps = names_of(&|limit| limit == MemoryLimit::Mps);
    if !want_mps.is_empty() && !mps {
        output::note(&format!(
            "no MPS server runs here (nvidia-cuda-mps-control -d starts one); watched instead: {want_mps}"
        ));
    }
    let watched = names_of(&|limit| limit::in_force(limit, mps) == MemoryLimit::Watch);
    let hidden: Vec<_> = fleet.devices.iter().filter(|device| device.hidden).map(|device| device.id.as_str()).collect();
    if !watched.is_empty() && !hidden.is_empty() {
        let hidden = text::visible(&hidden.join(", ")).into_owned();
        output::warn(&format!(
            "the driver hides who holds the memory of {hidden}, as in containers: not watched there: {watched}"
        ));
    }
    for stage in pipeline.stages.iter().filter(reserves) {
        let of_stage = |name: &str| stage.env.get(name).or_else(|| pipeline.env.get(name)).or_else(|| around.get(name));
        let kept = limit::kept(limit::in_force(stage.memory_limit, mps), |name| of_stage(name).cloned());
        if !kept.is_empty() {
            let (stage, kept) = (text::visible(&stage.name), kept.join(", "));
            output::note(&format!(
                "`{stage}` is limited by {kept} as set by itself or around us, not by what is reserved for it"
            ));
        }
    }
}
