//! `azure_imds`: a node has the instance metadata service sign its identity around a nonce.
//!
//! The server sends a nonce; the agent has a document signed around it; the server verifies the
//! signature up to embedded roots, and has Azure say what the machine is. The document proves that
//! whoever answers can reach the metadata service of that machine now.

mod evidence;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod document;
#[cfg(feature = "server")]
mod issuer;
#[cfg(feature = "server")]
mod resolver;
#[cfg(feature = "server")]
mod roots;
#[cfg(feature = "server")]
mod scale_set;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod signer;
#[cfg(feature = "server")]
mod tenant;

/// The name of the attestor, and the type of its selectors.
pub const NAME: &str = "azure_imds";
