//! How fits compare where requests arrive one by one at a cluster: a table, CSV, JSON and, by [`page`](super::replays), a page.
//!
//! Does not replay anything and does not measure time.

use serde::Serialize;

use super::super::paint::{Colour, Tone};
use super::super::table::{Cell, Column, Table};
use super::super::text;
use super::{csv, median, median_part, micros, percent, ratio};
use crate::plan::arrivals::{Outcome, Rule};

/// What was compared: a trace of arrivals by several fits.
#[derive(Debug)]
pub struct Replays {
    /// The trace's name.
    pub trace: String,
    /// How many nodes there are.
    pub nodes: usize,
    /// One for each fit.
    pub entries: Vec<(Rule, Vec<Replayed>)>,
}

/// What one fit made of one order of arrivals.
#[derive(Clone, Debug)]
pub struct Replayed {
    arrivals: usize,
    rejected: usize,
    capacity: u64,
    asked: u64,
    given: u64,
    fragmented: u64,
    micros: u64,
}

impl Replayed {
    /// Takes what is compared from an outcome that took so many microseconds to find.
    #[must_use]
    pub fn new(outcome: &Outcome, micros: u64) -> Self {
        let Outcome { capacity, asked, given, fragmented, .. } = *outcome;
        let (arrivals, rejected) = (outcome.sites.len(), outcome.rejected());
        Self { arrivals, rejected, capacity, asked, given, fragmented, micros }
    }

    fn left(&self) -> f64 {
        gpus(self.capacity - self.given)
    }
}

/// A fit's replays in one row: medians, and how far they lie apart. The keys of the JSON are these names.
#[derive(Clone, Debug, Serialize)]
pub struct Row<'a> {
    trace: &'a str,
    nodes: usize,
    gpus: f64,
    fit: &'a str,
    /// What it knows of what arrives.
    knows: &'static str,
    orders: usize,
    arrivals: Option<u64>,
    rejected: Option<u64>,
    unallocated_gpus: Option<f64>,
    unallocated_gpus_mean: Option<f64>,
    unallocated_gpus_least: Option<f64>,
    unallocated_gpus_most: Option<f64>,
    /// Of all GPUs.
    allocated: Option<f64>,
    /// Of those that were asked for.
    demand_allocated: Option<f64>,
    /// What of the unallocated ones a request of the mix cannot use, in the mean.
    fragmented_gpus: Option<f64>,
    replay_us: Option<u64>,
}

impl Replays {
    /// Returns one row for each fit, in the order in which they were asked for.
    #[must_use]
    pub fn rows(&self) -> Vec<Row<'_>> {
        self.entries.iter().map(|(rule, replays)| self.row(*rule, replays)).collect()
    }

    fn row(&self, rule: Rule, replays: &[Replayed]) -> Row<'_> {
        let count = |value: fn(&Replayed) -> u64| median(replays.iter().map(value).collect());
        let part = |value: fn(&Replayed) -> f64| median_part(replays.iter().map(value));
        let left = || replays.iter().map(Replayed::left);
        #[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
        let mean = (!replays.is_empty()).then(|| left().sum::<f64>() / replays.len() as f64);
        Row {
            trace: &self.trace,
            nodes: self.nodes,
            gpus: gpus(replays.first().map_or(0, |replayed| replayed.capacity)),
            fit: rule.name(),
            knows: rule.knows(),
            orders: replays.len(),
            arrivals: count(|replayed| replayed.arrivals as u64),
            rejected: count(|replayed| replayed.rejected as u64),
            unallocated_gpus: part(Replayed::left),
            unallocated_gpus_mean: mean,
            unallocated_gpus_least: left().min_by(f64::total_cmp),
            unallocated_gpus_most: left().max_by(f64::total_cmp),
            allocated: part(|replayed| ratio(replayed.given, replayed.capacity)),
            demand_allocated: part(|replayed| ratio(replayed.given, replayed.asked)),
            fragmented_gpus: part(|replayed| gpus(replayed.fragmented)),
            replay_us: count(|replayed| replayed.micros),
        }
    }

    /// Returns the comparison as CSV.
    #[must_use]
    pub fn csv(&self) -> String {
        csv::lines(&self.rows())
    }

    /// Returns what the best fit leaves in the median, in GPUs.
    pub(super) fn best(&self) -> Option<f64> {
        self.rows().iter().filter_map(Row::left).min_by(f64::total_cmp)
    }

    /// What stands above the cells of a row.
    pub(super) const HEADINGS: [&'static str; 10] =
        ["fit", "GPUs left", "least", "most", "allocated", "of demand", "rejected", "fragments", "time", "knows"];

    /// Returns the comparison as a table under a line that says of what, at most `most` columns wide where it may give
    /// way.
    #[must_use]
    pub fn text(&self, colour: Colour, most: Option<usize>) -> String {
        let columns = Self::HEADINGS.map(|heading| match heading {
            "fit" => Column::left(heading),
            "knows" => Column::left(heading).that_gives_way(),
            _ => Column::right(heading),
        });
        let mut table = Table::new(columns);
        let best = self.best();
        for row in &self.rows() {
            let tone = if row.left() == best { Tone::Strong } else { Tone::Plain };
            let cells = (0..).zip(row.cells());
            table.row(cells.map(|(at, text)| if at < 2 { Cell::new(text, tone) } else { text.into() }));
        }
        colour.paint(Tone::Strong, &self.title()) + "\n" + &table.render(colour, most)
    }

    /// Says what was compared, in one line.
    pub(super) fn title(&self) -> String {
        let replays = || self.entries.iter().flat_map(|(_, replays)| replays);
        let orders = self.entries.first().map_or(0, |(_, replays)| replays.len());
        let capacity = gpus(replays().next().map_or(0, |replayed| replayed.capacity));
        let arrivals = median(replays().map(|replayed| replayed.arrivals as u64).collect()).unwrap_or(0);
        let asked = median_part(replays().map(|replayed| gpus(replayed.asked))).unwrap_or(0.0);
        let orders = if orders == 1 { "1 order".to_owned() } else { format!("{orders} orders") };
        format!(
            "{}: {arrivals} arrivals ask for {asked:.1} GPUs of {capacity}, on {} nodes, {orders}",
            text::visible(&self.trace),
            self.nodes
        )
    }
}

impl Row<'_> {
    /// Returns the fit's name.
    pub(super) const fn fit(&self) -> &str {
        self.fit
    }

    /// Returns how many GPUs are left in the median.
    pub(super) const fn left(&self) -> Option<f64> {
        self.unallocated_gpus
    }

    /// Returns what stands in a row, in the order of the headings.
    pub(super) fn cells(&self) -> [String; Replays::HEADINGS.len()] {
        let gpus = |gpus: Option<f64>| gpus.map_or(String::new(), |gpus| format!("{gpus:.1}"));
        let spread = |end: Option<f64>| gpus(end.filter(|_| self.orders > 1));
        let part = |part: Option<f64>| part.map_or(String::new(), percent);
        [
            self.fit.to_owned(),
            gpus(self.unallocated_gpus),
            spread(self.unallocated_gpus_least),
            spread(self.unallocated_gpus_most),
            part(self.allocated),
            part(self.demand_allocated),
            self.rejected.map_or(String::new(), |rejected| rejected.to_string()),
            gpus(self.fragmented_gpus),
            self.replay_us.map_or(String::new(), micros),
            self.knows.to_owned(),
        ]
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn gpus(millionths: u64) -> f64 {
    millionths as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::arrivals::Site;

    /// Four GPUs, of which so many millionths were given out; one of two arrivals was turned away.
    fn replayed(given: u64) -> Replayed {
        let sites = vec![Some(Site { node: 0, devices: vec![0] }), None];
        let outcome = Outcome { sites, capacity: 4_000_000, asked: 5_000_000, given, fragmented: 250_000 };
        Replayed::new(&outcome, 1_500)
    }

    fn example() -> Replays {
        let some = vec![replayed(3_500_000), replayed(4_000_000), replayed(3_000_000)];
        let entries = vec![(Rule::FirstFit, vec![replayed(2_000_000)]), (Rule::Fill, some)];
        Replays { trace: "tiny".into(), nodes: 2, entries }
    }

    #[test]
    fn the_table_has_medians_and_spreads() {
        insta::assert_snapshot!(example().text(Colour::Never, None), @"
        tiny: 2 arrivals ask for 5.0 GPUs of 4, on 2 nodes, 1 order
        fit        GPUs left  least  most  allocated  of demand  rejected  fragments   time  knows
        first-fit        2.0                  50.0 %     40.0 %         1        0.2  1.5ms  nothing
        fill             0.5    0.0   1.0     87.5 %     70.0 %         1        0.2  1.5ms  the pods so far
        ");
    }

    #[test]
    fn csv_has_the_mean_as_well() {
        insta::assert_snapshot!(example().csv().replace("\r\n", "\n"), @"
        trace,nodes,gpus,fit,knows,orders,arrivals,rejected,unallocated_gpus,unallocated_gpus_mean,unallocated_gpus_least,unallocated_gpus_most,allocated,demand_allocated,fragmented_gpus,replay_us
        tiny,2,4.0,first-fit,nothing,1,2,1,2.0,2.0,2.0,2.0,0.5,0.4,0.25,1500
        tiny,2,4.0,fill,the pods so far,3,2,1,0.5,0.5,0.0,1.0,0.875,0.7,0.25,1500
        ");
    }
}
