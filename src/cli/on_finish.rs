//! What happens when a run is over: who is to be told is told, and that is put on record.
//!
//! Recorded only once it is done, so that everybody is told at least once of the last end of a run: should this process
//! die in between, `resume` tells them, and the same key lets a receiver drop what it has had.

use std::path::Path;
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::json;
use tokio::sync::oneshot;

use super::session;
use super::state::broken;
use super::{Failure, output, stops};
use crate::engine::notify::{self, NotTold, Notice};
use crate::report::json::rfc3339;
use crate::report::wording;
use crate::run::crash;
use crate::run::event::{Event, Recorded, RunEnd};
use crate::run::launch::Ground;
use crate::run::store::{RunKey, Store};
use crate::spec::{OnFinish, Pipeline};
use crate::units::Millis;

/// An end that is to be told.
pub(super) struct Finish<'a> {
    /// The run's id.
    pub(super) run: &'a str,
    /// The pipeline's name.
    pub(super) pipeline: &'a str,
    /// When and how it ended.
    pub(super) end: (Millis, RunEnd),
    /// The pipeline file's folder.
    pub(super) root: &'a Path,
    /// The run's folder.
    pub(super) dir: &'a Path,
}

impl<'a> Finish<'a> {
    /// Returns the end of a run that is on record.
    pub(super) fn of(ground: &'a Ground, pipeline: &'a Pipeline, store: &Store) -> Result<Self, Failure> {
        let row = store.run(&ground.run).map_err(broken)?;
        let end = row.and_then(|row| row.end).unwrap_or((session::now(), RunEnd::Interrupted));
        Ok(Self { run: &ground.run, pipeline: &pipeline.name, end, root: &ground.root, dir: &ground.dir })
    }

    fn notice(&self) -> Notice {
        let (at, end) = self.end;
        let (outcome, key) = (wording::end(end), format!("{}@{}", self.run, at.0));
        let variables = [
            ("TRAINYARD_RUN", self.run),
            ("TRAINYARD_PIPELINE", self.pipeline),
            ("TRAINYARD_OUTCOME", outcome),
            ("TRAINYARD_FINISH", key.as_str()),
        ];
        let text = format!("{}: run {} {outcome}", self.pipeline, self.run);
        let body = json!({"run": self.run, "pipeline": self.pipeline, "outcome": outcome, "finished": rfc3339(at),
            "finish": key, "text": text});
        Notice {
            env: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: body.to_string(),
            key,
            cwd: self.root.to_owned(),
            log: self.dir.join("on_finish.log"),
        }
    }

    /// Tells everybody and records that; a signal ends it, and then nothing is recorded. What becomes of it does not
    /// change how the run ended.
    pub(super) fn tell(&self, on_finish: &OnFinish, store: &mut Store, key: &mut RunKey) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        let told = runtime.block_on(wait(on_finish.clone(), self.notice())).map_err(broken)?;
        let failed = match told {
            Ok(()) => None,
            Err(NotTold::Ended) => {
                output::warn(&format!(
                    "who is to be told that the run is over was not; `trainyard resume {}` tells them",
                    self.run
                ));
                return Ok(());
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = &failed {
            output::warn(&format!("that the run is over could not be told: {why}"));
        }
        crash::point(crash::POINT_OF_ON_FINISH);
        let event = Recorded { at: session::now(), event: Event::FinishTold { failed } };
        store.append(key, &[event]).map_err(broken)
    }
}

/// Tells in another thread, so that a signal is heard meanwhile.
async fn wait(on_finish: OnFinish, notice: Notice) -> std::io::Result<Result<(), NotTold>> {
    let mut stops = stops::asked()?;
    let (ended, end) = pipe_with(PipeFlags::CLOEXEC)?;
    let ended = Arc::new(ended);
    let (done, told) = oneshot::channel();
    std::thread::spawn(move || drop(done.send(notify::tell(&on_finish, &notice, &ended))));
    tokio::pin!(told);
    tokio::select! {
        told = &mut told => Ok(told.unwrap_or(Err(NotTold::Ended))),
        _ = stops.recv() => {
            // A command is ended; a webhook that does not answer is not waited for.
            drop(end);
            Ok(Err(NotTold::Ended))
        }
    }
}
