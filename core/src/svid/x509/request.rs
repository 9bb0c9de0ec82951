//! Certificate requests (PKCS#10): read from outside, and made for servers and upstreams.

use bytes::Bytes;

use super::Subject;
use crate::id::SpiffeId;
use crate::keys::{KeyError, SigningKey};

/// A request whose signature by the key in it has been checked.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    /// The public key, SubjectPublicKeyInfo DER.
    pub public_key: Bytes,
    /// The subject; empty where the request names none.
    pub subject: Subject,
    /// URI SANs as written, unchecked.
    pub uris: Vec<String>,
    /// DNS SANs as written, unchecked.
    pub dns_names: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CsrError(pub String);

impl CertificateRequest {
    /// Reads a request and checks its signature. The key must be RSA of 2048 bits or more, P-256,
    /// P-384, P-521 or Ed25519.
    ///
    /// # Errors
    /// [`CsrError`] says what is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        let _ = der;
        todo!()
    }
}

/// A request for a workload's SVID: the ID as its URI SAN, subject `C=US, O=SPIRE`.
///
/// # Errors
/// [`KeyError`] where the key could not sign.
pub async fn workload_request(key: &dyn SigningKey, id: &SpiffeId) -> Result<Bytes, KeyError> {
    let _ = (key, id);
    todo!()
}

/// A request for an agent's SVID, which names neither subject nor ID: the server decides it.
///
/// # Errors
/// [`KeyError`] where the key could not sign.
pub async fn agent_request(key: &dyn SigningKey) -> Result<Bytes, KeyError> {
    let _ = key;
    todo!()
}
