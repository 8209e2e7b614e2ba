//! What a task made, entry by entry, as it is written down: the outputs of an action, and what is in a folder.
//!
//! Pure. One line per entry: `file MODE SIZE DIGEST PATH`, `tree MODE SIZE DIGEST PATH`, `folder MODE PATH`,
//! `link PATH TARGET`; line feeds, tabs and backslashes in paths are escaped, fields are parted by tabs.

use std::fmt::Write;

use super::key::Digest;

/// A file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the pipeline file, or to the folder whose manifest this is.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is. Modes are permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with its size in bytes.
    File {
        /// Permission bits.
        mode: u32,
        /// Bytes.
        size: u64,
        /// Of its content.
        digest: Digest,
    },
    /// A folder as an output.
    Tree {
        /// Permission bits.
        mode: u32,
        /// Bytes of all files in it.
        size: u64,
        /// Of its manifest.
        digest: Digest,
    },
    /// A folder within a manifest, whose entries follow on their own.
    Folder {
        /// Permission bits.
        mode: u32,
    },
    /// A symbolic link within a manifest: it is kept as it is, not what it leads to.
    Link {
        /// Where it leads.
        target: String,
    },
}

impl Entry {
    /// Returns the bytes that it takes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } | Kind::Tree { size, .. } => size,
            Kind::Folder { .. } | Kind::Link { .. } => 0,
        }
    }
}

/// Writes entries down.
#[must_use]
pub fn encode(entries: &[Entry]) -> String {
    let mut text = String::with_capacity(128 * entries.len());
    for Entry { path, kind } in entries {
        let path = escape(path);
        let written = match kind {
            Kind::File { mode, size, digest } => writeln!(text, "file\t{mode:o}\t{size}\t{digest}\t{path}"),
            Kind::Tree { mode, size, digest } => writeln!(text, "tree\t{mode:o}\t{size}\t{digest}\t{path}"),
            Kind::Folder { mode } => writeln!(text, "folder\t{mode:o}\t{path}"),
            Kind::Link { target } => writeln!(text, "link\t{path}\t{}", escape(target)),
        };
        written.expect("a String takes everything");
    }
    text
}

/// Reads what [`encode`] wrote; `None` where it is damaged.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<Entry>> {
    text.lines().map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let octal = |text: &str| u32::from_str_radix(text, 8).ok();
    let (path, kind) = match next()? {
        "link" => (next()?, Kind::Link { target: unescape(next()?) }),
        "folder" => {
            let mode = octal(next()?)?;
            (next()?, Kind::Folder { mode })
        }
        word @ ("file" | "tree") => {
            let (mode, size, digest) = (octal(next()?)?, next()?.parse().ok()?, Digest::from_hex(next()?)?);
            let kind =
                if word == "file" { Kind::File { mode, size, digest } } else { Kind::Tree { mode, size, digest } };
            (next()?, kind)
        }
        _ => return None,
    };
    next().is_none().then(|| Entry { path: unescape(path), kind })
}

pub(super) fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let path = "[a\\\\\n\t\r é/]{1,6}";
        let file = (0_u32..0o7777, any::<u64>(), any::<u8>());
        let kind = prop_oneof![
            file.clone().prop_map(|(mode, size, n)| Kind::File { mode, size, digest: Digest::of(&[n]) }),
            file.prop_map(|(mode, size, n)| Kind::Tree { mode, size, digest: Digest::of(&[n]) }),
            (0_u32..0o7777).prop_map(|mode| Kind::Folder { mode }),
            path.prop_map(|target| Kind::Link { target }),
        ];
        prop::collection::vec((path, kind).prop_map(|(path, kind)| Entry { path, kind }), 0..5)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in entries()) {
            prop_assert_eq!(decode(&encode(&entries)), Some(entries));
        }

        #[test]
        fn no_text_makes_the_reader_fail(text in "(file|tree|folder|link)?[\t\n0-9a-f]{0,20}") {
            let _ = decode(&text);
        }
    }
}
