//! Makes the plugins that the configuration asks for.

use std::sync::Arc;

use spire_core::catalog::{self, CatalogError, Host, Plugin};
use spire_core::keys::KeyManager;
use spire_core::node::EvidenceSource;

use super::AgentError;
use crate::config::{AgentPlugins, JoinToken};
use crate::plugins::{EVIDENCE_SOURCES, KEY_MANAGERS, WORKLOAD_ATTESTORS, of_join_token};
use crate::workload::WorkloadAttestors;

/// The plugins of an agent.
pub(super) struct Loaded {
    pub(super) key_manager: Arc<dyn KeyManager>,
    /// The name of what proves the node.
    pub(super) attestor: String,
    pub(super) evidence: Arc<dyn EvidenceSource>,
    pub(super) workload_attestors: WorkloadAttestors,
}

/// A kind of plugin of which this build has none.
const NONE: &[Plugin<()>] = &[];

/// Makes them. With a join token, that is what proves the node, whatever else is configured.
pub(super) fn load(
    plugins: &AgentPlugins,
    join_token: Option<&JoinToken>,
    host: &Host,
) -> Result<Loaded, AgentError> {
    for config in &plugins.svid_stores {
        catalog::load(NONE, config, host)?;
    }
    let key_manager = catalog::load(KEY_MANAGERS, &plugins.key_manager, host)?;
    let (attestor, evidence) = match join_token {
        Some(token) => of_join_token(token)
            .map(|(name, evidence)| (name.to_owned(), evidence))
            .ok_or(AgentError::Unsupported("join_token"))?,
        None => {
            let config = &plugins.node_attestor;
            (config.name.clone(), catalog::load(EVIDENCE_SOURCES, config, host)?)
        }
    };
    Ok(Loaded { key_manager, attestor, evidence, workload_attestors: attestors(plugins, host)? })
}

fn attestors(plugins: &AgentPlugins, host: &Host) -> Result<WorkloadAttestors, CatalogError> {
    let mut attestors = Vec::new();
    for config in &plugins.workload_attestors {
        let attestor = catalog::load(WORKLOAD_ATTESTORS, config, host)?;
        // What was loaded is in the list.
        let name = catalog::find(WORKLOAD_ATTESTORS, &config.name).map_or("", |plugin| plugin.name);
        attestors.push((name, attestor));
    }
    Ok(WorkloadAttestors::new(attestors))
}
