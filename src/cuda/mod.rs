//! NVIDIA devices through the driver's own interface: memory, kernels, and the time that they take.
//!
//! The library is looked for when it is needed, never linked; every function that is called here was looked up before
//! the first call. So a missing driver, an old one, a full card and a lost card are all a [`CudaError`]. The kernels come
//! as PTX inside the program and are compiled by the driver. Does not know what the kernels compute.

mod device;
mod driver;
mod kernels;
mod memory;
pub mod pace;
mod stopwatch;

pub use device::{About, Device};
pub use driver::{CudaError, guarded, start, start_within};
pub use kernels::{Argument, Kernel, Launch, Source};
pub use memory::{Buffer, Word};
pub use pace::Pace;
pub use stopwatch::Stopwatch;
