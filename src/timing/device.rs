//! Times and the load matrix, computed on a device: equal to [`Timing::new`] and [`loads`](super::loads), or not at all.
//!
//! A graph is laid out and uploaded once, and can then be timed for many durations. Does not choose who computes.

use crate::cuda::{Argument, Buffer, CudaError, Device, Kernel, Launch, Source};
use crate::graph::{Rows, TaskGraph};
use crate::units::{Millis, Speed};

use super::choice::Way;
use super::chunks::Chunks;
use super::cpm::Timing;
use super::layout::{Both, LANES, Layout};
use super::loads::{Fastest, Reciprocal};
use super::ticks::Ticks;

/// Preset of `finish`: every byte of the kernels' `NOT_READY`.
const NOT_READY: u8 = 0xFF;

/// Threads of a block, as the kernels' launch bounds say.
const BLOCK: u32 = 512;

/// Bytes of shared memory in which a block adds up what a device gets, and of how many devices there is room for anywhere.
const HELD: u32 = 12;
const MOST_HELD: u32 = (48 << 10) / HELD;

/// Why something was not computed on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffDevice {
    /// The device or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A path may be longer than 2^31 ticks.
    #[error("the durations do not fit 32 bits in a common unit")]
    TooLong,
    /// Too many tasks are live at every cut.
    #[error("the graph is too wide to be cut into chunks")]
    TooWide,
    /// A time on a device of this speed does not fit, or might be rounded differently.
    #[error("times at a speed of {} millionths do not fit 32 bits", .0.0)]
    Speed(Speed),
}

/// A length as kernels take it.
fn count(length: usize) -> u32 {
    u32::try_from(length).expect("lengths of a graph of u32 ids")
}

/// A graph on a device, ready to be timed.
#[derive(Debug)]
pub struct DeviceGraph<'d> {
    device: &'d Device,
    tasks: u32,
    forward: Side<'d>,
    backward: Side<'d>,
    /// The place of every task in either layout.
    places: [Buffer<'d, u32>; 2],
    /// By TaskId: duration, then what `slack` writes.
    duration: Buffer<'d, u32>,
    earliest: Buffer<'d, u32>,
    latest: Buffer<'d, u32>,
    slack: Buffer<'d, u32>,
    kernel: Kernel<'d>,
}

impl<'d> DeviceGraph<'d> {
    /// Lays a graph out and uploads it.
    ///
    /// # Errors
    /// Where the device cannot, or where the graph is too wide for this way.
    pub fn new(device: &'d Device, graph: &TaskGraph, way: Way) -> Result<Self, OffDevice> {
        Self::laid_out(device, graph, Both::new(graph), way)
    }

    /// Uploads a graph whose layouts are known.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn laid_out(device: &'d Device, graph: &TaskGraph, layouts: Both, way: Way) -> Result<Self, OffDevice> {
        let Both { forward, backward } = layouts;
        let n = graph.len();
        let places = [device.upload(&forward.place_of)?, device.upload(&backward.place_of)?];
        Ok(Self {
            device,
            tasks: count(n),
            forward: Side::new(device, forward, &graph.before, way)?,
            backward: Side::new(device, backward, &graph.after, way)?,
            places,
            duration: device.array(n)?,
            earliest: device.array(n)?,
            latest: device.array(n)?,
            slack: device.array(n)?,
            kernel: device.kernel(Source::Timing, "slack")?,
        })
    }

    /// Computes the times for `duration`, `[n_tasks]` by TaskId.
    ///
    /// # Errors
    /// Where the device cannot, or where the durations do not fit.
    pub fn timing(&mut self, duration: Vec<Millis>) -> Result<Timing, OffDevice> {
        Ok(self.ticked(duration)?.1)
    }

    /// As [`timing`](Self::timing), with the slack of every task, which a [`Timing`] subtracts for itself.
    ///
    /// # Errors
    /// As [`timing`](Self::timing).
    pub fn timing_and_slack(&mut self, duration: Vec<Millis>) -> Result<(Timing, Vec<Millis>), OffDevice> {
        let (ticks, timing) = self.ticked(duration)?;
        let slack = if self.tasks == 0 { Vec::new() } else { self.slack.read()? };
        Ok((timing, slack.into_iter().map(|count| ticks.time(count)).collect()))
    }

    fn ticked(&mut self, duration: Vec<Millis>) -> Result<(Ticks, Timing), OffDevice> {
        let ticks = self.load(&duration)?;
        if self.tasks == 0 {
            return Ok((ticks, Timing { duration, ..Timing::default() }));
        }
        self.compute()?;
        let times = |counts: Vec<u32>| counts.into_iter().map(|count| ticks.time(count)).collect::<Vec<_>>();
        let timing = Timing {
            makespan: ticks.time(self.forward.latest.read()?[0]),
            earliest_start: times(self.earliest.read()?),
            latest_start: times(self.latest.read()?),
            duration,
        };
        Ok((ticks, timing))
    }

    /// Uploads durations; returns their unit.
    ///
    /// # Errors
    /// As [`timing`](Self::timing).
    pub fn load(&mut self, duration: &[Millis]) -> Result<Ticks, OffDevice> {
        let ticks = Ticks::new(duration, self.forward.layout.n_levels()).ok_or(OffDevice::TooLong)?;
        self.duration.write(&ticks.count)?;
        for side in [&mut self.forward, &mut self.backward] {
            side.duration.write(&side.layout.by_place(&ticks.count))?;
        }
        Ok(ticks)
    }

    /// Starts everything: earliest times, latest times, slack. Does not wait.
    ///
    /// # Errors
    /// Of the device.
    pub fn compute(&mut self) -> Result<(), CudaError> {
        self.forward()?;
        self.backward.run(self.device)?;
        let [forward, backward] = &self.places;
        let launch = Launch::of(self.tasks.min(self.device.about().multiprocessors * 2_048), 256);
        let (finish, tail) = (&self.forward.finish, &self.backward.finish);
        let makespan = &self.forward.latest;
        let out: [&dyn Argument; 3] = [&self.earliest, &self.latest, &self.slack];
        // SAFETY: what `slack` takes; every array has an entry for each task, `makespan` has one.
        unsafe {
            self.kernel.start(
                launch,
                &[&self.tasks, forward, backward, finish, tail, &self.duration, makespan, out[0], out[1], out[2]],
            )
        }
    }

    /// Starts the earliest times only. Does not wait.
    ///
    /// # Errors
    /// Of the device.
    pub fn forward(&mut self) -> Result<(), CudaError> {
        self.forward.run(self.device)
    }
}

/// One direction through a graph.
#[derive(Debug)]
struct Side<'d> {
    layout: Layout,
    /// By place.
    duration: Buffer<'d, u32>,
    finish: Buffer<'d, u32>,
    /// One value: the largest finish.
    latest: Buffer<'d, u32>,
    by: By<'d>,
}

/// The arrays that only one way needs.
#[derive(Debug)]
enum By<'d> {
    Levels {
        kernel: Kernel<'d>,
        launch: Launch,
        level_slice: Buffer<'d, u32>,
        slices: Slices<'d>,
        arrived: Buffer<'d, u32>,
    },
    Dataflow {
        kernel: Kernel<'d>,
        launch: Launch,
        slices: Slices<'d>,
    },
    Transfer(Box<Transfer<'d>>),
}

impl<'d> Side<'d> {
    fn new(device: &'d Device, layout: Layout, sources: &Rows, way: Way) -> Result<Self, OffDevice> {
        let n = layout.task_at.len();
        let by = match way {
            Way::Levels => {
                let kernel = device.kernel(Source::Timing, "longest_levels")?;
                let widest = layout.level_slice.windows(2).map(|level| level[1] - level[0]).max().unwrap_or(0);
                let launch = all_at_once(&kernel, widest)?;
                // Every block arrives at every level, and that is counted in 32 bits.
                let most = u32::MAX / count(layout.n_levels()).max(1);
                By::Levels {
                    kernel,
                    launch: Launch { grid: launch.grid.min(most), ..launch },
                    level_slice: device.upload(&layout.level_slice)?,
                    slices: Slices::new(device, &layout)?,
                    arrived: device.array(1)?,
                }
            }
            Way::Dataflow => {
                let kernel = device.kernel(Source::Timing, "longest_dataflow")?;
                let launch = all_at_once(&kernel, count(layout.n_slices()))?;
                By::Dataflow { kernel, launch, slices: Slices::new(device, &layout)? }
            }
            Way::Transfer => {
                let chunks = Chunks::new(&layout, sources, most_chunks(n)).ok_or(OffDevice::TooWide)?;
                By::Transfer(Box::new(Transfer::new(device, n, &chunks)?))
            }
        };
        Ok(Self { duration: device.array(n)?, finish: device.array(n)?, latest: device.array(1)?, layout, by })
    }

    /// Starts the kernels. What they expect to be preset is preset here, before every run.
    fn run(&mut self, device: &Device) -> Result<(), CudaError> {
        self.latest.fill(0)?;
        let Self { layout, duration, finish, latest, by } = self;
        match by {
            By::Levels { kernel, launch, level_slice, slices, arrived } => {
                finish.fill(NOT_READY)?;
                arrived.fill(0)?;
                let levels = count(layout.n_levels());
                let Slices { task, slot, source } = slices;
                // SAFETY: what `longest_levels` takes, from one layout; all blocks fit at once.
                unsafe {
                    kernel
                        .start(*launch, &[&levels, level_slice, task, slot, source, duration, finish, latest, arrived])
                }
            }
            By::Dataflow { kernel, launch, slices } => {
                finish.fill(NOT_READY)?;
                let n_slices = count(layout.n_slices());
                let Slices { task, slot, source } = slices;
                // SAFETY: what `longest_dataflow` takes, from one layout; all blocks fit at once.
                unsafe { kernel.start(*launch, &[&n_slices, task, slot, source, duration, finish, latest]) }
            }
            By::Transfer(transfer) => transfer.run(device, duration, finish, latest),
        }
    }
}

/// Returns the shape in which a warp takes a slice and all warps are resident, as many as there is work for.
fn all_at_once(kernel: &Kernel<'_>, slices: u32) -> Result<Launch, CudaError> {
    let wanted = slices.div_ceil(BLOCK / LANES as u32).max(1);
    Ok(Launch { grid: kernel.resident(BLOCK, 0, wanted)?, block: BLOCK, shared: 0, cooperative: true })
}

/// The slices of a layout.
#[derive(Debug)]
struct Slices<'d> {
    task: Buffer<'d, u32>,
    slot: Buffer<'d, u32>,
    source: Buffer<'d, u32>,
}

impl<'d> Slices<'d> {
    fn new(device: &'d Device, layout: &Layout) -> Result<Self, CudaError> {
        let (task, slot) = (device.upload(&layout.slice_task)?, device.upload(&layout.slice_slot)?);
        Ok(Self { task, slot, source: device.upload(&layout.source)? })
    }
}

/// Returns into how many chunks a graph is cut: walking a chunk and walking all chunks then take equally many steps.
fn most_chunks(tasks: usize) -> usize {
    tasks.isqrt().max(2)
}

/// A graph in chunks.
#[derive(Debug)]
struct Transfer<'d> {
    n_chunks: u32,
    n_tasks: u32,
    chunk_task: Buffer<'d, u32>,
    chunk_of: Buffer<'d, u32>,
    offset: Buffer<'d, u32>,
    reference: Buffer<'d, i32>,
    carried: Buffer<'d, i32>,
    path: Buffer<'d, u32>,
    matrix: Buffer<'d, u32>,
    start: Buffer<'d, u32>,
    kernels: [Kernel<'d>; 3],
}

impl<'d> Transfer<'d> {
    fn new(device: &'d Device, n_tasks: usize, chunks: &Chunks) -> Result<Self, CudaError> {
        let n = chunks.n_chunks();
        let kernel = |name| device.kernel(Source::Timing, name);
        Ok(Self {
            n_chunks: count(n),
            n_tasks: count(n_tasks),
            chunk_task: device.upload(&chunks.chunk_task)?,
            chunk_of: device.upload(&chunks.chunk_of)?,
            offset: device.upload(&chunks.offset)?,
            reference: device.upload(&chunks.reference)?,
            carried: device.upload(&chunks.carried)?,
            path: device.array(n_tasks * LANES)?,
            matrix: device.array(n * LANES * LANES)?,
            start: device.array((n + 1) * LANES)?,
            kernels: [kernel("transfer_chunks")?, kernel("transfer_scan")?, kernel("transfer_finish")?],
        })
    }

    fn run(
        &self,
        device: &Device,
        duration: &Buffer<'_, u32>,
        finish: &Buffer<'_, u32>,
        latest: &Buffer<'_, u32>,
    ) -> Result<(), CudaError> {
        let [chunks, scan, finishes] = &self.kernels;
        let Self { n_chunks, n_tasks, chunk_task, chunk_of, offset, reference, carried, path, matrix, start, .. } =
            self;
        let lanes = |warps: u32, block| Launch::of(warps.saturating_mul(LANES as u32), block);
        let warps = (*n_tasks).min(device.about().multiprocessors * 64);
        // SAFETY: what the kernels take, from one `Chunks`; `path`, `matrix` and `start` as large as timing.cu says.
        unsafe {
            chunks.start(
                lanes(*n_chunks, 128),
                &[n_chunks, chunk_task, offset, reference, carried, duration, path, matrix],
            )?;
            scan.start(lanes(1, 32), &[n_chunks, matrix, start])?;
            finishes.start(lanes(warps, 256), &[n_tasks, chunk_of, path, start, finish, latest])
        }
    }
}

/// Durations and speeds on a device, as `load_matrix.cu` takes them.
#[derive(Debug)]
pub struct DeviceLoads<'d> {
    device: &'d Device,
    tasks: u32,
    devices: u32,
    stride: u32,
    duration: Buffer<'d, u32>,
    whole: Buffer<'d, u32>,
    fraction: Buffer<'d, u64>,
    kernels: [Kernel<'d>; 2],
}

impl<'d> DeviceLoads<'d> {
    /// Uploads durations and speeds.
    ///
    /// # Errors
    /// Where the device cannot, or where a time does not fit 32 bits.
    pub fn new(device: &'d Device, duration: &[Millis], speed: &[Speed]) -> Result<Self, OffDevice> {
        let longest = duration.iter().max().map_or(0, |longest| longest.0);
        let longest = u32::try_from(longest).map_err(|_| OffDevice::TooLong)?;
        let exact = |speed: &Speed| Reciprocal::new(*speed, longest).ok_or(OffDevice::Speed(*speed));
        let reciprocals = speed.iter().map(exact).collect::<Result<Vec<_>, _>>()?;
        let (whole, fraction): (Vec<_>, Vec<_>) = reciprocals.iter().map(|r| (r.whole, r.fraction)).unzip();
        let stride = duration.len().next_multiple_of(4);
        let fits = |time: &Millis| u32::try_from(time.0).unwrap_or(u32::MAX);
        let mut times: Vec<u32> = duration.iter().map(fits).collect();
        times.resize(stride, 0);
        Ok(Self {
            device,
            tasks: count(duration.len()),
            devices: count(speed.len()),
            stride: count(stride),
            duration: device.upload(&times)?,
            whole: device.upload(&whole)?,
            fraction: device.upload(&fraction)?,
            kernels: [
                device.kernel(Source::LoadMatrix, "load_matrix")?,
                device.kernel(Source::LoadMatrix, "fastest_device")?,
            ],
        })
    }

    /// Makes the array that [`compute`](Self::compute) fills: a row of `stride` times for every device.
    ///
    /// # Errors
    /// Of the device.
    pub fn room(&self) -> Result<Buffer<'d, u32>, CudaError> {
        self.device.array(self.stride as usize * self.devices as usize)
    }

    /// Starts computing the load matrix into [`room`](Self::room). Does not wait.
    ///
    /// # Errors
    /// Of the device.
    pub fn compute(&self, room: &mut Buffer<'d, u32>) -> Result<(), CudaError> {
        let launch = Launch::of(self.stride / 4, 256);
        let Self { tasks, devices, stride, duration, whole, fraction, .. } = self;
        // SAFETY: what `load_matrix` takes; rows and durations are padded to `stride`.
        unsafe { self.kernels[0].start(launch, &[tasks, devices, stride, duration, whole, fraction, room]) }
    }

    /// Returns what [`loads::matrix`](super::loads::matrix) returns.
    ///
    /// # Errors
    /// Of the device.
    pub fn matrix(&self) -> Result<Vec<Vec<Millis>>, CudaError> {
        let mut room = self.room()?;
        self.compute(&mut room)?;
        let times = room.read()?;
        let row = |device: usize| {
            let row = &times[device * self.stride as usize..][..self.tasks as usize];
            row.iter().map(|time| Millis(u64::from(*time))).collect()
        };
        Ok((0..self.devices as usize).map(row).collect())
    }

    /// Makes the arrays that [`choose`](Self::choose) fills.
    ///
    /// # Errors
    /// Of the device.
    pub fn seats(&self) -> Result<Seats<'d>, CudaError> {
        let devices = self.devices as usize;
        let device = self.device.array(self.tasks as usize)?;
        Ok(Seats { device, total: self.device.array(devices)?, chosen: self.device.array(devices)? })
    }

    /// Starts looking for the fastest devices. Does not wait.
    ///
    /// # Errors
    /// Of the device.
    pub fn choose(&self, seats: &mut Seats<'d>) -> Result<(), CudaError> {
        let Seats { device, total, chosen } = seats;
        total.fill(0)?;
        chosen.fill(0)?;
        let Self { tasks, devices, duration, whole, fraction, .. } = self;
        let held = (*devices).min(MOST_HELD);
        let launch = Launch::of(self.tasks.min(self.device.about().multiprocessors * 2_048), BLOCK);
        let launch = Launch { shared: held * HELD, ..launch };
        // SAFETY: what `fastest_device` takes, arrays of a value for each task or device; sums start at zero, and shared
        // memory has room for those that are held.
        unsafe {
            self.kernels[1].start(launch, &[tasks, devices, &held, duration, whole, fraction, device, total, chosen])
        }
    }

    /// Returns what [`loads::fastest`](super::loads::fastest) returns: a twelfth of the bytes of the matrix. A plan has to
    /// look at memory and at who waits where, too, so none takes this for an answer; `gpu-check` compares it.
    ///
    /// # Errors
    /// Of the device.
    pub fn fastest(&self) -> Result<Fastest, CudaError> {
        let mut seats = self.seats()?;
        self.choose(&mut seats)?;
        let total = seats.total.read()?.into_iter().map(Millis).collect();
        Ok(Fastest { device: seats.device.read()?, total, chosen: seats.chosen.read()? })
    }
}

/// Where each task would run fastest, and what each device would get.
#[derive(Debug)]
pub struct Seats<'d> {
    /// `[n_tasks]`.
    device: Buffer<'d, u16>,
    /// `[n_devices]`.
    total: Buffer<'d, u64>,
    chosen: Buffer<'d, u32>,
}
