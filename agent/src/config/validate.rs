//! `validate`: everything that `run` checks before it opens anything.

use std::sync::Arc;

use spire_core::bundle::Bundle;
use spire_core::catalog::{self, Host, NONE, Plugin};
use spire_core::clock::Clock;
use spire_core::config::{Validation, Verdict};
use spire_core::keys::KeyManager;
use spire_core::node::EvidenceSource;
use spire_core::workload::WorkloadAttestor;
use tokio::sync::watch;

use super::{AgentConfig, AgentPlugins, RunFlags, load};

/// The plugins that a binary carries.
#[derive(Clone, Copy)]
pub struct PluginLists<'p> {
    /// Those that keep keys.
    pub key_managers: &'p [Plugin<dyn KeyManager>],
    /// Those that prove the node.
    pub node_attestors: &'p [Plugin<dyn EvidenceSource>],
    /// Those that tell processes apart.
    pub workload_attestors: &'p [Plugin<dyn WorkloadAttestor>],
}

/// Checks the file and the settings of its plugins.
pub fn validate(flags: &RunFlags, lists: PluginLists<'_>) -> Verdict {
    let mut validation = Validation::of("agent");
    let config = match load(flags) {
        Ok(loaded) => loaded.config,
        Err(error) => return validation.refuse(&error),
    };
    let plugins = match AgentPlugins::assign(&config.plugins) {
        Ok(plugins) => plugins,
        Err(errors) => {
            validation.abort(&errors);
            return validation.verdict();
        }
    };
    let host = host(&config);
    let AgentPlugins { key_manager, node_attestor, workload_attestors, svid_stores } = &plugins;
    validation.look(key_manager, catalog::load(lists.key_managers, key_manager, &host));
    validation.look(node_attestor, catalog::load(lists.node_attestors, node_attestor, &host));
    for attestor in workload_attestors {
        validation.look(attestor, catalog::load(lists.workload_attestors, attestor, &host));
    }
    for store in svid_stores {
        validation.look(store, catalog::load(NONE, store, &host));
    }
    validation.verdict()
}

/// A host as plugins meet it before anything runs.
fn host(config: &AgentConfig) -> Host {
    let trust_domain = config.trust_domain.clone();
    let (_, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
    Host { trust_domain, bundle, clock: Clock::system() }
}
