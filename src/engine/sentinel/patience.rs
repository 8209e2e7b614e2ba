//! How a sentinel waits for what the system has not to spare: room on the disk for its record, a process for the stage.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use super::super::log::Log;
use super::super::room::is_scarce;
use super::next::Next;
use super::signals::Signals;
use super::{How, Record, Watch, nobody_listens, start};
use crate::probe::clock;
use crate::probe::disk::is_full;
use crate::units::Millis;

/// Writes the first record, before the stage exists: who finds none knows that there is no stage either. Makes room for the
/// next: the disk may be full when the stage ends, and nobody else may be there to tell its end. Where it is full already, it
/// is tried again until there is room, or this process is asked to end by a signal or nobody waits for the stage any more.
pub(super) fn begin_once_there_is_room<'w>(watch: &'w Watch, begun: &Record) -> io::Result<Result<Next<'w>, i32>> {
    let mut waits = waits();
    let mut is_said = false;
    loop {
        let begun = Record { began: is_said.then(clock::now), ..begun.clone() };
        let written = Next::reserve(&watch.record).and_then(|next| next.write(&begun, false));
        let error = match written.and_then(|()| Next::reserve(&watch.record)) {
            Err(error) if is_full(&error) => error,
            made => return made.map(Ok),
        };
        if !std::mem::replace(&mut is_said, true) {
            say(&not_yet(&error));
        }
        let signal = waits.next().and_then(asked_to_end);
        if let Some(signal) = signal.or_else(|| nobody_listens().then_some(libc::SIGTERM)) {
            return Ok(Err(signal));
        }
    }
}

/// Changes the record on the way, if there is room for that.
fn note(watch: &Watch, record: &Record) {
    // Not under the name of the next record, whose room is reserved.
    let draft = watch.record.with_extension("waits");
    let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|text| fs::write(&draft, text));
    let _ = written.and_then(|()| fs::rename(&draft, &watch.record));
}

/// How what is said begins.
const NOT_YET: &str = "trainyard: it cannot be started yet";

/// Whether that is said by what was read of a sentinel, and not by its stage.
pub(in super::super) fn is_not_yet(output: &[u8]) -> bool {
    output.starts_with(NOT_YET.as_bytes())
}

/// What is said where something is missing to start the stage.
fn not_yet(error: &io::Error) -> String {
    format!("{NOT_YET}, and is tried again: {error}\n")
}

/// Says something to the orchestrator.
fn say(line: &str) {
    let _ = io::stdout().lock().write_all(line.as_bytes()).and_then(|()| io::stdout().lock().flush());
}

/// For how long is waited before each further try.
fn waits() -> impl Iterator<Item = Millis> {
    [100, 200, 400, 800, 1_600].into_iter().chain(std::iter::repeat(3_000)).map(Millis)
}

/// Starts the stage. Where the system has no process or file to spare, that is said, and it is tried again until there is
/// one or this process is asked to end.
pub(super) fn start_once_there_is_room(
    watch: &Watch,
    begun: &Record,
    log: &mut Log,
) -> Result<(u32, Signals, OwnedFd), How> {
    let mut waits = waits();
    let mut is_said = false;
    loop {
        let error = match start(watch) {
            Ok(started) => {
                if is_said {
                    note(watch, &Record { began: Some(clock::now()), ..begun.clone() });
                }
                return Ok(started);
            }
            Err(error) if is_scarce(&error) => error,
            Err(error) => return Err(How::NotStarted(error.to_string())),
        };
        if !std::mem::replace(&mut is_said, true) {
            let line = not_yet(&error);
            log.write(line.as_bytes());
            say(&line);
            note(watch, &Record { waits_for: Some(error.to_string()), ..begun.clone() });
        }
        let Some(wait) = waits.next() else { continue };
        if let Some(signal) = asked_to_end(wait) {
            return Err(How::Signalled(signal));
        }
    }
}

/// Waits so long for a signal that asks this process to end. All signals are blocked.
fn asked_to_end(wait: Millis) -> Option<i32> {
    let wait = libc::timespec {
        tv_sec: libc::time_t::try_from(wait.0 / 1_000).unwrap_or(1),
        tv_nsec: libc::c_long::try_from(wait.0 % 1_000 * 1_000_000).unwrap_or(0),
    };
    // SAFETY: the set is initialised before it is used, and nothing is asked of the signal but its number.
    let signal = unsafe {
        let mut those = std::mem::zeroed();
        libc::sigemptyset(&raw mut those);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut those, signal);
        }
        libc::sigtimedwait(&raw const those, std::ptr::null_mut(), &raw const wait)
    };
    (signal > 0).then_some(signal)
}
