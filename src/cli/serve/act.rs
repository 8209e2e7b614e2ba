//! What other commands do, asked for by a page: explain, compare, list devices, end a run, go on with it.

#![expect(clippy::disallowed_methods, reason = "calls this program again, and keeps a reading for a moment")]

use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answer;
use crate::cli::logs::Opened;
use crate::cli::state::{self, StateArgs, broken};
use crate::cli::{Failure, devices, diff, explain, metrics, session};
use crate::probe;
use crate::report::metrics::Picture;
use crate::report::{self, text};
use crate::run::event::RunEnd;
use crate::run::store::{RunRow, Store};

/// For how long a reading of the devices is good for everybody who asks.
const FRESH: Duration = Duration::from_secs(1);

fn open(dir: &Path, run: &str) -> Result<Option<(Store, RunRow)>, Failure> {
    let store = Store::open_existing(dir).map_err(broken)?;
    let row = state::find(&store, run)?;
    Ok(row.map(|row| (store, row)))
}

/// Answers as `explain --json`.
pub(super) fn explain(dir: &Path, run: &str, task: usize) -> Result<Option<Response>, Failure> {
    let Some(found) = open(dir, run)? else { return Ok(None) };
    let opened = Opened::new(found)?;
    if task >= opened.state.tasks.len() {
        return Ok(None);
    }
    Ok(Some(answer::json(&explain::explanation(&opened, task))))
}

/// Answers as `diff --json`.
pub(super) fn diff(dir: &Path, a: &str, b: &str) -> Result<Option<Response>, Failure> {
    let (Some(a), Some(b)) = (open(dir, a)?, open(dir, b)?) else { return Ok(None) };
    let side = |(store, row): &(Store, RunRow)| diff::side(store, row);
    Ok(Some(answer::json(&report::diff::diff(side(&a)?, side(&b)?))))
}

/// Answers as `devices --json`.
pub(super) fn devices() -> Response {
    static LATEST: Mutex<Option<(Instant, String)>> = Mutex::new(None);
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if latest.as_ref().is_none_or(|(read, _)| read.elapsed() >= FRESH) {
        let machine = probe::this_machine(&probe::Options::from_env());
        *latest = Some((Instant::now(), devices::json(&machine)));
    }
    let text = latest.as_ref().map(|(_, text)| text.clone()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Answers as `trainyard metrics`; where nothing is recorded yet, with what is known without it.
pub(super) fn metrics(dir: &Path) -> Result<Option<Response>, Failure> {
    let page = if dir.join("state.db").is_file() {
        metrics::page(&StateArgs::of(dir.to_owned()), None)?
    } else {
        report::metrics::render(&Picture { ends: &[], runs: &[], devices: &[], now: session::now() })
    };
    Ok(Some(([(header::CONTENT_TYPE, report::metrics::CONTENT_TYPE)], page).into_response()))
}

/// Has `trainyard resume` go on with a run: what failed, was skipped or interrupted is tried again.
///
/// Answers once it is under way again, or why it is not.
pub(super) fn retry(dir: &Path, run: &str) -> Result<Option<Response>, Failure> {
    let Some((_, row)) = open(dir, run)? else { return Ok(None) };
    let conflict = |words: &str| Ok(Some(answer::error(StatusCode::CONFLICT, words)));
    if row.end.is_none() && state::is_alive(&row) {
        return conflict("the run is under way: what fails can be tried again once it is over");
    }
    if matches!(row.end, Some((_, RunEnd::Succeeded))) {
        return conflict("every task is done: there is nothing to try again");
    }
    let own = std::env::current_exe().map_err(broken)?;
    let mut resume = std::process::Command::new(own);
    resume.arg("resume").arg(&row.header.id).arg("--detach").arg("--state").arg(dir);
    // Its pipeline is found where it lies: the folder of this process does not matter.
    let ended = resume.stdin(Stdio::null()).output().map_err(broken)?;
    if !ended.status.success() {
        return conflict(&text::first_words(&ended.stderr));
    }
    Ok(Some((StatusCode::ACCEPTED, answer::json(&json!({"run": row.header.id, "asked": true}))).into_response()))
}

/// Has `trainyard cancel` end a run, and answers at once: how it ends is seen on the page.
pub(super) fn cancel(dir: &Path, run: &str, now: bool) -> Result<Option<Response>, Failure> {
    let Some((_, row)) = open(dir, run)? else { return Ok(None) };
    let conflict = |words: &str| Ok(Some(answer::error(StatusCode::CONFLICT, words)));
    let alive = state::is_alive(&row);
    if row.end.is_some() || (!alive && state::tasks_that_go_on(&row).is_empty()) {
        return conflict("the run is not under way");
    }
    if !state::is_here(&row.header.orchestrator) {
        let place = state::elsewhere_on(&row.header.orchestrator);
        return conflict(&format!("the run is carried out {place}, and has to be ended there"));
    }
    let own = std::env::current_exe().map_err(broken)?;
    let mut cancel = std::process::Command::new(own);
    cancel.arg("cancel").arg(&row.header.id).arg("--state").arg(dir);
    cancel.args(now.then_some("--now"));
    let mut child = cancel.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(broken)?;
    // Somebody has to wait for it, or it stays a zombie.
    std::thread::Builder::new().name("cancel".into()).spawn(move || child.wait()).map_err(broken)?;
    Ok(Some((StatusCode::ACCEPTED, answer::json(&json!({"run": row.header.id, "asked": true}))).into_response()))
}
