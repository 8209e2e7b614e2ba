//! What devices held and did while a run went on, kept in its folder for whoever looks later: bounded, as every course
//! of figures.
//!
//! The file is not part of the record: a run is resumed without it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::progress::series::{Book, Series};
use crate::run::event::{Event, Recorded};
use crate::run::observer::{DeviceGauge, Observer, View};
use crate::units::{Bytes, Millis};

/// Name of the file.
const FILE: &str = "memory.json";

/// How long what is kept lags behind: a two-hundredth of the course, which no eye sees on a chart of it, within bounds.
const PARTS: u64 = 200;
const LAG: (Millis, Millis) = (Millis(2_000), Millis(60_000));

/// What devices held and did: one series for each of them, ms since the Unix epoch; bytes, where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// What anybody held.
    pub used: Vec<Series>,
    /// What of it the run's own tasks held, where the driver says whose it is.
    pub ours: Vec<Series>,
    /// The part of the time in which they computed, in percent.
    pub busy: Vec<Series>,
}

impl Held {
    /// Returns this with what another saw after it.
    #[must_use]
    pub fn followed_by(mut self, later: Self) -> Self {
        for (own, later) in [(&mut self.used, later.used), (&mut self.ours, later.ours), (&mut self.busy, later.busy)] {
            for series in later {
                match own.iter_mut().find(|one| one.name == series.name) {
                    Some(one) => {
                        let known = one.ms.last().map_or(0, |last| series.ms.partition_point(|ms| ms <= last));
                        one.ms.extend(&series.ms[known..]);
                        one.step.extend(&series.step[known..]);
                        one.value.extend(&series.value[known..]);
                    }
                    None => own.push(series),
                }
            }
        }
        self
    }

    /// Returns this with times counted from `start`; what was before it is left out.
    #[must_use]
    pub fn since(mut self, start: Millis) -> Self {
        for series in self.used.iter_mut().chain(&mut self.ours).chain(&mut self.busy) {
            let before = series.ms.partition_point(|ms| *ms < start.0);
            series.ms.drain(..before);
            series.step.drain(..before);
            series.value.drain(..before);
            series.ms.iter_mut().for_each(|ms| *ms -= start.0);
        }
        self
    }
}

/// Returns what was kept in a run's folder; nothing where there was no device, or where the file is damaged.
#[must_use]
pub fn read(dir: &Path) -> Held {
    let kept = fs::read(dir.join(FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut held: Held = kept.unwrap_or_default();
    for series in [&mut held.used, &mut held.ours, &mut held.busy] {
        // Arrays of different lengths are no points.
        series.retain(|one| !one.ms.is_empty() && one.ms.len() == one.value.len() && one.step.len() == one.ms.len());
    }
    held
}

/// What devices hold, taken in as it is seen.
#[derive(Clone, Debug, Default)]
pub struct Course {
    used: Book,
    ours: Book,
    busy: Book,
}

impl Course {
    /// Goes on with what was kept.
    #[must_use]
    pub fn going_on(held: Held) -> Self {
        let Held { used, ours, busy } = held;
        Self { used: Book::going_on(used), ours: Book::going_on(ours), busy: Book::going_on(busy) }
    }

    /// Takes in what the devices hold now; what is unknown leaves a gap.
    pub fn take_in(&mut self, now: Millis, gauges: &[DeviceGauge]) {
        for gauge in gauges {
            let bytes = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.0);
            let figures = [
                (&mut self.used, bytes(gauge.used)),
                (&mut self.ours, bytes(gauge.ours)),
                (&mut self.busy, gauge.utilisation.map(u64::from)),
            ];
            for (book, value) in figures {
                if let Some(value) = value {
                    #[expect(clippy::cast_precision_loss, reason = "a point of a curve")]
                    book.push(&gauge.id, now.0, None, value as f64);
                }
            }
        }
    }

    /// Returns all of it.
    #[must_use]
    pub fn held(&self) -> Held {
        let of = |book: &Book| book.series().to_vec();
        Held { used: of(&self.used), ours: of(&self.ours), busy: of(&self.busy) }
    }
}

/// Keeps the file.
pub struct Keeper {
    dir: PathBuf,
    /// `None` until a device was looked at: a machine may have none.
    course: Option<Course>,
    /// When the course began and when it was written last.
    written: Option<(Millis, Millis)>,
}

impl Keeper {
    /// Makes an observer that keeps the file in the run's folder.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir, course: None, written: None }
    }

    fn write(&self) -> std::io::Result<()> {
        let Some(course) = &self.course else { return Ok(()) };
        let text = serde_json::to_vec(&course.held()).expect("plain data with text keys");
        let draft = self.dir.join("memory.draft");
        fs::write(&draft, text)?;
        fs::rename(draft, self.dir.join(FILE))
    }

    fn keep(&self) {
        if let Err(error) = self.write() {
            tracing::debug!(%error, "what devices held cannot be kept");
        }
    }
}

impl Observer for Keeper {
    fn recorded(&mut self, _view: View<'_>, recorded: &Recorded) {
        if let Event::RunFinished { .. } = recorded.event {
            self.keep();
        }
    }

    fn gauged(&mut self, _view: View<'_>, now: Millis, gauges: &[DeviceGauge]) {
        let dir = &self.dir;
        self.course.get_or_insert_with(|| Course::going_on(read(dir))).take_in(now, gauges);
        let (least, most) = LAG;
        let is_due = |(begun, written)| now - written >= Millis((now - begun).0 / PARTS).clamp(least, most);
        if self.written.is_none_or(is_due) {
            self.keep();
            self.written = Some((self.written.map_or(now, |(begun, _)| begun), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::series::POINTS;
    use crate::report::fixture::{Scene, over};
    use crate::run::event::RunEnd;

    fn gauge(used: Option<u64>) -> DeviceGauge {
        DeviceGauge { id: "box/gpu0".into(), used: used.map(Bytes), ..DeviceGauge::default() }
    }

    #[test]
    fn what_devices_held_is_kept_and_a_resumed_run_goes_on_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut scene = Scene::chain(&["train"]);
        assert_eq!(read(dir.path()), Held::default());
        let mut keeper = Keeper::new(dir.path().to_owned());
        for (at, used) in [(1_000, Some(10)), (1_500, None), (2_000, Some(30))] {
            keeper.gauged(scene.view(), Millis(at), &[gauge(used)]);
        }
        assert_eq!(read(dir.path()).used[0].value, [10.0], "it lags a little behind");
        scene.tell(&mut keeper, 4, over(RunEnd::Interrupted));
        let held = read(dir.path());
        assert_eq!((&held.used[0].ms[..], &held.used[0].value[..]), (&[1_000, 2_000][..], &[10.0, 30.0][..]));
        assert_eq!(held.ours, [], "whose it is was not said");
        let mut keeper = Keeper::new(dir.path().to_owned());
        keeper.gauged(scene.view(), Millis(9_000), &[gauge(Some(90))]);
        assert_eq!(read(dir.path()).used[0].value, [10.0, 30.0, 90.0]);
    }

    #[test]
    fn what_was_seen_later_comes_behind_what_was_kept() {
        let seen = |times: &[u64]| {
            let mut course = Course::default();
            times.iter().for_each(|at| course.take_in(Millis(*at), &[gauge(Some(*at))]));
            course.held()
        };
        let both = seen(&[1_000, 2_000]).followed_by(seen(&[1_500, 2_000, 2_500])).since(Millis(1_000));
        assert_eq!((&both.used[0].ms[..], &both.used[0].value[..]), (&[0, 1_000, 1_500][..], &[1e3, 2e3, 2.5e3][..]));
        assert_eq!(Held::default().followed_by(seen(&[7])), seen(&[7]));
        assert_eq!(seen(&[1, 5]).since(Millis(5)).used[0].ms, [0]);
    }

    #[test]
    fn however_long_a_run_is_the_file_stays_small() {
        let mut course = Course::default();
        (0..100_000).for_each(|at| course.take_in(Millis(at), &[gauge(Some(at))]));
        assert!(course.held().used[0].ms.len() <= POINTS);
    }

    #[test]
    fn without_devices_there_is_no_file_and_a_damaged_one_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut scene = Scene::chain(&["train"]);
        scene.tell(&mut Keeper::new(dir.path().to_owned()), 1, over(RunEnd::Succeeded));
        assert!(!dir.path().join(FILE).exists());
        std::fs::write(dir.path().join(FILE), r#"{"used":[{"name":"a","ms":[1],"step":[],"value":[1]}]}"#).unwrap();
        assert_eq!(read(dir.path()), Held::default());
        std::fs::write(dir.path().join(FILE), "{\"used\":[{").unwrap();
        assert_eq!(read(dir.path()), Held::default());
    }
}
