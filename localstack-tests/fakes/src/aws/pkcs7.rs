//! Signed messages as EC2 writes them, and as it never would.

use aws_lc_rs::digest::{SHA256, digest};

/// `id-data`.
pub const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// `id-signedData`.
pub const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
/// `id-envelopedData`.
pub const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
/// SHA-256.
pub const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
/// SHA-1.
pub const SHA_1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
/// MD5.
pub const MD5: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5];
/// `sha256WithRSAEncryption`.
pub const RSA_WITH_SHA_256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
/// `contentType`.
pub const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
/// `messageDigest`.
pub const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
/// `signingTime`.
pub const SIGNING_TIME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 5];

/// Signs bytes with RSA PKCS#1 v1.5 and SHA-256.
pub type Sign<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// A message in the making. As it is made it is what EC2 writes; each field may be changed.
#[derive(Debug, Clone)]
pub struct Message {
    /// The kind of the whole.
    pub kind: Vec<u8>,
    /// The version of the signed data.
    pub version: u8,
    /// The algorithms that the message names ahead, as object identifiers.
    pub digest_algorithms: Vec<Vec<u8>>,
    /// What is signed; `None` in a detached signature.
    pub content: Option<Vec<u8>>,
    /// Certificates, DER.
    pub certificates: Vec<Vec<u8>>,
    /// The signers, encoded.
    pub signers: Vec<Vec<u8>>,
    /// Whether lengths are written after their parts, as EC2 does.
    pub indefinite: bool,
}

/// A signer in the making.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The issuer of its certificate, DER.
    pub issuer: Vec<u8>,
    /// The serial number of its certificate: the contents of the INTEGER.
    pub serial: Vec<u8>,
    /// The object identifier of the digest.
    pub digest_algorithm: Vec<u8>,
    /// Signed attributes, encoded, in the order in which they are written; `None` where the
    /// content itself is signed.
    pub attributes: Option<Vec<Vec<u8>>>,
    /// The object identifier of the signature.
    pub signature_algorithm: Vec<u8>,
}

impl Message {
    /// A message over `content` by one signer.
    pub fn new(content: &[u8], signer: &Signer, sign: Sign<'_>) -> Self {
        Self {
            kind: SIGNED_DATA.to_vec(),
            version: 1,
            digest_algorithms: vec![signer.digest_algorithm.clone()],
            content: Some(content.to_vec()),
            certificates: Vec::new(),
            signers: vec![signer.encode(content, sign)],
            indefinite: true,
        }
    }

    /// The message as it travels.
    pub fn encode(&self) -> Vec<u8> {
        let part = |tag: u8, contents: &[u8]| match self.indefinite {
            true => [&[tag, 0x80], contents, &[0, 0]].concat(),
            false => element(tag, contents),
        };
        let algorithms: Vec<_> =
            self.digest_algorithms.iter().map(|oid| element(0x30, &element(0x06, oid))).collect();
        let mut content = element(0x06, DATA);
        if let Some(octets) = &self.content {
            let octets = match self.indefinite {
                true => part(0x24, &element(0x04, octets)),
                false => element(0x04, octets),
            };
            content.extend(part(0xa0, &octets));
        }
        let mut signed = element(0x02, &[self.version]);
        signed.extend(element(0x31, &algorithms.concat()));
        signed.extend(part(0x30, &content));
        if !self.certificates.is_empty() {
            signed.extend(element(0xa0, &self.certificates.concat()));
        }
        signed.extend(element(0x31, &self.signers.concat()));
        let outer = [element(0x06, &self.kind), part(0xa0, &part(0x30, &signed))].concat();
        part(0x30, &outer)
    }
}

impl Signer {
    /// The holder of the certificate with this issuer and serial number, who signs the usual
    /// attributes of `content`.
    pub fn new(issuer: &[u8], serial: &[u8], content: &[u8]) -> Self {
        Self {
            issuer: issuer.to_vec(),
            serial: serial.to_vec(),
            digest_algorithm: SHA_256.to_vec(),
            attributes: Some(attributes(content)),
            signature_algorithm: RSA_WITH_SHA_256.to_vec(),
        }
    }

    /// The signer as it stands in a message, signing its attributes or, where it has none,
    /// `content`.
    pub fn encode(&self, content: &[u8], sign: Sign<'_>) -> Vec<u8> {
        let signature = match &self.attributes {
            Some(attributes) => sign(&element(0x31, &attributes.concat())),
            None => sign(content),
        };
        self.with_signature(&signature)
    }

    /// The signer with a signature made elsewhere.
    pub fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        let name = [self.issuer.clone(), element(0x02, &self.serial)].concat();
        let mut signer = element(0x02, &[1]);
        signer.extend(element(0x30, &name));
        signer.extend(element(0x30, &element(0x06, &self.digest_algorithm)));
        if let Some(attributes) = &self.attributes {
            signer.extend(element(0xa0, &attributes.concat()));
        }
        let algorithm = [element(0x06, &self.signature_algorithm), element(0x05, &[])].concat();
        signer.extend(element(0x30, &algorithm));
        signer.extend(element(0x04, signature));
        element(0x30, &signer)
    }
}

/// The usual signed attributes of `content`, in order.
pub fn attributes(content: &[u8]) -> Vec<Vec<u8>> {
    vec![
        attribute(CONTENT_TYPE, &[element(0x06, DATA)]),
        attribute(SIGNING_TIME, &[element(0x17, b"260216003828Z")]),
        attribute(MESSAGE_DIGEST, &[element(0x04, digest(&SHA256, content).as_ref())]),
    ]
}

/// An attribute with its values, each encoded.
pub fn attribute(kind: &[u8], values: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &[element(0x06, kind), element(0x31, &values.concat())].concat())
}

/// An element of definite length.
pub fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    match contents.len() {
        short @ 0..=0x7f => element.push(short as u8),
        long => {
            let digits: Vec<u8> =
                long.to_be_bytes().into_iter().skip_while(|digit| *digit == 0).collect();
            element.push(0x80 | digits.len() as u8);
            element.extend(digits);
        }
    }
    element.extend_from_slice(contents);
    element
}
