//! Spellings of v0.7 to v1.14 in the block `server`, each with one warning.

use spire_core::config::Reader;

/// Accepts former names, and keys that have no effect.
pub(super) fn accept(reader: &mut Reader<'_>) {
    reader.renamed("registration_uds_path", "socket_path");
    reader.renamed("default_svid_ttl", "default_x509_svid_ttl");
    reader.renamed("svid_ttl", "default_x509_svid_ttl");
    reader
        .ignored("upstream_bundle", "the roots of an upstream authority are always in the bundle");
    reader.ignored("umask", "the umask of the process is kept, and tightened to 0027 if weaker");
    reader.ignored("plugin_dir", "plugins are named one by one in the block plugins");
    reader.ignored("omit_x509svid_uid", "X.509-SVIDs carry no unique identifier");
    reader.ignored("use_legacy_downstream_x509_ca_ttl", "downstream CAs follow ca_ttl");
    reader.ignored("exclude_sn_from_ca_subject", "the CA's subject has a serial number");
    if reader.boolean("allow_unsafe_ids") == Some(true) {
        reader.reject(
            "allow_unsafe_ids",
            "allow_unsafe_ids was removed: SPIFFE IDs must follow the SPIFFE standard",
            "remove it, and entries with IDs that break the standard",
        );
    } else {
        reader.ignored("allow_unsafe_ids", "SPIFFE IDs must follow the SPIFFE standard");
    }
}
