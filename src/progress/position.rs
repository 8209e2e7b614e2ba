//! Where the work is, put together from what line after line says: epochs around bars, bars within bars.
//!
//! An outer bar at 1 of 3 with an inner one at 2 of 4 is half done. Epochs of unknown number leave the whole unknown:
//! a bar that starts again and again says nothing of the end.

use std::borrow::Cow;
use std::fmt::Write;

use super::scan::{Count, Epoch, Said};

/// How deep bars within bars are followed.
const DEPTH: usize = 4;

/// The longest title of a bar that is shown, in bytes.
const TITLE: usize = 40;

/// A bar, or a count of steps.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    title: String,
    done: f64,
    total: f64,
}

impl Bar {
    fn is(&self, count: &Count<'_>) -> bool {
        self.total == count.total && self.title == title(count.label)
    }

    fn is_full(&self) -> bool {
        self.done >= self.total
    }
}

/// Which epoch the work is in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct InEpoch {
    number: f64,
    of: Option<f64>,
    /// Whether the first one has the number 0.
    from_zero: bool,
    /// Whether it was told at its end, with its figures.
    is_over: bool,
}

impl InEpoch {
    /// Returns how many epochs are over and how many there are.
    fn done(&self) -> Option<(f64, f64)> {
        let of = self.of?;
        let (before, of) = if self.from_zero { (self.number, of + 1.0) } else { (self.number - 1.0, of) };
        Some((before.max(0.0) + f64::from(u8::from(self.is_over)), of.max(1.0)))
    }
}

/// Where the work is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Position {
    epoch: Option<InEpoch>,
    /// By depth, the outermost first.
    bars: Vec<Bar>,
    /// A part that nothing else explains.
    part: Option<f64>,
    round: Option<f64>,
    so_far: Option<(f64, String)>,
    /// A count that may be a date, until it grows.
    doubtful: Option<Bar>,
}

impl Position {
    /// Takes a line in. `up` is how far the cursor went up behind it, `reports` whether it brings figures.
    pub(super) fn take(&mut self, said: &Said<'_>, up: usize, reports: bool) {
        if let Some(epoch) = said.epoch {
            self.enter(epoch, said.count.is_none() && said.part.is_none() && reports);
        }
        if let Some(count) = &said.count {
            self.bar(count, up, said.epoch.is_some());
        } else if let Some(count) = &said.doubtful {
            self.doubt(count);
        } else if said.part.is_some() {
            self.part = said.part;
            self.bars.clear();
        }
        self.round = said.round.or(self.round);
        if let Some((count, unit)) = said.so_far {
            self.so_far = Some((count, String::from_utf8_lossy(unit).into_owned()));
        }
    }

    fn enter(&mut self, epoch: Epoch, is_over: bool) {
        let Epoch { number, of } = epoch;
        let known = self.epoch.filter(|known| known.number == number && (known.of == of || of.is_none()));
        let of = of.or(known.and_then(|known| known.of));
        let same_count = self.epoch.is_some_and(|known| known.of == of && known.from_zero);
        let from_zero = number == 0.0 || (same_count && number > 0.0);
        let is_over = is_over || known.is_some_and(|known| known.is_over && self.bars.is_empty());
        if known.is_none() || is_over {
            self.bars.clear();
            self.part = None;
        }
        self.epoch = Some(InEpoch { number, of, from_zero, is_over });
    }

    fn bar(&mut self, count: &Count<'_>, up: usize, in_epoch: bool) {
        if !in_epoch && self.whole() == Some(1.0) && count.done < count.total {
            // Everything announced is done: what begins now is something else.
            self.epoch = None;
            self.bars.clear();
        }
        if let Some(epoch) = &mut self.epoch {
            // The end of an epoch was told, and yet it goes on: that line was about its middle.
            epoch.is_over = epoch.is_over && self.bars.is_empty() && count.done >= count.total;
        }
        self.part = None;
        // An inner bar that stays on the screen is drawn a last time where the outer one was.
        let inner = self.bars.iter().skip(1).position(|bar| bar.is(count)).filter(|_| count.done >= count.total);
        let outermost_is_other = self.bars.first().is_some_and(|bar| !bar.is(count));
        let depth = match inner {
            Some(inner) if up == 0 && outermost_is_other => inner + 1,
            _ => up,
        };
        let depth = depth.min(self.bars.len()).min(DEPTH - 1);
        match self.bars.get_mut(depth) {
            Some(bar) if bar.is(count) => {
                // Drawn anew without a step forward, a bar keeps those within it.
                if bar.done != count.done {
                    bar.done = count.done;
                    self.bars.truncate(depth + 1);
                }
            }
            _ => {
                self.bars.truncate(depth);
                self.bars.push(Bar { title: title(count.label).into_owned(), done: count.done, total: count.total });
            }
        }
    }

    fn doubt(&mut self, count: &Count<'_>) {
        let before = self.doubtful.as_ref().filter(|before| before.is(count)).map(|before| before.done);
        self.doubtful = Some(Bar { title: title(count.label).into_owned(), done: count.done, total: count.total });
        if before.is_some_and(|before| count.done > before) {
            self.bar(count, 0, false);
        }
    }

    /// Returns how much of the work is done, 0 to 1.
    pub(super) fn whole(&self) -> Option<f64> {
        let inner = self.bars.iter().rev().fold(None, |inner: Option<f64>, bar| {
            let inner = inner.filter(|_| !bar.is_full()).unwrap_or(0.0);
            Some(((bar.done + inner) / bar.total).min(1.0))
        });
        let inner = inner.or(self.part);
        match self.epoch {
            None => inner,
            Some(epoch) => {
                let (done, of) = epoch.done()?;
                let inner = inner.filter(|_| !epoch.is_over).unwrap_or(0.0);
                Some(((done + inner) / of).min(1.0))
            }
        }
    }

    /// Returns the step of the work that figures of a line belong to. `on_bar`: they stand on the bar drawn last, so that
    /// its own steps count; otherwise those of the outermost one do, whatever is done within it meanwhile.
    pub(super) fn step(&self, on_bar: bool) -> Option<f64> {
        let first = self.bars.first();
        match (self.epoch, first, self.bars.get(1..).and_then(<[Bar]>::last)) {
            (Some(epoch), Some(bar), _) => {
                let before = if epoch.from_zero || epoch.of.is_none() { epoch.number } else { epoch.number - 1.0 };
                Some(before.max(0.0) * bar.total + bar.done)
            }
            (Some(epoch), None, _) => Some(epoch.number),
            (None, Some(outer), Some(inner)) if on_bar => Some(outer.done * inner.total + inner.done),
            (None, Some(outer), _) => Some(outer.done),
            (None, None, _) => self.round.or(self.so_far.as_ref().map(|(count, _)| *count)),
        }
    }

    /// Returns the position in a few words: `epoch 3/10, 12/300`.
    pub(super) fn words(&self) -> Option<String> {
        let mut words = String::new();
        let mut add = |part: std::fmt::Arguments<'_>| {
            let comma = if words.is_empty() { "" } else { ", " };
            write!(words, "{comma}{part}").expect("a String takes everything");
        };
        if let Some(InEpoch { number, of, from_zero, .. }) = self.epoch {
            match of {
                Some(of) if from_zero => add(format_args!("epoch {}/{}", number + 1.0, of + 1.0)),
                Some(of) => add(format_args!("epoch {number}/{of}")),
                None => add(format_args!("epoch {number}")),
            }
        }
        let of_epoch = |title: &str| title.as_bytes().windows(5).any(|word| word.eq_ignore_ascii_case(b"epoch"));
        for Bar { title, done, total } in &self.bars {
            if title.is_empty() || (self.epoch.is_some() && of_epoch(title)) {
                add(format_args!("{done}/{total}"));
            } else {
                add(format_args!("{title} {done}/{total}"));
            }
        }
        match (&self.so_far, self.round) {
            _ if !words.is_empty() => {}
            (_, Some(round)) => add_to(&mut words, format_args!("round {round}")),
            (Some((count, unit)), None) => add_to(&mut words, format_args!("{count} {unit}")),
            (None, None) => {}
        }
        (!words.is_empty()).then_some(words)
    }
}

fn add_to(words: &mut String, part: std::fmt::Arguments<'_>) {
    words.write_fmt(part).expect("a String takes everything");
}

/// Returns what stands behind the time, the level and the name that a logger puts before each of its lines.
fn behind_prefix(label: &[u8]) -> &[u8] {
    const LEVELS: [&[u8]; 6] = [b"DEBUG", b"INFO", b"WARNING", b"WARN", b"ERROR", b"CRITICAL"];
    let begins = label.trim_ascii_start();
    let digits = begins.strip_prefix(b"[").unwrap_or(begins).iter().take_while(|byte| byte.is_ascii_digit()).count();
    let dated = digits == 4 && begins.len() > 10;
    let mut words = label.split(|byte| !byte.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    if !dated && !words.next().is_some_and(|first| LEVELS.contains(&first)) {
        return label;
    }
    let behind = |sign: &[u8]| label.windows(sign.len()).rposition(|at| at == sign).map(|at| at + sign.len());
    let end = [behind(b": "), behind(b"] "), behind(b" - ")].into_iter().max().flatten();
    &label[end.unwrap_or(0)..]
}

/// Returns a bar's title as it is shown: letters and digits up to the brackets or signs before the count.
fn title(label: &[u8]) -> Cow<'_, str> {
    let end = label.len() - label.iter().rev().take_while(|byte| b" \t:[(#=-".contains(byte)).count();
    let mut label = behind_prefix(&label[..end]);
    if label.len() > TITLE {
        label = &label[..TITLE];
    }
    String::from_utf8_lossy(label.trim_ascii())
}
