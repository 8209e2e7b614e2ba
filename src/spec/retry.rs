//! `retry = { on = […], max = 3, backoff = "5s..5m" }`: after which failures a task is tried again, and how often.
//!
//! Knows how it is written; what an attempt's end is called is the run's business.

use std::ops::RangeInclusive;

use super::common::backoff;
use super::decode::{Decoder, Key};
use super::keys::{RETRIES, RetryKey};
use super::problem::did_you_mean;
use super::tree::{Entry, Node};
use super::{Failures, Located, Problem, Span};
use crate::units::Millis;

/// Exit codes of a failure.
const CODES: RangeInclusive<u8> = 1..=255;
/// Signals of Linux.
const SIGNALS: RangeInclusive<u8> = 1..=64;

/// What one `retry` table says: what is absent is open to the layer below.
#[derive(Clone, Debug, Default)]
pub(super) struct WrittenRetry {
    pub(super) on: Option<Vec<Failures>>,
    pub(super) max: Option<u32>,
    pub(super) backoff: Option<(Millis, Option<Millis>)>,
    /// Where each of its keys stands.
    pub(super) places: Vec<(RetryKey, Span)>,
}

/// Reads `retry`.
pub(super) fn retry(decoder: &mut Decoder<'_>, node: &Node) -> Option<WrittenRetry> {
    let table = decoder.table(node, "a table like { on = [\"exit:75\"], max = 3, backoff = \"5s..5m\" }")?;
    let mut retry = WrittenRetry::default();
    for (key, Entry { key: place, node, .. }) in decoder.fields::<RetryKey>(table) {
        retry.places.push((key, place.span.clone()));
        match key {
            RetryKey::On => retry.on = failures(decoder, node),
            RetryKey::Max => retry.max = decoder.whole(node, RETRIES).and_then(|max| u32::try_from(max).ok()),
            RetryKey::Backoff => retry.backoff = backoff(decoder, node),
        }
    }
    Some(retry)
}

fn failures(decoder: &mut Decoder<'_>, node: &Node) -> Option<Vec<Failures>> {
    let nodes = decoder.array(node, "an array of failures, like [\"exit:75\", \"timeout\"]")?;
    if nodes.is_empty() {
        let problem = Problem::new(node.span.clone(), "`on` is empty: nothing would ever be tried again");
        decoder.report(problem.help("leave it out to try again after any failure, or write `max = 0`"));
    }
    let read: Vec<_> = nodes.iter().map(|node| one(decoder, node)).collect();
    read.into_iter().collect()
}

fn one(decoder: &mut Decoder<'_>, node: &Node) -> Option<Failures> {
    let text = decoder.text(node, "a failure like \"exit:75\"")?;
    let (word, rest) = match text.text.split_once(':') {
        Some((word, rest)) => (word, Some(rest)),
        None => (text.text.as_str(), None),
    };
    match (word, rest) {
        ("exit", None) => Some(Failures::Exit(CODES)),
        ("signal", None) => Some(Failures::Signal(SIGNALS)),
        ("exit", Some(rest)) => range(decoder, &text, rest, &CODES, "an exit code").map(Failures::Exit),
        ("signal", Some(rest)) => range(decoder, &text, rest, &SIGNALS, "a signal's number").map(Failures::Signal),
        ("timeout", None) => Some(Failures::TimedOut),
        ("oom", None) => Some(Failures::OutOfMemory),
        ("output-missing", None) => Some(Failures::OutputMissing),
        ("any", None) => Some(Failures::Any),
        ("timeout" | "oom" | "output-missing" | "any", Some(_)) => {
            let span = decoder.inside(&text.span, word.len()..text.text.len());
            decoder.report(Problem::new(span, format!("`{word}` takes no number")));
            None
        }
        (word, _) => {
            let problem = Problem::new(
                decoder.inside(&text.span, 0..word.len()),
                format!("unknown failure `{}`", word.escape_debug()),
            );
            decoder.report(problem.help(match did_you_mean(word, WORDS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known: {}; `exit:1-9` and `signal:9` say which", WORDS.join(", ")),
            }));
            None
        }
    }
}

/// The words that `on` may hold.
const WORDS: [&str; 6] = ["exit", "signal", "timeout", "oom", "output-missing", "any"];

/// Reads `75` or `1-9` behind the colon.
fn range(
    decoder: &mut Decoder<'_>,
    text: &Located,
    rest: &str,
    bounds: &RangeInclusive<u8>,
    what: &str,
) -> Option<RangeInclusive<u8>> {
    let (first, last) = rest.split_once('-').unwrap_or((rest, rest));
    let number = |text: &str| text.parse::<u8>().ok().filter(|number| bounds.contains(number));
    if let (Some(first), Some(last)) = (number(first), number(last))
        && first <= last
    {
        return Some(first..=last);
    }
    let start = text.text.len() - rest.len();
    let span = if rest.is_empty() { text.span.clone() } else { decoder.inside(&text.span, start..text.text.len()) };
    let (least, most) = (bounds.start(), bounds.end());
    let problem = Problem::new(span, format!("this is not {what}, nor a range of them"));
    decoder.report(problem.help(format!("write a number from {least} to {most}, or a range like `1-9`")));
    None
}

/// Reports keys that `retry` and the older keys beside it both hold.
pub(super) fn report_both(decoder: &mut Decoder<'_>, retry: &WrittenRetry, beside: &[(RetryKey, Located)]) {
    for (key, older) in beside {
        if let Some((_, place)) = retry.places.iter().find(|(own, _)| own == key) {
            let message = format!("`{}` says the same as `{}` in `retry`", older.text, key.word());
            let problem = Problem::new(older.span.clone(), message);
            decoder.report(problem.help("keep one of the two").related(place.clone(), "it is here as well"));
        }
    }
}
