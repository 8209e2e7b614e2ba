//! `trainyard devices`: what this machine has, what is free of it, and who is on it.

use std::io::{self, IsTerminal};
use std::path::Path;

use clap::Args;
use miette::Diagnostic;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use super::state::broken;
use super::{Exit, Failure, calibrate, orphans, output};
use crate::probe::aside::{List, Why};
use crate::probe::{self, Gpu, Machine, process, speeds};
use crate::report::devices::{self, Identities};
use crate::report::paint::Colour;
use crate::report::text;

/// Show this machine's CPUs, memory and GPUs, and who uses them
#[derive(Args)]
pub(super) struct Command {
    /// Print JSON with stable keys
    #[arg(long)]
    json: bool,
    /// Show it again every so many seconds (1 when absent), until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    watch: Option<u32>,
    /// List processes that tasks left behind, found by the marks in their environment
    #[arg(long, conflicts_with = "watch")]
    orphans: bool,
    /// End those of them that have these process ids or belong to these runs, as listed; `all` for every one
    #[arg(long, value_name = "PID|RUN", num_args = 1.., requires = "orphans")]
    end: Vec<String>,
    /// Measure how fast every device is that nobody uses, and remember it for every plan
    #[arg(long, conflicts_with_all = ["watch", "orphans", "drain", "undrain", "json"])]
    calibrate: bool,
    /// Give this device nothing new until it is taken back; what runs on it may end
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["undrain", "json"])]
    drain: Option<String>,
    /// Take a device back that was drained, or that is in quarantine after an error
    #[arg(long, value_name = "DEVICE", conflicts_with = "json")]
    undrain: Option<String>,
}

/// Why a device cannot be set aside or taken back.
#[derive(Debug, Error, Diagnostic)]
enum Refusal {
    #[error("there is no device `{wanted}`")]
    #[diagnostic(help("name it as `trainyard devices` does, gpu0 for example, or by its UUID or the beginning of it"))]
    Unknown { wanted: String },
    #[error("`{wanted}` could be {}", candidates.join(" or "))]
    Ambiguous { wanted: String, candidates: Vec<String> },
    #[error("{name} is not set aside")]
    NotAside { name: String },
    #[error("{name} does not answer, so that it is not known which card it is")]
    #[diagnostic(help("nothing is started on it as long as that is so; one in quarantine is named by its UUID"))]
    Lost { name: String },
    #[error("nobody says where to remember it: set HOME or XDG_STATE_HOME")]
    NoHome,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { exit: Exit::Usage, report: refusal.into() }
    }
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let options = probe::Options::from_env();
        let machine = probe::this_machine(&options);
        if let Some(wanted) = &self.drain {
            let (name, [uuid, ..]) = find(&machine, wanted)?;
            list(&options)?.add(&uuid, Why::Drained).map_err(broken)?;
            return output::print(&format!("{name} is drained: nothing new starts on it\n"));
        }
        if let Some(wanted) = &self.undrain {
            let list = list(&options)?;
            let (name, uuids) = match find(&machine, wanted) {
                Err(Refusal::Unknown { wanted }) => of_list(&list, wanted)?,
                found => found?,
            };
            let mut was = false;
            for uuid in &uuids {
                was |= list.remove(uuid).map_err(broken)?;
            }
            return match was {
                true => output::print(&format!("{name} is used again\n")),
                false => Err(Refusal::NotAside { name }.into()),
            };
        }
        if self.calibrate {
            let list = options.speeds.map(speeds::List::new).ok_or(Refusal::NoHome)?;
            return calibrate::run(&machine, &list);
        }
        if self.orphans {
            return orphans::run(&machine, &self.end, self.json);
        }
        let Some(seconds) = self.watch else { return self.show(&machine) };
        let pause = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let mut machine = machine;
        loop {
            if io::stdout().is_terminal() && !self.json {
                // To the upper left corner, and nothing of the last time below.
                output::print("\x1b[H\x1b[J")?;
            }
            self.show(&machine)?;
            if poll(&mut [PollFd::new(&io::stdout(), PollFlags::empty())], Some(&pause)).is_ok_and(|gone| gone > 0) {
                // Whoever read us has gone.
                return Ok(Exit::Done);
            }
            machine = probe::this_machine(&options);
        }
    }

    fn show(&self, machine: &Machine) -> Result<Exit, Failure> {
        if self.json {
            return output::print(&(json(machine) + "\n"));
        }
        output::print(&devices::table(machine, &identities(machine), Colour::for_stdout(), None))
    }
}

/// Returns the machine as `--json` has it.
pub(super) fn json(machine: &Machine) -> String {
    serde_json::to_string(&devices::json(machine, &identities(machine))).expect("a view of plain values")
}

/// Says who is on the devices.
fn identities(machine: &Machine) -> Identities {
    let listed = machine.gpus.devices().iter().flat_map(|gpu| gpu.reading.processes.iter().flatten());
    let who = |pid| process::identify(Path::new("/"), pid).map(|identity| (pid, identity));
    listed.filter_map(|process| who(process.pid)).collect()
}

fn list(options: &probe::Options) -> Result<List, Refusal> {
    options.aside().ok_or(Refusal::NoHome)
}

/// Returns the name of the device that is meant, by its name, its UUID or the beginning of it; its own UUID, and that of
/// the card which it is or is a slice of.
fn find(machine: &Machine, wanted: &str) -> Result<(String, [String; 2]), Refusal> {
    let devices = machine.gpus.devices();
    let exactly = |gpu: &&Gpu| gpu.name() == wanted || gpu.uuid == wanted;
    let found: Vec<&Gpu> = match devices.iter().find(exactly) {
        Some(gpu) => vec![gpu],
        None => devices.iter().filter(|gpu| gpu.uuid.starts_with(wanted)).collect(),
    };
    let wanted = || text::visible(wanted).into_owned();
    match found.as_slice() {
        [gpu] => {
            let card = gpu.slice.as_ref().map_or(&gpu.uuid, |slice| &slice.card);
            Ok((gpu.name(), [gpu.uuid.clone(), card.clone()]))
        }
        [] => Err(match machine.lost().find(|lost| lost.name() == *wanted()) {
            Some(lost) => Refusal::Lost { name: lost.name() },
            None => Refusal::Unknown { wanted: wanted() },
        }),
        several => {
            Err(Refusal::Ambiguous { wanted: wanted(), candidates: several.iter().map(|gpu| gpu.name()).collect() })
        }
    }
}

/// Returns what [`find`] does for a device that is set aside and does not answer now, by its UUID.
fn of_list(list: &List, wanted: String) -> Result<(String, [String; 2]), Refusal> {
    let listed = list.read().into_iter().find(|aside| aside.uuid == wanted);
    listed.map_or(Err(Refusal::Unknown { wanted }), |aside| Ok((aside.uuid.clone(), [aside.uuid.clone(), aside.uuid])))
}
