//! Who searches in batches for the planner: a CUDA device, or the CPU in its place; chosen with `--device`, measured here,
//! and said here.
//!
//! The device is opened for a search and given back before it returns: planning must not hold memory that a training
//! needs. Whatever goes wrong with it, one line says why, and the CPU searches in its place: the plan is the same.

#![expect(clippy::disallowed_methods, reason = "what a search takes is measured")]

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use tracing::info;

use super::{output, spare};
use crate::batch::Unfit;
use crate::batch::device::OffDevice;
use crate::batch::search::{Effort, Found, Problem, Searcher, on_cpu, on_device};
use crate::cuda;
use crate::plan::Plan;

/// Who searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The CPU, just as a device would.
    Cpu,
    /// A CUDA device, by its number.
    Cuda(usize),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || {
            let digits = text.strip_prefix("cuda:")?;
            digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                number().map(Self::Cuda).ok_or_else(|| "write `cuda:0` for the first CUDA device, or `cpu`".to_owned())
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("the CPU"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Searches where it was told to.
#[derive(Debug)]
pub(super) struct Searching {
    place: Place,
    asked: Cell<bool>,
}

impl Searching {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, asked: Cell::new(false) }
    }

    /// Says so if nothing was searched.
    pub(super) fn say_if_idle(&self, plan: &Plan) {
        if !self.asked.get() {
            let why =
                if plan.is_optimal() { "the first plan is proven optimal" } else { "no better plan may be looked for" };
            info!("nothing to search on {}: {why}", self.place);
        }
    }
}

impl Searcher for Searching {
    fn search(&self, problem: &Problem, effort: &Effort<'_>) -> Option<Found> {
        self.asked.set(true);
        let began = Instant::now();
        let (who, found) = match self.place {
            Place::Cpu => (self.place.to_string(), on_cpu(problem, effort)),
            Place::Cuda(number) => {
                let searched = cuda::guarded(|| {
                    let device = spare::open(number)?;
                    let found = on_device(&device, problem, effort)?;
                    Ok::<_, OffDevice>((format!("{} ({})", device.about().name, self.place), found))
                });
                searched.unwrap_or_else(|error| {
                    output::note(&format!("searching on the CPU: {error}"));
                    (Place::Cpu.to_string(), on_cpu(problem, effort))
                })
            }
        };
        let (candidates, millis) = (effort.candidates, began.elapsed().as_secs_f64() * 1e3);
        let Found { generations, evaluations, .. } = &found;
        info!(
            "searched on {who}: {generations} generations of {candidates}, {evaluations} orders, took {millis:.1} ms"
        );
        Some(found)
    }

    fn looks_a_millisecond(&self) -> u64 {
        match self.place {
            Place::Cpu => 50_000,
            Place::Cuda(_) => 10_000_000,
        }
    }

    fn refuse(&self, why: Unfit) {
        self.asked.set(true);
        output::note(&format!("searching one schedule at a time: {why}"));
    }
}
