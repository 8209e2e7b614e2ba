//! The whole way to a device and back, driver calls included, on an emulated driver: what comes back equals the CPU's answer
//! by `==`, and whatever goes wrong is an error with words. Nothing here says anything about speed or about hardware.

mod batches;
mod calibrate;
mod check;
mod equality;
mod faults;
mod search;
