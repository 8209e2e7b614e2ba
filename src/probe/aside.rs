//! Devices that are not to be used: drained by hand, or in quarantine after an error. One list per user and host, which
//! every run respects and `devices` shows.
//!
//! A drained device is given nothing new until it is taken back. One in quarantine is left at once; a reboot of the host
//! takes it back, since the driver starts anew then.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{clock, xid};
use crate::units::Millis;

/// A device that is not to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Which one: a card or a slice.
    pub uuid: String,
    /// Why.
    pub why: Why,
    /// Since when, ms since the Unix epoch.
    pub since: Millis,
    /// The host's boot in which that was.
    boot: String,
}

/// Why a device is not to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Why {
    /// Somebody said so.
    Drained,
    /// The driver reported an error that makes it unfit.
    Xid {
        /// The error's number.
        code: u64,
    },
    /// The driver reported a memory error that it could not correct.
    Ecc,
    /// It did not answer: it fell off the bus or needs a reset. That it answers again says nothing about its health.
    Lost {
        /// What NVML said.
        answer: String,
    },
}

impl Why {
    /// Whether what runs on it has to leave at once.
    #[must_use]
    pub const fn ends_tasks(&self) -> bool {
        matches!(self, Self::Xid { .. } | Self::Ecc | Self::Lost { .. })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drained => f.write_str("drained by hand"),
            Self::Xid { code } => {
                let words = xid::fatal(*code).unwrap_or("an error of the driver's");
                write!(f, "in quarantine: Xid {code}, {words}")
            }
            Self::Ecc => f.write_str("in quarantine: a memory error that could not be corrected"),
            Self::Lost { answer } => write!(f, "in quarantine: it was lost ({answer})"),
        }
    }
}

/// The list.
#[derive(Debug)]
pub struct List {
    path: PathBuf,
    boot: String,
    known: Mutex<Known>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Known {
    listed: Vec<Aside>,
    /// Whether it was said that the list cannot be read.
    is_told: bool,
}

impl List {
    /// Returns the list in a file, which need not exist. `root` holds `proc`.
    #[must_use]
    pub fn new(path: PathBuf, root: &Path) -> Self {
        let boot = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
        Self { path, boot: boot.trim().to_owned(), known: Mutex::default() }
    }

    /// Returns the devices that are set aside. A list that cannot be read is said once, and taken to be as it was read last.
    #[must_use]
    pub fn read(&self) -> Vec<Aside> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match self.load() {
            Ok(listed) => *known = Known { listed, is_told: false },
            Err(error) if !known.is_told => {
                tracing::warn!(path = %self.path.display(), %error, "which devices are set aside cannot be read");
                known.is_told = true;
            }
            Err(_) => {}
        }
        known.listed.iter().filter(|aside| self.is_in_force(aside)).cloned().collect()
    }

    /// Sets a device aside. One in quarantine stays there.
    ///
    /// # Errors
    /// Where the list cannot be written.
    pub fn add(&self, uuid: &str, why: Why) -> io::Result<()> {
        let since = clock::now();
        self.change(|listed| {
            let is_there = |aside: &Aside| aside.uuid == uuid && (aside.why == why || aside.why.ends_tasks());
            if !listed.iter().any(|aside| is_there(aside) && self.is_in_force(aside)) {
                listed.retain(|aside| aside.uuid != uuid);
                listed.push(Aside { uuid: uuid.to_owned(), why, since, boot: self.boot.clone() });
            }
        })
    }

    /// Takes a device back; returns whether it was set aside.
    ///
    /// # Errors
    /// Where the list cannot be written.
    pub fn remove(&self, uuid: &str) -> io::Result<bool> {
        let mut was = false;
        self.change(|listed| {
            was = listed.iter().any(|aside| aside.uuid == uuid && self.is_in_force(aside));
            listed.retain(|aside| aside.uuid != uuid);
        })?;
        Ok(was)
    }

    /// Whether it has not ended with its boot. Hosts that share a home share the list: other boots may be other hosts'.
    fn is_in_force(&self, aside: &Aside) -> bool {
        aside.why == Why::Drained || aside.boot == self.boot
    }

    fn load(&self) -> io::Result<Vec<Aside>> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => Ok(serde_json::from_slice(&read?)?),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Aside>)) -> io::Result<()> {
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"))
        };
        let folder = self.path.parent().ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir_all(folder).map_err(at(folder))?;
        // Whoever else changes it waits; the lock goes with the file handle.
        let lock_at = folder.join("devices.lock");
        let lock = fs::File::create(&lock_at).map_err(at(&lock_at))?;
        lock.lock().map_err(at(&lock_at))?;
        let is_damage =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        let loaded = match self.load() {
            Err(error) if is_damage(&error) => self.put_by(&error).map(|()| Vec::new()),
            loaded => loaded,
        };
        let mut listed = loaded.map_err(at(&self.path))?;
        change(&mut listed);
        let draft = self.path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec_pretty(&listed)?).map_err(at(&draft))?;
        fs::rename(draft, &self.path).map_err(at(&self.path))
    }

    /// Moves a damaged list aside, so that nobody loses what it may have said.
    fn put_by(&self, error: &io::Error) -> io::Result<()> {
        let kept = self.path.with_extension(format!("damaged-{}", clock::now().0));
        fs::rename(&self.path, &kept)?;
        tracing::warn!(path = %kept.display(), %error, "the damaged list of devices that are set aside is kept there");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_stays_so_until_it_is_taken_back_or_the_host_boots() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/devices.json");
        let list = List::new(path.clone(), Path::new("/"));
        assert_eq!(list.read(), []);
        list.add("GPU-1", Why::Drained).unwrap();
        list.add("GPU-2", Why::Xid { code: 79 }).unwrap();
        list.add("GPU-2", Why::Drained).unwrap();
        list.add("GPU-3", Why::Lost { answer: "gone".to_owned() }).unwrap();
        let named = |list: &List| list.read().iter().map(|aside| aside.why.to_string()).collect::<Vec<_>>();
        let unfit = ["in quarantine: Xid 79, it has fallen off the bus", "in quarantine: it was lost (gone)"];
        assert_eq!(named(&list), [&["drained by hand"], &unfit[..]].concat());
        // Hosts that share a home have boots of their own.
        let other = List { path: path.clone(), boot: "another".to_owned(), known: Mutex::default() };
        assert_eq!(named(&other), ["drained by hand"]);
        assert!(!other.remove("GPU-9").unwrap());
        assert_eq!(
            named(&list),
            [&["drained by hand"], &unfit[..]].concat(),
            "what another host has written keeps ours"
        );
        assert!(list.remove("GPU-1").unwrap());
        assert!(!list.remove("GPU-1").unwrap());
        let before = named(&list);
        fs::write(&path, "no list").unwrap();
        assert_eq!(named(&list), before, "what was known still holds");
        list.add("GPU-4", Why::Drained).unwrap();
        assert_eq!(named(&list), ["drained by hand"]);
        let kept = fs::read_dir(path.parent().unwrap()).unwrap().flatten();
        let kept = kept.map(|file| file.path()).find(|file| file.to_string_lossy().contains("damaged-")).unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), "no list");
        let nowhere = List::new(path.join("no/devices.json"), Path::new("/")).add("GPU-1", Why::Drained).unwrap_err();
        assert!(nowhere.to_string().contains("devices.json/no: "), "{nowhere}");
    }
}
