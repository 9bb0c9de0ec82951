//! The `spire-agent` binary.
fn main() {}
