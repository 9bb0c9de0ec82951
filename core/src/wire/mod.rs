//! The gRPC messages, clients and servers generated from `core/proto`, under short names.
//!
//! Generated types stay at the rim: handlers turn them into the vocabulary of this crate at once.

pub mod convert;
pub mod json;
mod sync;
pub mod workload;

pub use sync::SyncAuthorizedEntriesResponse;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from core/proto")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

pub use generated::grpc::health::v1 as health;
pub use generated::spiffe::broker;
pub use generated::spire::agent::debug::v1 as agent_debug;
pub use generated::spire::api::agent::delegatedidentity::v1 as delegated_identity;
pub use generated::spire::api::agent::logger::v1 as agent_logger;
pub use generated::spire::api::server::{
    agent::v1 as agent, bundle::v1 as bundle, debug::v1 as debug, entry::v1 as entry,
    localauthority::v1 as local_authority, logger::v1 as logger, svid::v1 as svid,
    trustdomain::v1 as trust_domain,
};
pub use generated::spire::api::types;
pub use generated::spire::cloud::server::v1 as cloud_server;
pub use generated::spire::{hostservice, plugin, service};

/// Descriptors of every file below `core/proto` and what they import, as an encoded
/// `google.protobuf.FileDescriptorSet`: for gRPC reflection and for JSON output.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
