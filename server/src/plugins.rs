//! The plugins that this binary carries, one line each.

use std::path::PathBuf;
use std::sync::Arc;

use spire_core::catalog::{Plugin, PluginError, refuse_settings};
use spire_core::config::{FromSection, Reader};
use spire_core::keys::KeyManager;
use spire_core::keys::disk::DiskKeyManager;
use spire_core::keys::memory::MemoryKeyManager;
use spire_core::node::NodeAttestor;
use spire_core::upstream::UpstreamAuthority;

/// What keeps the server's keys.
pub const KEY_MANAGERS: &[Plugin<dyn KeyManager>] = &[DISK_KEYS, MEMORY_KEYS];

/// What turns evidence into agents, beside `join_token`, which is a part of the server.
pub const NODE_ATTESTORS: &[Plugin<dyn NodeAttestor>] = &[
    #[cfg(feature = "linux")]
    spire_provider_linux::x509pop::server::PLUGIN,
];

/// What signs the server's CA.
pub const UPSTREAM_AUTHORITIES: &[Plugin<dyn UpstreamAuthority>] = spire_upstream_ca::PLUGINS;

const MEMORY_KEYS: Plugin<dyn KeyManager> = Plugin {
    name: "memory",
    build: |section, _host| {
        refuse_settings(section)?;
        Ok(Arc::new(MemoryKeyManager::new()))
    },
};

const DISK_KEYS: Plugin<dyn KeyManager> = Plugin {
    name: "disk",
    build: |section, _host| {
        let DiskConfig { keys_path } = section.decode()?;
        let keys = DiskKeyManager::open(keys_path);
        Ok(Arc::new(keys.map_err(|error| PluginError::Unusable(error.to_string()))?))
    },
};

struct DiskConfig {
    keys_path: PathBuf,
}

impl FromSection for DiskConfig {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.tolerate_unknown();
        let keys_path = reader.required("keys_path", "keys_path is required")?;
        Some(Self { keys_path: keys_path.into() })
    }
}
