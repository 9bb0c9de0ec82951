//! The agent's file as checked: every value has its type, every default is filled in.
//!
//! Flags beat the file, the file beats the defaults. One run names every mistake.

mod agent;
mod bootstrap;
mod experimental;
mod plugins;
mod validate;

use std::path::{Path, PathBuf};

use spire_core::config::{self, LoadError, Loaded, Section};
use zeroize::Zeroizing;

pub use agent::{AgentConfig, JoinToken, SdsConfig};
pub use bootstrap::{BundleFormat, BundleSource, RebootstrapMode};
pub use experimental::{
    AllowedReference, BrokerClient, BrokerConfig, ExperimentalConfig, RateLimitsConfig,
};
pub use plugins::AgentPlugins;
pub use validate::{PluginLists, validate};

/// Where the file is unless a flag names another one.
pub const DEFAULT_FILE: &str = "conf/agent/agent.conf";

/// The flags of `run` and `validate`. What is absent, empty or false leaves the file's word.
#[derive(Clone, Default)]
pub struct RunFlags {
    /// `-config`
    pub config: Option<PathBuf>,
    /// `-expandEnv`
    pub expand_env: bool,
    /// `-allowUnauthenticatedVerifiers`
    pub allow_unauthenticated_verifiers: bool,
    /// `-dataDir`
    pub data_dir: Option<String>,
    /// `-disableSDSAPI`
    pub disable_sds_api: bool,
    /// `-disableWorkloadAPI`
    pub disable_workload_api: bool,
    /// `-insecureBootstrap`
    pub insecure_bootstrap: bool,
    /// `-joinToken`
    pub join_token: Option<Zeroizing<String>>,
    /// `-joinTokenFile`
    pub join_token_file: Option<String>,
    /// `-logFile`
    pub log_file: Option<String>,
    /// `-logFormat`
    pub log_format: Option<String>,
    /// `-logLevel`
    pub log_level: Option<String>,
    /// `-logSourceLocation`
    pub log_source_location: bool,
    /// `-rebootstrapDelay`
    pub rebootstrap_delay: Option<String>,
    /// `-rebootstrapMode`
    pub rebootstrap_mode: Option<String>,
    /// `-serverAddress`
    pub server_address: Option<String>,
    /// `-serverPort`
    pub server_port: Option<i64>,
    /// `-socketPath`
    pub socket_path: Option<String>,
    /// `-trustBundle`
    pub trust_bundle: Option<String>,
    /// `-trustBundleFormat`
    pub trust_bundle_format: Option<String>,
    /// `-trustBundleUrl`
    pub trust_bundle_url: Option<String>,
    /// `-trustDomain`
    pub trust_domain: Option<String>,
    /// `-umask` of v0.7, which has no effect
    pub umask: Option<String>,
}

impl RunFlags {
    fn overlay(&self, file: &mut Section) {
        let texts = [
            ("data_dir", self.data_dir.as_deref()),
            ("join_token", self.join_token.as_deref().map(String::as_str)),
            ("join_token_file", self.join_token_file.as_deref()),
            ("log_file", self.log_file.as_deref()),
            ("log_format", self.log_format.as_deref()),
            ("log_level", self.log_level.as_deref()),
            ("rebootstrap_delay", self.rebootstrap_delay.as_deref()),
            ("rebootstrap_mode", self.rebootstrap_mode.as_deref()),
            ("server_address", self.server_address.as_deref()),
            ("socket_path", self.socket_path.as_deref()),
            ("trust_bundle_path", self.trust_bundle.as_deref()),
            ("trust_bundle_format", self.trust_bundle_format.as_deref()),
            ("trust_bundle_url", self.trust_bundle_url.as_deref()),
            ("trust_domain", self.trust_domain.as_deref()),
            ("umask", self.umask.as_deref()),
        ];
        for (key, text) in texts {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                file.set_text("agent", key, text);
            }
        }
        if let Some(port) = self.server_port.filter(|port| *port != 0) {
            file.set_integer("agent", "server_port", port);
        }
        let switches = [
            ("allow_unauthenticated_verifiers", self.allow_unauthenticated_verifiers),
            ("disable_sds_api", self.disable_sds_api),
            ("disable_workload_api", self.disable_workload_api),
            ("insecure_bootstrap", self.insecure_bootstrap),
            ("log_source_location", self.log_source_location),
        ];
        for (key, on) in switches {
            if on {
                file.set_true("agent", key);
            }
        }
    }
}

/// Reads the file that the flags name and checks it together with them.
///
/// # Errors
/// [`LoadError`] with every mistake, as `run` prints it.
pub fn load(flags: &RunFlags) -> Result<Loaded<AgentConfig>, LoadError> {
    let path = flags.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    config::load(path, flags.expand_env, |file| flags.overlay(file), AgentConfig::read_file)
}

#[cfg(test)]
mod tests;
