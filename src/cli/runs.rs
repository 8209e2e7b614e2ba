//! `trainyard runs`: the recorded runs, the newest first.

use clap::Args;
use jiff::tz::TimeZone;

use super::state::{self, StateArgs};
use super::{Exit, Failure, output};
use crate::report::history::{self, Listed};
use crate::report::json;
use crate::report::paint::Colour;
use crate::units::Millis;

/// List recorded runs
#[derive(Args)]
pub(super) struct Command {
    #[command(flatten)]
    state: StateArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Command {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let rows = match self.state.open()? {
            Some(store) => store.runs().map_err(state::broken)?,
            None => Vec::new(),
        };
        let headers = rows.iter().map(state::header);
        if self.json {
            let runs: Vec<json::Run> = headers.zip(&rows).map(|(header, row)| json::header(&header, row.end)).collect();
            return output::print_json(&runs);
        }
        if rows.is_empty() {
            return output::print("no runs are recorded here\n");
        }
        let listed = |(header, row): (_, &crate::run::store::RunRow)| Listed {
            header,
            tasks: row.header.tasks.len(),
            end: row.end,
        };
        let listed: Vec<Listed<'_>> = headers.zip(&rows).map(listed).collect();
        let table = history::runs(&listed, now(), &TimeZone::system());
        output::print(&table.render(Colour::for_stdout(), output::columns()))
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a run has been running depends on the clock")]
fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
