//! What certificates and requests have in common: a body, an algorithm, a signature.

use aws_lc_rs::rand;
use bytes::Bytes;
use der::asn1::BitStringRef;
use der::{Decode, Reader};

use super::der::{Writer, tag};
use super::{read, template};
use crate::keys::{KeyError, SigningKey};

/// Signs `body`, which is DER, and joins both.
pub(super) async fn seal(key: &dyn SigningKey, body: Vec<u8>) -> Result<Bytes, KeyError> {
    let signature = key.sign(&body).await?;
    let mut writer = Writer::with_capacity(body.len() + signature.len() + 32);
    writer.nested(tag::SEQUENCE, |parts| {
        parts.raw(&body);
        parts.value(tag::SEQUENCE, &template::signature_algorithm(key.public_key().kind));
        parts.bit_string(&signature);
    });
    Ok(writer.finish().into())
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The shape is wrong.
    Malformed(der::Error),
    /// Keys of this kind or size, or signatures of this kind, are not taken.
    Unsupported,
    /// The signature is not by this key.
    Signature,
}

impl From<der::Error> for Refusal {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error)
    }
}

/// Takes a signed thing apart: its body (DER), and a check of the signature by a key.
pub(super) struct Signed<'s> {
    pub(super) body: &'s [u8],
    algorithm: &'s [u8],
    signature: &'s [u8],
}

impl<'s> Signed<'s> {
    pub(super) fn read(der: &'s [u8]) -> der::Result<Self> {
        let mut parts = read::sequence(der)?;
        let body = parts.tlv_bytes()?;
        let algorithm = content(parts.tlv_bytes()?)?;
        let signature = BitStringRef::decode(&mut parts)?;
        let signature = signature.as_bytes().ok_or(der::ErrorKind::Failed)?;
        parts.finish()?;
        Ok(Self { body, algorithm, signature })
    }

    /// Whether the key in `spki` (SubjectPublicKeyInfo DER) signed the body: RSA of 2048 to 8192
    /// bits, P-256, P-384, P-521 or Ed25519.
    pub(super) fn verify(&self, spki: &[u8]) -> Result<(), Refusal> {
        let (key_algorithm, key) = read::key_parts(spki)?;
        let mut candidates = webpki::ALL_VERIFICATION_ALGS
            .iter()
            .filter(|candidate| {
                *candidate.signature_alg_id() == *self.algorithm
                    && *candidate.public_key_alg_id() == *key_algorithm
            })
            .peekable();
        if candidates.peek().is_none() {
            return Err(Refusal::Unsupported);
        }
        candidates
            .any(|candidate| candidate.verify_signature(key, self.body, self.signature).is_ok())
            .then_some(())
            .ok_or(Refusal::Signature)
    }
}

/// The content of a `SEQUENCE`, as `AlgorithmIdentifier` constants hold it.
fn content(tlv: &[u8]) -> der::Result<&[u8]> {
    let mut reader = read::sequence(tlv)?;
    let length = reader.remaining_len();
    reader.read_slice(length)
}

/// A random serial number, big-endian, not 0.
pub(super) fn random_serial() -> Result<[u8; 16], KeyError> {
    let mut serial = [0; 16];
    while serial == [0; 16] {
        rand::fill(&mut serial)
            .map_err(|_| KeyError::Unavailable("random source failed".into()))?;
    }
    Ok(serial)
}
