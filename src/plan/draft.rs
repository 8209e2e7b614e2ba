//! A schedule in the making, in the arrays that planners work on. Does not know names.

use std::cmp::Reverse;

use super::instance::Instance;
use super::{Placed, Plan};
use crate::fleet::{DeviceId, NodeId};
use crate::graph::TaskId;
use crate::units::Millis;

/// Start, choice and place of every task.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// `[n_tasks]`, by TaskId: start, in milliseconds.
    pub(super) start: Vec<u64>,
    /// `[n_tasks]`, by TaskId: end, in milliseconds.
    pub(super) finish: Vec<u64>,
    /// `[n_tasks]`, by TaskId: index into the task's choices.
    pub(super) choice: Vec<u32>,
    /// `[n_tasks]`, by TaskId: index into the members of the choice's group.
    pub(super) member: Vec<u32>,
    /// `[n_tasks]`, by TaskId: where its devices lie in `held`.
    devices: Vec<(u32, u32)>,
    held: Vec<DeviceId>,
    /// The order in which tasks were placed.
    pub(super) order: Vec<TaskId>,
    /// When the last task ends.
    pub(super) makespan: u64,
}

/// Where and when one task goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub(super) choice: u32,
    pub(super) member: u32,
    pub(super) start: u64,
    pub(super) finish: u64,
}

impl Draft {
    /// Makes it empty, with room for `n` tasks.
    pub(super) fn reset(&mut self, n: usize) {
        self.start.resize(n, 0);
        self.finish.resize(n, 0);
        self.choice.resize(n, 0);
        self.member.resize(n, 0);
        self.devices.resize(n, (0, 0));
        self.held.clear();
        self.order.clear();
        self.makespan = 0;
    }

    /// Writes down where a task goes.
    pub(super) fn set(&mut self, task: TaskId, site: Site, devices: &[DeviceId]) {
        let i = task.index();
        let begin = u32::try_from(self.held.len()).unwrap_or(u32::MAX);
        self.held.extend_from_slice(devices);
        self.devices[i] = (begin, u32::try_from(self.held.len()).unwrap_or(u32::MAX));
        (self.start[i], self.finish[i]) = (site.start, site.finish);
        (self.choice[i], self.member[i]) = (site.choice, site.member);
        self.order.push(task);
        self.makespan = self.makespan.max(site.finish);
    }

    /// Returns the same schedule with time running the other way.
    pub(super) fn mirrored(&self) -> Self {
        let flip = |times: &[u64]| times.iter().map(|time| self.makespan - time).collect();
        let order = self.order.iter().rev().copied().collect();
        Self { start: flip(&self.finish), finish: flip(&self.start), order, ..self.clone() }
    }

    /// Returns the devices of a task.
    pub(super) fn devices(&self, task: TaskId) -> &[DeviceId] {
        let (begin, end) = self.devices[task.index()];
        &self.held[begin as usize..end as usize]
    }

    /// Returns the node of a task.
    pub(super) fn node(&self, instance: &Instance<'_>, task: TaskId) -> NodeId {
        let i = task.index();
        let choice = &instance.choices(task)[self.choice[i] as usize];
        instance.groups[choice.group as usize].members[self.member[i] as usize].0
    }

    /// Makes the plan of it: tasks are to be started in the order of their starts. Of equal ones those that take no time
    /// come first, since others may wait for them, then those of higher priority, then as they were placed.
    pub(super) fn into_plan(self, instance: &Instance<'_>, policy: String) -> Plan {
        let mut position = vec![0_u32; self.start.len()];
        (0..).zip(&self.order).for_each(|(at, task)| position[task.index()] = at);
        let by_start = |task: &TaskId| {
            let i = task.index();
            let lasts = self.finish[i] > self.start[i];
            let priority = if lasts { instance.priority[i] } else { 0 };
            (self.start[i], lasts, Reverse(priority), position[i], *task)
        };
        let mut order: Vec<_> = self.order.iter().map(by_start).collect();
        order.sort_unstable();
        let mut rank = vec![0; order.len()];
        (0..).zip(&order).for_each(|(at, (.., task))| rank[task.index()] = at);
        let placed = instance.graph.ids().map(|task| self.placed(instance, task)).collect();
        let makespan = Millis(self.makespan);
        Plan { policy, placed, rank, makespan, ..Plan::default() }
    }

    fn placed(&self, instance: &Instance<'_>, task: TaskId) -> Placed {
        let i = task.index();
        let mode = instance.choices(task)[self.choice[i] as usize].mode as usize;
        let node = self.node(instance, task);
        let mut devices = self.devices(task).to_vec();
        devices.sort_unstable();
        let (start, finish) = (Millis(self.start[i]), Millis(self.finish[i]));
        Placed { mode, node, devices, start, finish, segments: Vec::new() }
    }
}
