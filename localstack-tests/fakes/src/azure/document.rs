//! Attested documents: PKCS#7 messages of the shape that Azure gives them, and of others.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::asn1::{algorithm, parts, sequence, set, tlv};
use super::pki::Issued;

/// The content of the identifier of `sha256WithRSAEncryption`.
pub const RSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
/// That of `rsaEncryption`.
pub const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// That of SHA-256.
pub const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// That of SHA-1.
pub const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// That of MD5.
pub const MD5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x05];

const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// A message to be written.
#[derive(Debug, Clone)]
pub struct Message {
    /// What is signed; `None` leaves it out.
    pub content: Option<Vec<u8>>,
    /// Certificates, DER, in this order.
    pub certificates: Vec<Vec<u8>>,
    /// Who has signed.
    pub signers: Vec<SignerInfo>,
}

/// A signer to be written.
#[derive(Debug, Clone)]
pub struct SignerInfo {
    /// The certificate that is named, DER.
    pub certificate: Vec<u8>,
    /// The digest algorithm that is named: the content of its identifier.
    pub digest: Vec<u8>,
    /// The signature algorithm that is named: the content of its identifier.
    pub algorithm: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

impl SignerInfo {
    /// One that has signed `content` as Azure does: no attributes, and the name of a signature
    /// algorithm where that of a digest should be.
    pub fn of(signer: &Issued, content: &[u8]) -> Self {
        Self {
            certificate: signer.der.clone(),
            digest: RSA_WITH_SHA256.to_vec(),
            algorithm: RSA.to_vec(),
            signature: signer.sign(content),
        }
    }

    fn der(&self) -> Vec<u8> {
        let body = parts(&parts(&self.certificate)[0]);
        // The version, which may be left out, stands before the serial number.
        let at = usize::from(body[0][0] == 0xa0);
        let (serial, issuer) = (body[at].clone(), body[at + 2].clone());
        sequence(&[
            tlv(0x02, &[1]),
            sequence(&[issuer, serial]),
            algorithm(&self.digest),
            algorithm(&self.algorithm),
            tlv(0x04, &self.signature),
        ])
    }
}

impl Message {
    /// A message of the shape that Azure gives it: one certificate, one signer.
    pub fn signed_by(signer: &Issued, content: &[u8]) -> Self {
        Self {
            content: Some(content.to_vec()),
            certificates: vec![signer.der.clone()],
            signers: vec![SignerInfo::of(signer, content)],
        }
    }

    /// The message, DER.
    pub fn der(&self) -> Vec<u8> {
        let mut inner = vec![tlv(0x06, DATA)];
        inner.extend(self.content.as_ref().map(|content| tlv(0xa0, &tlv(0x04, content))));
        let digests: Vec<_> = self.signers.iter().map(|signer| algorithm(&signer.digest)).collect();
        let signers: Vec<_> = self.signers.iter().map(SignerInfo::der).collect();
        let mut signed = vec![tlv(0x02, &[1]), set(&digests), sequence(&inner)];
        if !self.certificates.is_empty() {
            signed.push(tlv(0xa0, &self.certificates.concat()));
        }
        signed.push(set(&signers));
        sequence(&[tlv(0x06, SIGNED_DATA), tlv(0xa0, &sequence(&signed))])
    }

    /// The message in base64, as metadata services give it.
    pub fn base64(&self) -> String {
        STANDARD.encode(self.der())
    }
}
