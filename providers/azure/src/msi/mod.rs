//! `azure_msi`: a node shows a token of its managed identity.
//!
//! The agent has the instance metadata service give it a token of Microsoft Entra; the server
//! verifies it by Entra's published keys and finds the one virtual machine whose system-assigned
//! identity the token speaks of. The token is not bound to the node: it is good for whoever has it,
//! for hours, so that its first use counts only.

mod evidence;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "server")]
mod claims;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod machine;
#[cfg(feature = "server")]
mod resolver;
#[cfg(feature = "server")]
pub mod server;

/// The name of the attestor, and the type of its selectors.
pub const NAME: &str = "azure_msi";

/// Whom tokens are for unless the operator says otherwise.
const DEFAULT_RESOURCE: &str = "https://management.azure.com/";
