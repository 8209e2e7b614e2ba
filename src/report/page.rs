//! A timeline as a page of its own: the picture, and why places were idle, as a table.

use std::fmt::Write;

use super::chart;
use super::idle::Cause;
use super::markup::escaped;
use super::timeline::{Row, Timeline};
use crate::units::Millis;

const STYLE: &str = "body{margin:0 auto;max-width:1248px;padding:16px;background:var(--bg);color:var(--ink);font:14px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}\
svg{width:100%;height:auto}table{border-collapse:collapse;margin:16px 24px;font-variant-numeric:tabular-nums}\
caption{text-align:left;font-weight:600;padding:0 0 8px}th,td{padding:5px 18px 5px 0;border-bottom:1px solid var(--line);text-align:right}\
th:first-child,td:first-child,td.l,th.l{text-align:left}th{color:var(--soft);font-weight:500}";

/// Returns a whole page that needs nothing else and runs nothing.
#[must_use]
pub fn html(timeline: &Timeline) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{}{STYLE}</style></head><body><main>",
        escaped(&format!("{} · {}", timeline.pipeline, timeline.run)),
        chart::COLOURS,
    );
    page.push_str(&chart::in_page(timeline));
    page.push_str(
        "<table><caption>Idle time</caption><thead><tr><th>place</th><th>busy</th><th>no room</th><th>waiting for others</th>\
         <th>waiting to try again</th><th>nothing to do</th><th class=\"l\">longest wait</th></tr></thead><tbody>",
    );
    for row in &timeline.rows {
        idle_row(&mut page, row, timeline.end);
    }
    page.push_str("</tbody></table></main></body></html>\n");
    page
}

fn idle_row(page: &mut String, row: &Row, end: u64) {
    let sum = |word: &str| {
        let sum = row.idle.iter().filter(|idle| idle.cause.word() == word).map(|idle| idle.to - idle.from).sum();
        if sum == 0 { "–".to_owned() } else { Millis(sum).to_string() }
    };
    let longest = row.idle.iter().filter(|idle| idle.cause != Cause::Nothing).max_by_key(|idle| idle.to - idle.from);
    let longest = longest.map_or_else(String::new, |idle| {
        format!("{} from {}, {}", Millis(idle.to - idle.from), Millis(idle.from), idle.cause.words())
    });
    write!(
        page,
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"l\">{}</td></tr>",
        escaped(&row.place),
        Millis(row.busy(end)),
        sum("room"),
        sum("dependency"),
        sum("retry"),
        sum("nothing"),
        escaped(&longest)
    )
    .expect("a String takes everything");
}
