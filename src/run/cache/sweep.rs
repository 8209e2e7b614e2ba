//! The cache as a whole: how large it is, keeping it within a limit, and whether it holds what it says.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::files::in_parallel;
use super::index::{Action, Index, IndexError};
use super::key::Digest;
use super::manifest::{Kind, decode};
use super::objects::Objects;
use crate::run::files::transfer::Transfer;
use crate::units::Bytes;

/// Why the cache cannot be gone through.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Its index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Its objects.
    #[error("the objects of the cache cannot be read or removed")]
    Objects(#[from] io::Error),
}

/// How large a cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Results of tasks.
    pub results: usize,
    /// Files, each content once.
    pub objects: usize,
    /// What they take.
    pub bytes: Bytes,
}

/// What was removed, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// What was removed.
    pub removed: Size,
    /// What is left.
    pub left: Size,
}

/// What became of all objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Where the index went if it was damaged: another one is begun.
    pub index: Option<PathBuf>,
    /// Everything that was looked at.
    pub seen: Size,
    /// Objects that did not hold what they should, and were removed.
    pub damaged: Vec<Damaged>,
}

/// A damaged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its name.
    pub digest: Digest,
    /// Outputs that it stood for.
    pub outputs: Vec<String>,
}

/// An existing cache.
pub struct Sweep {
    index: Index,
    objects: Objects,
}

impl Sweep {
    /// Opens the cache in a folder; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open(cache: &Path) -> Result<Option<Self>, SweepError> {
        Self::with(cache, Index::open)
    }

    /// Opens the cache in a folder to look at it; `None` where there is none. What is damaged stays where it is.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open_to_look(cache: &Path) -> Result<Option<Self>, SweepError> {
        Self::with(cache, Index::open_to_look)
    }

    fn with(cache: &Path, open: impl Fn(&Path) -> Result<Index, IndexError>) -> Result<Option<Self>, SweepError> {
        if !cache.is_dir() {
            return Ok(None);
        }
        Ok(Some(Self { index: open(cache)?, objects: Objects::new(cache) }))
    }

    /// Returns what it reads.
    #[must_use]
    pub fn transfer(&self) -> &Transfer {
        &self.objects.transfer
    }

    /// Returns how large it is.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn size(&self) -> Result<Size, SweepError> {
        let sizes = self.sizes()?;
        let results = self.index.actions()?.iter().filter(|(_, action)| self.holds(action, &sizes)).count();
        Ok(Size { results, objects: sizes.len(), bytes: sizes.values().copied().map(Bytes).sum() })
    }

    /// Forgets the results that were used longest ago until what is left takes no more than `most`, and removes what no
    /// result needs. A run that goes on meanwhile makes again what it does not find any more.
    ///
    /// # Errors
    /// Where it cannot be read or something cannot be removed.
    pub fn collect(&self, most: Option<Bytes>) -> Result<Swept, SweepError> {
        let sizes = self.sizes()?;
        let before = self.size()?;
        let actions = self.index.actions()?;
        let mut kept: HashSet<Digest> = HashSet::new();
        let (mut room, mut forgotten) = (most.map_or(u64::MAX, |most| most.0), Vec::new());
        // The newest first: an object that two results share is paid for once.
        for (key, action) in actions.iter().rev() {
            // What is damaged cannot be taken out, and keeps nothing.
            let Some(needs) = self.needs(action) else { continue };
            let needs: HashSet<Digest> = needs.difference(&kept).copied().collect();
            let cost: u64 = needs.iter().filter_map(|digest| sizes.get(digest)).sum();
            match room.checked_sub(cost) {
                Some(left) => {
                    room = left;
                    kept.extend(needs);
                }
                // Nothing older is kept in place of it: what was used longest ago goes first.
                None => {
                    room = 0;
                    forgotten.push(*key);
                }
            }
        }
        self.index.forget(&forgotten)?;
        for digest in sizes.keys().filter(|digest| !kept.contains(digest)) {
            self.objects.remove(digest)?;
        }
        self.objects.workshop.sweep()?;
        let left = self.size()?;
        let removed = Size {
            results: before.results.saturating_sub(left.results),
            objects: before.objects.saturating_sub(left.objects),
            bytes: before.bytes.saturating_sub(left.bytes),
        };
        Ok(Swept { removed, left })
    }

    /// Returns what lies there, with sizes in bytes.
    fn sizes(&self) -> Result<HashMap<Digest, u64>, SweepError> {
        Ok(self.objects.list()?.into_iter().map(|object| (object.digest, object.size)).collect())
    }

    /// Whether everything that a result needs is there, `sizes` being what is.
    fn holds(&self, action: &Action, sizes: &HashMap<Digest, u64>) -> bool {
        self.needs(action).is_some_and(|needs| needs.iter().all(|digest| sizes.contains_key(digest)))
    }

    /// Returns the objects that a result needs; `None` where what a folder holds is not known any more.
    fn needs(&self, action: &Action) -> Option<HashSet<Digest>> {
        let mut needs = HashSet::new();
        for entry in &action.outputs {
            match entry.kind {
                Kind::File { digest, .. } => drop(needs.insert(digest)),
                Kind::Tree { digest, .. } => {
                    needs.insert(digest);
                    needs.extend(self.files_of(&digest)?.into_iter().map(|(_, digest)| digest));
                }
                Kind::Folder { .. } | Kind::Link { .. } => {}
            }
        }
        Some(needs)
    }

    /// Returns the files of a folder's manifest; `None` where that is lost.
    fn files_of(&self, manifest: &Digest) -> Option<Vec<(String, Digest)>> {
        let text = String::from_utf8(self.objects.look_at(manifest).ok()?).ok()?;
        let file = |entry: super::manifest::Entry| match entry.kind {
            Kind::File { digest, .. } => Some((entry.path, digest)),
            Kind::Tree { .. } | Kind::Folder { .. } | Kind::Link { .. } => None,
        };
        Some(decode(&text)?.into_iter().filter_map(file).collect())
    }

    /// Reads the index and every object, moves a damaged index aside and removes the objects that are damaged.
    ///
    /// # Errors
    /// Where the cache cannot be read or something cannot be removed.
    pub fn verify(&self) -> Result<Verified, SweepError> {
        let index = self.index.check()?;
        let mut objects = self.objects.list()?;
        objects.sort_by_key(|object| object.digest);
        let whole = in_parallel(&objects, |object| self.objects.is_whole(&object.digest));
        let mut stands_for: HashMap<Digest, Vec<String>> = HashMap::new();
        let actions = self.index.actions()?;
        for entry in actions.iter().flat_map(|(_, action)| &action.outputs) {
            if let Kind::File { digest, .. } | Kind::Tree { digest, .. } = entry.kind {
                stands_for.entry(digest).or_default().push(entry.path.clone());
            }
            if let Kind::Tree { digest, .. } = entry.kind {
                for (path, file) in self.files_of(&digest).unwrap_or_default() {
                    stands_for.entry(file).or_default().push(format!("{}/{path}", entry.path));
                }
            }
        }
        let bytes = objects.iter().map(|object| Bytes(object.size)).sum();
        let sizes = objects.iter().map(|object| (object.digest, object.size)).collect();
        let results = actions.iter().filter(|(_, action)| self.holds(action, &sizes)).count();
        let seen = Size { results, objects: objects.len(), bytes };
        let mut verified = Verified { index, seen, damaged: Vec::new() };
        for (object, whole) in objects.iter().zip(whole) {
            match whole {
                Ok(true) => continue,
                // Another process removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // What cannot be read is as good as damaged.
                Ok(false) | Err(_) => self.objects.remove(&object.digest)?,
            }
            let mut outputs = stands_for.remove(&object.digest).unwrap_or_default();
            outputs.sort();
            outputs.dedup();
            verified.damaged.push(Damaged { digest: object.digest, outputs });
        }
        Ok(verified)
    }
}
