//! Where a task runs: this machine.
