//! Batches on a device: equal to what this room computes on the CPU.
//!
//! What does not change between batches is uploaded once. Does not choose who computes.

use super::lists::Lists;
use super::orders::{Orders, Precedence};
use super::sgs::Project;
use super::tape::Tape;
use super::timing::{Choices, KINDS, Times};
use crate::cuda::{Buffer, CudaError, Device, Kernel, Launch, Source};
use crate::timing::layout::LANES;

/// Threads of a block at most, as the kernels' launch bounds say.
const BLOCK: u32 = 128;

/// Shared memory that a block has without being asked for, in bytes.
const SHARED: u64 = 48 << 10;

/// Why a batch was not computed on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffDevice {
    /// The device or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A candidate needs more shared memory than there is.
    #[error(
        "{} {} are too many for this device: they need {needs} bytes of a block's shared memory, of which it has {has}, \
         enough for about {}",
        extent.count, extent.of, extent.that_fits(*needs, *has)
    )]
    TooLarge {
        /// What there is too much of.
        extent: Extent,
        /// What the smallest group of threads needs.
        needs: u64,
        /// What there is.
        has: u64,
    },
}

/// What the shared memory of a candidate grows with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Of what, in the plural.
    pub of: &'static str,
    /// How many of them.
    pub count: u64,
}

impl Extent {
    pub(super) const fn tasks(count: usize) -> Self {
        Self { of: "tasks", count: count as u64 }
    }

    fn that_fits(self, needs: u64, has: u64) -> u128 {
        u128::from(self.count) * u128::from(has) / u128::from(needs.max(1))
    }
}

/// A length as kernels take it.
pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).expect("lengths of a problem that was checked")
}

/// How candidates are dealt out to groups of threads that each need some shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deal {
    /// Candidates of a block.
    candidates: u32,
    launch: Launch,
}

impl Deal {
    /// `threads` are a group's, for `candidates` of them, with `bytes` of shared memory, which grow with `extent`.
    pub(super) fn new(
        device: &Device,
        kernel: &Kernel<'_>,
        threads: u32,
        candidates: u32,
        bytes: u64,
        extent: Extent,
    ) -> Result<Self, OffDevice> {
        let has = u64::from(device.about().shared_memory);
        // A block is at least a warp, whose groups all need their part.
        let in_warp = (LANES as u32 / threads).max(1);
        let needs = bytes * u64::from(in_warp);
        if needs > has {
            return Err(OffDevice::TooLarge { extent, needs, has });
        }
        let most = u64::from(BLOCK / (threads * in_warp));
        let warps = (has / needs.max(1)).clamp(1, most);
        // Small blocks fill a multiprocessor's shared memory better: no more than what needs no asking for, if that does.
        let warps = if needs <= SHARED { warps.min(SHARED / needs.max(1)) } else { 1 };
        let shared = u32::try_from(needs * warps).unwrap_or(u32::MAX);
        if u64::from(shared) > SHARED {
            kernel.allow_shared(shared)?;
        }
        let groups = u32::try_from(warps).unwrap_or(1) * in_warp;
        let launch = Launch { grid: 1, block: groups * threads, shared, cooperative: false };
        Ok(Self { candidates: groups * candidates, launch })
    }

    pub(super) const fn launch(&self, candidates: u32) -> Launch {
        let grid = candidates.div_ceil(self.candidates);
        Launch { grid: if grid == 0 { 1 } else { grid }, ..self.launch }
    }
}

/// A tape and its durations on a device.
#[derive(Debug)]
pub struct DeviceTape<'d> {
    device: &'d Device,
    n_tasks: u32,
    n_rows: u32,
    tape: Buffer<'d, u16>,
    times: Buffer<'d, u32>,
    kernel: Kernel<'d>,
    deal: Deal,
}

impl<'d> DeviceTape<'d> {
    /// Uploads a graph.
    ///
    /// # Errors
    /// Where the device cannot, or has too little shared memory for the rows.
    pub fn new(device: &'d Device, tape: &Tape, times: &Times) -> Result<Self, OffDevice> {
        let kernel = device.kernel(Source::BatchTiming, "batch_timing")?;
        let bytes = tape.n_rows() as u64 * 4 * LANES as u64;
        let extent = Extent { of: "finishes to be kept at once", count: tape.n_rows() as u64 };
        Ok(Self {
            device,
            n_tasks: count(times.by_step().len()),
            n_rows: count(tape.n_rows()),
            tape: device.upload(tape.words())?,
            times: device.upload(times.by_step().as_flattened())?,
            deal: Deal::new(device, &kernel, LANES as u32, LANES as u32, bytes, extent)?,
            kernel,
        })
    }

    /// Returns what [`makespans`](super::timing::makespans) returns.
    ///
    /// # Errors
    /// Of the device.
    pub fn makespans(&self, choices: &Choices) -> Result<Vec<u32>, CudaError> {
        let (chosen, found) = self.room(choices)?;
        self.compute(&chosen, &found)?;
        found.read()
    }

    /// Uploads choices and makes room for what comes out.
    ///
    /// # Errors
    /// Of the device.
    pub fn room(&self, choices: &Choices) -> Result<(Buffer<'d, u8>, Buffer<'d, u32>), CudaError> {
        Ok((self.device.upload(choices.by_step())?, self.device.array(choices.n_candidates())?))
    }

    /// Starts timing candidates. Does not wait.
    ///
    /// # Errors
    /// Of the device.
    ///
    /// # Panics
    /// When there is not a choice for each task and candidate.
    pub fn compute(&self, chosen: &Buffer<'d, u8>, found: &Buffer<'d, u32>) -> Result<(), CudaError> {
        assert_eq!(chosen.len(), self.n_tasks as usize * found.len(), "a choice for each task and candidate");
        let (n, kinds) = (count(found.len()), KINDS as u32);
        if n == 0 {
            return Ok(());
        }
        let Self { n_tasks, n_rows, tape, times, .. } = self;
        // SAFETY: what `batch_timing` takes; rows, choices and shared memory as large as it says.
        unsafe { self.kernel.start(self.deal.launch(n), &[n_tasks, &n, &kinds, n_rows, tape, times, chosen, found]) }
    }
}

/// What judges orders on a device.
#[derive(Debug)]
pub struct Judge<'d> {
    device: &'d Device,
    n_tasks: u32,
    offset: Buffer<'d, u32>,
    source: Buffer<'d, u16>,
    by: By<'d>,
    kernel: Kernel<'d>,
    deal: Deal,
}

/// What it judges them by, and what only that takes.
#[derive(Debug)]
enum By<'d> {
    Lists { n_devices: u32, width: u32, time: Buffer<'d, u32>, memory: Buffer<'d, u32>, capacity: Buffer<'d, u32> },
    Project { horizon: u32, capacity: u64, duration: Buffer<'d, u32>, need: Buffer<'d, u64> },
}

impl<'d> Judge<'d> {
    /// Uploads tasks and devices: orders are judged as [`Lists::makespans`] does.
    ///
    /// # Errors
    /// Where the device cannot, or has too little shared memory for the finishes.
    pub fn of_lists(device: &'d Device, lists: &Lists) -> Result<Self, OffDevice> {
        let kernel = device.kernel(Source::ListSchedule, "list_schedule")?;
        let n_devices = count(lists.capacity.len());
        let width = n_devices.next_power_of_two().max(8);
        let n_tasks = lists.memory.len();
        let deal = Deal::new(device, &kernel, width, 1, n_tasks as u64 * 4, Extent::tasks(n_tasks))?;
        let by = By::Lists {
            n_devices,
            width,
            time: device.upload(&lists.time)?,
            memory: device.upload(&lists.memory)?,
            capacity: device.upload(&lists.capacity)?,
        };
        Self::new(device, &lists.precedence, by, kernel, deal)
    }

    /// Uploads a project: orders are judged as [`Project::makespans`] does.
    ///
    /// # Errors
    /// Where the device cannot, or has too little shared memory for the profile.
    pub fn of_project(device: &'d Device, project: &Project) -> Result<Self, OffDevice> {
        let kernel = device.kernel(Source::Sgs, "sgs")?;
        let extent = Extent { of: "ticks one after the other", count: project.horizon.into() };
        let words = u64::from(project.horizon) + LANES as u64 + project.duration.len().div_ceil(2) as u64;
        let deal = Deal::new(device, &kernel, LANES as u32, 1, words * 8, extent)?;
        let by = By::Project {
            horizon: project.horizon,
            capacity: project.capacity,
            duration: device.upload(&project.duration)?,
            need: device.upload(&project.need)?,
        };
        Self::new(device, &project.precedence, by, kernel, deal)
    }

    fn new(
        device: &'d Device,
        precedence: &Precedence,
        by: By<'d>,
        kernel: Kernel<'d>,
        deal: Deal,
    ) -> Result<Self, OffDevice> {
        let (offset, source) = (device.upload(&precedence.offset)?, device.upload(&precedence.source)?);
        Ok(Self { device, n_tasks: count(precedence.n_tasks()), offset, source, by, kernel, deal })
    }

    /// Returns when the last task of every order ends.
    ///
    /// # Errors
    /// Of the device.
    pub fn makespans(&self, orders: &Orders) -> Result<Vec<u32>, CudaError> {
        let (tasks, found) = self.room(orders)?;
        self.compute(&tasks, &found)?;
        found.read()
    }

    /// Uploads orders and makes room for what comes out.
    ///
    /// # Errors
    /// Of the device.
    pub fn room(&self, orders: &Orders) -> Result<(Buffer<'d, u16>, Buffer<'d, u32>), CudaError> {
        Ok((self.device.upload(orders.tasks())?, self.device.array(orders.len())?))
    }

    /// Starts scheduling. Does not wait.
    ///
    /// # Errors
    /// Of the device.
    ///
    /// # Panics
    /// When orders are of another length than the problem.
    pub fn compute(&self, orders: &Buffer<'d, u16>, found: &Buffer<'d, u32>) -> Result<(), CudaError> {
        assert_eq!(orders.len(), self.n_tasks as usize * found.len(), "an order for each candidate");
        let n = count(found.len());
        if n == 0 {
            return Ok(());
        }
        let Self { n_tasks, offset, source, .. } = self;
        let launch = self.deal.launch(n);
        // SAFETY: what `list_schedule` and `sgs` take; arrays and shared memory as large as they say.
        unsafe {
            match &self.by {
                By::Lists { n_devices, width, time, memory, capacity } => self.kernel.start(
                    launch,
                    &[n_tasks, &n, n_devices, width, orders, offset, source, time, memory, capacity, found],
                ),
                By::Project { horizon, capacity, duration, need } => self
                    .kernel
                    .start(launch, &[n_tasks, &n, horizon, capacity, orders, offset, source, duration, need, found]),
            }
        }
    }

    /// Returns the sources of every task: where they begin, and they.
    pub(super) const fn precedence(&self) -> (&Buffer<'d, u32>, &Buffer<'d, u16>) {
        (&self.offset, &self.source)
    }
}
