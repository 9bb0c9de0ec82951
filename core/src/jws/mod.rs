//! Signed tokens of others, such as a cloud's word on an instance: a compact JWS that is taken
//! apart strictly, the keys that its issuer publishes, and a cache of them.
//!
//! What a token must say is left to whoever takes it.

mod algorithm;
mod cache;
mod claims;
mod freshness;
mod json;
mod key_set;
mod token;

pub use algorithm::Algorithm;
pub use cache::{Fetched, KeyCache, KeySource};
pub use claims::Claims;
pub use key_set::{KeySet, MAX_KEY_SET_BYTES, PublicKey};
pub use token::Jws;

use crate::node::AttestError;

/// Why a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// It is no token of the kind that is asked for.
    #[error("{0}")]
    Malformed(String),
    /// Its issuer publishes no key of that ID, or several.
    #[error("token is signed by key {0:?}, which its issuer does not publish")]
    UnknownKey(String),
    /// Its signature is not by the key that it names.
    #[error("token has a signature that does not hold")]
    Signature,
    /// It says what it must not say, or its time has passed.
    #[error("{0}")]
    Refused(String),
    /// The issuer's keys cannot be had.
    #[error("keys of the token's issuer cannot be fetched: {0}")]
    NoKeys(String),
}

impl From<JwsError> for AttestError {
    fn from(error: JwsError) -> Self {
        let text = error.to_string();
        match error {
            JwsError::Malformed(_) | JwsError::UnknownKey(_) | JwsError::Signature => {
                Self::Malformed(text)
            }
            JwsError::Refused(_) => Self::Refused(text),
            JwsError::NoKeys(_) => Self::Unavailable(text),
        }
    }
}
