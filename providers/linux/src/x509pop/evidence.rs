//! What travels between both halves, exactly as SPIRE's agents and servers write it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of the nonces of both sides in bytes.
pub(super) const NONCE_BYTES: usize = 32;

/// Bytes as standard base64; `null` counts as none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The first message: the leaf, then what leads from it towards a root.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Payload {
    #[serde(default)]
    pub(super) certificates: Vec<Base64>,
}

/// The server's nonce, under the kind of key that shall sign it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Challenge {
    pub(super) rsa_signature: Option<Nonce>,
    pub(super) ecdsa_signature: Option<Nonce>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Nonce {
    pub(super) nonce: Base64,
}

/// The agent's nonce and its signature over both.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Response {
    pub(super) rsa_signature: Option<RsaSignature>,
    pub(super) ecdsa_signature: Option<EcdsaSignature>,
}

/// RSA-PSS with SHA-256.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RsaSignature {
    pub(super) nonce: Base64,
    pub(super) signature: Base64,
}

/// ECDSA over SHA-256, `r` and `s` as big-endian numbers without leading zeros.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct EcdsaSignature {
    pub(super) nonce: Base64,
    pub(super) r: Base64,
    pub(super) s: Base64,
}

/// What is signed: the server's nonce, then the agent's.
pub(super) fn signed_message(challenge: &[u8], response: &[u8]) -> Vec<u8> {
    [challenge, response].concat()
}

/// A fresh nonce.
pub(super) fn nonce() -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    let mut nonce = vec![0; NONCE_BYTES];
    aws_lc_rs::rand::fill(&mut nonce)?;
    Ok(nonce)
}
