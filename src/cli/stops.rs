//! Signals that ask a command to end.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::run::engine::Stop;

/// Returns what has a byte to read for each signal that asks this process to end, which does not end by them any more.
pub(super) fn heard() -> io::Result<UnixStream> {
    let (heard, to_us) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, to_us.try_clone()?)?;
    }
    Ok(heard)
}

/// Returns what the user asks for by signals: the first one ends the run gracefully, the next one at once.
pub(super) fn asked() -> io::Result<mpsc::UnboundedReceiver<Stop>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        for stop in std::iter::once(Stop::Gracefully).chain(std::iter::repeat(Stop::Now)) {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            if sender.send(stop).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
