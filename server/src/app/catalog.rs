//! Makes the plugins that the configuration asks for.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use spire_core::catalog::{self, CatalogError, Host, NONE};
use spire_core::config::PluginConfig;
use spire_core::keys::KeyManager;
use spire_core::node::{JOIN_TOKEN, NodeAttestor};
use spire_core::upstream::UpstreamAuthority;

use crate::attestation::Attestors;
use crate::config::ServerPlugins;
use crate::plugins::{KEY_MANAGERS, NODE_ATTESTORS, UPSTREAM_AUTHORITIES};

/// The plugins of a server.
pub(super) struct Loaded {
    pub(super) key_manager: Arc<dyn KeyManager>,
    pub(super) node_attestors: Attestors,
    pub(super) upstream_authority: Option<Arc<dyn UpstreamAuthority>>,
}

pub(super) fn load(plugins: &ServerPlugins, host: &Host) -> Result<Loaded, CatalogError> {
    let others = [&plugins.notifiers, &plugins.bundle_publishers, &plugins.credential_composers];
    for config in others.into_iter().flatten() {
        catalog::load(NONE, config, host)?;
    }
    let upstream = plugins.upstream_authority.as_ref();
    Ok(Loaded {
        key_manager: catalog::load(KEY_MANAGERS, &plugins.key_manager, host)?,
        node_attestors: attestors(&plugins.node_attestors, host)?,
        upstream_authority: upstream
            .map(|config| catalog::load(UPSTREAM_AUTHORITIES, config, host))
            .transpose()?,
    })
}

fn attestors(configs: &[PluginConfig], host: &Host) -> Result<Attestors, CatalogError> {
    let mut attestors = HashMap::new();
    for config in configs.iter().filter(|config| config.name != JOIN_TOKEN) {
        let attestor = catalog::load(NODE_ATTESTORS, config, host)?;
        attestors.insert(config.name.clone(), attestor);
    }
    Ok(attestors)
}

/// Makes attestors anew whose settings are in a file of their own. One whose file is wrong stays
/// as it is.
pub(super) fn reconfigure(plugins: &ServerPlugins, host: &Host, attestors: &ArcSwap<Attestors>) {
    let fixed = [Some(&plugins.key_manager), plugins.upstream_authority.as_ref()];
    for config in fixed.into_iter().flatten().filter(|config| has_file(config)) {
        tracing::warn!(
            plugin_name = config.name,
            plugin_type = config.kind,
            "This plugin is reconfigured by a restart only"
        );
    }
    let mut replaced: Attestors = HashMap::clone(&attestors.load());
    for config in plugins.node_attestors.iter().filter(|config| has_file(config)) {
        match catalog::load::<dyn NodeAttestor>(NODE_ATTESTORS, config, host) {
            Ok(attestor) => {
                replaced.insert(config.name.clone(), attestor);
                tracing::info!(
                    plugin_name = config.name,
                    plugin_type = config.kind,
                    "Plugin reconfigured"
                );
            }
            Err(error) => tracing::error!(
                plugin_name = config.name,
                plugin_type = config.kind,
                %error,
                "Failed to reconfigure the plugin; it goes on as it was"
            ),
        }
    }
    attestors.store(Arc::new(replaced));
}

fn has_file(config: &PluginConfig) -> bool {
    config.plugin_data_file.is_some()
}
