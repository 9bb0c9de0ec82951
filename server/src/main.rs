//! The `spire-server` binary.
fn main() {}
