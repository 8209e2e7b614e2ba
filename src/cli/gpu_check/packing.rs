//! Packing by memory with real allocations: whole runs of this very program, whose stages are this program again, holding
//! memory of the device through its driver.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::rows::Rows;
use crate::cli::{Exit, output};
use crate::cuda::{CudaError, Device, guarded};
use crate::probe::{self, Gpu};
use crate::units::Bytes;

/// What a context may leave behind in NVML's count without being one: other programs come and go.
const NOISE: Bytes = Bytes(64 << 20);

/// How long two of us wait for each other at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run may take.
const LIMIT: Duration = Duration::from_secs(90);

/// Waits until two of us have come to a point, or have been there before: each leaves a file in this folder.
fn meet(point: &str) {
    let mark = |process: u32| format!("{point}-{process}");
    let came = || {
        let names = std::fs::read_dir(".")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&format!("{point}-"))).count()
    };
    // A file that cannot be made makes us wait as long as we have patience.
    drop(std::fs::write(mark(std::process::id()), ""));
    let since = Instant::now();
    while came() < 2 && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Holds memory of the first device, as a training would. Those that `meet` take theirs at the same time, and hold it until
/// the other has tried.
pub(super) fn hold(mib: u64, time: Duration, meets: bool) -> Exit {
    let held = guarded(|| {
        let device = Device::open(0)?;
        let bytes = usize::try_from(mib << 20).unwrap_or(usize::MAX);
        if meets {
            meet("came");
        }
        let array = device.array::<u8>(bytes);
        if meets {
            meet("tried");
        }
        let array = array?;
        device.wait()?;
        output::say(&format!("holding {mib} MiB of {}", device.about().name));
        std::thread::sleep(time);
        drop(array);
        Ok::<_, CudaError>(())
    });
    match held {
        Ok(()) => Exit::Done,
        Err(error) if error.is_out_of_memory() => {
            output::say(&format!("CUDA out of memory. Tried to allocate {mib} MiB: {error}"));
            Exit::StageFailed
        }
        Err(error) => {
            output::say(&error.to_string());
            Exit::StageFailed
        }
    }
}

/// Returns what NVML says is free on a device now.
pub(super) fn free_by_nvml(uuid: &str) -> Option<Bytes> {
    let machine = probe::this_machine(&probe::Options::from_env());
    let gpu = machine.gpus.devices().iter().find(|gpu| gpu.uuid == uuid)?;
    gpu.reading.memory.as_ref().map(|memory| memory.free)
}

/// Checks that nothing stays on the device once it was given back.
pub(super) fn given_back(rows: &mut Rows, gpu: Option<&Gpu>, before: Option<Bytes>, during: Option<Bytes>) {
    const WHAT: &str = "memory of a context is given back";
    let (Some(gpu), Some(before), Some(during)) = (gpu, before, during) else {
        return rows.skipped("memory", WHAT, "NVML does not say what is free");
    };
    if !rows.begin("memory", WHAT) {
        return;
    }
    let free = || free_by_nvml(&gpu.uuid);
    // NVML may lag by a few seconds.
    for _ in 0..50 {
        let after = free().unwrap_or(Bytes::ZERO);
        if after + NOISE >= before {
            return rows.passed("memory", WHAT, &format!("it took {}", before - during));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    rows.fail("memory", WHAT, &format!("{before} were free before, {:?} afterwards", free()));
}

/// What a run is expected to have been like.
struct Case {
    what: &'static str,
    /// Of its folder.
    name: &'static str,
    /// Of the device's free memory, in percent: what each of two tasks reserves and what it takes.
    reserves: u64,
    takes: u64,
    /// Whether the two ran side by side; `None` where that is not the point.
    beside: Option<bool>,
    /// Whether some attempt ran out of memory.
    runs_out: bool,
}

const CASES: [Case; 3] = [
    Case {
        what: "two that fit run side by side",
        name: "beside",
        reserves: 40,
        takes: 30,
        beside: Some(true),
        runs_out: false,
    },
    Case {
        what: "two that do not fit run one after the other",
        name: "after",
        reserves: 60,
        takes: 50,
        beside: Some(false),
        runs_out: false,
    },
    Case {
        what: "one that ran out of memory gets more and succeeds",
        name: "more",
        reserves: 35,
        takes: 55,
        beside: None,
        runs_out: true,
    },
];

/// Skips everything.
pub(super) fn skip(rows: &mut Rows, why: &str) {
    CASES.iter().for_each(|case| rows.skipped("packing", case.what, why));
}

/// Runs the cases on this device; what fails is a row.
pub(super) fn check(rows: &mut Rows, gpu: &Gpu, quick: bool) {
    let Some(free) = free_by_nvml(&gpu.uuid) else {
        return skip(rows, "NVML does not say what is free");
    };
    // Long enough that NVML, which lags, shows it.
    let time = if quick { "500ms" } else { "5s" };
    for case in &CASES {
        if !rows.begin("packing", case.what) {
            continue;
        }
        match run(rows, case, &gpu.uuid, free, time) {
            Ok(detail) => rows.passed("packing", case.what, &detail),
            Err(why) => rows.fail("packing", case.what, &why),
        }
    }
}

fn run(rows: &Rows, case: &Case, uuid: &str, free: Bytes, time: &str) -> Result<String, String> {
    let words = |error: std::io::Error| error.to_string();
    let folder = rows.folder().map_err(words)?.join(case.name);
    std::fs::create_dir_all(&folder).map_err(words)?;
    let program = std::env::current_exe().map_err(words)?;
    let mib = |percent: u64| (free.0 >> 20) * percent / 100;
    let takes = mib(case.takes).to_string();
    let mut command = vec![program.display().to_string(), "gpu-check".to_owned(), "--hold".to_owned(), takes];
    command.extend(["--time".to_owned(), time.to_owned()]);
    // Those that run one after the other would wait for each other in vain.
    if case.beside != Some(false) {
        command.push("--meet".to_owned());
    }
    // A list of texts is written alike in JSON and in TOML.
    let command = serde_json::json!(command);
    let pipeline = format!(
        "[stage.hold]\nrun = {command}\nbackoff = \"100ms\"\nmatrix = {{ i = [1, 2] }}\n\
         resources = {{ cpus = 0, gpu_memory = \"{}MiB\" }}\n",
        mib(case.reserves)
    );
    std::fs::write(folder.join("p.toml"), pipeline).map_err(words)?;
    let trainyard = |args: &[&str]| {
        let mut command = Command::new(&program);
        // One device, so that the two meet.
        command.args(args).current_dir(&folder).env("CUDA_VISIBLE_DEVICES", uuid);
        rows.run(&mut command, LIMIT).map_err(words)
    };
    let ran = trainyard(&["run", "p.toml", "--quiet", "--timing", "cpu"])?;
    let shown = trainyard(&["show", "--json"])?;
    let shown: Value = serde_json::from_slice(&shown.stdout).map_err(|error| error.to_string())?;
    if !ran.status.success() {
        return Err(format!("{}{shown}", String::from_utf8_lossy(&ran.stderr)));
    }
    judge(case, &shown).map_err(|why| format!("{why}: {shown}"))
}

/// Says whether a run was as expected.
fn judge(case: &Case, shown: &Value) -> Result<String, String> {
    let tasks = || shown["tasks"].as_array().into_iter().flatten();
    let attempts = || tasks().flat_map(|task| task["attempts"].as_array().into_iter().flatten());
    let ran_out = attempts().filter(|attempt| attempt["outcome"] == "out-of-memory").count();
    if (ran_out > 0) != case.runs_out {
        return Err(format!("{ran_out} attempts ran out of memory"));
    }
    let instant =
        |attempt: &Value, key: &str| attempt[key].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let spans: Vec<_> =
        attempts().filter_map(|attempt| Some((instant(attempt, "started")?, instant(attempt, "finished")?))).collect();
    if let (Some(wanted), [a, b]) = (case.beside, spans.as_slice()) {
        let beside = a.0 < b.1 && b.0 < a.1;
        if beside != wanted {
            return Err(format!("{a:?} and {b:?}"));
        }
    } else if case.beside.is_some() {
        return Err(format!("{} attempts", spans.len()));
    }
    Ok(format!("{} attempts, {ran_out} of which ran out of memory", attempts().count()))
}
