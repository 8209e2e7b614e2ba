//! What a run would do, task by task, as text and as JSON. Pure. The keys and words of the JSON are stable.

use serde_json::{Value, json};

use super::paint::{Colour, Tone};
use super::table::{Cell, Column, Table};
use super::{text, wording};
use crate::graph::TaskGraph;
use crate::run::cache::key::{Change, How, Part};
use crate::run::cache::verdict::{Always, Verdict, Why};

/// Reasons that are named; those behind them are counted.
const MOST_REASONS: usize = 3;

/// What a run would do. Verdicts are by TaskId.
#[derive(Clone, Copy, Debug)]
pub struct DryRun<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// Its tasks.
    pub graph: &'a TaskGraph,
    /// `[n_tasks]`.
    pub verdicts: &'a [Verdict],
}

impl DryRun<'_> {
    /// Returns it as text for a terminal of `columns`.
    #[must_use]
    pub fn text(&self, colour: Colour, columns: Option<usize>) -> String {
        let count = |word: &str| self.verdicts.iter().filter(|verdict| self::word(verdict) == word).count();
        let (tasks, cached) = (self.verdicts.len(), count("cached"));
        let mut table =
            Table::new([Column::left("task").that_gives_way(), Column::left("verdict"), Column::left("why")]);
        for (task, verdict) in self.graph.tasks.iter().zip(self.verdicts) {
            let word = word(verdict);
            let tone = match verdict {
                Verdict::Cached(_) | Verdict::Done => Tone::Good,
                Verdict::Runs(_) => Tone::Active,
                Verdict::MayRun { .. } | Verdict::BeingWritten => Tone::Uneasy,
            };
            table.row([(&task.name).into(), Cell::new(word.replace('-', " "), tone), self.reasons(verdict).into()]);
        }
        let counts =
            wording::counts(&[(cached, "cached"), (count("will-run"), "will run"), (count("may-run"), "may run")]);
        let last = format!("{}: {counts}", wording::plural(tasks, "task"));
        format!("{}\n{last}\n", table.render(colour, columns))
    }

    /// Returns it as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let tasks = self.graph.tasks.iter().zip(self.verdicts).map(|(task, verdict)| {
            let (restores, after, why) = match verdict {
                Verdict::Cached(cached) => (cached.restored.as_slice(), None, Vec::new()),
                Verdict::Runs(why) => (&[][..], None, reason_json(why)),
                Verdict::MayRun { after } => (&[][..], Some(&self.graph.tasks[after.index()].name), Vec::new()),
                Verdict::BeingWritten | Verdict::Done => (&[][..], None, Vec::new()),
            };
            json!({"name": task.name, "verdict": word(verdict), "restores": restores, "after": after, "why": why})
        });
        json!({"pipeline": self.pipeline, "tasks": tasks.collect::<Vec<_>>()})
    }

    fn reasons(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Done => String::new(),
            Verdict::Cached(cached) if cached.restored.is_empty() => String::new(),
            Verdict::Cached(cached) => format!("restores {}", some_of(&cached.restored)),
            Verdict::MayRun { after } => format!("{} comes before it", self.graph.tasks[after.index()].name),
            Verdict::BeingWritten => "another run writes its outputs".to_owned(),
            Verdict::Runs(why) => reason(why),
        }
    }
}

const fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Cached(_) => "cached",
        Verdict::Runs(_) => "will-run",
        Verdict::MayRun { .. } | Verdict::BeingWritten => "may-run",
        Verdict::Done => "done",
    }
}

/// Returns why a task runs, as a sentence.
#[must_use]
pub fn reason(why: &Why) -> String {
    match why {
        Why::Always(Always::Off) => "`cache = false`".to_owned(),
        Why::Always(Always::NoOutputs) => "it has no outputs".to_owned(),
        Why::Always(Always::ReadsOwnOutputs) => "it reads files in its own output".to_owned(),
        Why::Always(Always::SharesOutputs) => "its outputs overlap with those of another task".to_owned(),
        Why::Always(Always::HoldsState) => "its output holds the state folder".to_owned(),
        Why::Forced => "forced".to_owned(),
        Why::New => "no result of it is kept from before".to_owned(),
        Why::OutputsGone(path) => format!("`{path}` is gone, also from the cache"),
        Why::ChangedSince(path) => format!("`{path}` was changed or removed before anybody could keep it"),
        Why::Unreadable(error) => format!("what it depends on cannot be read: {error}"),
        Why::Changed(changes) if changes.is_empty() => "it was made from something else last".to_owned(),
        Why::Changed(changes) => some_of(&changes.iter().map(changed).collect::<Vec<_>>()),
    }
}

/// Returns the first of these, and how many more there are.
#[must_use]
pub fn some_of(parts: &[String]) -> String {
    let named = parts.iter().take(MOST_REASONS).map(|part| text::visible(part)).collect::<Vec<_>>().join(", ");
    match parts.len().saturating_sub(MOST_REASONS) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn changed(change: &Change) -> String {
    let how = match change.how {
        How::Added => "is new",
        How::Changed => "changed",
        How::Removed => "is gone",
    };
    match &change.part {
        Part::Command => format!("its command {how}"),
        Part::Tool => format!("the program of the built-in ops {how}"),
        Part::Folder => format!("its folder {how}"),
        Part::Variable(name) => format!("the variable `{name}` {how}"),
        Part::Reads => "the list of its inputs changed".to_owned(),
        Part::Writes => "the list of its outputs changed".to_owned(),
        Part::Input(path) | Part::Named(path) => format!("`{path}` {how}"),
    }
}

fn reason_json(why: &Why) -> Vec<Value> {
    let one = |reason: &str| vec![json!({"reason": reason, "how": null, "name": null})];
    match why {
        Why::Always(Always::Off) => one("cache-off"),
        Why::Always(Always::NoOutputs) => one("no-outputs"),
        Why::Always(Always::ReadsOwnOutputs) => one("reads-own-outputs"),
        Why::Always(Always::SharesOutputs) => one("shares-outputs"),
        Why::Always(Always::HoldsState) => one("holds-state"),
        Why::Forced => one("forced"),
        Why::New => one("new"),
        Why::OutputsGone(path) => vec![json!({"reason": "outputs-gone", "how": null, "name": path})],
        Why::ChangedSince(path) => vec![json!({"reason": "changed-since", "how": null, "name": path})],
        Why::Unreadable(error) => vec![json!({"reason": "unreadable", "how": null, "name": error})],
        Why::Changed(changes) => changes.iter().map(change_json).collect(),
    }
}

fn change_json(change: &Change) -> Value {
    let (reason, name) = match &change.part {
        Part::Command => ("command", None),
        Part::Tool => ("tool", None),
        Part::Folder => ("folder", None),
        Part::Variable(name) => ("variable", Some(name)),
        Part::Reads => ("inputs", None),
        Part::Writes => ("outputs", None),
        Part::Input(path) => ("input", Some(path)),
        Part::Named(path) => ("named-file", Some(path)),
    };
    let how = match change.how {
        How::Added => "added",
        How::Changed => "changed",
        How::Removed => "removed",
    };
    json!({"reason": reason, "how": how, "name": name})
}
