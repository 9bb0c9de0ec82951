//! Signs certificates exactly as the templates of SPIRE lay them out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::{CertificateError, Subject, X509Svid};
use crate::entry::DnsName;
use crate::id::{SpiffeId, TrustDomain};
use crate::keys::{KeyError, SigningKey};

/// What a leaf shall say.
#[derive(Debug, Clone)]
pub struct LeafTemplate<'t> {
    /// Whom it names. It must have a path.
    pub id: &'t SpiffeId,
    /// Its public key, SubjectPublicKeyInfo DER, from a checked request or a key manager.
    pub public_key: &'t [u8],
    /// Its DNS names in order; the first becomes the common name.
    pub dns_names: &'t [DnsName],
    /// Its subject; `None` means `C=US, O=SPIRE`.
    pub subject: Option<&'t Subject>,
    /// How long it shall live from now on. The life of the issuer caps it silently.
    pub ttl: Duration,
}

/// What the certificate of a signing authority shall say.
#[derive(Debug, Clone)]
pub struct CaTemplate<'t> {
    /// Whose authority it is; its ID becomes the URI SAN.
    pub trust_domain: &'t TrustDomain,
    /// Its public key, SubjectPublicKeyInfo DER. A self-signed one takes that of the signing key.
    pub public_key: &'t [u8],
    /// Its subject, taken as it is.
    pub subject: &'t Subject,
    /// How long it shall live from now on. The life of the issuer caps it silently.
    pub ttl: Duration,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The key could not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The template asks for something that no SVID may be.
    #[error("{0}")]
    Template(String),
}

/// An authority for X.509-SVIDs: its certificate and its key. Its certificate is read once.
#[derive(Debug, Clone)]
pub struct Issuer {
    key: Arc<dyn SigningKey>,
}

impl Issuer {
    /// A root, which is in the bundle: chains that it signs hold the leaf alone.
    ///
    /// # Errors
    /// [`CertificateError`] where the certificate cannot be read or has another key.
    pub fn root(certificate: Bytes, key: Arc<dyn SigningKey>) -> Result<Self, CertificateError> {
        let _ = (certificate, key);
        todo!()
    }

    /// An authority below others: `chain` begins with its own certificate and is appended to all
    /// that it signs.
    ///
    /// # Errors
    /// [`CertificateError`] where its certificate cannot be read or has another key.
    pub fn intermediate(
        chain: Vec<Bytes>,
        key: Arc<dyn SigningKey>,
    ) -> Result<Self, CertificateError> {
        let _ = (chain, key);
        todo!()
    }

    /// Its own certificate, DER.
    pub fn certificate(&self) -> &Bytes {
        todo!()
    }

    /// Its id as an authority: the subject key identifier in lower-case hexadecimal digits.
    pub fn authority_id(&self) -> &str {
        todo!()
    }

    /// When its certificate ceases to be valid, and with it all that it signed.
    pub fn expires_at(&self) -> Timestamp {
        todo!()
    }

    /// The subject of a CA below this one: its own with the unit `DOWNSTREAM-<length of chain>`.
    pub fn downstream_subject(&self) -> Subject {
        todo!()
    }

    /// Signs a leaf.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_leaf(
        &self,
        template: &LeafTemplate<'_>,
        now: Timestamp,
    ) -> Result<X509Svid, IssueError> {
        let _ = (template, now, &self.key);
        todo!()
    }

    /// Signs an authority below this one. Returns its certificate first, then the certificates
    /// that lead from it to a root.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_ca(
        &self,
        template: &CaTemplate<'_>,
        now: Timestamp,
    ) -> Result<Vec<Bytes>, IssueError> {
        let _ = (template, now);
        todo!()
    }
}

/// Makes a self-signed root. Its serial number becomes the `serialNumber` of its subject.
///
/// # Errors
/// [`IssueError`].
pub async fn self_sign_ca(
    key: &dyn SigningKey,
    trust_domain: &TrustDomain,
    subject: &Subject,
    ttl: Duration,
    now: Timestamp,
) -> Result<Bytes, IssueError> {
    let _ = (key, trust_domain, subject, ttl, now);
    todo!()
}

/// A request (PKCS#10) that asks an upstream authority for an intermediate. Its subject gets a
/// random `serialNumber`.
///
/// # Errors
/// [`IssueError`].
pub async fn ca_request(
    key: &dyn SigningKey,
    trust_domain: &TrustDomain,
    subject: &Subject,
) -> Result<Bytes, IssueError> {
    let _ = (key, trust_domain, subject);
    todo!()
}
