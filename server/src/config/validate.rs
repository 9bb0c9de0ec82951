//! `validate`: everything that `run` checks before it opens anything.

use std::sync::Arc;

use spire_core::bundle::Bundle;
use spire_core::catalog::{self, CatalogError, Host, NONE, Plugin};
use spire_core::clock::Clock;
use spire_core::config::{FromSection, PluginConfig, Reader, Validation, Verdict};
use spire_core::keys::KeyManager;
use spire_core::node::{JOIN_TOKEN, NodeAttestor};
use spire_core::upstream::UpstreamAuthority;
use tokio::sync::watch;

use super::{RunFlags, ServerConfig, ServerPlugins, load};
use crate::store::Store;

/// The plugins that a binary carries, beside the built-in `join_token` and `sql`.
#[derive(Clone, Copy)]
pub struct PluginLists<'p> {
    /// Those that keep keys.
    pub key_managers: &'p [Plugin<dyn KeyManager>],
    /// Those that prove nodes.
    pub node_attestors: &'p [Plugin<dyn NodeAttestor>],
    /// Those that sign the server's CA.
    pub upstream_authorities: &'p [Plugin<dyn UpstreamAuthority>],
}

/// Checks the file and the settings of its plugins.
pub fn validate(flags: &RunFlags, lists: PluginLists<'_>) -> Verdict {
    let mut validation = Validation::of("server");
    let config = match load(flags) {
        Ok(loaded) => loaded.config,
        Err(error) => return validation.refuse(&error),
    };
    let plugins = match ServerPlugins::assign(&config.plugins) {
        Ok(plugins) => plugins,
        Err(errors) => {
            validation.abort(&errors);
            return validation.verdict();
        }
    };
    let host = host(&config);
    let key_manager = &plugins.key_manager;
    validation.look(key_manager, catalog::load(lists.key_managers, key_manager, &host));
    for attestor in &plugins.node_attestors {
        if attestor.name == JOIN_TOKEN {
            validation.look(attestor, check_join_token(attestor));
        } else {
            validation.look(attestor, catalog::load(lists.node_attestors, attestor, &host));
        }
    }
    if let Some(upstream) = &plugins.upstream_authority {
        validation.look(upstream, catalog::load(lists.upstream_authorities, upstream, &host));
    }
    let others = [&plugins.notifiers, &plugins.bundle_publishers, &plugins.credential_composers];
    for plugin in others.into_iter().flatten() {
        validation.look(plugin, catalog::load(NONE, plugin, &host));
    }
    validation.verdict()
}

/// `join_token` has no settings; `run` overlooks them, as SPIRE does.
fn check_join_token(config: &PluginConfig) -> Result<(), CatalogError> {
    struct NoSettings;
    impl FromSection for NoSettings {
        fn read(reader: &mut Reader<'_>) -> Option<Self> {
            for key in reader.unasked() {
                let sentence = format!("unknown setting {key:?} encountered");
                reader.reject(&key, &sentence, "remove it");
            }
            reader.tolerate_unknown();
            Some(Self)
        }
    }
    let decoded = config.section.decode::<NoSettings>().map(drop);
    let name = config.name.clone();
    decoded.map_err(|errors| CatalogError::Configure { name, source: errors.into() })
}

/// A host as plugins meet it before anything runs.
fn host(config: &ServerConfig) -> Host {
    host_with(Bundle::empty(config.trust_domain.clone()))
}

/// A host as plugins meet it where no server runs: with the bundle that `store` holds, if any.
pub async fn offline_host(config: &ServerConfig, store: Option<&Store>) -> Host {
    let stored = match store {
        // A store that cannot be read is as good as none here: the plugins' checks say so.
        Some(store) => store.bundle(&config.trust_domain).await.ok().flatten(),
        None => None,
    };
    host_with(stored.unwrap_or_else(|| Bundle::empty(config.trust_domain.clone())))
}

fn host_with(bundle: Bundle) -> Host {
    let trust_domain = bundle.trust_domain.clone();
    let (_, bundle) = watch::channel(Arc::new(bundle));
    Host { trust_domain, bundle, clock: Clock::system() }
}
