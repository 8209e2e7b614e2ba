//! Policies by name: `ORDER+FIT`, or `auto`. Does not know how a schedule is built.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::amounts::in_words;
use super::bound::{Bound, held};
use super::decode::{Direction, FREE};
use super::draft::Draft;
use super::exact;
use super::fit::FitRule;
use super::instance::{Instance, NodeRoom};
use super::machine;
use super::names::{by_name, name_of, names};
use super::order::{OrderRule, by_key, by_rank_with};
use super::search::genetic::Herd;
use super::search::{Search, ants, batches, genetic, local, swarm};
use super::{Options, Plan, PlanError, islands};
use crate::batch::search::Method;
use crate::fleet::NodeId;
use crate::graph::TaskId;
use crate::spec::problem::did_you_mean;
use crate::timing::Timing;

/// Who makes a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The best of several.
    #[default]
    Auto,
    /// One pass: tasks in this order, each to the place that fits it best.
    List(OrderRule, FitRule),
    /// A search by one engine.
    Search(Engine),
}

/// A way to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Genetic algorithm.
    Genetic,
    /// Simulated annealing.
    Annealing,
    /// Large neighbourhood search.
    Neighbourhood,
    /// Ant colony optimization.
    Ants,
    /// Particle swarm optimization.
    Swarm,
    /// Lazy clause generation on a relaxed problem, which raises the lower bound as well.
    Exact,
}

impl Engine {
    /// Every engine with its name on the command line.
    pub const ALL: [(&'static str, Self); 6] = [
        ("ga", Self::Genetic),
        ("sa", Self::Annealing),
        ("lns", Self::Neighbourhood),
        ("aco", Self::Ants),
        ("pso", Self::Swarm),
        ("exact", Self::Exact),
    ];
}

/// A policy that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy `{written}`: {}", match .near {
    Some(near) => format!("did you mean `{near}`?"),
    None => "write `auto`, a search (`ga`, `sa`, `lns`, `aco`, `pso`, `exact`), or ORDER+FIT like `critical-path+best-fit`".to_owned(),
})]
pub struct UnknownPolicy {
    /// What was written.
    pub written: String,
    /// What was probably meant.
    pub near: Option<String>,
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    /// Reads `auto`, `ORDER+FIT`, or one of the two alone: the other is then `critical-path` or `earliest-finish`.
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        let order = |name: &str| by_name(&OrderRule::ALL, name);
        let fit = |name: &str| by_name(&FitRule::ALL, name);
        if let Some(engine) = by_name(&Engine::ALL, text) {
            return Ok(Self::Search(engine));
        }
        let found = match text.split_once('+') {
            Some((first, second)) => order(first).zip(fit(second)),
            None if text == "auto" => return Ok(Self::Auto),
            None => order(text)
                .map(|order| (order, FitRule::EarliestFinish))
                .or_else(|| fit(text).map(|fit| (OrderRule::CriticalPath, fit))),
        };
        found.map(|(order, fit)| Self::List(order, fit)).ok_or_else(|| unknown(text))
    }
}

impl Policy {
    /// Returns the policies that a text names: one, all that `*` stands for in `ORDER+*`, `*+FIT` or `*+*`, or `all`.
    ///
    /// # Errors
    /// A name that is not known.
    pub fn select(text: &str) -> Result<Vec<Self>, UnknownPolicy> {
        let engines = || Engine::ALL.iter().map(|(_, engine)| Self::Search(*engine));
        let lists = |order: &str, fit: &str| -> Vec<Self> {
            let is = |wanted: &str, name: &str| wanted == "*" || wanted == name;
            let orders = OrderRule::ALL.iter().filter(|(name, _)| is(order, name));
            let fits = || FitRule::ALL.iter().filter(|(name, _)| is(fit, name));
            orders.flat_map(|(_, order)| fits().map(|(_, fit)| Self::List(*order, *fit))).collect()
        };
        if text == "all" {
            return Ok(lists("*", "*").into_iter().chain(engines()).chain([Self::Auto]).collect());
        }
        let found = text.split_once('+').filter(|_| text.contains('*')).map(|(order, fit)| lists(order, fit));
        match found {
            Some(found) if !found.is_empty() => Ok(found),
            Some(_) => Err(unknown(text)),
            None => text.parse().map(|policy| vec![policy]),
        }
    }

    /// Returns how it searches in batches; `None` where it does not.
    #[must_use]
    pub const fn in_batches(self) -> Option<Method> {
        match self {
            Self::Auto | Self::Search(Engine::Genetic) => Some(Method::Genetic),
            Self::Search(Engine::Annealing) => Some(Method::Annealing),
            Self::Search(Engine::Ants) => Some(Method::Ants),
            Self::Search(Engine::Swarm) => Some(Method::Swarm),
            Self::Search(Engine::Neighbourhood | Engine::Exact) | Self::List(..) => None,
        }
    }

    /// Returns what is compared where nobody says: every order with one fit, every fit with one order, and all searches.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let orders = OrderRule::ALL.iter().map(|(_, order)| Self::List(*order, FitRule::EarliestFinish));
        let rest = FitRule::ALL.iter().filter(|(_, fit)| *fit != FitRule::EarliestFinish);
        let fits = rest.map(|(_, fit)| Self::List(OrderRule::CriticalPath, *fit));
        let engines = Engine::ALL.iter().map(|(_, engine)| Self::Search(*engine));
        orders.chain(fits).chain(engines).chain([Self::Auto]).collect()
    }
}

fn unknown(text: &str) -> UnknownPolicy {
    let (orders, fits, engines) = (|| names(&OrderRule::ALL), || names(&FitRule::ALL), || names(&Engine::ALL));
    let near = match text.split_once('+') {
        // A search has no order and no fit; who has taken the one for the other is told how they stand.
        Some((search, _)) | Some((_, search)) if engines().any(|name| name == search) => Some(search.to_owned()),
        Some((first, second)) => {
            let pair = |order, fit| Some((did_you_mean(order, orders())?, did_you_mean(fit, fits())?));
            let found = pair(first, second).or_else(|| pair(second, first));
            found.map(|(order, fit)| format!("{order}+{fit}"))
        }
        None => {
            did_you_mean(text, ["auto"].into_iter().chain(engines()).chain(orders()).chain(fits())).map(str::to_owned)
        }
    };
    UnknownPolicy { written: text.to_owned(), near }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Search(engine) => f.pad(name_of(&Engine::ALL, engine)),
            Self::List(order, fit) => {
                f.pad(&format!("{}+{}", name_of(&OrderRule::ALL, order), name_of(&FitRule::ALL, fit)))
            }
        }
    }
}

/// Orders and fits that `auto` tries, the most promising first.
const PORTFOLIO: [(OrderRule, FitRule); 4] = [
    (OrderRule::CriticalPath, FitRule::EarliestFinish),
    (OrderRule::CriticalPath, FitRule::BestFit),
    (OrderRule::LeastSlack, FitRule::BestFit),
    (OrderRule::LongestFirst, FitRule::BestFit),
];

/// How much `auto` and the searches mind waste, in eighths: on pipelines of 1,000 stages for four fast and four slow
/// devices first plans with 4 are longer by 0.2 %, those with 5 and 8 by 0.1 %.
const THRIFT: u64 = 6;

/// Mean tasks that the critical path has room for, from which on what tasks hold counts in full in first plans.
const SPACIOUS: i128 = 60;

/// How many times their mean time edges count in further orders where data takes time.
const EDGES: [f64; 4] = [0.0, 0.5, 2.0, 4.0];

/// Nodes, each of another class, on which `auto` and the searches try to keep all tasks where data takes time.
const HOMES: usize = 4;

/// How often choices that stay in all budgets are looked for before there is said to be none.
pub(super) const REPAIRS: usize = 20;

/// Rounds of equal length that the searches of `auto` share, and those that the first of them has to itself.
const ROUNDS: (u64, u64) = (16, 8);

/// Tasks up to which `auto` tries its whole portfolio and searches unasked: beyond, one pass takes a tenth of a second
/// and hardly leaves anything to gain.
const PORTFOLIO_TASKS: usize = 20_000;

/// Tasks up to which `auto` searches exactly.
const EXACT_TASKS: usize = 130;

/// Lets a policy make a plan; `bound` and the check of the plan are the caller's.
pub(super) fn plan<'a>(
    instance: &'a Instance<'a>,
    timing: &'a Timing,
    bound: Bound,
    options: &Options<'a>,
) -> Result<Plan, PlanError> {
    let found = in_words!(machine::words(instance), W => Planner::<W>::new(instance, timing, bound, options).best());
    found.ok_or(PlanError::TooManyResources)?.map(|found| {
        let (lower_bound, bound_by) = (found.bound.time, found.bound.by);
        let plan = found.draft.into_plan(instance, options.policy.to_string());
        Plan { evaluations: found.evaluations, given_up: found.given_up, lower_bound, bound_by, ..plan }
    })
}

/// What a planner found.
struct Found {
    draft: Draft,
    bound: Bound,
    evaluations: u64,
    given_up: Option<String>,
}

struct Planner<'a, const W: usize> {
    options: Options<'a>,
    /// `[n_kinds]`: for how many milliseconds a task holds a whole device at least; empty for lists, where data takes time, or
    /// something else than devices is scarce.
    held: Vec<u64>,
    search: Search<'a, W>,
}

impl<'a, const W: usize> Planner<'a, W> {
    fn new(instance: &'a Instance<'a>, timing: &'a Timing, bound: Bound, options: &Options<'a>) -> Self {
        let search = Search::new(instance, timing, bound, options);
        Self { options: *options, held: Vec::new(), search }
    }

    fn best(mut self) -> Result<Found, PlanError> {
        match self.options.policy {
            Policy::List(order, fit) => self.list(order, fit),
            Policy::Auto => self.auto(),
            Policy::Search(engine) => {
                let has_lags = self.mind_waste();
                self.first();
                self.plain();
                self.batches();
                let run = match engine {
                    Engine::Genetic => genetic::run,
                    Engine::Annealing => local::anneal,
                    Engine::Neighbourhood => local::large,
                    Engine::Ants => ants::run,
                    Engine::Swarm => swarm::run,
                    Engine::Exact => exact::run,
                };
                match self.options.islands {
                    _ if engine == Engine::Exact => self.exact(has_lags),
                    Some(islands) => islands::run(&mut self.search, islands, &self.options, run),
                    None => run(&mut self.search),
                }
            }
        }
        let Search { bound, evaluations, .. } = self.search;
        let given_up = self.search.given_up.take();
        let best = self.search.into_best();
        best.map(|draft| Found { draft, bound, evaluations, given_up }).ok_or(PlanError::Budgets)
    }

    /// Lets free choices mind waste, and first plans what tasks hold, except where data takes time: there it also takes time to leave the node that has it,
    /// and what is dear elsewhere may be cheap. Returns whether data takes time.
    fn mind_waste(&mut self) -> bool {
        let has_lags = self.search.instance.has_lags();
        if !has_lags {
            self.search.decoder.mind_waste(THRIFT);
            self.held = held(self.search.instance);
        }
        has_lags
    }

    /// Several passes, then searches: an exact one where the pipeline is small enough.
    fn auto(&mut self) {
        let has_lags = self.mind_waste();
        self.first();
        self.portfolio(has_lags);
        self.batches();
        let limits = self.search.limits;
        let asked = limits.evaluations.is_some() || limits.budget.is_some();
        if !asked && self.search.instance.len() > PORTFOLIO_TASKS {
            return;
        }
        if self.search.instance.len() <= EXACT_TASKS {
            self.search.part((1, 4), true, genetic::run);
            self.search.part((4, 5), true, exact::run);
        }
        self.turns();
    }

    /// An exact search that begins with a good plan, and where it finds no more, other searches.
    fn exact(&mut self, has_lags: bool) {
        self.portfolio(has_lags);
        self.search.part((1, 4), true, genetic::run);
        self.search.part((4, 5), true, exact::run);
        if !self.search.is_over() {
            self.turns();
        }
    }

    /// A genetic search; where there is more to choose than the order, it shares with one of large neighbourhoods: after
    /// the first rounds each belongs to the one that gained more in its last, and to both in turn where neither did.
    fn turns(&mut self) {
        let search = &mut self.search;
        if search.decoder.serial.is_some() {
            return genetic::run(search);
        }
        let mut herd = Herd::new(search);
        let (mut gained, mut is_local) = ([0, u64::MAX], false);
        for round in 0..ROUNDS.0 {
            if search.is_over() {
                return;
            }
            let [of_herd, of_local] = gained;
            is_local = round >= ROUNDS.1 && (of_local > of_herd || of_local == of_herd && !is_local);
            let makespan = |search: &Search<'_, W>| search.best().map_or(0, |best| best.makespan);
            let before = makespan(search);
            search.part(
                (1, ROUNDS.0 - round),
                false,
                |search| {
                    if is_local { local::large(search) } else { herd.run(search) }
                },
            );
            gained[usize::from(is_local)] = before - makespan(search);
        }
    }

    /// A search in batches, where the policy has one and somebody computes it.
    fn batches(&mut self) {
        if let Some(method) = self.options.policy.in_batches() {
            batches::run(&mut self.search, method);
        }
    }

    /// One pass of an order and a fit rule; where that runs out of a budget and there is no plan yet, with choices that
    /// stay in all of them.
    fn list(&mut self, order: OrderRule, fit: FitRule) {
        self.pass(&order.order(self.search.instance, self.search.timing), fit);
    }

    fn pass(&mut self, order: &[TaskId], fit: FitRule) {
        let search = &mut self.search;
        let free = vec![FREE; order.len()];
        search.fit.change(fit, search.instance);
        search.evaluate(order, &free, Direction::Forward, &mut Draft::default());
        let mut left = REPAIRS;
        while search.best().is_none() && left > 0 && !search.instance.budgets.is_empty() {
            left -= 1;
            if let Some(choice) = search.modes() {
                search.evaluate(order, &choice, Direction::Forward, &mut Draft::default());
            }
        }
    }

    /// The first pass. Without data on its way, tasks are mostly done where they are done fast, and the way to the end is as
    /// long as it is there. And the more of the devices a task holds, the harder it is to find room for later: it comes sooner
    /// by as long as it holds a device, and by less where the critical path has room for fewer than [`SPACIOUS`] tasks, so
    /// that this changes the order of tasks that are about as urgent. On pipelines of 1,000 stages, first plans by mean durations
    /// are longer by 0.3 %, and those that do not look at what tasks hold by 0.6 %, or by 0.8 % for equal devices.
    fn first(&mut self) {
        if self.is_first_plain() {
            self.list(OrderRule::CriticalPath, FitRule::EarliestFinish);
            return self.at_home();
        }
        let Search { instance, timing, .. } = self.search;
        let held = |task: TaskId| i128::from(self.held.get(instance.kind[task.index()] as usize).copied().unwrap_or(0));
        let spacious = SPACIOUS * instance.graph.ids().map(held).sum::<i128>().max(1);
        let path = (i128::from(timing.makespan.0) * instance.len() as i128).min(spacious);
        let key = |task: TaskId, _: usize| {
            let start = timing.latest_finish(task) - timing.duration[task.index()];
            Reverse(i128::from(start.0) - held(task).saturating_mul(path) / spacious)
        };
        self.pass(&by_key(instance, key), FitRule::EarliestFinish);
    }

    /// Whether the first pass is one of the list policies.
    const fn is_first_plain(&self) -> bool {
        self.held.is_empty() && self.search.decoder.thrift == 0
    }

    /// Where data takes time, one pass for a node of each class on which all tasks stay that can: whoever places tasks one
    /// after the other leaves a node for a shorter one before it is known what that costs those that follow.
    fn at_home(&mut self) {
        let instance = self.search.instance;
        if !instance.has_lags() || instance.len() > PORTFOLIO_TASKS {
            return;
        }
        let mut classes = BTreeSet::new();
        let is_new = |(_, node): &(NodeId, &NodeRoom)| classes.insert(node.class);
        let homes: Vec<_> = (0..).map(NodeId).zip(&instance.nodes).filter(is_new).take(HOMES).collect();
        for (home, _) in homes {
            if self.options.limits.evaluations.is_some_and(|most| self.search.evaluations >= most) {
                break;
            }
            self.search.decoder.home = Some(home);
            self.list(OrderRule::CriticalPath, FitRule::EarliestFinish);
        }
        self.search.decoder.home = None;
    }

    /// Several passes after the first.
    fn portfolio(&mut self, has_lags: bool) {
        let tries = if self.search.instance.len() > PORTFOLIO_TASKS { 0 } else { PORTFOLIO.len() };
        // The first of them has been tried already, or will be.
        let tried = usize::from(self.search.decoder.thrift == 0);
        for (order, fit) in PORTFOLIO.into_iter().take(tries).skip(tried) {
            if self.search.is_over() {
                return;
            }
            self.list(order, fit);
        }
        if has_lags && tries > 0 {
            for edges in EDGES {
                if self.search.is_over() {
                    return;
                }
                self.pass(&by_rank_with(self.search.instance, edges), FitRule::EarliestFinish);
            }
        }
        if tries > 0 {
            self.plain();
        }
    }

    /// One pass of a list policy, where the first was none: so nothing is worse than that.
    fn plain(&mut self) {
        let thrift = self.search.decoder.thrift;
        if !self.is_first_plain() && !self.search.is_over() {
            self.search.decoder.thrift = 0;
            self.list(OrderRule::CriticalPath, FitRule::EarliestFinish);
            self.search.decoder.thrift = thrift;
        }
    }
}
