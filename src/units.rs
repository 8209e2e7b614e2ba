//! Quantities whose unit is in the type: memory, time, shares, speeds, bandwidths.
//!
//! All of them are integers (fixed point where a fraction is meant), so that sums are exact, the order of additions
//! does not matter, and a CUDA kernel can be compared with the CPU by equality. Additions saturate: a total that does
//! not fit is "more than anything can hold", never a small number.
//!
//! This file does not know where a quantity comes from: reading `"6GiB"` and saying what is wrong with `"6 GiBs"` is
//! [`ParseUnitError`]'s business only as far as the text itself goes; spans are the spec's.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

/// An amount of memory or data, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A span of time, or an instant counted from the start of a plan or of the Unix epoch, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// A part of one device's compute, in millionths: three thirds written as `0.333333` still fit on one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(pub u32);

/// A number of CPUs, in thousandths: `cpus = 0.5` is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpus(pub u64);

/// How fast a device is relative to the one that durations are declared for: the `P` of `L = T / P`, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Speed(pub u64);

/// A transfer rate, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bandwidth(pub u64);

macro_rules! saturating {
    ($($unit:ident),*) => {$(
        impl $unit {
            /// The empty quantity.
            pub const ZERO: Self = Self(0);

            /// Returns `self - other`, or zero where `other` is larger.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Add for $unit {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
        }

        impl AddAssign for $unit {
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Sub for $unit {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
        }

        impl SubAssign for $unit {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl Sum for $unit {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }
    )*};
}

saturating!(Bytes, Millis, Share, Cpus);

impl Bytes {
    /// One GiB.
    pub const GIB: Self = Self(1 << 30);
    /// One MiB.
    pub const MIB: Self = Self(1 << 20);
}

impl Millis {
    /// The longest duration that a file may declare: ten years. 100,000 tasks of it on the slowest device that a
    /// fleet may declare still sum to less than `u64::MAX`.
    pub const LONGEST: Self = Self(10 * 365 * 24 * 3_600_000);

    /// Returns the same span for the standard library.
    #[must_use]
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl Share {
    /// A whole device.
    pub const WHOLE: Self = Self(1_000_000);

    /// Returns as large a part of something, rounded down.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a part of what fits")]
    pub const fn of(self, all: Bytes) -> Bytes {
        Bytes((all.0 as u128 * self.0 as u128 / Self::WHOLE.0 as u128) as u64)
    }
}

impl Cpus {
    /// One CPU.
    pub const ONE: Self = Self(1_000);
}

impl Default for Speed {
    fn default() -> Self {
        Self::ONE
    }
}

impl Speed {
    /// The speed that durations are declared for.
    pub const ONE: Self = Self(1_000_000);
    /// The slowest speed a fleet may declare: a thousandth.
    pub const SLOWEST: Self = Self(1_000);
    /// The fastest speed a fleet may declare: a million.
    pub const FASTEST: Self = Self(1_000_000_000_000);

    /// Returns `time / self`, rounded up to a whole millisecond: one entry of the load matrix `L = T / P`.
    ///
    /// A result that exceeds the range of [`Millis`] saturates.
    #[must_use]
    pub fn time_for(self, time: Millis) -> Millis {
        let speed = self.0.max(1);
        // Up to some centuries fit, and then it takes a tenth of the time.
        if let Some(scaled) = time.0.checked_mul(Self::ONE.0) {
            return Millis(scaled.div_ceil(speed));
        }
        let scaled = u128::from(time.0) * u128::from(Self::ONE.0);
        Millis(u64::try_from(scaled.div_ceil(u128::from(speed))).unwrap_or(u64::MAX))
    }
}

impl Bandwidth {
    /// Returns how long `data` takes, rounded up to a whole millisecond.
    #[must_use]
    pub fn time_for(self, data: Bytes) -> Millis {
        let scaled = u128::from(data.0) * 1_000;
        Millis(u64::try_from(scaled.div_ceil(u128::from(self.0.max(1)))).unwrap_or(u64::MAX))
    }
}

/// Why a text is not the quantity it should be. The message fits behind "this is not a memory size: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseUnitError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// No number where one was expected.
    #[error("`{0}` does not start with a number")]
    NoNumber(String),
    /// A minus sign.
    #[error("it is negative")]
    Negative,
    /// A number without its unit.
    #[error("the unit is missing: {0}")]
    NoUnit(&'static str),
    /// A unit that is not known.
    #[error("unknown unit `{unit}`: {known}")]
    UnknownUnit {
        /// What was written.
        unit: String,
        /// The units that are known, as a phrase.
        known: &'static str,
    },
    /// More than the type can hold or a file may ask for.
    #[error("it is too large: the most is {0}")]
    TooLarge(&'static str),
    /// A rate of less than a byte a second.
    #[error("it is less than 1 B/s, the slowest that can be said")]
    TooSlow,
    /// The parts of a duration are not in descending order or one is repeated.
    #[error("write larger units first and each once, like 1h30m")]
    Order,
}

const MEMORY_UNITS: &str = "write B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)";
const TIME_UNITS: &str = "write ms, s, m, h or d, like 250ms, 20s or 1h30m";

/// Splits a number (digits, with at most one decimal point) off the front of `text`.
/// Returns its digits, how many of them stand behind the point, and the rest.
fn split_number(text: &str) -> Result<(u128, u32, &str), ParseUnitError> {
    if text.starts_with('-') {
        return Err(ParseUnitError::Negative);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(ParseUnitError::NoNumber(text.to_owned()));
    }
    if digits.len() > 30 {
        return Err(ParseUnitError::TooLarge("30 digits"));
    }
    let digits = digits.parse().map_err(|_| ParseUnitError::NoNumber(text.to_owned()))?;
    Ok((digits, u32::try_from(fraction.len()).unwrap_or(u32::MAX), rest))
}

/// Returns `digits / 10^decimals * scale`, rounded as `divide` does, if it fits.
fn scaled(digits: u128, decimals: u32, scale: u128, divide: fn(u128, u128) -> u128) -> Option<u64> {
    let product = digits.checked_mul(scale)?;
    u64::try_from(divide(product, 10_u128.checked_pow(decimals)?)).ok()
}

/// The largest size that a file may name: 1 EiB.
const LARGEST: u64 = 1 << 60;

/// Splits a memory size: its digits, how many of them stand behind the point, and how many bytes its unit has.
fn split_size(text: &str) -> Result<(u128, u32, u128), ParseUnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(ParseUnitError::Empty);
    }
    let (digits, decimals, unit) = split_number(text)?;
    let scale: u128 = match unit.trim_start() {
        // Nothing is nothing in any unit.
        "" if digits == 0 => 1,
        "" => return Err(ParseUnitError::NoUnit(MEMORY_UNITS)),
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        unit => return Err(ParseUnitError::UnknownUnit { unit: unit.to_owned(), known: MEMORY_UNITS }),
    };
    Ok((digits, decimals, scale))
}

impl std::str::FromStr for Bytes {
    type Err = ParseUnitError;

    /// Reads `"6GiB"`, `"1.5 GB"`, `"512MiB"`, `"100B"`, `"0"`. `GB` and `GiB` are different.
    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let (digits, decimals, scale) = split_size(text)?;
        let bytes = scaled(digits, decimals, scale, u128::div_ceil).filter(|bytes| *bytes <= LARGEST);
        bytes.map(Self).ok_or(ParseUnitError::TooLarge("1 EiB"))
    }
}

impl std::str::FromStr for Bandwidth {
    type Err = ParseUnitError;

    /// Reads `"12GB/s"`: a memory size per second, rounded down to a whole byte.
    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        const KNOWN: &str = "write a size per second, like 12GB/s";
        let text = text.trim();
        let size = text.strip_suffix("/s").ok_or(ParseUnitError::NoUnit(KNOWN))?;
        let (digits, decimals, scale) = split_size(size)?;
        // Down: data must not be taken to arrive before it can.
        let rate = scaled(digits, decimals, scale, u128::div_euclid).filter(|rate| *rate <= LARGEST);
        match rate.ok_or(ParseUnitError::TooLarge("1 EiB a second"))? {
            0 if digits > 0 => Err(ParseUnitError::TooSlow),
            rate => Ok(Self(rate)),
        }
    }
}

impl std::str::FromStr for Millis {
    type Err = ParseUnitError;

    /// Reads `"1h30m"`, `"20s"`, `"250ms"`, `"1.5h"`, `"0"`; rounds up to a whole millisecond.
    fn from_str(text: &str) -> Result<Self, ParseUnitError> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(ParseUnitError::Empty);
        }
        let mut total = Self::ZERO;
        let mut last_scale = u128::MAX;
        while !rest.is_empty() {
            let (digits, decimals, tail) = split_number(rest)?;
            let tail = tail.trim_start();
            let end = tail.find(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let scale: u128 = match unit {
                "" if digits == 0 => 1,
                "" => return Err(ParseUnitError::NoUnit(TIME_UNITS)),
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                unit => return Err(ParseUnitError::UnknownUnit { unit: unit.to_owned(), known: TIME_UNITS }),
            };
            if scale >= last_scale {
                return Err(ParseUnitError::Order);
            }
            last_scale = scale;
            let part = scaled(digits, decimals, scale, u128::div_ceil).ok_or(ParseUnitError::TooLarge("ten years"))?;
            total += Self(part);
            rest = tail.trim_start();
        }
        if total > Self::LONGEST { Err(ParseUnitError::TooLarge("ten years")) } else { Ok(total) }
    }
}

impl fmt::Display for Bytes {
    /// Writes at most one decimal in the largest binary unit: `6.0 GiB`, `512 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

impl fmt::Display for Millis {
    /// Writes the two largest units that matter: `1h30m`, `20s`, `2.35s`, `250ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        let (d, h, m, s) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1_000 % 60);
        let text = match () {
            () if d > 0 => format!("{d}d{h:02}h"),
            () if h > 0 => format!("{h}h{m:02}m"),
            () if m > 0 => format!("{m}m{s:02}s"),
            () if ms < 1_000 => format!("{ms}ms"),
            () if ms.is_multiple_of(1_000) => format!("{s}s"),
            () => format!("{s}.{:02}s", ms % 1_000 / 10),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Share {
    /// Writes the part of a device as a decimal: `0.5`, `1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&decimal(u64::from(self.0), 6))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&decimal(self.0, 3))
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&decimal(self.0, 6))
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/s", Bytes(self.0)))
    }
}

/// Writes a fixed-point number without trailing zeros.
fn decimal(value: u64, places: u32) -> String {
    let one = 10_u64.pow(places);
    let text = format!("{}.{:0width$}", value / one, value % one, width = places as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gb_and_gib_differ() {
        assert_eq!("1GB".parse(), Ok(Bytes(1_000_000_000)));
        assert_eq!("1GiB".parse(), Ok(Bytes(1 << 30)));
        assert_eq!("1.5 KiB".parse(), Ok(Bytes(1536)));
    }

    #[test]
    fn a_size_without_unit_is_refused() {
        assert_eq!("6".parse::<Bytes>(), Err(ParseUnitError::NoUnit(MEMORY_UNITS)));
        assert_eq!("0".parse(), Ok(Bytes::ZERO));
        assert!(matches!("6gb".parse::<Bytes>(), Err(ParseUnitError::UnknownUnit { .. })));
        assert_eq!("-6GB".parse::<Bytes>(), Err(ParseUnitError::Negative));
        assert!(matches!("99999999999TiB".parse::<Bytes>(), Err(ParseUnitError::TooLarge(_))));
    }

    #[test]
    fn a_bandwidth_is_rounded_down_and_less_than_a_byte_a_second_is_refused() {
        assert_eq!("1.9B/s".parse(), Ok(Bandwidth(1)));
        assert_eq!("5.054 kB/s".parse(), Ok(Bandwidth(5_054)));
        assert_eq!("0.5B/s".parse::<Bandwidth>(), Err(ParseUnitError::TooSlow));
        assert_eq!("0B/s".parse(), Ok(Bandwidth(0)), "which a fleet refuses in its own words");
        assert_eq!("1.2B".parse(), Ok(Bytes(2)), "a need is rounded up");
        assert!(matches!("2000000TiB/s".parse::<Bandwidth>(), Err(ParseUnitError::TooLarge(_))));
    }

    #[test]
    fn durations_add_their_parts_and_round_up() {
        assert_eq!("1h30m".parse(), Ok(Millis(5_400_000)));
        assert_eq!("1h 30m".parse(), Ok(Millis(5_400_000)));
        assert_eq!("0.0001s".parse(), Ok(Millis(1)));
        assert_eq!("30m1h".parse::<Millis>(), Err(ParseUnitError::Order));
        assert_eq!("20".parse::<Millis>(), Err(ParseUnitError::NoUnit(TIME_UNITS)));
        assert_eq!("0".parse(), Ok(Millis::ZERO));
        assert!(matches!("4000d".parse::<Millis>(), Err(ParseUnitError::TooLarge(_))));
    }

    #[test]
    fn a_duration_reads_back_what_it_shows() {
        for text in ["250ms", "20s", "1m30s", "1h30m", "2d03h"] {
            let shown = text.parse::<Millis>().map(|ms| ms.to_string());
            assert_eq!(shown.as_deref(), Ok(text));
        }
    }

    #[test]
    fn load_is_time_over_speed_rounded_up() {
        assert_eq!(Speed(3_000_000).time_for(Millis(10)), Millis(4));
        assert_eq!(Speed::ONE.time_for(Millis(10)), Millis(10));
        assert_eq!(Bandwidth(1_000_000_000).time_for(Bytes(1)), Millis(1));
    }

    #[test]
    fn sizes_are_shown_in_the_unit_a_person_would_choose() {
        assert_eq!(Bytes(1 << 30).to_string(), "1.0 GiB");
        assert_eq!(Bytes((1 << 30) - 1).to_string(), "1.0 GiB");
        assert_eq!(Bytes(512).to_string(), "512 B");
    }
}
