//! Reads bytes as a pipeline file.

#![no_main]

#[path = "../../tests/fuzz/readers.rs"]
#[allow(dead_code, reason = "each target has a reader of its own")]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| readers::pipeline(bytes));
