//! How gradients change weights: SGD with momentum, and Adam.
//!
//! libtorch's own optimizers do not show their state through `tch`, and a training that is resumed must continue from
//! it. The rules equal those of `torch.optim`; a test compares them.

use tch::{TchError, Tensor};

use crate::params::{Rule, Train};

/// A rule and what it remembers.
#[derive(Debug)]
pub(crate) struct Optimizer {
    rule: Rule,
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    /// Steps taken.
    pub(crate) steps: u64,
    /// For each weight: the momentum (SGD), or the first and then the second moment (Adam).
    pub(crate) memory: Vec<Tensor>,
}

impl Optimizer {
    /// Starts with an empty memory.
    pub(crate) fn new(params: &Train, weights: &[Tensor]) -> Result<Self, TchError> {
        let copies = match params.optimizer {
            Rule::Sgd => 1,
            Rule::Adam => 2,
        };
        let each = weights.iter().flat_map(|weight| std::iter::repeat_n(weight, copies));
        let memory = each.map(|weight| weight.f_detach()?.f_zeros_like()).collect::<Result<_, _>>()?;
        let Train { lr, momentum, weight_decay, .. } = *params;
        Ok(Self { rule: params.optimizer, lr, momentum, weight_decay, steps: 0, memory })
    }

    /// Takes one step.
    pub(crate) fn step(&mut self, weights: &mut [Tensor], gradients: &[Tensor]) -> Result<(), TchError> {
        self.steps += 1;
        let _no_grad = tch::no_grad_guard();
        let copies = self.memory.len() / weights.len().max(1);
        for ((weight, gradient), memory) in weights.iter_mut().zip(gradients).zip(self.memory.chunks_mut(copies)) {
            let gradient = gradient.f_add(&weight.f_mul_scalar(self.weight_decay)?)?;
            let step = match (self.rule, memory) {
                (Rule::Adam, [first, second]) => adam(first, second, &gradient, self.steps)?,
                (Rule::Adam | Rule::Sgd, memory) => {
                    // v ← μ v + g
                    let velocity = &mut memory[0];
                    velocity.f_mul_scalar_(self.momentum)?.f_add_(&gradient)?
                }
            };
            let _ = weight.f_sub_(&step.f_mul_scalar(self.lr)?)?;
        }
        Ok(())
    }
}

/// Kingma and Ba, 2015, algorithm 1, with its β₁ = 0.9, β₂ = 0.999, ε = 1e-8. Returns m̂ / (√v̂ + ε).
fn adam(first: &mut Tensor, second: &mut Tensor, gradient: &Tensor, step: u64) -> Result<Tensor, TchError> {
    const BETA1: f64 = 0.9;
    const BETA2: f64 = 0.999;
    const EPSILON: f64 = 1e-8;
    let step = i32::try_from(step).unwrap_or(i32::MAX);
    let _ = first.f_mul_scalar_(BETA1)?.f_add_(&gradient.f_mul_scalar(1.0 - BETA1)?)?;
    let _ = second.f_mul_scalar_(BETA2)?.f_add_(&gradient.f_square()?.f_mul_scalar(1.0 - BETA2)?)?;
    let root = second.f_div_scalar(1.0 - BETA2.powi(step))?.f_sqrt()?.f_add_scalar(EPSILON)?;
    first.f_div_scalar(1.0 - BETA1.powi(step))?.f_div(&root)
}

#[cfg(test)]
mod tests {
    use tch::nn::{self, OptimizerConfig};
    use tch::{Device, Kind};

    use super::*;
    use crate::params::Family;

    fn params(optimizer: Rule) -> Train {
        Train {
            model: Family::Logistic,
            hidden: Vec::new(),
            channels: Vec::new(),
            dropout: 0.0,
            optimizer,
            lr: 0.05,
            momentum: 0.9,
            weight_decay: 0.01,
            epochs: 1,
            batch_size: 1,
            patience: None,
            validation: 0.1,
            seed: 0,
        }
    }

    /// Descends on ‖w − target‖² beside an optimizer of libtorch, and compares after every step.
    fn equals_torch(rule: Rule) {
        let store = nn::VarStore::new(Device::Cpu);
        let theirs = store.root().zeros("w", &[4]);
        let mut oracle = match rule {
            Rule::Sgd => nn::Sgd { momentum: 0.9, dampening: 0.0, wd: 0.01, nesterov: false }.build(&store, 0.05),
            Rule::Adam => nn::Adam { wd: 0.01, ..nn::Adam::default() }.build(&store, 0.05),
        }
        .unwrap();
        let target = Tensor::from_slice(&[1.0f32, -2.0, 0.5, 30.0]);
        let mut ours = vec![Tensor::zeros([4], (Kind::Float, Device::Cpu))];
        let mut optimizer = Optimizer::new(&params(rule), &ours).unwrap();
        for step in 0..50 {
            oracle.backward_step(&(&theirs - &target).square().sum(Kind::Float));
            let gradient = (&ours[0] - &target) * 2.0;
            optimizer.step(&mut ours, &[gradient]).unwrap();
            assert!(theirs.allclose(&ours[0], 1e-5, 1e-6, false), "{rule:?}, step {step}");
        }
    }

    #[test]
    fn sgd_and_adam_step_as_torch_does() {
        equals_torch(Rule::Sgd);
        equals_torch(Rule::Adam);
    }
}
