//! Classifiers: logistic regression, multi-layer perceptron, convolutional network.
//!
//! A network is its architecture and its weights; it does not know how it was trained.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::OpError;
use crate::params::{Family, Train};

/// What a network looks like: enough to lay out its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Architecture {
    pub(crate) family: Family,
    pub(crate) features: usize,
    pub(crate) classes: usize,
    /// Width of each hidden layer; unused by logistic regression.
    pub(crate) hidden: Vec<i64>,
    /// Channels of each convolution; unused but by the CNN.
    pub(crate) channels: Vec<i64>,
    pub(crate) dropout: f64,
}

/// One layer with weights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layer {
    /// 3×3 with a border of zeros, then the larger of each 2×2 square if `pool`.
    Convolution {
        inputs: i64,
        outputs: i64,
        pool: bool,
    },
    Linear {
        inputs: i64,
        outputs: i64,
    },
}

impl Architecture {
    /// Describes the network that the parameters ask for.
    pub(crate) fn new(params: &Train, features: usize, classes: usize) -> Self {
        let (hidden, channels) = (params.hidden.clone(), params.channels.clone());
        Self { family: params.model, features, classes, hidden, channels, dropout: params.dropout }
    }

    /// Returns the layers from input to output.
    fn layers(&self) -> Result<Vec<Layer>, OpError> {
        let mut layers = Vec::new();
        let mut width = length(self.features);
        if self.family == Family::Cnn {
            let mut side = length(self.features.isqrt());
            if side * side != width {
                let what = format!("a CNN needs square images, but a row has {width} features");
                return Err(OpError::unfit(what, "choose model = \"mlp\""));
            }
            let mut inputs = 1;
            for (index, outputs) in self.channels.iter().enumerate() {
                let pool = index > 0;
                side = if pool { side / 2 } else { side };
                layers.push(Layer::Convolution { inputs, outputs: *outputs, pool });
                inputs = *outputs;
            }
            width = inputs * side * side;
            if width == 0 {
                let what = format!("{} convolutions halve the image to nothing", self.channels.len());
                return Err(OpError::unfit(what, "give fewer `channels`"));
            }
        }
        let hidden: &[i64] = if self.family == Family::Logistic { &[] } else { &self.hidden };
        for outputs in hidden.iter().copied().chain([length(self.classes)]) {
            layers.push(Layer::Linear { inputs: width, outputs });
            width = outputs;
        }
        Ok(layers)
    }
}

/// An architecture with its weights.
#[derive(Debug)]
pub(crate) struct Network {
    layers: Vec<Layer>,
    side: i64,
    dropout: f64,
    /// Weight and bias of each layer in turn, f32.
    pub(crate) weights: Vec<Tensor>,
}

impl Network {
    /// Draws the weights as `torch.nn` does: uniform within 1/√(inputs of a unit). Drawn on the CPU, so that every
    /// device starts from the same.
    pub(crate) fn random(architecture: &Architecture, device: Device) -> Result<Self, OpError> {
        Self::with(architecture, |_, shape, inputs| {
            #[expect(clippy::cast_precision_loss, reason = "a unit has fewer than 2^52 inputs")]
            let bound = 1.0 / (inputs as f64).sqrt();
            let mut weight = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
            Ok(weight.f_uniform_(-bound, bound)?.f_to_device(device)?)
        })
    }

    /// Lays out weights that `weight` gives by name, shape and number of inputs of a unit.
    pub(crate) fn with(
        architecture: &Architecture,
        mut weight: impl FnMut(&str, &[i64], i64) -> Result<Tensor, OpError>,
    ) -> Result<Self, OpError> {
        let layers = architecture.layers()?;
        let mut weights = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let (shape, inputs) = match *layer {
                Layer::Convolution { inputs, outputs, .. } => (vec![outputs, inputs, 3, 3], inputs * 9),
                Layer::Linear { inputs, outputs } => (vec![outputs, inputs], inputs),
            };
            weights.push(weight(&format!("{index}.weight"), &shape, inputs)?);
            weights.push(weight(&format!("{index}.bias"), &shape[..1], inputs)?);
        }
        Ok(Self { layers, side: length(architecture.features.isqrt()), dropout: architecture.dropout, weights })
    }

    /// Returns the name of each weight, in the order of `weights`.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.layers.len()).flat_map(|index| [format!("{index}.weight"), format!("{index}.bias")])
    }

    /// Returns the logits `[rows, classes]` of features `[rows, features]`; drops units only while `training`.
    pub(crate) fn forward(&self, x: &Tensor, training: bool) -> Result<Tensor, TchError> {
        let mut x = x.shallow_clone();
        let last = self.layers.len() - 1;
        for (index, layer) in self.layers.iter().enumerate() {
            let (weight, bias) = (&self.weights[2 * index], &self.weights[2 * index + 1]);
            x = match *layer {
                Layer::Convolution { pool, .. } => {
                    let images = if index == 0 { x.f_view([-1, 1, self.side, self.side])? } else { x };
                    let maps = convolve(&images, weight, bias)?.f_relu()?;
                    if pool { maps.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)? } else { maps }
                }
                Layer::Linear { .. } => {
                    let y = x.f_flatten(1, -1)?.f_linear(weight, Some(bias))?;
                    if index == last { y } else { y.f_relu()?.f_dropout(self.dropout, training)? }
                }
            };
        }
        Ok(x)
    }
}

/// A 3×3 convolution without cuDNN, whose fastest kernels add in an order that differs from run to run: the same seed
/// must give the same weights.
fn convolve(images: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, TchError> {
    let (stride, padding, dilation) = ([1, 1], [1, 1], [1, 1]);
    let (transposed, groups, benchmark, deterministic, cudnn, tf32) = (false, 1, false, true, false, false);
    images.f_internal_convolution(
        weight,
        Some(bias),
        stride,
        padding,
        dilation,
        transposed,
        [0, 0],
        groups,
        benchmark,
        deterministic,
        cudnn,
        tf32,
    )
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture(family: Family, features: usize) -> Architecture {
        Architecture { family, features, classes: 3, hidden: vec![5], channels: vec![2, 4], dropout: 0.0 }
    }

    #[test]
    fn every_family_gives_one_logit_a_class() {
        for family in [Family::Logistic, Family::Mlp, Family::Cnn] {
            let network = Network::random(&architecture(family, 64), Device::Cpu).unwrap();
            let x = Tensor::zeros([7, 64], (Kind::Float, Device::Cpu));
            assert_eq!(network.forward(&x, false).unwrap().size(), [7, 3], "{family:?}");
        }
    }

    #[test]
    fn the_convolution_is_the_one_of_the_textbook() {
        let image = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).view([1, 1, 2, 2]);
        let weight = Tensor::from_slice(&[0.0f32, 0.0, 0.0, 0.0, 1.0, 10.0, 0.0, 100.0, 0.0]).view([1, 1, 3, 3]);
        let bias = Tensor::from_slice(&[0.5f32]);
        let out: Vec<f32> = Vec::try_from(convolve(&image, &weight, &bias).unwrap().view(-1)).unwrap();
        assert_eq!(out, [321.5, 402.5, 43.5, 4.5]);
    }

    #[test]
    fn an_image_that_is_not_square_or_too_small_is_refused() {
        let error = architecture(Family::Cnn, 65).layers().unwrap_err().to_string();
        assert!(error.contains("square images") && error.contains("65"), "{error}");
        let error = architecture(Family::Cnn, 1).layers().unwrap_err().to_string();
        assert!(error.contains("fewer `channels`"), "{error}");
    }
}
