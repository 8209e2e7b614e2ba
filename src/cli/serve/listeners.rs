//! Browsers that listen: what is told is written once and shared by all of them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;
use tokio::sync::mpsc;

/// Messages that may wait for one browser. One that is further behind is let go; it comes back and says what it knows.
const BEHIND: usize = 256;

/// Those who listen to one thing.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<mpsc::Sender<Bytes>>);

impl Listeners {
    /// Adds one, who is told `first` before anything else.
    pub(super) fn add(&mut self, first: Bytes) -> Response {
        let (sender, receiver) = mpsc::channel(BEHIND);
        // The channel is new and has room.
        let _ = sender.try_send(first);
        self.0.push(sender);
        let headers = [(header::CONTENT_TYPE, "text/event-stream")];
        (headers, Body::from_stream(Told(receiver))).into_response()
    }

    /// Whether nobody listens. Those who went are forgotten.
    pub(super) fn is_empty(&mut self) -> bool {
        self.0.retain(|listener| !listener.is_closed());
        self.0.is_empty()
    }

    /// Tells all of them.
    pub(super) fn tell(&mut self, message: &Bytes) {
        self.0.retain(|listener| listener.try_send(message.clone()).is_ok());
    }
}

/// Returns an event as it is sent. With an `id` a browser that comes back says that this was the last it heard.
pub(super) fn event(kind: &str, id: Option<usize>, data: &impl Serialize) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    // JSON in one line, as an event's data has to be.
    let data = serde_json::to_string(data).expect("our views are plain data with text keys");
    Bytes::from(format!("{id}event: {kind}\ndata: {data}\n\n"))
}

/// Nothing is said: who is gone is noticed.
pub(super) const SILENCE: Bytes = Bytes::from_static(b":\n\n");

/// What one browser is told.
struct Told(mpsc::Receiver<Bytes>);

impl Stream for Told {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|message| message.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_too_far_behind_or_gone_is_let_go() {
        let mut listeners = Listeners::default();
        let slow = listeners.add(SILENCE);
        let gone = listeners.add(SILENCE);
        drop(gone);
        assert!(!listeners.is_empty());
        assert_eq!(listeners.0.len(), 1);
        (0..BEHIND).for_each(|_| listeners.tell(&SILENCE));
        assert!(listeners.is_empty());
        drop(slow);
    }

    #[test]
    fn an_event_is_one_block_of_lines() {
        let bytes = event("change", Some(7), &serde_json::json!({"words": "a\nb\r\n\nc"}));
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(text, "id: 7\nevent: change\ndata: {\"words\":\"a\\nb\\r\\n\\nc\"}\n\n");
    }
}
