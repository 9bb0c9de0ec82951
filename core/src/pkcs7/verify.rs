//! What a signer's key has signed.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use const_oid::ObjectIdentifier;

use super::ber::{self, Reader};
use super::{DATA, MAX_ITEMS, Pkcs7Error, SignedData, Signer, all, oid};

const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Also found where a digest is to be named.
const RSA_WITH_SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// Whether the signature is over attributes, of which one is the content's digest, or over the
/// content itself. Who signs does always the one or always the other. To take both would let
/// anyone show the signed attributes as if they were content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// The signature is over attributes.
    Required,
    /// The signature is over the content.
    Forbidden,
}

impl SignedData<'_> {
    /// The content, provided that the holder of an RSA key of 2048 bits or more has signed it with
    /// SHA-256. `public_key` is a SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// [`Pkcs7Error`] says what does not hold.
    pub fn verified_content(
        &self,
        public_key: &[u8],
        attributes: Attributes,
    ) -> Result<&[u8], Pkcs7Error> {
        let signer = &self.signer;
        check_algorithm(signer.digest_algorithm, &[SHA_256, RSA_WITH_SHA_256])?;
        check_algorithm(signer.signature_algorithm, &[RSA, RSA_WITH_SHA_256])?;
        if !self.digest_algorithms.contains(&signer.digest_algorithm) {
            return Err(Pkcs7Error::Algorithm(signer.digest_algorithm));
        }
        match (signer.signed_attributes, attributes) {
            (Some(signed), Attributes::Required) => {
                check_attributes(signed, &self.content)?;
                signer.check_signature(public_key, &as_set(signed))?;
            }
            (None, Attributes::Forbidden) => signer.check_signature(public_key, &self.content)?,
            (Some(_), Attributes::Forbidden) => {
                return Err(Pkcs7Error::Attributes("there must be none"));
            }
            (None, Attributes::Required) => {
                return Err(Pkcs7Error::Attributes("there are none"));
            }
        }
        Ok(&self.content)
    }
}

impl Signer<'_> {
    fn check_signature(&self, public_key: &[u8], signed: &[u8]) -> Result<(), Pkcs7Error> {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key)
            .verify(signed, self.signature)
            .map_err(|_| Pkcs7Error::Signature)
    }
}

fn check_algorithm(found: ObjectIdentifier, taken: &[ObjectIdentifier]) -> Result<(), Pkcs7Error> {
    if taken.contains(&found) { Ok(()) } else { Err(Pkcs7Error::Algorithm(found)) }
}

/// The attributes as they were signed: as a SET, which their tag in the message stands for.
fn as_set(attributes: &[u8]) -> Vec<u8> {
    [&[ber::SET], &attributes[1..]].concat()
}

/// Makes sure that the attributes are in the one form in which they can be signed, each of them
/// there once, and that they speak of this content.
fn check_attributes(attributes: &[u8], content: &[u8]) -> Result<(), Pkcs7Error> {
    let mut reader = Reader::new(attributes);
    let attributes = all(&mut reader, ber::CONTEXT_0, MAX_ITEMS, |one| one.whole(ber::SEQUENCE))?;
    if !attributes.is_sorted_by(|one, next| one < next) {
        return Err(Pkcs7Error::Attributes("they are not in the order of DER"));
    }
    let mut content_type = None;
    let mut message_digest = None;
    for attribute in attributes {
        let (kind, values) = Reader::new(attribute)
            .inside(ber::SEQUENCE, |one| Ok((oid(one)?, one.contents(ber::SET)?)))?;
        let place = match kind {
            CONTENT_TYPE => &mut content_type,
            MESSAGE_DIGEST => &mut message_digest,
            _ => continue,
        };
        if place.replace(values).is_some() {
            return Err(Pkcs7Error::Attributes("one is there twice"));
        }
    }
    let content_type = content_type.ok_or(Pkcs7Error::Attributes("no content type"))?;
    if single(content_type, ber::OID)? != DATA.as_bytes() {
        return Err(Pkcs7Error::Attributes("the content type is not that of the content"));
    }
    let message_digest = message_digest.ok_or(Pkcs7Error::Attributes("no message digest"))?;
    if single(message_digest, ber::OCTETS)? != digest(&SHA256, content).as_ref() {
        return Err(Pkcs7Error::Digest);
    }
    Ok(())
}

/// The contents of the only value of an attribute.
fn single(values: &[u8], tag: u8) -> Result<&[u8], Pkcs7Error> {
    let mut reader = Reader::new(values);
    let value = reader.contents(tag)?;
    if reader.at_end() { Ok(value) } else { Err(Pkcs7Error::Attributes("one has several values")) }
}
