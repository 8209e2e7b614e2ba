//! Reads bytes as a program's output and progress.

#![no_main]

#[path = "../../tests/fuzz/readers.rs"]
#[allow(dead_code, reason = "each target has a reader of its own")]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::progress(bytes));
