//! The contract of upstream authorities: who signs our intermediate, or publishes our keys above.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::bundle::{JwtAuthority, X509Authority};

/// What hangs this server's CA below another.
#[async_trait]
pub trait UpstreamAuthority: Send + Sync {
    /// Has a CA certificate signed for the request in `csr` (PKCS#10 DER), which should live for
    /// `ttl`. What comes back has been checked: it chains to the roots that come with it and
    /// carries the key of the request.
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

    /// What the upstream trusts, whenever it changes; `None` where this upstream cannot tell
    /// before the next mint.
    fn bundle_updates(&self) -> Option<watch::Receiver<UpstreamBundle>>;
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
    /// Its roots.
    pub roots: Vec<X509Authority>,
    /// Its keys for JWT-SVIDs, where it keeps them.
    pub jwt_keys: Option<Vec<JwtAuthority>>,
}

/// Why an upstream did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The upstream does not offer this.
    #[error("the upstream authority does not support this")]
    Unsupported,
    /// What the upstream holds or sent cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The upstream could not be reached or would not answer now.
    #[error("{0}")]
    Unavailable(String),
}
