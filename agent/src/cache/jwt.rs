//! JWT-SVIDs: from the cache while they are fresh, else from the server.

use std::sync::Arc;

use jiff::Timestamp;
use spire_core::entry::Entry;
use spire_core::id::SpiffeId;

/// Fetches JWT-SVIDs and keeps them by SPIFFE ID and audiences.
#[derive(Debug)]
pub struct JwtSvids {}

/// A JWT-SVID.
pub struct JwtSvid {
    /// Whose identity it is.
    pub spiffe_id: SpiffeId,
    /// The token, compact form: a secret.
    pub token: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl JwtSvids {
    /// A token of `entry`'s identity for `audience`, which is not empty. A kept one is returned
    /// before half of its life is over; then it is renewed, and returned still where the server
    /// cannot be reached in time.
    ///
    /// # Errors
    /// [`JwtFetchError`]; its text follows `could not fetch JWT-SVID: ` in the answer to a caller.
    pub async fn fetch(
        &self,
        _entry: &Entry,
        _audience: &[String],
    ) -> Result<Arc<JwtSvid>, JwtFetchError> {
        todo!()
    }

    /// How many are kept.
    pub fn count(&self) -> usize {
        todo!()
    }
}

impl std::fmt::Debug for JwtSvid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// No JWT-SVID could be had.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch JWT SVID: {0}")]
pub struct JwtFetchError(pub String);
