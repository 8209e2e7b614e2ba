//! What it costs to look at the devices: eight cards with four processes each, read as a run reads them.
//!
//! `cargo bench --bench polling` prints the CPU time of one look and what part of a core that is at one look a second. The
//! cards are emulated: each of the driver's calls reads files and JSON there, which a driver does not, so the figure is
//! well above what it would be. What the same calls cost without us is measured as well and shown beside it.

#![expect(clippy::disallowed_methods, reason = "sets the environment that the emulated driver is told its machine by")]

use std::error::Error;
use std::process::{Child, Command, Stdio};

use mock_nvml::{Card, Scene};
use trainyard::engine::process;
use trainyard::graph::TaskId;
use trainyard::probe::{self, Monitor, Options};
use trainyard::run::admission::Readings;
use trainyard::units::Millis;

const CARDS: u32 = 8;
const PROCESSES: u32 = 4;
const LOOKS: u32 = 200;

/// Returns the CPU time of this process, user and system, s.
fn cpu_time() -> f64 {
    // SAFETY: `rusage` is plain integers, for which zero is valid, and the pointer is to a live local variable.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn main() -> Result<(), Box<dyn Error>> {
    let scene = Scene::new(vec![Card::default(); CARDS as usize])?;
    let mut options = Options::default();
    for (name, value) in scene.environment() {
        if name == "TRAINYARD_NVML" {
            options.nvml = value.into();
        } else {
            // SAFETY: nothing else runs in this process yet.
            unsafe { std::env::set_var(name, value) };
        }
    }
    let start = |index: u32| -> Result<Child, Box<dyn Error>> {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        scene.hold(child.id(), &(index % CARDS).to_string(), 1_024)?;
        Ok(child)
    };
    let mut children = (0..CARDS * PROCESSES).map(start).collect::<Result<Vec<_>, _>>()?;
    let machine = probe::this_machine(&options);
    let fleet = machine.fleet();
    let mut monitor = Monitor::open(&options, &machine.gpus)?.ok_or("there are cards")?;

    // As a run does: read, find out whose the processes are, and translate for the ledger.
    let mut look = |at: u32| {
        let read = monitor.read();
        let task = |pid| process::marked_as(pid, "TRAINYARD_RUN=none", "TRAINYARD_TASK").map(|_| TaskId(0));
        std::hint::black_box(Readings::new(Millis(at.into()), &fleet, &read, task));
    };
    look(0);
    let before = cpu_time();
    (1..=LOOKS).for_each(&mut look);
    let all = (cpu_time() - before) / f64::from(LOOKS);

    let driver = driver_alone(&machine, &options)?;
    let percent = |seconds: f64| 100.0 * seconds;
    println!("one look at {CARDS} cards with {PROCESSES} processes each: {:.2} ms on a CPU", 1e3 * all);
    println!("of which the emulated driver takes {:.2} ms", 1e3 * driver);
    println!(
        "at one look a second: {:.2} % of a core, {:.2} % without the driver",
        percent(all),
        percent(all - driver)
    );
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// Returns the CPU time that the driver's calls of one look take by themselves, s.
fn driver_alone(machine: &probe::Machine, options: &Options) -> Result<f64, Box<dyn Error>> {
    use nvml_wrapper::Nvml;
    use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
    let nvml = Nvml::builder().lib_path(&options.nvml).init()?;
    let uuids: Vec<&str> = machine.gpus.devices().iter().map(|gpu| gpu.uuid.as_str()).collect();
    let look = || {
        for uuid in &uuids {
            let Ok(device) = nvml.device_by_uuid(*uuid) else { continue };
            std::hint::black_box((
                device.running_compute_processes().is_ok(),
                device.memory_info().is_ok(),
                device.utilization_rates().is_ok(),
                device.temperature(TemperatureSensor::Gpu).is_ok(),
                device.power_usage().is_ok(),
                device.enforced_power_limit().is_ok(),
            ));
        }
    };
    look();
    let before = cpu_time();
    (0..LOOKS).for_each(|_| look());
    Ok((cpu_time() - before) / f64::from(LOOKS))
}
