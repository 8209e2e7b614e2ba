//! Why tasks wait, kept in the run's folder for whoever asks from elsewhere, and said where they wait long.
//!
//! The file is not part of the record: it holds for the moment, and only while the run is carried out.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{text, wording};
use crate::graph::TaskGraph;
use crate::run::decide::{Reason, Waiting};
use crate::run::event::{Event, Recorded};
use crate::run::observer::{Observer, View};
use crate::run::state::{Phase, RunState};
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

/// Says which waits are worth a word: those for room or for another run, once they are long, again once something else has
/// kept them for a while, and not the same again and again.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    latest: Vec<Waiting>,
    /// What is known of the tasks that wait since a time: the n-th such wait.
    known: HashMap<(Millis, usize), Known>,
    /// Whether no task of the run goes on.
    alone: bool,
}

/// What is known of tasks that wait.
#[derive(Clone, Debug)]
struct Known {
    kind: Kind,
    /// Since when that is what keeps them.
    from: Millis,
    /// What was said to keep them, and when.
    said: HashMap<Kind, Millis>,
}

/// What keeps tasks, without numbers and places: the words of JSON, and what is the matter with devices.
type Kind = BTreeSet<String>;

/// Reasons that are gone within seconds, or of which the line of a retry told.
const PASSING: [&str; 4] = ["settling", "leaving", "lately", "turned-away"];

fn kind(reason: &Reason) -> Kind {
    let word = |value: Value| value["fault"].as_str().or(value["is"].as_str()).unwrap_or_default().to_owned();
    match reason {
        Reason::Room { nodes, devices, .. } => {
            let nodes = nodes.iter().map(|at| word(json!(at.lacks)));
            nodes.chain(devices.iter().map(|at| word(json!(at.lacks)))).collect()
        }
        Reason::Jobs { .. }
        | Reason::Held { .. }
        | Reason::Disk { .. }
        | Reason::Start { .. }
        | Reason::Locked { .. }
        | Reason::Output { .. } => Kind::from([word(json!(reason))]),
    }
}

/// Yields waits, each with what it is known by: since when it lasts, and which of those that last since then it is.
fn numbered(waiting: &[Waiting]) -> impl Iterator<Item = ((Millis, usize), &Waiting)> {
    let mut counts: HashMap<Millis, usize> = HashMap::new();
    waiting.iter().map(move |one| {
        let count = counts.entry(one.since).or_default();
        *count += 1;
        ((one.since, *count), one)
    })
}

/// Whether a task has waited so long for room or for somebody else's output.
fn waits_long(one: &Waiting, now: Millis, long: Millis) -> bool {
    matches!(one.reason, Reason::Room { .. } | Reason::Output { .. } | Reason::Start { .. }) && now - one.since >= long
}

/// Whether the task still waits that is named, for its first attempt or for another one.
fn still_waits(one: &Waiting, state: &RunState) -> bool {
    one.tasks.first().is_none_or(|task| matches!(state.task(*task).phase, Phase::Waiting | Phase::Delayed(_)))
}

impl Patience {
    /// Takes in what tasks wait for in this state of the run.
    pub fn take_in(&mut self, waiting: &[Waiting], state: &RunState, now: Millis) {
        self.latest = waiting.to_vec();
        self.alone = state.running == 0;
        let mut before = std::mem::take(&mut self.known);
        for (key, one) in numbered(waiting) {
            let kind = kind(&one.reason);
            let known = match before.remove(&key) {
                Some(known) if known.kind == kind => known,
                Some(known) => Known { kind, from: now, ..known },
                None => Known { kind, from: one.since, said: HashMap::new() },
            };
            self.known.insert(key, known);
        }
    }

    /// Returns the waits that are worth a word now. What was told last may be a moment old: tasks that do not wait any more in
    /// this state of the run are none.
    pub fn due(&mut self, now: Millis, state: &RunState) -> Vec<Waiting> {
        let (long, mut due) = (self.long(), Vec::new());
        for (key, one) in numbered(&self.latest) {
            let Some(Known { kind, from, said }) = self.known.get_mut(&key) else { continue };
            let is_first = said.is_empty() && !kind.iter().any(|word| PASSING.contains(&word.as_str()));
            let has_lasted = now - *from >= if is_first { long } else { LONG };
            let is_new = said.get(kind).is_none_or(|at| now - *at >= AGAIN);
            if still_waits(one, state) && waits_long(one, now, long) && has_lasted && is_new {
                said.insert(kind.clone(), now);
                due.push(one.clone());
            }
        }
        due
    }

    const fn long(&self) -> Millis {
        if self.alone { LONG_ALONE } else { LONG }
    }

    /// Returns what tasks wait for longest, if that is long.
    #[must_use]
    pub fn longest(&self, now: Millis, state: &RunState) -> Option<&Waiting> {
        let is_long = |one: &&Waiting| still_waits(one, state) && waits_long(one, now, self.long());
        self.latest.iter().filter(is_long).min_by_key(|one| one.since)
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
            format!(
                "{} {}, which is as many as --jobs allows",
                wording::plural(*most, "task"),
                if *most == 1 { "runs" } else { "run" }
            )
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
        Reason::Locked { words } => format!("nothing new is started: {}", text::visible(words)),
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
    use crate::run::admission::Why;
    use crate::run::decide::At;
    use crate::run::event::RunEnd;
    use crate::units::Bytes;

    fn waits(since: u64) -> Waiting {
        waits_since(since, &[])
    }

    /// Tasks that wait since then for devices of which each has no room for such a reason.
    fn waits_since(since: u64, whys: &[Why]) -> Waiting {
        let device = |why: &Why| At { place: "box/gpu0".to_owned(), lacks: why.clone() };
        let reason = Reason::Room {
            words: "needs 2 CPUs".to_owned(),
            nodes: Vec::new(),
            devices: whys.iter().map(device).collect(),
            runs: Vec::new(),
            kept_from: None,
        };
        Waiting { tasks: vec![TaskId(0), TaskId(1)], count: 2, since: Millis(since), reason }
    }

    #[test]
    fn a_short_wait_is_not_worth_a_word_and_a_long_one_is_said_once() {
        let mut scene = Scene::side_by_side(&["a", "b", "c"]);
        let mut patience = Patience::default();
        patience.take_in(&[waits(1_000)], scene.view().state, Millis(1_000));
        assert_eq!(
            [1_999, 2_000].map(|at| patience.due(Millis(at), scene.view().state).len()),
            [0, 1],
            "nothing else goes on"
        );
        scene.apply(0, started(2, 1));
        let mut patience = Patience::default();
        patience.take_in(&[waits(1_000)], scene.view().state, Millis(1_000));
        let mut count = |at| patience.due(Millis(at), scene.view().state).len();
        assert_eq!([count(10_999), count(11_000), count(12_000), count(611_000)], [0, 1, 0, 1]);
        let (much_later, mut patience) = (Millis(700_000), Patience::default());
        patience.take_in(&[waits(1_000)], scene.view().state, Millis(611_000));
        assert!(patience.longest(much_later, scene.view().state).is_some());
        scene.apply(0, started(0, 1));
        assert_eq!(patience.due(much_later, scene.view().state), [], "it has begun");
        assert_eq!(patience.longest(much_later, scene.view().state), None);
    }

    #[test]
    fn what_passes_is_not_said_and_what_has_changed_is_said_once_it_lasts() {
        let scene = Scene::side_by_side(&["a", "b"]);
        let mut patience = Patience::default();
        let memory = |free: u64| Why::Memory { free: Bytes(free), promised: Bytes::ZERO, headroom: Bytes::ZERO };
        let mut said = |at: u64, whys: &[Why]| {
            // Another wait since then, for something else.
            let waiting = [waits_since(1_000, whys), waits_since(1_000, &[Why::Slice])];
            patience.take_in(&waiting, scene.view().state, Millis(at));
            let due = patience.due(Millis(at), scene.view().state).into_iter();
            due.filter(|one| one.reason != waiting[1].reason).count()
        };
        assert_eq!([1_000, 1_900, 2_500].map(|at| said(at, &[Why::Settling])), [0, 0, 0], "that is gone at once");
        assert_eq!([3_000, 3_999, 4_000].map(|at| said(at, &[Why::OneProcess])), [0, 0, 1]);
        assert_eq!([5_000, 60_000].map(|at| said(at, &[Why::OneProcess])), [0, 0]);
        assert_eq!([61_000, 70_999, 71_000].map(|at| said(at, &[memory(at)])), [0, 0, 1], "numbers say nothing new");
        // To and fro is no news.
        for at in (72_000..580_000).step_by(15_000) {
            assert_eq!(said(at, &[Why::OneProcess]) + said(at + 14_000, &[Why::OneProcess]), 0);
            assert_eq!(said(at + 14_500, &[memory(at)]), 0);
        }
        let fault = |fault: &str| Why::Fault { fault: fault.to_owned() };
        assert_eq!([601_000, 611_000].map(|at| said(at, &[fault("lost")])), [0, 1]);
        assert_eq!([612_000, 622_000].map(|at| said(at, &[fault("drained by hand")])), [0, 1]);
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
