//! The private key whose possession is proven.
//!
//! Every key signs a SHA-256 digest, whatever its size, which the scheme prescribes.

use aws_lc_rs::digest::{Digest, SHA256, SHA384, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, RSA_PSS_SHA256,
    RsaPssSaltLength, RsaSignatureEncoding,
};
use rustls_pki_types::PrivateKeyDer;

const CURVES: [&EcdsaSigningAlgorithm; 3] = [
    &ECDSA_P256_SHA256_FIXED_SIGNING,
    &ECDSA_P384_SHA384_FIXED_SIGNING,
    &ECDSA_P521_SHA256_FIXED_SIGNING,
];

/// The longest possible salt, as agents have always sent it.
static RSA_PSS: RsaSignatureEncoding = RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// The key has no form that can be used.
#[derive(Debug, thiserror::Error)]
#[error("only RSA keys and ECDSA keys on P-256, P-384 and P-521 are supported")]
pub(super) struct UnsupportedKey;

pub(super) enum PossessedKey {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

pub(super) enum Signature {
    Rsa(Vec<u8>),
    /// Numbers, big-endian without leading zeros.
    Ecdsa {
        r: Vec<u8>,
        s: Vec<u8>,
    },
}

impl PossessedKey {
    pub(super) fn read(key: &PrivateKeyDer<'_>) -> Result<Self, UnsupportedKey> {
        let rsa = match key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        if let Some(key) = rsa {
            return Ok(Self::Rsa(key));
        }
        let der = key.secret_der();
        CURVES
            .into_iter()
            .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())
            .map(Self::Ecdsa)
            .ok_or(UnsupportedKey)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Signature, Unspecified> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PSS, &SystemRandom::new(), message, &mut signature)?;
                Ok(Signature::Rsa(signature))
            }
            Self::Ecdsa(key) => {
                let signature = key.sign_digest(&sha256_for(key.algorithm(), message)?)?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                Ok(Signature::Ecdsa { r: without_zeros(r), s: without_zeros(s) })
            }
        }
    }
}

/// The SHA-256 of `message` as a digest that keys on this curve sign. On P-384 the library takes
/// 48 bytes only; zeros in front leave the number that ECDSA signs as it is.
fn sha256_for(curve: &EcdsaSigningAlgorithm, message: &[u8]) -> Result<Digest, Unspecified> {
    let hash = digest(&SHA256, message);
    if *curve != ECDSA_P384_SHA384_FIXED_SIGNING {
        return Ok(hash);
    }
    let mut padded = [0; 48];
    padded[16..].copy_from_slice(hash.as_ref());
    Digest::import_less_safe(&padded, &SHA384)
}

fn without_zeros(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}
