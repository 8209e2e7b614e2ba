//! Which CUDA device planning may open: one that is not set aside and has memory to spare, for others may train there. What
//! NVML does not show is taken as it is.

use std::time::Duration;

use crate::cuda::{self, CudaError, Device};
use crate::probe::{self, Gpu, Machine, gpu::Fault};
use crate::units::Bytes;

/// Memory that has to be free: a context takes about half a GiB and what is computed hardly as much; whoever trains there
/// may just be taking more.
const ENOUGH: Bytes = Bytes(2 << 30);

/// How long the driver may take to start. Without a daemon that keeps them awake, cards take some seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the driver, or gives up after a while.
pub(super) fn start() -> Result<(), CudaError> {
    cuda::start_within(PATIENCE)
}

/// Returns the first device to spare, as CUDA counts them.
pub(super) fn first() -> Result<usize, CudaError> {
    start()?;
    let machine = machine();
    let mut refused = None;
    for ordinal in 0.. {
        match (is_to_spare(&machine, ordinal), refused) {
            (Ok(()), _) => return Ok(ordinal),
            (Err(CudaError::NotToSpare(why)), before) => refused = before.or(Some(why)),
            // Beyond the last one.
            (Err(CudaError::NoDevice(_)), Some(why)) => return Err(CudaError::NotToSpare(why)),
            (Err(error), _) => return Err(error),
        }
    }
    Err(CudaError::NoDevice(0))
}

/// Opens this device, if it is to spare.
pub(super) fn open(ordinal: usize) -> Result<Device, CudaError> {
    start()?;
    is_to_spare(&machine(), ordinal)?;
    Device::open(ordinal)
}

/// Whether a card is there for this process, or is lost, as far as NVML knows.
pub(super) fn has_a_card() -> bool {
    let machine = machine();
    !machine.gpus.devices().is_empty() || machine.lost().next().is_some()
}

fn machine() -> Machine {
    probe::this_machine(&probe::Options::from_env())
}

fn is_to_spare(machine: &Machine, ordinal: usize) -> Result<(), CudaError> {
    let uuid = Device::look(ordinal)?.uuid;
    // CUDA names the card of a slice.
    let devices = machine.gpus.devices().iter().filter(|gpu| gpu.uuid == uuid || gpu.card() == uuid);
    let refusals: Vec<Option<String>> = devices.map(refusal).collect();
    let all: Option<Vec<String>> = refusals.into_iter().collect();
    match all.unwrap_or_default().into_iter().next() {
        Some(why) => Err(CudaError::NotToSpare(why)),
        None => Ok(()),
    }
}

/// Returns why a device is not to spare.
fn refusal(gpu: &Gpu) -> Option<String> {
    let name = gpu.name();
    match (&gpu.reading.fault, gpu.reading.memory) {
        (Some(Fault::Aside(why)), _) => Some(format!("{name} is {why}")),
        (_, Some(memory)) if memory.free < ENOUGH => {
            Some(format!("{name} has {} of its memory free, and others may need it", memory.free))
        }
        _ => None,
    }
}
