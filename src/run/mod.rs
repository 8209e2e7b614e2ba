//! Carries a plan out.
pub mod outcome;
