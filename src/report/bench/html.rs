//! Comparisons as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write;

use super::super::markup::escaped;
use super::arrivals::Replays;
use super::live;
use super::svg::bars;
use super::{Comparison, micros, percent, percent_at_most};
use crate::units::Millis;

const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
tr.best td { font-weight: 600; }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { opacity: .7; }
svg { width: 100%; min-width: 40rem; } svg text { font-size: 12px; fill: currentColor; } svg text.in { fill: #fff; font-size: 10px; }
svg .rule { stroke: #8886; } svg .gap { fill: #5b8def; }
";

/// Returns the page of what policies made of pipelines.
#[must_use]
pub fn page(comparisons: &[Comparison]) -> String {
    let mut out = String::new();
    for comparison in comparisons {
        writeln!(out, "<h2>{}</h2>", escaped(&comparison.title())).expect(TAKES);
        table(&mut out, comparison);
        carried_out(&mut out, comparison);
        let rows = comparison.rows();
        let gaps = rows.iter().filter_map(|row| Some((row.policy, row.gap?))).collect();
        out.push_str(&bars(
            &least_first(gaps),
            percent_at_most,
            "How much worse each policy's plan may be than the best one",
        ));
        out.push_str(&comparison.chart.as_ref().map_or(String::new(), super::Gantt::svg));
        out.push('\n');
    }
    framed(
        "policies",
        "The gap is how much worse the median plan is than a bound that no plan can be under. Memory and share are the parts \
         of the GPUs that tasks ask for; fragments are the part of the free memory that no single request can have.",
        &out,
    )
}

/// Returns the page of what fits made of arrivals at a cluster.
#[must_use]
pub fn replays(replays: &Replays) -> String {
    let mut out = String::new();
    writeln!(out, "<h2>{}</h2>", escaped(&replays.title())).expect(TAKES);
    write!(out, "<table>{}<tbody>", headings(Replays::HEADINGS)).expect(TAKES);
    let (rows, best) = (replays.rows(), replays.best());
    for row in &rows {
        let cells = row.cells();
        body_row(&mut out, row.left().is_some() && row.left() == best, cells.iter().map(String::as_str));
    }
    out.push_str("</tbody></table>\n");
    let left = rows.iter().filter_map(|row| Some((row.fit(), row.left()?))).collect();
    let caption = "GPUs that nobody can use in the end, the median of the orders";
    out.push_str(&bars(&least_first(left), |gpus| format!("{gpus:.1}"), caption));
    framed(
        "fits",
        "Pods arrive one by one and stay; one is turned away only if no node can host it. Fragments are what of the GPUs that \
         are left a pod of the mix cannot use, in the mean.",
        &out,
    )
}

fn least_first(mut amounts: Vec<(&str, f64)>) -> Vec<(&str, f64)> {
    amounts.sort_by(|a, b| a.1.total_cmp(&b.1));
    amounts
}

/// Puts a page around what was compared.
fn framed(what: &str, words: &str, body: &str) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    write!(out, "<title>Trainyard: {what} compared</title><style>{STYLE}</style></head>\n<body>").expect(TAKES);
    let mut title = what.to_owned();
    title[..1].make_ascii_uppercase();
    write!(out, "<h1>{title} compared</h1>\n<p>{words}</p>\n{body}</body></html>\n").expect(TAKES);
    out
}

/// Returns the head of a table.
fn headings<'h>(names: impl IntoIterator<Item = &'h str>) -> String {
    let mut out = String::from("<thead><tr>");
    names.into_iter().for_each(|name| write!(out, "<th>{name}</th>").expect(TAKES));
    out + "</tr></thead>"
}

/// Adds a line of a table.
fn body_row<'c>(out: &mut String, is_best: bool, cells: impl IntoIterator<Item = &'c str>) {
    out.push_str(if is_best { "<tr class=\"best\">" } else { "<tr>" });
    cells.into_iter().for_each(|text| write!(out, "<td>{}</td>", escaped(text)).expect(TAKES));
    out.push_str("</tr>\n");
}

const TAKES: &str = "a String takes everything";

/// Behind policy and objective.
const HEADINGS: [&str; 8] = ["spread", "gap", "optimal", "memory", "share", "fragments", "planning", "schedules"];

fn table(out: &mut String, comparison: &Comparison) {
    let (rows, by) = (comparison.rows(), comparison.by());
    let names: Vec<_> = [Some("policy"), by, Some("makespan")].into_iter().flatten().chain(HEADINGS).collect();
    writeln!(out, "<table>{}<tbody>", headings(names.iter().copied())).expect(TAKES);
    let best = rows.iter().filter_map(|row| row.objective_value).min();
    for row in &rows {
        if let Some(error) = row.error {
            let (policy, error) = (escaped(row.policy), escaped(error));
            writeln!(out, "<tr><td>{policy}</td><td colspan=\"{}\">{error}</td></tr>", names.len() - 1).expect(TAKES);
            continue;
        }
        let part = |part: Option<f64>| part.map_or(String::new(), percent);
        let value = by.map(|_| row.objective_value.map_or(String::new(), |value| comparison.amount(value)));
        let cells = [
            row.makespan_ms.map_or(String::new(), |ms| Millis(ms).to_string()),
            part(row.spread()),
            row.gap.map_or(String::new(), percent_at_most),
            if row.optimal > 0 { format!("{} of {}", row.optimal, row.seeds) } else { String::new() },
            part(row.gpu_memory_use),
            part(row.gpu_share_use),
            part(row.fragmentation),
            row.planning_us.map_or(String::new(), micros),
            row.evaluations.map_or(String::new(), |count| count.to_string()),
        ];
        let cells = [row.policy].into_iter().chain(value.as_deref()).chain(cells.iter().map(String::as_str));
        body_row(out, row.objective_value.is_some() && row.objective_value == best, cells);
    }
    out.push_str("</tbody></table>\n");
}

/// How plans did that were carried out, if any were.
fn carried_out(out: &mut String, comparison: &Comparison) {
    let rows = live::rows(comparison);
    if rows.is_empty() {
        return;
    }
    let names = ["policy"].into_iter().chain(live::HEADINGS).chain([""]);
    writeln!(out, "<h3>{}</h3><table>{}<tbody>", live::TITLE, headings(names)).expect(TAKES);
    let best = rows.iter().filter_map(|(_, row)| row.measured_ms).min();
    for (policy, row) in &rows {
        let cells = row.cells();
        let cells =
            [*policy].into_iter().chain(cells.iter().map(String::as_str)).chain([row.error.unwrap_or_default()]);
        body_row(out, row.measured_ms.is_some() && row.measured_ms == best, cells);
    }
    out.push_str("</tbody></table>\n");
}
