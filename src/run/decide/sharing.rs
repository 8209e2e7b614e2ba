//! Other runs on the same state folder: what they hold is not given out, and what they write is not written at the same
//! time.
//!
//! A task whose output another run writes waits apart from its queue. Once the other has written it, whoever would write it
//! is looked up again before it starts: what it would make may be there then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Dispatcher;
use super::queues::Refusals;
use crate::graph::TaskId;
use crate::run::admission::{Holding, Readings};
use crate::run::event::Role;
use crate::run::state::RunState;
use crate::run::supervisor::News;
use crate::run::within::Around;
use crate::units::Millis;

/// What other runs write, and who waits for that.
#[derive(Clone, Debug, Default)]
pub(super) struct Sharing {
    /// The run's own id.
    run: String,
    /// The numbers of the attempts that run.
    running: BTreeMap<(TaskId, Role), u32>,
    /// Running tasks in which others run, or did: they lose what those have done.
    around: BTreeSet<TaskId>,
    /// Whether another run held anything when that was last asked, or may hold something now.
    others: bool,
    /// What is written, and by whom.
    writers: Vec<(String, String)>,
    /// Tasks that wait until somebody else has written their outputs.
    waiting: BTreeMap<TaskId, ForOutput>,
    /// Where outputs lie.
    places: Places,
    /// `[n_tasks]`, or empty: whether a task may be looked up again.
    look_again: Vec<bool>,
    /// Who would write what lies where, once that was asked.
    makers: Option<BTreeMap<String, TaskId>>,
}

/// An output that another run writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForOutput {
    /// It, as the pipeline names it.
    pub(super) path: String,
    /// What people call the run.
    pub(super) run: String,
    /// Since when it is waited for.
    pub(super) since: Millis,
}

impl Sharing {
    /// Whether a running task has started runs of its own that held something of a device.
    pub(super) fn is_around_others(&self, task: TaskId) -> bool {
        self.around.contains(&task)
    }
}

impl Dispatcher<'_> {
    /// Learns the run's id, where outputs lie, and which tasks may be looked up again (`[n_tasks]`, or empty for none) after
    /// another run has written their outputs.
    pub fn share(&mut self, run: String, places: Places, look_again: Vec<bool>) {
        let running = std::mem::take(&mut self.sharing.running);
        self.sharing = Sharing { run, running, places, look_again, others: true, ..Sharing::default() };
    }

    /// Whether a task might start now, with what it asks for or something else: then nobody else may admit any until it is
    /// decided.
    pub fn could_start(&mut self, state: &RunState, now: Millis, readings: &Readings) -> bool {
        let jobs_left = self.options.jobs.is_none_or(|jobs| state.running < jobs);
        if state.stopping.is_some() || state.end.is_some() || self.pause.is_on() || !jobs_left {
            return false;
        }
        let retry_is_due = self.delayed.first().is_some_and(|(due, _)| *due <= now);
        self.ledger.observe(readings);
        let mut refusals = Refusals::default();
        let mut has_room = |queue: u32| {
            let request = self.queues.at(queue).request();
            if refusals.include(request, &self.queues, &self.ledger) {
                return false;
            }
            let has_room = self.ledger.could_admit(request, readings, now).is_ok();
            if !has_room {
                refusals.add(queue, &self.queues);
            }
            has_room
        };
        let has_other_room = |task: TaskId, queue: u32| {
            self.queues.at(queue).may_do_with_else() && self.has_other_room(task, state.task(task), readings, now)
        };
        let has_any = |((_, task), queue)| has_room(queue) || has_other_room(task, queue);
        retry_is_due
            // What becomes of these is open: they, or others that are like them, may turn to something else.
            || !self.failed.is_empty()
            || self.queues.heads_after(None).any(has_any)
            || self.races.wanted(now).any(|task| has_room(self.queues.index_of(task)))
    }

    /// Whether a task waits for something that another run may give back.
    #[must_use]
    pub fn waits_for_others(&self) -> bool {
        let refused = || self.queues.waiting().any(|queue| queue.refused().is_some());
        self.sharing.others && (!self.sharing.waiting.is_empty() || self.races.is_wanted() || refused())
    }

    /// Takes in what other runs have done. What they may have made is looked up again before it is made once more.
    pub fn hear_of_others(&mut self, news: &News, now: Millis) {
        if let Some(hold) = &news.hold {
            self.others_hold(hold, now);
        }
        for path in &news.made {
            for task in self.who_makes(path) {
                self.look_up_again(task);
                let turn = self.turn(task);
                if self.queues.remove(turn) {
                    self.queue_if_unblocked(task);
                }
            }
        }
    }

    /// Returns the tasks that would write a path, something in it or what it is in.
    fn who_makes(&mut self, path: &str) -> BTreeSet<TaskId> {
        let Sharing { makers, places, .. } = &mut self.sharing;
        let makers = makers.get_or_insert_with(|| {
            let tasks = (0..).map(TaskId).zip(&self.graph.tasks);
            let outputs = tasks.flat_map(|(id, task)| task.outputs.iter().map(move |path| (path, id)));
            outputs.map(|(path, id)| (places.of(path), id)).collect()
        });
        let within = makers.range(format!("{path}/")..format!("{path}0")).map(|(_, task)| *task);
        let around = Path::new(path).ancestors().filter_map(|above| makers.get(above.to_str()?)).copied();
        within.chain(around).collect()
    }

    /// Lets a task be looked up before it starts, if it may be.
    fn look_up_again(&mut self, task: TaskId) {
        let again = self.sharing.look_again.get(task.index()).copied().unwrap_or(false);
        if let Some(unseen) = self.unseen.get_mut(task.index()) {
            *unseen = again;
        }
    }

    /// Takes in everything that other runs hold and write now.
    fn others_hold(&mut self, holdings: &[Holding], now: Millis) {
        let (Sharing { run, running, .. }, graph) = (&self.sharing, self.graph);
        let own = |around: &Around| {
            let is_it = |(id, number): &((TaskId, Role), u32)| {
                *number == around.attempt && graph.tasks[id.0.index()].name == around.task
            };
            let of_this = (around.run == *run).then_some(running);
            of_this?.iter().map(|(id, number)| (*id, *number)).find(is_it).map(|(id, _)| id)
        };
        // Who only computes on the host within a task has taken nothing of what was promised to it on a device.
        let on_devices = holdings.iter().filter(|of| !of.place.devices.is_empty());
        let around: BTreeSet<TaskId> =
            on_devices.flat_map(|of| of.within.outwards()).filter_map(own).map(|(task, _)| task).collect();
        self.ledger.others_hold(self.fleet, holdings, own, now);
        self.sharing.around.extend(around);
        self.sharing.others = !holdings.is_empty();
        let writes = holdings.iter().flat_map(|of| of.writes.iter().map(|path| (path.clone(), of.called.clone())));
        self.sharing.writers = writes.collect();
        let waiting = std::mem::take(&mut self.sharing.waiting);
        for (task, since) in waiting.into_iter().map(|(task, waits)| (task, waits.since)) {
            if !self.waits_for_other_run(task, since) {
                self.look_up_again(task);
                self.queue_if_unblocked(task);
            }
        }
    }

    /// Whether another run writes what a task would write. It waits for that, `since` then.
    pub(super) fn waits_for_other_run(&mut self, task: TaskId, since: Millis) -> bool {
        let Sharing { writers, waiting, places, .. } = &mut self.sharing;
        if writers.is_empty() {
            return false;
        }
        let writer = |path: &String| {
            let own = places.of(path);
            let (_, run) = writers.iter().find(|(theirs, _)| overlap(theirs, &own))?;
            Some((path.clone(), run.clone()))
        };
        let found = self.graph.tasks[task.index()].outputs.iter().find_map(writer);
        if let Some((path, run)) = found {
            waiting.insert(task, ForOutput { path, run, since });
            return true;
        }
        false
    }

    /// Takes in that an attempt runs.
    pub(super) fn note_running(&mut self, task: TaskId, role: Role, number: u32) {
        self.sharing.running.insert((task, role), number);
    }

    /// Takes in that an attempt has ended, and with it the runs that it has started.
    pub(super) fn note_ended(&mut self, task: TaskId, role: Role) {
        self.sharing.running.remove(&(task, role));
        self.sharing.around.remove(&task);
    }

    /// Whether another run writes anything.
    pub(super) const fn anybody_writes(&self) -> bool {
        !self.sharing.writers.is_empty()
    }

    /// Forgets that a task waits for another run.
    pub(super) fn forget_wait(&mut self, task: TaskId) {
        self.sharing.waiting.remove(&task);
    }

    /// Yields the tasks that wait for an output of another run.
    pub(super) fn for_outputs(&self) -> impl Iterator<Item = (TaskId, &ForOutput)> {
        self.sharing.waiting.iter().map(|(task, waits)| (*task, waits))
    }
}

/// Whether two paths are the same, or one lies within the other.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let is_within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    one == other || is_within(one, other) || is_within(other, one)
}

/// Where the outputs of one pipeline lie, whatever links lead there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The pipeline's folder, links resolved.
    pub root: String,
    /// Folders of outputs that lie elsewhere than they are written, and where.
    pub moved: BTreeMap<String, String>,
}

impl Places {
    /// Returns where an output lies.
    #[must_use]
    pub fn of(&self, output: &str) -> String {
        let written = self.written(output);
        match written.rsplit_once('/').and_then(|(folder, name)| Some((self.moved.get(folder)?, name))) {
            Some((folder, name)) => format!("{folder}/{name}"),
            None => written,
        }
    }

    /// Returns where an output lies, links not followed.
    #[must_use]
    pub fn written(&self, output: &str) -> String {
        if output.starts_with('/') { output.to_owned() } else { format!("{}/{output}", self.root) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Places, overlap};

    #[test]
    fn an_output_lies_where_the_link_to_its_folder_leads() {
        let moved = [("/p/alias".to_owned(), "/p/real".to_owned())].into();
        let places = Places { root: "/p".to_owned(), moved };
        assert_eq!(["alias/z", "real/z", "/x/z"].map(|path| places.of(path)), ["/p/real/z", "/p/real/z", "/x/z"]);
    }

    #[test]
    fn a_folder_and_what_is_in_it_are_written_one_after_the_other() {
        assert!(overlap("/p/out", "/p/out"));
        assert!(overlap("/p/out", "/p/out/x") && overlap("/p/out/x", "/p/out"));
        assert!(!overlap("/p/out", "/p/output") && !overlap("/p/out/x", "/p/out/y"));
    }
}
