//! Carries a plan out.
//!
//! Pure: [`state`] folds [`event`]s, [`decide`], [`retry`] and [`raise`] say what follows, [`admission`] whether it fits,
//! [`peak`] what was seen, [`learn`] what follows from it for later runs, [`launch`] with what command. Shell:
//! [`supervisor`] moves events between them, the [`store`] and an [`engine`]; [`neighbours`] are other runs of the user on the
//! machine; the [`cache`] knows what need not be done again; [`files`] moves and copies what tasks made; [`crash`] lets tests
//! end it at named points.

pub mod admission;
pub mod cache;
pub mod crash;
pub mod decide;
pub mod engine;
pub mod event;
pub mod expect;
pub mod files;
mod found;
pub mod launch;
pub(crate) mod layer;
pub mod learn;
pub mod limit;
mod lock;
pub mod neighbours;
pub mod observer;
pub mod outcome;
pub mod peak;
pub mod ports;
pub mod preflight;
pub mod raise;
pub mod remains;
pub mod resume;
pub mod retry;
pub mod state;
pub mod store;
pub mod supervisor;
#[cfg(test)]
mod tests;
pub mod within;
