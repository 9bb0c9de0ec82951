//! The SPIRE server as a library, so that tests run it in process; `main.rs` is the binary.

pub mod api;
pub mod app;
pub mod attestation;
pub mod authority;
pub mod caller;
pub mod cli;
pub mod config;
pub mod endpoints;
pub mod health;
pub mod plugins;
pub mod policy;
pub mod rate_limit;
pub mod registry;

pub mod store;
pub mod upkeep;
