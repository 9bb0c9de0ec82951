//! The server's file as checked: every value has its type, every default is filled in.
//!
//! Flags beat the file, the file beats the defaults. One run names every mistake.

mod experimental;
mod federation;
mod legacy;
mod plugins;
mod server;
mod ttl;
mod validate;

use std::path::{Path, PathBuf};

use spire_core::config::{self, LoadError, Loaded, Section};

pub use experimental::{ExperimentalConfig, PolicyFiles};
pub use federation::{
    AcmeConfig, BundleEndpointConfig, BundleEndpointProfile, FederatesWith, FederationConfig,
    FederationProfile, ServingFiles,
};
pub use plugins::ServerPlugins;
pub use server::ServerConfig;
pub use validate::{PluginLists, offline_host, validate};

/// Where the file is unless a flag names another one.
pub const DEFAULT_FILE: &str = "conf/server/server.conf";

/// The flags of `run` and `validate`. What is absent, empty or false leaves the file's word.
#[derive(Debug, Clone, Default)]
pub struct RunFlags {
    /// `-config`
    pub config: Option<PathBuf>,
    /// `-expandEnv`
    pub expand_env: bool,
    /// `-bindAddress`
    pub bind_address: Option<String>,
    /// `-serverPort`
    pub server_port: Option<i64>,
    /// `-dataDir`
    pub data_dir: Option<String>,
    /// `-logFile`
    pub log_file: Option<String>,
    /// `-logFormat`
    pub log_format: Option<String>,
    /// `-logLevel`
    pub log_level: Option<String>,
    /// `-logSourceLocation`
    pub log_source_location: bool,
    /// `-socketPath`, formerly `-registrationUDSPath`
    pub socket_path: Option<String>,
    /// `-trustDomain`
    pub trust_domain: Option<String>,
    /// `-umask` of v0.7, which has no effect
    pub umask: Option<String>,
    /// `-upstreamBundle` of v0.7, which has no effect
    pub upstream_bundle: bool,
}

impl RunFlags {
    fn overlay(&self, file: &mut Section) {
        let texts = [
            ("bind_address", &self.bind_address),
            ("data_dir", &self.data_dir),
            ("log_file", &self.log_file),
            ("log_format", &self.log_format),
            ("log_level", &self.log_level),
            ("socket_path", &self.socket_path),
            ("trust_domain", &self.trust_domain),
            ("umask", &self.umask),
        ];
        for (key, text) in texts {
            if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                file.set_text("server", key, text);
            }
        }
        if let Some(port) = self.server_port.filter(|port| *port != 0) {
            file.set_integer("server", "bind_port", port);
        }
        let switches = [
            ("log_source_location", self.log_source_location),
            ("upstream_bundle", self.upstream_bundle),
        ];
        for (key, on) in switches {
            if on {
                file.set_true("server", key);
            }
        }
    }
}

/// Reads the file that the flags name and checks it together with them.
///
/// # Errors
/// [`LoadError`] with every mistake, as `run` prints it.
pub fn load(flags: &RunFlags) -> Result<Loaded<ServerConfig>, LoadError> {
    let path = flags.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    config::load(path, flags.expand_env, |file| flags.overlay(file), ServerConfig::read_file)
}

#[cfg(test)]
mod tests;
