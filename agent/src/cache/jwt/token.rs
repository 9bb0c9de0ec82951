//! A JWT-SVID.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use spire_core::id::SpiffeId;
use zeroize::Zeroizing;

/// A JWT-SVID.
pub struct JwtSvid {
    /// Whose identity it is.
    pub spiffe_id: SpiffeId,
    /// The token, compact form: a secret that wipes itself.
    pub token: Zeroizing<String>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
}

impl JwtSvid {
    /// The `kid` of its header.
    pub(super) fn key_id(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Header {
            kid: String,
        }
        let header = self.token.split('.').next()?;
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        serde_json::from_slice(&header).ok().map(|Header { kid }| kid)
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
