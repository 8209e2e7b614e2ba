//! What the links in an input folder lead to where that lies outside of it: who reads the folder reads that as well.
//!
//! A link whose text keeps it within its folder counts by that text: what it leads to counts in its own place. Any other is
//! followed, and what it leads to counts as if it lay in the link's place. A folder counts once, and then by the place where
//! it counts, so that loops end; what leads to nothing that can be read counts by its text.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use super::{Files, Seen, Tree};
use crate::run::cache::key::Digest;
use crate::run::cache::manifest::{Entry, Kind, encode, escape};

/// Whether a folder with these entries is read beyond its own manifest, as far as the texts of its links tell.
pub fn lead_elsewhere(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| matches!(&entry.kind, Kind::Link { target } if !stays_within(&entry.path, target)))
}

/// Whether a link at a path within a folder leads to something in that folder, whatever the other names in its text are:
/// it goes up first, as far as the folder at most, and from there only down.
fn stays_within(path: &str, target: &str) -> bool {
    let names = || target.split('/').filter(|name| !matches!(*name, "" | "."));
    let up = names().take_while(|name| *name == "..").count();
    !target.starts_with('/') && up <= path.matches('/').count() && names().skip(up).all(|name| name != "..")
}

/// A link that is to be followed.
struct Link {
    /// Its place in what is read.
    at: String,
    /// The folder where it lies, without links.
    folder: PathBuf,
    /// Its text.
    target: String,
}

/// All that is read in a folder, as far as it is known.
struct Reading<'a> {
    files: &'a Files,
    /// What does not count, without links.
    without: HashSet<PathBuf>,
    /// The folders that count, without links, and where.
    places: BTreeMap<PathBuf, String>,
    /// Folders named in links, with all links followed.
    folders: HashMap<PathBuf, Option<PathBuf>>,
    entries: Vec<Entry>,
    /// Places where something is read that counts in another place.
    again: Vec<(String, String)>,
    open: VecDeque<Link>,
}

impl Files {
    /// Returns the digest of all that is read in a folder: that of its manifest where no link leads elsewhere.
    pub(super) fn all_that_is_read(&self, path: &str, tree: Tree, without: &[String]) -> io::Result<Digest> {
        if !lead_elsewhere(&tree.entries) {
            return Ok(tree.digest);
        }
        let real = |path: &str| {
            let whole = self.real_root.join(path);
            let folder = whole.parent().and_then(|folder| folder.canonicalize().ok());
            folder.zip(whole.file_name()).map(|(folder, name)| folder.join(name))
        };
        let mut reading = Reading {
            files: self,
            without: without.iter().filter_map(|path| real(path)).chain(self.state.canonicalize()).collect(),
            places: BTreeMap::new(),
            folders: HashMap::new(),
            entries: Vec::with_capacity(tree.entries.len()),
            again: Vec::new(),
            open: VecDeque::new(),
        };
        reading.take_in(String::new(), self.whole(path).canonicalize()?, tree.entries);
        while let Some(link) = reading.open.pop_front() {
            reading.follow(link)?;
        }
        let Reading { mut entries, again, .. } = reading;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut text = encode(&entries);
        for (at, place) in again {
            writeln!(text, "again\t{}\t{}", escape(&at), escape(&place)).expect("a String takes everything");
        }
        Ok(Digest::of(text.as_bytes()))
    }

    /// Returns what a file is called here that has this path without links: as an input that is named itself, where it
    /// lies within the project.
    fn name_of(&self, real: &Path) -> io::Result<String> {
        let name = match real.strip_prefix(&self.real_root) {
            Ok(root) if root.as_os_str().is_empty() => Path::new("."),
            Ok(within) => within,
            Err(_) => real,
        };
        name.to_str().map(str::to_owned).ok_or_else(|| io::Error::other(format!("{}: not UTF-8", real.display())))
    }
}

impl Reading<'_> {
    /// Takes in what is in a folder that counts in a place.
    fn take_in(&mut self, place: String, folder: PathBuf, entries: Vec<Entry>) {
        for Entry { path, kind } in entries {
            let at = join(&place, Path::new(&path));
            if let Kind::Link { target } = &kind
                && !stays_within(&path, target)
            {
                let within = Path::new(&path).parent().unwrap_or(Path::new(""));
                self.open.push_back(Link { at, folder: folder.join(within), target: target.clone() });
            } else {
                self.entries.push(Entry { path: at, kind });
            }
        }
        self.places.insert(folder, place);
    }

    fn follow(&mut self, Link { at, folder, target }: Link) -> io::Result<()> {
        let real =
            self.resolve(&folder, &target).filter(|real| !real.ancestors().any(|path| self.without.contains(path)));
        let Some(real) = real else {
            self.entries.push(Entry { path: at, kind: Kind::Link { target } });
            return Ok(());
        };
        let counts = |path: &Path| Some(join(self.places.get(path)?, real.strip_prefix(path).ok()?));
        if let Some(place) = real.ancestors().find_map(counts) {
            self.again.push((at, place));
            return Ok(());
        }
        let name = self.files.name_of(&real)?;
        let kind = match self.files.look(&name, false)? {
            Seen::File { stamp, mode } => {
                let digest = self.files.known(&name, &stamp).map_or_else(|| self.files.digest(&name), Ok)?;
                Kind::File { mode, size: stamp.size, digest }
            }
            Seen::Folder { mode } => {
                let within = self.places.range(real.clone()..).take_while(|(folder, _)| folder.starts_with(&real));
                let within: Vec<(&PathBuf, &String)> = within.collect();
                let without = within.iter().map(|(folder, _)| *folder).chain(&self.without);
                let without = without.map(|path| self.files.name_of(path)).collect::<io::Result<Vec<_>>>()?;
                let tree = self.files.tree(&name, &without)?;
                let inner = |folder: &Path| join(&at, folder.strip_prefix(&real).unwrap_or(folder));
                self.again.extend(within.iter().map(|(folder, place)| (inner(folder), (*place).clone())));
                self.take_in(at.clone(), real, tree.entries);
                Kind::Folder { mode }
            }
            // A device, or gone since.
            Seen::Absent | Seen::Link | Seen::Other => Kind::Link { target },
        };
        self.entries.push(Entry { path: at, kind });
        Ok(())
    }

    /// Returns what a link leads to, without links; `None` where that is nothing that can be read.
    fn resolve(&mut self, folder: &Path, target: &str) -> Option<PathBuf> {
        let whole = folder.join(target);
        let (Some(name), Some(above)) = (whole.file_name(), whole.parent()) else { return whole.canonicalize().ok() };
        // Links in thousands lead to few folders.
        let known = self.folders.get(above).cloned();
        let above = known.unwrap_or_else(|| {
            let real = above.canonicalize().ok();
            self.folders.insert(above.to_owned(), real.clone());
            real
        })?;
        let place = above.join(name);
        let found = place.symlink_metadata().ok()?;
        if found.is_symlink() { place.canonicalize().ok() } else { Some(place) }
    }
}

fn join(place: &str, inner: &Path) -> String {
    Path::new(place).join(inner).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::run::cache::key::Content;
    use crate::run::cache::recipe::Wanted;

    /// A project with the folders `in`, `data` and `data/deep`, and a file in each.
    fn project() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["in/sub", "data/deep"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("f"), "1").unwrap();
        }
        let files = Files::open(dir.path(), &dir.path().join(".trainyard")).unwrap();
        (dir, files)
    }

    fn read(files: &Files, without: &[&str]) -> Content {
        let without: Vec<String> = without.iter().map(ToString::to_string).collect();
        files.content("in", Wanted::Anything, &without).unwrap()
    }

    /// Whether another content of a file is seen in `in`, which holds one link with this text.
    fn is_seen(at: &str, target: &str, file: &str, without: &[&str]) -> bool {
        let (dir, files) = project();
        symlink(target, dir.path().join(at)).unwrap();
        let before = read(&files, without);
        assert_eq!(read(&files, without), before);
        fs::write(dir.path().join(file), "another").unwrap();
        read(&files, without) != before
    }

    #[test]
    fn what_links_lead_to_counts() {
        assert!(is_seen("in/l", "../data/deep/f", "data/deep/f", &[]));
        assert!(is_seen("in/l", "../data", "data/deep/f", &[]));
        assert!(is_seen("in/sub/l", "../../data/deep", "data/deep/f", &[]));
        assert!(is_seen("in/l", "../absent", "absent", &[]), "what was nothing before");
        assert!(!is_seen("in/l", "../data/deep/f", "data/other", &[]));
    }

    #[test]
    fn what_a_stage_makes_itself_and_the_state_folder_do_not_count() {
        assert!(!is_seen("in/l", "../data", "data/deep/f", &["data/deep"]));
        assert!(!is_seen("in/l", "../data/deep/f", "data/deep/f", &["data/deep/f"]));
        assert!(!is_seen("in/l", "..", "data/deep/f", &["data"]), "a loop ends");
        let (dir, files) = project();
        symlink("../.trainyard", dir.path().join("in/l")).unwrap();
        symlink("..", dir.path().join("in/m")).unwrap();
        fs::create_dir(dir.path().join(".trainyard")).unwrap();
        let before = read(&files, &[]);
        fs::write(dir.path().join(".trainyard/state"), "1").unwrap();
        assert_eq!(read(&files, &[]), before);
    }

    #[test]
    fn it_does_not_matter_where_links_lead_but_what_is_read() {
        let (dir, files) = project();
        let at = |path: &str| dir.path().join(path);
        symlink("../data/deep/f", at("in/l")).unwrap();
        let linked = read(&files, &[]);
        fs::remove_file(at("in/l")).unwrap();
        fs::copy(at("data/deep/f"), at("in/l")).unwrap();
        assert_eq!(read(&files, &[]), linked);
        // The same folder by two names, and then two folders of which the second holds less.
        fs::remove_file(at("in/l")).unwrap();
        fs::create_dir(at("data/less")).unwrap();
        let both = |a: &str, b: &str| {
            symlink(at(a), at("in/a")).unwrap();
            symlink(at(b), at("in/b")).unwrap();
            let found = read(&files, &[]);
            ["in/a", "in/b"].iter().for_each(|link| fs::remove_file(at(link)).unwrap());
            found
        };
        let ways =
            [("data/deep", "data/deep"), ("data/deep", "data/less"), ("data/deep", "data"), ("data", "data/deep")];
        let found = ways.map(|(a, b)| both(a, b));
        let all: HashSet<String> = found.iter().map(|found| format!("{found:?}")).collect();
        assert_eq!(all.len(), ways.len(), "{found:?}");
    }

    #[test]
    fn a_folder_whose_links_stay_within_is_its_manifest() {
        let (dir, files) = project();
        let at = |path: &str| dir.path().join(path);
        for (link, target) in [("in/a", "sub/f"), ("in/sub/b", "../sub/./f"), ("in/sub/c", ".."), ("in/d", "absent")] {
            symlink(target, at(link)).unwrap();
        }
        let tree = |files: &Files| files.tree("in", &[]).unwrap();
        assert_eq!(read(&files, &[]), Content::Tree(tree(&files).digest));
        for (path, target) in [("a", ".."), ("a/b", "../.."), ("a/b", "c/../../x"), ("a", "/x"), ("a", "b/..")] {
            assert!(!stays_within(path, target), "{path} -> {target}");
        }
        // Around a corner it is the same file, which counts in its place.
        let before = read(&files, &[]);
        symlink("../in/sub/f", at("in/e")).unwrap();
        let around = read(&files, &[]);
        assert_ne!(around, before);
        fs::write(at("in/sub/f"), "22").unwrap();
        assert_ne!(read(&files, &[]), around);
    }

    #[test]
    fn links_in_circles_and_among_folders_that_hold_each_other_end() {
        let (dir, files) = project();
        let at = |path: &str| dir.path().join(path);
        for (link, target) in [
            ("in/x", "../data/y"),
            ("data/y", "../in/x"),
            ("in/up", "../data/deep"),
            ("data/deep/back", "../../in"),
            ("data/deep/all", "../.."),
            ("in/null", "/dev/null"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let before = read(&files, &[]);
        assert_eq!(read(&files, &[]), before);
        fs::write(at("data/more"), "seen through in/up/all").unwrap();
        assert_ne!(read(&files, &[]), before);
    }

    #[test]
    fn what_is_led_to_is_remembered_by_its_own_name() {
        let (dir, files) = project();
        let file = dir.path().join("data/deep/f");
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 5);
        for file in [&file, &dir.path().join("in/sub/f")] {
            fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
        }
        for link in ["in/l", "in/sub/m"] {
            symlink(&file, dir.path().join(link)).unwrap();
        }
        read(&files, &[]);
        let names: Vec<String> = files.take_fresh().into_iter().map(|fresh| fresh.path).collect();
        assert_eq!(names, ["in/sub/f", "data/deep/f"]);
        read(&files, &[]);
        assert!(files.take_fresh().is_empty(), "nothing is read twice");
    }
}
