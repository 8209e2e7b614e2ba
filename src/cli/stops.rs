//! Signals that ask a command to end.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};
use signal_hook::{SigId, flag};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Exit, Failure};
use crate::engine::process;
use crate::run::engine::Stop;

/// Returns the signals that ask this process to end: not a hang-up that it was started to ignore, as by `nohup`.
fn ours() -> &'static [i32] {
    static OURS: OnceLock<Vec<i32>> = OnceLock::new();
    let counts = |signal: &i32| *signal != SIGHUP || !process::is_ignored(*signal);
    OURS.get_or_init(|| [SIGINT, SIGTERM, SIGHUP].into_iter().filter(counts).collect())
}

/// Returns what has a byte to read for each signal that asks this process to end, which does not end by them any more.
pub(super) fn heard() -> io::Result<UnixStream> {
    let (heard, to_us) = UnixStream::pair()?;
    for signal in ours() {
        pipe::register(*signal, to_us.try_clone()?)?;
    }
    Ok(heard)
}

/// Returns what is set as soon as this process gets a signal that all processes get when a machine is shut down.
pub(super) fn told_with_all() -> io::Result<Arc<AtomicBool>> {
    let told = Arc::new(AtomicBool::new(false));
    for &signal in ours().iter().filter(|signal| **signal != SIGINT) {
        flag::register(signal, Arc::clone(&told))?;
    }
    Ok(told)
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
        for &signal in ours() {
            // In this order: the first one is no second.
            registered.push(flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&came))?);
            registered.push(flag::register(signal, Arc::clone(&came))?);
        }
        Ok(Self { came, registered })
    }

    /// Sets another flag as well once one comes, or has come.
    pub(super) fn also_set(&mut self, flag: &Arc<AtomicBool>) -> io::Result<()> {
        for &signal in ours() {
            self.registered.push(flag::register(signal, Arc::clone(flag))?);
        }
        if self.came.load(Ordering::Relaxed) {
            flag.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lets the next one end the process at once, for a while in which nothing has to be put in order.
    ///
    /// # Errors
    /// Where one has come.
    pub(super) fn let_go(&self) -> Result<(), Failure> {
        if self.came.swap(true, Ordering::Relaxed) { Err(interrupted()) } else { Ok(()) }
    }

    /// Keeps what comes again.
    pub(super) fn keep_again(&self) {
        self.came.store(false, Ordering::Relaxed);
    }

    /// Returns what the user asks for by signals, with what came before; see [`asked`].
    pub(super) fn hand_over(self) -> io::Result<mpsc::UnboundedReceiver<Stop>> {
        for id in self.registered {
            unregister(id);
        }
        asked_after(self.came)
    }
}

/// Returns how a command ends that was asked to before there was anything to stop.
pub(super) fn interrupted() -> Failure {
    let report = miette::miette!(
        help = "what was read so far is remembered: the same command goes on from there",
        "interrupted before anything was started"
    );
    Failure { exit: Exit::Interrupted, report }
}

/// Returns what the user asks for by signals: the first one ends the run gracefully, the next one at once.
pub(super) fn asked() -> io::Result<mpsc::UnboundedReceiver<Stop>> {
    asked_after(Arc::default())
}

fn asked_after(came: Arc<AtomicBool>) -> io::Result<mpsc::UnboundedReceiver<Stop>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    if came.load(Ordering::Relaxed) {
        let _ = sender.send(Stop::Gracefully);
    }
    for &kind in ours() {
        let mut heard = signal(SignalKind::from_raw(kind))?;
        let (sender, came) = (sender.clone(), Arc::clone(&came));
        tokio::spawn(async move {
            while heard.recv().await.is_some() {
                let stop = if came.swap(true, Ordering::Relaxed) { Stop::Now } else { Stop::Gracefully };
                if sender.send(stop).is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
