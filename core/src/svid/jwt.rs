//! JWT-SVIDs: signing and checking.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::bundle::Bundle;
use crate::id::{SpiffeId, TrustDomain};
use crate::keys::{KeyError, SigningKey};

/// What a token shall say.
#[derive(Debug, Clone)]
pub struct Claims<'c> {
    /// Whom it names.
    pub subject: &'c SpiffeId,
    /// Whom it is for, in the order asked; empty texts are dropped, and one must be left.
    pub audience: &'c [String],
    /// When it was signed; written in whole seconds.
    pub issued_at: Timestamp,
    /// When it ceases to be valid; written in whole seconds. The caller has capped it.
    pub expires_at: Timestamp,
    /// `iss`, where the server's configuration names an issuer.
    pub issuer: Option<&'c str>,
    /// Whether it gets a random `jti`.
    pub with_id: bool,
}

/// Why no token was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No audience is left.
    #[error("invalid JWT-SVID audience: cannot be empty")]
    NoAudience,
    /// The key could not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Signs a token with the key that bundles know as `key_id`.
///
/// # Errors
/// [`SignError`].
pub async fn sign(
    key: &dyn SigningKey,
    key_id: &str,
    claims: &Claims<'_>,
) -> Result<String, SignError> {
    let _ = (key, key_id, claims);
    todo!()
}

/// A token that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Whom it names.
    pub id: SpiffeId,
    /// When it ceases to be valid.
    pub expires_at: Timestamp,
    /// All its claims; `aud` is a list whatever the token wrote.
    pub claims: Map<String, Value>,
}

/// Why a token is refused. The messages are those of SPIRE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is refused for the reason given.
    #[error("{0}")]
    Invalid(String),
}

/// Checks a token for one audience. `bundle_of` finds the bundle of the trust domain that the
/// token's subject names.
///
/// # Errors
/// [`JwtError`].
///
/// # Source
/// JWT-SVID, 4.
pub fn verify(
    token: &str,
    audience: &str,
    bundle_of: impl FnOnce(&TrustDomain) -> Option<Arc<Bundle>>,
    now: Timestamp,
) -> Result<Verified, JwtError> {
    let _ = (token, audience, now);
    let _ = bundle_of;
    todo!()
}
