//! Drives the real binaries: harness, demo and load programs.

pub mod load;
