//! What has been made before is not made again: results by the content of everything that they depend on.
//!
//! Pure: [`key`], [`recipe`], `words`, [`manifest`], [`verdict`]. Shell: [`files`] says what files hold, [`objects`] keeps
//! results, [`index`] knows which key made which; [`keeper`] brings them together for one run, `intake` takes in what it made,
//! [`survey`] looks all tasks up at once, [`engine`] puts it all around an engine, [`standstill`] sees that nothing has changed at
//! all, [`sweep`] keeps the size in bounds, [`locks`] who is at a result, [`left`] what other runs have left.

pub mod aside;
pub mod engine;
pub mod files;
pub mod index;
mod intake;
pub mod keeper;
pub mod key;
pub mod left;
mod leftovers;
pub mod locks;
pub mod manifest;
pub mod objects;
pub mod recipe;
pub mod restore;
pub mod standstill;
pub mod survey;
pub mod sweep;
pub mod verdict;
mod words;
mod workshop;
