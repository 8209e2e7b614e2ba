//! The search on a device: the population is made there, stays there, and only the best orders come back.

use super::super::device::{Deal, Extent, Judge as DeviceJudge, OffDevice, count};
use super::moves::Round;
use super::tables::Tables;
use super::{BLOCKS, Effort, FIRST_TRAIL, Found, GAIN, Judge, LEAVE, Machine, Method, Problem, Shelf, search};
use crate::cuda::{Argument, Buffer, CudaError, Device, Kernel, Launch, Source};
use crate::timing::layout::LANES;

/// Threads of a block where values are all alike.
const BLOCK: u32 = 256;

/// Searches on a device: returns what [`on_cpu`](super::on_cpu) returns.
///
/// # Errors
/// Where the device cannot, or a candidate needs more shared memory than it has.
pub fn on_device(device: &Device, problem: &Problem, effort: &Effort<'_>) -> Result<Found, OffDevice> {
    Ok(search(&mut OnDevice::new(device, problem, effort)?, effort)?)
}

/// Candidates on a device. The arrays that a method does not use are empty.
struct Kept<'d> {
    order: Buffer<'d, u16>,
    makespan: Buffer<'d, u32>,
    key: Buffer<'d, u32>,
}

impl<'d> Kept<'d> {
    fn new(device: &'d Device, n_tasks: usize, candidates: usize, keys: usize) -> Result<Self, CudaError> {
        let order = device.array(n_tasks * candidates)?;
        Ok(Self { order, makespan: device.filled(candidates, 0xFF)?, key: device.array(keys)? })
    }
}

/// A kernel in which a warp is a candidate.
struct ByWarp<'d> {
    kernel: Kernel<'d>,
    launch: Launch,
}

impl<'d> ByWarp<'d> {
    /// `bytes` is the shared memory of a warp.
    fn new(device: &'d Device, name: &str, candidates: u32, bytes: u64, n_tasks: usize) -> Result<Self, OffDevice> {
        let kernel = device.kernel(Source::Search, name)?;
        let deal = Deal::new(device, &kernel, LANES as u32, 1, bytes, Extent::tasks(n_tasks))?;
        Ok(Self { kernel, launch: deal.launch(candidates) })
    }

    /// # Safety
    /// As for [`Kernel::start`].
    unsafe fn start(&self, arguments: &[&dyn Argument]) -> Result<(), CudaError> {
        // SAFETY: the caller's.
        unsafe { self.kernel.start(self.launch, arguments) }
    }
}

struct OnDevice<'d> {
    device: &'d Device,
    n_tasks: u32,
    candidates: u32,
    known: Vec<u16>,
    base: Buffer<'d, u32>,
    n_bases: u32,
    judge: DeviceJudge<'d>,
    next_offset: Buffer<'d, u32>,
    target: Buffer<'d, u16>,
    bias: Buffer<'d, u32>,
    gap: Buffer<'d, u32>,
    race: Buffer<'d, u32>,
    fraction: Buffer<'d, u32>,
    trail: Buffer<'d, u32>,
    velocity: Buffer<'d, u32>,
    child: Kept<'d>,
    current: Kept<'d>,
    best: Kept<'d>,
    /// The best candidate and its makespan.
    leader: Buffer<'d, u32>,
    /// The same of the best children.
    leaders_of_round: Buffer<'d, u32>,
    ant_orders: ByWarp<'d>,
    swarm_orders: ByWarp<'d>,
    children: ByWarp<'d>,
    neighbours: ByWarp<'d>,
    settle: ByWarp<'d>,
}

impl<'d> OnDevice<'d> {
    fn new(device: &'d Device, problem: &Problem, effort: &Effort<'_>) -> Result<Self, OffDevice> {
        let n = problem.links.n_tasks();
        let candidates = count(effort.candidates);
        let if_method = |method, values| if effort.method == method { values } else { 0 };
        let keys = if_method(Method::Swarm, n * effort.candidates);
        let tables = Tables::default();
        let by_warp = |name, bytes| ByWarp::new(device, name, candidates, bytes, n);
        // What is missing and keys, a word a task each, and what is ready, half a word; marks, a bit a task.
        let (building, marks) = (4 * (2 * n as u64 + n.div_ceil(2) as u64), 4 * n.div_ceil(32) as u64);
        Ok(Self {
            device,
            n_tasks: count(n),
            candidates,
            known: problem.known.tasks().to_vec(),
            base: device.upload(&problem.bases())?,
            n_bases: count(problem.known.len()),
            judge: match &problem.judge {
                Judge::Lists(lists) => DeviceJudge::of_lists(device, lists)?,
                Judge::Project(project) => DeviceJudge::of_project(device, project)?,
            },
            next_offset: device.upload(&problem.links.after.offset)?,
            target: device.upload(&problem.links.after.source)?,
            bias: device.upload(&problem.urgency.bias)?,
            gap: device.upload(&tables.gap)?,
            race: device.upload(&tables.race)?,
            fraction: device.upload(&tables.fraction)?,
            trail: device.upload(&vec![FIRST_TRAIL; BLOCKS * n])?,
            velocity: device.array(keys)?,
            child: Kept::new(device, n, effort.candidates, keys)?,
            current: Kept::new(device, n, effort.candidates, keys)?,
            best: Kept::new(device, n, if_method(Method::Annealing, effort.candidates), 0)?,
            leader: device.array(2)?,
            leaders_of_round: device.array(2 * LEAVE.min(effort.candidates))?,
            ant_orders: by_warp("ant_orders", building)?,
            swarm_orders: by_warp("swarm_orders", building)?,
            children: by_warp("children", marks)?,
            neighbours: by_warp("neighbours", marks)?,
            settle: by_warp("settle", 0)?,
        })
    }

    const fn shelf(&self, shelf: Shelf) -> &Kept<'d> {
        match shelf {
            Shelf::Current => &self.current,
            Shelf::Best => &self.best,
        }
    }

    /// Starts a kernel with a thread for each of `values`.
    ///
    /// # Safety
    /// As for [`Kernel::start`].
    unsafe fn each(&self, name: &str, values: u32, arguments: &[&dyn Argument]) -> Result<(), CudaError> {
        // SAFETY: the caller's.
        unsafe { self.device.kernel(Source::Search, name)?.start(Launch::of(values, BLOCK), arguments) }
    }

    /// Finds the best candidates: half of `leader` are they, the other half their makespans.
    fn leaders(&self, makespan: &Buffer<'d, u32>, leader: &Buffer<'d, u32>) -> Result<(), CudaError> {
        let (candidates, wanted) = (count(makespan.len()), count(leader.len() / 2));
        let shared = BLOCK / LANES as u32 * 8;
        let launch = Launch { grid: 1, block: BLOCK, shared, cooperative: false };
        let kernel = self.device.kernel(Source::Search, "leaders")?;
        // SAFETY: what `leaders` takes; arrays and shared memory as large as it says.
        unsafe { kernel.start(launch, &[&candidates, &wanted, makespan, leader]) }
    }

    /// Lets leaders leave trails.
    fn leave(&self, leader: &Buffer<'d, u32>, order: &Buffer<'d, u16>) -> Result<(), CudaError> {
        let (blocks, n_leaders) = (count(BLOCKS), count(leader.len() / 2));
        let Self { n_tasks, trail, .. } = self;
        // SAFETY: what `leave` takes; arrays as large as it says.
        unsafe { self.each("leave", n_tasks * n_leaders, &[n_tasks, &blocks, &n_leaders, &GAIN, leader, order, trail]) }
    }

    fn place(&self) -> Result<(), CudaError> {
        let (offset, _) = self.judge.precedence();
        let Self { n_tasks, candidates, next_offset, target, child, .. } = self;
        // SAFETY: what `swarm_orders` takes; arrays and shared memory as large as it says.
        unsafe {
            self.swarm_orders.start(&[n_tasks, candidates, offset, next_offset, target, &child.key, &child.order])
        }
    }
}

impl Machine for OnDevice<'_> {
    type Error = CudaError;

    fn sample(&mut self, round: Round) -> Result<(), CudaError> {
        let (offset, _) = self.judge.precedence();
        let Self { n_tasks, candidates, next_offset, target, trail, bias, race, fraction, child, .. } = &*self;
        let (blocks, Round { seed, generation }) = (count(BLOCKS), round);
        // SAFETY: what `ant_orders` takes; arrays and shared memory as large as it says.
        unsafe {
            self.ant_orders.start(&[
                n_tasks,
                candidates,
                &blocks,
                &seed,
                &generation,
                offset,
                next_offset,
                target,
                trail,
                bias,
                race,
                fraction,
                &child.order,
            ])
        }
    }

    fn know(&mut self) -> Result<(), CudaError> {
        self.child.order.write(&self.known)
    }

    fn cross(&mut self, round: Round) -> Result<(), CudaError> {
        let (offset, source) = self.judge.precedence();
        let Self { n_tasks, candidates, next_offset, target, current: Kept { order, makespan, .. }, child, .. } =
            &*self;
        let Round { seed, generation } = round;
        // SAFETY: what `children` takes; arrays and shared memory as large as it says.
        unsafe {
            self.children.start(&[
                n_tasks,
                candidates,
                &seed,
                &generation,
                offset,
                source,
                next_offset,
                target,
                order,
                makespan,
                &child.order,
            ])
        }
    }

    fn stray(&mut self, round: Round) -> Result<(), CudaError> {
        let (offset, source) = self.judge.precedence();
        let Self { n_tasks, candidates, next_offset, target, current, child, .. } = &*self;
        let Round { seed, generation } = round;
        // SAFETY: what `neighbours` takes; arrays and shared memory as large as it says.
        unsafe {
            self.neighbours.start(&[
                n_tasks,
                candidates,
                &seed,
                &generation,
                offset,
                source,
                next_offset,
                target,
                &current.order,
                &child.order,
            ])
        }
    }

    fn scatter(&mut self, round: Round) -> Result<(), CudaError> {
        let Self { n_tasks, candidates, n_bases, base, child, velocity, .. } = &*self;
        // SAFETY: what `scatter` takes; arrays as large as it says.
        unsafe {
            self.each(
                "scatter",
                count(velocity.len()),
                &[n_tasks, candidates, n_bases, &round.seed, base, &child.key, velocity],
            )?;
        }
        self.place()
    }

    fn fly(&mut self, round: Round) -> Result<(), CudaError> {
        let Self { n_tasks, candidates, leader, current, child, velocity, .. } = &*self;
        let Round { seed, generation } = round;
        // SAFETY: what `fly` takes; arrays as large as it says.
        unsafe {
            self.each(
                "fly",
                count(velocity.len()),
                &[n_tasks, candidates, &seed, &generation, leader, &current.key, &child.key, velocity],
            )?;
        }
        self.place()
    }

    fn judge(&mut self) -> Result<(), CudaError> {
        self.judge.compute(&self.child.order, &self.child.makespan)
    }

    fn settle(&mut self, shelf: Shelf, round: Round, temperature: u32) -> Result<(), CudaError> {
        let Self { n_tasks, candidates, gap, child, .. } = &*self;
        let kept = self.shelf(shelf);
        let keys = if kept.key.is_empty() { 0 } else { *n_tasks };
        let Round { seed, generation } = round;
        // SAFETY: what `settle` takes; arrays as large as it says.
        unsafe {
            self.settle.start(&[
                n_tasks,
                &keys,
                candidates,
                &seed,
                &generation,
                &temperature,
                gap,
                &child.order,
                &child.makespan,
                &child.key,
                &kept.order,
                &kept.makespan,
                &kept.key,
            ])
        }
    }

    fn learn(&mut self) -> Result<(), CudaError> {
        let values = count(self.trail.len());
        // SAFETY: what `fade` takes; arrays as large as it says.
        unsafe { self.each("fade", values, &[&values, &self.trail])? };
        for (kept, leader) in [(&self.child, &self.leaders_of_round), (&self.current, &self.leader)] {
            self.leaders(&kept.makespan, leader)?;
            self.leave(leader, &kept.order)?;
        }
        Ok(())
    }

    fn lead(&mut self, shelf: Shelf) -> Result<u32, CudaError> {
        self.leaders(&self.shelf(shelf).makespan, &self.leader)?;
        // Waits: so a search notices soon that its time is over, or its device gone.
        Ok(self.leader.read_part(1, 1)?[0])
    }

    fn best(&mut self, shelf: Shelf, wanted: usize) -> Result<Vec<Vec<u16>>, CudaError> {
        let kept = self.shelf(shelf);
        let leader = self.device.array(2 * wanted)?;
        self.leaders(&kept.makespan, &leader)?;
        let n = self.n_tasks as usize;
        leader.read()?[..wanted].iter().map(|leader| kept.order.read_part(*leader as usize * n, n)).collect()
    }
}
