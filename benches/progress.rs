//! How fast output is read for progress, beside a plain search for line ends over the same bytes.
//!
//! `cargo bench --bench progress` prints MB/s of each, the best of several rounds that alternate, and their ratio.

#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::time::{Duration, Instant};

use trainyard::progress::Reader;

/// What is read in one round, in bytes.
const AMOUNT: usize = 64 << 20;
/// As the engine reads a pipe.
const PIECE: usize = 16 << 10;
const ROUNDS: u32 = 7;

/// Lines of a service that tells no progress.
const PLAIN: &str = "2026-11-21 10:00:00,123 INFO  loader: opened /data/shard-000123/part-7.parquet in 12 ms\n\
    2026-11-21 10:00:00,131 DEBUG cache: key=3f2a9c hit, 4096 bytes from 10.0.0.3:8080 after 2 tries\n\
    WARNING: All log messages before initialisation are written to standard error and may be out of order\n\
    Traceback (most recent call last): File \"train.py\", line 42, in <module>\n";

const TQDM: &str =
    "\rtrain:  40%|████████████████▊                         | 120/300 [00:12<00:18,  9.95it/s, loss=0.123]";

const KERAS: &str = "\r\x1b[1m120/300\x1b[0m \x1b[32m━━━━━━━━\x1b[0m\x1b[37m━━━━━━━━━━━━\x1b[0m \x1b[1m3s\x1b[0m \
    12ms/step - accuracy: 0.9123 - loss: 0.3456";

const TRAINER: &str = "{'loss': 0.6931, 'grad_norm': 1.25, 'learning_rate': 4.5e-05, 'epoch': 0.52}\n";

fn main() {
    // A program writes far more of its own words than of bars.
    let mixed = format!("{}{TQDM}\n{TRAINER}", PLAIN.repeat(20));
    for (name, text) in [("plain", PLAIN), ("mixed", &mixed), ("tqdm", TQDM), ("keras", KERAS), ("trainer", TRAINER)] {
        let log = text.repeat(AMOUNT / text.len() + 1).into_bytes();
        let (mut search, mut read) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            search =
                search.min(timed(|| log.chunks(PIECE).map(|piece| memchr::memchr_iter(b'\n', piece).count()).sum()));
            read = read.min(timed(|| {
                let (mut reader, mut figures) = (Reader::default(), 0);
                log.chunks(PIECE).for_each(|piece| reader.read(piece, |_| figures += 1));
                figures
            }));
        }
        let rate = |time: Duration| log.len() as f64 / 1e6 / time.as_secs_f64();
        println!(
            "{name:8} read {:6.0} MB/s, search for line ends {:6.0} MB/s, ratio {:.3}",
            rate(read),
            rate(search),
            rate(read) / rate(search)
        );
    }
}

fn timed(work: impl FnOnce() -> usize) -> Duration {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed()
}
