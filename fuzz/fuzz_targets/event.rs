//! Reads bytes as recorded events, one a line, and applies them in turn.

#![no_main]

#[path = "../../tests/fuzz/readers.rs"]
#[allow(dead_code, reason = "each target has a reader of its own")]
mod readers;

use trainyard::run::state::RunState;
use trainyard::units::Millis;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut state = RunState::new(3);
    for (at, line) in (0..).map(Millis).zip(bytes.split(|byte| *byte == b'\n')) {
        readers::event(line, at, &mut state);
    }
});
