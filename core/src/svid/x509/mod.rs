//! X.509-SVIDs: requests for them, their templates, and the check of a chain.

pub(crate) mod der;
mod described;
mod issuer;
pub mod path;
pub(crate) mod read;
mod request;
mod signed;
mod signer;
mod subject;
mod template;
mod verify;

use bytes::Bytes;
use jiff::Timestamp;

use crate::id::SpiffeId;

pub use described::{Described, describe, describe_to_root};
pub use issuer::{CaTemplate, IssueError, Issuer, LeafTemplate, self_sign_ca};
pub use read::decimal;
pub use request::{
    CertificateRequest, CsrError, agent_request, ca_request, mint_request, workload_request,
};
pub use signer::is_signed_by;
pub use subject::Subject;
pub use verify::{VerifyError, leads_to, verify, verify_for};

/// An X.509-SVID without its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Svid {
    /// Whom it names.
    pub id: SpiffeId,
    /// The leaf first, then the intermediates that lead to a root, DER.
    pub chain: Vec<Bytes>,
    /// The leaf's serial number, decimal.
    pub serial: String,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ceases to be valid.
    pub expires_at: Timestamp,
}

/// A certificate could not be read, or says something that it must not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertificateError(pub String);

impl From<::der::Error> for CertificateError {
    fn from(error: ::der::Error) -> Self {
        Self(format!("certificate is malformed: {error}"))
    }
}

impl X509Svid {
    /// Reads the leaf of a chain that is trusted already: one that was verified, signed here, or
    /// stored by this process. It must name exactly one SPIFFE ID.
    ///
    /// # Errors
    /// [`CertificateError`] where the leaf cannot be read or names no single SPIFFE ID.
    pub fn from_chain(chain: Vec<Bytes>) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or_else(|| CertificateError("chain is empty".into()))?;
        let leaf = read::Certificate::read(leaf)?;
        let id = verify::single_id(&leaf)?;
        let serial = leaf.serial_text();
        let (not_before, expires_at) = (leaf.not_before, leaf.not_after);
        Ok(Self { id, serial, not_before, expires_at, chain })
    }

    /// When half of its life is over.
    pub fn half_life(&self) -> Timestamp {
        self.not_before + self.expires_at.duration_since(self.not_before) / 2
    }

    /// All certificates one after the other, as the Workload API carries them.
    pub fn chain_der(&self) -> Bytes {
        self.chain.concat().into()
    }
}

/// When a certificate (DER) begins and ceases to be valid.
///
/// # Errors
/// [`CertificateError`] where this is no certificate.
pub fn validity(certificate: &[u8]) -> Result<(Timestamp, Timestamp), CertificateError> {
    let certificate = read::Certificate::read(certificate)?;
    Ok((certificate.not_before, certificate.not_after))
}

/// The id of an authority with this key (SubjectPublicKeyInfo, DER), as certificates that are made
/// here carry it: the SHA-1 hash of the key's bits in lower-case hexadecimal digits.
///
/// # Errors
/// [`CertificateError`] where this is no public key.
///
/// # Source
/// RFC 5280, 4.2.1.2, method 1.
pub fn authority_id(public_key: &[u8]) -> Result<String, CertificateError> {
    Ok(hex::encode(read::key_id(public_key)?))
}

/// Takes concatenated DER certificates apart.
///
/// # Errors
/// [`CertificateError`] where something else is among them.
pub fn split_chain(der: &[u8]) -> Result<Vec<Bytes>, CertificateError> {
    use ::der::{Reader, SliceReader};
    let mut rest = SliceReader::new(der)?;
    let mut chain = Vec::new();
    while !rest.is_finished() {
        let certificate = rest.tlv_bytes()?;
        read::Certificate::read(certificate)?;
        chain.push(Bytes::copy_from_slice(certificate));
    }
    Ok(chain)
}
