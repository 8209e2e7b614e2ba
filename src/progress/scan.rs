//! What one line says: counts (`12/300`), parts (`40%`), epochs, rounds, and figures (`loss: 0.1`).
//!
//! One pass over the bytes that looks closer only at `%`, `/`, `=` and `:`. Works on bytes without escape sequences, in
//! any encoding. What a line means for the whole is [`super::position`]'s business.

use std::ops::Range;

use memchr::memchr;

use super::number::{self, Number};

/// So much done of so much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Count<'a> {
    /// What stands before it; of a bar its title.
    pub(super) label: &'a [u8],
    pub(super) done: f64,
    pub(super) total: f64,
}

/// An epoch by its number, and of how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Epoch {
    pub(super) number: f64,
    pub(super) of: Option<f64>,
}

/// A figure: its name lies in the line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: Range<usize>,
    /// The name is a unit, and the value so many of them in a second.
    pub(super) per_second: bool,
    pub(super) value: f64,
}

/// What a line says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Said<'a> {
    pub(super) epoch: Option<Epoch>,
    /// A bar, or a count that cannot mean anything else.
    pub(super) count: Option<Count<'a>>,
    /// A count that may be a date or a score: it is one if it grows from line to line.
    pub(super) doubtful: Option<Count<'a>>,
    /// 0 to 1.
    pub(super) part: Option<f64>,
    /// Of a boosted model.
    pub(super) round: Option<f64>,
    /// `step: 120`, without a total.
    pub(super) step: Option<f64>,
    /// So many, of nobody knows how many: the end of the number, in a bar without a total.
    pub(super) so_far: Option<(f64, &'a [u8])>,
    /// Whether it is a dictionary, as a trainer logs it.
    pub(super) is_dict: bool,
}

impl Said<'_> {
    /// Whether the line says where the work is, so that all its figures belong to it.
    pub(super) const fn tells_position(&self) -> bool {
        self.epoch.is_some()
            || self.count.is_some()
            || self.part.is_some()
            || self.round.is_some()
            || self.step.is_some()
            || self.so_far.is_some()
    }
}

/// The most figures that are read of one line.
const FIGURES: usize = 32;

/// Bytes at which a closer look is worth it.
const CANDIDATE: [bool; 256] = {
    let mut table = [false; 256];
    table[b'%' as usize] = true;
    table[b'/' as usize] = true;
    table[b'=' as usize] = true;
    table[b':' as usize] = true;
    table
};

/// Bytes that names of figures are made of.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let as_byte = byte as u8;
        table[byte] = as_byte.is_ascii_alphanumeric() || matches!(as_byte, b'_' | b'.' | b'/' | b'@' | b'-' | b'\'');
        byte += 1;
    }
    table
};

/// Reads a line; figures are added to `figures`. Of an `open` line the end has not come: a number that touches it may
/// go on and is not read.
pub(super) fn scan<'a>(line: &'a [u8], open: bool, figures: &mut Vec<Named>) -> Said<'a> {
    figures.clear();
    let mut scan = Scan { line, open, figures, said: Said::default() };
    let mut at = 0;
    while let Some(found) = line[at..].iter().position(|byte| CANDIDATE[usize::from(*byte)]) {
        let here = at + found;
        at = match line[here] {
            b'%' => scan.percent(here),
            b'/' => scan.slash(here),
            _ => scan.figure(here),
        }
        .max(here + 1);
    }
    scan.finish()
}

struct Scan<'a, 'f> {
    line: &'a [u8],
    open: bool,
    figures: &'f mut Vec<Named>,
    said: Said<'a>,
}

impl<'a> Scan<'a, '_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.line.get(at).copied()
    }

    fn before(&self, at: usize) -> Option<u8> {
        self.byte(at.checked_sub(1)?)
    }

    /// Whether a number that ends here may still go on.
    fn may_go_on(&self, end: usize) -> bool {
        self.open && end >= self.line.len()
    }

    /// Reads `40%`, and the bar behind it. Returns where to go on.
    fn percent(&mut self, sign: usize) -> usize {
        let start = number::start_before(self.line, sign);
        let Some(Number { value, end }) = number::at(self.line, start) else { return sign };
        if end != sign || value > 100.0 {
            return sign;
        }
        let label = &self.line[..start];
        if self.byte(sign + 1) == Some(b'|') {
            return self.bar(label, value, sign + 2);
        }
        let before = label.trim_ascii();
        let bracketed = before == b"[" && self.byte(sign + 1) == Some(b']');
        if before.is_empty() || bracketed || is_any(word_before(label), &PARTS) {
            self.said.part = Some(value / 100.0);
        }
        sign
    }

    /// Reads the bar that begins at `from`: `████      | 12/300 [00:01<00:10, …`.
    fn bar(&mut self, label: &'a [u8], percent: f64, from: usize) -> usize {
        self.said.part = Some(percent / 100.0);
        let Some(close) = memchr(b'|', &self.line[from..]).map(|close| from + close) else { return self.line.len() };
        let counts_from = close + 1 + usize::from(self.byte(close + 1) == Some(b' '));
        let label = label.trim_ascii();
        let label = label.strip_suffix(b":").unwrap_or(label);
        self.epoch_in_title(label);
        let Some(done) = number::scaled(self.line, counts_from) else { return close };
        let total = (self.byte(done.end) == Some(b'/')).then(|| number::scaled(self.line, done.end + 1)).flatten();
        match total {
            Some(total) if !self.may_go_on(total.end) => {
                self.count(label, done.value, total.value);
                total.end
            }
            _ => done.end,
        }
    }

    /// Takes in the `Epoch 3` of a bar's title.
    fn epoch_in_title(&mut self, title: &[u8]) {
        let start = number::start_before(title, title.len());
        if self.said.epoch.is_none() && is_epoch(word_before(&title[..start])) {
            let number = number::at(title, start).map(|number| number.value);
            self.said.epoch = number.map(|number| Epoch { number, of: None });
        }
    }

    fn count(&mut self, label: &'a [u8], done: f64, total: f64) -> bool {
        let sound = (0.0..=total).contains(&done) && total > 0.0;
        if sound {
            self.said.count = Some(Count { label, done, total });
        }
        sound
    }

    /// Reads what a slash stands in: `12/300`, `99.5it/s`, `1.2s/it`.
    fn slash(&mut self, slash: usize) -> usize {
        match (self.before(slash), self.byte(slash + 1)) {
            (Some(before), Some(b'0'..=b'9')) if before.is_ascii_digit() => self.fraction(slash),
            (Some(before), Some(b's')) if before.is_ascii_alphabetic() && !self.is_letter(slash + 2) => {
                self.rate(slash);
                slash + 2
            }
            (Some(b's'), Some(after)) if after.is_ascii_alphabetic() => self.inverse_rate(slash),
            _ => slash,
        }
    }

    fn is_letter(&self, at: usize) -> bool {
        self.byte(at).is_some_and(|byte| byte.is_ascii_alphabetic())
    }

    fn fraction(&mut self, slash: usize) -> usize {
        let start = number::start_before(self.line, slash);
        let (Some(done), Some(total)) = (number::at(self.line, start), number::at(self.line, slash + 1)) else {
            return slash;
        };
        let starts = matches!(self.before(start), None | Some(b' ' | b'\t' | b'[' | b'(' | b'|' | b':' | b'=' | b'#'));
        let ends = matches!(self.byte(total.end), None | Some(b' ' | b'\t' | b']' | b')' | b'|' | b',' | b':' | b';'));
        let whole = self.line[start..total.end].iter().all(|byte| *byte != b'.');
        if !starts || !ends || !whole || done.end != slash || self.may_go_on(total.end) {
            return total.end;
        }
        let label = &self.line[..start];
        let word = word_before(label);
        let (done, end, total) = (done.value, total.end, total.value);
        if is_epoch(word) {
            if done <= total {
                self.said.epoch = Some(Epoch { number: done, of: Some(total) });
            }
        } else if is_any(word, &STEPS) || self.stands_as_count(label, end) {
            self.count(label.trim_ascii(), done, total);
        } else if self.said.count.is_none() && total > 0.0 && done <= total {
            self.said.doubtful = Some(Count { label, done, total });
        }
        end
    }

    /// Whether a count of these surroundings is one: at the beginning and in brackets, before a bar or before a dash.
    fn stands_as_count(&self, label: &[u8], end: usize) -> bool {
        let label = label.trim_ascii();
        let after = self.line[end..].trim_ascii_start();
        let bracketed = matches!(label.last(), Some(b'[' | b'('));
        let in_front = label.is_empty() || (bracketed && label.len() == 1);
        // The pieces of bars that Keras and rich draw are three bytes long and begin so.
        let before_bar = after.starts_with(b"\xe2\x94") || after.starts_with(b"\xe2\x95");
        let before_ascii_bar = matches!(after, [b'[', b'=' | b'>' | b'.' | b'#', ..]);
        before_bar
            || before_ascii_bar
            || (bracketed && (in_front || self.said.epoch.is_some()))
            || (in_front && after.starts_with(b"- "))
    }

    /// Reads `99.5it/s`.
    fn rate(&mut self, slash: usize) {
        let unit = slash - self.line[..slash].iter().rev().take_while(|byte| byte.is_ascii_alphabetic()).count();
        // 12.3kB/s: the scale stands before the unit.
        let start = number::start_before(self.line, unit);
        if let Some(Number { value, end }) = number::at(self.line, start)
            && end == unit
        {
            self.push(unit..slash, true, value);
        } else if self.before(unit) == Some(b' ') && !self.goes_on(slash + 2) {
            self.spaced_rate(unit, slash);
        }
    }

    /// Reads `1.2k samples/s`.
    fn spaced_rate(&mut self, unit: usize, slash: usize) {
        let scaled = matches!(self.before(unit - 1), Some(b'k' | b'K' | b'M' | b'G' | b'T'));
        let start = number::start_before(self.line, unit - 1 - usize::from(scaled));
        // What touches a number on its left is a name or a part of one.
        let stands_alone =
            self.before(start).is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"_-+/".contains(&byte));
        if let Some(Number { value, end }) = number::scaled(self.line, start)
            && end == unit - 1
            && stands_alone
        {
            self.push(unit..slash, true, value);
        }
    }

    /// Whether a word goes on there.
    fn goes_on(&self, at: usize) -> bool {
        self.byte(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_/-".contains(&byte))
    }

    /// Reads `1.2s/it` and `12ms/step`.
    fn inverse_rate(&mut self, slash: usize) -> usize {
        let (suffix, scale) = match self.before(slash - 1) {
            Some(b'm') => (2, 1e-3),
            Some(b'u') => (2, 1e-6),
            _ => (1, 1.0),
        };
        let start = number::start_before(self.line, slash - suffix);
        let unit_end = slash + 1 + self.line[slash + 1..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if let Some(Number { value, end }) = number::at(self.line, start)
            && end == slash - suffix
            && value > 0.0
            && !self.may_go_on(unit_end)
        {
            self.push(slash + 1..unit_end, true, 1.0 / (value * scale));
        }
        unit_end
    }

    /// Reads `loss: 0.1`, `loss=0.1` and `'loss': '0.1'` at the sign between name and value.
    fn figure(&mut self, sign: usize) -> usize {
        let mut from = sign + 1;
        while self.byte(from) == Some(b' ') && from < sign + 3 {
            from += 1;
        }
        let quote = self.byte(from).filter(|byte| matches!(byte, b'\'' | b'"'));
        from += usize::from(quote.is_some());
        if !matches!(self.byte(from), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'n' | b'N' | b'i' | b'I')) {
            return sign;
        }
        let Some(name) = self.name_before(sign) else { return sign };
        let known = number::at(self.line, from).or_else(|| number::none(self.line, from));
        let Some(Number { value, end }) = known else { return sign };
        let next = self.byte(end);
        let ends = match quote {
            Some(_) => next == quote,
            None => !matches!(next, Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'_' | b':' | b'/' | b'-')),
        };
        if !ends || self.may_go_on(end) {
            return sign;
        }
        let word = &self.line[name.clone()];
        if !value.is_finite() && (is_epoch(word) || is_any(word, &STEPS)) {
            return sign;
        }
        if next == Some(b'%') && (self.byte(end + 1) == Some(b'|') || is_any(word, &PARTS)) {
            // The title of a bar, or the part itself: the percent sign is read for itself.
            return sign;
        }
        if is_epoch(word) {
            let known = self.said.epoch.is_some() || self.line.trim_ascii_start().starts_with(b"{");
            if !known {
                self.said.epoch = Some(Epoch { number: value, of: None });
            }
            return end;
        }
        if next == Some(b'%') {
            self.push(name, false, value / 100.0);
            return end + 1;
        }
        if is_any(word, &STEPS) {
            // Behind it a total may follow: the slash is read for itself.
            self.said.step = Some(value);
        } else {
            self.push(name, false, value);
        }
        end
    }

    /// Returns where the name before a sign lies, without quotes.
    fn name_before(&self, sign: usize) -> Option<Range<usize>> {
        let end = self.line[..sign].trim_ascii_end().len();
        let end = if matches!(self.before(end), Some(b'\'' | b'"')) { end - 1 } else { end };
        let word = |end: usize| {
            end - self.line[..end].iter().rev().take(64).take_while(|byte| NAME[usize::from(**byte)]).count()
        };
        let mut start = word(end);
        // `valid_0's auc`
        let owner = start.saturating_sub(1);
        if start > 3 && self.line[owner] == b' ' && self.line[..owner].ends_with(b"'s") {
            start = word(owner);
        }
        while matches!(self.byte(start), Some(b'\'' | b'-' | b'.')) && start < end {
            start += 1;
        }
        self.byte(start).filter(|byte| start < end && (byte.is_ascii_alphabetic() || *byte == b'_'))?;
        Some(start..end)
    }

    fn push(&mut self, name: Range<usize>, per_second: bool, value: f64) {
        if self.figures.len() < FIGURES {
            self.figures.push(Named { name, per_second, value });
        }
    }

    /// Looks at the line as a whole.
    fn finish(mut self) -> Said<'a> {
        let line = self.line.trim_ascii();
        self.said.is_dict = line.starts_with(b"{");
        if let Some(b's' | b'S' | b'i' | b'I' | b'b' | b'B') = line.first() {
            self.leading_step(line);
        }
        if self.said.step.is_none() && self.figures.is_empty() && self.said.count.is_none() && self.said.epoch.is_none()
        {
            return self.said;
        }
        if let Some(inside) = line.strip_prefix(b"[")
            && let Some(Number { value, end }) = number::at(inside, 0)
            && inside[end..].starts_with(b"]")
            && matches!(inside.get(end + 1), Some(b'\t'))
        {
            self.said.round = Some(value);
        }
        if self.said.epoch.is_none() && line.len() > 6 && is_epoch(&line[..5]) && matches!(line[5], b' ' | b'=' | b'[')
        {
            let number = number::at(line, 6).filter(|number| number.value.fract() == 0.0);
            self.said.epoch = number.map(|number| Epoch { number: number.value, of: None });
        }
        if let Some(rate) = self.figures.iter().find(|figure| figure.per_second)
            && !self.said.tells_position()
        {
            self.said.so_far = so_far(line, &self.line[rate.name.clone()]);
        }
        if self.said.tells_position() {
            self.figures_after_spaces();
        }
        self.said
    }

    /// Reads the `iter 100` that a line begins with.
    fn leading_step(&mut self, line: &[u8]) {
        let word = line.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if is_any(&line[..word], &STEPS)
            && line.get(word) == Some(&b' ')
            && let Some(Number { value, end }) = number::at(line, word + 1)
            && matches!(line.get(end), Some(b':' | b',' | b' '))
        {
            self.said.step = self.said.step.or(Some(value));
        }
    }

    /// Reads `loss 0.1`, where the line is known to report and names its figures so.
    fn figures_after_spaces(&mut self) {
        if !self.figures.is_empty() {
            return;
        }
        for space in memchr::memchr_iter(b' ', self.line) {
            let Some(Number { value, end }) = number::at(self.line, space + 1) else { continue };
            let fraction = self.line[space + 1..end].iter().any(|byte| matches!(byte, b'.' | b'e'));
            let ends = self.byte(end).is_none_or(|byte| !(byte.is_ascii_alphanumeric() || b"/:%".contains(&byte)));
            if let Some(name) = self.name_before(space)
                && (fraction && ends && !self.may_go_on(end))
            {
                self.push(name, false, value);
            }
        }
    }
}

/// Words before a part of the whole.
const PARTS: [&str; 4] = ["progress", "complete", "completed", "done"];

/// Words before a count of steps.
const STEPS: [&str; 15] = [
    "step",
    "steps",
    "iter",
    "iters",
    "iteration",
    "iterations",
    "batch",
    "batches",
    "global_step",
    "chunk",
    "sample",
    "samples",
    "image",
    "images",
    "fold",
];

fn is_any(word: &[u8], words: &[&str]) -> bool {
    !word.is_empty() && words.iter().any(|other| other.as_bytes().eq_ignore_ascii_case(word))
}

fn is_epoch(word: &[u8]) -> bool {
    is_any(word, &["epoch", "epochs"])
}

/// Returns the word that a text ends with; brackets and signs behind it do not count.
fn word_before(text: &[u8]) -> &[u8] {
    let end = text.len() - text.iter().rev().take_while(|byte| b" \t:[(#=".contains(byte)).count();
    let letters = text[..end].iter().rev().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'_').count();
    &text[end - letters..end]
}

/// Reads the beginning of a bar without a total: `40rows [00:01, …`, perhaps behind a title.
fn so_far<'a>(line: &'a [u8], unit: &[u8]) -> Option<(f64, &'a [u8])> {
    let from = line.windows(2).position(|pair| pair == b": ").map_or(0, |colon| colon + 2);
    [from, 0].into_iter().find_map(|from| {
        let Number { value, end } = number::scaled(line, from)?;
        let behind = line[end..].strip_prefix(unit)?;
        behind.starts_with(b" [").then(|| (value, &line[end..end + unit.len()]))
    })
}
