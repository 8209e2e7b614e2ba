//! The addresses: pages, their parts, and what they ask for.
//!
//! Runs, tasks and attempts are named by what is on record, never by a path.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::clerk::Desk;
use super::guard::{self, Guard};
use super::{act, answer};
use crate::cli::Failure;

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
        Ok(Err(Failure { report, .. })) => {
            tracing::warn!(error = %report, "a page cannot be answered");
            answer::error(StatusCode::INTERNAL_SERVER_ERROR, &report.to_string())
        }
        Err(_) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "this is a bug of trainyard"),
    }
}

/// Returns a number from a query like `from=12&attempt=1`.
fn number(query: &RawQuery, key: &str) -> Option<u64> {
    let pairs = query.0.as_deref()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key)?.1.parse().ok()
}

async fn runs(State(desk): Shared) -> Response {
    apart(move || desk.list().map(Some)).await
}

async fn follow_runs(State(desk): Shared) -> Response {
    apart(move || desk.follow_list().map(Some)).await
}

async fn run(State(desk): Shared, Path(run): Path<String>, query: RawQuery) -> Response {
    let series = number(&query, "series") == Some(1);
    apart(move || desk.with(&run, |run| run.show(series))?.transpose()).await
}

async fn plan(State(desk): Shared, Path(run): Path<String>) -> Response {
    apart(move || desk.with(&run, |run| run.plan())).await
}

/// A browser that comes back says in `Last-Event-ID` what it heard last, a new one what it has read.
async fn follow_run(State(desk): Shared, Path(run): Path<String>, query: RawQuery, headers: HeaderMap) -> Response {
    let heard = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let after = heard.or_else(|| number(&query, "after")).unwrap_or(0);
    apart(move || desk.follow(&run, usize::try_from(after).unwrap_or(usize::MAX))).await
}

async fn task(State(desk): Shared, Path((run, task)): Path<(String, usize)>) -> Response {
    apart(move || Ok(desk.with(&run, |run| run.task(task))?.transpose()?.flatten())).await
}

async fn explain(State(desk): Shared, Path((run, task)): Path<(String, usize)>) -> Response {
    apart(move || act::explain(desk.dir(), &run, task)).await
}

async fn log(State(desk): Shared, Path((run, task)): Path<(String, usize)>, query: RawQuery) -> Response {
    let attempt = number(&query, "attempt").and_then(|number| u32::try_from(number).ok());
    let from = number(&query, "from");
    apart(move || Ok(desk.with(&run, |run| run.log(task, attempt, from))?.flatten().map(|piece| answer::json(&piece))))
        .await
}

async fn cancel(State(desk): Shared, Path(run): Path<String>, query: RawQuery) -> Response {
    let now = number(&query, "now") == Some(1);
    apart(move || act::cancel(desk.dir(), &run, now)).await
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
