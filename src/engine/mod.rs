//! Where a task runs: this machine.
//!
//! An engine starts what it is told to start and reports how that goes. It does not know the graph, the plan or
//! whether an attempt will be followed by another.

mod affinity;
pub mod attendance;
mod clock;
mod end;
mod group;
mod heard;
mod hold;
mod hole;
pub mod local;
mod log;
pub mod notify;
mod oom;
pub mod opened;
pub mod orphans;
mod overtime;
mod pending;
pub mod process;
pub mod race;
pub mod room;
pub mod sentinel;
mod silence;
mod spawn;
pub mod strays;
mod supervise;
mod vfork;
pub mod warden;
