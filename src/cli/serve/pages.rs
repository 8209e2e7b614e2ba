//! The addresses: pages, their parts, and what they ask for.
//!
//! Runs, tasks and attempts are named by what is on record, never by a path.

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::clerk::Desk;
use super::guard::{self, Guard};
use super::{act, answer};
use crate::cli::{Exit, Failure};

type Shared = State<Arc<Desk>>;

/// Returns everything that is served, behind the guard.
pub(super) fn router(desk: Arc<Desk>, guard: Guard) -> Router {
    let about = json!({"version": env!("CARGO_PKG_VERSION"), "writes": guard.writes(), "host": guard.hosts.last()});
    let pages = ["/", "/runs/{run}", "/devices", "/compare"];
    let pages = pages.into_iter().fold(Router::new(), |router, path| router.route(path, get(answer::page)));
    pages
        .route("/web/{file}", get(async |Path(name): Path<String>| answer::file(&name)))
        .route("/api/about", get(async move || answer::json(&about)))
        .route("/api/runs", get(runs))
        .route("/api/events", get(follow_runs))
        .route("/api/runs/{run}", get(run))
        .route("/api/runs/{run}/plan", get(plan))
        .route("/api/runs/{run}/events", get(follow_run))
        .route("/api/runs/{run}/tasks/{task}", get(task))
        .route("/api/runs/{run}/tasks/{task}/explain", get(explain))
        .route("/api/runs/{run}/tasks/{task}/log", get(log))
        .route("/api/runs/{run}/cancel", post(cancel))
        .route("/api/runs/{run}/retry", post(retry))
        .route("/api/diff/{a}/{b}", get(diff))
        .route("/api/devices", get(devices))
        .route("/metrics", get(metrics))
        .fallback(async || nothing())
        .method_not_allowed_fallback(async || answer::error(StatusCode::METHOD_NOT_ALLOWED, "this is asked otherwise"))
        .with_state(desk)
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::watch))
}

fn nothing() -> Response {
    answer::error(StatusCode::NOT_FOUND, "there is nothing here")
}

/// Does what waits for a disk or a device where it holds nobody up.
async fn apart(work: impl FnOnce() -> Result<Option<Response>, Failure> + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(Some(response))) => response,
        Ok(Ok(None)) => answer::error(StatusCode::NOT_FOUND, "there is no such run, task or attempt"),
        Ok(Err(Failure { exit: Exit::Usage, report })) => answer::error(StatusCode::NOT_FOUND, &report.to_string()),
        Ok(Err(Failure { report, .. })) => {
            tracing::warn!(error = %report, "a page cannot be answered");
            answer::error(StatusCode::INTERNAL_SERVER_ERROR, &report.to_string())
        }
        Err(_) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "this is a bug of trainyard"),
    }
}

/// What is wrong with a question.
struct Wrong(StatusCode, String);

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        answer::error(self.0, &self.1)
    }
}

/// Returns a number from a query like `from=12&attempt=1`.
fn number<N: FromStr>(query: &RawQuery, key: &str) -> Result<Option<N>, Wrong> {
    let mut pairs = query.0.as_deref().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let Some((_, value)) = pairs.find(|(name, _)| *name == key) else { return Ok(None) };
    let wrong = || Wrong(StatusCode::BAD_REQUEST, format!("`{key}` is a whole number from 0 on"));
    value.parse().map(Some).map_err(|_| wrong())
}

/// Returns the index of a task. What is none names no task.
fn index(task: &str) -> Result<usize, Wrong> {
    task.parse().map_err(|_| Wrong(StatusCode::NOT_FOUND, "a task is named by its index, from 0 on".to_owned()))
}

/// What was asked for, or what is wrong with the question.
type Answer = Result<Response, Wrong>;

/// As [`apart`], behind questions that may be wrong.
async fn told(work: impl FnOnce() -> Result<Option<Response>, Failure> + Send + 'static) -> Answer {
    Ok(apart(work).await)
}

async fn runs(State(desk): Shared) -> Response {
    apart(move || desk.list().map(Some)).await
}

async fn follow_runs(State(desk): Shared) -> Response {
    apart(move || desk.follow_list().map(Some)).await
}

async fn run(State(desk): Shared, Path(run): Path<String>, query: RawQuery) -> Answer {
    let series = number::<u64>(&query, "series")? == Some(1);
    told(move || desk.with(&run, |run| run.show(series))?.transpose()).await
}

async fn plan(State(desk): Shared, Path(run): Path<String>) -> Response {
    apart(move || desk.with(&run, |run| run.plan())).await
}

/// A browser that comes back says in `Last-Event-ID` what it heard last, a new one what it has read.
async fn follow_run(State(desk): Shared, Path(run): Path<String>, query: RawQuery, headers: HeaderMap) -> Answer {
    let heard = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let after = number(&query, "after")?;
    told(move || desk.follow(&run, heard.or(after).unwrap_or(0))).await
}

async fn task(State(desk): Shared, Path((run, task)): Path<(String, String)>) -> Answer {
    let task = index(&task)?;
    told(move || Ok(desk.with(&run, |run| run.task(task))?.transpose()?.flatten())).await
}

async fn explain(State(desk): Shared, Path((run, task)): Path<(String, String)>) -> Answer {
    let task = index(&task)?;
    told(move || act::explain(desk.dir(), &run, task)).await
}

async fn log(State(desk): Shared, Path((run, task)): Path<(String, String)>, query: RawQuery) -> Answer {
    let (task, attempt, from) = (index(&task)?, number(&query, "attempt")?, number(&query, "from")?);
    told(move || Ok(desk.with(&run, |run| run.log(task, attempt, from))?.flatten().map(|piece| answer::json(&piece))))
        .await
}

async fn cancel(State(desk): Shared, Path(run): Path<String>, query: RawQuery) -> Answer {
    let now = number::<u64>(&query, "now")? == Some(1);
    told(move || act::cancel(desk.dir(), &run, now)).await
}

async fn retry(State(desk): Shared, Path(run): Path<String>) -> Response {
    apart(move || act::retry(desk.dir(), &run)).await
}

async fn diff(State(desk): Shared, Path((a, b)): Path<(String, String)>) -> Response {
    apart(move || act::diff(desk.dir(), &a, &b)).await
}

async fn metrics(State(desk): Shared) -> Response {
    apart(move || act::metrics(desk.dir())).await
}

async fn devices() -> Response {
    apart(|| Ok(Some(act::devices()))).await
}
