//! Plugins by name. Each binary lists those that it carries; this is the type and the loop.

use std::sync::Arc;

use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::config::{ConfigErrors, PluginConfig, ReadError, Section};
use crate::id::TrustDomain;

/// A plugin that a binary carries: its name as operators write it, and how it is made from the
/// body of its `plugin_data`.
pub struct Plugin<T: ?Sized> {
    /// The name in the configuration file.
    pub name: &'static str,
    /// Checks the section and makes the plugin. It opens nothing but the files that it names, but
    /// may ask the cloud what the section leaves to it, which takes some seconds: it is called
    /// where a thread may wait, also to validate a configuration.
    pub build: fn(&Section, &Host) -> Result<Arc<T>, PluginError>,
}

/// The list of a type of plugins of which a binary carries none.
pub const NONE: &[Plugin<()>] = &[];

/// What a plugin may use of the process that carries it.
#[derive(Debug, Clone)]
pub struct Host {
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// The trust domain's own bundle as it is now; empty until the first one is known.
    pub bundle: watch::Receiver<Arc<Bundle>>,
    /// The time.
    pub clock: Clock,
}

/// Why a plugin cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// It takes no settings but was given some.
    #[error("no supported configuration interface found")]
    NotConfigurable,
    /// Its section has mistakes.
    #[error("rpc error: code = InvalidArgument desc = {}", one_line(.0))]
    Config(#[from] ConfigErrors),
    /// Its section is right, but what it names cannot be used here: a broken file, say.
    #[error("rpc error: code = Internal desc = {0}")]
    Unusable(String),
}

fn one_line(errors: &ConfigErrors) -> String {
    let lines: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// Refuses settings for a plugin that takes none.
///
/// # Errors
/// [`PluginError::NotConfigurable`] where `section` holds anything.
pub fn refuse_settings(section: &Section) -> Result<(), PluginError> {
    if section.is_empty() { Ok(()) } else { Err(PluginError::NotConfigurable) }
}

/// Why a plugin that a file asks for is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// This binary carries no such plugin.
    #[error("failed to load plugin {name:?}: no built-in plugin {name:?} for type {kind:?}")]
    Unknown {
        /// Its type.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The plugin is a program of its own.
    #[error(
        "failed to load plugin {name:?}: external plugins (plugin_cmd) are not supported by this \
         build; use a built-in plugin"
    )]
    External {
        /// Its name.
        name: String,
    },
    /// The file with its settings cannot be read.
    #[error("failed to configure plugin {name:?}: failed to load plugin data: {source}")]
    Data {
        /// Its name.
        name: String,
        /// What the file says.
        source: DataFileError,
    },
    /// Its settings are refused.
    #[error("failed to configure plugin {name:?}: {source}")]
    Configure {
        /// Its name.
        name: String,
        /// Why.
        source: PluginError,
    },
}

/// Why a `plugin_data_file` gives no settings; a missing file is worded as the system words it.
#[derive(Debug, thiserror::Error)]
pub enum DataFileError {
    /// There is no such file.
    #[error("open {0}: no such file or directory")]
    NotFound(String),
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(ReadError),
}

/// Makes the plugin that `config` asks for out of those that this binary carries.
///
/// # Errors
/// [`CatalogError`] says in SPIRE's words why it cannot be made.
pub fn load<T: ?Sized>(
    plugins: &[Plugin<T>],
    config: &PluginConfig,
    host: &Host,
) -> Result<Arc<T>, CatalogError> {
    let name = || config.name.clone();
    if config.plugin_cmd.is_some() {
        return Err(CatalogError::External { name: name() });
    }
    let plugin = find(plugins, &config.name)
        .ok_or_else(|| CatalogError::Unknown { kind: config.kind.clone(), name: name() })?;
    let section = config.settings().map_err(|error| {
        let source = match (error, &config.plugin_data_file) {
            (ReadError::NotFound(_), Some(path)) => {
                DataFileError::NotFound(path.display().to_string())
            }
            (error, _) => DataFileError::Unreadable(error),
        };
        CatalogError::Data { name: name(), source }
    })?;
    let built = (plugin.build)(&section, host)
        .map_err(|source| CatalogError::Configure { name: name(), source })?;
    tracing::info!(
        plugin_name = config.name,
        plugin_type = config.kind,
        external = false,
        "Plugin loaded"
    );
    Ok(built)
}

/// Finds a plugin by its name.
pub fn find<'p, T: ?Sized>(plugins: &'p [Plugin<T>], name: &str) -> Option<&'p Plugin<T>> {
    plugins.iter().find(|plugin| plugin.name == name)
}
