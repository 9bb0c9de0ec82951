//! Private keys in this process.

use std::fmt;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{KeyError, KeyType, PublicKey, SigningKey};

/// A private key in memory. Cheap to clone; wiped when the last clone goes.
#[derive(Clone)]
pub struct LocalKey {
    public: PublicKey,
}

impl LocalKey {
    /// Makes a key. RSA takes up to seconds: call it off the async threads, or use
    /// [`LocalKey::generate`].
    ///
    /// # Errors
    /// [`KeyError`] where the random source fails or nobody makes such keys.
    pub fn generate_blocking(kind: KeyType) -> Result<Self, KeyError> {
        let _ = kind;
        todo!()
    }

    /// Makes a key, RSA off the async threads.
    ///
    /// # Errors
    /// [`KeyError`] where the random source fails or nobody makes such keys.
    pub async fn generate(kind: KeyType) -> Result<Self, KeyError> {
        let _ = kind;
        todo!()
    }

    /// Reads a key: PKCS#8 DER.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where it is none, or of a kind that is not used.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let _ = der;
        todo!()
    }

    /// Reads a key from the first private key block of a PEM text: PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where there is none, or of a kind that is not used.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let _ = text;
        todo!()
    }

    /// The key as PKCS#8 DER, unencrypted.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        todo!()
    }

    /// Signs `message` on this thread.
    ///
    /// # Errors
    /// [`KeyError`] where the random source fails.
    pub fn sign_blocking(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let _ = message;
        todo!()
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LocalKey({:?})", self.public.kind)
    }
}

#[async_trait]
impl SigningKey for LocalKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sign_blocking(message)
    }
}
