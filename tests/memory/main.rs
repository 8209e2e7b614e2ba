//! What becomes of trainings on emulated cards, with the real binary: memory that runs out, is learned, waited for, taken
//! by others; cards that fall out.

#![expect(clippy::disallowed_methods, reason = "runs the real binary")]

mod busy;
mod displaced;
mod explain;
mod hidden;
mod learning;
mod limits;
mod machines;
mod orphans;
mod out_of_memory;
mod placing;
mod resumed;
mod sharing;
mod strangers;
mod stuck;
mod turns;
mod world;
