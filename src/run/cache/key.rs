//! What a task's result depends on, and the one key that stands for all of it.
//!
//! Pure: what files hold comes in as digests. Does not know where the parts of a task come from.

use serde::{Deserialize, Serialize};

pub use crate::run::files::Digest;

/// One thing that a result depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The command, or the op with its parameters.
    Command,
    /// The program of the built-in ops.
    Tool,
    /// The folder that the command runs in.
    Folder,
    /// A declared environment variable.
    Variable(String),
    /// The names of the inputs, in order.
    Reads,
    /// The names of the outputs, in order.
    Writes,
    /// A declared input, or a file that its pattern matches.
    Input(String),
    /// A file that the command names without declaring it.
    Named(String),
}

impl Part {
    /// Returns what tells the kinds of parts apart in a key, and the name.
    fn tag(&self) -> (u8, &str) {
        match self {
            Self::Command => (1, ""),
            Self::Tool => (2, ""),
            Self::Folder => (3, ""),
            Self::Variable(name) => (4, name),
            Self::Reads => (5, ""),
            Self::Writes => (6, ""),
            Self::Input(path) => (7, path),
            Self::Named(path) => (8, path),
        }
    }
}

/// What a part is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A text of the pipeline file.
    Text(Digest),
    /// A file.
    File(Digest),
    /// A file that may be executed.
    Program(Digest),
    /// A folder with all that is in it.
    Tree(Digest),
    /// A file that is not there.
    Absent,
}

impl Content {
    /// Returns what a file holds that has these permission bits.
    #[must_use]
    pub const fn of_file(digest: Digest, mode: u32) -> Self {
        if mode & 0o100 == 0 { Self::File(digest) } else { Self::Program(digest) }
    }

    fn tag(&self) -> (u8, &[u8]) {
        match self {
            Self::Text(digest) => (1, &digest.0),
            Self::File(digest) => (2, &digest.0),
            Self::Tree(digest) => (3, &digest.0),
            Self::Absent => (4, &[]),
            Self::Program(digest) => (5, &digest.0),
        }
    }
}

/// Everything that a task's result depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingredients {
    /// Ascending by part, each part once.
    parts: Vec<(Part, Content)>,
}

/// Parts with what is enough to see that one has changed: what is remembered of ingredients.
pub type Trace = Vec<(Part, u64)>;

impl Ingredients {
    /// Puts parts together, in any order; of equal parts the first counts.
    #[must_use]
    pub fn new(mut parts: Vec<(Part, Content)>) -> Self {
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        parts.dedup_by(|next, kept| next.0 == kept.0);
        Self { parts }
    }

    /// Returns the key: equal for equal ingredients, and for no others.
    ///
    /// BLAKE3 over every part with its kind, name and content, each behind its length, so that no two lists of parts
    /// are hashed from the same bytes.
    #[must_use]
    pub fn key(&self) -> Digest {
        let mut bytes = Vec::with_capacity(64 * self.parts.len() + 64);
        bytes.extend_from_slice(b"trainyard key 1\n");
        for (part, content) in &self.parts {
            let (kind, name) = part.tag();
            let (form, content) = content.tag();
            bytes.extend_from_slice(&[kind, form]);
            for text in [name.as_bytes(), content] {
                bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text);
            }
        }
        Digest::of(&bytes)
    }

    /// Yields the files that are declared inputs.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|(part, content)| match (part, content) {
            (Part::Input(path), Content::File(_) | Content::Program(_)) => Some(path.as_str()),
            _ => None,
        })
    }

    /// Returns what is remembered, to say later what has changed.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let print = |content: &Content| {
            let (form, digest) = content.tag();
            let start: [u8; 8] = digest.get(..8).and_then(|start| start.try_into().ok()).unwrap_or_default();
            u64::from_le_bytes(start) ^ u64::from(form)
        };
        self.parts.iter().map(|(part, content)| (part.clone(), print(content))).collect()
    }
}

/// A part that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub part: Part,
    /// How.
    pub how: How,
}

/// How a part is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was not there.
    Added,
    /// It was another.
    Changed,
    /// It is not there any more.
    Removed,
}

/// Returns what is not as it was, ascending by part. Both traces are those of ingredients.
#[must_use]
pub fn changes(before: &Trace, now: &Trace) -> Vec<Change> {
    let find =
        |trace: &Trace, part: &Part| trace.binary_search_by(|(other, _)| other.cmp(part)).ok().map(|at| trace[at].1);
    let mut changes = Vec::new();
    for (part, print) in now {
        let how = match find(before, part) {
            None => How::Added,
            Some(old) if old != *print => How::Changed,
            Some(_) => continue,
        };
        changes.push(Change { part: part.clone(), how });
    }
    let gone = before.iter().filter(|(part, _)| find(now, part).is_none());
    changes.extend(gone.map(|(part, _)| Change { part: part.clone(), how: How::Removed }));
    changes.sort_by(|a, b| a.part.cmp(&b.part));
    changes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Part> {
        let name = "[ab/=]{0,3}";
        prop_oneof![
            Just(Part::Command),
            Just(Part::Tool),
            Just(Part::Folder),
            name.prop_map(Part::Variable),
            Just(Part::Reads),
            Just(Part::Writes),
            name.prop_map(Part::Input),
            name.prop_map(Part::Named),
        ]
    }

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            "[ab\u{1}]{0,3}".prop_map(|text| Content::Text(Digest::of(text.as_bytes()))),
            any::<u8>().prop_map(|byte| Content::File(Digest::of(&[byte]))),
            any::<u8>().prop_map(|byte| Content::Program(Digest::of(&[byte]))),
            any::<u8>().prop_map(|byte| Content::Tree(Digest::of(&[byte]))),
            Just(Content::Absent),
        ]
    }

    fn parts() -> impl Strategy<Value = BTreeMap<Part, Content>> {
        prop::collection::btree_map(part(), content(), 0..6)
    }

    fn ingredients(parts: &BTreeMap<Part, Content>) -> Ingredients {
        Ingredients::new(parts.clone().into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_order_in_which_parts_are_found_does_not_matter(parts in parts(), seed in any::<prop::sample::Index>()) {
            let mut shuffled: Vec<_> = parts.clone().into_iter().collect();
            let middle = seed.index(shuffled.len() + 1);
            shuffled.rotate_left(middle);
            prop_assert_eq!(Ingredients::new(shuffled).key(), ingredients(&parts).key());
        }

        #[test]
        fn keys_are_equal_just_where_all_parts_are(a in parts(), b in parts()) {
            prop_assert_eq!(ingredients(&a).key() == ingredients(&b).key(), a == b);
        }

        #[test]
        fn every_single_part_changes_the_key_and_is_named(
            parts in parts(), which in any::<prop::sample::Index>(), other in content(),
        ) {
            prop_assume!(!parts.is_empty());
            let part = parts.keys().nth(which.index(parts.len())).unwrap().clone();
            let (before, mut now) = (ingredients(&parts), parts.clone());
            now.insert(part.clone(), other);
            let changed = parts[&part] != other;
            let after = ingredients(&now);
            prop_assert_eq!(before.key() != after.key(), changed);
            let told = changes(&before.trace(), &after.trace());
            prop_assert_eq!(told, if changed { vec![Change { part: part.clone(), how: How::Changed }] } else { vec![] });
            now.remove(&part);
            let without = ingredients(&now);
            prop_assert_ne!(before.key(), without.key());
            let told = changes(&before.trace(), &without.trace());
            prop_assert_eq!(told, vec![Change { part: part.clone(), how: How::Removed }]);
            let told = changes(&without.trace(), &before.trace());
            prop_assert_eq!(told, vec![Change { part, how: How::Added }]);
        }
    }

    #[test]
    fn a_digest_is_read_back() {
        let digest = Digest::of(b"x");
        assert_eq!(Digest::from_hex(&digest.to_string()), Some(digest));
        assert_eq!(Digest::from_hex("xyz"), None);
    }
}
