//! The plugins that this binary carries, one line each.

use spire_core::catalog::Plugin;
use spire_core::keys::{KeyManager, disk, memory};
use spire_core::node::NodeAttestor;
use spire_core::upstream::UpstreamAuthority;

/// What keeps the server's keys.
pub const KEY_MANAGERS: &[Plugin<dyn KeyManager>] = &[disk::SERVER_PLUGIN, memory::PLUGIN];

/// What turns evidence into agents, beside `join_token`, which is a part of the server.
pub const NODE_ATTESTORS: &[Plugin<dyn NodeAttestor>] = &[
    #[cfg(feature = "aws")]
    spire_provider_aws::server::PLUGIN,
    #[cfg(feature = "azure")]
    spire_provider_azure::imds::server::PLUGIN,
    #[cfg(feature = "azure")]
    spire_provider_azure::msi::server::PLUGIN,
    #[cfg(feature = "gcp")]
    spire_provider_gcp::server::PLUGIN,
    #[cfg(feature = "linux")]
    spire_provider_linux::x509pop::server::PLUGIN,
];

/// What signs the server's CA.
pub const UPSTREAM_AUTHORITIES: &[Plugin<dyn UpstreamAuthority>] = spire_upstream_ca::PLUGINS;
