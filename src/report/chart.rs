//! A timeline as a picture: SVG that any browser shows, light or dark as the reader likes it.
//!
//! For every place the plan is a thin strip above what was done; gaps are hatched and say why when pointed at. Everything
//! that a user named is escaped. No script, no font and no file from elsewhere.

use std::fmt::Write;

use super::markup::escaped;
use super::text;
use super::timeline::{Row, Span, Timeline};
use crate::units::Millis;

/// Units of the picture.
const WIDTH: usize = 1_200;
const MARGIN: usize = 24;
const LABELS: usize = 132;
const HEAD: usize = 92;
/// Heights of a lane of the plan and of what was done.
const PLAN: usize = 7;
const LANE: usize = 22;
const GAP: usize = 3;
const ROW_GAP: usize = 18;
/// A plan that is longer than the run by more than this is drawn on a scale of its own.
const MOST_TIMES: u64 = 4;
/// Lanes that are drawn; what lies deeper is counted.
const LANES: usize = 24;
/// How many hues there are for stages.
pub(super) const HUES: usize = 8;
/// The width of a letter: enough for most of them.
const LETTER: f64 = 6.4;

/// The colours of charts and pages, light and dark.
pub(super) const COLOURS: &str = "\
:root{color-scheme:light dark;--bg:#fdfdfc;--ink:#1d2328;--soft:#6a737b;--line:#e3e6e8;--band:#f4f5f5;--bad:#c4314b;--crit:#1d2328;\
--s0:#3a74c2;--s1:#bd6519;--s2:#2c8460;--s3:#8355c0;--s4:#b84676;--s5:#1f8294;--s6:#86701e;--s7:#646f7a}\
@media(prefers-color-scheme:dark){:root{--bg:#14181c;--ink:#e6e9eb;--soft:#93a0aa;--line:#2b3238;--band:#1a1f24;--bad:#ff7088;--crit:#ffffff;\
--s0:#3f7ed0;--s1:#bd6b24;--s2:#318d68;--s3:#8c62cf;--s4:#c05183;--s5:#278b9d;--s6:#907828;--s7:#6c7884}}";

const STYLE: &str = "\
svg{background:var(--bg)}text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:var(--ink)}\
.h{font-size:17px;font-weight:600}.soft{fill:var(--soft)}.in{fill:#fff;pointer-events:none;font-size:11px;font-weight:500}.num{font-variant-numeric:tabular-nums}\
.grid{stroke:var(--line)}.band{fill:var(--band)}.edge{stroke:var(--soft);stroke-dasharray:3 3;fill:none}\
.failed{fill:var(--ink)}.plan{opacity:.5}.bad{stroke:var(--bad);stroke-width:2}.crit{stroke:var(--crit);stroke-width:1.5}\
.idle{fill:url(#hatch)}.idle.room{fill:url(#room)}";

/// Draws a timeline as a whole SVG file.
#[must_use]
pub fn svg(timeline: &Timeline) -> String {
    let drawn = Drawing::new(timeline).draw();
    drawn.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1)
}

struct Drawing<'a> {
    timeline: &'a Timeline,
    /// ms over the whole width.
    span: u64,
    /// How much narrower than what was done the plan is drawn.
    narrower: u64,
    out: String,
}

impl<'a> Drawing<'a> {
    fn new(timeline: &'a Timeline) -> Self {
        // Before anything is known of its tasks, a run may be planned with a minute for each.
        let times = timeline.planned_end.div_ceil(timeline.end.max(1));
        let narrower = if timeline.state != "running" && timeline.end > 0 && times > MOST_TIMES { times } else { 1 };
        let span = timeline.end.max(timeline.planned_end / narrower).max(1);
        Self { timeline, span, narrower, out: String::new() }
    }

    fn add(&mut self, part: std::fmt::Arguments<'_>) {
        self.out.write_fmt(part).expect("a String takes everything");
    }

    /// Where an instant lies.
    fn x(&self, at: u64) -> f64 {
        let width = (WIDTH - 2 * MARGIN - LABELS) as f64;
        (MARGIN + LABELS) as f64 + width * at.min(self.span) as f64 / self.span as f64
    }

    fn draw(mut self) -> String {
        let heights: Vec<usize> = self.timeline.rows.iter().map(height).collect();
        let bottom = HEAD + heights.iter().map(|height| height + ROW_GAP).sum::<usize>();
        let total = bottom + 14;
        self.add(format_args!(
            "<svg viewBox=\"0 0 {WIDTH} {total}\" width=\"{WIDTH}\" height=\"{total}\" role=\"img\">\
             <title>Run {}: plan and what became of it</title><style>{COLOURS}{STYLE}</style>\
             <defs><pattern id=\"hatch\" width=\"7\" height=\"7\" patternTransform=\"rotate(45)\" patternUnits=\"userSpaceOnUse\">\
             <path d=\"M0 0V7\" stroke=\"var(--line)\" stroke-width=\"2\"/></pattern>\
             <pattern id=\"room\" width=\"7\" height=\"7\" patternTransform=\"rotate(45)\" patternUnits=\"userSpaceOnUse\">\
             <path d=\"M0 0V7\" stroke=\"var(--s1)\" stroke-opacity=\".45\" stroke-width=\"2\"/></pattern></defs>",
            escaped(&self.timeline.run)
        ));
        self.head();
        self.ruler(bottom);
        let mut top = HEAD;
        let timeline = self.timeline;
        for (row, height) in timeline.rows.iter().zip(heights) {
            self.row(row, top, height);
            top += height + ROW_GAP;
        }
        self.out.push_str("</svg>\n");
        self.out
    }

    fn head(&mut self) {
        let Timeline { run, pipeline, state, planned_end, took, stages, .. } = self.timeline;
        let scale = if self.narrower > 1 { format!(", drawn 1:{}", self.narrower) } else { String::new() };
        let took = format!("{state} · took {} · planned {}{scale}", Millis(*took), Millis(*planned_end));
        let (title, right) = (escaped(&format!("{pipeline} · {run}")).into_owned(), WIDTH - MARGIN);
        self.add(format_args!(
            "<text class=\"h\" x=\"{MARGIN}\" y=\"34\">{title}</text>\
             <text class=\"soft\" x=\"{right}\" y=\"58\" text-anchor=\"end\">thin: planned, framed: critical, hatched: idle, orange: for want of room</text>\
             <text class=\"soft num\" x=\"{right}\" y=\"34\" text-anchor=\"end\">{took}</text>"
        ));
        let mut x = MARGIN;
        for (stage, name) in stages.iter().enumerate() {
            let shown = text::fit_middle(name, 24);
            let width = 26 + (text::width(&shown) as f64 * LETTER) as usize;
            if x + width > WIDTH - MARGIN - 380 {
                break;
            }
            let (hue, shown, at) = (stage % HUES, escaped(&shown).into_owned(), x + 15);
            self.add(format_args!(
                "<rect x=\"{x}\" y=\"49\" width=\"10\" height=\"10\" rx=\"2\" fill=\"var(--s{hue})\"/>\
                 <text class=\"soft\" x=\"{at}\" y=\"58\">{shown}</text>"
            ));
            x += width;
        }
    }

    /// Draws times over the rows and a line down from each.
    fn ruler(&mut self, bottom: usize) {
        let step = step(self.span);
        let mut at = 0;
        while at <= self.span {
            let (x, y) = (self.x(at), HEAD - 14);
            self.add(format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{bottom}\"/>\
                 <text class=\"soft num\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
                HEAD - 8,
                if at == 0 { "0".to_owned() } else { Millis(at).to_string() }
            ));
            at += step;
        }
        let x = self.x(self.timeline.planned_end / self.narrower);
        self.add(format_args!(
            "<path class=\"edge\" d=\"M{x:.1} {}V{bottom}\"><title>planned end: {}</title></path>",
            HEAD - 8,
            Millis(self.timeline.planned_end)
        ));
    }

    fn row(&mut self, row: &Row, top: usize, height: usize) {
        let (from, width) = (self.x(0), self.x(self.span) - self.x(0));
        let (planned, _) = row.lanes();
        let below_plan = top + planned.min(LANES) * (PLAN + 1) + if planned > 0 { GAP } else { 0 };
        let label = escaped(&text::fit_middle(&row.place, 20)).into_owned();
        let end = self.timeline.end;
        let part = (row.busy(end) * 100).checked_div(end);
        let part = part.map_or_else(String::new, |part| format!("{part}% busy"));
        self.add(format_args!(
            "<rect class=\"band\" x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\" rx=\"3\"/>\
             <text x=\"{MARGIN}\" y=\"{}\">{label}</text><text class=\"soft num\" x=\"{MARGIN}\" y=\"{}\">{part}</text>",
            top + 13,
            top + 28
        ));
        for idle in &row.idle {
            let (x, to) = (self.x(idle.from), self.x(idle.to));
            let lanes_height = top + height - below_plan;
            self.add(format_args!(
                "<rect class=\"idle {}\" x=\"{x:.1}\" y=\"{below_plan}\" width=\"{:.1}\" height=\"{lanes_height}\">\
                 <title>idle for {}: {}</title></rect>",
                idle.cause.word(),
                (to - x).max(0.0),
                Millis(idle.to - idle.from),
                escaped(&idle.cause.words())
            ));
        }
        for span in row.planned.iter().filter(|span| span.lane < LANES) {
            self.plan(span, top + span.lane * (PLAN + 1));
        }
        for span in row.actual.iter().filter(|span| span.lane < LANES) {
            self.done(span, below_plan + span.lane * LANE);
        }
        let hidden = row.planned.iter().chain(&row.actual).filter(|span| span.lane >= LANES).count();
        if hidden > 0 {
            self.add(format_args!(
                "<text class=\"soft\" x=\"{MARGIN}\" y=\"{}\">+ {hidden} more</text>",
                top + height.min(44)
            ));
        }
    }

    fn plan(&mut self, span: &Span, y: usize) {
        let [from, to] = [span.from, span.to].map(|at| at / self.narrower);
        let (x, width) = self.bar(&Span { from, to, ..Span::default() });
        self.add(format_args!(
            "<rect class=\"plan{}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{PLAN}\" rx=\"1.5\" fill=\"var(--s{})\">\
             <title>{}, planned: {} from {}{}</title></rect>",
            if span.critical { " crit" } else { "" },
            span.stage % HUES,
            escaped(&span.name),
            Millis(span.to - span.from),
            Millis(span.from),
            if span.critical { ", on the critical path" } else { "" },
        ));
        self.turns(span, (y, PLAN), self.narrower, "plan");
    }

    fn done(&mut self, span: &Span, y: usize) {
        let (x, width) = self.bar(span);
        let (number, how) = span.attempt.as_ref().map_or((1, ""), |(number, how)| (*number, how.as_str()));
        let is_bad = !matches!(how, "succeeded" | "running");
        let again = if number > 1 { format!(", attempt {number}") } else { String::new() };
        self.add(format_args!(
            "<g><title>{}{again}: {how}, {} from {}</title>\
             <rect class=\"{}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" rx=\"3\" fill=\"var(--s{})\"{}/>",
            escaped(&span.name),
            Millis(span.to - span.from),
            Millis(span.from),
            if is_bad { "bad" } else { "" },
            LANE - 2,
            span.stage % HUES,
            // Of one that was suspended only its turns are drawn in full.
            if is_bad || !span.pieces.is_empty() { " fill-opacity=\".35\"" } else { "" },
        ));
        self.turns(span, (y, LANE - 2), 1, "");
        let letters = ((width - 8.0) / LETTER).max(0.0) as usize;
        if letters >= 3 {
            let shown = text::fit_middle(&span.name, letters);
            self.add(format_args!(
                "<text class=\"in{}\" x=\"{:.1}\" y=\"{}\">{}</text>",
                if is_bad { " failed" } else { "" },
                x + 5.0,
                y + LANE - 8,
                escaped(&shown)
            ));
        }
        self.out.push_str("</g>");
    }

    /// Draws the turns of what is suspended in between.
    fn turns(&mut self, span: &Span, (y, height): (usize, usize), narrower: u64, class: &str) {
        for (from, to) in &span.pieces {
            let (x, width) = self.bar(&Span { from: from / narrower, to: to / narrower, ..Span::default() });
            self.add(format_args!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" rx=\"2\" fill=\"var(--s{})\" pointer-events=\"none\"/>",
                span.stage % HUES
            ));
        }
    }

    /// Where a span begins and how wide it is: never too thin to be seen.
    fn bar(&self, span: &Span) -> (f64, f64) {
        let (x, to) = (self.x(span.from), self.x(span.to));
        (x, (to - x - 1.0).max(1.5))
    }
}

fn height(row: &Row) -> usize {
    let (planned, done) = row.lanes();
    let plan = if planned > 0 { planned.min(LANES) * (PLAN + 1) + GAP } else { 0 };
    (plan + done.clamp(1, LANES) * LANE).max(34)
}

/// Returns the time between two marks of a ruler: a round one, of which at most ten fit.
fn step(span: u64) -> u64 {
    const SECOND: u64 = 1_000;
    let round = [1, 2, 5, 10, 20, 50, 100, 200, 500].into_iter();
    let round = round
        .chain([1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200].map(|s| s * SECOND));
    round.chain((1..).map(|days| days * 86_400 * SECOND)).find(|step| span / step <= 10).unwrap_or(span.max(1))
}

/// Draws a timeline for a page, whose style it shares.
pub(super) fn in_page(timeline: &Timeline) -> String {
    Drawing::new(timeline).draw()
}

#[cfg(test)]
mod tests {
    use super::super::idle::{Cause, Idle};
    use super::*;

    fn example(name: &str) -> Timeline {
        let planned = Span { name: name.into(), to: 8_000, critical: true, ..Span::default() };
        let done = Span { from: 1_000, attempt: Some((2, "exited:1".into())), ..planned.clone() };
        let idle = vec![Idle { from: 0, to: 1_000, cause: Cause::Waits(name.into()) }];
        Timeline {
            run: name.into(),
            pipeline: name.into(),
            state: "failed",
            stages: vec![name.into()],
            rows: vec![Row { place: name.into(), planned: vec![planned], actual: vec![done], idle }],
            planned_end: 8_000,
            end: 9_000,
            took: 9_000,
            critical: vec![true],
        }
    }

    #[test]
    fn a_name_cannot_become_markup() {
        let drawn = svg(&example("<script>alert(1)</script>\"'&\u{0}"));
        assert!(!drawn.contains("<script") && !drawn.contains('\u{0}'), "{drawn}");
        assert!(drawn.contains("&lt;script&gt;"), "{drawn}");
    }

    #[test]
    fn a_plan_much_longer_than_the_run_leaves_the_run_its_room() {
        let mut timeline = example("train");
        timeline.planned_end = 90_000;
        timeline.rows[0].planned[0].to = 90_000;
        let drawing = Drawing::new(&timeline);
        assert_eq!((drawing.span, drawing.narrower), (9_000, 10));
        let drawn = drawing.draw();
        assert!(drawn.contains("planned 1m30s, drawn 1:10"), "{drawn}");
        assert!(drawn.contains("train, planned: 1m30s from 0"), "{drawn}");
    }

    #[test]
    fn every_tag_is_closed() {
        let drawn = svg(&example("train"));
        for tag in ["svg", "g", "text", "title", "defs", "pattern"] {
            let opened = drawn.matches(&format!("<{tag}>")).count() + drawn.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, drawn.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(drawn.contains("idle for 1s: waiting for train"), "{drawn}");
        assert!(drawn.contains("train, attempt 2: exited:1, 7s from 1s"), "{drawn}");
    }

    #[test]
    fn marks_are_round_and_few() {
        for (span, expected) in [(1, 1), (9, 1), (95_000, 10_000), (3_600_000, 600_000), (10_000_000_000, 950_400_000)]
        {
            assert_eq!(step(span), expected, "{span}");
        }
    }
}
