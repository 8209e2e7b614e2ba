//! Figures of a run as TensorBoard's event files: one for each attempt that reported any.
//!
//! Pure. A file is a sequence of TFRecords (TensorFlow, "TFRecord and tf.train.Example"), each an `Event` message
//! (`tensorflow/core/util/event.proto`): the first names the version of the format, each other one holds a scalar. Only
//! the few fields that are needed are written, so no code generator is.

use std::path::PathBuf;

use super::json::Header;
use crate::progress::record::Record;
use crate::progress::series::Series;
use crate::run::launch;
use crate::run::state::RunState;
use crate::units::Millis;

/// What every reader of event files knows.
const VERSION: &[u8] = b"brain.Event:2";

/// Returns the event files of a run, with their paths below the folder that `tensorboard --logdir` is given. `heard` says
/// what is known of the progress of an attempt, by the task's name and the attempt's number.
#[must_use]
pub fn files(
    header: &Header<'_>,
    names: &[String],
    state: &RunState,
    heard: impl Fn(&str, u32) -> Option<Record>,
) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for (name, task) in names.iter().zip(&state.tasks) {
        for (number, attempt) in (1_u32..).zip(&task.attempts) {
            let series = heard(name, number).map(|record| record.series).unwrap_or_default();
            if series.is_empty() {
                continue;
            }
            // TensorBoard calls the folder a run; its own order is that of names.
            let folder = match number {
                1 => launch::file_name(name),
                number => format!("{}.{number}", launch::file_name(name)),
            };
            let file = format!("events.out.tfevents.{:010}.trainyard", attempt.started.0 / 1_000);
            files.push((PathBuf::from(header.run).join(folder).join(file), events(attempt.started, &series)));
        }
    }
    files
}

/// Returns an event file: all points in the order in which they were heard of. `started` is in ms since the Unix epoch.
#[must_use]
pub fn events(started: Millis, series: &[Series]) -> Vec<u8> {
    let mut points: Vec<(u64, i64, &str, f64)> = Vec::new();
    for series in series {
        let steps = steps(series);
        let values = series.ms.iter().zip(steps).zip(&series.value);
        points.extend(values.map(|((ms, step), value)| (*ms, step, series.name.as_str(), *value)));
    }
    points.sort_by_key(|(ms, step, ..)| (*ms, *step));
    let mut file = Vec::new();
    let wall = |ms: u64| (started.0 + ms) as f64 / 1_000.0;
    let mut version = Vec::new();
    fixed64(&mut version, 1, wall(0).to_bits());
    bytes(&mut version, 3, VERSION);
    record(&mut file, &version);
    for (ms, step, name, value) in points {
        let mut scalar = Vec::new();
        bytes(&mut scalar, 1, name.as_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "scalars are 32-bit in this format")]
        fixed32(&mut scalar, 2, (value as f32).to_bits());
        let mut summary = Vec::new();
        bytes(&mut summary, 1, &scalar);
        let mut event = Vec::new();
        fixed64(&mut event, 1, wall(ms).to_bits());
        varint(&mut event, 2 << 3);
        varint(&mut event, step.unsigned_abs());
        bytes(&mut event, 5, &summary);
        record(&mut file, &event);
    }
    file
}

/// Returns the step of each point: what the program said where those are whole numbers that rise, otherwise how many
/// points were before it.
fn steps(series: &Series) -> Vec<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    let whole = |step: &Option<f64>| {
        step.filter(|step| step.fract() == 0.0 && (0.0..9e15).contains(step)).map(|step| step as i64)
    };
    let said: Option<Vec<i64>> = series.step.iter().map(whole).collect();
    let rises = |steps: &Vec<i64>| steps.windows(2).all(|pair| pair[0] < pair[1]);
    said.filter(rises).unwrap_or_else(|| (0_i64..).take(series.value.len()).collect())
}

/// Appends a TFRecord: the length and the data, each with its checksum.
fn record(file: &mut Vec<u8>, data: &[u8]) {
    let length = (data.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(data);
    file.extend(masked(crc32c(data)).to_le_bytes());
}

/// Returns a checksum as TFRecords hold it: turned, so that the sum of data that holds sums stays good.
const fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Returns the CRC-32C (Castagnoli) of `data`, RFC 3720 appendix B.4.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = table();
    !data.iter().fold(!0, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

// Protocol Buffers, "Encoding": a field is its number with its wire type, and its value.

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn fixed64(to: &mut Vec<u8>, field: u64, bits: u64) {
    varint(to, field << 3 | 1);
    to.extend(bits.to_le_bytes());
}

fn fixed32(to: &mut Vec<u8>, field: u64, bits: u32) {
    varint(to, field << 3 | 5);
    to.extend(bits.to_le_bytes());
}

fn bytes(to: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(to, field << 3 | 2);
    varint(to, value.len() as u64);
    to.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::series::Book;

    /// Takes a file apart as a reader would, sums checked.
    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap());
            let sum = u32::from_le_bytes(file[8..12].try_into().unwrap());
            assert_eq!(sum, masked(crc32c(&file[..8])));
            let end = 12 + usize::try_from(length).unwrap();
            let data = &file[12..end];
            assert_eq!(u32::from_le_bytes(file[end..end + 4].try_into().unwrap()), masked(crc32c(data)));
            records.push(data.to_vec());
            file = &file[end + 4..];
        }
        records
    }

    #[test]
    fn sums_are_those_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeroes, of ones, ascending; and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_file_is_what_tensorboard_reads() {
        let mut book = Book::default();
        book.push("loss", 500, Some(1.0), 0.5);
        book.push("loss", 1_500, Some(300.0), 0.25);
        let records = records(&events(Millis(1_000_000), book.series()));
        let wall = |seconds: f64| [&[9_u8][..], &seconds.to_le_bytes()].concat();
        let scalar = |value: f32| [b"\x0a\x04loss\x15", &value.to_le_bytes()[..]].concat();
        let version = [&wall(1_000.0), &b"\x1a\x0dbrain.Event:2"[..]].concat();
        let first = [&wall(1_000.5), &b"\x10\x01\x2a\x0d\x0a\x0b"[..], &scalar(0.5)].concat();
        let second = [&wall(1_001.5), &b"\x10\xac\x02\x2a\x0d\x0a\x0b"[..], &scalar(0.25)].concat();
        assert_eq!(records, [version, first, second]);
    }

    #[test]
    fn steps_that_do_not_rise_are_counted() {
        let of = |steps: &[Option<f64>]| {
            let mut book = Book::default();
            steps.iter().for_each(|step| book.push("loss", 0, *step, 1.0));
            super::steps(&book.series()[0])
        };
        assert_eq!(of(&[Some(10.0), Some(20.0)]), [10, 20]);
        assert_eq!(of(&[Some(0.5), Some(1.0)]), [0, 1]);
        assert_eq!(of(&[Some(1.0), Some(1.0), None]), [0, 1, 2]);
        assert_eq!(of(&[Some(-1.0), Some(1e300)]), [0, 1]);
    }
}
