//! The state of a training between two epochs, on disk: enough to go on as if nothing had happened.
//!
//! Written whole or not at all. A checkpoint of another training (other parameters, other data) is left alone and said
//! so, never continued.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::archive::{self, Archive, Content};
use crate::error::OpError;
use crate::network::{Architecture, Network};
use crate::optimizer::Optimizer;
use crate::params::Train;
use crate::tensor;

/// What a training is: only the same one may be continued.
#[derive(Debug, Serialize)]
pub(crate) struct Identity {
    pub(crate) params: Train,
    pub(crate) architecture: Architecture,
    /// Of everything that it learns from.
    pub(crate) data: u64,
}

/// The best epoch so far on held-out rows.
#[derive(Debug)]
pub(crate) struct Best {
    pub(crate) epoch: u64,
    pub(crate) loss: f64,
    pub(crate) weights: Vec<Tensor>,
}

/// Everything that changes while training.
#[derive(Debug)]
pub(crate) struct State {
    /// Epochs done.
    pub(crate) epoch: u64,
    pub(crate) network: Network,
    pub(crate) optimizer: Optimizer,
    pub(crate) best: Option<Best>,
}

#[derive(Serialize, Deserialize)]
struct About {
    /// As text: a number that went through JSON twice may differ in its last bit.
    identity: String,
    epoch: u64,
    steps: u64,
    /// Epoch, and the loss by its bits, for the same reason.
    best: Option<(u64, u64)>,
}

impl Identity {
    fn text(&self) -> Result<String, OpError> {
        serde_json::to_string(self).map_err(|error| OpError::Job(format!("parameters cannot be written: {error}")))
    }
}

/// Returns the file in the folder that the orchestrator keeps for a task.
pub(crate) fn file(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

/// Writes the state.
pub(crate) fn save(path: &Path, identity: &Identity, state: &State) -> Result<(), OpError> {
    let best = state.best.as_ref();
    let about = About {
        identity: identity.text()?,
        epoch: state.epoch,
        steps: state.optimizer.steps,
        best: best.map(|best| (best.epoch, best.loss.to_bits())),
    };
    let groups: [(&str, &[Tensor]); 3] = [
        ("weight", &state.network.weights),
        ("memory", &state.optimizer.memory),
        ("best", best.map_or(&[], |best| &best.weights)),
    ];
    let arrays = groups.iter().flat_map(|(group, tensors)| {
        tensors.iter().enumerate().map(move |(index, tensor)| tensor::to_array(format!("{group}.{index}"), tensor))
    });
    archive::write(path, Content::Checkpoint, &about, &arrays.collect::<Result<Vec<_>, _>>()?)
}

/// Puts a saved state in place of `state`, which has just been made for the same training. Returns the epochs done, or
/// `None` where there is no checkpoint or it is of another training.
pub(crate) fn restore(path: &Path, identity: &Identity, state: &mut State, device: Device) -> Option<u64> {
    if !path.exists() {
        return None;
    }
    match load(path, identity, state, device) {
        Ok(true) => Some(state.epoch),
        Ok(false) => {
            eprintln!("{}: a checkpoint of other parameters or data: training starts anew", path.display());
            None
        }
        Err(error) => {
            eprintln!("{error}; training starts anew");
            None
        }
    }
}

fn load(path: &Path, identity: &Identity, state: &mut State, device: Device) -> Result<bool, OpError> {
    let mut archive = archive::read::<About>(path, Content::Checkpoint)?;
    if archive.about.identity != identity.text()? {
        return Ok(false);
    }
    let weights = group(&mut archive, "weight", state.network.weights.len(), device)?;
    let memory = group(&mut archive, "memory", state.optimizer.memory.len(), device)?;
    let best = match archive.about.best {
        Some((epoch, loss)) => {
            let weights = group(&mut archive, "best", weights.len(), device)?;
            Some(Best { epoch, loss: f64::from_bits(loss), weights })
        }
        None => None,
    };
    let _no_grad = tch::no_grad_guard();
    for (place, weight) in state.network.weights.iter_mut().zip(&weights) {
        place.f_copy_(weight)?;
    }
    state.optimizer.memory = memory;
    state.optimizer.steps = archive.about.steps;
    state.best = best;
    state.epoch = archive.about.epoch;
    Ok(true)
}

fn group(archive: &mut Archive<About>, name: &str, count: usize, device: Device) -> Result<Vec<Tensor>, OpError> {
    let array = |index| {
        let (shape, values) = archive.take_f32(&format!("{name}.{index}"))?;
        Ok(tensor::from_values(&shape, &values, device)?)
    };
    (0..count).map(array).collect()
}
