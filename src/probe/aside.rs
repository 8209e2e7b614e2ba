//! Devices that are not to be used: drained by hand, or in quarantine after an error. One list per user and host, which
//! every run respects and `devices` shows.
//!
//! A drained device is given nothing new until it is taken back. One in quarantine is left at once; a reboot of the host
//! takes it back, since the driver starts anew then.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
#[derive(Clone, Debug)]
pub struct List {
    path: PathBuf,
    boot: String,
}

impl List {
    /// Returns the list in a file, which need not exist. `root` holds `proc`.
    #[must_use]
    pub fn new(path: PathBuf, root: &Path) -> Self {
        let boot = fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
        Self { path, boot: boot.trim().to_owned() }
    }

    /// Returns the devices that are set aside. A list that cannot be read is said and taken to be empty.
    #[must_use]
    pub fn read(&self) -> Vec<Aside> {
        let listed = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            read => read.and_then(|bytes| Ok(serde_json::from_slice::<Vec<Aside>>(&bytes)?)),
        };
        let mut listed = listed.unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "which devices are set aside cannot be read");
            Vec::new()
        });
        listed.retain(|aside| aside.why == Why::Drained || aside.boot == self.boot);
        listed
    }

    /// Sets a device aside. One in quarantine stays there.
    ///
    /// # Errors
    /// Where the list cannot be written.
    pub fn add(&self, uuid: &str, why: Why) -> io::Result<()> {
        let since = clock::now();
        self.change(|listed| {
            if !listed.iter().any(|aside| aside.uuid == uuid && (aside.why == why || aside.why.ends_tasks())) {
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
            was = listed.iter().any(|aside| aside.uuid == uuid);
            listed.retain(|aside| aside.uuid != uuid);
        })?;
        Ok(was)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Aside>)) -> io::Result<()> {
        let folder = self.path.parent().ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir_all(folder)?;
        // Whoever else changes it waits; the lock goes with the file handle.
        let lock = fs::File::create(folder.join("devices.lock"))?;
        lock.lock()?;
        let mut listed = self.read();
        change(&mut listed);
        let draft = self.path.with_extension("draft");
        fs::write(&draft, serde_json::to_vec_pretty(&listed)?)?;
        fs::rename(draft, &self.path)
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
        let later = List { path: path.clone(), boot: "another".to_owned() };
        assert_eq!(named(&later), ["drained by hand"]);
        assert!(list.remove("GPU-1").unwrap());
        assert!(!list.remove("GPU-1").unwrap());
        fs::write(path, "no list").unwrap();
        assert_eq!(list.read(), []);
    }
}
