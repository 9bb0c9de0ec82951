//! JWT-SVIDs: signing and checking.

mod sign;
mod verify;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::id::SpiffeId;
use crate::keys::KeyError;

pub use sign::sign;
pub use verify::verify;

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

/// Why a token is refused, in SPIRE's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwtError(pub String);
