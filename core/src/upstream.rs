//! The contract of upstream authorities: who signs our intermediate, or publishes our keys above.
//!
//! An upstream authority runs nothing of its own: the server asks it, for a signature when one is
//! due, and for what it trusts again and again.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::bundle::{JwtAuthority, X509Authority};

/// What hangs this server's CA below another.
#[async_trait]
pub trait UpstreamAuthority: Send + Sync {
    /// Has a CA certificate signed for the request in `csr` (PKCS#10 DER), which should live for
    /// `ttl`. The server checks what comes back before it uses it.
    ///
    /// # Errors
    /// [`UpstreamError`]; the authority in use goes on.
    async fn mint(&self, csr: &[u8], ttl: Duration) -> Result<Minted, UpstreamError>;

    /// Publishes a key for JWT-SVIDs above, and returns all keys known there.
    ///
    /// # Errors
    /// `Unsupported` where the upstream keeps no such keys: then they are published here alone.
    async fn publish_jwt_key(&self, key: &JwtAuthority)
    -> Result<Vec<JwtAuthority>, UpstreamError>;

    /// What the upstream trusts now, whole: a root that will sign the next authority is here as
    /// soon as the upstream tells of it, one that it no longer trusts is missing. A call that
    /// began before a mint or a publication ended may answer with what was true before it.
    ///
    /// # Errors
    /// `Unsupported` where this upstream cannot tell before the next mint: it need not be asked
    /// again. With any other error the last answer stands.
    async fn bundle(&self) -> Result<UpstreamBundle, UpstreamError>;

    /// How long to wait between two questions for the [bundle](Self::bundle).
    fn bundle_period(&self) -> Duration;

    /// When the upstream itself ends, and so all that it would sign now. Nothing is signed, nor paid
    /// for, to find this out: `None` where only a mint tells.
    ///
    /// # Errors
    /// As [`mint`](Self::mint).
    async fn ends_at(&self) -> Result<Option<Timestamp>, UpstreamError> {
        Ok(None)
    }
}

/// A signed CA certificate with what leads from it to the roots.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The new CA certificate first, then what workloads need after it, DER.
    pub chain: Vec<Bytes>,
    /// The upstream's roots.
    pub roots: Vec<X509Authority>,
}

/// What an upstream trusts at some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamBundle {
    /// Its roots; what a tainted one signed is to be replaced at once.
    pub roots: Vec<X509Authority>,
    /// Its keys for JWT-SVIDs, where it keeps them.
    pub jwt_keys: Option<Vec<JwtAuthority>>,
    /// The number of this state, where the upstream counts: an answer with a smaller one than
    /// another is older. 0 where it does not.
    pub sequence_number: u64,
}

/// Why an upstream did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream does not offer this.
    #[error("the upstream authority does not support this")]
    Unsupported,
    /// What the upstream sent cannot be used. It may want to be paid all the same, and is asked again
    /// as seldom as may be.
    #[error("{0}")]
    Invalid(String),
    /// The upstream could not be reached, would not answer, or has nothing to sign with now. To ask
    /// again soon costs nothing.
    #[error("{0}")]
    Unavailable(String),
}
