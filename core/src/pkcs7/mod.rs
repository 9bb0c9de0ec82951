//! Signed messages in the form PKCS#7 SignedData, with which clouds vouch for their machines.
//!
//! Read is what clouds write: one signer, named by issuer and serial number, who has signed with
//! RSA and SHA-256 what the message itself holds. Everything else is refused. Whose key it must be
//! and whether that signer is to be believed is for the caller to know; certificates of a message
//! are handed out as they are and prove nothing.
//!
//! # Source
//! RFC 2315, 9; RFC 5652, 5; the encoding is X.690, 8, with lengths as short as in 10.1.

mod ber;
mod verify;

use std::borrow::Cow;

use const_oid::ObjectIdentifier;

use ber::Reader;
pub use verify::Attributes;

/// Largest message in bytes that is read.
pub const MAX_BYTES: usize = 64 << 10;
/// Most certificates in a message.
const MAX_CERTIFICATES: usize = 16;
/// Most algorithms, signers or signed attributes in a message.
const MAX_ITEMS: usize = 16;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");

/// A message as it was read. Nothing of it is proven but what
/// [`verified_content`](Self::verified_content) returns.
#[derive(Debug, Clone)]
pub struct SignedData<'a> {
    content: Cow<'a, [u8]>,
    certificates: Vec<&'a [u8]>,
    digest_algorithms: Vec<ObjectIdentifier>,
    signer: Signer<'a>,
}

/// Who has signed a message, and how.
#[derive(Debug, Clone)]
pub struct Signer<'a> {
    /// The issuer of the signer's certificate, DER.
    pub issuer: &'a [u8],
    /// The serial number of the signer's certificate: the contents of its INTEGER.
    pub serial: &'a [u8],
    digest_algorithm: ObjectIdentifier,
    signed_attributes: Option<&'a [u8]>,
    signature_algorithm: ObjectIdentifier,
    signature: &'a [u8],
}

/// Why a message is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs7Error {
    /// It is not encoded as such a message.
    #[error("malformed PKCS#7 message: {0}")]
    Shape(&'static str),
    /// It is of another kind, or holds something other than plain data.
    #[error("the PKCS#7 message does not hold signed data")]
    Kind,
    /// It is a signature alone.
    #[error("the PKCS#7 message holds no content")]
    Detached,
    /// A message has exactly one signer.
    #[error("the PKCS#7 message has {0} signers instead of one")]
    Signers(usize),
    /// An algorithm is not one that is taken.
    #[error("the PKCS#7 message uses the algorithm {0}; only RSA with SHA-256 is supported")]
    Algorithm(ObjectIdentifier),
    /// The attributes that are signed in place of the content are not as they must be.
    #[error("signed attributes of the PKCS#7 message: {0}")]
    Attributes(&'static str),
    /// What is signed is the digest of something else.
    #[error("the signed digest is not that of the content")]
    Digest,
    /// The key has not made the signature.
    #[error("the signature does not hold")]
    Signature,
}

impl<'a> SignedData<'a> {
    /// Reads a message, in DER or in BER as far as the module says.
    ///
    /// # Errors
    /// [`Pkcs7Error`] where it is not such a message, or has none or several signers.
    pub fn parse(message: &'a [u8]) -> Result<Self, Pkcs7Error> {
        if message.len() > MAX_BYTES {
            return Err(Pkcs7Error::Shape("it is too large"));
        }
        let mut reader = Reader::new(message);
        let signed = reader.inside(ber::SEQUENCE, |outer| {
            if oid(outer)? != SIGNED_DATA {
                return Err(Pkcs7Error::Kind);
            }
            outer.inside(ber::CONTEXT_0, |outer| outer.inside(ber::SEQUENCE, Self::read))
        })?;
        reader.finish()?;
        Ok(signed)
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Pkcs7Error> {
        version_1(reader)?;
        let digest_algorithms = all(reader, ber::SET, MAX_ITEMS, algorithm)?;
        let content = reader.inside(ber::SEQUENCE, |reader| {
            if oid(reader)? != DATA {
                return Err(Pkcs7Error::Kind);
            }
            if reader.at_end() {
                return Err(Pkcs7Error::Detached);
            }
            reader.inside(ber::CONTEXT_0, Reader::octets)
        })?;
        let certificates = match reader.comes(ber::CONTEXT_0) {
            true => all(reader, ber::CONTEXT_0, MAX_CERTIFICATES, |one| one.whole(ber::SEQUENCE))?,
            false => Vec::new(),
        };
        let mut signers = all(reader, ber::SET, MAX_ITEMS, Signer::read)?;
        match (signers.pop(), signers.len()) {
            (Some(signer), 0) => Ok(Self { content, certificates, digest_algorithms, signer }),
            (None, _) => Err(Pkcs7Error::Signers(0)),
            (Some(_), others) => Err(Pkcs7Error::Signers(others + 1)),
        }
    }

    /// The certificates that came with the message, DER, in their order.
    pub fn certificates(&self) -> &[&'a [u8]] {
        &self.certificates
    }

    /// What the message holds, proven or not: for a line in the log, and for nothing that is
    /// decided.
    pub fn unverified_content(&self) -> &[u8] {
        &self.content
    }

    /// Whom the message names as its signer.
    pub fn signer(&self) -> &Signer<'a> {
        &self.signer
    }
}

impl<'a> Signer<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Pkcs7Error> {
        reader.inside(ber::SEQUENCE, |reader| {
            version_1(reader)?;
            let (issuer, serial) = reader.inside(ber::SEQUENCE, |name| {
                Ok((name.whole(ber::SEQUENCE)?, name.contents(ber::INTEGER)?))
            })?;
            let digest_algorithm = algorithm(reader)?;
            let signed_attributes = match reader.comes(ber::CONTEXT_0) {
                true => Some(reader.whole(ber::CONTEXT_0)?),
                false => None,
            };
            let signature_algorithm = algorithm(reader)?;
            let signature = reader.contents(ber::OCTETS)?;
            Ok(Self {
                issuer,
                serial,
                digest_algorithm,
                signed_attributes,
                signature_algorithm,
                signature,
            })
        })
    }
}

/// Version 1, of messages that hold plain data and of signers named by issuer and serial number.
fn version_1(reader: &mut Reader<'_>) -> Result<(), Pkcs7Error> {
    match reader.contents(ber::INTEGER)? {
        [1] => Ok(()),
        _ => Err(Pkcs7Error::Shape("its version is not 1")),
    }
}

fn oid(reader: &mut Reader<'_>) -> Result<ObjectIdentifier, Pkcs7Error> {
    let contents = reader.contents(ber::OID)?;
    ObjectIdentifier::from_bytes(contents)
        .map_err(|_| Pkcs7Error::Shape("an object identifier cannot be read"))
}

/// An algorithm, whose parameters are absent or NULL.
fn algorithm(reader: &mut Reader<'_>) -> Result<ObjectIdentifier, Pkcs7Error> {
    reader.inside(ber::SEQUENCE, |reader| {
        let algorithm = oid(reader)?;
        if !reader.at_end() && !reader.contents(ber::NULL)?.is_empty() {
            return Err(Pkcs7Error::Shape("NULL holds something"));
        }
        Ok(algorithm)
    })
}

/// All elements of a collection, up to `most`.
fn all<'a, T>(
    reader: &mut Reader<'a>,
    tag: u8,
    most: usize,
    read: impl Fn(&mut Reader<'a>) -> Result<T, Pkcs7Error>,
) -> Result<Vec<T>, Pkcs7Error> {
    reader.inside(tag, |reader| {
        let mut items = Vec::new();
        while !reader.at_end() {
            if items.len() == most {
                return Err(Pkcs7Error::Shape("it holds too many elements of a kind"));
            }
            items.push(read(reader)?);
        }
        Ok(items)
    })
}
