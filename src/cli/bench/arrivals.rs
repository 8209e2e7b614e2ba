//! `trainyard bench --trace PATH`: requests that arrive one by one at a cluster, placed by every fit, without running any.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Command, Progress, each_once, trace, unwritten};
use crate::cli::planning::Stopwatch;
use crate::cli::{Exit, Failure, output};
use crate::plan::arrivals::{Order, Outcome, Rule, Trace, replay};
use crate::report::bench;
use crate::report::bench::arrivals::{Replayed, Replays};
use crate::report::paint::Colour;

/// How much of all GPUs is asked for where nobody gives an order, in percent: what FGD was measured with.
const ASKED: u64 = 130;

/// Arguments that a replay has no use for.
const OF_PLANS: [&str; 11] = [
    "pipelines",
    "fleets",
    "policies",
    "evaluations",
    "budget",
    "quantum",
    "objective",
    "from_history",
    "live",
    "state",
    "sets",
];

/// Arguments of a replay.
#[derive(Args)]
pub(super) struct Replaying {
    /// Replay arrivals on a cluster instead: a CSV of pods, or a folder with `pods.csv` and `nodes.csv`
    #[arg(long, value_name = "PATH", conflicts_with_all = OF_PLANS)]
    pub(super) trace: Option<PathBuf>,
    /// Nodes of the cluster [default: `nodes.csv` beside the pods]
    #[arg(long, value_name = "FILE", requires = "trace")]
    nodes: Option<PathBuf>,
    /// Orders in which pods arrive [default: drawn ones, until they ask for 130 % of the GPUs]
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        value_delimiter = ',',
        requires = "trace",
        conflicts_with_all = ["seed", "seeds"]
    )]
    arrivals: Vec<PathBuf>,
    /// Fits to compare [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "trace")]
    fits: Vec<Rule>,
    /// Also write where each pod went: a CSV for each fit and order
    #[arg(long, value_name = "DIR", requires = "trace")]
    placements: Option<PathBuf>,
}

impl Replaying {
    /// Refuses arguments that are for a trace where there is none, which clap lets through beside a pipeline.
    pub(super) fn refuse(&self) -> Result<(), Failure> {
        let given = [
            ("--nodes", self.nodes.is_some()),
            ("--arrivals", !self.arrivals.is_empty()),
            ("--fits", !self.fits.is_empty()),
            ("--placements", self.placements.is_some()),
        ];
        let Some((name, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        let help =
            "give `--trace PODS.csv` instead of pipelines, or leave it out; fits of plans are named with `--policies`";
        let report = miette::miette!(help = help, "`{name}` is for arrivals at a cluster, and there is no `--trace`");
        Err(Failure { exit: Exit::Usage, report })
    }

    /// Replays the trace and prints what came of it, in the form that `command` asks for.
    pub(super) fn run(&self, path: &Path, command: &Command) -> Result<Exit, Failure> {
        let trace = trace::read(path, self.nodes.as_deref())?;
        let orders = self.orders(&trace, command)?;
        let rules = match self.fits.as_slice() {
            [] => Rule::ALL.map(|(_, rule)| rule).to_vec(),
            named => each_once(named.to_vec()),
        };
        let mut progress = Progress::new(rules.len() * orders.len());
        let mut entries = Vec::with_capacity(rules.len());
        for rule in rules {
            let mut replays = Vec::with_capacity(orders.len());
            for order in &orders {
                progress.next(&format!("{} of {}", rule.name(), order.name));
                let watch = Stopwatch::start();
                let outcome = replay(&trace, order, rule);
                replays.push(Replayed::new(&outcome, watch.micros()));
                self.keep(&trace, order, rule, &outcome)?;
            }
            entries.push((rule, replays));
        }
        progress.clear();
        let replays = Replays { trace: name_of(path), nodes: trace.nodes.len(), entries };
        command.keep_page(|| bench::replays(&replays))?;
        match (command.json, command.csv) {
            (true, _) => output::print_json(&replays.rows()),
            (false, true) => output::print(&replays.csv()),
            (false, false) => output::print(&replays.text(Colour::for_stdout(), output::columns())),
        }
    }

    fn orders(&self, trace: &Trace, command: &Command) -> Result<Vec<Order>, Failure> {
        let seeds = command.seed..;
        if self.arrivals.is_empty() {
            let seeds = seeds.take(usize::try_from(command.seeds).unwrap_or(1));
            return Ok(seeds.map(|seed| Order::drawn(trace, ASKED, seed)).collect());
        }
        self.arrivals.iter().zip(seeds).map(|(path, seed)| trace::order(path, trace, seed)).collect()
    }

    /// Writes where everything went, if that is wanted.
    fn keep(&self, trace: &Trace, order: &Order, rule: Rule, outcome: &Outcome) -> Result<(), Failure> {
        let Some(folder) = &self.placements else { return Ok(()) };
        let path = folder.join(format!("{}-{}.csv", rule.name(), name_of(Path::new(&order.name))));
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, csv(trace, order, outcome)));
        written.map_err(|error| unwritten(&path, &error))
    }
}

/// Returns a file's name without what says of which kind it is.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    name.split('.').find(|part| !part.is_empty()).unwrap_or("trace").to_owned()
}

/// Returns every arrival with its node and its devices, both empty for what was turned away.
fn csv(trace: &Trace, order: &Order, outcome: &Outcome) -> String {
    let mut out = "k,pod,node,gpus\r\n".to_owned();
    for (number, (pod, site)) in order.arrivals.iter().zip(&outcome.sites).enumerate() {
        let node = site.as_ref().map_or("", |site| &trace.nodes[site.node].name);
        let devices = site.iter().flat_map(|site| &site.devices).map(usize::to_string).collect::<Vec<_>>();
        let line = [number.to_string(), trace.requests[*pod].name.clone(), node.to_owned(), devices.join("-")];
        out += &line.map(bench::quoted).join(",");
        out += "\r\n";
    }
    out
}
