//! The agent of a trust domain on one node: it attests the node, holds the identities that the
//! node may hand out, and hands them to the processes that they belong to.

pub mod app;
pub mod attestation;
pub mod backoff;
pub mod bootstrap;
pub mod cache;
pub mod cache_file;
pub mod cli;
pub mod client;
pub mod config;
pub mod endpoints;
pub mod health;
pub mod identity;
pub mod plugins;
pub mod rotation;
pub mod storage;
pub mod sync;
pub mod upkeep;
pub mod workload;
