//! A proof that no plan ends before some time, for whoever does not trust the solver.
//!
//! The relaxed problem of `pools` is stated once more, with sums and with what tasks hold together only,
//! and the solver is asked for a solution that ends a tick before the bound. While it shows that there is none, it writes
//! down every step in the format DRCP: Flippo et al., "A multi-stage proof logging framework to certify the correctness of
//! CP solvers", 2024. Steps refer to variables by name and to constraints by number; the [`Statement`] says what they are.
//! Whatever plan is legal is a solution, so that a problem without one proves the bound for plans; it does not prove that
//! a plan reaches it, which a plan does by being there.
//!
//! The solver writes the file itself: the only place where this room touches a disk, and only where it is told to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use pumpkin_conflict_resolvers::resolvers::ResolutionResolver;
use pumpkin_core::Solver;
use pumpkin_core::options::SolverOptions;
use pumpkin_core::proof::{ConstraintTag, ProofLog};
use pumpkin_core::results::{ProblemSolution, SatisfactionResult};
use pumpkin_core::termination::TerminationCondition;
use pumpkin_core::variables::{DomainId, TransformableVariable};
use serde::Serialize;

use super::pools::{Pool, Pools};
use super::{GLANCE, tick_count, together};
use crate::fleet::Fleet;
use crate::graph::TaskGraph;
use crate::plan::{Instance, Limits};
use crate::spec::Pipeline;
use crate::units::Millis;

/// Ticks up to which sums of instants, parked copies among them, are sure to fit the solver's numbers.
const MOST: i64 = 1 << 29;

/// A proof that was written.
#[derive(Debug)]
pub struct Proof {
    /// No plan ends before this.
    pub bound: Millis,
    /// Decisions and conflicts of the solver.
    pub steps: u64,
    /// What the steps of the proof are about.
    pub statement: Statement,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum NoProof {
    /// Every plan ends at 0 or later.
    #[error("there is nothing to prove: the bound is 0")]
    Nothing,
    /// Times that the solver cannot count.
    #[error("the times of this pipeline are too long for their resolution to be proven")]
    TooLong,
    /// The limits were reached before.
    #[error("the time allowed was over before the proof was: a larger `--budget` gives it more")]
    Unfinished,
    /// The file cannot be written.
    #[error("the proof cannot be written")]
    File(#[source] std::io::Error),
    /// The solver gave up, with these words.
    #[error("the solver gave up: {0}")]
    GivenUp(String),
}

/// A problem without a solution: what was given to the solver, and what its numbers mean.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Statement {
    /// What a unit of time is.
    pub tick_ms: u64,
    /// The problem asks for a solution that ends by this tick.
    pub ends_by: i32,
    /// All variables; their names are those of the proof.
    pub variables: Vec<Variable>,
    /// All constraints; their numbers are those of the proof.
    pub constraints: Vec<Constraint>,
}

/// A whole number that is looked for.
#[derive(Clone, Debug, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its least value.
    pub min: i32,
    /// Its greatest value.
    pub max: i32,
    /// What it stands for.
    pub means: String,
}

/// What values must satisfy.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Constraint {
    /// The sum of factors times variables is at most a number.
    Sum {
        /// Its number.
        id: u32,
        /// Factors and names.
        terms: Vec<(i32, String)>,
        /// The most.
        at_most: i32,
    },
    /// What is held at any instant is at most what there is.
    Cumulative {
        /// Its number.
        id: u32,
        /// What there is.
        capacity: i32,
        /// Who holds how much.
        uses: Vec<Use>,
    },
}

/// An amount that is held for a time.
#[derive(Clone, Debug, Serialize)]
pub struct Use {
    /// The variable that says when it begins.
    pub start: String,
    /// For how many ticks.
    pub duration: i32,
    /// How much.
    pub amount: i32,
}

/// Proves that no plan for `graph`, which was built from `pipeline`, ends on `fleet` before `bound`, or, where the relaxed
/// problem does not show that, before the largest time for which it does. Writes the proof to `file`.
///
/// # Errors
/// Where there is none within the limits: evaluations count steps of the solver, and only a budget counts time.
pub fn prove(
    (pipeline, graph, fleet): (&Pipeline, &TaskGraph, &Fleet),
    bound: Millis,
    file: &Path,
    limits: &Limits<'_>,
) -> Result<Proof, NoProof> {
    let instance = Instance::new(pipeline, graph, fleet).map_err(|_| NoProof::Nothing)?;
    let pools = Pools::new(&instance, bound.0);
    if !pools.is_exact {
        return Err(NoProof::TooLong);
    }
    let mut steps = Steps { spent: 0, limits };
    let mut least = bound.0.div_ceil(pools.tick);
    while least > 0 {
        let by = tick_count(least) - 1;
        let stated = catch_unwind(AssertUnwindSafe(|| {
            let log = ProofLog::cp(file, true).map_err(NoProof::File)?;
            Problem::new(&pools, graph, by, log)?.solve(&mut steps)
        }));
        match stated.unwrap_or_else(|panic| Err(NoProof::GivenUp(super::words_of(&*panic))))? {
            Answer::None(statement) => {
                let bound = Millis(least * pools.tick);
                return Ok(Proof { bound, steps: steps.spent, statement });
            }
            // The bound rests on more than pools: they can end by then, and perhaps not sooner.
            Answer::Ends(end) => least = u64::try_from(end).unwrap_or(0),
        }
    }
    Err(NoProof::Nothing)
}

/// What the solver found.
enum Answer {
    /// No solution, which is proven.
    None(Statement),
    /// One that ends at this tick.
    Ends(i32),
}

/// The relaxed problem, posted and written down.
struct Problem<'a> {
    solver: Solver,
    statement: Statement,
    graph: &'a TaskGraph,
    /// `[n_tasks]`.
    start: Vec<Named>,
    /// `[n_tasks][n_choices]`: 1 where the choice is taken; empty for a task with one choice.
    taken: Vec<Vec<Named>>,
    /// `[n_tasks][n_choices]`: starts with the task where the choice is taken, and lies where it meets nobody elsewhere.
    copies: Vec<Vec<Named>>,
    end: Named,
}

/// A variable and its name.
#[derive(Clone)]
struct Named {
    id: DomainId,
    name: String,
}

impl<'a> Problem<'a> {
    /// States the problem for solutions that end by a tick.
    fn new(pools: &Pools, graph: &'a TaskGraph, by: i32, log: ProofLog) -> Result<Self, NoProof> {
        let longest = pools.ways.iter().flatten().map(|way| i64::from(*way).max(1));
        if i64::from(by) + longest.sum::<i64>() > MOST {
            return Err(NoProof::TooLong);
        }
        let solver = Solver::with_options(SolverOptions { proof_log: log, ..SolverOptions::default() });
        let statement = Statement { tick_ms: pools.tick, ends_by: by, ..Statement::default() };
        let end = Named { id: DomainId::new(0), name: String::new() };
        let mut problem =
            Self { solver, statement, graph, start: Vec::new(), taken: Vec::new(), copies: Vec::new(), end };
        problem.end = problem.variable("end", by, "when all is done".to_owned());
        for (index, task) in graph.tasks.iter().enumerate() {
            let start = problem.variable(&format!("s{index}"), by, format!("when {} starts", task.name));
            problem.start.push(start);
        }
        // Beyond the end, one behind the other.
        let mut parked = by + 1;
        for (index, ways) in pools.ways.iter().enumerate() {
            problem.choose(index, ways, &mut parked);
        }
        problem.precede(pools);
        for budget in &pools.budgets {
            problem.spend(budget);
        }
        for pool in &pools.pools {
            problem.share(pool, &pools.ways);
        }
        Ok(problem)
    }

    fn variable(&mut self, name: &str, max: i32, means: String) -> Named {
        let id = self.solver.new_named_bounded_integer(0, max, name);
        self.statement.variables.push(Variable { name: name.to_owned(), min: 0, max, means });
        Named { id, name: name.to_owned() }
    }

    fn tag(&mut self) -> (ConstraintTag, u32) {
        let tag = self.solver.new_constraint_tag();
        (tag, std::num::NonZero::<u32>::from(tag).get())
    }

    /// Posts that a sum is at most a number.
    fn sum(&mut self, terms: &[(i32, &Named)], at_most: i32) {
        let (tag, id) = self.tag();
        let views: Vec<_> = terms.iter().map(|(factor, variable)| variable.id.scaled(*factor)).collect();
        self.solver.add_constraint(pumpkin_constraints::less_than_or_equals(views, at_most, tag)).post();
        let terms = terms.iter().map(|(factor, variable)| (*factor, variable.name.clone())).collect();
        self.statement.constraints.push(Constraint::Sum { id, terms, at_most });
    }

    /// Exactly one way of a task is taken, and its copy starts with the task; the others are parked.
    fn choose(&mut self, task: usize, ways: &[i32], parked: &mut i32) {
        let start = self.start[task].clone();
        if ways.len() == 1 {
            self.taken.push(Vec::new());
            self.copies.push(vec![start]);
            return;
        }
        let name = self.graph.tasks[task].name.clone();
        let (mut taken, mut copies) = (Vec::new(), Vec::new());
        for (way, duration) in ways.iter().enumerate() {
            let place = *parked;
            *parked += (*duration).max(1);
            let is = self.variable(&format!("t{task}_{way}"), 1, format!("1 where {name} takes its way {way}"));
            let copy = self.variable(
                &format!("c{task}_{way}"),
                place,
                format!("when {name} starts if it takes its way {way}, and {place} if it does not"),
            );
            self.sum(&[(1, &copy), (-1, &start), (place, &is)], place);
            self.sum(&[(1, &start), (-1, &copy), (place, &is)], place);
            self.sum(&[(-1, &copy), (-place, &is)], -place);
            taken.push(is);
            copies.push(copy);
        }
        let of = |factor: i32| taken.iter().map(|is| (factor, is)).collect::<Vec<_>>();
        self.sum(&of(1), 1);
        self.sum(&of(-1), -1);
        self.taken.push(taken);
        self.copies.push(copies);
    }

    /// Nothing that waits for a task starts before it ends, and the end is not before it.
    fn precede(&mut self, pools: &Pools) {
        let graph = self.graph;
        for task in graph.ids() {
            let index = task.index();
            let after = graph.after.of(task);
            let mut later: Vec<Named> = after.iter().map(|edge| self.start[edge.task.index()].clone()).collect();
            if later.is_empty() {
                later.push(self.end.clone());
            }
            let (start, taken) = (self.start[index].clone(), self.taken[index].clone());
            for next in later {
                let ways = taken.iter().zip(&pools.ways[index]).map(|(is, duration)| (*duration, is));
                let terms: Vec<_> = [(1, &start), (-1, &next)].into_iter().chain(ways).collect();
                let fixed = if taken.is_empty() { pools.ways[index][0] } else { 0 };
                self.sum(&terms, -fixed);
            }
        }
    }

    fn spend(&mut self, budget: &Pool) {
        let mut fixed = 0_i32;
        let mut terms = Vec::new();
        let taken = self.taken.clone();
        for (task, choice, amount) in &budget.uses {
            match taken[*task].get(*choice) {
                Some(is) => terms.push((*amount, is)),
                None => fixed = fixed.saturating_add(*amount),
            }
        }
        if !terms.is_empty() {
            self.sum(&terms, budget.capacity.saturating_sub(fixed));
        }
    }

    fn share(&mut self, pool: &Pool, ways: &[Vec<i32>]) {
        let held = pool.uses.iter().filter(|(task, choice, _)| ways[*task][*choice] > 0);
        let held: Vec<_> = held
            .map(|(task, choice, amount)| (self.copies[*task][*choice].clone(), ways[*task][*choice], *amount))
            .collect();
        // The solver refuses constraints without variables.
        if held.is_empty() {
            return;
        }
        let (tag, id) = self.tag();
        let starts: Vec<_> = held.iter().map(|(start, ..)| start.id).collect();
        let durations: Vec<_> = held.iter().map(|(_, duration, _)| *duration).collect();
        let amounts: Vec<_> = held.iter().map(|(.., amount)| *amount).collect();
        let together = together(starts, durations, amounts, pool.capacity, tag);
        self.solver.add_constraint(together).post();
        let uses = held.into_iter().map(|(start, duration, amount)| Use { start: start.name, duration, amount });
        let (capacity, uses) = (pool.capacity, uses.collect());
        self.statement.constraints.push(Constraint::Cumulative { id, capacity, uses });
    }

    fn solve(mut self, steps: &mut Steps<'_>) -> Result<Answer, NoProof> {
        let mut brancher = self.solver.default_brancher();
        let mut resolver = ResolutionResolver::default();
        let answer = match self.solver.satisfy(&mut brancher, steps, &mut resolver) {
            SatisfactionResult::Satisfiable(found) => {
                let values = found.solution();
                let end = self.end.id;
                Answer::Ends(values.get_integer_value(end))
            }
            SatisfactionResult::Unsatisfiable(..) => Answer::None(self.statement),
            SatisfactionResult::Unknown(..) => return Err(NoProof::Unfinished),
        };
        Ok(answer)
    }
}

/// Ends the solver when the limits are reached.
struct Steps<'a> {
    spent: u64,
    limits: &'a Limits<'a>,
}

impl TerminationCondition for Steps<'_> {
    fn should_stop(&mut self) -> bool {
        self.spent += 1;
        let Limits { evaluations, budget, clock } = *self.limits;
        let is_late = || budget.zip(clock).is_some_and(|(budget, clock)| clock() >= budget);
        evaluations.is_some_and(|most| self.spent > most) || (self.spent.is_multiple_of(GLANCE) && is_late())
    }
}
