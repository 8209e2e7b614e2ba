//! `trainyard devices --calibrate`: measures how fast this machine's devices are, and remembers it for every plan.

use std::collections::BTreeMap;

use super::state::broken;
use super::{Exit, Failure, output, spare};
use crate::cuda::{CudaError, Device, Pace, guarded, pace};
use crate::probe::speeds::{self, List};
use crate::probe::{Gpu, Machine, Reading};
use crate::report::table::{Cell, Column, Table};
use crate::units::{Bytes, Speed};

/// Memory that has to be free: what is copied in it must be more than caches hold.
const ENOUGH: Bytes = Bytes(1 << 30);

/// A device that was measured.
struct Measured<'m> {
    gpu: &'m Gpu,
    pace: Pace,
}

/// Measures every device that this process may use and that nobody works on, and remembers what it found.
pub(super) fn run(machine: &Machine, list: &List) -> Result<Exit, Failure> {
    let mut found = Vec::new();
    let mut missed = Vec::new();
    for ordinal in 0.. {
        match guarded(|| spare::start().and_then(|()| measure(machine, ordinal, &mut missed))) {
            Ok(measured) => found.extend(measured),
            Err(CudaError::NoDevice(_)) if ordinal > 0 => break,
            Err(error) => {
                missed.push(error.to_string());
                break;
            }
        }
    }
    if found.is_empty() {
        let report = miette::miette!("no device was measured: {}", missed.join("; "));
        return Err(Failure { exit: Exit::Impossible, report });
    }
    missed.iter().for_each(|why| output::warn(why));
    let paces: Vec<_> = found.iter().map(|measured| (measured.gpu.model.as_str(), measured.pace)).collect();
    let entries = speeds::alike(&paces);
    let by_uuid: BTreeMap<_, _> =
        found.iter().zip(&entries).map(|(measured, entry)| (measured.gpu.uuid.clone(), *entry)).collect();
    list.remember(by_uuid).map_err(broken)?;
    let columns = [
        Column::left("GPU"),
        Column::left("MODEL"),
        Column::right("SPEED"),
        Column::right("MULTIPLY-ADDS"),
        Column::right("MEMORY"),
    ];
    let mut table = Table::new(columns);
    for (measured, entry) in found.iter().zip(&entries) {
        table.row([
            Cell::from(measured.gpu.name()),
            Cell::from(&measured.gpu.model),
            Cell::from(hundredths(entry.speed)),
            Cell::from(format!("{}.{:02} T/s", entry.mega_fmas / 1_000_000, entry.mega_fmas / 10_000 % 100)),
            Cell::from(format!("{}/s", Bytes(entry.megabytes.saturating_mul(1_000_000)))),
        ]);
    }
    output::print(&table.to_string())
}

/// Measures the device with this number, as CUDA counts them; says in `missed` why it is passed over.
fn measure<'m>(
    machine: &'m Machine,
    ordinal: usize,
    missed: &mut Vec<String>,
) -> Result<Option<Measured<'m>>, CudaError> {
    let device = Device::open(ordinal)?;
    let uuid = &device.about().uuid;
    let Some(gpu) = machine.gpus.devices().iter().find(|gpu| gpu.uuid == *uuid) else {
        let is_sliced = |gpu: &Gpu| gpu.slice.as_ref().is_some_and(|slice| slice.card == *uuid);
        let name = &device.about().name;
        missed.push(match machine.gpus.devices().iter().any(is_sliced) {
            true => format!("{name} is in MIG mode; only whole cards are measured"),
            false => format!("{name} ({uuid}) is none of the devices that `trainyard devices` shows"),
        });
        return Ok(None);
    };
    if is_in_use(&gpu.reading) {
        missed.push(format!("{} is in use, and was not measured", gpu.name()));
        return Ok(None);
    }
    if gpu.reading.memory.is_some_and(|memory| memory.free < ENOUGH) {
        missed.push(format!("{} has less than {ENOUGH} of its memory free, and was not measured", gpu.name()));
        return Ok(None);
    }
    Ok(Some(Measured { gpu, pace: pace::measure(&device)? }))
}

/// Whether anybody but us works on a device, as far as one can see: where processes are hidden, by what else they show.
fn is_in_use(reading: &Reading) -> bool {
    let others = reading.processes.iter().flatten().any(|process| process.pid != std::process::id());
    let is_busy = || reading.utilisation.is_none_or(|percent| percent > 5);
    let is_taken = || reading.memory.is_none_or(|memory| memory.total - memory.free > Bytes(memory.total.0 / 10));
    others || (reading.hides_processes() && (is_busy() || is_taken()))
}

fn hundredths(speed: Speed) -> String {
    let hundredths = (speed.0 + 5_000) / 10_000;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
