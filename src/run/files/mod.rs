//! Files as they lie on the disk: moved, copied, removed, and whether they are still as somebody left them. What they are the
//! results of is not known here.

mod digest;
mod room;
pub mod since;
pub mod transfer;
pub mod tree;

pub use digest::Digest;
