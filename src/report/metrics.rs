//! Runs and devices in Prometheus' text format, as a scraper reads it from an address or from a file.
//!
//! Pure. Names follow Prometheus' conventions: base units (seconds, bytes, ratios) at the end of a name, `_total` for what
//! only rises. What is unknown has no sample. See "Exposition formats", text format 0.0.4.

use std::fmt::Write;

use super::json::{self, Header, task_word};
use crate::progress::record::Record;
use crate::run::event::RunEnd;
use crate::run::observer::DeviceGauge;
use crate::run::state::{Attempt, RunState};
use crate::run::store::TaskHeader;
use crate::units::{Bytes, Millis};

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A run to be shown in detail.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// What is known of it besides its events.
    pub header: Header<'a>,
    /// Its tasks, by TaskId.
    pub tasks: &'a [TaskHeader],
    /// What happened.
    pub state: &'a RunState,
    /// What was heard of the progress of an attempt, by the task's name and the attempt's number.
    pub heard: &'a dyn Fn(&str, u32) -> Option<Record>,
}

/// What is measured at a moment.
#[derive(Clone, Copy)]
pub struct Picture<'a> {
    /// All runs on record, by their end and whether somebody carries them out.
    pub ends: &'a [(Option<(Millis, RunEnd)>, bool)],
    /// Those shown in detail.
    pub runs: &'a [Run<'a>],
    /// The devices, with the UUID of each.
    pub devices: &'a [(String, DeviceGauge)],
    /// ms since the Unix epoch.
    pub now: Millis,
}

/// Returns everything as text, a family of samples after the other.
#[must_use]
pub fn render(picture: &Picture<'_>) -> String {
    let mut page = Page::default();
    page.family("trainyard_build_info", Kind::Gauge, "The version of trainyard that writes this.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], "1");
    page.family("trainyard_runs", Kind::Gauge, "Runs on record, by state.");
    for word in ["running", "succeeded", "failed", "interrupted"] {
        let in_state = picture.ends.iter().filter(|(end, alive)| json::state_word(*end, *alive) == word);
        page.sample(&[("state", word)], &in_state.count().to_string());
    }
    of_runs(&mut page, picture);
    of_tasks(&mut page, picture);
    of_devices(&mut page, picture.devices);
    page.text
}

fn of_runs(page: &mut Page, picture: &Picture<'_>) {
    let of = |run: &Run<'_>| [("run", run.header.run.to_owned()), ("pipeline", run.header.pipeline.to_owned())];
    page.family("trainyard_run_info", Kind::Gauge, "A run and its state.");
    for run in picture.runs {
        let word = json::state_word(run.state.end, run.header.alive);
        page.sample(&[&of(run)[..], &[("state", word.to_owned())]].concat(), "1");
    }
    page.family("trainyard_run_start_time_seconds", Kind::Gauge, "When the run started, since the Unix epoch.");
    for run in picture.runs {
        page.sample(&of(run), &seconds(run.header.started));
    }
    page.family("trainyard_run_duration_seconds", Kind::Gauge, "How long the run took, or takes so far.");
    for run in picture.runs {
        let end = run.state.end.map(|(at, _)| at).or(run.header.alive.then_some(picture.now));
        if let Some(end) = end {
            page.sample(&of(run), &seconds(run.state.went_on(run.header.started, end)));
        }
    }
    page.family("trainyard_run_tasks", Kind::Gauge, "Tasks of the run, by state.");
    for run in picture.runs {
        for word in ["waiting", "running", "succeeded", "cached", "failed", "skipped"] {
            let in_state = run.state.tasks.iter().filter(|task| task_word(task.phase, run.header.alive) == word);
            page.sample(&[&of(run)[..], &[("state", word.to_owned())]].concat(), &in_state.count().to_string());
        }
    }
    page.family("trainyard_run_attempts_total", Kind::Counter, "Attempts that have ended, by outcome.");
    for run in picture.runs {
        let attempts = run.state.tasks.iter().flat_map(|task| &task.attempts);
        let mut outcomes: Vec<String> =
            attempts.filter_map(|attempt| Some(attempt.ended.as_ref()?.outcome.to_string())).collect();
        outcomes.sort_unstable();
        for same in outcomes.chunk_by(|a, b| a == b) {
            page.sample(&[&of(run)[..], &[("outcome", same[0].clone())]].concat(), &same.len().to_string());
        }
    }
}

/// A task that was tried, with its last attempt.
struct Tried<'a> {
    labels: [(&'static str, String); 3],
    attempt: &'a Attempt,
    heard: Option<Record>,
    alive: bool,
}

fn of_tasks(page: &mut Page, picture: &Picture<'_>) {
    let mut tried = Vec::new();
    for run in picture.runs {
        for (task, happened) in run.tasks.iter().zip(&run.state.tasks) {
            let Some((number, attempt)) = happened.telling() else { continue };
            let labels = [
                ("run", run.header.run.to_owned()),
                ("pipeline", run.header.pipeline.to_owned()),
                ("task", task.name.clone()),
            ];
            tried.push(Tried { labels, attempt, heard: (run.heard)(&task.name, number), alive: run.header.alive });
        }
    }
    page.family(
        "trainyard_task_attempt_duration_seconds",
        Kind::Gauge,
        "How long the last attempt took, or takes so far.",
    );
    for of in &tried {
        let end = of.attempt.ended.as_ref().map(|ended| ended.at).or(of.alive.then_some(picture.now));
        if let Some(end) = end {
            page.sample(&of.labels, &seconds(of.attempt.ran(end)));
        }
    }
    let done = |of: &Tried<'_>| of.heard.as_ref()?.progress.progress;
    page.gauges("trainyard_task_progress_ratio", "How far a task says it is, 0 to 1.", &tried, |of| {
        done(of).map(|done| done.to_string())
    });
    page.gauges("trainyard_task_peak_memory_bytes", "The most host memory that the last attempt held.", &tried, |of| {
        Some(of.attempt.ended.as_ref()?.usage.peak_memory?.0.to_string())
    });
    page.gauges("trainyard_task_peak_gpu_memory_bytes", "The most device memory it held on a device.", &tried, |of| {
        Some(of.attempt.ended.as_ref()?.usage.peak_gpu_memory?.0.to_string())
    });
    page.family("trainyard_task_figure", Kind::Gauge, "The latest value of a figure that a task reports.");
    for of in &tried {
        let series = of.heard.iter().flat_map(|heard| &heard.series);
        for (name, value) in series.filter_map(|series| Some((&series.name, series.last()?))) {
            // As the format spells what is no number.
            let value = match value {
                f64::INFINITY => "+Inf".to_owned(),
                f64::NEG_INFINITY => "-Inf".to_owned(),
                value => value.to_string(),
            };
            page.sample(&[&of.labels[..], &[("figure", name.clone())]].concat(), &value);
        }
    }
}

fn of_devices(page: &mut Page, devices: &[(String, DeviceGauge)]) {
    let mut family = |name, help, value: &dyn Fn(&DeviceGauge) -> Option<String>| {
        page.family(name, Kind::Gauge, help);
        for (uuid, gauge) in devices {
            let labels = [("gpu", uuid.as_str()), ("device", &gauge.id), ("model", &gauge.model)];
            if let Some(value) = value(gauge) {
                page.sample(&labels, &value);
            }
        }
    };
    let bytes = |bytes: Bytes| Some(bytes.0.to_string());
    let thousandths = |value: u32| Some(seconds(Millis(value.into())));
    family("trainyard_gpu_memory_bytes", "All of a GPU's memory.", &|gauge| {
        // One whose driver does not tell has some, too.
        bytes(gauge.total).filter(|_| gauge.total > Bytes::ZERO)
    });
    family("trainyard_gpu_memory_used_bytes", "Memory that anybody holds.", &|gauge| bytes(gauge.used?));
    family("trainyard_gpu_memory_held_bytes", "Memory that tasks of the shown runs hold.", &|gauge| bytes(gauge.ours?));
    family("trainyard_gpu_memory_reserved_bytes", "Memory promised to running tasks of the shown runs.", &|gauge| {
        bytes(gauge.promised)
    });
    family("trainyard_gpu_utilization_ratio", "Part of the time in which a GPU computed.", &|gauge| {
        Some((f64::from(gauge.utilisation?) / 100.0).to_string())
    });
    family("trainyard_gpu_temperature_celsius", "Temperature of the chip.", &|gauge| {
        Some(gauge.temperature?.to_string())
    });
    family("trainyard_gpu_power_watts", "What a GPU draws.", &|gauge| thousandths(gauge.power?));
    family("trainyard_gpu_power_limit_watts", "What a GPU may draw.", &|gauge| thousandths(gauge.power_limit?));
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// What is written so far. A family without samples leaves nothing.
#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
    /// `HELP` and `TYPE` of a family, until its first sample.
    heading: String,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        self.name = name;
        self.heading = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn gauges(
        &mut self,
        name: &'static str,
        help: &str,
        tried: &[Tried<'_>],
        value: impl Fn(&Tried<'_>) -> Option<String>,
    ) {
        self.family(name, Kind::Gauge, help);
        for of in tried {
            if let Some(value) = value(of) {
                self.sample(&of.labels, &value);
            }
        }
    }

    fn sample<L: AsRef<str>>(&mut self, labels: &[(&str, L)], value: &str) {
        self.text.push_str(&std::mem::take(&mut self.heading));
        self.text.push_str(self.name);
        for (at, (label, of)) in labels.iter().enumerate() {
            let comma = if at == 0 { '{' } else { ',' };
            write!(self.text, "{comma}{label}=\"{}\"", escaped(of.as_ref())).expect("a String takes everything");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        writeln!(self.text, "{end} {value}").expect("a String takes everything");
    }
}

/// Returns the value of a label as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Returns thousandths as a decimal number, exactly.
fn seconds(time: Millis) -> String {
    format!("{}.{:03}", time.0 / 1_000, time.0 % 1_000)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::progress::Progress;
    use crate::progress::series::Book;
    use crate::report::fixture::Scene;

    fn written() -> String {
        let scene = Scene::failed(&["clean", "train[note=\"a\\b\nc\"]", "best"]);
        let header = Header { run: "r1", name: None, pipeline: "digits", started: scene.time(0), alive: false };
        let task = |name: &str| TaskHeader { name: name.into(), ..TaskHeader::default() };
        let tasks: Vec<TaskHeader> = scene.graph.tasks.iter().map(|of| task(&of.name)).collect();
        let heard = |task: &str, _| {
            let mut book = Book::default();
            book.push("loss", 1, None, 0.25);
            let progress = Progress { progress: Some(0.5), ..Progress::default() };
            task.starts_with("train").then(|| Record { at_ms: 1, progress, series: book.series().to_vec() })
        };
        let run = Run { header, tasks: &tasks, state: &scene.state, heard: &heard };
        let gauge = DeviceGauge {
            id: "box/gpu0".into(),
            model: "H100".into(),
            used: Some(Bytes(3 << 30)),
            total: Bytes(80 << 30),
            promised: Bytes(2 << 30),
            utilisation: Some(87),
            power: Some(349_500),
            ..DeviceGauge::default()
        };
        render(&Picture {
            ends: &[(scene.state.end, false), (None, true)],
            runs: &[run],
            devices: &[("GPU-0".to_owned(), gauge)],
            now: scene.time(20),
        })
    }

    #[test]
    fn names_and_labels_are_stable() {
        insta::assert_snapshot!("metrics", written());
    }

    /// Reads the text as strictly as the format is described.
    #[test]
    fn a_strict_reader_takes_it() {
        let text = written();
        assert!(text.ends_with('\n') && !text.contains("\n\n"));
        let (mut kinds, mut samples) = (BTreeMap::new(), BTreeSet::new());
        let (mut family, mut helped) = ("", "");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split_once(' ').unwrap().0;
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, helped, "HELP is right before TYPE");
                assert!(kinds.insert(name, kind).is_none(), "{name} has one group of samples");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
                family = name;
            } else {
                let end = line.find(['{', ' ']).unwrap();
                let (name, mut rest) = line.split_at(end);
                assert_eq!(name, family, "samples stand below their family");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
                if let Some(labels) = rest.strip_prefix('{') {
                    rest = labels;
                    loop {
                        let (label, value) = rest.split_once("=\"").unwrap();
                        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
                        let mut escape = false;
                        let end = value.find(|c: char| {
                            let ends = c == '"' && !escape;
                            assert!(!escape || matches!(c, '\\' | '"' | 'n'), "{value}");
                            escape = c == '\\' && !escape;
                            ends
                        });
                        rest = &value[end.unwrap() + 1..];
                        match rest.strip_prefix(',') {
                            Some(more) => rest = more,
                            None => break,
                        }
                    }
                    rest = rest.strip_prefix('}').unwrap();
                }
                let value = rest.strip_prefix(' ').unwrap();
                assert!(value.parse::<f64>().unwrap().is_finite() && !value.contains(' '), "{line}");
                assert!(samples.insert(line.strip_suffix(value).unwrap()), "{line} is there twice");
            }
        }
    }

    #[test]
    fn what_is_unknown_has_no_sample() {
        let text = written();
        assert!(!text.contains("temperature") && !text.contains("held_bytes"), "{text}");
    }
}
