//! What an attempt says of its progress, heard from its output and from the file that it may write to.
//!
//! What it says on purpose wins over what is understood of its output, part by part and figure by figure. A record for
//! those who look from outside is kept in the run's folder; that it cannot be written stops nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::time::Instant;

use super::hole::Hole;
use super::silence::Silence;
use crate::progress::record::Record;
use crate::progress::series::Book;
use crate::progress::{Progress, Reader, explicit};
use crate::units::Bytes;

/// The most that is read of a progress file at a time, and the longest line in it.
const AT_ONCE: usize = 64 << 10;

/// The most that is kept of a progress file; what lies between beginning and end has been read.
const KEPT: Bytes = Bytes(64 << 20);

/// How often the record is written at most; a large one is written less often, by this much per 100 KB.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Everything heard of one attempt.
pub(super) struct Heard {
    started: Instant,
    reader: Reader,
    /// Whether output came since the last look.
    printed: bool,
    events: EventsFile,
    told: Progress,
    /// What an earlier orchestrator knew.
    earlier: Progress,
    /// Names of figures that are told on purpose.
    told_figures: HashSet<String>,
    book: Book,
    known: Progress,
    record: RecordFile,
}

impl Heard {
    pub(super) fn new(started: Instant, events: PathBuf, record: PathBuf) -> Self {
        Self {
            started,
            reader: Reader::default(),
            printed: false,
            events: EventsFile::new(events),
            told: Progress::default(),
            earlier: Progress::default(),
            told_figures: HashSet::new(),
            book: Book::default(),
            known: Progress::default(),
            record: RecordFile { path: record, due: started + WRITE_EVERY, changed: false },
        }
    }

    /// Looks for its file only where this does not tell that there is none.
    pub(super) fn unless(mut self, silence: Option<Arc<Silence>>) -> Self {
        self.events.silence = silence;
        self
    }

    /// Goes on with an attempt that started earlier, where its record ends.
    pub(super) fn go_on(started: Instant, events: PathBuf, record: PathBuf) -> Self {
        let earlier = fs::read(&record).ok().and_then(|json| Record::read(&json)).unwrap_or_default();
        let mut heard = Self::new(started, events, record);
        heard.events.skip_to_end();
        heard.book = Book::going_on(earlier.series);
        heard.earlier = earlier.progress;
        heard
    }

    /// Listens to output.
    pub(super) fn output(&mut self, output: &[u8], now: Instant) {
        let Self { started, reader, printed, told_figures, book, record, .. } = self;
        let ms = since(*started, now);
        *printed = true;
        reader.read(output, |figure| {
            if !told_figures.contains(figure.name) {
                book.push(figure.name, ms, figure.step, figure.value);
                record.changed = true;
            }
        });
    }

    /// Looks at what there is, and returns the progress if it is news.
    pub(super) fn look(&mut self, now: Instant) -> Option<Progress> {
        self.look_through(now, false)
    }

    fn look_through(&mut self, now: Instant, at_end: bool) -> Option<Progress> {
        let ms = since(self.started, now);
        for line in self.events.lines(at_end) {
            let Some(told) = explicit::line(&line) else { continue };
            self.told = told.progress.or(&self.told);
            for (name, value) in told.figures {
                self.book.push(&name, ms, told.step, value);
                self.told_figures.insert(name);
            }
            self.record.changed = true;
            self.printed = true;
        }
        if !std::mem::take(&mut self.printed) {
            self.keep(now, false);
            return None;
        }
        let progress = self.told.clone().or(&self.reader.progress()).or(&self.earlier);
        let news = progress != self.known;
        if news {
            self.known.clone_from(&progress);
            self.record.changed = true;
        }
        self.keep(now, false);
        news.then_some(progress)
    }

    /// Hears the end: a last line need not be finished.
    pub(super) fn end(&mut self, now: Instant) -> Option<Progress> {
        self.output(b"\n", now);
        let last = self.look_through(now, true);
        self.keep(now, true);
        last
    }

    fn keep(&mut self, now: Instant, at_end: bool) {
        if self.record.changed && (at_end || now >= self.record.due) {
            let at_ms = since(self.started, now);
            let record = Record { at_ms, progress: self.known.clone(), series: self.book.series().to_vec() };
            let length = self.record.write(&record);
            self.record.changed = false;
            self.record.due = now + WRITE_EVERY * (1 + u32::try_from(length / 100_000).unwrap_or(u32::MAX));
        }
    }
}

fn since(started: Instant, now: Instant) -> u64 {
    u64::try_from((now - started).as_millis()).unwrap_or(u64::MAX)
}

/// The record on disk: always a whole one.
struct RecordFile {
    path: PathBuf,
    due: Instant,
    changed: bool,
}

impl RecordFile {
    /// Writes the record beside the old one and then in its place; returns its length.
    fn write(&self, record: &Record) -> usize {
        let json = serde_json::to_vec(record).expect("numbers and text only");
        let fresh = self.path.with_extension("new");
        let write = || {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&fresh, &json)?;
            fs::rename(&fresh, &self.path)
        };
        // A full disk is told of by the log; a record less is nobody's loss.
        drop(write());
        json.len()
    }
}

/// The file that an attempt may write JSON lines to: appended to, or written anew each time.
struct EventsFile {
    path: PathBuf,
    /// What tells that there is none.
    silence: Option<Arc<Silence>>,
    offset: u64,
    /// What was read up to the end of the file, as it was then.
    seen: Option<Stamp>,
    partial: Vec<u8>,
    hole: Hole,
}

/// What tells that a file was written anew: which it is, and when it was last written, in s and ns.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    written: (i64, i64),
}

impl Stamp {
    fn of(about: &fs::Metadata) -> Self {
        Self { file: (about.dev(), about.ino()), written: (about.mtime(), about.mtime_nsec()) }
    }
}

impl EventsFile {
    const fn new(path: PathBuf) -> Self {
        Self { path, silence: None, offset: 0, seen: None, partial: Vec::new(), hole: Hole::new(KEPT) }
    }

    /// Passes over what was written so far.
    fn skip_to_end(&mut self) {
        if let Ok(about) = fs::metadata(&self.path) {
            (self.offset, self.seen) = (about.len(), Some(Stamp::of(&about)));
        }
    }

    /// Returns the whole lines that were written since the last call; at the end also one that is not finished.
    fn lines(&mut self, at_end: bool) -> Vec<Vec<u8>> {
        let mut whole = self.fresh().unwrap_or_default();
        if at_end {
            whole.append(&mut self.partial);
        }
        whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }

    fn fresh(&mut self) -> Option<Vec<u8>> {
        if self.silence.as_ref().is_some_and(|silence| silence.covers(&self.path)) {
            return None;
        }
        // Whatever stands in its place: nobody is waited for.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
        let mut file = File::options().read(true).custom_flags(flags).open(&self.path).ok()?;
        let about = file.metadata().ok().filter(fs::Metadata::is_file)?;
        let (length, stamp) = (about.len(), Stamp::of(&about));
        let is_another = self.seen.is_some_and(|seen| seen.file != stamp.file);
        if length < self.offset || is_another || (length == self.offset && self.seen.is_some_and(|seen| seen != stamp))
        {
            self.offset = 0;
            self.partial.clear();
            self.hole = Hole::new(KEPT);
        }
        if length == self.offset {
            return None;
        }
        // Of a flood only the end matters.
        let start = self.offset.max(length.saturating_sub(AT_ONCE as u64));
        if start != self.offset {
            self.partial.clear();
        }
        file.seek(SeekFrom::Start(start)).ok()?;
        let read = (&file).take(AT_ONCE as u64).read_to_end(&mut self.partial).ok()?;
        self.offset = start + read as u64;
        self.bound(length);
        // Only what was not written to since is known to be read up to its end.
        let now = file.metadata().ok();
        self.seen = now.map(|now| Stamp {
            written: if now.len() == self.offset { Stamp::of(&now).written } else { stamp.written },
            ..stamp
        });
        let whole = self.partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        if self.partial.len() > AT_ONCE {
            self.partial.clear();
        }
        Some(lines)
    }

    /// Keeps a file within bounds that is written without end. Where there can be no holes it is left as it is.
    fn bound(&mut self, length: u64) {
        if length > KEPT.0
            && let Ok(file) = File::options().write(true).open(&self.path)
        {
            let _ = self.hole.make(&file, length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        dir: tempfile::TempDir,
        heard: Heard,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let now = Instant::now();
            let heard = Heard::new(now, dir.path().join("events"), dir.path().join("progress/a.1.json"));
            Self { dir, heard, now }
        }

        fn tell(&self, lines: &str) {
            std::fs::write(self.dir.path().join("events"), lines).unwrap();
        }

        fn record(&self) -> Option<Record> {
            Record::read(&std::fs::read(self.dir.path().join("progress/a.1.json")).ok()?)
        }
    }

    #[test]
    fn progress_is_what_the_last_whole_lines_say() {
        let mut world = World::new();
        assert_eq!(world.heard.look(world.now), None);
        world.tell("{\"progress\":0.1}\nnoise\n{\"progress\":0.2,\"loss\":0.5}\n{\"progr");
        let latest = world.heard.look(world.now).unwrap();
        assert_eq!((latest.progress, latest.loss), (Some(0.2), Some(0.5)));
        world.tell("{\"progress\":0.1}\nnoise\n{\"progress\":0.2,\"loss\":0.5}\n{\"progress\":1}\n");
        let latest = world.heard.look(world.now).unwrap();
        assert_eq!((latest.progress, latest.loss), (Some(1.0), Some(0.5)));
        assert_eq!(world.heard.look(world.now), None);
    }

    #[test]
    fn a_file_that_is_written_anew_is_read_anew() {
        let mut world = World::new();
        let progress = |world: &mut World| world.heard.look(world.now).and_then(|progress| progress.progress);
        world.tell("{\"progress\":0.1}\n{\"progress\":0.2}\n");
        assert_eq!(progress(&mut world), Some(0.2));
        world.tell("{\"progress\":0.3}\n");
        assert_eq!(progress(&mut world), Some(0.3), "it is shorter");
        let next = world.dir.path().join("next");
        std::fs::write(&next, "{\"progress\":0.4}\n").unwrap();
        std::fs::rename(next, world.dir.path().join("events")).unwrap();
        assert_eq!(progress(&mut world), Some(0.4), "it is another of the same length");
        world.tell("{\"progress\":0.5}");
        assert_eq!(progress(&mut world), None, "the line is not finished");
        assert_eq!(world.heard.end(world.now).unwrap().progress, Some(0.5));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let mut world = World::new();
        let path = world.dir.path().join("events");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert_eq!(world.heard.look(world.now), None);
        assert_eq!(world.heard.end(world.now), None);
    }

    #[test]
    fn a_training_that_diverges_is_no_news_twice() {
        let mut world = World::new();
        world.tell("{\"progress\":0.1,\"loss\":NaN}\n");
        assert!(world.heard.look(world.now).unwrap().loss.unwrap().is_nan());
        world.heard.output(b"noise\n", world.now);
        assert_eq!(world.heard.look(world.now), None);
    }

    #[test]
    fn what_is_told_on_purpose_wins_over_what_is_printed() {
        let mut world = World::new();
        world.heard.output(b"Epoch 1/2\nstep 5/10, loss: 9.0, lr: 0.1\n", world.now);
        assert_eq!(world.heard.look(world.now).unwrap().progress, Some(0.25));
        world.tell("{\"progress\":0.75,\"loss\":0.5}\n");
        let now = world.heard.look(world.now).unwrap();
        assert_eq!(
            (now.progress, now.loss, now.phase.as_deref()),
            (Some(0.75), Some(0.5), Some("epoch 1/2, step 5/10"))
        );
        world.heard.output(b"step 6/10, loss: 8.0\n", world.now);
        world.heard.end(world.now);
        let series = world.record().unwrap().series;
        let loss = series.iter().find(|series| series.name == "loss").unwrap();
        assert_eq!(loss.value, [9.0, 0.5]);
    }

    #[test]
    fn the_record_is_written_now_and_then_and_at_the_end() {
        let mut world = World::new();
        world.heard.output(b"step 1/4\n", world.now);
        world.heard.look(world.now);
        assert_eq!(world.record(), None, "not for every word");
        world.heard.look(world.now + WRITE_EVERY);
        assert_eq!(world.record().unwrap().progress.progress, Some(0.25));
        world.heard.output(b"step 4/4,", world.now + WRITE_EVERY);
        world.heard.end(world.now + WRITE_EVERY);
        assert_eq!(world.record().unwrap().progress.progress, Some(1.0));
        assert_eq!(std::fs::read_dir(world.dir.path().join("progress")).unwrap().count(), 1);
    }

    #[test]
    fn another_orchestrator_goes_on_where_the_record_ends() {
        let mut world = World::new();
        world.tell("{\"progress\":0.5}\n");
        world.heard.output(b"step 1/4 loss: 0.5\n", world.now);
        world.heard.end(world.now);
        let path = |name| world.dir.path().join(name);
        let mut heard = Heard::go_on(world.now, path("events"), path("progress/a.1.json"));
        heard.output(b"step 3/4 loss: 0.25\n", world.now);
        heard.end(world.now);
        let record = world.record().unwrap();
        assert_eq!((record.progress.progress, &record.series[0].value[..]), (Some(0.75), &[0.5, 0.25][..]));
    }

    #[test]
    fn a_progress_file_without_end_keeps_its_beginning_and_its_end() {
        use std::os::unix::fs::MetadataExt;

        let mut world = World::new();
        world.tell("{\"progress\":0.1}\n");
        let path = world.dir.path().join("events");
        let megabyte = [b"x".repeat((1 << 20) - 1), b"\n".to_vec()].concat();
        let mut file = File::options().append(true).open(&path).unwrap();
        for _ in 0..80 {
            std::io::Write::write_all(&mut file, &megabyte).unwrap();
            world.heard.look(world.now);
        }
        std::io::Write::write_all(&mut file, b"{\"progress\":0.9}\n").unwrap();
        assert_eq!(world.heard.look(world.now).unwrap().progress, Some(0.9));
        let found = file.metadata().unwrap();
        assert!(found.len() > KEPT.0 && fs::read(&path).unwrap().starts_with(b"{\"progress\":0.1}\nxx"));
        if world.heard.events.hole.is_there() {
            assert!(found.blocks() * 512 <= KEPT.0 + (2 << 20), "{} blocks", found.blocks());
        }
    }

    #[test]
    fn an_attempt_that_says_nothing_leaves_no_record() {
        let mut world = World::new();
        world.heard.output(b"hello\n", world.now);
        world.heard.end(world.now + WRITE_EVERY);
        assert_eq!(world.record(), None);
    }
}
