//! The search on the CPU: one core, the definition of what a device does.

use std::convert::Infallible;

use super::moves::{self, Round, Signs};
use super::stays::{self, Population};
use super::tables::Tables;
use super::{BLOCKS, Effort, FIRST_TRAIL, Found, GAIN, LEAVE, Machine, Method, Problem, Shelf, search};

type Kept = Population<Vec<u16>, Vec<u32>, Vec<u32>>;

/// Searches on the CPU.
#[must_use]
pub fn on_cpu(problem: &Problem, effort: &Effort<'_>) -> Found {
    let found: Result<_, Infallible> = search(&mut Cpu::new(problem, effort), effort);
    match found {
        Ok(found) => found,
        Err(never) => match never {},
    }
}

struct Cpu<'p> {
    problem: &'p Problem,
    tables: Tables,
    /// Orders by trail, and of those how many are particles' keys.
    trail: Vec<u32>,
    velocity: Vec<u32>,
    child: Kept,
    current: Kept,
    best: Kept,
    leader: u32,
}

impl<'p> Cpu<'p> {
    fn new(problem: &'p Problem, effort: &Effort<'_>) -> Self {
        let n = problem.links.n_tasks();
        let values = n * effort.candidates;
        let if_method = |method, values| if effort.method == method { values } else { 0 };
        let keys = if_method(Method::Swarm, values);
        let kept = |candidates: usize, keys| Kept {
            order: vec![0; n * candidates],
            makespan: vec![u32::MAX; candidates],
            key: vec![0; keys],
        };
        Self {
            problem,
            tables: Tables::default(),
            trail: vec![FIRST_TRAIL; BLOCKS * n],
            velocity: vec![0; keys],
            child: kept(effort.candidates, keys),
            current: kept(effort.candidates, keys),
            best: kept(if_method(Method::Annealing, effort.candidates), 0),
            leader: 0,
        }
    }

    const fn shelf(&self, shelf: Shelf) -> &Kept {
        match shelf {
            Shelf::Current => &self.current,
            Shelf::Best => &self.best,
        }
    }

    fn place(&mut self) {
        moves::swarm_orders(&self.problem.links, &self.child.key, &mut self.child.order);
    }
}

impl Machine for Cpu<'_> {
    type Error = Infallible;

    fn sample(&mut self, round: Round) -> Result<(), Infallible> {
        let signs = Signs { trail: &self.trail, bias: &self.problem.urgency.bias, tables: &self.tables };
        moves::ant_orders(&self.problem.links, signs, round, &mut self.child.order);
        Ok(())
    }

    fn know(&mut self) -> Result<(), Infallible> {
        let known = self.problem.known.tasks();
        self.child.order[..known.len()].copy_from_slice(known);
        Ok(())
    }

    fn cross(&mut self, round: Round) -> Result<(), Infallible> {
        let Kept { order, makespan, .. } = &self.current;
        moves::children(&self.problem.links, round, order, makespan, &mut self.child.order);
        Ok(())
    }

    fn stray(&mut self, round: Round) -> Result<(), Infallible> {
        moves::neighbours(&self.problem.links, round, &self.current.order, &mut self.child.order);
        Ok(())
    }

    fn scatter(&mut self, round: Round) -> Result<(), Infallible> {
        let base = self.problem.bases();
        stays::scatter(self.problem.links.n_tasks(), round.seed, &base, &mut self.child.key, &mut self.velocity);
        self.place();
        Ok(())
    }

    fn fly(&mut self, round: Round) -> Result<(), Infallible> {
        let n = self.problem.links.n_tasks();
        stays::fly(n, round, self.leader, &self.current.key, &mut self.child.key, &mut self.velocity);
        self.place();
        Ok(())
    }

    fn judge(&mut self) -> Result<(), Infallible> {
        let orders = self.child.order.chunks(self.problem.links.n_tasks());
        for (makespan, order) in self.child.makespan.iter_mut().zip(orders) {
            *makespan = self.problem.judge.makespan(order);
        }
        Ok(())
    }

    fn settle(&mut self, shelf: Shelf, round: Round, temperature: u32) -> Result<(), Infallible> {
        let Kept { order, makespan, key } = match shelf {
            Shelf::Current => &mut self.current,
            Shelf::Best => &mut self.best,
        };
        let keys = if key.is_empty() { &[] } else { &self.child.key[..] };
        let child = Population { order: &self.child.order[..], makespan: &self.child.makespan[..], key: keys };
        let mut kept = Population { order: &mut order[..], makespan: &mut makespan[..], key: &mut key[..] };
        stays::settle(round, temperature, &self.tables.gap, &child, &mut kept);
        Ok(())
    }

    fn learn(&mut self) -> Result<(), Infallible> {
        let n = self.problem.links.n_tasks();
        stays::fade(&mut self.trail);
        for (kept, leave) in [(&self.child, LEAVE.min(self.child.makespan.len())), (&self.current, 1)] {
            let mut leader = vec![0; 2 * leave];
            stays::leaders(&kept.makespan, &mut leader);
            stays::leave(n, &leader[..leave], GAIN, &kept.order, &mut self.trail);
        }
        Ok(())
    }

    fn lead(&mut self, shelf: Shelf) -> Result<u32, Infallible> {
        let mut leader = [0; 2];
        stays::leaders(&self.shelf(shelf).makespan, &mut leader);
        self.leader = leader[0];
        Ok(leader[1])
    }

    fn best(&mut self, shelf: Shelf, wanted: usize) -> Result<Vec<Vec<u16>>, Infallible> {
        let n = self.problem.links.n_tasks();
        let Kept { order, makespan, .. } = self.shelf(shelf);
        let mut leader = vec![0; 2 * wanted];
        stays::leaders(makespan, &mut leader);
        Ok(leader[..wanted].iter().map(|leader| order[*leader as usize * n..][..n].to_vec()).collect())
    }
}
