//! A trained model in a file: the network, the names of its classes, and how it came to be.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::archive::{self, Content};
use crate::dataset::Dataset;
use crate::error::{OpError, Place};
use crate::network::{Architecture, Network};
use crate::params::Train;
use crate::tensor;

/// A classifier with its provenance.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) architecture: Architecture,
    pub(crate) classes: Vec<String>,
    /// What it was trained with.
    pub(crate) params: Train,
    /// How many epochs were run.
    pub(crate) epochs: u64,
    pub(crate) network: Network,
}

#[derive(Serialize, Deserialize)]
struct About {
    architecture: Architecture,
    classes: Vec<String>,
    params: Train,
    epochs: u64,
}

impl Model {
    /// Writes the model, whole or not at all.
    pub(crate) fn write(self, path: &Path) -> Result<(), OpError> {
        let Self { architecture, classes, params, epochs, network } = self;
        let arrays = network.names().zip(&network.weights).map(|(name, weight)| tensor::to_array(name, weight));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        archive::write(path, Content::Model, &About { architecture, classes, params, epochs }, &arrays)
    }

    /// Reads a model onto a device.
    pub(crate) fn read(path: &Path, device: Device) -> Result<Self, OpError> {
        let mut archive = archive::read::<About>(path, Content::Model)?;
        let network = {
            let architecture = archive.about.architecture.clone();
            Network::with(&architecture, |name, shape, _| {
                let (found, values) = archive.take_f32(name)?;
                if found.iter().zip(shape).any(|(found, expected)| i64::try_from(*found) != Ok(*expected)) {
                    let what = format!("`{name}` has the shape {found:?}, but {shape:?} is expected");
                    return Err(OpError::input(Place::file(path), what, "train the model anew"));
                }
                Ok(tensor::from_values(&found, &values, device)?)
            })?
        };
        let About { architecture, classes, params, epochs } = archive.about;
        Ok(Self { architecture, classes, params, epochs, network })
    }

    /// Returns the logarithm of each class's probability, f32 `[rows, classes]` on the CPU, in batches of rows.
    pub(crate) fn log_probabilities(&self, set: &Dataset, batch: i64, device: Device) -> Result<Tensor, OpError> {
        let _no_grad = tch::no_grad_guard();
        let x = tensor::features(set, Device::Cpu)?;
        let parts = x.f_split(batch, 0)?.into_iter().map(|part| {
            let logits = self.network.forward(&part.f_to_device(device)?, false)?;
            logits.f_log_softmax(-1, Kind::Float)?.f_to_device(Device::Cpu)
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?)
    }
}
