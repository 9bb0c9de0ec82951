//! Key managers: they make keys and sign; no private key leaves them.

pub mod disk;
mod local;
pub mod memory;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use der::pem::LineEnding;
use zeroize::Zeroizing;

pub use local::LocalKey;

/// The kinds of keys that authorities and SVIDs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 4096 bits.
    Rsa4096,
    /// NIST P-256.
    EcP256,
    /// NIST P-384.
    EcP384,
    /// NIST P-521, which only keys of upstream authorities have: none is made here.
    EcP521,
    /// RSA of another size from 2048 bits, which only keys of upstream authorities have: none is
    /// made here.
    OtherRsa,
}

/// A public key with its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// What kind of key it is.
    pub kind: KeyType,
    /// SubjectPublicKeyInfo, DER.
    pub spki: Bytes,
}

/// A private key (PKCS#8, DER) as a PEM block with its final newline.
pub fn private_key_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let text = der::pem::encode_string("PRIVATE KEY", LineEnding::LF, pkcs8);
    Zeroizing::new(text.expect("a slice in memory is shorter than what PEM can hold"))
}

/// Makes and keeps keys under ids.
#[async_trait]
pub trait KeyManager: Send + Sync {
    /// Makes a key; one that already has this id is replaced.
    ///
    /// # Errors
    /// [`KeyError`] where it could not be made or kept.
    async fn generate(&self, id: &str, kind: KeyType) -> Result<Arc<dyn SigningKey>, KeyError>;

    /// The key with this id, if there is one.
    ///
    /// # Errors
    /// [`KeyError`] where the keys could not be looked at.
    async fn key(&self, id: &str) -> Result<Option<Arc<dyn SigningKey>>, KeyError>;
}

/// A private key that can be used but not read.
///
/// The algorithm follows the key: ECDSA with SHA-256 on P-256, SHA-384 on P-384 and SHA-512 on
/// P-521 (ASN.1 signatures), PKCS#1 v1.5 with SHA-256 for RSA.
#[async_trait]
pub trait SigningKey: Send + Sync + fmt::Debug {
    /// Its public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message`. Fast keys sign in place, slow ones (RSA) off the async threads.
    ///
    /// # Errors
    /// [`KeyError`] where whoever holds the key could not sign.
    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// The key itself where it is in this process, so that TLS can sign without waiting.
    fn as_local(&self) -> Option<&LocalKey> {
        None
    }
}

/// Why a key could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key's file or service failed.
    #[error("{0}")]
    Unavailable(String),
    /// What is kept is no key.
    #[error("{0}")]
    Invalid(String),
}
