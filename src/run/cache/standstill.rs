//! What was seen when everything was up to date: as long as it is all as it was, so is everything.
//!
//! A run with nothing to do looks at the same files as the one before it. If that one found every task up to date, it left
//! a list of what it had seen, and where nothing on the list has changed, no task need be looked up. The list is a file of
//! its own in the cache's folder, whole or not there; without it, and an hour after it was made, when uses are to be noted
//! again, tasks are looked up as ever. Does not know what a task is.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{Files, Seen, Stamp, in_parallel};
use super::index::USE_NOTED_EVERY;
use super::keeper::{Places, folder, now, project};
use super::key::Digest;

/// The last line: a list without it is a part of one.
const END: &str = "end";

/// What was seen of tasks all of which are up to date.
pub(super) struct Standstill<'a> {
    /// Until when it counts, ms since the Unix epoch.
    pub(super) until: i64,
    /// `[n_tasks]`, by TaskId: where what it printed is.
    pub(super) logs: Vec<Option<&'a str>>,
    /// Paths, whether links were followed, and what was there.
    pub(super) looked: Vec<(&'a str, bool, Seen)>,
}

/// Leaves the list for a later process. `claim` stands for everything besides files from which it follows that tasks are
/// up to date.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn remember(cache: &Path, of: &Digest, claim: &Digest, seen: &Standstill<'_>) -> io::Result<()> {
    let Some(text) = text(claim, seen) else { return Ok(()) };
    let place = place(cache, of);
    std::fs::create_dir_all(place.parent().unwrap_or(cache))?;
    let fresh = place.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, place)
}

/// Returns where what each task (`[n_tasks]`) has printed is, if nothing has changed since all were up to date.
#[must_use]
pub fn recall(places: Places<'_>, pipeline: &str, claim: &Digest, tasks: usize) -> Option<Vec<Option<String>>> {
    let place = place(&folder(places.state), &project(places.root, pipeline));
    let text = std::fs::read_to_string(place).ok()?;
    let mut lines = text.lines();
    if lines.next()? != head(claim) {
        return None;
    }
    let left = lines.next()?.parse::<i64>().ok()? - now();
    // A clock that was set back would have it count for ever.
    if !(1..=USE_NOTED_EVERY).contains(&left) {
        return None;
    }
    let logs = lines.by_ref().take(tasks).map(|line| match line.split_at_checked(1)? {
        ("+", log) => Some(Some(log.to_owned())),
        ("-", "") => Some(None),
        _ => None,
    });
    let logs = logs.collect::<Option<Vec<_>>>().filter(|logs| logs.len() == tasks)?;
    let looked: Vec<&str> = lines.collect();
    let (END, looked) = looked.split_last().map(|(last, looked)| (*last, looked))? else { return None };
    let files = Files::open(places.root, places.state).ok()?;
    let same = in_parallel(looked, |line| is_as_it_was(&files, line) == Some(true));
    same.into_iter().all(|same| same).then_some(logs)
}

fn place(cache: &Path, of: &Digest) -> PathBuf {
    cache.join("standstill").join(of.to_string())
}

fn head(claim: &Digest) -> String {
    format!("trainyard standstill 2 {claim}")
}

/// Returns the list, or nothing where a name would break a line.
fn text(claim: &Digest, seen: &Standstill<'_>) -> Option<String> {
    let mut text = format!("{}\n{}\n", head(claim), seen.until);
    for log in &seen.logs {
        text.extend(log.map_or(["-", "", "\n"], |log| ["+", log, "\n"]));
    }
    for (path, follow, seen) in &seen.looked {
        if path.contains('\n') {
            return None;
        }
        let (link, there) = (if *follow { "via" } else { "at" }, there(seen)?);
        writeln!(text, "{there} {link} {path}").ok()?;
    }
    text.push_str(END);
    let names_are_plain = seen.logs.iter().flatten().all(|log| !log.contains('\n'));
    names_are_plain.then_some(text)
}

/// Returns what is written of something that is at a path: without blanks.
fn there(seen: &Seen) -> Option<String> {
    match seen {
        Seen::File { stamp: Stamp { size, modified, inode }, mode } => {
            Some(format!("{size}:{modified}:{inode}:{mode:o}"))
        }
        Seen::Folder { .. } => Some("folder".to_owned()),
        Seen::Absent => Some("absent".to_owned()),
        Seen::Link | Seen::Other => None,
    }
}

/// Whether what a line tells of is there still; `None` where it tells nothing.
fn is_as_it_was(files: &Files, line: &str) -> Option<bool> {
    let (was, place) = line.split_once(' ')?;
    let (link, path) = place.split_once(' ')?;
    let seen = files.look(path, link == "via").ok()?;
    Some(there(&seen)? == was)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Remembers what is at the paths, and returns whether it is found unchanged after something was done.
    fn holds_after(looked: &[&str], until: i64, change: impl FnOnce(&Path)) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path(), dir.path().join(".trainyard"));
        std::fs::write(root.join("a"), "1").unwrap();
        std::fs::create_dir(root.join("d")).unwrap();
        let files = Files::open(root, &state).unwrap();
        let looked = looked.iter().map(|path| (*path, true, files.look(path, true).unwrap())).collect();
        let seen = Standstill { until: now() + until, logs: vec![None, Some("runs/r/logs/b.1.log")], looked };
        let (claim, places) = (Digest::of(b"claim"), Places { state: &state, root, ops: root, keep_free: None });
        remember(&folder(&state), &project(root, "p"), &claim, &seen).unwrap();
        assert_eq!(recall(places, "p", &Digest::of(b"another"), 2), None);
        assert_eq!(recall(places, "q", &claim, 2), None);
        assert_eq!(recall(places, "p", &claim, 3), None);
        change(root);
        let logs = recall(places, "p", &claim, 2);
        assert!(logs.is_none() || logs == Some(vec![None, Some("runs/r/logs/b.1.log".to_owned())]));
        logs.is_some()
    }

    #[test]
    fn nothing_has_changed_where_nothing_was_done() {
        assert!(holds_after(&["a", "b", "d"], 1_000_000, |_| {}));
        assert!(holds_after(&["a"], 1_000_000, |root| std::fs::write(root.join("c"), "").unwrap()));
    }

    #[test]
    fn whatever_was_looked_at_and_is_not_as_it_was_is_noticed() {
        let looked = ["a", "b", "d"];
        assert!(!holds_after(&looked, 1_000_000, |root| std::fs::write(root.join("a"), "22").unwrap()));
        assert!(!holds_after(&looked, 1_000_000, |root| std::fs::remove_file(root.join("a")).unwrap()));
        assert!(!holds_after(&looked, 1_000_000, |root| std::fs::write(root.join("b"), "").unwrap()));
        assert!(!holds_after(&looked, 1_000_000, |root| std::fs::remove_dir(root.join("d")).unwrap()));
        let mode = |root: &Path| std::fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(!holds_after(&looked, 1_000_000, mode));
        let another = |root: &Path| {
            std::fs::write(root.join("c"), "1").unwrap();
            std::fs::rename(root.join("c"), root.join("a")).unwrap();
        };
        assert!(!holds_after(&looked, 1_000_000, another), "an equal file of another inode is another one");
    }

    #[test]
    fn it_does_not_count_for_ever() {
        assert!(!holds_after(&["a"], 0, |_| {}));
        assert!(!holds_after(&["a"], 2 * USE_NOTED_EVERY, |_| {}), "as after the clock was set back");
    }

    #[test]
    fn a_part_of_a_list_is_none() {
        let cut = |root: &Path| {
            let place = place(&folder(&root.join(".trainyard")), &project(root, "p"));
            let text = std::fs::read(&place).unwrap();
            std::fs::write(&place, &text[..text.len() - 1]).unwrap();
        };
        assert!(!holds_after(&["a"], 1_000_000, cut));
    }
}
