//! Aligned tables of text, for people. Two spaces between columns, no frame, so that `cut` and `awk` still work.
//!
//! Cells are made safe for a terminal here, so that no caller has to think of it. Does not know what is in them.

use std::fmt;

use super::paint::{Colour, Tone};
use super::text;

/// One cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Makes a cell with a meaning, which colour shows.
    pub fn new(text: impl fmt::Display, tone: Tone) -> Self {
        Self { text: text::visible(&text.to_string()).into_owned(), tone }
    }
}

impl<T: fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// A column's heading and how its cells stand.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    heading: &'static str,
    right: bool,
    gives_way: bool,
    goes: Option<u8>,
}

impl Column {
    /// Makes a column of words.
    #[must_use]
    pub const fn left(heading: &'static str) -> Self {
        Self { heading, right: false, gives_way: false, goes: None }
    }

    /// Makes a column of numbers.
    #[must_use]
    pub const fn right(heading: &'static str) -> Self {
        Self { heading, right: true, gives_way: false, goes: None }
    }

    /// Lets the column's cells be cut in the middle where the terminal is too narrow for the table.
    #[must_use]
    pub const fn that_gives_way(mut self) -> Self {
        self.gives_way = true;
        self
    }

    /// Leaves the column out where the terminal is too narrow for the table: that of the lowest number goes first.
    #[must_use]
    pub const fn that_goes(mut self, order: u8) -> Self {
        self.goes = Some(order);
        self
    }
}

/// Rows under headings. `Display` writes it without colour and as wide as it needs.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// Columns narrower than this are not cut any more: what is left would say nothing.
const NARROWEST: usize = 8;

impl Table {
    /// Makes an empty table.
    #[must_use]
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty; cells beyond the last column are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = cells.into_iter().take(self.columns.len()).collect();
        row.resize_with(self.columns.len(), Cell::default);
        self.rows.push(row);
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether all of it can be seen in so many columns.
    #[must_use]
    pub fn fits(&self, columns: usize) -> bool {
        let widths = self.natural_widths();
        over(&widths, &self.shown(&widths, None), Some(columns)) == 0
    }

    /// Returns the table as lines, each ended by a newline and, as far as columns may give way, at most `most` columns
    /// wide. A column without a single entry is left out, so that there is room for those that say something.
    #[must_use]
    pub fn render(&self, colour: Colour, most: Option<usize>) -> String {
        let natural = self.natural_widths();
        let shown = self.shown(&natural, most);
        let widths = self.widths(natural, &shown, most);
        let mut lines = String::new();
        let headings: Vec<Cell> = self.columns.iter().map(|column| Cell::new(column.heading, Tone::Faint)).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (i, (cell, column)) in row.iter().zip(&self.columns).enumerate().filter(|(i, _)| shown[*i]) {
                let words = text::fit_middle(&cell.text, widths[i]);
                let gap = " ".repeat(widths[i] - text::width(&words));
                let painted = colour.paint(if words.is_empty() { Tone::Plain } else { cell.tone }, &words);
                line.push_str(if line.is_empty() { "" } else { "  " });
                line.push_str(&if column.right { gap + &painted } else { painted + &gap });
            }
            lines.push_str(line.trim_end());
            lines.push('\n');
        }
        lines
    }

    /// Returns how wide each column would be.
    fn natural_widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| text::width(column.heading)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(text::width(&cell.text));
            }
        }
        widths
    }

    /// Returns which columns are shown: those that have an entry, all of them in a table without rows, but for such as go
    /// where there is no room.
    fn shown(&self, widths: &[usize], most: Option<usize>) -> Vec<bool> {
        let entry = |i: usize| self.rows.is_empty() || self.rows.iter().any(|row| !row[i].text.is_empty());
        let mut shown: Vec<bool> = (0..self.columns.len()).map(entry).collect();
        while over(widths, &shown, most) > 0 {
            let may_go = (0..shown.len()).filter(|&i| shown[i]);
            let Some((_, i)) = may_go.filter_map(|i| Some((self.columns[i].goes?, i))).min() else { break };
            shown[i] = false;
        }
        shown
    }

    /// Returns how wide each column is shown, once some have given way.
    fn widths(&self, mut widths: Vec<usize>, shown: &[bool], most: Option<usize>) -> Vec<usize> {
        for _ in 0..over(&widths, shown, most) {
            // The widest gives way first, a column at a time, so that two long columns end up alike.
            let gives_way = (0..widths.len()).filter(|&i| shown[i] && self.columns[i].gives_way);
            let widest = gives_way.max_by_key(|&i| widths[i]);
            let Some(i) = widest.filter(|&i| widths[i] > NARROWEST) else { break };
            widths[i] -= 1;
        }
        widths
    }
}

/// Returns by how much a table with these columns is too wide.
fn over(widths: &[usize], shown: &[bool], most: Option<usize>) -> usize {
    let shown = widths.iter().zip(shown).filter(|(_, shown)| **shown);
    let (count, sum) = shown.fold((0_usize, 0), |(count, sum), (width, _)| (count + 1, sum + width));
    most.map_or(0, |most| (sum + 2 * count.saturating_sub(1)).saturating_sub(most))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Colour::Never, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table =
            Table::new([Column::left("task").that_gives_way(), Column::right("time"), Column::left("ended")]);
        table.row(["clean".into(), "2s".into(), Cell::new("succeeded", Tone::Good)]);
        table.row(["train[lr=0.1,batch=64,seed=1]".into(), "1h30m".into(), Cell::new("exited:1", Tone::Bad)]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        insta::assert_snapshot!(example(), @r"
        task                            time  ended
        clean                             2s  succeeded
        train[lr=0.1,batch=64,seed=1]  1h30m  exited:1
        ");
    }

    #[test]
    fn on_a_narrow_terminal_the_column_that_may_gives_way() {
        let narrow = example().render(Colour::Never, Some(36));
        insta::assert_snapshot!(narrow, @"
        task                 time  ended
        clean                  2s  succeeded
        train[lr=…,seed=1]  1h30m  exited:1
        ");
        assert!(narrow.lines().all(|line| text::width(line) <= 36));
    }

    #[test]
    fn a_column_that_may_go_goes_before_others_are_cut() {
        let mut table = Table::new([
            Column::left("gpu"),
            Column::left("uuid").that_goes(0),
            Column::right("power").that_goes(1),
            Column::left("note").that_gives_way(),
        ]);
        table.row(["gpu0".into(), "GPU-0123".into(), "75 W".into(), "in quarantine".into()]);
        let lines = |most| table.render(Colour::Never, Some(most)).lines().nth(1).map(str::to_owned).unwrap();
        assert_eq!(lines(36), "gpu0  GPU-0123   75 W  in quarantine");
        assert_eq!(lines(35), "gpu0   75 W  in quarantine");
        assert_eq!(lines(25), "gpu0  in quarantine");
        assert_eq!(lines(18), "gpu0  in qua…ntine");
    }

    #[test]
    fn colour_does_not_move_a_column() {
        let painted = example().render(Colour::Ansi, None);
        assert!(painted.contains("\x1b[31mexited:1\x1b[0m"));
        assert_eq!(console::strip_ansi_codes(&painted), example().to_string());
    }

    #[test]
    fn a_control_sequence_in_a_cell_does_not_reach_the_terminal() {
        let mut table = Table::new([Column::left("name")]);
        table.row(["\x1b[2Jgone\n".into()]);
        assert_eq!(table.to_string(), "name\n\\u{1b}[2Jgone\\n\n");
    }

    #[test]
    fn a_short_row_is_filled_up() {
        let mut table = Table::new([Column::left("a"), Column::left("b")]);
        table.row(["1".into()]);
        table.row(["2".into(), "3".into()]);
        assert_eq!(table.to_string(), "a  b\n1\n2  3\n");
    }

    #[test]
    fn a_column_without_an_entry_is_left_out() {
        let mut table = Table::new([Column::left("a"), Column::left("nothing"), Column::left("b")]);
        assert_eq!(table.to_string(), "a  nothing  b\n");
        table.row(["1".into(), Cell::default(), "2".into()]);
        assert_eq!(table.to_string(), "a  b\n1  2\n");
    }
}
