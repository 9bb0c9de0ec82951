//! What travels from the agent to the server, exactly as SPIRE's agents and servers write it.

use serde::{Deserialize, Serialize};

/// The three texts of the metadata service, not trimmed nor encoded anew. Agents of SPIRE up to
/// 0.12 have no `rsa2048`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evidence {
    /// The identity document.
    #[serde(default)]
    pub(crate) document: String,
    /// A signature of the document by the region's key of 1024 bits, base64 in lines.
    #[serde(default)]
    pub(crate) signature: String,
    /// A PKCS#7 message with the document, signed by the region's key of 2048 bits, base64 in
    /// lines.
    #[serde(default)]
    pub(crate) rsa2048: String,
}
