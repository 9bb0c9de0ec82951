//! Makes the plugins that the configuration asks for, and makes some of them anew later.

use std::fmt;
use std::sync::Arc;

use spire_core::catalog::{self, CatalogError, Host, NONE};
use spire_core::config::PluginConfig;
use spire_core::keys::KeyManager;
use spire_core::node::EvidenceSource;
use tokio::sync::watch;

use super::AgentError;
use crate::config::{AgentPlugins, JoinToken};
use crate::plugins::{EVIDENCE_SOURCES, KEY_MANAGERS, WORKLOAD_ATTESTORS, of_join_token};
use crate::workload::WorkloadAttestors;

/// The plugins of an agent.
pub(super) struct Loaded {
    pub(super) key_manager: Arc<dyn KeyManager>,
    /// The name of what proves the node.
    pub(super) attestor: String,
    pub(super) evidence: watch::Receiver<Arc<dyn EvidenceSource>>,
    pub(super) workload_attestors: WorkloadAttestors,
    pub(super) replaceable: Replaceable,
}

/// Those plugins whose settings may change while the agent runs.
pub(super) struct Replaceable {
    plugins: AgentPlugins,
    host: Host,
    /// `None` where a join token proves the node.
    evidence: Option<watch::Sender<Arc<dyn EvidenceSource>>>,
    workload_attestors: WorkloadAttestors,
}

/// Makes them. With a join token, that is what proves the node, whatever else is configured.
pub(super) fn load(
    plugins: AgentPlugins,
    join_token: Option<&JoinToken>,
    host: Host,
) -> Result<Loaded, AgentError> {
    for config in &plugins.svid_stores {
        catalog::load(NONE, config, &host)?;
    }
    let key_manager = catalog::load(KEY_MANAGERS, &plugins.key_manager, &host)?;
    let (attestor, evidence) = match join_token {
        Some(token) => of_join_token(token)
            .map(|(name, evidence)| (name.to_owned(), evidence))
            .ok_or(AgentError::Unsupported("join_token"))?,
        None => {
            let config = &plugins.node_attestor;
            (config.name.clone(), catalog::load(EVIDENCE_SOURCES, config, &host)?)
        }
    };
    let workload_attestors = attestors(&plugins, &host)?;
    let (changes, evidence) = watch::channel(evidence);
    let replaceable = Replaceable {
        plugins,
        host,
        evidence: join_token.is_none().then_some(changes),
        workload_attestors: workload_attestors.clone(),
    };
    Ok(Loaded { key_manager, attestor, evidence, workload_attestors, replaceable })
}

fn attestors(plugins: &AgentPlugins, host: &Host) -> Result<WorkloadAttestors, CatalogError> {
    let mut attestors = Vec::new();
    for config in &plugins.workload_attestors {
        let attestor = catalog::load(WORKLOAD_ATTESTORS, config, host)?;
        attestors.push((workload_attestor_name(config), attestor));
    }
    Ok(WorkloadAttestors::new(attestors))
}

/// The name of one that was loaded, which is in the list.
fn workload_attestor_name(config: &PluginConfig) -> &'static str {
    catalog::find(WORKLOAD_ATTESTORS, &config.name).map_or("", |plugin| plugin.name)
}

impl fmt::Debug for Replaceable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Replaceable").field(&self.workload_attestors).finish()
    }
}

impl Replaceable {
    /// Makes the attestors anew whose settings are in a file of their own. One whose file is wrong
    /// stays as it is.
    pub(super) fn reconfigure(&self) {
        let Self { plugins, host, evidence, workload_attestors } = self;
        if has_file(&plugins.key_manager) {
            tracing::warn!(
                plugin_name = plugins.key_manager.name,
                plugin_type = plugins.key_manager.kind,
                "This plugin is reconfigured by a restart only"
            );
        }
        if let Some(evidence) = evidence {
            replace(&plugins.node_attestor, || {
                let source = catalog::load(EVIDENCE_SOURCES, &plugins.node_attestor, host)?;
                evidence.send_replace(source);
                Ok(())
            });
        }
        for config in &plugins.workload_attestors {
            replace(config, || {
                let attestor = catalog::load(WORKLOAD_ATTESTORS, config, host)?;
                workload_attestors.replace(workload_attestor_name(config), attestor);
                Ok(())
            });
        }
    }
}

fn replace(config: &PluginConfig, by_another: impl FnOnce() -> Result<(), CatalogError>) {
    if !has_file(config) {
        return;
    }
    match by_another() {
        Ok(()) => tracing::info!(
            plugin_name = config.name,
            plugin_type = config.kind,
            "Plugin reconfigured"
        ),
        Err(error) => tracing::error!(
            plugin_name = config.name,
            plugin_type = config.kind,
            %error,
            "Failed to reconfigure the plugin; it goes on as it was"
        ),
    }
}

fn has_file(config: &PluginConfig) -> bool {
    config.plugin_data_file.is_some()
}
