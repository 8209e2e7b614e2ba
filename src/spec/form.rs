//! What the tables of a file format may hold: keys, what they mean, and what their values may be.
//!
//! A format declares each of its tables with [`keys!`](crate::keys); the decoder, "did you mean" and the JSON Schema
//! all take the keys from there. This file knows no format.

use std::ops::RangeInclusive;

/// A key that a table may hold.
#[derive(Debug)]
pub struct Field {
    /// The key as it is written.
    pub word: &'static str,
    /// What it means, one sentence.
    pub about: &'static str,
    /// What its value may be.
    pub form: Form,
}

/// What a value may be, for the JSON Schema; the decoder's reads are its exact counterpart.
#[derive(Debug)]
pub enum Form {
    /// Any text.
    Text,
    /// A text of letters, digits, `_`, `.` and `-`.
    Name,
    /// A text that this regular expression matches.
    Like(&'static str),
    /// One of these texts.
    Words(&'static [&'static str]),
    /// A memory size: `"6GiB"`.
    Size,
    /// A duration: `"1h30m"`.
    Time,
    /// A rate: `"12GB/s"`.
    Rate,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Whole(RangeInclusive<i64>),
    /// A number.
    Number(RangeInclusive<f64>),
    /// Text, number, `true` or `false`.
    Scalar,
    /// Anything but a table.
    Value,
    /// Any of these.
    OneOf(&'static [Form]),
    /// An array.
    List(&'static Form),
    /// A table with free keys.
    Map(&'static Form),
    /// A table with these keys, and free ones if there is a form for them.
    Table(&'static [Field], Option<&'static Form>),
    /// A table with the keys of all of these.
    Joined(&'static [&'static [Field]]),
}

/// The keys of one table, made by [`keys!`](crate::keys).
pub trait Key: Copy + 'static {
    /// All keys, in the order of the documentation.
    const ALL: &'static [Self];
    /// `[ALL.len()]`: their words and meanings.
    const FIELDS: &'static [Field];

    /// Returns the key that is written so.
    #[must_use]
    fn find(word: &str) -> Option<Self> {
        Self::FIELDS.iter().position(|field| field.word == word).map(|i| Self::ALL[i])
    }

    /// Returns how the key is written.
    fn word(self) -> &'static str;
}

/// Declares the keys of one table: an enum to match on, and a table of words, meanings and forms beside it.
#[macro_export]
macro_rules! keys {
    ($(#[$meta:meta])* $vis:vis enum $Name:ident {
        $(#[doc = $about:literal] $Variant:ident = $word:literal: $form:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $Name { $(#[doc = $about] $Variant,)* }

        impl $crate::spec::decode::Key for $Name {
            const ALL: &'static [Self] = &[$(Self::$Variant),*];
            const FIELDS: &'static [$crate::spec::decode::Field] = &[
                $($crate::spec::decode::Field { word: $word, about: $about.trim_ascii(), form: $form }),*
            ];

            fn word(self) -> &'static str {
                match self { $(Self::$Variant => $word),* }
            }
        }
    };
}
