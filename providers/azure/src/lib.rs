//! What a virtual machine on Azure can prove.
//!
//! - [`imds`]: that it runs now. The instance metadata service signs a document with the machine's
//!   ID around a nonce of the server, with a certificate of Microsoft's web PKI.
//! - [`msi`]: that it may act as a managed identity, by a token of Microsoft Entra. Anybody who
//!   sees the token can show it, so that its first use counts only.
//!
//! Both ask Azure Resource Manager what the machine is, in the public cloud or a sovereign one.
//!
//! # Source
//! The Azure manuals "Azure Instance Metadata Service", "Managed identities for Azure resources",
//! "Azure Resource Graph" and "Azure REST API".

mod metadata;

#[cfg(feature = "server")]
mod api;
#[cfg(feature = "server")]
mod cloud;
#[cfg(feature = "server")]
mod credentials;
#[cfg(feature = "server")]
mod lookup;
#[cfg(feature = "server")]
mod network;
#[cfg(feature = "server")]
mod resource_id;
#[cfg(feature = "server")]
mod startup;
#[cfg(feature = "server")]
mod subscriptions;
#[cfg(feature = "server")]
mod transport;

pub mod imds;
pub mod msi;

/// How long all that an attestation asks of Azure may take, once for the proof and once for the
/// selectors.
#[cfg(feature = "server")]
const ALL_CALLS: std::time::Duration = std::time::Duration::from_secs(20);

/// What an attestation ends with that Azure let wait.
#[cfg(feature = "server")]
fn late() -> spire_core::node::AttestError {
    let sentence = format!("Azure did not answer within {} s", ALL_CALLS.as_secs());
    spire_core::node::AttestError::Unavailable(sentence)
}
