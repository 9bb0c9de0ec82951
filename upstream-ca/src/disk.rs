//! `disk`: an upstream CA whose certificate and key are files on this machine.

use spire_core::catalog::Plugin;
use spire_core::upstream::UpstreamAuthority;

/// Registers the plugin.
pub const PLUGIN: Plugin<dyn UpstreamAuthority> =
    Plugin { name: "disk", build: |_section, _host| todo!() };
