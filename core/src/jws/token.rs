//! A compact JWS, taken apart: nothing of what it claims can be used before its signature holds.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Algorithm, Claims, JwsError, PublicKey, json};
use crate::limits::MAX_JWT_BYTES;

/// Longest ID of a key in bytes.
const MAX_KEY_ID_BYTES: usize = 256;

/// A token whose signature has not been checked yet.
#[derive(Debug)]
pub struct Jws<'t> {
    algorithm: Algorithm,
    key_id: String,
    signed: &'t [u8],
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'t> Jws<'t> {
    /// Takes a token apart: three parts in base64url without padding, signed by one of `allowed`,
    /// with the ID of its key. Keys and places of keys that the header may name are passed over.
    ///
    /// # Errors
    /// [`JwsError::Malformed`]
    ///
    /// # Source
    /// RFC 7515, 5.2 and 7.1.
    pub fn parse(token: &'t [u8], allowed: &[Algorithm]) -> Result<Self, JwsError> {
        if token.len() > MAX_JWT_BYTES {
            return Err(malformed(format!("token is longer than {MAX_JWT_BYTES} bytes")));
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("token does not have three parts"));
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        let header = json::object(&decode("header", header)?)
            .map_err(|error| malformed(format!("token header cannot be read: {error}")))?;
        let text = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default();
        let algorithm = Algorithm::named(text("alg"), allowed).ok_or_else(|| {
            let names: Vec<&str> = allowed.iter().map(|algorithm| algorithm.name()).collect();
            let given = header.get("alg").map_or_else(|| "none at all".to_owned(), shown);
            malformed(format!("token is signed with {given}, not with {}", names.join(", ")))
        })?;
        if header.contains_key("crit") {
            return Err(malformed(
                "token header has critical members, none of which is understood",
            ));
        }
        let key_id = text("kid");
        if key_id.is_empty() || key_id.len() > MAX_KEY_ID_BYTES {
            return Err(malformed("token header names no key (kid)"));
        }
        Ok(Self {
            algorithm,
            key_id: key_id.to_owned(),
            signed,
            claims: decode("payload", claims)?,
            signature: decode("signature", signature)?,
        })
    }

    /// The ID of the key that is said to have signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What it claims once its signature by `key` holds.
    ///
    /// # Errors
    /// [`JwsError::Signature`], and [`JwsError::Malformed`] for claims that cannot be read.
    pub fn verify(self, key: &PublicKey) -> Result<Claims, JwsError> {
        let checked = self.algorithm.verify(key.spki(), self.signed, &self.signature);
        checked.map_err(|_| JwsError::Signature)?;
        Claims::read(&self.claims)
    }

    /// What it claims, proven or not: for a line in the log, and for nothing that is decided.
    pub fn unverified_claims(&self) -> Option<Claims> {
        Claims::read(&self.claims).ok()
    }
}

fn decode(name: &str, part: &[u8]) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|error| malformed(format!("token {name} is no base64url: {error}")))
}

/// A value from outside, of which no more is shown than a person reads.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(32).collect()
}

fn malformed(reason: impl Into<String>) -> JwsError {
    JwsError::Malformed(reason.into())
}
