//! What travels between both halves, exactly as SPIRE's agents and servers write it.

use serde::{Deserialize, Serialize};

/// What an agent sends before it is challenged; it says nothing.
#[cfg(feature = "agent")]
pub(super) const OPENING: &[u8] = b"non_empty_payload";

/// The answer to the server's nonce.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    pub(super) document: Document,
    pub(super) metadata: Hints,
}

/// The signed document, as the metadata service gave it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// `pkcs7`.
    pub(super) encoding: String,
    /// A PKCS#7 message in base64.
    pub(super) signature: String,
}

/// What the agent says about its node. Nothing signs it, so that each part is proven by what the
/// cloud says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Hints {
    /// The domain of its tenant.
    pub(super) agent_domain: String,
    /// The scale set that it is in, if any; written as `null` outside of one.
    #[serde(default)]
    pub(super) vmss_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as an encoder of Go writes them.
    #[test]
    fn agents_and_servers_of_spire_are_understood() {
        for (set, text) in [
            (
                None,
                r#"{"document":{"encoding":"pkcs7","signature":"MIA+/w=="},"metadata":{"agentDomain":"example.onmicrosoft.com","vmssName":null}}"#,
            ),
            (
                Some("set"),
                r#"{"document":{"encoding":"pkcs7","signature":"MIA+/w=="},"metadata":{"agentDomain":"example.onmicrosoft.com","vmssName":"set"}}"#,
            ),
        ] {
            let answer: Answer = serde_json::from_str(text).unwrap();
            assert_eq!(answer.document.signature, "MIA+/w==");
            assert_eq!(answer.metadata.vmss_name.as_deref(), set);
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        }
    }
}
