//! How much of a device's memory no task may count on: room for CUDA contexts, and for what the driver takes as it runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::spec::decode::Quantity;
use crate::units::{Bytes, ParseUnitError};

/// A size, a part of the device, or both together: `512MiB+2%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    size: Bytes,
    /// Of the device's memory, in millionths.
    part: u32,
}

/// What a CUDA context takes on a device before the first tensor: 300 to 520 MiB were seen from CUDA 11 to 13.
pub const CONTEXT: Bytes = Bytes(512 << 20);

impl Default for Headroom {
    /// A CUDA context, and 2 %.
    fn default() -> Self {
        Self { size: CONTEXT, part: 20_000 }
    }
}

impl Headroom {
    /// Returns it for a device of so much memory: at most all of that.
    #[must_use]
    pub fn of(self, total: Bytes) -> Bytes {
        let part = u128::from(total.0) * u128::from(self.part) / 1_000_000;
        (self.size + Bytes(u64::try_from(part).unwrap_or(u64::MAX))).min(total)
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = f64::from(self.part) / 10_000.0;
        match (self.size, self.part) {
            (size, 0) => write!(f, "{size}"),
            (Bytes::ZERO, _) => write!(f, "{percent}%"),
            (size, _) => write!(f, "{size}+{percent}%"),
        }
    }
}

/// Why a text is no headroom.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadroomError {
    /// A size that is none.
    #[error("{0}; write a size, a part, or both, like \"1GiB\", \"2%\" or \"512MiB+2%\"")]
    Size(ParseUnitError),
    /// A part that is none.
    #[error("`{0}` is not a part of a device: write a number from 0 to 100 with at most four decimals, like \"2.5%\"")]
    Part(String),
}

impl FromStr for Headroom {
    type Err = HeadroomError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == "0" {
            return Ok(Self { size: Bytes::ZERO, part: 0 });
        }
        let size = |text: &str| text.trim().parse::<Bytes>().map_err(HeadroomError::Size);
        let Some(before) = text.trim().strip_suffix('%') else { return Ok(Self { size: size(text)?, part: 0 }) };
        let (size, percent) = match before.split_once('+') {
            Some((first, percent)) => (size(first)?, percent),
            None => (Bytes::ZERO, before),
        };
        let part = millionths(percent.trim()).ok_or_else(|| HeadroomError::Part(format!("{}%", percent.trim())))?;
        Ok(Self { size, part })
    }
}

/// Reads a percentage exactly.
fn millionths(percent: &str) -> Option<u32> {
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 4 || !digits(whole) || !digits(decimals) {
        return None;
    }
    let part = format!("{whole}{decimals:0<4}").parse::<u32>().ok()?;
    (part <= 1_000_000).then_some(part)
}

impl Quantity for Headroom {
    const NAME: &'static str = "a headroom";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_a_part_or_both() {
        let of = |text: &str| text.parse::<Headroom>().unwrap().of(Bytes(100 << 30));
        assert_eq!(of("1GiB"), Bytes::GIB);
        assert_eq!(of("2%"), Bytes(2 << 30));
        assert_eq!(of("512MiB + 2.5%"), Bytes((512 << 20) + (100 << 30) / 40));
        assert_eq!((of("0%"), of("0")), (Bytes::ZERO, Bytes::ZERO));
        assert_eq!(of("200GiB"), Bytes(100 << 30), "no device has less than nothing");
        assert_eq!("512MiB+2%".parse(), Ok(Headroom::default()));
        assert_eq!(Headroom::default().to_string(), "512.0 MiB+2%");
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in ["", "2", "%", "101%", "-1%", "1.00001%", "2%+1GiB", "1GB+", "1GiB+2", ".5%"] {
            assert!(wrong.parse::<Headroom>().is_err(), "{wrong}");
        }
    }
}
