//! A copy of a pipeline's folder for one run: what stages do there is not done to the folder itself.
//!
//! It lies beside the folder, so that `..` means the same in it. Files are cloned where the file system can, and copied
//! elsewhere; what stages make is left out, and what is asked for is linked instead. It is removed when it is dropped, or,
//! should its process be killed, by the next comparison of the same folder.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::cli::state;
use crate::engine::process;
use crate::graph::TaskGraph;
use crate::probe::disk::Disk;
use crate::run::event::Process;
use crate::units::Bytes;

/// Bytes that are copied at a time: between two of them it can be stopped.
const PIECE: u64 = 16 << 20;

/// Stands in the name of every copy.
const MARK: &str = ".live-";

/// A pipeline's folder, and how it is copied.
pub(super) struct Original {
    /// With all links followed.
    root: PathBuf,
    /// What stages make, and state folders: relative to the root.
    left_out: HashSet<PathBuf>,
    /// What is linked: relative to the root.
    linked: HashSet<PathBuf>,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("{0} has no folder around it, in which a copy could lie")]
    NoParent(PathBuf),
    #[error("{} cannot be linked: {why}", path.display())]
    Link { path: PathBuf, why: String },
    #[error("a copy of {root} has no room in {folder}: {free} are left, and {reserve} are kept free")]
    NoRoom { root: PathBuf, folder: PathBuf, free: Bytes, reserve: Bytes },
    #[error("no copy can be made in {folder}")]
    NoPlace {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} cannot be copied")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("stopped")]
    Stopped,
}

impl CopyError {
    /// Returns what helps against it.
    pub(super) const fn help(&self) -> &'static str {
        match self {
            Self::NoParent(_) => "move the pipeline into a folder of its own",
            Self::Link { .. } => "name a file or folder in the pipeline's folder which stages only read",
            Self::NoRoom { .. } | Self::Io { .. } => {
                "`--link PATH` links what stages only read into the copies, instead of copying it"
            }
            Self::NoPlace { .. } => {
                "copies lie beside the pipeline's folder, so that `..` means the same in them: move it to where you may write"
            }
            Self::Stopped => "",
        }
    }
}

/// Says which file an error is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> CopyError + '_ {
    |source| CopyError::Io { path: path.to_owned(), source }
}

impl Original {
    /// Prepares to copy the folder of a pipeline. `links` are paths as the user wrote them, `states` are state folders.
    pub(super) fn new(
        folder: &Path,
        graph: &TaskGraph,
        states: &[&Path],
        links: &[PathBuf],
    ) -> Result<Self, CopyError> {
        let root = folder.canonicalize().map_err(at(folder))?;
        if root.parent().is_none() {
            return Err(CopyError::NoParent(root));
        }
        let inside = |path: &Path| Some(path.canonicalize().ok()?.strip_prefix(&root).ok()?.to_owned());
        let outputs = graph.tasks.iter().flat_map(|task| &task.outputs).map(PathBuf::from);
        let states = states.iter().filter_map(|state| inside(state)).chain([PathBuf::from(state::FOLDER)]);
        let left_out: HashSet<PathBuf> = outputs.chain(states).collect();
        let mut linked = HashSet::new();
        for path in links {
            let refused = |why: &str| CopyError::Link { path: path.clone(), why: why.to_owned() };
            let found = path.canonicalize().map_err(|error| refused(&error.to_string()))?;
            let found = found.strip_prefix(&root).map_err(|_| refused("it is not in the pipeline's folder"))?;
            if found.as_os_str().is_empty() {
                return Err(refused("it is the pipeline's folder"));
            }
            if let Some(output) = left_out.iter().find(|out| out.starts_with(found) || found.starts_with(out)) {
                return Err(refused(&format!("stages write {}", output.display())));
            }
            linked.insert(found.to_owned());
        }
        Ok(Self { root, left_out, linked })
    }

    /// Returns the folder, with all links followed.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Removes copies of the folder whose processes were killed before they could.
    pub(super) fn remove_leftovers(&self) {
        let Some(entries) = self.root.parent().and_then(|parent| fs::read_dir(parent).ok()) else { return };
        let prefix = self.prefix();
        for entry in entries.flatten() {
            let owner = entry.file_name().to_str().and_then(|name| owner(name.strip_prefix(&prefix)?));
            if owner.is_some_and(|owner| !process::is_alive(owner)) {
                remove(&entry.path());
            }
        }
    }

    /// Returns how the names of all copies begin that this host makes of the folder.
    fn prefix(&self) -> String {
        let name = self.root.file_name().unwrap_or_default().to_string_lossy();
        format!(".{name}{MARK}{}-", state::this_host())
    }

    /// Copies the folder. Asks `is_stopped` between two files, and within large ones.
    pub(super) fn copy(&self, is_stopped: &dyn Fn() -> bool) -> Result<Copy, CopyError> {
        let parent = self.root.parent().unwrap_or(&self.root);
        let own = process::identify(std::process::id());
        let own = own.ok_or_else(|| at(Path::new("/proc/self"))(io::ErrorKind::NotFound.into()))?;
        let path = parent.join(format!("{}{}-{}", self.prefix(), own.pid, own.started));
        remove(&path);
        // From here on it is removed, however this ends.
        let copy = Copy { path };
        Copying { of: self, to: copy.path(), is_stopped }.folder(Path::new(""))?;
        Ok(copy)
    }
}

/// Reads the process out of what stands behind the prefix of a copy's name.
fn owner(text: &str) -> Option<Process> {
    let (pid, started) = text.split_once('-')?;
    Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
}

/// A copy, removed when it is dropped.
pub(super) struct Copy {
    path: PathBuf,
}

impl Copy {
    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a folder and all that is in it, also what was protected from writing; what cannot be removed stays.
fn remove(path: &Path) {
    if !path.exists() || fs::remove_dir_all(path).is_ok() {
        return;
    }
    unprotect(path);
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(%error, "{} cannot be removed", path.display());
    }
}

fn unprotect(folder: &Path) {
    drop(fs::set_permissions(folder, Permissions::from_mode(0o700)));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            unprotect(&entry.path());
        }
    }
}

/// A copy being made.
struct Copying<'a> {
    of: &'a Original,
    to: &'a Path,
    is_stopped: &'a dyn Fn() -> bool,
}

impl Copying<'_> {
    /// Copies a folder, relative to the root, with all that is in it.
    fn folder(&self, folder: &Path) -> Result<(), CopyError> {
        let (from, to) = (self.of.root.join(folder), self.to.join(folder));
        // Nobody looks into it before it has the permissions of the original.
        let made = DirBuilder::new().mode(0o700).create(&to);
        made.map_err(|source| CopyError::NoPlace { folder: to.parent().unwrap_or(&to).to_owned(), source })?;
        for entry in fs::read_dir(&from).map_err(at(&from))? {
            if (self.is_stopped)() {
                return Err(CopyError::Stopped);
            }
            let entry = entry.map_err(at(&from))?;
            let path = folder.join(entry.file_name());
            if self.of.left_out.contains(&path) {
                continue;
            }
            let (original, copy) = (entry.path(), self.to.join(&path));
            let kind = entry.file_type().map_err(at(&original))?;
            if self.of.linked.contains(&path) {
                symlink(&original, &copy).map_err(at(&copy))?;
            } else if kind.is_symlink() {
                self.link(&original, &copy)?;
            } else if kind.is_dir() {
                self.folder(&path)?;
            } else if kind.is_file() {
                self.file(&original, &copy)?;
            }
        }
        let mode = fs::metadata(&from).map_err(at(&from))?.permissions();
        fs::set_permissions(&to, mode).map_err(at(&to))
    }

    /// Copies a link. One that names a place in the folder from the root on means the copy's.
    fn link(&self, original: &Path, copy: &Path) -> Result<(), CopyError> {
        let target = fs::read_link(original).map_err(at(original))?;
        let moved = target.strip_prefix(&self.of.root).map(|inside| self.to.join(inside));
        symlink(moved.unwrap_or(target), copy).map_err(at(copy))
    }

    fn file(&self, original: &Path, copy: &Path) -> Result<(), CopyError> {
        let mut from = File::open(original).map_err(at(original))?;
        let to = File::create_new(copy).map_err(at(copy))?;
        let about = from.metadata().map_err(at(original))?;
        if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
            self.have_room(about.len())?;
            loop {
                let copied = io::copy(&mut (&mut from).take(PIECE), &mut &to).map_err(at(copy))?;
                if copied < PIECE {
                    break;
                }
                if (self.is_stopped)() {
                    return Err(CopyError::Stopped);
                }
            }
        }
        if let Ok(modified) = about.modified() {
            to.set_modified(modified).map_err(at(copy))?;
        }
        to.set_permissions(about.permissions()).map_err(at(copy))
    }

    /// Refuses to fill the disk.
    fn have_room(&self, bytes: u64) -> Result<(), CopyError> {
        let Some(disk) = Disk::of(self.to) else { return Ok(()) };
        let reserve = disk.usual_reserve();
        if disk.free.0 >= reserve.0.saturating_add(bytes) {
            return Ok(());
        }
        let folder = self.to.parent().unwrap_or(self.to).to_owned();
        Err(CopyError::NoRoom { root: self.of.root.clone(), folder, free: disk.free, reserve })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Task;

    /// A folder with a file of each kind in a folder of its own, so that copies lie there too.
    fn project() -> (tempfile::TempDir, PathBuf) {
        let around = tempfile::tempdir().unwrap();
        let root = around.path().canonicalize().unwrap().join("proj");
        for folder in ["data/deep", "work", ".trainyard", "big"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (file, text) in [
            ("p.toml", "x"),
            ("data/deep/a", "1"),
            ("work/out", "2"),
            ("work/notes", "3"),
            (".trainyard/state.db", "4"),
        ] {
            fs::write(root.join(file), text).unwrap();
        }
        fs::write(root.join("big/set"), "5").unwrap();
        fs::set_permissions(root.join("p.toml"), Permissions::from_mode(0o640)).unwrap();
        symlink("deep/a", root.join("data/relative")).unwrap();
        symlink(root.join("data"), root.join("absolute")).unwrap();
        symlink("/no/such/place", root.join("dangling")).unwrap();
        (around, root)
    }

    fn original(root: &Path, links: &[&str]) -> Result<Original, CopyError> {
        let graph = TaskGraph {
            tasks: vec![Task { outputs: vec!["work/out".to_owned()], ..Task::default() }],
            ..TaskGraph::default()
        };
        let links: Vec<_> = links.iter().map(|link| root.join(link)).collect();
        Original::new(root, &graph, &[], &links)
    }

    const GO_ON: &dyn Fn() -> bool = &|| false;

    #[test]
    fn all_is_copied_but_what_stages_make_and_what_is_recorded() {
        let (around, root) = project();
        let copy = original(&root, &["big"]).unwrap().copy(GO_ON).unwrap();
        let path = copy.path().to_owned();
        assert_eq!(path.parent(), root.parent());
        let read = |file: &str| fs::read_to_string(path.join(file)).ok();
        assert_eq!((read("data/deep/a").as_deref(), read("work/notes").as_deref()), (Some("1"), Some("3")));
        assert!(!path.join("work/out").exists() && !path.join(".trainyard").exists());
        assert_eq!(fs::read_link(path.join("data/relative")).unwrap(), Path::new("deep/a"));
        assert_eq!(fs::read_link(path.join("absolute")).unwrap(), path.join("data"));
        assert_eq!(fs::read_link(path.join("dangling")).unwrap(), Path::new("/no/such/place"));
        assert_eq!(fs::read_link(path.join("big")).unwrap(), root.join("big"));
        let (mine, its) = (fs::metadata(root.join("p.toml")).unwrap(), fs::metadata(path.join("p.toml")).unwrap());
        assert_eq!((mine.permissions(), mine.modified().unwrap()), (its.permissions(), its.modified().unwrap()));
        fs::write(path.join("data/deep/a"), "changed").unwrap();
        assert_eq!(fs::read_to_string(root.join("data/deep/a")).unwrap(), "1");
        fs::set_permissions(path.join("data/deep"), Permissions::from_mode(0o500)).unwrap();
        drop(copy);
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1, "only the folder itself is left");
    }

    #[test]
    fn what_is_stopped_leaves_nothing() {
        let (around, root) = project();
        assert!(matches!(original(&root, &[]).unwrap().copy(&|| true), Err(CopyError::Stopped)));
        assert_eq!(fs::read_dir(around.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_stages_do_not_write_can_be_linked() {
        let (_around, root) = project();
        let why = |link: &str| original(&root, &[link]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(why("work").contains("stages write work/out"), "{}", why("work"));
        assert!(why("../").contains("not in the pipeline's folder"));
        assert!(why(".").contains("it is the pipeline's folder"));
        assert!(why("absent").contains("cannot be linked"));
        assert_eq!(why("data"), "");
    }

    #[test]
    fn copies_of_processes_that_were_killed_are_removed_and_others_stay() {
        let (_around, root) = project();
        let original = original(&root, &[]).unwrap();
        let own = process::identify(std::process::id()).unwrap();
        let beside = |name: String| root.parent().unwrap().join(name);
        let dead = beside(format!("{}{}-{}", original.prefix(), own.pid, own.started + 1));
        let alive = beside(format!("{}{}-{}", original.prefix(), own.pid, own.started));
        let foreign = beside(format!(".proj{MARK}elsewhere-1-1"));
        [&dead, &alive, &foreign].iter().for_each(|folder| fs::create_dir_all(folder.join("deep")).unwrap());
        original.remove_leftovers();
        assert_eq!([dead, alive, foreign].map(|folder| folder.exists()), [false, true, true]);
    }
}
