//! `x509pop`: a node proves that it holds the private key of a certificate.
//!
//! The agent sends its certificates; the server verifies them against an operator's CA or against
//! the trust domain's own bundle, sends a nonce, and the agent signs it together with a nonce of
//! its own.

mod evidence;
#[cfg(feature = "agent")]
mod key;
#[cfg(feature = "agent")]
mod workload_api;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "server")]
mod certificate;
#[cfg(feature = "server")]
mod chain;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod server;

#[cfg(test)]
#[cfg(all(feature = "agent", feature = "server"))]
mod tests;

/// The name of the attestor, and the type of its selectors.
pub const NAME: &str = "x509pop";
