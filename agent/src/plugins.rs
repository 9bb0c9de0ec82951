//! The plugins that this binary carries, one line each.

use std::sync::Arc;

use spire_core::catalog::Plugin;
use spire_core::keys::{KeyManager, disk, memory};
use spire_core::node::EvidenceSource;
use spire_core::workload::WorkloadAttestor;
#[cfg(feature = "linux")]
use spire_provider_linux::{join_token, x509pop};

use crate::config::JoinToken;
use crate::workload::unix;

/// What keeps the agent's keys.
pub const KEY_MANAGERS: &[Plugin<dyn KeyManager>] = &[disk::AGENT_PLUGIN, memory::PLUGIN];

/// What proves the node.
pub const EVIDENCE_SOURCES: &[Plugin<dyn EvidenceSource>] = &[
    #[cfg(feature = "aws")]
    spire_provider_aws::agent::PLUGIN,
    #[cfg(feature = "azure")]
    spire_provider_azure::imds::agent::PLUGIN,
    #[cfg(feature = "azure")]
    spire_provider_azure::msi::agent::PLUGIN,
    #[cfg(feature = "gcp")]
    spire_provider_gcp::agent::PLUGIN,
    #[cfg(feature = "linux")]
    join_token::PLUGIN,
    #[cfg(feature = "linux")]
    x509pop::agent::PLUGIN,
];

/// What tells processes apart.
pub const WORKLOAD_ATTESTORS: &[Plugin<dyn WorkloadAttestor>] = &[unix::PLUGIN];

/// The attestor that shows `token`, with its name; `None` in a build without it.
pub fn of_join_token(token: &JoinToken) -> Option<(&'static str, Arc<dyn EvidenceSource>)> {
    #[cfg(feature = "linux")]
    {
        let evidence = join_token::JoinToken::new(token.as_str().to_owned());
        Some((join_token::NAME, Arc::new(evidence)))
    }
    #[cfg(not(feature = "linux"))]
    {
        let _ = token;
        None
    }
}
