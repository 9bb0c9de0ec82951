//! Tokens of foreign issuers: what is taken, what is refused, and how often keys are fetched.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod keys;
mod tokens;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use spire_core::clock::Clock;
use spire_core::jws::{
    Algorithm, Claims, Fetched, Jws, JwsError, KeyCache, KeySet, KeySource, PublicKey,
};
use spire_fakes::time::shortest;

/// Who signs with RSA.
struct Issuer(RsaKeyPair);

impl Issuer {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn key(&self) -> PublicKey {
        let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(self.0.public_key());
        PublicKey::from_spki(Bytes::copy_from_slice(spki.unwrap().as_ref()))
    }

    fn jwk(&self, key_id: &str) -> Value {
        let public = self.0.public_key();
        json!({
            "kty": "RSA",
            "kid": key_id,
            "use": "sig",
            "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
            "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
        })
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        self.sign_as(&RSA_PKCS1_SHA256, header, claims)
    }

    fn sign_as(&self, how: &'static dyn RsaEncoding, header: &str, claims: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(how, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

const HEADER: &str = r#"{"alg":"RS256","kid":"one","typ":"JWT"}"#;
const CLAIMS: &str = r#"{"sub":"someone"}"#;

fn check(token: &[u8], key: &PublicKey) -> Result<Claims, JwsError> {
    Jws::parse(token, &[Algorithm::Rs256])?.verify(key)
}

/// The longest tokens and sets of keys that are looked into, and longer ones.
#[tokio::test]
async fn a_megabyte_takes_a_tenth_of_a_second_at_most() {
    let limit = Duration::from_millis(100);
    // Keys are their issuer's word, not a stranger's, and this program may not be optimised.
    let for_keys = if cfg!(debug_assertions) { limit * 10 } else { limit };
    let key = Issuer::new().key();
    let megabyte = |part: &str| part.repeat((1 << 20) / part.len());
    let deep = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":{}", "[".repeat(40_000)));
    let many = format!("{{\"keys\":[{}{{}}]}}", "{},".repeat((1 << 20) / 3 - 10));
    let texts = [
        megabyte("A"),
        megabyte("."),
        megabyte("["),
        megabyte("{\"a\":"),
        format!("{0}.{0}.{0}", "A".repeat((1 << 20) / 3 - 1)),
        format!("{deep}.e30.AAAA"),
        many,
    ];
    for text in texts {
        let bytes = text.as_bytes();
        let token = || drop(check(bytes, &key).unwrap_err());
        let keys = || drop(KeySet::from_jwks(bytes));
        let certificates = || drop(KeySet::from_certificates(bytes));
        let readers: [(&str, Duration, &dyn Fn()); 3] = [
            ("a token", limit, &token),
            ("keys", for_keys, &keys),
            ("certificates", for_keys, &certificates),
        ];
        for (what, limit, read) in readers {
            let took = shortest(limit, async || read()).await;
            assert!(took < limit, "{what} of {text:.20}: {took:?}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        header in ".{0,80}",
        claims in ".{0,80}",
    ) {
        let key = PublicKey::from_spki(Bytes::from(bytes.clone()));
        let _ = check(&bytes, &key);
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let _ = check(format!("{}.{}.AAAA", part(&header), part(&claims)).as_bytes(), &key);
        let _ = check(format!("{}.{}.AAAA", part(HEADER), part(&claims)).as_bytes(), &key);
        let _ = KeySet::from_jwks(&bytes);
        let _ = KeySet::from_jwks(claims.as_bytes());
        let _ = KeySet::from_certificates(claims.as_bytes());
    }
}
