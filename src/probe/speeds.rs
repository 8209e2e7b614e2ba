//! Speeds that were measured on this machine, by the device's UUID: they go before those of the table of models.
//!
//! One list per user and host. A device that is not in it is as fast as its model is known to be.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cuda::Pace;
use crate::units::Speed;

/// NVIDIA's data sheet of the H100 SXM, the device of speed 1: 66.9 TFLOP/s of 32-bit floats outside the tensor cores,
/// two for each fused multiply-add, and 3.35 TB/s. Nothing reaches its data sheet, so a measured H100 is a little below 1;
/// measured devices are compared with each other rightly.
const REFERENCE: Pace = Pace { mega_fmas: 33_450_000, megabytes: 3_350_000 };

/// Returns the speed of a device of this pace: the geometric mean of arithmetic and memory, each by the reference's.
/// Half of a training's time is bound by the one and half by the other, as far as nobody knows better.
#[must_use]
pub fn speed(pace: Pace) -> Speed {
    let part = |measured: u64, of: u64| u128::from(measured) * u128::from(Speed::ONE.0) / u128::from(of);
    let product = part(pace.mega_fmas, REFERENCE.mega_fmas) * part(pace.megabytes, REFERENCE.megabytes);
    Speed(u64::try_from(product.isqrt()).unwrap_or(u64::MAX).clamp(SLOWEST, FASTEST))
}

/// Returns what to remember of devices that were measured, each with its model. Those of one model that differ by less
/// than a twentieth are as fast as the slowest of them: a plan that takes such differences for real would be no better,
/// and no device would be like another one.
#[must_use]
pub fn alike(paces: &[(&str, Pace)]) -> Vec<Measured> {
    let measured: Vec<Measured> = paces.iter().map(|(_, pace)| Measured::from(*pace)).collect();
    let of_model = |model: &str| -> Vec<Speed> {
        let same = paces.iter().zip(&measured).filter(|((other, _), _)| *other == model);
        same.map(|(_, measured)| measured.speed).collect()
    };
    let evened = paces.iter().zip(&measured).map(|((model, _), own)| {
        let same = of_model(model);
        let (least, most) = (same.iter().copied().min(), same.iter().copied().max());
        let close = least.zip(most).filter(|(least, most)| most.0 - least.0 < least.0 / 20);
        Measured { speed: close.map_or(own.speed, |(least, _)| least), ..*own }
    });
    evened.collect()
}

/// The bounds of speeds in a fleet file.
const SLOWEST: u64 = 1_000;
const FASTEST: u64 = 1_000_000_000_000;

/// The list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List(PathBuf);

/// What was measured of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Its speed.
    pub speed: Speed,
    /// Fused multiply-adds of 32-bit floats in a second, in millions.
    pub mega_fmas: u64,
    /// Bytes read and written in a second while copying within its memory, in millions.
    pub megabytes: u64,
}

impl From<Pace> for Measured {
    fn from(pace: Pace) -> Self {
        Self { speed: speed(pace), mega_fmas: pace.mega_fmas, megabytes: pace.megabytes }
    }
}

impl List {
    /// Returns the list in a file, which need not exist.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns what was measured, by UUID. A list that cannot be read is said and taken to be empty.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, Measured> {
        let read = match fs::read(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
        };
        read.unwrap_or_else(|error: io::Error| {
            tracing::warn!(path = %self.0.display(), %error, "the measured speeds of devices cannot be read");
            BTreeMap::new()
        })
    }

    /// Remembers what was measured of some devices, beside what is known of others.
    ///
    /// # Errors
    /// Where the list cannot be written.
    pub fn remember(&self, measured: BTreeMap<String, Measured>) -> io::Result<()> {
        fs::create_dir_all(self.0.parent().ok_or(io::ErrorKind::NotFound)?)?;
        let mut all = self.read();
        all.extend(measured);
        let draft = self.0.with_extension(format!("{}-draft", std::process::id()));
        fs::write(&draft, serde_json::to_vec_pretty(&all)?)?;
        fs::rename(draft, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_the_mean_of_arithmetic_and_memory_by_the_reference() {
        assert_eq!(speed(REFERENCE), Speed::ONE);
        let half = Pace { mega_fmas: REFERENCE.mega_fmas / 4, megabytes: REFERENCE.megabytes };
        assert_eq!(speed(half), Speed(500_000));
        assert_eq!(speed(Pace { mega_fmas: 0, megabytes: 1 }), Speed(SLOWEST), "no device stands still");
        assert_eq!(speed(Pace { mega_fmas: u64::MAX, megabytes: u64::MAX }), Speed(FASTEST));
    }

    #[test]
    fn cards_of_one_model_that_hardly_differ_are_equally_fast() {
        let pace = |percent: u64| Pace {
            mega_fmas: REFERENCE.mega_fmas * percent / 100,
            megabytes: REFERENCE.megabytes * percent / 100,
        };
        let speeds = |paces: &[(&str, Pace)]| alike(paces).iter().map(|one| one.speed.0 / 10_000).collect::<Vec<_>>();
        assert_eq!(speeds(&[("A", pace(90)), ("A", pace(93)), ("B", pace(91))]), [90, 90, 91]);
        assert_eq!(speeds(&[("A", pace(90)), ("A", pace(70))]), [90, 70], "one of them is ill, or another card");
    }

    #[test]
    fn what_was_measured_is_remembered_by_uuid() {
        let dir = tempfile::tempdir().unwrap();
        let list = List::new(dir.path().join("state/speeds.json"));
        assert!(list.read().is_empty());
        let measured = |mega_fmas| Measured::from(Pace { mega_fmas, megabytes: 1_000_000 });
        list.remember([("GPU-1".to_owned(), measured(1_000_000)), ("GPU-2".to_owned(), measured(2_000_000))].into())
            .unwrap();
        list.remember([("GPU-1".to_owned(), measured(3_000_000))].into()).unwrap();
        let read = list.read();
        assert_eq!((read["GPU-1"], read["GPU-2"]), (measured(3_000_000), measured(2_000_000)));
        fs::write(&list.0, "no list").unwrap();
        assert!(list.read().is_empty());
    }
}
