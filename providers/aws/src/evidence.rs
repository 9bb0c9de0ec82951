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

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as an encoder of Go writes them, which escapes three characters more than it must.
    #[test]
    fn agents_and_servers_of_spire_are_understood() {
        let evidence = Evidence {
            document: "{\n  \"region\" : \"us-west-2\"\n}".to_owned(),
            signature: "c2ln\nbmF0".to_owned(),
            rsa2048: "MIAG\nCSo=".to_owned(),
        };
        let text = r#"{"document":"{\n  \"region\" : \"us-west-2\"\n}","signature":"c2ln\nbmF0","rsa2048":"MIAG\nCSo="}"#;
        assert_eq!(serde_json::to_string(&evidence).unwrap(), text);
        assert_eq!(serde_json::from_str::<Evidence>(text).unwrap(), evidence);
        let text = r#"{"document":"\u003c\u0026\u003e","signature":"a","rsa2048":""}"#;
        let evidence: Evidence = serde_json::from_str(text).unwrap();
        assert_eq!((evidence.document.as_str(), evidence.rsa2048.as_str()), ("<&>", ""));
    }
}
