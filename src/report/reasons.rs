//! Why tasks wait, kept in the run's folder for whoever asks from elsewhere, and said where they wait long.
//!
//! The file is not part of the record: it holds for the moment, and only while the run is carried out.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{text, wording};
use crate::graph::TaskGraph;
use crate::run::decide::{Reason, Waiting};
use crate::run::event::{Event, Recorded};
use crate::run::observer::{Observer, View};
use crate::run::state::RunState;
use crate::units::Millis;

/// Name of the file.
const FILE: &str = "waiting.json";

/// How long a task waits for room before it is worth a word.
const LONG: Millis = Millis(10_000);

/// How long where nothing of the run goes on meanwhile.
const LONG_ALONE: Millis = Millis(1_000);

/// How long until the same is said again.
const AGAIN: Millis = Millis(600_000);

/// What tasks waited for at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// When it was noted, ms since the Unix epoch.
    pub at: Millis,
    /// What they waited for.
    pub waiting: Vec<Waiting>,
}

/// Returns what was last noted in a run's folder; `None` where nothing waits or was noted.
#[must_use]
pub fn read(dir: &Path) -> Option<Noted> {
    serde_json::from_slice(&fs::read(dir.join(FILE)).ok()?).ok()
}

/// Keeps the file.
pub struct Reasons {
    dir: PathBuf,
}

impl Reasons {
    /// Makes an observer that keeps the file in the run's folder.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn write(&self, noted: &Noted) -> std::io::Result<()> {
        let text = serde_json::to_vec(noted).expect("plain data with text keys");
        let draft = self.dir.join("waiting.draft");
        fs::write(&draft, text)?;
        fs::rename(draft, self.dir.join(FILE))
    }
}

impl Observer for Reasons {
    fn recorded(&mut self, _view: View<'_>, recorded: &Recorded) {
        if let Event::RunFinished { .. } = recorded.event {
            // Most runs never have the file.
            let _ = fs::remove_file(self.dir.join(FILE));
        }
    }

    fn waits(&mut self, _view: View<'_>, now: Millis, waiting: &[Waiting]) {
        let noted = Noted { at: now, waiting: waiting.to_vec() };
        if let Err(error) = self.write(&noted) {
            tracing::debug!(%error, "why tasks wait cannot be noted");
        }
    }
}

/// Says which waits are worth a word: those for room or for another run, once they are long, and not the same again and again.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    latest: Vec<Waiting>,
    /// When something was last said of the tasks that wait since this time.
    said: HashMap<Millis, Millis>,
    /// Whether no task of the run goes on.
    alone: bool,
}

/// Whether a task has waited so long for room or for somebody else's output.
fn waits_long(one: &Waiting, now: Millis, long: Millis) -> bool {
    matches!(one.reason, Reason::Room { .. } | Reason::Output { .. } | Reason::Start { .. }) && now - one.since >= long
}

impl Patience {
    /// Takes in what tasks wait for in this state of the run.
    pub fn take_in(&mut self, waiting: &[Waiting], state: &RunState) {
        self.latest = waiting.to_vec();
        self.alone = state.running == 0;
        self.said.retain(|since, _| waiting.iter().any(|one| one.since == *since));
    }

    /// Returns the waits that are worth a word now.
    pub fn due(&mut self, now: Millis) -> Vec<Waiting> {
        let long = self.long();
        let Self { latest, said, .. } = self;
        let is_due =
            |one: &&Waiting| waits_long(one, now, long) && said.get(&one.since).is_none_or(|at| now - *at >= AGAIN);
        let due: Vec<_> = latest.iter().filter(is_due).cloned().collect();
        said.extend(due.iter().map(|one| (one.since, now)));
        due
    }

    const fn long(&self) -> Millis {
        if self.alone { LONG_ALONE } else { LONG }
    }

    /// Returns what tasks wait for longest, if that is long.
    #[must_use]
    pub fn longest(&self, now: Millis) -> Option<&Waiting> {
        self.latest.iter().filter(|one| waits_long(one, now, self.long())).min_by_key(|one| one.since)
    }
}

/// Says in a line which tasks wait for what: `train[lr=0.1] and 3 more: needs 21.3 GiB of one GPU; …`.
#[must_use]
pub fn line(graph: &TaskGraph, waiting: &Waiting) -> String {
    let first = waiting.tasks.first().map_or("", |task| graph.tasks[task.index()].name.as_str());
    let others = match waiting.count {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!("{}{others}: {}{}", text::visible(first), reason(&waiting.reason), kept(&waiting.reason))
}

/// Says from when on room is kept for the first of the tasks that wait for a reason; nothing where none is.
#[must_use]
pub fn kept(reason: &Reason) -> String {
    let Reason::Room { kept_from: Some(from), .. } = reason else { return String::new() };
    format!("; room is kept for it from {} on", super::json::rfc3339(*from))
}

/// Says in words why tasks wait.
#[must_use]
pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Jobs { most } => {
            format!("{} run, which is as many as --jobs allows", wording::plural(*most, "task"))
        }
        Reason::Held { by, at } => {
            let at = super::json::rfc3339(*at);
            format!("{} comes first and has this room from {at} on", text::visible(by))
        }
        Reason::Room { words, .. } => text::visible(words).into_owned(),
        Reason::Disk { words } => format!("nothing new is started: {}", text::visible(words)),
        Reason::Start { words } => {
            format!("the system has no room for another process or open file now: {}", text::visible(words))
        }
        Reason::Output { path, run } => {
            format!("run {} writes {}", text::visible(run), text::visible(path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::TaskId;
    use crate::report::fixture::{Scene, over, started};
    use crate::run::event::RunEnd;

    fn waits(since: u64) -> Waiting {
        let reason = Reason::Room {
            words: "needs 2 CPUs".to_owned(),
            nodes: Vec::new(),
            devices: Vec::new(),
            runs: Vec::new(),
            kept_from: None,
        };
        Waiting { tasks: vec![TaskId(0), TaskId(1)], count: 2, since: Millis(since), reason }
    }

    #[test]
    fn a_short_wait_is_not_worth_a_word_and_a_long_one_is_said_once() {
        let mut scene = Scene::side_by_side(&["a", "b", "c"]);
        let mut patience = Patience::default();
        patience.take_in(&[waits(1_000)], scene.view().state);
        assert_eq!([1_999, 2_000].map(|at| patience.due(Millis(at)).len()), [0, 1], "nothing else goes on");
        scene.apply(0, started(2, 1));
        let mut patience = Patience::default();
        patience.take_in(&[waits(1_000)], scene.view().state);
        let mut count = |at| patience.due(Millis(at)).len();
        assert_eq!([count(10_999), count(11_000), count(12_000), count(611_000)], [0, 1, 0, 1]);
        patience.take_in(&[], scene.view().state);
        assert_eq!(patience.due(Millis(700_000)), []);
        assert_eq!(patience.longest(Millis(700_000)), None);
    }

    #[test]
    fn what_is_noted_can_be_read_and_goes_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let mut reasons = Reasons::new(dir.path().to_owned());
        let mut scene = Scene::side_by_side(&["a", "b"]);
        assert_eq!(read(dir.path()), None);
        reasons.waits(scene.view(), Millis(7), &[waits(5)]);
        assert_eq!(read(dir.path()), Some(Noted { at: Millis(7), waiting: vec![waits(5)] }));
        assert_eq!(line(&scene.graph, &waits(5)), "a and 1 more: needs 2 CPUs");
        scene.tell(&mut reasons, 1, over(RunEnd::Interrupted));
        assert_eq!(read(dir.path()), None);
    }
}
