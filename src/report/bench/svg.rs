//! Charts as SVG: bars for the gaps of policies, and a plan over time. Everything that a user named is escaped.

use std::fmt::Write;

use super::super::markup::escaped;
use crate::fleet::Fleet;
use crate::graph::TaskGraph;
use crate::plan::Plan;
use crate::units::Millis;

/// A plan, ready to be drawn: a row for each place that has a task.
#[derive(Clone, Debug)]
pub struct Gantt {
    policy: String,
    makespan: Millis,
    rows: Vec<Lane>,
    /// Tasks that were left out so that a browser can still show the chart.
    hidden: usize,
}

/// One line of the chart.
#[derive(Clone, Debug)]
struct Lane {
    place: String,
    bars: Vec<Bar>,
}

#[derive(Clone, Debug)]
struct Bar {
    name: String,
    stage: usize,
    start: Millis,
    finish: Millis,
    /// When it runs, from and to, where it is suspended in between.
    pieces: Vec<(Millis, Millis)>,
}

/// Tasks that a chart shows at most.
const BARS: usize = 4_000;
/// Lines that a chart shows at most.
const LANES: usize = 200;
/// Width of a chart and of its labels, height of a line, in pixels.
const WIDTH: u64 = 960;
const LABEL: u64 = 170;
const LINE: u64 = 18;

impl Gantt {
    /// Lays out a plan: tasks that overlap at one place get lines below each other.
    #[must_use]
    pub fn new(graph: &TaskGraph, fleet: &Fleet, plan: &Plan) -> Self {
        let n_devices = fleet.devices.len();
        let mut lanes: Vec<Vec<(Millis, Lane)>> = Vec::new();
        lanes.resize_with(n_devices + fleet.nodes.len(), Vec::new);
        let mut order: Vec<_> = graph.ids().collect();
        order.sort_unstable_by_key(|task| plan.rank[task.index()]);
        let hidden = order.len().saturating_sub(BARS);
        for task in order.into_iter().take(BARS) {
            let placed = &plan.placed[task.index()];
            let host = placed.devices.is_empty().then_some(n_devices + placed.node.index());
            for place in placed.devices.iter().map(|device| device.index()).chain(host) {
                let (name, stage) = (graph.tasks[task.index()].name.clone(), graph.tasks[task.index()].stage);
                let bar =
                    Bar { name, stage, start: placed.start, finish: placed.finish, pieces: placed.segments.clone() };
                let free = lanes[place].iter_mut().find(|(end, _)| *end <= placed.start);
                if let Some((end, lane)) = free {
                    *end = placed.finish;
                    lane.bars.push(bar);
                    continue;
                }
                let first = lanes[place].is_empty();
                let named = match fleet.devices.get(place) {
                    Some(device) => device.id.clone(),
                    None => format!("{}/cpu", fleet.nodes[placed.node.index()].name),
                };
                let lane = Lane { place: if first { named } else { String::new() }, bars: vec![bar] };
                lanes[place].push((placed.finish, lane));
            }
        }
        let rows = lanes.into_iter().flatten().map(|(_, lane)| lane).take(LANES).collect();
        Self { policy: plan.policy.clone(), makespan: plan.makespan, rows, hidden }
    }

    /// Returns the chart with its caption.
    #[must_use]
    pub fn svg(&self) -> String {
        let height = (self.rows.len() as u64 + 1) * LINE;
        let mut out =
            format!("<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"plan over time\">");
        for part in 0..=4 {
            let at = Millis(u64::try_from(u128::from(self.makespan.0) * part / 4).unwrap_or(u64::MAX));
            let (x, anchor) = (self.x(at), if part == 4 { "end" } else { "start" });
            write!(out, "<line class=\"rule\" x1=\"{x}\" y1=\"0\" x2=\"{x}\" y2=\"{height}\"/>").expect(TAKES);
            write!(out, "<text x=\"{x}\" y=\"12\" text-anchor=\"{anchor}\">{at}</text>").expect(TAKES);
        }
        for (row, lane) in (1_u64..).zip(&self.rows) {
            let y = row * LINE;
            write!(out, "<text x=\"0\" y=\"{}\">{}</text>", y + 13, escaped(&shortened(&lane.place, 24))).expect(TAKES);
            for bar in &lane.bars {
                let (x, end) = (self.x(bar.start), self.x(bar.finish));
                let width = (end - x).max(1);
                let hue = bar.stage * 47 % 360;
                let (name, start, finish) = (escaped(&bar.name), bar.start, bar.finish);
                // Where it is suspended only a shadow of it is seen.
                let faint = if bar.pieces.is_empty() { "" } else { ";opacity:.3" };
                let look = format!("style=\"fill:hsl({hue} 55% 55%){faint}\"");
                let height = LINE - 3;
                write!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"2\" {look}>")
                    .expect(TAKES);
                write!(out, "<title>{name}: {start} to {finish}</title></rect>").expect(TAKES);
                for (from, to) in &bar.pieces {
                    let (x, look) = (self.x(*from), format!("style=\"fill:hsl({hue} 55% 55%);pointer-events:none\""));
                    let width = (self.x(*to) - x).max(1);
                    write!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"2\" {look}/>")
                        .expect(TAKES);
                }
                let letters = usize::try_from(width / 7).unwrap_or(0);
                if letters >= 3 {
                    let words = shortened(&bar.name, letters);
                    let words = escaped(&words);
                    write!(out, "<text class=\"in\" x=\"{}\" y=\"{}\">{words}</text>", x + 3, y + 12).expect(TAKES);
                }
            }
        }
        let more = if self.hidden > 0 { format!("; {} tasks more are not shown", self.hidden) } else { String::new() };
        let (policy, makespan) = (escaped(&self.policy), self.makespan);
        write!(out, "</svg><figcaption>The best plan: {makespan} by {policy}{more}</figcaption></figure>")
            .expect(TAKES);
        out
    }

    fn x(&self, at: Millis) -> u64 {
        let scaled = u128::from(at.0) * u128::from(WIDTH - LABEL) / u128::from(self.makespan.0.max(1));
        LABEL + u64::try_from(scaled).unwrap_or(WIDTH - LABEL).min(WIDTH - LABEL)
    }
}

/// Draws a bar for each name with an amount that is at least 0, written by `show`; the longest bar fills the chart.
pub(super) fn bars(amounts: &[(&str, f64)], show: impl Fn(f64) -> String, caption: &str) -> String {
    let most = amounts.iter().map(|(_, amount)| *amount).fold(0.001, f64::max);
    let height = amounts.len() as u64 * LINE + 4;
    let mut out = format!("<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{caption}\">");
    for (row, (name, amount)) in (0_u64..).zip(amounts) {
        let y = row * LINE;
        let left = 2 * LABEL;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the chart's width")]
        let width = (amount / most * 520.0).round().max(1.0) as u64;
        write!(out, "<text x=\"0\" y=\"{}\">{}</text>", y + 13, escaped(&shortened(name, 46))).expect(TAKES);
        write!(out, "<rect class=\"gap\" x=\"{left}\" y=\"{}\" width=\"{width}\" height=\"{}\"/>", y + 2, LINE - 4)
            .expect(TAKES);
        write!(out, "<text x=\"{}\" y=\"{}\">{}</text>", left + width + 6, y + 13, show(*amount)).expect(TAKES);
    }
    write!(out, "</svg><figcaption>{caption}</figcaption></figure>").expect(TAKES);
    out
}

const TAKES: &str = "a String takes everything";

/// Cuts a text to so many characters.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
