//! Private keys in this process.

use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair,
};
use bytes::Bytes;
use const_oid::db::rfc8410::ID_ED_25519;
use der::{Decode, Reader, SliceReader};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use spki::AlgorithmIdentifierRef;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{KeyError, KeyType, PublicKey, SigningKey};

/// A private key in memory. Cheap to clone; wiped when the last clone goes.
#[derive(Clone)]
pub struct LocalKey(Arc<Inner>);

struct Inner {
    public: PublicKey,
    pair: Pair,
}

/// Both kinds wipe their memory when they are freed.
enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

const CURVES: [(KeyType, &EcdsaSigningAlgorithm); 3] = [
    (KeyType::EcP256, &ECDSA_P256_SHA256_ASN1_SIGNING),
    (KeyType::EcP384, &ECDSA_P384_SHA384_ASN1_SIGNING),
    (KeyType::EcP521, &ECDSA_P521_SHA512_ASN1_SIGNING),
];

impl LocalKey {
    /// Makes a key on this thread. RSA takes up to seconds: [`LocalKey::generate`] waits
    /// elsewhere.
    ///
    /// # Errors
    /// [`KeyError`] where the random source fails, or for a kind that is never made.
    pub fn generate_blocking(kind: KeyType) -> Result<Self, KeyError> {
        let pair = match kind {
            KeyType::EcP256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Pair::Ec)
            }
            KeyType::EcP384 => {
                EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Pair::Ec)
            }
            KeyType::Rsa2048 => RsaKeyPair::generate(KeySize::Rsa2048).map(Pair::Rsa),
            KeyType::Rsa4096 => RsaKeyPair::generate(KeySize::Rsa4096).map(Pair::Rsa),
            KeyType::EcP521 | KeyType::OtherRsa => {
                return Err(KeyError::Invalid(format!("keys of type {kind:?} are not generated")));
            }
        };
        let pair = pair.map_err(|_| KeyError::Unavailable("key could not be generated".into()))?;
        Self::from_pair(kind, pair)
    }

    /// Makes a key, RSA off the async threads.
    ///
    /// # Errors
    /// As [`LocalKey::generate_blocking`].
    pub async fn generate(kind: KeyType) -> Result<Self, KeyError> {
        match kind {
            KeyType::EcP256 | KeyType::EcP384 => Self::generate_blocking(kind),
            _ => off_thread(move || Self::generate_blocking(kind)).await,
        }
    }

    /// Reads a key: PKCS#8 DER.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where it is none, or of a kind that is not used.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        for (kind, curve) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve, der) {
                return Self::from_pair(kind, Pair::Ec(pair));
            }
        }
        match RsaKeyPair::from_pkcs8(der) {
            Ok(pair) => Self::from_rsa(pair),
            Err(_) if is_ed25519(der) => {
                Err(KeyError::Invalid("unsupported private key type ed25519.PrivateKey".into()))
            }
            Err(_) => Err(KeyError::Invalid(
                "no usable private key: RSA of 2048 to 8192 bits, P-256, P-384 or P-521 in PKCS#8 \
                 is expected"
                    .into(),
            )),
        }
    }

    /// Reads the first private key of a PEM text: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) or SEC 1
    /// (`EC PRIVATE KEY`).
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where there is none, or one of a kind that is not used.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let invalid = |reason: &str| KeyError::Invalid(reason.into());
        match PrivateKeyDer::from_pem_slice(text) {
            Ok(PrivateKeyDer::Pkcs8(der)) => Self::from_pkcs8(der.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der())
                .map_err(|_| invalid("RSA private key is malformed, or not of 2048 to 8192 bits"))
                .and_then(Self::from_rsa),
            Ok(PrivateKeyDer::Sec1(der)) => CURVES
                .into_iter()
                .find_map(|(kind, curve)| {
                    let pair = EcdsaKeyPair::from_private_key_der(curve, der.secret_sec1_der());
                    pair.ok().map(|pair| Self::from_pair(kind, Pair::Ec(pair)))
                })
                .unwrap_or_else(|| {
                    Err(invalid("EC private key is malformed, or not on P-256, P-384 or P-521"))
                }),
            Ok(_) => Err(invalid("private key is neither PKCS#8, PKCS#1 nor SEC 1")),
            Err(_) => Err(invalid("no PEM block with an unencrypted private key")),
        }
    }

    /// The key as PKCS#8 DER, unencrypted.
    ///
    /// # Errors
    /// [`KeyError`] where memory fails.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let der = match &self.0.pair {
            Pair::Ec(pair) => pair.to_pkcs8v1().map(|der| Zeroizing::new(der.as_ref().to_vec())),
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair)
                .map(|der| Zeroizing::new(der.as_ref().to_vec())),
        };
        der.map_err(|_| KeyError::Unavailable("private key could not be encoded".into()))
    }

    /// Signs `message` on this thread, by the algorithm that [`SigningKey`] names.
    ///
    /// # Errors
    /// [`KeyError`] where the random source fails.
    pub fn sign_blocking(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.0.pair {
            Pair::Ec(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::Unavailable("ECDSA signature failed".into())),
            Pair::Rsa(pair) => sign_rsa(pair, &RSA_PKCS1_SHA256, message),
        }
    }

    /// Signs `message` with RSASSA-PSS and SHA-256 on this thread, as TLS 1.3 wants it of RSA keys.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] where this is no RSA key.
    pub fn sign_pss_blocking(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.0.pair {
            Pair::Ec(_) => Err(KeyError::Invalid("an EC key makes no RSA signature".into())),
            Pair::Rsa(pair) => sign_rsa(pair, &RSA_PSS_SHA256, message),
        }
    }

    fn from_rsa(pair: RsaKeyPair) -> Result<Self, KeyError> {
        let kind = match pair.public_modulus_len() {
            256 => KeyType::Rsa2048,
            512 => KeyType::Rsa4096,
            _ => KeyType::OtherRsa,
        };
        Self::from_pair(kind, Pair::Rsa(pair))
    }

    fn from_pair(kind: KeyType, pair: Pair) -> Result<Self, KeyError> {
        let spki = match &pair {
            Pair::Ec(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()),
            Pair::Rsa(pair) => AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()),
        };
        let spki = spki.map_err(|_| KeyError::Invalid("public key cannot be encoded".into()))?;
        let public = PublicKey { kind, spki: Bytes::copy_from_slice(spki.as_ref()) };
        Ok(Self(Arc::new(Inner { public, pair })))
    }
}

fn sign_rsa(
    pair: &RsaKeyPair,
    padding: &'static dyn RsaEncoding,
    message: &[u8],
) -> Result<Vec<u8>, KeyError> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature)
        .map_err(|_| KeyError::Unavailable("RSA signature failed".into()))?;
    Ok(signature)
}

fn is_ed25519(pkcs8: &[u8]) -> bool {
    let algorithm = || -> der::Result<_> {
        let mut reader = SliceReader::new(der::asn1::AnyRef::from_der(pkcs8)?.value())?;
        reader.tlv_bytes()?; // version
        Ok(AlgorithmIdentifierRef::decode(&mut reader)?.oid)
    };
    algorithm().is_ok_and(|oid| oid == ID_ED_25519)
}

/// Signatures that take milliseconds leave one processor to everyone else.
static SLOW_SIGNERS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new(processors.saturating_sub(1).max(1))
});

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(KeyError::Unavailable("the process is stopping".into())),
    }
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LocalKey({:?})", self.0.public.kind)
    }
}

#[async_trait]
impl SigningKey for LocalKey {
    fn public_key(&self) -> &PublicKey {
        &self.0.public
    }

    async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.0.pair {
            Pair::Ec(_) => self.sign_blocking(message),
            Pair::Rsa(_) => {
                let (key, message) = (self.clone(), message.to_vec());
                let _turn = SLOW_SIGNERS.acquire().await;
                off_thread(move || key.sign_blocking(&message)).await
            }
        }
    }

    fn as_local(&self) -> Option<&LocalKey> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [KeyType; 3] = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048];

    #[tokio::test]
    async fn a_key_survives_pkcs8() {
        for kind in KINDS {
            let key = LocalKey::generate(kind).await.unwrap();
            let same = LocalKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
            assert_eq!(key.public_key(), same.public_key());
            assert_eq!(key.public_key().kind, kind);
            assert!(!same.sign(b"message").await.unwrap().is_empty());
        }
    }

    #[test]
    fn what_openssl_wrote_is_read_in_every_form() {
        let cases = [
            ("ecparam -genkey -noout -name prime256v1", KeyType::EcP256),
            ("ecparam -genkey -noout -name secp384r1", KeyType::EcP384),
            ("ecparam -genkey -noout -name secp521r1", KeyType::EcP521),
            ("genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-521", KeyType::EcP521),
            ("genrsa -traditional 2048", KeyType::Rsa2048),
            ("genrsa 3072", KeyType::OtherRsa),
        ];
        for (arguments, kind) in cases {
            let output = std::process::Command::new("openssl")
                .args(arguments.split(' '))
                .output()
                .expect("openssl is part of a test machine");
            let key = LocalKey::from_pem(&output.stdout).expect(arguments);
            assert_eq!(key.public_key().kind, kind, "{arguments}");
            assert!(!key.sign_blocking(b"message").unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_no_usable_key_is_refused() {
        let output = std::process::Command::new("openssl")
            .args(["genpkey", "-algorithm", "ed25519"])
            .output()
            .expect("openssl is part of a test machine");
        let refusal = LocalKey::from_pem(&output.stdout).unwrap_err().to_string();
        assert_eq!(refusal, "unsupported private key type ed25519.PrivateKey");
        assert!(LocalKey::from_pem(b"").is_err());
        assert!(LocalKey::from_pkcs8(b"\x30\x03\x02\x01\x00").is_err());
        assert!(LocalKey::generate_blocking(KeyType::EcP521).is_err());
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        assert_eq!(format!("{key:?}"), "LocalKey(EcP256)");
    }
}
