//! What is sent back: JSON, an error in words, the pages and their parts, which are all in the program.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;

const JSON: &str = "application/json";

/// Answers with a value as JSON.
pub(super) fn json(value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).expect("our views are plain data with text keys");
    ([(header::CONTENT_TYPE, JSON)], text).into_response()
}

/// Answers with an error.
pub(super) fn error(status: StatusCode, words: &str) -> Response {
    #[derive(Serialize)]
    struct Said<'a> {
        error: &'a str,
    }
    (status, json(&Said { error: words })).into_response()
}

/// The one page. Which view it shows is up to the address.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("web/index.html"))
}

/// A page for those who come without the token.
pub(super) fn ask_for_token() -> Html<&'static str> {
    Html(include_str!("web/token.html"))
}

/// A page that leads on once the cookie is set, so that the token does not stay in the address.
pub(super) fn entered() -> Html<&'static str> {
    Html(include_str!("web/entered.html"))
}

macro_rules! files {
    ($($name:literal: $kind:literal),* $(,)?) => {
        &[$(($name, $kind, include_str!(concat!("web/", $name)))),*]
    };
}

/// What the page loads: name, kind, content.
const FILES: &[(&str, &str, &str)] = files! {
    "app.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "app.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
    "runs.js": "text/javascript; charset=utf-8",
    "run.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "graph.js": "text/javascript; charset=utf-8",
    "gantt.js": "text/javascript; charset=utf-8",
    "curves.js": "text/javascript; charset=utf-8",
    "memory.js": "text/javascript; charset=utf-8",
    "tasks.js": "text/javascript; charset=utf-8",
    "task.js": "text/javascript; charset=utf-8",
    "log.js": "text/javascript; charset=utf-8",
    "devices.js": "text/javascript; charset=utf-8",
    "compare.js": "text/javascript; charset=utf-8",
};

/// Answers with a part of the page.
pub(super) fn file(name: &str) -> Response {
    match FILES.iter().find(|(own, ..)| *own == name) {
        Some((_, kind, text)) => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
        None => error(StatusCode::NOT_FOUND, "there is no such file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_with_all_its_parts_is_small() {
        let parts: usize = FILES.iter().map(|(.., text)| text.len()).sum();
        let all = parts + include_str!("web/index.html").len();
        assert!(all < 300_000, "{all} bytes");
    }

    #[test]
    fn the_pages_load_nothing_from_elsewhere_and_make_no_markup_of_text() {
        for (name, _, text) in FILES {
            let namespace = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!namespace.contains("http://") && !namespace.contains("https://"), "{name}");
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(way), "{name}: {way}");
            }
        }
    }
}
