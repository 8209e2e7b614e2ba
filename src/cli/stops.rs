//! Signals that ask a command to end.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Exit;
use crate::run::engine::Stop;

/// Returns what has a byte to read for each signal that asks this process to end, which does not end by them any more.
pub(super) fn heard() -> io::Result<UnixStream> {
    let (heard, to_us) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        pipe::register(signal, to_us.try_clone()?)?;
    }
    Ok(heard)
}

/// The first signal that asks this process to end and that comes before a run is ready for it, kept until then; the second
/// one ends the process at once.
pub(super) struct Early {
    came: Arc<AtomicBool>,
    registered: Vec<SigId>,
}

impl Early {
    /// Keeps what comes from here on.
    pub(super) fn keep() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let mut registered = Vec::new();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the first one is no second.
            registered.push(flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&came))?);
            registered.push(flag::register(signal, Arc::clone(&came))?);
        }
        Ok(Self { came, registered })
    }

    /// Returns what the user asks for by signals, with what came before; see [`asked`].
    pub(super) fn hand_over(self) -> io::Result<mpsc::UnboundedReceiver<Stop>> {
        for id in self.registered {
            unregister(id);
        }
        asked_after(self.came.load(Ordering::Relaxed))
    }
}

/// Returns what the user asks for by signals: the first one ends the run gracefully, the next one at once.
pub(super) fn asked() -> io::Result<mpsc::UnboundedReceiver<Stop>> {
    asked_after(false)
}

fn asked_after(one_came: bool) -> io::Result<mpsc::UnboundedReceiver<Stop>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut stops = std::iter::once(Stop::Gracefully).chain(std::iter::repeat(Stop::Now));
    if one_came && let Some(stop) = stops.next() {
        let _ = sender.send(stop);
    }
    tokio::spawn(async move {
        for stop in stops {
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
