//! Everything that reads what others wrote, as functions of bytes: shared by the bounded test here and by the targets of
//! `cargo fuzz`. What bytes are may be wrong in any way; a panic is a bug.

use trainyard::fleet;
use trainyard::graph::{self, Limits};
use trainyard::progress::{Reader, explicit};
use trainyard::run::event::{Event, Recorded};
use trainyard::run::observer::Progress;
use trainyard::run::state::RunState;
use trainyard::spec::{Source, op};
use trainyard::units::Millis;

/// Reads a pipeline file and builds its graph.
pub(crate) fn pipeline(bytes: &[u8]) {
    let (source, _) = Source::from_bytes("p.toml".to_owned(), bytes.to_vec());
    let _ = graph::load(&source, &[], op::CATALOGUE, Limits { max_tasks: 100 });
}

/// Reads a fleet file.
pub(crate) fn fleet(bytes: &[u8]) {
    let (source, _) = Source::from_bytes("f.toml".to_owned(), bytes.to_vec());
    let _ = fleet::file::parse(&source);
}

/// Reads what a program printed, what it wrote about its progress, and what is kept of that.
pub(crate) fn progress(bytes: &[u8]) {
    let (mut whole, mut cut) = (Reader::default(), Reader::default());
    let (first, second) = bytes.split_at(bytes.len() / 2);
    whole.read(bytes, |_| {});
    cut.read(first, |_| {});
    cut.read(second, |_| {});
    whole.finish(|_| {});
    cut.finish(|_| {});
    assert_eq!(
        format!("{:?}", whole.progress()),
        format!("{:?}", cut.progress()),
        "where it was cut made a difference"
    );
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = explicit::line(line);
    }
    let _ = serde_json::from_slice::<Progress>(bytes);
}

/// Reads a recorded event and applies it, unless it cannot be read. One that is refused changes nothing.
pub(crate) fn event(bytes: &[u8], at: Millis, state: &mut RunState) {
    let Ok(event) = serde_json::from_slice::<Event>(bytes) else { return };
    let text = serde_json::to_vec(&event).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<Event>(&text).expect("what was written can be read"), event);
    let before = state.clone();
    let taken = state.apply(&Recorded { at, event });
    assert!(taken.is_ok() || *state == before, "it was refused and changed something");
}
