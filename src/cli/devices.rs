//! `trainyard devices`: what this machine has, what is free of it, and who is on it.

use std::io::{self, IsTerminal};
use std::path::Path;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Exit, Failure, aside, calibrate, orphans, output, patience};
use crate::probe::{self, Machine, process, speeds};
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
    #[arg(long, value_name = "DEVICE", value_parser = NonEmptyStringValueParser::new(), conflicts_with_all = ["undrain", "json"])]
    drain: Option<String>,
    /// Take a device back that was drained, or that is in quarantine after an error
    #[arg(long, value_name = "DEVICE", value_parser = NonEmptyStringValueParser::new(), conflicts_with = "json")]
    undrain: Option<String>,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut options = probe::Options::from_env();
        if self.drain.is_some() || self.undrain.is_some() {
            // That is about the machine, and not about what is to be seen of it here.
            options.visible_devices = None;
        }
        let machine = patience::asking_driver(|| probe::this_machine(&options));
        if let Some(wanted) = &self.drain {
            return aside::drain(&options, &machine, wanted);
        }
        if let Some(wanted) = &self.undrain {
            return aside::undrain(&options, &machine, wanted);
        }
        if self.calibrate {
            let list = options.speeds.map(speeds::List::new).ok_or(aside::Refusal::NoHome)?;
            return calibrate::run(&machine, &list);
        }
        if self.orphans {
            return orphans::run(&machine, &self.end, self.json);
        }
        let Some(seconds) = self.watch else { return self.show(&machine, None) };
        let pause = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let mut machine = machine;
        loop {
            let size = output::size().filter(|_| io::stdout().is_terminal() && !self.json);
            if size.is_some() {
                // To the upper left corner, and nothing of the last time below.
                output::print("\x1b[H\x1b[J")?;
            }
            self.show(&machine, size)?;
            if poll(&mut [PollFd::new(&io::stdout(), PollFlags::empty())], Some(&pause)).is_ok_and(|gone| gone > 0) {
                // Whoever read us has gone.
                return Ok(Exit::Done);
            }
            machine = probe::this_machine(&options);
        }
    }

    /// Shows the machine, so that it fits into `size` (rows and columns); otherwise as wide as the terminal, if it is one.
    fn show(&self, machine: &Machine, size: Option<(usize, usize)>) -> Result<Exit, Failure> {
        if self.json {
            return output::print(&(json(machine) + "\n"));
        }
        let terminal = || output::size().filter(|_| io::stdout().is_terminal());
        let columns = size.or_else(terminal).map(|(_, columns)| columns);
        let shown = devices::table(machine, &identities(machine), Colour::for_stdout(), columns);
        match size {
            Some(size) => output::print(&cut(&shown, size)),
            None => output::print(&shown),
        }
    }
}

/// Cuts what is shown again and again to the size of a terminal: what wraps or scrolls would push out the first lines.
fn cut(shown: &str, (rows, columns): (usize, usize)) -> String {
    let lines: Vec<&str> = shown.lines().collect();
    // The last row is the cursor's.
    let room = rows.saturating_sub(1).max(1);
    let fit = |line: &&str| text::fit(line, columns).into_owned() + "\n";
    if lines.len() <= room {
        return lines.iter().map(fit).collect();
    }
    let more = format!("… and {} lines more", lines.len() - (room - 1));
    lines[..room - 1].iter().chain([&more.as_str()]).map(fit).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_never_longer_or_wider_than_the_terminal() {
        let shown = "GPU   MODEL\n\x1b[2mgpu0\x1b[0m  Emulated\ngpu1\ngpu2\n";
        assert_eq!(cut(shown, (5, 80)), shown);
        assert_eq!(cut(shown, (4, 80)), "GPU   MODEL\n\x1b[2mgpu0\x1b[0m  Emulated\n… and 2 lines more\n");
        let narrow = cut(shown, (24, 8));
        assert!(narrow.lines().all(|line| text::width(line) <= 8), "{narrow:?}");
        assert_eq!(cut(shown, (0, 80)).lines().count(), 1);
    }
}
