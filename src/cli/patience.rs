//! Says what is being read, or who is asked, where that takes longer than a person waits without wondering.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::output;
use super::planning::Stopwatch;
use crate::report::{text, wording};
use crate::run::files::transfer::{SoFar, Transfer};
use crate::units::Millis;

/// How long nobody wonders.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest time without a word where lines stay: they are twice as far apart each time.
const SILENCE: Duration = Duration::from_mins(1);

/// Does work that reads `what`, and says how far it is.
pub(super) fn telling<T>(transfer: &Transfer, what: &str, work: impl FnOnce() -> T) -> T {
    let mut is_shown = false;
    let tell = || {
        let Some(so_far) = transfer.so_far() else { return PATIENCE };
        let line = line(what, &so_far);
        is_shown = output::pass(&line);
        if !is_shown {
            output::note(&line);
        }
        if is_shown { PATIENCE } else { SILENCE }
    };
    let done = beside(PATIENCE, tell, work);
    if is_shown {
        output::pass("");
    }
    done
}

/// How long a driver that is well may take: one that no program uses starts anew for each that asks.
const DRIVER: Duration = Duration::from_secs(5);

/// Does work that asks the driver, and says that it does not answer.
pub(super) fn asking_driver<T>(work: impl FnOnce() -> T) -> T {
    let (watch, mut words) = (Stopwatch::start(), of_driver());
    let tell = || {
        output::warn(&words(watch.elapsed()));
        SILENCE
    };
    beside(DRIVER, tell, work)
}

/// Says that the driver does not answer, and later for how long it has not.
fn of_driver() -> impl FnMut(Millis) -> String {
    let mut is_said = false;
    move |so_far| match std::mem::replace(&mut is_said, true) {
        false => {
            "the NVIDIA driver does not answer: waiting for it (a card that failed may hold it up for a minute)".into()
        }
        true => {
            format!("the NVIDIA driver has not answered for {} now: still waiting for it", wording::seconds(so_far))
        }
    }
}

/// Does work that waits until something has happened, and says what.
pub(super) fn waiting_until<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let tell = || {
        output::note(&format!("waiting until {what}"));
        SILENCE
    };
    beside(PATIENCE * 2, tell, work)
}

fn line(what: &str, SoFar { last, files, bytes }: &SoFar) -> String {
    format!("reading {what}: {bytes} so far, file {files} is {}", text::visible(last))
}

/// Does work. Once it has taken so long, something is told beside it, and again after as long, twice as long, and so on up
/// to what that returned.
fn beside<T>(patience: Duration, mut tell: impl FnMut() -> Duration + Send, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        let tell_until_done = move || {
            let mut next = patience;
            while wait.recv_timeout(next) == Err(RecvTimeoutError::Timeout) {
                next = (next * 2).min(tell());
            }
        };
        // Where there is no thread to be had, nobody is told.
        let _ = thread::Builder::new().spawn_scoped(scope, tell_until_done);
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    #[test]
    fn who_waits_is_told_again_and_again() {
        let (tell, told) = mpsc::channel();
        let tell = move || {
            let _ = tell.send(());
            Duration::ZERO
        };
        beside(Duration::ZERO, tell, || (0..3).for_each(|_| told.recv().unwrap()));
    }

    #[test]
    fn what_is_done_soon_is_not_told() {
        beside(Duration::MAX, || panic!("nobody waits"), || ());
    }

    #[test]
    fn that_the_driver_does_not_answer_is_said_once_and_then_for_how_long() {
        let mut words = of_driver();
        assert!(words(Millis(5_000)).starts_with("the NVIDIA driver does not answer: waiting for it"));
        for (so_far, for_so_long) in [(15_001, "15s"), (75_000, "1m15s")] {
            let said = format!("the NVIDIA driver has not answered for {for_so_long} now: still waiting for it");
            assert_eq!(words(Millis(so_far)), said);
        }
    }

    #[test]
    fn a_line_says_what_is_read_and_how_much_was() {
        let so_far = SoFar { last: "data/a\nb.csv".to_owned(), files: 2, bytes: Bytes(3 << 30) };
        assert_eq!(line("inputs", &so_far), "reading inputs: 3.0 GiB so far, file 2 is data/a\\nb.csv");
    }
}
