//! What is chosen by a name on the command line: a table of names, read in both directions.

/// Returns the name of something in a table; empty for what is not in it.
pub(super) fn name_of<T: PartialEq>(all: &[(&'static str, T)], wanted: &T) -> &'static str {
    all.iter().find(|(_, one)| one == wanted).map_or("", |(name, _)| name)
}

/// Returns what a table has by a name.
pub(super) fn by_name<T: Copy>(all: &[(&'static str, T)], wanted: &str) -> Option<T> {
    all.iter().find(|(name, _)| *name == wanted).map(|(_, one)| *one)
}

/// Returns the names of a table.
pub(super) fn names<T>(all: &[(&'static str, T)]) -> impl Iterator<Item = &'static str> {
    all.iter().map(|(name, _)| *name)
}
