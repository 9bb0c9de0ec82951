//! The algorithms that tokens are signed with: those with public keys, and no others.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};

use crate::svid::x509::read;

/// How a token is signed.
///
/// # Source
/// RFC 7518, 3.1, without what needs a shared secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `ES256`
    Es256,
    /// `ES384`
    Es384,
    /// `ES512`
    Es512,
    /// `RS256`
    Rs256,
    /// `RS384`
    Rs384,
    /// `RS512`
    Rs512,
    /// `PS256`
    Ps256,
    /// `PS384`
    Ps384,
    /// `PS512`
    Ps512,
}

/// A signature that is not by the key.
#[derive(Debug)]
pub(crate) struct BadSignature;

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    /// The one of `allowed` that a header names, spelled exactly so.
    pub fn named(name: &str, allowed: &[Self]) -> Option<Self> {
        allowed.iter().copied().find(|algorithm| algorithm.name() == name)
    }

    /// Checks a signature by the key in a SubjectPublicKeyInfo, which must be of the kind that the
    /// algorithm needs.
    pub(crate) fn verify(
        self,
        spki: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let (key_kind, verification) = self.parts();
        let (kind, bits) = read::key_parts(spki).map_err(|_| BadSignature)?;
        if *kind != *key_kind {
            return Err(BadSignature);
        }
        let key = UnparsedPublicKey::new(verification, bits);
        key.verify(message, signature).map_err(|_| BadSignature)
    }

    fn parts(self) -> (AlgorithmIdentifier, &'static dyn VerificationAlgorithm) {
        match self {
            Self::Es256 => (alg_id::ECDSA_P256, &ECDSA_P256_SHA256_FIXED),
            Self::Es384 => (alg_id::ECDSA_P384, &ECDSA_P384_SHA384_FIXED),
            Self::Es512 => (alg_id::ECDSA_P521, &ECDSA_P521_SHA512_FIXED),
            Self::Rs256 => (alg_id::RSA_ENCRYPTION, &RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => (alg_id::RSA_ENCRYPTION, &RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => (alg_id::RSA_ENCRYPTION, &RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => (alg_id::RSA_ENCRYPTION, &RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => (alg_id::RSA_ENCRYPTION, &RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => (alg_id::RSA_ENCRYPTION, &RSA_PSS_2048_8192_SHA512),
        }
    }
}
