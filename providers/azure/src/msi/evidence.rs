//! What travels from the agent to the server, exactly as SPIRE's agents write it.

use serde::{Deserialize, Serialize};

/// A token in an envelope that holds nothing else.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    /// The token as a compact JWS.
    pub(super) token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text as an encoder of Go writes it.
    #[test]
    fn agents_and_servers_of_spire_are_understood() {
        let text = r#"{"token":"eyJh.eyJh.c2ln-_"}"#;
        let payload: Payload = serde_json::from_str(text).unwrap();
        assert_eq!(payload.token, "eyJh.eyJh.c2ln-_");
        assert_eq!(serde_json::to_string(&payload).unwrap(), text);
    }
}
