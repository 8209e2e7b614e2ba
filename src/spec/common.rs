//! The keys that a stage and `[defaults]` have in common, read alike for both and laid over each other.

use std::collections::BTreeMap;

use super::decode::Decoder;
use super::keys::{CommonKey, PRIORITY, RETRIES, RetryKey, SET_FOR_TASKS};
use super::problem::did_you_mean;
use super::resources::{self, Wanted};
use super::retry::{self, WrittenRetry};
use super::tree::{Content, Entry, Node};
use super::{Axis, Limits, Located, MemoryLimit, Problem, Retry, Span, template};
use crate::units::{Bytes, Millis};

/// Common keys as one table wrote them: what is absent is open to the layer below.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    pub(super) resources: Option<(Wanted, Span)>,
    pub(super) priority: Option<i64>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: Option<Located>,
    memory_limit: Option<MemoryLimit>,
    /// Where that is written; the layer below has a place of its own.
    pub(super) memory_limit_at: Option<Span>,
    pub(super) cache: Option<bool>,
    retries: Option<u32>,
    oom_retries: Option<u32>,
    backoff: Option<(Millis, Option<Millis>)>,
    retry: Option<WrittenRetry>,
    /// `retries` and `backoff` where they are written, which must not say again what `retry` says.
    beside_retry: Vec<(RetryKey, Located)>,
    timeout: Option<Millis>,
    idle_timeout: Option<Millis>,
    first_output_timeout: Option<Millis>,
    grace: Option<Millis>,
    log_limit: Option<Bytes>,
}

impl Common {
    /// Reads one key. `axes` are those that templates may name; `None` if they are not known for sure.
    pub(super) fn read(&mut self, decoder: &mut Decoder<'_>, key: CommonKey, entry: &Entry, axes: Option<&[Axis]>) {
        let node = &entry.node;
        match key {
            CommonKey::Resources => {
                self.resources = Some((resources::wanted(decoder, node), node.span.clone()));
            }
            CommonKey::Priority => self.priority = decoder.whole(node, PRIORITY),
            CommonKey::Retries => {
                self.retries = retries(decoder, node);
                self.beside_retry.push((RetryKey::Max, entry.key.clone()));
            }
            CommonKey::OomRetries => self.oom_retries = retries(decoder, node),
            CommonKey::Backoff => {
                self.backoff = backoff(decoder, node);
                self.beside_retry.push((RetryKey::Backoff, entry.key.clone()));
            }
            CommonKey::Retry => self.retry = retry::retry(decoder, node),
            CommonKey::Timeout => self.timeout = time_limit(decoder, node),
            CommonKey::IdleTimeout => self.idle_timeout = time_limit(decoder, node),
            CommonKey::FirstOutputTimeout => self.first_output_timeout = time_limit(decoder, node),
            CommonKey::Grace => self.grace = decoder.quantity(node),
            CommonKey::LogLimit => self.log_limit = log_limit(decoder, node),
            CommonKey::MemoryLimit => {
                self.memory_limit = memory_limit(decoder, node);
                self.memory_limit_at = Some(entry.key.span.clone());
            }
            CommonKey::Env => self.env = env(decoder, node, axes),
            CommonKey::Cwd => self.cwd = cwd(decoder, node, axes),
            CommonKey::Cache => self.cache = decoder.flag(node),
        }
    }

    /// Reports what is said twice, and lays what `retry` says over the older keys.
    pub(super) fn settle(&mut self, decoder: &mut Decoder<'_>) {
        let Some(written) = &self.retry else { return };
        retry::report_both(decoder, written, &self.beside_retry);
        self.retries = written.max.or(self.retries);
        self.backoff = written.backoff.or(self.backoff);
    }

    /// Returns these over those of `[defaults]`, except for the resources, which modes come in between.
    pub(super) fn over(mut self, below: &Self) -> Self {
        self.priority = self.priority.or(below.priority);
        self.retries = self.retries.or(below.retries);
        self.oom_retries = self.oom_retries.or(below.oom_retries);
        self.backoff = self.backoff.or(below.backoff);
        // A table that only narrows down the failures leaves the rest as it is below.
        if let (Some(own), Some(below)) = (&mut self.retry, &below.retry) {
            own.on = own.on.take().or_else(|| below.on.clone());
        }
        self.retry = self.retry.or_else(|| below.retry.clone());
        self.timeout = self.timeout.or(below.timeout);
        self.idle_timeout = self.idle_timeout.or(below.idle_timeout);
        self.first_output_timeout = self.first_output_timeout.or(below.first_output_timeout);
        self.grace = self.grace.or(below.grace);
        self.log_limit = self.log_limit.or(below.log_limit);
        self.cwd = self.cwd.or_else(|| below.cwd.clone());
        self.memory_limit = self.memory_limit.or(below.memory_limit);
        self.cache = self.cache.or(below.cache);
        for (name, value) in &below.env {
            self.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// Returns how tasks are kept to their device memory.
    pub(super) fn memory_limit(&self) -> MemoryLimit {
        self.memory_limit.unwrap_or_default()
    }

    /// Returns when an attempt is given up.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            first_output_timeout: self.first_output_timeout,
            grace: self.grace.unwrap_or(Limits::default().grace),
            log: self.log_limit.unwrap_or(Limits::default().log),
        }
    }

    /// Returns what happens after a failed attempt.
    pub(super) fn retry(&self) -> Retry {
        let usual = Retry::default();
        let (backoff, most) = self.backoff.unwrap_or((usual.backoff, None));
        let unsaid = if self.retry.is_some() { RETRIES_UNSAID } else { usual.retries };
        Retry {
            retries: self.retries.unwrap_or(unsaid),
            on: self.retry.as_ref().and_then(|retry| retry.on.clone()).unwrap_or_default(),
            oom_retries: self.oom_retries.unwrap_or(usual.oom_retries),
            backoff,
            backoff_most: most.unwrap_or(usual.backoff_most.max(backoff)),
        }
    }
}

/// `max` of a `retry` that does not say it: who writes down failures wants another attempt after them.
const RETRIES_UNSAID: u32 = 3;

fn retries(decoder: &mut Decoder<'_>, node: &Node) -> Option<u32> {
    decoder.whole(node, RETRIES).and_then(|retries| u32::try_from(retries).ok())
}

/// The least that is kept of a log: below it there is no room for both ends.
const LEAST_LOG: Bytes = Bytes(64 << 10);

fn log_limit(decoder: &mut Decoder<'_>, node: &Node) -> Option<Bytes> {
    let limit: Bytes = decoder.quantity(node)?;
    if limit < LEAST_LOG {
        let problem = Problem::new(node.span.clone(), format!("a log is kept up to {LEAST_LOG} at least"));
        decoder.report(problem.help(format!("write \"{LEAST_LOG}\" or more")));
        return None;
    }
    Some(limit)
}

fn memory_limit(decoder: &mut Decoder<'_>, node: &Node) -> Option<MemoryLimit> {
    let word = decoder.text(node, "one of \"none\", \"watch\", \"framework\" and \"mps\"")?;
    let limit = MemoryLimit::of_word(&word.text);
    if limit.is_none() {
        let problem = Problem::new(word.span, format!("`{}` is no memory limit", word.text.escape_debug()));
        let near = did_you_mean(&word.text, MemoryLimit::WORDS.iter().copied());
        let all = format!("it is one of {}", MemoryLimit::WORDS.join(", "));
        decoder.report(problem.help(near.map_or(all, |near| format!("did you mean `{near}`?"))));
    }
    limit
}

/// Reads a time that must be longer than zero.
fn time_limit(decoder: &mut Decoder<'_>, node: &Node) -> Option<Millis> {
    let limit = decoder.quantity(node)?;
    if limit == Millis::ZERO {
        let problem = Problem::new(node.span.clone(), "a time limit of zero would end every attempt at once");
        decoder.report(problem.help("leave it out for no limit"));
        return None;
    }
    Some(limit)
}

/// Reads `"5s"` or `"5s..5m"`.
pub(super) fn backoff(decoder: &mut Decoder<'_>, node: &Node) -> Option<(Millis, Option<Millis>)> {
    let text = decoder.text(node, "a wait like \"5s\", or \"5s..5m\" with the longest one")?;
    let (first, most) = match text.text.split_once("..") {
        Some((first, most)) => (first, Some(most)),
        None => (text.text.as_str(), None),
    };
    let mut part = |part: &str, start: usize| match part.parse::<Millis>() {
        Ok(time) => Some(time),
        Err(error) => {
            let span = decoder.inside(&text.span, start..start + part.len());
            decoder.report(Problem::new(span, format!("this is not a duration: {error}")));
            None
        }
    };
    let wait = part(first, 0);
    let most = most.map(|most| part(most, first.len() + 2));
    if let (Some(wait), Some(Some(most))) = (wait, most)
        && most < wait
    {
        decoder.report(Problem::new(text.span, "the longest wait is shorter than the first one"));
        return None;
    }
    match most {
        Some(most) => Some((wait?, Some(most?))),
        None => Some((wait?, None)),
    }
}

/// Reads environment variables. Numbers, `true` and `false` are taken as they are written.
pub(super) fn env(decoder: &mut Decoder<'_>, node: &Node, axes: Option<&[Axis]>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(table) = decoder.table(node, "a table of environment variables") else {
        return env;
    };
    for entry in &table.entries {
        let name = &entry.key.text;
        if name.is_empty() || name.contains(['=', '\0']) {
            let problem = Problem::new(entry.key.span.clone(), "this cannot be the name of an environment variable");
            decoder.report(problem.help("it must not be empty nor contain `=`"));
            continue;
        }
        if SET_FOR_TASKS.contains(&name.as_str()) {
            let problem = Problem::new(entry.key.span.clone(), format!("`{name}` is set for every task"));
            decoder.report(problem.help(match name.starts_with("CUDA_") {
                true => "leave it out: a task sees the devices that its `resources` ask for, in PCI order",
                false => "choose another name",
            }));
            continue;
        }
        let value = match &entry.node.content {
            Content::Int(value) => Some(value.to_string()),
            Content::Float(value) => Some(super::Value::Float(*value).to_string()),
            Content::Bool(value) => Some(value.to_string()),
            Content::Text(_) | Content::Date | Content::Array(_) | Content::Table(_) | Content::Broken => {
                decoder.text(&entry.node, "a text").map(|text| {
                    check_templates(decoder, &text, axes, false);
                    text.text
                })
            }
        };
        if let Some(value) = value {
            env.insert(name.clone(), value);
        }
    }
    env
}

fn cwd(decoder: &mut Decoder<'_>, node: &Node, axes: Option<&[Axis]>) -> Option<Located> {
    let text = decoder.text(node, "a folder")?;
    check_templates(decoder, &text, axes, false);
    if text.text.is_empty() {
        decoder.report(Problem::new(text.span, "this is no folder").help("write `.` for the pipeline file's own"));
        return None;
    }
    Some(text)
}

/// Reports templates that stand for nothing here; returns whether all are known to stand for something. `files`:
/// whether `{inputs}` and `{outputs}` do.
pub(super) fn check_templates(decoder: &mut Decoder<'_>, text: &Located, axes: Option<&[Axis]>, files: bool) -> bool {
    let Some(axes) = axes else {
        return template::pieces(&text.text).all(|(piece, _)| matches!(piece, template::Piece::Text(_)));
    };
    let mut all_known = true;
    for (piece, range) in template::pieces(&text.text) {
        let known = match piece {
            template::Piece::Text(_) => true,
            template::Piece::Inputs | template::Piece::Outputs => files,
            template::Piece::Axis(axis) => axes.iter().any(|known| known.name.text == axis),
            template::Piece::Open | template::Piece::Slip(_) => false,
        };
        if known {
            continue;
        }
        all_known = false;
        match piece {
            template::Piece::Text(_) => {}
            template::Piece::Inputs | template::Piece::Outputs => {
                let span = decoder.inside(&text.span, range.clone());
                let word = &text.text[range];
                let problem = Problem::new(span, format!("`{word}` stands for files in `run` only"));
                decoder.report(problem.help(format!("write `{{{word}}}` for the text itself")));
            }
            template::Piece::Open => {
                let span = decoder.inside(&text.span, range);
                decoder.report(Problem::new(span, "this template has no end").help("write it like `{matrix.lr}`"));
            }
            template::Piece::Slip(meant) => {
                let written = &text.text[range.clone()];
                let meant = match written.split_once('.') {
                    Some((_, axis)) => format!("{{{meant}.{axis}"),
                    None => format!("{{{meant}}}"),
                };
                let problem = Problem::new(decoder.inside(&text.span, range), format!("unknown template `{written}`"));
                let literally = format!("write `{{{written}}}` for the text itself");
                decoder.report(problem.help(format!("did you mean `{meant}`? {literally}")));
            }
            template::Piece::Axis("") if !axes.is_empty() => {
                let problem = Problem::new(decoder.inside(&text.span, range), "this template names no axis");
                let known: Vec<_> = axes.iter().map(|axis| format!("`{{matrix.{}}}`", axis.name.text)).collect();
                decoder.report(problem.help(format!("known: {}", known.join(", "))));
            }
            template::Piece::Axis(axis) => {
                let start = range.start + "{matrix.".len();
                let span = decoder.inside(&text.span, start..range.end - 1);
                let span = if axis.is_empty() { decoder.inside(&text.span, range) } else { span };
                let name = Located { text: axis.to_owned(), span };
                if axes.is_empty() {
                    let problem = Problem::new(name.span, format!("there is no matrix for `{{matrix.{axis}}}` here"));
                    decoder.report(problem.help("add `matrix = { … }` to the stage that uses it"));
                } else {
                    decoder.unknown("matrix axis", &name, axes.iter().map(|axis| axis.name.text.as_str()));
                }
            }
        }
    }
    all_known
}
