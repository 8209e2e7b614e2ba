//! What was checked, a row each: printed as it becomes known, and kept for the JSON.

use std::path::Path;

use serde::Serialize;

use crate::cli::output;
use crate::cuda::About;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    Skipped,
    Measured,
}

/// A check.
#[derive(Debug, Serialize)]
struct Row {
    part: &'static str,
    what: String,
    outcome: Outcome,
    detail: String,
    /// A figure and its unit, and what was asked for on an H200.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<f64>,
}

/// A figure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// What is asked for on an H200.
    pub(super) asked: Option<f64>,
}

/// Everything that was checked.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
    about: Option<About>,
}

impl Rows {
    /// Notes what the device is.
    pub(super) fn about(&mut self, about: &About) {
        self.about = Some(about.clone());
    }

    pub(super) fn passed(&mut self, part: &'static str, what: &str, detail: &str) {
        self.add(part, what, Outcome::Passed, detail, None);
    }

    pub(super) fn fail(&mut self, part: &'static str, what: &str, detail: &str) {
        self.add(part, what, Outcome::Failed, detail, None);
    }

    pub(super) fn skipped(&mut self, part: &'static str, what: &str, why: &str) {
        self.add(part, what, Outcome::Skipped, why, None);
    }

    pub(super) fn measured(&mut self, what: &str, detail: &str, figure: Figure) {
        self.add("speed", what, Outcome::Measured, detail, Some(figure));
    }

    /// Whether some check failed.
    pub(super) fn failed(&self) -> bool {
        self.rows.iter().any(|row| row.outcome == Outcome::Failed)
    }

    fn add(&mut self, part: &'static str, what: &str, outcome: Outcome, detail: &str, figure: Option<Figure>) {
        let shown = match (outcome, figure) {
            (_, Some(Figure { value, unit, asked })) => {
                let asked = asked.map_or_else(String::new, |asked| format!(" (asked on an H200: {asked})"));
                format!("{value:.3} {unit}{asked}")
            }
            (Outcome::Passed | Outcome::Measured, None) => "passed".to_owned(),
            (Outcome::Failed, None) => "FAILED".to_owned(),
            (Outcome::Skipped, None) => "skipped".to_owned(),
        };
        // Whoever reads along may leave: the file is written all the same.
        drop(output::print(&format!("{part:<9} {what}: {shown}; {detail}\n")));
        let (value, unit, asked) = (figure.map(|f| f.value), figure.map(|f| f.unit), figure.and_then(|f| f.asked));
        self.rows.push(Row { part, what: what.to_owned(), outcome, detail: detail.to_owned(), value, unit, asked });
    }

    /// Writes everything as JSON.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let at = jiff::Timestamp::from_second(i64::try_from(at.as_secs()).unwrap_or(0)).unwrap_or_default();
        let device = self.about.as_ref().map(|about| {
            serde_json::json!({
                "name": about.name,
                "uuid": about.uuid,
                "cuda": about.driver,
                "compute_capability": [about.capability.0, about.capability.1],
                "multiprocessors": about.multiprocessors,
                "memory_bytes": about.memory.0,
            })
        });
        let all = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "date": at.to_string(),
            "device": device,
            "rows": self.rows,
        });
        std::fs::write(path, format!("{all:#}\n"))
    }
}
