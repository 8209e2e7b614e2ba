//! How far a training is, for whoever watches: a line on stdout, and a JSON line for the orchestrator.

use std::fs::{File, OpenOptions};
use std::io::Write;

use serde_json::json;

use crate::surroundings::Surroundings;

/// Mean loss and accuracy over some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Score {
    pub(crate) loss: f64,
    pub(crate) accuracy: f64,
}

/// Where progress goes.
#[derive(Debug)]
pub(crate) struct Progress {
    events: Option<File>,
}

impl Progress {
    /// Opens the orchestrator's file, if it gave one. A file that cannot be opened costs the bars, not the training.
    pub(crate) fn new(around: &Surroundings) -> Self {
        let open = |path| OpenOptions::new().append(true).create(true).open(path).ok();
        Self { events: around.events.as_ref().and_then(open) }
    }

    /// Reports one epoch of a training: `watched` is the score on held-out rows, if there are any.
    pub(crate) fn epoch(&mut self, epoch: u64, epochs: u64, trained: Score, watched: Option<Score>) {
        let phase = format!("epoch {epoch}/{epochs}");
        print!("{phase}: loss {:.4}, accuracy {:.4}", trained.loss, trained.accuracy);
        if let Some(score) = watched {
            print!("; held out: loss {:.4}, accuracy {:.4}", score.loss, score.accuracy);
        }
        println!();
        // A reader of the pipe sees each epoch as it ends.
        let _ = std::io::stdout().flush();
        let Score { loss, accuracy } = watched.unwrap_or(trained);
        #[expect(clippy::cast_precision_loss, reason = "a fraction for a bar")]
        let done = epoch as f64 / epochs as f64;
        let mut line = json!({ "progress": done, "phase": phase, "loss": loss, "accuracy": accuracy }).to_string();
        line.push('\n');
        if let Some(events) = &mut self.events {
            // One write, so that lines of several writers do not mix; a full disk costs the bar only.
            let _ = events.write_all(line.as_bytes());
        }
    }
}
