//! `torch.train`: epochs of mini-batches, until they are done or held-out rows stop gaining.
//!
//! The random numbers of an epoch follow from the seed and its number alone, so that a training resumed from a
//! checkpoint ends with the same bytes as one that was never interrupted. The data is held on the device whole.

use std::path::{Path, PathBuf};

use tch::{Device, Kind, TchError, Tensor};

use crate::checkpoint::{self, Best, Identity, State};
use crate::dataset::Dataset;
use crate::error::{OpError, Place};
use crate::model::Model;
use crate::network::{Architecture, Network};
use crate::optimizer::Optimizer;
use crate::params::Train;
use crate::progress::{Progress, Score};
use crate::split::split;
use crate::surroundings::Surroundings;
use crate::tensor;

/// Trains on the first input and writes the model.
pub(crate) fn run(params: &Train, inputs: &[PathBuf], output: &Path, around: &Surroundings) -> Result<(), OpError> {
    let (train, watch) = read(params, inputs)?;
    let architecture = Architecture::new(params, train.features, train.classes.len());
    let data = fingerprint([Some(&train), watch.as_ref()].into_iter().flatten());
    let identity = Identity { params: params.clone(), architecture: architecture.clone(), data };
    let device = around.device();
    let rows = (Rows::new(&train, device)?, watch.as_ref().map(|watch| Rows::new(watch, device)).transpose()?);

    tch::manual_seed(mix(params.seed, 0));
    let mut state = State::new(params, &architecture, device)?;
    let checkpoint = around.checkpoints.as_deref().map(checkpoint::file);
    let resumed = checkpoint.as_ref().and_then(|path| checkpoint::restore(path, &identity, &mut state, device));
    if let Some(epoch) = resumed {
        println!("resumed after epoch {epoch}");
    }
    let mut progress = Progress::new(around);
    while state.goes_on(params) {
        let trained = state.train_epoch(params, &rows.0)?;
        let watched = rows.1.as_ref().map(|rows| state.watch(params, rows)).transpose()?;
        progress.epoch(state.epoch, params.epochs, trained, watched);
        if let Some(path) = &checkpoint {
            checkpoint::save(path, &identity, &state)?;
        }
    }
    let epochs = state.epoch;
    let network = state.finish();
    Model { architecture, classes: train.classes, params: params.clone(), epochs, network }.write(output)
}

/// Reads the training set, and the rows to watch: the second input, or rows held out of the first.
fn read(params: &Train, inputs: &[PathBuf]) -> Result<(Dataset, Option<Dataset>), OpError> {
    let set = Dataset::read(&inputs[0])?;
    let whole = |what: String, help: &str| Err(OpError::input(Place::file(&inputs[0]), what, help));
    let Some(y) = &set.y else {
        return whole("its rows have no class".to_owned(), "read it with a `label` other than `none`");
    };
    if set.classes.len() < 2 {
        return whole("all rows are of one class".to_owned(), "check `label`");
    }
    if let Some(path) = inputs.get(1) {
        let mut watch = Dataset::read(path)?;
        watch.check_features(set.features, "the training set", path)?;
        watch.y = Some(watch.labels_in(&set.classes, path)?);
        watch.classes.clone_from(&set.classes);
        return Ok((set, Some(watch)));
    }
    if params.patience.is_none() {
        return Ok((set, None));
    }
    let (kept, held) = split(set.rows(), Some(y), params.validation, params.seed);
    if kept.is_empty() || held.is_empty() {
        return whole(format!("too few rows to hold {} of them out", params.validation), "leave `patience` out");
    }
    Ok((set.select(&kept), Some(set.select(&held))))
}

/// A data set on the device.
struct Rows {
    /// f32 `[rows, features]`
    x: Tensor,
    /// i64 `[rows]`
    y: Tensor,
    count: i64,
}

impl Rows {
    fn new(set: &Dataset, device: Device) -> Result<Self, OpError> {
        let y = tensor::classes(set.y.as_deref().unwrap_or_default(), device)?;
        let count = i64::try_from(set.rows()).unwrap_or(i64::MAX);
        Ok(Self { x: tensor::features(set, device)?, y, count })
    }
}

/// Sums over rows, kept on the device so that a step does not wait for the last one.
struct Tally {
    loss: Tensor,
    correct: Tensor,
}

impl Tally {
    fn new(device: Device) -> Result<Self, TchError> {
        let zero = || Tensor::f_zeros([], (Kind::Double, device));
        Ok(Self { loss: zero()?, correct: zero()? })
    }

    fn add(&mut self, loss: &Tensor, logits: &Tensor, y: &Tensor) -> Result<(), TchError> {
        #[expect(clippy::cast_precision_loss, reason = "a batch has fewer than 2^52 rows")]
        let rows = y.size()[0] as f64;
        let _ = self.loss.f_add_(&loss.f_detach()?.f_to_kind(Kind::Double)?.f_mul_scalar(rows)?)?;
        let _ = self.correct.f_add_(&logits.f_detach()?.f_argmax(-1, false)?.f_eq_tensor(y)?.f_sum(Kind::Double)?)?;
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "rows are fewer than 2^52")]
    fn score(&self, rows: i64) -> Result<Score, TchError> {
        let mean = |sum: &Tensor| Ok::<_, TchError>(sum.f_double_value(&[])? / rows as f64);
        Ok(Score { loss: mean(&self.loss)?, accuracy: mean(&self.correct)? })
    }
}

impl State {
    fn new(params: &Train, architecture: &Architecture, device: Device) -> Result<Self, OpError> {
        let network = Network::random(architecture, device)?;
        for weight in &network.weights {
            let _ = weight.f_set_requires_grad(true)?;
        }
        let optimizer = Optimizer::new(params, &network.weights)?;
        Ok(Self { epoch: 0, network, optimizer, best: None })
    }

    fn goes_on(&self, params: &Train) -> bool {
        let stale = self.best.as_ref().map(|best| self.epoch - best.epoch);
        self.epoch < params.epochs && params.patience.is_none_or(|patience| stale.unwrap_or(0) < patience)
    }

    /// Goes over all rows once, in an order drawn for this epoch.
    fn train_epoch(&mut self, params: &Train, rows: &Rows) -> Result<Score, OpError> {
        self.epoch += 1;
        let device = rows.x.device();
        tch::manual_seed(mix(params.seed, self.epoch));
        let order = Tensor::f_randperm(rows.count, (Kind::Int64, Device::Cpu))?.f_to_device(device)?;
        let mut tally = Tally::new(device)?;
        for start in (0..rows.count).step_by(usize::try_from(params.batch_size).unwrap_or(1)) {
            let batch = order.f_narrow(0, start, params.batch_size.min(rows.count - start))?;
            let (x, y) = (rows.x.f_index_select(0, &batch)?, rows.y.f_index_select(0, &batch)?);
            let logits = self.network.forward(&x, true)?;
            let loss = cross_entropy(&logits, &y)?;
            let gradients = Tensor::f_run_backward(&[&loss], &self.network.weights, false, false)?;
            self.optimizer.step(&mut self.network.weights, &gradients)?;
            tally.add(&loss, &logits, &y)?;
        }
        let score = tally.score(rows.count)?;
        if score.loss.is_finite() {
            return Ok(score);
        }
        let what = format!("training diverged: the loss is {} in epoch {}", score.loss, self.epoch);
        Err(OpError::unfit(what, format!("lower `lr` (it is {}) or standardize the features", params.lr)))
    }

    /// Measures held-out rows, and keeps the weights if they are the best so far.
    fn watch(&mut self, params: &Train, rows: &Rows) -> Result<Score, OpError> {
        let _no_grad = tch::no_grad_guard();
        let mut tally = Tally::new(rows.x.device())?;
        for start in (0..rows.count).step_by(usize::try_from(params.batch_size).unwrap_or(1)) {
            let length = params.batch_size.min(rows.count - start);
            let (x, y) = (rows.x.f_narrow(0, start, length)?, rows.y.f_narrow(0, start, length)?);
            let logits = self.network.forward(&x, false)?;
            tally.add(&cross_entropy(&logits, &y)?, &logits, &y)?;
        }
        let score = tally.score(rows.count)?;
        if self.best.as_ref().is_none_or(|best| score.loss < best.loss) {
            let weights = tensor::copies(&self.network.weights)?;
            self.best = Some(Best { epoch: self.epoch, loss: score.loss, weights });
        }
        Ok(score)
    }

    /// Returns the network with the best weights where rows were watched, else with the last.
    fn finish(mut self) -> Network {
        if let Some(best) = self.best {
            self.network.weights = best.weights;
        }
        self.network
    }
}

fn cross_entropy(logits: &Tensor, y: &Tensor) -> Result<Tensor, TchError> {
    logits.f_cross_entropy_loss::<Tensor>(y, None, tch::Reduction::Mean, -100, 0.0)
}

/// Returns the seed of an epoch: the user's seed and the epoch's number, stirred so that seeds 1 and 2 share no epoch.
fn mix(seed: u64, epoch: u64) -> i64 {
    let stirred = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31);
    (stirred ^ epoch).wrapping_mul(0x94d0_49bb_1331_11eb).cast_signed()
}

/// Returns a hash of the data (FNV-1a, 64 bits), by which a checkpoint knows what it was learned from.
fn fingerprint<'a>(sets: impl Iterator<Item = &'a Dataset>) -> u64 {
    let stir = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3);
    sets.fold(0xcbf2_9ce4_8422_2325, |hash, set| {
        let hash = set.x.iter().fold(hash, |hash, value| stir(hash, u64::from(value.to_bits())));
        set.y.iter().flatten().fold(stir(hash, set.features as u64), |hash, class| stir(hash, class.cast_unsigned()))
    })
}
