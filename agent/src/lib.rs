//! The SPIRE agent as a library, so that tests run it in process; `main.rs` is the binary.
