//! Reads output as it comes and remembers what it says.

use super::Progress;
use super::clean::without_escapes;
use super::lines::Lines;
use super::position::Position;
use super::scan::{Named, Said, scan};

/// A figure that a line reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure<'a> {
    /// As the program calls it: `loss`, `val_accuracy`, `it/s`.
    pub name: &'a str,
    /// At which step of the work, where that is known.
    pub step: Option<f64>,
    /// Its value.
    pub value: f64,
}

/// Reads what one program prints. Memory is bounded, whatever it prints.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    lines: Lines,
    known: Known,
    scratch: Scratch,
}

/// What is known from the lines so far.
#[derive(Clone, Debug, Default)]
struct Known {
    position: Position,
    shown: Progress,
}

/// Memory that lines take turns to use.
#[derive(Clone, Debug, Default)]
struct Scratch {
    clean: Vec<u8>,
    figures: Vec<Named>,
    name: String,
}

impl Reader {
    /// Takes output in and gives every figure that a finished line reports to `figure`.
    pub fn read(&mut self, output: &[u8], mut figure: impl FnMut(Figure<'_>)) {
        let Self { lines, known, scratch } = self;
        lines.cut(output, |line| known.line(line, false, scratch, &mut figure));
    }

    /// Takes in that nothing follows: the last line may have no end.
    pub fn finish(&mut self, mut figure: impl FnMut(Figure<'_>)) {
        self.read(b"\n", &mut figure);
    }

    /// Returns what is known now. A bar is drawn before its line ends, so the line that has begun counts already.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let begun = self.lines.begun();
        if begun.is_empty() {
            return self.known.progress();
        }
        let mut known = self.known.clone();
        known.line(begun, true, &mut Scratch::default(), &mut |_| {});
        known.progress()
    }
}

impl Known {
    fn line(&mut self, line: &[u8], open: bool, scratch: &mut Scratch, figure: &mut impl FnMut(Figure<'_>)) {
        let Scratch { clean, figures, name } = scratch;
        let (line, up) = if memchr::memchr(0x1b, line).is_some() {
            let up = without_escapes(line, clean);
            (clean.as_slice(), up)
        } else {
            (line, 0)
        };
        let said = scan(line, open, figures);
        let tells = said.tells_position();
        if !tells && said.doubtful.is_none() && figures.is_empty() {
            return;
        }
        let reports = figures.iter().any(|figure| !figure.per_second);
        self.position.take(&said, up, reports);
        let all = tells || (said.is_dict && figures.iter().any(|figure| is_known(&line[figure.name.clone()])));
        let step = self.step(&said);
        for Named { name: at, per_second, value } in figures.iter() {
            let bytes = &line[at.clone()];
            if !(all || (!per_second && is_known(bytes))) || is_clock(bytes) {
                continue;
            }
            name.clear();
            match std::str::from_utf8(bytes) {
                Ok(text) => name.push_str(text),
                Err(_) => continue,
            }
            if *per_second {
                name.push_str("/s");
            } else {
                self.shown.note(name, *value);
            }
            figure(Figure { name, step, value: *value });
        }
    }

    fn step(&self, said: &Said<'_>) -> Option<f64> {
        said.round.or(said.step).or_else(|| self.position.step(said.count.is_some()))
    }

    fn progress(&self) -> Progress {
        Progress { progress: self.position.whole(), phase: self.position.words(), ..self.shown.clone() }
    }
}

/// Whether a name says what it is on any line.
fn is_known(name: &[u8]) -> bool {
    let tail = name.iter().rposition(|byte| b"/_- .".contains(byte)).map_or(name, |at| &name[at + 1..]);
    let known: [&[u8]; 8] = [b"loss", b"logloss", b"accuracy", b"acc", b"lr", b"rate", b"perplexity", b"ppl"];
    // `learning_rate` ends in a word that alone says little.
    let is_rate = tail.eq_ignore_ascii_case(b"rate");
    known.iter().any(|known| known.eq_ignore_ascii_case(tail))
        && (!is_rate || name.eq_ignore_ascii_case(b"learning_rate"))
}

/// Whether a name is that of a time or a version, which make no curve.
fn is_clock(name: &[u8]) -> bool {
    let clocks: [&[u8]; 5] = [b"eta", b"time", b"elapsed", b"remaining", b"v_num"];
    clocks.iter().any(|clock| clock.eq_ignore_ascii_case(name))
}
