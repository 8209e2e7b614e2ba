//! The catalogue of built-in stages: what `use = "…"` and `with = { … }` may say.
//!
//! The tables are the one place where a parameter is declared. `check` and the JSON Schema read them here, without
//! libtorch; `trainyard-ops` receives parameters that have passed them, defaults filled in. This file does not know
//! how an op computes.

mod catalogue;

pub use catalogue::CATALOGUE;

/// A built-in stage.
#[derive(Debug)]
pub struct Op {
    /// The name behind `use`.
    pub name: &'static str,
    /// What it does, one sentence.
    pub about: &'static str,
    /// How many `inputs` the stage must declare, and what they are in order.
    pub inputs: Files,
    /// How many `outputs` the stage must declare, and what they are in order.
    pub outputs: Files,
    /// Its parameters.
    pub params: &'static [Param],
}

/// How many files an op reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// At least so many.
    pub least: usize,
    /// At most so many; `usize::MAX` for any number.
    pub most: usize,
    /// What they are, in order: "the model, then the data set".
    pub about: &'static str,
    /// With this set, there must be as many outputs as inputs.
    pub as_inputs: bool,
}

/// One parameter of an op.
#[derive(Debug)]
pub struct Param {
    /// The key in `with`.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it is when absent.
    pub default: Default,
    /// What it means, with its unit, one sentence.
    pub about: &'static str,
}

/// What a parameter may be. Bounds are inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int {
        /// The least.
        least: i64,
        /// The most.
        most: i64,
    },
    /// A number; a whole number is taken as one too.
    Float {
        /// The least.
        least: f64,
        /// The most.
        most: f64,
        /// Whether the least itself is excluded.
        above: bool,
    },
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of whole numbers.
    Ints {
        /// The least of each.
        least: i64,
        /// The most of each.
        most: i64,
        /// The most entries.
        len: usize,
    },
}

/// What an absent parameter is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// It must be given.
    Required,
    /// It stays absent.
    Absent,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text or a choice.
    Text(&'static str),
    /// A list of whole numbers.
    Ints(&'static [i64]),
}

/// Returns the op of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Op> {
    CATALOGUE.iter().find(|op| op.name == name)
}
