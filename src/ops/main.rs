//! The binary `trainyard-ops`: built-in stages on libtorch.

fn main() {}
