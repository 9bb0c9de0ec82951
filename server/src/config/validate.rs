//! `validate`: everything that `run` checks before it opens anything.

use std::fmt::Write as _;
use std::sync::Arc;

use spire_core::bundle::Bundle;
use spire_core::catalog::{self, CatalogError, Host, Plugin, PluginError};
use spire_core::clock::Clock;
use spire_core::config::{ConfigErrors, FromSection, PluginConfig, Reader};
use spire_core::keys::KeyManager;
use spire_core::node::NodeAttestor;
use spire_core::upstream::UpstreamAuthority;
use tokio::sync::watch;

use super::{RunFlags, ServerConfig, ServerPlugins, load};

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

/// What `validate` prints, each with its line end where it has one, and whether it exits 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Goes to the standard output.
    pub stdout: String,
    /// Goes to the standard error.
    pub stderr: String,
    /// Whether the file holds.
    pub valid: bool,
}

impl Verdict {
    fn invalid(stderr: String) -> Self {
        Self { stdout: String::new(), stderr, valid: false }
    }
}

/// Checks the file and the settings of its plugins.
///
/// Files that a plugin's settings name need not be there, since a file may be checked elsewhere
/// than where it will be used.
pub fn validate(flags: &RunFlags, lists: PluginLists<'_>) -> Verdict {
    let config = match load(flags) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            let stderr = format!("SPIRE server configuration file is invalid: {error}\n");
            return Verdict::invalid(stderr);
        }
    };
    let aborted = |error: &dyn std::fmt::Display| {
        Verdict::invalid(format!("Could not validate configuration file: {error}"))
    };
    let plugins = match ServerPlugins::assign(&config.plugins) {
        Ok(plugins) => plugins,
        Err(errors) => return aborted(&errors),
    };
    let host = host(&config);
    let mut findings = Vec::new();
    let mut look = |plugin: &PluginConfig, checked: Result<(), CatalogError>| match checked {
        Ok(()) => Ok(()),
        Err(CatalogError::Configure { source: PluginError::Unusable(_), .. }) => Ok(()),
        Err(CatalogError::Configure { source: PluginError::Config(errors), .. }) => {
            findings.push((format!("{} {:?}", plugin.kind, plugin.name), errors));
            Ok(())
        }
        Err(CatalogError::Configure { source, .. }) => {
            let errors = ConfigErrors::one(source.to_string());
            findings.push((format!("{} {:?}", plugin.kind, plugin.name), errors));
            Ok(())
        }
        Err(error) => Err(error),
    };
    let mut check_all = || -> Result<(), CatalogError> {
        let key_manager = &plugins.key_manager;
        look(key_manager, check(lists.key_managers, key_manager, &host))?;
        for attestor in &plugins.node_attestors {
            if attestor.name == "join_token" {
                look(attestor, check_join_token(attestor))?;
            } else {
                look(attestor, check(lists.node_attestors, attestor, &host))?;
            }
        }
        if let Some(upstream) = &plugins.upstream_authority {
            look(upstream, check(lists.upstream_authorities, upstream, &host))?;
        }
        Ok(())
    };
    if let Err(error) = check_all() {
        return aborted(&error);
    }
    if findings.is_empty() {
        let stdout = "SPIRE server configuration file is valid.\n".to_owned();
        return Verdict { stdout, stderr: String::new(), valid: true };
    }
    let mut stderr = "SPIRE server configuration file is invalid.\nValidation errors:\n".to_owned();
    for (plugin, errors) in findings {
        let _ = writeln!(stderr, "\t{plugin}:");
        for mistake in errors.0 {
            let _ = writeln!(stderr, "\t\t{mistake}");
        }
    }
    Verdict::invalid(stderr)
}

fn check<T: ?Sized>(
    plugins: &[Plugin<T>],
    config: &PluginConfig,
    host: &Host,
) -> Result<(), CatalogError> {
    catalog::load(plugins, config, host).map(drop)
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
    let trust_domain = config.trust_domain.clone();
    let (_, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
    Host { trust_domain, bundle, clock: Clock::system() }
}
