//! `trainyard gpu-check`: whether this machine's CUDA device computes what the CPU does, how fast, and whether packing by
//! memory holds there with real allocations. One program with everything in it, to be run where there is nothing to build.
//!
//! What cannot be checked here is a row that says `skipped` and why. Exit codes: 0 everything was checked and holds, 1
//! something does not, 4 there is no device.

#![expect(clippy::disallowed_methods, reason = "measures time and starts this program again")]

use std::path::PathBuf;

use clap::Args;

use self::rows::Rows;
use super::{Exit, Failure};
use crate::cuda::{self, CudaError, Device};
use crate::probe::{self, Gpus};

mod equality;
mod packing;
mod rows;
mod speed;

/// Check that a CUDA device computes what the CPU does, how fast, and that packing holds there
#[derive(Args)]
pub(super) struct Command {
    /// Random graphs on which every kernel must equal the CPU
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    graphs: u64,
    /// Measure on small problems: a try of this command, not of the device
    #[arg(long)]
    quick: bool,
    /// Write everything as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run this pipeline as the last check, `pipelines/digits.toml` for instance
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Compare only, and with nothing but the device
    #[arg(long, hide = true)]
    only_equality: bool,
    /// Hold so many MiB of the first device instead: what the checks of packing start
    #[arg(long, hide = true, value_name = "MIB")]
    hold: Option<u64>,
    /// For so many seconds
    #[arg(long, hide = true, default_value_t = 1.0)]
    seconds: f64,
    /// Take it only when another one in this folder is there to take its own
    #[arg(long, hide = true)]
    meet: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if let Some(mib) = self.hold {
            return Ok(packing::hold(mib, self.seconds, self.meet));
        }
        let mut rows = Rows::default();
        if self.only_equality {
            return Ok(self.compare(&mut rows));
        }
        let exit = self.check(&mut rows);
        if let Some(path) = &self.json {
            rows.write(path).map_err(|error| Failure {
                exit: Exit::Bug,
                report: miette::miette!("cannot write {}: {error}", path.display()),
            })?;
        }
        Ok(exit)
    }

    fn check(&self, rows: &mut Rows) -> Exit {
        inventory(rows);
        let before = packing::free_by_nvml();
        let no_device = match cuda::guarded(|| Device::open(0)) {
            Ok(device) => {
                self.on_device(rows, &device);
                let during = packing::free_by_nvml();
                drop(device);
                packing::given_back(rows, before, during);
                false
            }
            Err(error) => {
                for what in ["device", "equality", "speed"] {
                    rows.skipped(what, "all of it", &error.to_string());
                }
                !matches!(error, CudaError::Failed { .. } | CudaError::GaveUp(_))
            }
        };
        packing::check(rows, self.quick);
        sanitizer(rows, no_device);
        self.pipeline(rows);
        match (rows.failed(), no_device) {
            (true, _) => Exit::StageFailed,
            (false, true) => Exit::Impossible,
            (false, false) => Exit::Done,
        }
    }

    fn on_device(&self, rows: &mut Rows, device: &Device) {
        let about = device.about();
        let cuda::About { name, driver, capability, multiprocessors, memory, .. } = about;
        let version = format!("{}.{}", driver / 1_000, driver % 1_000 / 10);
        rows.about(about);
        rows.passed(
            "device",
            name,
            &format!(
                "CUDA {version}, compute capability {}.{}, {multiprocessors} multiprocessors, {memory}",
                capability.0, capability.1
            ),
        );
        equality::check(rows, device, self.graphs);
        speed::check(rows, device, self.quick);
    }

    /// Compares the kernels with the CPU, and nothing else.
    fn compare(&self, rows: &mut Rows) -> Exit {
        let compared = cuda::guarded(|| {
            let device = Device::open(0)?;
            equality::check(rows, &device, self.graphs);
            Ok::<_, CudaError>(())
        });
        if let Err(error) = compared {
            rows.fail("equality", "all of it", &error.to_string());
        }
        if rows.failed() { Exit::StageFailed } else { Exit::Done }
    }

    /// Runs the pipeline that was asked for.
    fn pipeline(&self, rows: &mut Rows) {
        let Some(file) = &self.pipeline else {
            return rows.skipped("pipeline", "a whole run", "none was given (--pipeline FILE)");
        };
        let shown = file.display().to_string();
        let run = std::env::current_exe()
            .and_then(|program| std::process::Command::new(program).arg("run").arg(file).arg("--quiet").output());
        match run {
            Ok(run) if run.status.success() => rows.passed("pipeline", &shown, "succeeded"),
            Ok(run) => rows.fail("pipeline", &shown, String::from_utf8_lossy(&run.stderr).trim()),
            Err(error) => rows.fail("pipeline", &shown, &error.to_string()),
        }
    }
}

/// Compares once more, under the tools that find accesses outside of arrays and races, where they are installed.
fn sanitizer(rows: &mut Rows, no_device: bool) {
    const PART: &str = "sanitizer";
    for tool in ["memcheck", "racecheck"] {
        if no_device {
            rows.skipped(PART, tool, "there is no device");
            continue;
        }
        let run = std::env::current_exe().and_then(|program| {
            let mut command = std::process::Command::new("compute-sanitizer");
            command.args(["--tool", tool, "--error-exitcode", "9"]).arg(program);
            command.args(["gpu-check", "--only-equality", "--graphs", "4"]).output()
        });
        match run {
            Ok(run) if run.status.success() => rows.passed(PART, tool, "clean"),
            Ok(run) => {
                let said = [run.stdout, run.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                rows.fail(PART, tool, &last.into_iter().rev().collect::<Vec<_>>().join(" / "));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                rows.skipped(PART, tool, "compute-sanitizer is not installed");
            }
            Err(error) => rows.fail(PART, tool, &error.to_string()),
        }
    }
}

/// Says what NVML sees.
fn inventory(rows: &mut Rows) {
    let machine = probe::this_machine(&probe::Options::from_env());
    match &machine.gpus {
        Gpus::None { reason, .. } => rows.skipped("NVML", "inventory", &reason.to_string()),
        Gpus::Found(_) => {
            for gpu in machine.gpus.devices() {
                let name = gpu.full_name.as_deref().unwrap_or("a device without a name");
                let memory = gpu.reading.memory.as_ref();
                let memory = memory.map_or_else(
                    || "memory unknown".to_owned(),
                    |memory| format!("{} of {} free", memory.free, memory.total),
                );
                rows.passed("NVML", name, &format!("{}, {memory}", gpu.uuid));
            }
        }
    }
}
