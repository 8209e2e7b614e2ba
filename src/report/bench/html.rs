//! Comparisons as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write;

use super::live;
use super::svg::{bars, escaped};
use super::{Comparison, micros, percent};
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

/// Returns the page.
#[must_use]
pub fn page(comparisons: &[Comparison]) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    write!(out, "<title>Trainyard: policies compared</title><style>{STYLE}</style></head>\n<body>").expect(TAKES);
    out.push_str("<h1>Policies compared</h1>\n<p>The gap is how much worse the median plan is than a bound that no plan can be under. ");
    out.push_str("Memory and share are the parts of the GPUs that tasks ask for; fragments are the part of the free memory that no single request can have.</p>\n");
    for comparison in comparisons {
        writeln!(out, "<h2>{}</h2>", escaped(&comparison.title())).expect(TAKES);
        table(&mut out, comparison);
        carried_out(&mut out, comparison);
        let rows = comparison.rows();
        let mut gaps: Vec<_> = rows.iter().filter_map(|row| Some((row.policy, row.gap?))).collect();
        gaps.sort_by(|a, b| a.1.total_cmp(&b.1));
        out.push_str(&bars(&gaps));
        out.push_str(&comparison.chart.as_ref().map_or(String::new(), super::Gantt::svg));
        out.push('\n');
    }
    out.push_str("</body></html>\n");
    out
}

const TAKES: &str = "a String takes everything";

/// Behind policy and objective.
const HEADINGS: [&str; 8] = ["spread", "gap", "optimal", "memory", "share", "fragments", "planning", "schedules"];

fn table(out: &mut String, comparison: &Comparison) {
    let (rows, by) = (comparison.rows(), comparison.by());
    let first = [Some("policy"), by, Some("makespan")].into_iter().flatten();
    let headings: Vec<_> = first.chain(HEADINGS).collect();
    out.push_str("<table><thead><tr>");
    headings.iter().for_each(|heading| write!(out, "<th>{heading}</th>").expect(TAKES));
    out.push_str("</tr></thead><tbody>\n");
    let best = rows.iter().filter_map(|row| row.objective_value).min();
    for row in &rows {
        let class = if row.objective_value.is_some() && row.objective_value == best { " class=\"best\"" } else { "" };
        write!(out, "<tr{class}><td>{}</td>", escaped(row.policy)).expect(TAKES);
        if let Some(error) = row.error {
            writeln!(out, "<td colspan=\"{}\">{}</td></tr>", headings.len() - 1, escaped(error)).expect(TAKES);
            continue;
        }
        let part = |part: Option<f64>| part.map_or(String::new(), percent);
        if by.is_some() {
            let value = row.objective_value.map_or(String::new(), |value| comparison.amount(value));
            write!(out, "<td>{value}</td>").expect(TAKES);
        }
        let cells = [
            row.makespan_ms.map_or(String::new(), |ms| Millis(ms).to_string()),
            part(row.spread()),
            part(row.gap),
            if row.optimal > 0 { format!("{} of {}", row.optimal, row.seeds) } else { String::new() },
            part(row.gpu_memory_use),
            part(row.gpu_share_use),
            part(row.fragmentation),
            row.planning_us.map_or(String::new(), micros),
            row.evaluations.map_or(String::new(), |count| count.to_string()),
        ];
        cells.iter().for_each(|cell| write!(out, "<td>{cell}</td>").expect(TAKES));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
}

/// How plans did that were carried out, if any were.
fn carried_out(out: &mut String, comparison: &Comparison) {
    let rows = live::rows(comparison);
    if rows.is_empty() {
        return;
    }
    let cell =
        |out: &mut String, kind: &str, text: &str| write!(out, "<{kind}>{}</{kind}>", escaped(text)).expect(TAKES);
    write!(out, "<h3>{}</h3><table><thead><tr>", live::TITLE).expect(TAKES);
    ["policy"].into_iter().chain(live::HEADINGS).chain([""]).for_each(|heading| cell(out, "th", heading));
    out.push_str("</tr></thead><tbody>\n");
    let best = rows.iter().filter_map(|(_, row)| row.measured_ms).min();
    for (policy, row) in &rows {
        let is_best = row.measured_ms.is_some() && row.measured_ms == best;
        out.push_str(if is_best { "<tr class=\"best\">" } else { "<tr>" });
        cell(out, "td", policy);
        row.cells().iter().for_each(|text| cell(out, "td", text));
        cell(out, "td", row.error.unwrap_or_default());
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
}
