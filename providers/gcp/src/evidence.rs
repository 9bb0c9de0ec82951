//! What both halves exchange: a token that Google has signed for one instance, exactly as its
//! metadata server gives it, in its compact form and nothing around it.

/// For whom the agent asks the token to be. It is the same everywhere, as SPIRE's servers want it.
pub(crate) const AUDIENCE: &str = "spire-gcp-node-attestor";
