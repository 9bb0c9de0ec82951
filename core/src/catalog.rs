//! Plugins by name. Each binary lists those that it carries; this is the type and the loop.

use std::sync::Arc;

use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::config::{ConfigErrors, Section};
use crate::id::TrustDomain;

/// A plugin that a binary carries: its name as operators write it, and how it is made from the
/// body of its `plugin_data`.
pub struct Plugin<T: ?Sized> {
    /// The name in the configuration file.
    pub name: &'static str,
    /// Checks the section and makes the plugin. It opens nothing but the files that it names.
    pub build: fn(&Section, &Host) -> Result<Arc<T>, ConfigErrors>,
}

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

/// Finds a plugin by its name.
pub fn find<'p, T: ?Sized>(plugins: &'p [Plugin<T>], name: &str) -> Option<&'p Plugin<T>> {
    plugins.iter().find(|plugin| plugin.name == name)
}
