//! What a good plan is: one that ends early, whose tasks end early by their weight, or that takes little energy.
//!
//! Each is a whole number, the less the better, with a lower bound that no plan can be under. Does not know how a plan
//! is found.

use std::fmt;
use std::str::FromStr;

use super::Placed;
use super::bound;
use super::draft::Draft;
use super::instance::{Choice, DeviceNeed, Instance, Kind};
use super::names::{by_name, name_of, names};
use super::order::by_key;
use crate::fleet::DeviceId;
use crate::graph::TaskId;
use crate::spec::problem::did_you_mean;
use crate::timing::Timing;
use crate::units::{Millis, Share};

/// What a good plan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Objective {
    /// The last task ends early; in milliseconds.
    #[default]
    Makespan,
    /// Tasks end early, those of higher priority before others: the sum over all tasks of when they end, times the
    /// stage's `priority`, which counts as 1 where it is less; in milliseconds.
    WeightedCompletion,
    /// Little energy: every device takes its idle power until the last task ends, and for every task more, up to its
    /// active power, by the share of the device that the task holds; in thousandths of a joule.
    Energy,
}

impl Objective {
    /// Every objective with its name on the command line.
    pub const ALL: [(&'static str, Self); 3] =
        [("makespan", Self::Makespan), ("weighted-completion", Self::WeightedCompletion), ("energy", Self::Energy)];

    /// Returns the name.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, &self)
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An objective that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown objective `{written}`: {}", match .near {
    Some(near) => format!("did you mean `{near}`?"),
    None => "write `makespan`, `weighted-completion` or `energy`".to_owned(),
})]
pub struct UnknownObjective {
    /// What was written.
    pub written: String,
    /// What was probably meant.
    pub near: Option<String>,
}

impl FromStr for Objective {
    type Err = UnknownObjective;

    fn from_str(text: &str) -> Result<Self, UnknownObjective> {
        by_name(&Self::ALL, text).ok_or_else(|| {
            let near = did_you_mean(text, names(&Self::ALL)).map(str::to_owned);
            UnknownObjective { written: text.to_owned(), near }
        })
    }
}

/// An objective on an instance.
pub(super) struct Goal<'a> {
    objective: Objective,
    instance: &'a Instance<'a>,
    /// What all devices take together while they idle, in watts.
    idle: u128,
}

/// Shares are counted in millionths.
const WHOLE: u128 = Share::WHOLE.0 as u128;

impl<'a> Goal<'a> {
    /// Makes it.
    pub(super) fn new(objective: Objective, instance: &'a Instance<'a>) -> Self {
        let idle = instance.devices.iter().map(|device| u128::from(device.watts.0)).sum();
        Self { objective, instance, idle }
    }

    /// Returns what the end of one task, and what it holds until then, add to the value.
    pub(super) fn task(&self, task: TaskId, choice: &Choice, devices: &[DeviceId], finish: u64) -> u128 {
        match self.objective {
            Objective::Makespan => 0,
            Objective::WeightedCompletion => weight(self.instance.priority[task.index()]) * u128::from(finish),
            Objective::Energy => devices.iter().map(|device| self.active(choice, *device)).sum(),
        }
    }

    /// Returns what the end of all adds to the value.
    pub(super) fn end(&self, makespan: u64) -> u128 {
        match self.objective {
            Objective::Makespan => makespan.into(),
            Objective::WeightedCompletion => 0,
            Objective::Energy => self.idle * u128::from(makespan),
        }
    }

    /// Returns what a task takes of one device beyond what that takes idle, rounded up.
    fn active(&self, choice: &Choice, device: DeviceId) -> u128 {
        let (idle, active) = self.instance.devices[device.index()].watts;
        let part = match choice.per_device {
            DeviceNeed::Exclusive => WHOLE,
            DeviceNeed::Part { share, .. } if share > 0 => share.into(),
            DeviceNeed::Part { memory, .. } => {
                let of = self.instance.devices[device.index()].memory.0.max(1);
                (u128::from(memory) * WHOLE).div_ceil(of.into()).min(WHOLE)
            }
        };
        (u128::from(active.saturating_sub(idle)) * u128::from(choice.duration()) * part).div_ceil(WHOLE)
    }

    /// Returns what no plan can be under that cannot end before `makespan`: every task in the place where it takes the least;
    /// or at its earliest end, or with all others on one machine as large as all places together, whichever is more.
    pub(super) fn bound(&self, timing: &Timing, makespan: Millis) -> u128 {
        let ids = || self.instance.graph.ids();
        match self.objective {
            Objective::Makespan => makespan.0.into(),
            Objective::WeightedCompletion => {
                let weight = |task: TaskId| weight(self.instance.priority[task.index()]);
                let ends = bound::earliest_ends(self.instance, timing);
                let alone = ids().map(|task| weight(task) * u128::from(ends[task.index()])).sum();
                bound::weighted_ends(self.instance, timing, weight).unwrap_or(0).max(alone)
            }
            Objective::Energy => {
                let cheapest = |task| self.instance.choices(task).iter().map(|choice| self.cheapest(choice)).min();
                ids().filter_map(cheapest).sum::<u128>() + self.end(makespan.0)
            }
        }
    }

    /// Returns the least that a choice takes of devices, wherever it goes.
    fn cheapest(&self, choice: &Choice) -> u128 {
        let members = &self.instance.groups[choice.group as usize].members;
        let of_node = |devices: &Vec<DeviceId>| {
            let mut each: Vec<_> = devices.iter().map(|device| self.active(choice, *device)).collect();
            each.sort_unstable();
            each.iter().take(choice.gang as usize).sum::<u128>()
        };
        members.iter().map(|(_, devices)| of_node(devices)).min().unwrap_or(0)
    }

    /// Returns the choice of each task that takes the least of devices, `[n_tasks]` by TaskId; `None` where that is no aim.
    pub(super) fn thriftiest(&self) -> Option<Vec<u32>> {
        let of_kind = |kind: &Kind| {
            let cost = |choice: &Choice| (self.cheapest(choice), choice.duration());
            (0..).zip(&kind.choices).min_by_key(|(_, choice)| cost(choice)).map_or(0, |(index, _)| index)
        };
        let by_kind: Vec<u32> = self.instance.kinds.iter().map(of_kind).collect();
        let is_aim = self.objective == Objective::Energy;
        is_aim.then(|| self.instance.kind.iter().map(|kind| by_kind[*kind as usize]).collect())
    }

    /// Returns an order in which what weighs most for the time that it takes goes first; `None` where that is no aim.
    ///
    /// What waits for a task counts with it as far as that makes it weigh more. On one machine, where everything waits for
    /// one task at most, no order is better: W. A. Horn, "Single-machine job sequencing with treelike precedence ordering
    /// and linear delay penalties", 1972.
    pub(super) fn weighty_first(&self) -> Option<Vec<TaskId>> {
        if self.objective != Objective::WeightedCompletion {
            return None;
        }
        let instance = self.instance;
        let mut blocks = vec![(0_u128, 0_u128); instance.len()];
        for &task in instance.graph.order.iter().rev() {
            let shortest = instance.choices(task).iter().map(Choice::duration).min().unwrap_or(0);
            let mut block = (weight(instance.priority[task.index()]), u128::from(shortest));
            let after = instance.graph.after.of(task).iter();
            let mut later: Vec<_> = after.map(|edge| blocks[edge.task.index()]).collect();
            later.sort_by_key(|block| std::cmp::Reverse(density(*block)));
            for (weighs, takes) in later {
                if density((weighs, takes)) > density(block) {
                    block = (block.0.saturating_add(weighs), block.1.saturating_add(takes));
                }
            }
            blocks[task.index()] = block;
        }
        Some(by_key(instance, |task, _| density(blocks[task.index()])))
    }

    /// Returns the value of a schedule and when it ends: of equal values the one that ends first is the better one.
    pub(super) fn measure(&self, draft: &Draft) -> (u128, u64) {
        let of = |task: TaskId| {
            let choice = &self.instance.choices(task)[draft.choice[task.index()] as usize];
            self.task(task, choice, draft.devices(task), draft.finish[task.index()])
        };
        let tasks = (self.objective != Objective::Makespan).then(|| self.instance.graph.ids().map(of).sum::<u128>());
        (tasks.unwrap_or(0) + self.end(draft.makespan), draft.makespan)
    }

    /// Whether it is anything but an early end.
    pub(super) fn is_special(&self) -> bool {
        self.objective != Objective::Makespan
    }

    /// Returns the value of placed tasks.
    pub(super) fn value(&self, placed: &[Placed], makespan: Millis) -> u128 {
        let of = |(task, placed): (TaskId, &Placed)| {
            let took = placed.ran();
            let is_it = |choice: &&Choice| choice.mode as usize == placed.mode && choice.load.time == took;
            let choice = self.instance.choices(task).iter().find(is_it);
            choice.map_or(0, |choice| self.task(task, choice, &placed.devices, placed.finish.0))
        };
        self.instance.graph.ids().zip(placed).map(of).sum::<u128>() + self.end(makespan.0)
    }
}

/// Returns how much weighs in a millisecond, in parts of 2^32.
fn density((weighs, takes): (u128, u128)) -> u128 {
    weighs.saturating_mul(1 << 32) / takes.max(1)
}

/// Returns how much a priority weighs.
fn weight(priority: i64) -> u128 {
    u128::try_from(priority).unwrap_or(0).max(1)
}
