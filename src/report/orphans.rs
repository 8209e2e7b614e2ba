//! What tasks left behind, as a table and as JSON with stable keys.

use serde::Serialize;

use super::paint::Tone;
use super::table::{Cell, Column, Table};
use crate::units::Bytes;

/// A process that should not be there any more.
#[derive(Clone, Debug, Serialize)]
pub struct Orphan {
    /// The process.
    pub pid: u32,
    /// Its user.
    pub user: Option<String>,
    /// The name of its program.
    pub command: Option<String>,
    /// The run that it was started for.
    pub run: String,
    /// The task.
    pub task: String,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// Why it should not be there.
    pub why: Why,
    /// Devices on which it holds memory, and how much if that is known.
    pub held: Vec<(String, Option<Bytes>)>,
    /// Whether it was ended just now.
    pub ended: bool,
}

/// Why a process should not be there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its attempt is over.
    AttemptEnded,
    /// Nobody carries its run out any more.
    RunGone,
    /// Its run is not on record, or the record is gone.
    NotOnRecord,
}

impl Why {
    const fn words(self) -> &'static str {
        match self {
            Self::AttemptEnded => "its attempt is over",
            Self::RunGone => "its run's process is gone",
            Self::NotOnRecord => "its run is not on record",
        }
    }
}

/// Returns them as a table; `ended` says whether they were to be ended.
#[must_use]
pub fn table(orphans: &[Orphan], ended: bool) -> Table {
    let mut table = Table::new([
        Column::left("PID"),
        Column::left("USER"),
        Column::left("COMMAND").that_gives_way(),
        Column::left("RUN"),
        Column::left("TASK").that_gives_way(),
        Column::right("ATTEMPT"),
        Column::left("HOLDS"),
        Column::left("WHY"),
        Column::left(""),
    ]);
    for orphan in orphans {
        let held = orphan.held.iter().map(|(device, memory)| match memory {
            Some(memory) => format!("{memory} of {device}"),
            None => device.clone(),
        });
        let word = |text: &Option<String>| text.as_ref().map_or_else(|| Cell::from("-"), Cell::from);
        table.row([
            orphan.pid.into(),
            word(&orphan.user),
            word(&orphan.command),
            (&orphan.run).into(),
            (&orphan.task).into(),
            orphan.attempt.into(),
            held.collect::<Vec<_>>().join(", ").into(),
            orphan.why.words().into(),
            match (ended, orphan.ended) {
                (false, _) => Cell::default(),
                (true, true) => Cell::new("ended", Tone::Good),
                (true, false) => Cell::new("still there", Tone::Bad),
            },
        ]);
    }
    table
}
