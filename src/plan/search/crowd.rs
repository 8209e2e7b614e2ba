//! Several decoders that make schedules at once, the same as one would make one after the other.

use super::super::Options;
use super::super::decode::{Decoder, Direction, Wanted};
use super::super::draft::Draft;
use super::super::fit::Fit;
use super::super::instance::Instance;
use super::super::team::Team;
use super::crossover::Orders;
use super::genetic::Individual;
use crate::graph::TaskId;

/// What is to be decoded.
pub(super) struct Wish {
    /// Ends, of which the order is made, and choices.
    pub(super) child: Individual,
    /// Whether the choices are known to stay in the budgets.
    pub(super) paid: bool,
}

/// Tasks from which on it is worth while: a schedule of fewer is made in less time than a thread begins.
const TASKS: usize = 256;
/// Schedules that each makes one after the other: so many keep waiting for the slowest short.
const EACH: usize = 4;

/// Decoders that work at once.
pub(super) struct Crowd<'a, const W: usize> {
    instance: &'a Instance<'a>,
    team: Team<'a>,
    members: Vec<Member<'a, W>>,
}

struct Member<'a, const W: usize> {
    decoder: Decoder<'a, W>,
    fit: Fit,
    orders: Orders,
    order: Vec<TaskId>,
    drafts: Vec<Draft>,
    /// `[drafts]`: whether each is one.
    made: Vec<bool>,
}

impl<'a, const W: usize> Crowd<'a, W> {
    /// Returns those who may help; `None` where nobody can or it is not worth while.
    pub(super) fn of(instance: &'a Instance<'a>, options: &Options<'a>) -> Option<Self> {
        let team = options.decoders.filter(|team| team.count > 1 && instance.len() >= TASKS)?;
        Some(Self { instance, team, members: Vec::new() })
    }

    /// Returns how many schedules are made at once.
    pub(super) fn batch(&self) -> usize {
        EACH * self.team.count as usize
    }

    /// Decodes wishes as `like` would.
    pub(super) fn decode(&mut self, wishes: &[Wish], direction: Direction, (decoder, fit): (&Decoder<'a, W>, &Fit)) {
        let instance = self.instance;
        let each = wishes.len().div_ceil(self.team.count as usize).max(1);
        let busy = wishes.len().div_ceil(each);
        self.members.resize_with(busy.max(self.members.len()), || Member {
            decoder: Decoder::new(instance),
            fit: fit.clone(),
            orders: Orders::default(),
            order: Vec::new(),
            drafts: Vec::new(),
            made: Vec::new(),
        });
        let jobs = wishes.chunks(each).zip(&mut self.members).map(|(wishes, member)| {
            member.decoder.mind_waste(decoder.thrift);
            member.fit.change(fit.rule(), instance);
            member.made.clear();
            member.drafts.resize_with(wishes.len().max(member.drafts.len()), Draft::default);
            let job = move || {
                for (wish, draft) in wishes.iter().zip(&mut member.drafts) {
                    member.orders.by_end(instance.graph, &wish.child, direction, &mut member.order);
                    let (order, choice, paid) = (&member.order[..], &wish.child.choice[..], wish.paid);
                    let wanted = Wanted { order, choice, paid, direction, kept: None, near: None, by: None };
                    member.made.push(member.decoder.decode(&wanted, &mut member.fit, draft).is_ok());
                }
            };
            Box::new(job) as Box<dyn FnOnce() + Send + '_>
        });
        let jobs = jobs.collect();
        self.team.crew.all_at_once(jobs);
        self.members[busy..].iter_mut().for_each(|idle| idle.made.clear());
    }

    /// Yields the schedules of the wishes decoded last, in their order; `None` where there is none.
    pub(super) fn made(&self) -> impl Iterator<Item = Option<&Draft>> {
        let members = self.members.iter().flat_map(|member| member.made.iter().zip(&member.drafts));
        members.map(|(made, draft)| made.then_some(draft))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Fleet;
    use crate::plan::fixture::{Problem, add_node, on_gpus, on_host, problem};
    use crate::plan::team::Crew;
    use crate::plan::{self, Limits};
    use crate::spec::Gpus;
    use crate::units::{Millis, Share};

    /// A thread for each job.
    struct Threads;

    impl Crew for Threads {
        fn all_at_once<'j>(&self, jobs: Vec<Box<dyn FnOnce() + Send + 'j>>) {
            std::thread::scope(|scope| jobs.into_iter().for_each(|job| drop(scope.spawn(job))));
        }
    }

    /// Three hundred tasks with a choice between two classes of devices, some on two of them at once.
    fn large() -> Problem {
        let mode = |task: u32| {
            let gpus = [Gpus::Whole(1), Gpus::Share(Share(500_000)), Gpus::Whole(2)][task as usize * 7 % 3];
            let mut mode = on_gpus(gpus, 1 + u64::from(task % 5), u64::from(10 + task * 13 % 37));
            mode.duration.by_model = [("A".into(), Millis(10 + u64::from(task * 13 % 37)))].into();
            vec![mode]
        };
        let edges: Vec<_> = (0..270).map(|task| (task, task + 30 - task % 7)).collect();
        let mut fleet = Fleet::default();
        let (a, b) = (("A", 16, 1_000), ("B", 16, 700));
        add_node(&mut fleet, 64, 64, &[a, a, a, b, b, b]);
        problem((0..300).map(mode).collect(), &edges, fleet)
    }

    /// As many on one host, which are made without a choice.
    fn on_one_host() -> Problem {
        let mut fleet = Fleet::default();
        add_node(&mut fleet, 8, 64, &[]);
        let modes = (0..300).map(|task| vec![on_host(1 + task % 5, 10 + task * 13 % 37)]).collect();
        let edges: Vec<_> = (0..270).map(|task| (task, task + 30 - task % 7)).collect();
        problem(modes, &edges, fleet)
    }

    fn finds_the_same(problem: &Problem) {
        let Problem { pipeline, graph, fleet } = problem;
        let planned = |policy: &str, count: Option<u32>| {
            let limits = Limits { evaluations: Some(200), ..Limits::default() };
            let decoders = count.map(|count| Team { count, crew: &Threads });
            let options = Options { policy: policy.parse().unwrap(), seed: 3, limits, decoders, ..Options::default() };
            plan::make(pipeline, graph, fleet, &options).unwrap()
        };
        for policy in ["ga", "auto"] {
            let alone = planned(policy, None);
            assert_eq!(alone.evaluations, 200);
            for count in [2, 5] {
                let beside = planned(policy, Some(count));
                assert_eq!((&beside.placed, beside.evaluations), (&alone.placed, 200), "{policy}, {count}");
            }
        }
    }

    #[test]
    fn however_many_decode_at_once_the_plan_is_the_same() {
        finds_the_same(&large());
        finds_the_same(&on_one_host());
    }
}
