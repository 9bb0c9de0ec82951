//! What travels from the agent to the server, exactly as SPIRE's agents write it.

use serde::{Deserialize, Serialize};

/// A token in an envelope that holds nothing else.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    /// The token as a compact JWS.
    pub(super) token: String,
}
