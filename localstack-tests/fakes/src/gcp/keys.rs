//! A key that signs tokens, with its certificate.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, PKCS_RSA_SHA256, PublicKeyData};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

/// An RSA key of 2048 bits. Cheap to clone.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    id: String,
    pair: KeyPair,
    pair_pem: String,
    public_der: Vec<u8>,
    certificate: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SigningKey({})", self.id())
    }
}

impl SigningKey {
    /// A new key.
    pub fn generate(id: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key is generated");
        let pkcs8 = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair);
        let pkcs8 = PrivatePkcs8KeyDer::from(pkcs8.expect("a key has a form").as_ref().to_vec());
        let certified = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_RSA_SHA256)
            .expect("the certificate's key is the same");
        let params = CertificateParams::new(vec!["federated-signon.example".to_owned()]);
        let certificate = params.and_then(|params| params.self_signed(&certified));
        let certificate = certificate.expect("a certificate is signed").pem();
        let public_der = certified.subject_public_key_info();
        let pair_pem = certified.serialize_pem();
        Self(Arc::new(Inner { id: id.to_owned(), pair, pair_pem, public_der, certificate }))
    }

    /// Its ID.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Its certificate in PEM.
    pub fn certificate(&self) -> &str {
        &self.0.certificate
    }

    /// The public key as SubjectPublicKeyInfo.
    pub fn public_der(&self) -> &[u8] {
        &self.0.public_der
    }

    /// The private key in PEM, for files with credentials.
    pub fn private_pem(&self) -> &str {
        &self.0.pair_pem
    }

    /// A token as Google writes it.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "RS256", "kid": self.id(), "typ": "JWT" });
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// A token with any header and claims, even such as are no JSON. It is signed as the header
    /// says, with RS256 unless it says RS384 or PS256.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let how: &dyn RsaEncoding = match header {
            header if header.contains("RS384") => &RSA_PKCS1_SHA384,
            header if header.contains("PS256") => &RSA_PSS_SHA256,
            _ => &RSA_PKCS1_SHA256,
        };
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.0.pair.public_modulus_len()];
        self.0
            .pair
            .sign(how, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .expect("a text is signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether this key has signed these bytes with RS256.
    pub(super) fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature::KeyPair as _;
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.0.pair.public_key());
        key.verify(bytes, signature).is_ok()
    }
}
