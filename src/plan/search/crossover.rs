//! How a child is made of two parents: the father's times inside a busy window of his, the mother's around it.
//!
//! What is arranged well where it is crowded stays together. Source: Debels and Vanhoucke, 2005, after the peak
//! crossover of Valls, Ballestín and Quintanilla, 2008; changed: choices of modes and places are inherited with the
//! times, save for those of a part of the time that are made anew, and the window is the busier of two that are drawn. Does
//! not know populations.

use super::super::decode::{Direction, FREE};
use super::super::draft::Draft;
use super::super::instance::{Instance, Kind};
use super::super::random::Random;
use super::genetic::Individual;
use crate::graph::{Rows, TaskGraph, TaskId};

/// Windows that are drawn for a child; the busiest is used. One or four make plans of PSPLIB's J120 longer.
const WINDOWS: usize = 2;
/// The shortest window, and by how much a longer one may exceed it, as parts of 100 of the makespan.
const WINDOW: (u64, u64) = (15, 35);
/// The part of the time whose tasks choose anew, in 100 of it: what is best for one depends on what the others around it
/// chose. Without, plans of 1,000 stages for four fast and four slow devices are longer by 2 % after 5 s, and those of
/// WfCommons by 0.2 %.
const ANEW: u64 = 20;
/// One task in so many is moved at random, or two in three times as many as there are tasks if that is fewer: with one in
/// 60, plans of PSPLIB's J30 and J120 are longer by 0.05 and 0.4 %.
const MUTATED: u64 = 100;
/// By up to this part of the time.
const SHIFT: u64 = 10;

/// A part of time, in milliseconds.
#[derive(Clone, Copy)]
struct Window {
    from: u64,
    to: u64,
}

/// What crossing needs to know of an instance.
pub(super) struct Crossover {
    /// `[n_kinds]`: how busy a task makes its places.
    energy: Vec<f64>,
    /// Whether tasks may choose anew: where budgets are to be kept to, most of what is chosen by chance exceeds them.
    pub(super) chooses: bool,
}

impl Crossover {
    pub(super) fn new(instance: &Instance<'_>) -> Self {
        let total = |resource: usize| instance.nodes.iter().map(|node| to_f64(node.capacity[resource])).sum::<f64>();
        let totals: Vec<_> = (0..instance.resources.len()).map(total).collect();
        let of = |kind: &Kind| {
            let choice = &kind.choices[0];
            let parts = choice.need.iter().zip(&totals).map(|(need, total)| to_f64(*need) / total.max(1.0));
            parts.sum::<f64>() + f64::from(choice.gang) / to_f64(instance.devices.len().max(1) as u64)
        };
        let chooses = instance.budgets.is_empty() && instance.kinds.iter().any(|kind| kind.choices.len() > 1);
        Self { energy: instance.kinds.iter().map(of).collect(), chooses }
    }

    /// Takes what is inherited from a schedule, and how late its work is done: the end of each task, times how long and
    /// how busy it makes its places. Without, plans of PSPLIB's J120 are longer by 0.08 % after 5,000 evaluations.
    pub(super) fn member(&self, instance: &Instance<'_>, draft: &Draft) -> Individual {
        let of = |(i, (start, finish)): (usize, (&u64, &u64))| {
            to_f64(*finish) * to_f64(finish - start) * self.energy[instance.kind[i] as usize]
        };
        let late = draft.start.iter().zip(&draft.finish).enumerate().map(of).sum::<f64>();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        Individual { lateness: late as u64, ..Individual::of(draft) }
    }

    /// Makes a child. Its times are wishes, not yet a schedule.
    pub(super) fn child(
        &self,
        random: &mut Random,
        instance: &Instance<'_>,
        father: &Individual,
        mother: &Individual,
    ) -> Individual {
        let window = self.busiest(random, instance, father);
        let middle = window.from.midpoint(window.to);
        let anew = self.chooses.then(|| {
            let from = random.below(father.makespan.max(1));
            from..from + father.makespan / 100 * ANEW
        });
        // Before the window, inside it and after it are three spans that cannot overlap.
        let span = father.makespan.max(mother.makespan) + 1;
        let mut child = Individual::default();
        for (i, (&of_father, &of_mother)) in father.finish.iter().zip(&mother.finish).enumerate() {
            let inside = (window.from..window.to).contains(&of_father);
            let after = if of_mother < middle { 0 } else { 2 * span };
            child.finish.push(if inside { of_father + span } else { of_mother + after });
            let (finish, choice) = if inside { (of_father, father.choice[i]) } else { (of_mother, mother.choice[i]) };
            let chooses = anew.as_ref().is_some_and(|anew| anew.contains(&finish));
            child.choice.push(if chooses { FREE } else { choice });
        }
        mutate(random, instance, &mut child, span);
        child
    }

    /// Draws windows of the father's time and returns the busiest.
    fn busiest(&self, random: &mut Random, instance: &Instance<'_>, father: &Individual) -> Window {
        let percent = |part: u64| father.makespan / 100 * part;
        let length = percent(WINDOW.0) + random.below(percent(WINDOW.1) + 1);
        let mut draw = || {
            let from = random.below(father.makespan.saturating_sub(length) + 1);
            Window { from, to: from + length }
        };
        let first = draw();
        let better = |best: (f64, Window), window: Window| {
            let busy = self.busy(instance, father, window);
            if busy > best.0 { (busy, window) } else { best }
        };
        let others: Vec<_> = (1..WINDOWS).map(|_| draw()).collect();
        others.into_iter().fold((self.busy(instance, father, first), first), better).1
    }

    fn busy(&self, instance: &Instance<'_>, father: &Individual, window: Window) -> f64 {
        let of = |(i, (finish, choice)): (usize, (&u64, &u32))| {
            let kind = instance.kind[i] as usize;
            let start = finish - instance.kinds[kind].choices[*choice as usize].duration();
            let inside = (*finish).min(window.to).saturating_sub(start.max(window.from));
            to_f64(inside) * self.energy[kind]
        };
        father.finish.iter().zip(&father.choice).enumerate().map(of).sum()
    }
}

/// Moves a few tasks and lets some of them choose anew.
fn mutate(random: &mut Random, instance: &Instance<'_>, child: &mut Individual, span: u64) {
    let reach = 3 * span / SHIFT + 1;
    let rarity = MUTATED.max(3 * child.finish.len() as u64 / 2);
    for (i, finish) in child.finish.iter_mut().enumerate() {
        if random.below(rarity) > 0 {
            continue;
        }
        *finish = (*finish + random.below(2 * reach)).saturating_sub(reach);
        let choices = instance.kinds[instance.kind[i] as usize].choices.len();
        if choices > 1 {
            let drawn = random.index(choices + 1);
            child.choice[i] = if drawn == choices { FREE } else { u32::try_from(drawn).unwrap_or(FREE) };
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "how busy a window is need not be exact")]
fn to_f64(value: u64) -> f64 {
    value as f64
}

/// Makes orders of wishes, with memory that is used again.
#[derive(Default)]
pub(super) struct Orders {
    /// Tasks with their wishes, in one word each: whole numbers are sorted without branches.
    wanted: Vec<u64>,
    placed: Vec<bool>,
    stack: Vec<TaskId>,
}

impl Orders {
    /// Orders tasks for decoding in `direction`: those that end last in the opposite direction first, each behind all
    /// that it waits for.
    pub(super) fn by_end(
        &mut self,
        graph: &TaskGraph,
        child: &Individual,
        direction: Direction,
        order: &mut Vec<TaskId>,
    ) {
        let Self { wanted, placed, stack } = self;
        let last = child.finish.iter().copied().max().unwrap_or(0);
        let bits = |most: u64| u64::BITS - most.leading_zeros();
        let low = bits(graph.len() as u64);
        // Years of milliseconds fit beside a million tasks; what would not is compared a little coarser.
        let coarse = (bits(last) + low).saturating_sub(u64::BITS);
        wanted.clear();
        wanted.extend((0..).zip(&child.finish).map(|(task, finish): (u64, _)| (last - finish) >> coarse << low | task));
        wanted.sort_unstable();
        placed.clear();
        placed.resize(graph.len(), false);
        order.clear();
        let rows = direction.waits_for(graph);
        for word in wanted {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the lower bits are the task, of which there are 2^32"
            )]
            stack.push(TaskId((*word & ((1 << low) - 1)) as u32));
            put(rows, stack, placed, order);
        }
    }
}

/// Puts the task on the stack behind all that it waits for: depth first, without recursion.
fn put(rows: &Rows, stack: &mut Vec<TaskId>, placed: &mut [bool], order: &mut Vec<TaskId>) {
    while let Some(&top) = stack.last() {
        let open = rows.of(top).iter().map(|edge| edge.task).find(|before| !placed[before.index()]);
        if let Some(before) = open {
            stack.push(before);
            continue;
        }
        stack.pop();
        if !std::mem::replace(&mut placed[top.index()], true) {
            order.push(top);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{add_node, on_host, problem};
    use super::*;
    use crate::fleet::Fleet;

    #[test]
    fn tasks_choose_anew_in_a_part_of_the_time_where_they_have_a_choice() {
        let free = |ways: usize| {
            let mut fleet = Fleet::default();
            add_node(&mut fleet, 4, 8, &[]);
            let problem = problem(vec![(0..ways).map(|way| on_host(1 + way as u64, 10)).collect(); 100], &[], fleet);
            let instance = Instance::new(&problem.pipeline, &problem.graph, &problem.fleet).unwrap();
            let parent = Individual {
                makespan: 10_000,
                finish: (1..=100).map(|i| 100 * i).collect(),
                choice: vec![0; 100],
                ..Individual::default()
            };
            let child = Crossover::new(&instance).child(&mut Random::new(5), &instance, &parent, &parent);
            let moved = |i: &usize| child.finish[*i] % (parent.makespan + 1) != parent.finish[*i];
            (0..100).filter(|i| child.choice[*i] == FREE && !moved(i)).collect::<Vec<_>>()
        };
        let some = free(2);
        assert!(!some.is_empty() && some[some.len() - 1] - some[0] < 20, "{some:?}");
        assert!(free(1).is_empty());
    }
}
