//! `trainyard devices`: what this machine has, what is free of it, and who is on it.

use std::path::Path;

use clap::Args;

use super::{Exit, Failure};
use crate::probe::{self, process};
use crate::report::devices::{self, Identities};
use crate::report::paint::Colour;

/// Show this machine's CPUs, memory and GPUs, and who uses them
#[derive(Args)]
pub(super) struct Command {
    /// Print JSON with stable keys
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let machine = probe::this_machine(&probe::Options::from_env());
        let listed = machine.gpus.devices().iter().flat_map(|gpu| gpu.reading.processes.iter().flatten());
        let who = |pid| process::identify(Path::new("/"), pid).map(|identity| (pid, identity));
        let who: Identities = listed.filter_map(|process| who(process.pid)).collect();
        if self.json {
            let text = serde_json::to_string(&devices::json(&machine, &who)).expect("a view of plain values");
            println!("{text}");
        } else {
            print!("{}", devices::table(&machine, &who, Colour::for_stdout(), None));
        }
        Ok(Exit::Done)
    }
}
