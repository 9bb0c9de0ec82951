//! The keys that an issuer publishes, by their IDs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

use super::json;
use crate::bundle::jwk;
use crate::svid::x509::read::Certificate;

/// Largest document of keys in bytes that is read.
pub const MAX_KEY_SET_BYTES: usize = 1 << 20;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Bytes);

impl PublicKey {
    /// The key in a SubjectPublicKeyInfo, DER.
    pub fn from_spki(spki: Bytes) -> Self {
        Self(spki)
    }

    pub(super) fn spki(&self) -> &[u8] {
        &self.0
    }
}

/// Keys by their IDs. An ID under which there are two keys is that of none.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, Option<PublicKey>>,
}

impl KeySet {
    /// Reads a JSON object of certificates in PEM by the IDs of their keys. Of a certificate
    /// nothing counts but the key; those that cannot be read are passed over.
    ///
    /// # Errors
    /// What is wrong with the document as a whole.
    pub fn from_certificates(document: &[u8]) -> Result<Self, String> {
        let mut set = Self::default();
        for (key_id, value) in json::members(bounded(document)?)? {
            if let Some(key) = value.as_str().and_then(key_of_certificate) {
                set.insert(key_id, key);
            }
        }
        Ok(set)
    }

    /// Reads a JWK set. Keys without an ID, for another use than signatures, and of kinds that are
    /// not understood, are passed over.
    ///
    /// # Errors
    /// What is wrong with the document as a whole.
    ///
    /// # Source
    /// RFC 7517, 5.
    pub fn from_jwks(document: &[u8]) -> Result<Self, String> {
        let mut members = json::object(bounded(document)?)?;
        let Some(Value::Array(keys)) = members.remove("keys") else {
            return Err("it has no list of keys".to_owned());
        };
        let mut set = Self::default();
        for key in keys {
            let text = |name: &str| key.get(name).and_then(Value::as_str);
            let signs = text("use").is_none_or(|usage| usage == "sig");
            let Some(key_id) = text("kid").filter(|_| signs) else { continue };
            if let Ok(Some(spki)) = jwk::spki_of(&key) {
                set.insert(key_id.to_owned(), PublicKey(spki));
            }
        }
        Ok(set)
    }

    fn insert(&mut self, key_id: String, key: PublicKey) {
        match self.keys.entry(key_id) {
            Entry::Vacant(place) => {
                place.insert(Some(key));
            }
            Entry::Occupied(mut place) => {
                if place.get().as_ref() != Some(&key) {
                    place.insert(None);
                }
            }
        }
    }

    /// The key of that ID.
    pub fn get(&self, key_id: &str) -> Option<&PublicKey> {
        self.keys.get(key_id)?.as_ref()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn bounded(document: &[u8]) -> Result<&[u8], String> {
    if document.len() > MAX_KEY_SET_BYTES {
        return Err(format!("it is longer than {MAX_KEY_SET_BYTES} bytes"));
    }
    Ok(document)
}

fn key_of_certificate(pem: &str) -> Option<PublicKey> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let certificate = Certificate::read(&der).ok()?;
    Some(PublicKey(Bytes::copy_from_slice(certificate.public_key)))
}
