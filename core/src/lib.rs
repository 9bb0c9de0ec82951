//! What server and agent both mean: the vocabulary of SPIFFE and the contracts that attestors,
//! resolvers, key managers and upstream authorities fulfil.
//!
//! This crate knows no cloud and no database, and opens no port of its own.

pub mod bundle;
pub mod catalog;
pub mod clock;
pub mod command;
pub mod config;
pub mod entry;
pub mod files;
pub mod flags;
pub mod grpc;
pub mod id;
pub mod jws;
pub mod keys;
pub mod limits;
pub mod node;
pub mod os_error;
pub mod path_template;
pub mod pkcs7;
pub mod process;
pub mod remote;
pub mod selector;
pub mod svid;
pub mod tasks;
pub mod telemetry;
pub mod threads;
pub mod tls;
pub mod upstream;
pub mod wire;
pub mod workload;

/// The version that both programs report: that of the SPIRE whose interfaces they have, in the form
/// of a build that is no release of it.
pub const VERSION: &str = "1.15.3-dev-unk";
