//! Many candidate schedules at once: what a search asks for thousands of times.
//!
//! Whole numbers in arrays without names: a candidate is a column, and how good it is comes out. What the kernels compute is
//! defined here on the CPU: `==`. Does not know pipelines or fleets, nor how candidates are found.

pub mod device;
pub mod lists;
pub mod orders;
pub mod search;
pub mod sgs;
pub mod tape;
pub mod timing;

/// Every length is below this: kernels count ticks in 32 bits, and the largest value is a flag.
pub const MOST_TICKS: u64 = 1 << 31;

/// Why a problem is not one for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Tasks are counted in 16 bits.
    #[error("more than 65,535 tasks")]
    TooManyTasks,
    /// Durations add up to more ticks than are counted.
    #[error("the durations add up to 2^31 ticks or more")]
    TooLong,
    /// More devices than a warp has lanes.
    #[error("more than 32 devices")]
    TooManyDevices,
    /// More durations to choose between than are looked up at once.
    #[error("more than {} durations for a task", timing::KINDS)]
    TooManyKinds,
    /// An amount that does not fit its field, or that nobody has.
    #[error("a need that is larger than what there is, or than can be counted")]
    TooLarge,
    /// Fewer than two tasks are in one order only.
    #[error("fewer than two tasks")]
    TooFewTasks,
    /// An order in which some task is missing, twice, or before one that it waits for.
    #[error("an order that does not keep the precedence")]
    Order,
}
