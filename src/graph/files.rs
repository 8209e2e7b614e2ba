//! Who writes which file: the index that inputs are looked up in.

use super::{TaskId, path};
use crate::units::Bytes;

/// A declared output of a task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made<'t> {
    pub(super) path: &'t str,
    pub(super) task: TaskId,
    /// Index into the outputs of the task's stage.
    pub(super) output: usize,
    pub(super) size: Bytes,
}

/// All declared outputs, by path.
#[derive(Debug)]
pub(super) struct Files<'t> {
    sorted: Vec<Made<'t>>,
}

/// What an input means.
#[derive(Debug)]
pub(super) struct Read<'t> {
    /// Who has to write before.
    pub(super) from: Vec<Made<'t>>,
    /// Whether `from` is what the pattern stands for, file by file.
    pub(super) gathers: bool,
}

impl<'t> Files<'t> {
    /// Sorts all outputs; the second value are those whose path another one, of a task before it, has too.
    pub(super) fn new(mut all: Vec<Made<'t>>) -> (Self, Vec<(Made<'t>, Made<'t>)>) {
        all.sort_by_key(|made| (made.path, made.task, made.output));
        let mut twice = Vec::new();
        all.dedup_by(|next, kept| {
            let same = next.path == kept.path;
            if same {
                twice.push((*kept, *next));
            }
            same
        });
        twice.sort_by_key(|(_, second)| (second.task, second.output));
        (Self { sorted: all }, twice)
    }

    /// Returns what a normalised input of `reader` means: the output itself, outputs that match its pattern, the
    /// folder around it that is an output, or outputs within it. A pattern also means what is in folders that are outputs.
    ///
    /// A task does not wait for itself, unless it names its own output outright.
    pub(super) fn read(&self, input: &str, reader: TaskId) -> Read<'t> {
        if path::is_pattern(input) {
            let start = input.split(['*', '?']).next().unwrap_or_default();
            let end = input.rsplit(['*', '?']).next().unwrap_or_default();
            // Thousands of tasks may each have a pattern of their own: most files are told apart by their end.
            let candidates = self.starting_with(start).filter(|made| made.path.ends_with(end));
            let from = candidates.filter(|made| made.task != reader && path::matches(input, made.path));
            let mut from: Vec<_> = from.collect();
            let n_files = from.len();
            from.extend(self.around(input).into_iter().filter(|made| made.task != reader));
            // What a folder will hold is not known: then the pattern stays one.
            let gathers = n_files > 0 && from.len() == n_files;
            return Read { from, gathers };
        }
        if let Some(made) = self.exactly(input) {
            return Read { from: vec![made], gathers: false };
        }
        let around = input.match_indices('/').rev().find_map(|(i, _)| self.exactly(&input[..i]));
        let from = match around {
            Some(made) => vec![made],
            None if input == "." => self.sorted.clone(),
            None => self.starting_with(&format!("{input}/")).collect(),
        };
        Read { from: from.into_iter().filter(|made| made.task != reader).collect(), gathers: false }
    }

    /// Returns the outputs that are folders in which files may match a pattern.
    fn around(&self, pattern: &str) -> Vec<Made<'t>> {
        let mut around = Vec::new();
        for (i, _) in pattern.match_indices('/') {
            let folder = &pattern[..i];
            match folder.find(['*', '?']) {
                None => around.extend(self.exactly(folder)),
                Some(star) => {
                    around.extend(self.starting_with(&folder[..star]).filter(|made| path::matches(folder, made.path)))
                }
            }
        }
        around
    }

    /// Returns the outputs that lie within one of another task, each behind that one: what reads the folder could not
    /// tell when it is complete.
    pub(super) fn nested(&self) -> Vec<(Made<'t>, Made<'t>)> {
        let outer = |made: &Made<'t>| {
            let folders = made.path.match_indices('/').rev().map(|(i, _)| &made.path[..i]);
            folders.filter_map(|folder| self.exactly(folder)).find(|outer| outer.task != made.task)
        };
        self.sorted.iter().filter_map(|made| Some((outer(made)?, *made))).collect()
    }

    fn exactly(&self, path: &str) -> Option<Made<'t>> {
        self.sorted.binary_search_by_key(&path, |made| made.path).ok().map(|i| self.sorted[i])
    }

    fn starting_with<'p>(&'p self, prefix: &'p str) -> impl Iterator<Item = Made<'t>> + 'p {
        let start = self.sorted.partition_point(|made| made.path < prefix);
        self.sorted[start..].iter().take_while(move |made| made.path.starts_with(prefix)).copied()
    }
}
