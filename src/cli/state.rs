//! Which state folder and which run a command is about.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use miette::Diagnostic;
use rustix::fs::{Access, StatVfsMountFlags};
use thiserror::Error;

use super::presence::Processes;
use super::{Exit, Failure};
use crate::engine::{attendance, process, sentinel};
use crate::probe::disk::Disk;
use crate::report::json::Header;
use crate::report::text;
use crate::run::cache::index::IndexError;
use crate::run::cache::keeper::CacheError;
use crate::run::cache::sweep::SweepError;
use crate::run::event::Recorded;
use crate::run::launch::{run_mark, sentinels};
use crate::run::neighbours::{Here, Presence as _};
use crate::run::state::{Illegal, RunState};
use crate::run::store::{Mark, Orchestrator, RunRow, Store, StoreError};
use crate::units::Bytes;

/// Name of the state folder, beside the pipeline file.
pub(super) const FOLDER: &str = ".trainyard";

#[derive(Args, Clone, Debug)]
pub(super) struct StateArgs {
    /// Where runs are recorded [default: the nearest .trainyard, here or in a folder above]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Why there is no run to speak of.
#[derive(Debug, Error, Diagnostic)]
pub(super) enum NoRun {
    #[error("no runs are recorded: there is no `{FOLDER}` with a record (`state.db`) in this folder or above it")]
    #[diagnostic(help("it lies beside the pipeline file; name it with --state DIR"))]
    NoFolder,
    #[error("no runs are recorded in {0}")]
    Empty(String),
    #[error("there is no run `{wanted}`")]
    #[diagnostic(help("{}", nearest(newest)))]
    Unknown { wanted: String, newest: Option<String> },
    #[error("`{wanted}` could be {}", candidates.join(" or "))]
    #[diagnostic(help("write more of it"))]
    Ambiguous { wanted: String, candidates: Vec<String> },
}

fn nearest(newest: &Option<String>) -> String {
    newest.as_ref().map_or_else(String::new, |newest| format!("the newest is {newest}; `trainyard runs` lists all"))
}

impl From<NoRun> for Failure {
    fn from(error: NoRun) -> Self {
        Self { exit: Exit::Usage, report: error.into() }
    }
}

impl StateArgs {
    /// Asks for this folder.
    pub(super) const fn of(folder: PathBuf) -> Self {
        Self { state: Some(folder) }
    }

    /// Returns the folder that was asked for.
    pub(super) fn named(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    /// Returns the folder: the one that was asked for, or the nearest.
    pub(super) fn folder(&self) -> Result<PathBuf, Failure> {
        let here = || std::env::current_dir().ok().as_deref().and_then(nearest_folder);
        self.state.clone().or_else(here).ok_or_else(|| NoRun::NoFolder.into())
    }

    /// Opens the record, or returns `None` where nothing was recorded yet and no folder was asked for.
    pub(super) fn open(&self) -> Result<Option<Store>, Failure> {
        let here = || std::env::current_dir().ok().as_deref().and_then(nearest_folder);
        let Some(dir) = self.state.clone().or_else(here) else { return Ok(None) };
        Store::open_existing(&dir).map(Some).map_err(unopened)
    }

    /// Opens the record and picks a run: the newest where `wanted` is absent or `latest`, otherwise by its id or the
    /// beginning of it, or by its name.
    pub(super) fn pick(&self, wanted: Option<&str>) -> Result<(Store, RunRow), Failure> {
        let store = self.open()?.ok_or(NoRun::NoFolder)?;
        let marks = store.marks().map_err(broken)?;
        let row = row(&store, pick(&marks, wanted, store.dir())?)?;
        Ok((store, row))
    }

    /// Like [`StateArgs::pick`], but without a name the newest run for which `usual` holds; `None` where there is none among
    /// those that are recorded.
    pub(super) fn pick_where(
        &self,
        wanted: Option<&str>,
        usual: impl Fn(&RunRow) -> bool,
    ) -> Result<Option<(Store, RunRow)>, Failure> {
        if wanted.is_some() {
            return self.pick(wanted).map(Some);
        }
        let store = self.open()?.ok_or(NoRun::NoFolder)?;
        let marks = store.marks().map_err(broken)?;
        if marks.is_empty() {
            return Err(nothing_in(store.dir()).into());
        }
        for mark in &marks {
            if let Some(row) = store.run(&mark.run).map_err(broken)?.filter(&usual) {
                return Ok(Some((store, row)));
            }
        }
        Ok(None)
    }
}

/// Returns `dir` where commands called from this folder would not find it by themselves and must be told.
pub(super) fn elsewhere(dir: &Path) -> Option<PathBuf> {
    let found = std::env::current_dir().ok().as_deref().and_then(nearest_folder);
    let same = found.and_then(|found| found.canonicalize().ok()) == dir.canonicalize().ok();
    (!same).then(|| dir.to_owned())
}

/// Returns the folder's or the nearest parent's state folder.
pub(super) fn nearest_folder(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|folder| folder.join(FOLDER)).find(|dir| dir.join("state.db").exists())
}

/// Returns the id of the run that is meant: the newest where `wanted` is absent or `latest`, otherwise by its id or the
/// beginning of it, or by its name.
pub(super) fn pick<'a>(marks: &'a [Mark], wanted: Option<&str>, dir: &Path) -> Result<&'a str, NoRun> {
    let newest = marks.first().map(|mark| mark.run.as_str());
    let Some(wanted) = wanted.filter(|wanted| *wanted != "latest") else {
        return newest.ok_or_else(|| nothing_in(dir));
    };
    let is_called = |mark: &&Mark| mark.name.as_deref() == Some(wanted);
    let exact = marks.iter().find(|mark| mark.run == wanted).or_else(|| marks.iter().find(is_called));
    if let Some(mark) = exact {
        return Ok(&mark.run);
    }
    let begun: Vec<&str> = marks.iter().map(|mark| mark.run.as_str()).filter(|run| run.starts_with(wanted)).collect();
    let wanted = text::visible(wanted).into_owned();
    match begun[..] {
        [one] => Ok(one),
        [] => Err(NoRun::Unknown { wanted, newest: newest.map(str::to_owned) }),
        [..] => Err(NoRun::Ambiguous { wanted, candidates: begun.into_iter().take(3).map(str::to_owned).collect() }),
    }
}

fn nothing_in(dir: &Path) -> NoRun {
    NoRun::Empty(text::visible(&dir.to_string_lossy()).into_owned())
}

/// Returns the run with this id, which was there a moment ago.
fn row(store: &Store, id: &str) -> Result<RunRow, Failure> {
    let removed = || NoRun::Unknown { wanted: id.to_owned(), newest: None }.into();
    store.run(id).map_err(broken)?.ok_or_else(removed)
}

/// Returns the run that is meant by its id, the beginning of it, its name or `latest`; `None` where there is none.
pub(super) fn find(store: &Store, wanted: &str) -> Result<Option<RunRow>, Failure> {
    match pick(&store.marks().map_err(broken)?, Some(wanted), store.dir()) {
        Ok(run) => store.run(run).map_err(broken),
        Err(several @ NoRun::Ambiguous { .. }) => Err(several.into()),
        Err(NoRun::NoFolder | NoRun::Empty(_) | NoRun::Unknown { .. }) => Ok(None),
    }
}

/// Returns the state that the run's events tell.
pub(super) fn replay(store: &Store, row: &RunRow) -> Result<RunState, Failure> {
    let mut replay = Replay::from(RunState::new(row.header.tasks.len()));
    store.tell_events(&row.header.id, 0, |recorded| replay.take_in(&recorded)).map_err(broken)?;
    replay.end()
}

/// A state that takes in events as they are read, up to one that cannot follow.
pub(super) struct Replay {
    state: RunState,
    wrong: Option<Illegal>,
}

impl From<RunState> for Replay {
    fn from(state: RunState) -> Self {
        Self { state, wrong: None }
    }
}

impl Replay {
    pub(super) fn take_in(&mut self, recorded: &Recorded) {
        if self.wrong.is_none() {
            self.wrong = self.state.apply(recorded).err();
        }
    }

    pub(super) fn end(self) -> Result<RunState, Failure> {
        self.wrong.map_or(Ok(self.state), |illegal| Err(broken(illegal)))
    }
}

/// Returns what views need of a run's header.
pub(super) fn header(row: &RunRow) -> Header<'_> {
    let header = &row.header;
    Header {
        run: &header.id,
        name: header.invocation.name.as_deref(),
        pipeline: &header.pipeline,
        started: header.started,
        alive: row.end.is_none() && is_alive(row),
    }
}

/// Whether a run that has not ended is still carried out.
pub(super) fn is_alive(row: &RunRow) -> bool {
    is_carried_out(&row.header.orchestrator, &row.dir)
}

/// Whether somebody still carries out the run whose folder this is. On another machine nobody can be looked at: that it
/// goes on is then believed.
pub(super) fn is_carried_out(orchestrator: &Orchestrator, dir: &Path) -> bool {
    if is_here(orchestrator) {
        return process::is_alive(orchestrator.process);
    }
    match orchestrator.boot == process::boot_id() {
        // In another container: its processes cannot be seen, the lock that they hold can.
        true => attendance::is_attended(dir).unwrap_or(true),
        false => orchestrator.host != this_host(),
    }
}

/// Returns the tasks of a run whose processes go on although the one that carried it out is gone.
pub(super) fn tasks_that_go_on(row: &RunRow) -> BTreeSet<String> {
    if is_alive(row) {
        return BTreeSet::new();
    }
    let mark = run_mark(&row.header.id);
    let processes = process::find_marked(std::slice::from_ref(&mark));
    processes.into_iter().filter_map(|pid| process::marked_as(pid, &mark, "TRAINYARD_TASK")).collect()
}

/// Whether tasks of the run with this folder have survived it, whatever is on record.
pub(super) fn goes_on_alone(run: &Path) -> bool {
    sentinel::longest_grace(&sentinels(run)).is_some()
}

/// Whether the number of the process that carries or carried a run out means that process here: on this host, since it was
/// started, in this PID namespace.
pub(super) fn is_here(orchestrator: &Orchestrator) -> bool {
    orchestrator.host == this_host()
        && orchestrator.boot == process::boot_id()
        && orchestrator.pids.is_none_or(|pids| Some(pids) == process::namespace())
}

/// Whether nothing can be seen of the machine on which a run was started, nor of a lock that it holds on a shared disk.
pub(super) fn is_out_of_sight(row: &RunRow) -> bool {
    let Orchestrator { host, boot, .. } = &row.header.orchestrator;
    *host != this_host() && *boot != process::boot_id() && attendance::is_attended(&row.dir) != Some(true)
}

/// Returns where a run is carried out that [`is_here`] denies.
pub(super) fn elsewhere_on(orchestrator: &Orchestrator) -> String {
    if orchestrator.boot == process::boot_id() {
        return "in another container of this machine".to_owned();
    }
    format!("on {}", orchestrator.host)
}

/// Returns this process as the one that carries a run out.
pub(super) fn this_process() -> Result<Orchestrator, Failure> {
    let process = process::identify(std::process::id());
    let process = process.ok_or_else(|| broken(std::io::Error::other("/proc cannot be read")))?;
    let (boot, pids, within) = (process::boot_id(), process::namespace(), Processes.within());
    Ok(Orchestrator { host: this_host(), boot, pids, process, within })
}

/// Returns this machine.
pub(super) fn here() -> Here {
    Here { host: this_host(), boot: process::boot_id() }
}

/// Returns this host's name.
pub(super) fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A record that cannot be opened: one that is not there or of another version is a matter of usage, the rest as in
/// [`broken`].
pub(super) fn unopened(error: StoreError) -> Failure {
    if matches!(error, StoreError::Format { .. }) {
        let help = "use that version, or another state folder: --state DIR";
        return Failure { exit: Exit::Usage, report: miette::miette!(help = help, "{error}") };
    }
    if matches!(error, StoreError::NoState(_)) {
        return Failure { exit: Exit::Usage, report: miette::Report::from_err(error) };
    }
    broken(error)
}

/// Refuses a state folder in which nothing can be written, or not what is there already.
pub(super) fn refuse_unwritable(dir: &Path) -> Result<(), Failure> {
    let there = |path: &PathBuf| path.symlink_metadata().is_ok();
    let folder = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let nearest = folder.ancestors().map(Path::to_owned).find(there);
    let files = ["state.db", "runs", "cache", "cache/index.db"].map(|name| folder.join(name));
    for path in nearest.into_iter().chain(files).filter(there) {
        if let Err(error) = rustix::fs::access(&path, Access::WRITE_OK) {
            let what = text::visible(&path.to_string_lossy()).into_owned();
            let report = miette::miette!(
                help = "let this user write there, or name another folder: --state DIR",
                "the state folder {} cannot be used: {what} cannot be written: {}",
                text::visible(&dir.to_string_lossy()),
                std::io::Error::from(error)
            );
            return Err(Failure { exit: Exit::Usage, report });
        }
    }
    Ok(())
}

/// A record that cannot be read: the disk, or a bug of ours. One that another process goes on with is neither.
pub(super) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let first: &(dyn std::error::Error + 'static) = &error;
    let chain = || std::iter::successors(Some(first), |error| error.source());
    let help = chain().find_map(remedy);
    let is_taken_over = |error| matches!(error, Some(&StoreError::TakenOver { .. }));
    let is_taken_over = chain().any(|error| is_taken_over(error.downcast_ref::<StoreError>()));
    let exit = if is_taken_over { Exit::Interrupted } else { Exit::Bug };
    let report = match help {
        Some(help) => Helped { error: Box::new(error), help }.into(),
        None => miette::Report::from_err(error),
    };
    Failure { exit, report }
}

/// An error and what helps against it.
#[derive(Debug)]
struct Helped {
    error: Box<dyn std::error::Error + Send + Sync>,
    help: String,
}

impl std::fmt::Display for Helped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Helped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl Diagnostic for Helped {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(&self.help))
    }
}

/// Returns what the user can do about an error of the record.
fn remedy(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let of_cache = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(CacheError::Index(index)), _) | (_, Some(SweepError::Index(index))) => Some(index),
        _ => None,
    };
    if let Some(IndexError::Database { path, source }) = of_cache {
        return remedy_of_database(path, source);
    }
    match error.downcast_ref::<StoreError>()? {
        StoreError::Corrupt { .. } => {
            Some("it is left as it is; `trainyard run` moves it aside and begins a new one".to_owned())
        }
        StoreError::Damaged { run, .. } => {
            Some(format!("other runs are not concerned; what run {run} printed is in its folder `logs`"))
        }
        StoreError::CorruptUnder { run, .. } => Some(format!(
            "wait for its end, or end it: `trainyard cancel {run}`; where that cannot read the record either, by Ctrl-C where \
             it was started, or, where only its tasks are left, by `trainyard devices --orphans --end {run}`; the next run \
             moves the record aside and begins a new one"
        )),
        StoreError::NotAFile(path) => Some(format!("move {} away: `trainyard run` begins a new one", path.display())),
        StoreError::Database { path, source } => remedy_of_database(path, source),
        StoreError::TakenOver { run, .. } => Some(format!("`trainyard watch {run}` shows it")),
        StoreError::Folder { .. }
        | StoreError::NoState(_)
        | StoreError::Format { .. }
        | StoreError::Gone(_)
        | StoreError::Held { .. }
        | StoreError::NameTaken { .. } => None,
    }
}

fn remedy_of_database(path: &Path, source: &rusqlite::Error) -> Option<String> {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
    let code = source.sqlite_error_code()?;
    let folder = path.parent().unwrap_or(path);
    // Where even a few pages cannot be had, SQLite speaks of input and output.
    let is_full = || Disk::of(folder).is_some_and(|disk| disk.free < FEW_PAGES);
    if matches!(code, ReadOnly | PermissionDenied | CannotOpen) {
        return Some(match is_read_only(path) {
            true => format!("the file system of {} is read-only", folder.display()),
            false => format!("whoever reads while a run goes on must be allowed to write to {}", folder.display()),
        });
    }
    let is_full = code == DiskFull || code == SystemIoFailure && is_full();
    is_full.then(|| MAKE_ROOM.to_owned())
}

/// What helps where the disk is full.
const MAKE_ROOM: &str = "the disk is full: make room on it; a run that is on record goes on by `trainyard resume`";
/// What is hardly any room.
const FEW_PAGES: Bytes = Bytes(64 << 10);

/// Whether nobody can write to the file system that a file belongs to.
fn is_read_only(path: &Path) -> bool {
    let stat = path.parent().and_then(|folder| rustix::fs::statvfs(folder).ok());
    stat.is_some_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(run: &str, name: Option<&str>) -> Mark {
        Mark { run: run.into(), name: name.map(str::to_owned), events: 0 }
    }

    fn picked(wanted: Option<&str>) -> Result<String, String> {
        let marks = ["20261121-a", "20261120-b", "20261120-bc"].map(|run| mark(run, None));
        pick(&marks, wanted, Path::new("/w")).map(str::to_owned).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_name_the_newest_run_is_meant() {
        assert_eq!(picked(None).as_deref(), Ok("20261121-a"));
        assert_eq!(picked(Some("latest")).as_deref(), Ok("20261121-a"));
    }

    #[test]
    fn the_beginning_of_an_id_is_enough_where_it_is_unambiguous() {
        assert_eq!(picked(Some("20261121")).as_deref(), Ok("20261121-a"));
        assert_eq!(picked(Some("20261120")), Err("`20261120` could be 20261120-b or 20261120-bc".into()));
        assert_eq!(picked(Some("20261120-b")).as_deref(), Ok("20261120-b"), "a whole id is never ambiguous");
        assert_eq!(picked(Some("x")), Err("there is no run `x`".into()));
    }

    #[test]
    fn a_name_means_its_run_also_where_ids_begin_like_it() {
        let marks = [mark("20261120-b", None), mark("20261119-d", Some("20261120"))];
        assert_eq!(pick(&marks, Some("20261120"), Path::new("/w")).unwrap(), "20261119-d");
    }

    #[test]
    fn the_nearest_folder_above_is_found() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        assert_eq!(nearest_folder(&deep), None);
        let state = root.path().join(FOLDER);
        Store::open(&state).unwrap();
        assert_eq!(nearest_folder(&deep), Some(state));
    }

    #[test]
    fn a_process_number_of_an_earlier_boot_is_not_alive() {
        let (mut orchestrator, dir) = (this_process().unwrap(), Path::new("/nowhere"));
        assert!(is_carried_out(&orchestrator, dir));
        orchestrator.boot = "another".into();
        assert!(!is_carried_out(&orchestrator, dir));
        orchestrator.host = "another".into();
        assert!(is_carried_out(&orchestrator, dir), "nobody can tell");
    }

    #[test]
    fn a_process_number_of_another_container_says_nothing_but_the_lock_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut orchestrator = this_process().unwrap();
        orchestrator.pids = orchestrator.pids.map(|own| own + 1);
        assert!(!is_here(&orchestrator) && !is_carried_out(&orchestrator, dir.path()));
        orchestrator.process.pid += 1;
        let held = attendance::Share::take(dir.path()).unwrap();
        assert!(is_carried_out(&orchestrator, dir.path()));
        drop(held);
        assert!(!is_carried_out(&orchestrator, dir.path()));
    }
}
