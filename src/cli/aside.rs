//! `trainyard devices --drain` and `--undrain`: which device or card is meant, and whether it is used.

use miette::Diagnostic;
use thiserror::Error;

use super::state::broken;
use super::{Exit, Failure, output};
use crate::probe::aside::{List, Why};
use crate::probe::gpu::Lost;
use crate::probe::{self, Gpu, Machine};
use crate::report::text;

/// Why a device cannot be set aside or taken back.
#[derive(Debug, Error, Diagnostic)]
pub(super) enum Refusal {
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

/// A device, or a card with all its slices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meant {
    name: String,
    uuid: String,
    /// The card that it is a slice of, and the names and UUIDs of the other slices of that.
    card: Option<(String, Vec<(String, String)>)>,
    /// Whether it is known only since it is on the list.
    is_absent: bool,
}

/// Keeps new tasks off a device.
pub(super) fn drain(options: &probe::Options, machine: &Machine, wanted: &str) -> Result<Exit, Failure> {
    let meant = find(machine, wanted)?;
    list(options)?.add(&meant.uuid, Why::Drained).map_err(broken)?;
    output::print(&format!("{} is drained: nothing new starts on it\n", meant.name))
}

/// Takes a device back.
pub(super) fn undrain(options: &probe::Options, machine: &Machine, wanted: &str) -> Result<Exit, Failure> {
    let list = list(options)?;
    let meant = match find(machine, wanted) {
        Err(Refusal::Unknown { wanted }) => of_list(&list, wanted)?,
        found => found?,
    };
    let name = &meant.name;
    let now = if meant.is_absent { "may be used once it answers again" } else { "is used again" };
    let mut words = list.remove(&meant.uuid).map_err(broken)?.then(|| format!("{name} {now}"));
    if let Some((card, others)) = &meant.card
        && list.remove(card).map_err(broken)?
    {
        let still: Vec<String> = list.read().into_iter().map(|aside| aside.uuid).collect();
        let back = others.iter().filter(|(_, uuid)| !still.contains(uuid));
        let back: Vec<_> = back.map(|(name, _)| name.as_str()).collect();
        let with = if back.is_empty() { String::new() } else { format!(", and with it {}", back.join(", ")) };
        words = Some(format!("{name} is used again{with}: all of its card was set aside"));
    }
    match words {
        Some(words) => output::print(&(words + "\n")),
        None => Err(Refusal::NotAside { name: meant.name }.into()),
    }
}

fn list(options: &probe::Options) -> Result<List, Refusal> {
    options.aside().ok_or(Refusal::NoHome)
}

/// Returns all that can be meant: every device, and every card that has slices.
fn all(devices: &[Gpu]) -> Vec<Meant> {
    let mut all: Vec<Meant> = Vec::new();
    for gpu in devices {
        let of_card = |other: &&Gpu| other.slice.is_some() && other.card() == gpu.card();
        let others = devices.iter().filter(of_card).filter(|other| other.uuid != gpu.uuid);
        let others = others.map(|other| (other.name(), other.uuid.clone()));
        let card = gpu.slice.as_ref().map(|slice| (slice.card.clone(), others.collect()));
        let whole = card.as_ref().map(|(uuid, _)| Meant {
            name: format!("gpu{}", gpu.pci_index),
            uuid: uuid.clone(),
            card: None,
            is_absent: false,
        });
        all.extend(whole.filter(|whole| !all.contains(whole)));
        all.push(Meant { name: gpu.name(), uuid: gpu.uuid.clone(), card, is_absent: false });
    }
    all
}

/// Returns what is meant by its name, also behind that of the host, its UUID or the beginning of it.
fn find(machine: &Machine, wanted: &str) -> Result<Meant, Refusal> {
    let mut all = all(machine.gpus.devices());
    let absent =
        |lost: &Lost| Some(Meant { name: lost.name(), uuid: lost.uuid.clone()?, card: None, is_absent: false });
    all.extend(machine.lost().filter_map(absent));
    let host = format!("{}/", machine.host.name);
    let bare = wanted.strip_prefix(&host).unwrap_or(wanted);
    let exactly = |meant: &&Meant| meant.name == bare || meant.uuid == wanted;
    let mut found: Vec<&Meant> = match all.iter().find(exactly) {
        Some(meant) => vec![meant],
        None => all.iter().filter(|meant| meant.uuid.starts_with(wanted)).collect(),
    };
    let wanted = || text::visible(wanted).into_owned();
    match (found.pop(), found.is_empty()) {
        (Some(meant), true) => Ok(meant.clone()),
        (None, _) => Err(match machine.lost().find(|lost| lost.name() == bare) {
            Some(lost) => Refusal::Lost { name: lost.name() },
            None => Refusal::Unknown { wanted: wanted() },
        }),
        (Some(last), false) => {
            let candidates = found.into_iter().chain([last]).map(|meant| meant.name.clone());
            Err(Refusal::Ambiguous { wanted: wanted(), candidates: candidates.collect() })
        }
    }
}

/// Returns what [`find`] does for a device that is set aside and does not answer now, by its UUID.
fn of_list(list: &List, wanted: String) -> Result<Meant, Refusal> {
    let listed = list.read().into_iter().find(|aside| aside.uuid == wanted);
    let meant = |uuid: String| Meant { name: uuid.clone(), uuid, card: None, is_absent: true };
    listed.map(|aside| meant(aside.uuid)).ok_or(Refusal::Unknown { wanted })
}
