//! Tokens of foreign issuers: what is taken, what is refused, and how often keys are fetched.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

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

#[test]
fn a_token_holds_by_the_key_that_signed_it_and_by_no_other() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let token = issuer.sign(HEADER, CLAIMS);
    let parsed = Jws::parse(token.as_bytes(), &[Algorithm::Rs256]).unwrap();
    assert_eq!(parsed.key_id(), "one");
    let claims = parsed.verify(&issuer.key()).unwrap();
    assert_eq!(claims.text("sub"), Ok(Some("someone")));
    assert_eq!(check(token.as_bytes(), &other.key()).unwrap_err(), JwsError::Signature);
    let curve = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(curve.public_key());
    let key = PublicKey::from_spki(Bytes::copy_from_slice(spki.unwrap().as_ref()));
    assert_eq!(check(token.as_bytes(), &key).unwrap_err(), JwsError::Signature);
    for place in (0..token.len()).step_by(7) {
        let mut changed = token.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        check(&changed, &issuer.key()).unwrap_err();
    }
}

#[test]
fn what_is_not_exactly_a_signed_token_is_malformed() {
    let issuer = Issuer::new();
    let token = issuer.sign(HEADER, CLAIMS);
    let parts: Vec<&str> = token.split('.').collect();
    let padded = URL_SAFE.encode(CLAIMS);
    assert!(padded.ends_with('='));
    let mut wrong: Vec<String> = vec![
        String::new(),
        "..".to_owned(),
        parts[..2].join("."),
        format!("{token}."),
        format!("{token}\n"),
        format!("{token}="),
        format!("\"{token}\""),
        format!("{}.{padded}.{}", parts[0], parts[2]),
        format!("{token}{}", "A".repeat(64 << 10)),
        json!({"token": token}).to_string(),
    ];
    for header in [
        r#"{"alg":"none","kid":"one"}"#,
        r#"{"alg":"None","kid":"one"}"#,
        r#"{"alg":"","kid":"one"}"#,
        r#"{"alg":"rs256","kid":"one"}"#,
        r#"{"alg":"HS256","kid":"one"}"#,
        r#"{"alg":["RS256"],"kid":"one"}"#,
        r#"{"kid":"one"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":""}"#,
        r#"{"alg":"RS256","kid":7}"#,
        r#"{"alg":"RS256","alg":"RS256","kid":"one"}"#,
        r#"{"alg":"RS256","kid":"one","crit":["exp"],"exp":1}"#,
        r#"{"alg":"RS256","kid":"one","crit":[]}"#,
        "[]",
        "",
    ] {
        wrong.push(issuer.sign(header, CLAIMS));
    }
    for claims in ["", "[]", "null", "7", r#"{"aud":"a","aud":"b"}"#, r#"{"a":{"b":1,"b":2}}"#] {
        wrong.push(issuer.sign(HEADER, claims));
    }
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    wrong.push(issuer.sign(HEADER, &format!(r#"{{"a":{nested}}}"#)));
    for token in wrong {
        let error = check(token.as_bytes(), &issuer.key()).unwrap_err();
        assert!(matches!(error, JwsError::Malformed(_)), "{error}: {token:.200}");
        assert!(error.to_string().len() < 300, "{error}");
    }
}

#[test]
fn an_algorithm_is_taken_only_where_it_is_allowed() {
    let issuer = Issuer::new();
    for (how, name, algorithm) in [
        (&RSA_PKCS1_SHA384 as &'static dyn RsaEncoding, "RS384", Algorithm::Rs384),
        (&RSA_PSS_SHA256, "PS256", Algorithm::Ps256),
    ] {
        let token = issuer.sign_as(how, &HEADER.replace("RS256", name), CLAIMS);
        let error = check(token.as_bytes(), &issuer.key()).unwrap_err();
        assert!(matches!(error, JwsError::Malformed(_)), "{error}");
        let parsed = Jws::parse(token.as_bytes(), &[algorithm]).unwrap();
        parsed.verify(&issuer.key()).unwrap();
    }
}

#[test]
fn keys_that_a_header_brings_along_are_passed_over() {
    let (issuer, attacker) = (Issuer::new(), Issuer::new());
    let mut header: Value = serde_json::from_str(HEADER).unwrap();
    header["jwk"] = attacker.jwk("one");
    header["jku"] = json!("https://attacker.example/keys");
    header["x5u"] = json!("https://attacker.example/cert");
    header["x5c"] = json!(["MAA="]);
    let token = attacker.sign(&header.to_string(), CLAIMS);
    assert_eq!(check(token.as_bytes(), &issuer.key()).unwrap_err(), JwsError::Signature);
}

#[test]
fn a_jwk_set_gives_the_keys_that_are_understood_and_not_ambiguous() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let mut encryption = issuer.jwk("encryption");
    encryption["use"] = json!("enc");
    let keys = json!({ "keys": [
        issuer.jwk("one"),
        issuer.jwk("twice"),
        issuer.jwk("twice"),
        issuer.jwk("two"),
        other.jwk("two"),
        encryption,
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "RSA"},
        7,
    ]});
    let set = KeySet::from_jwks(keys.to_string().as_bytes()).unwrap();
    for known in ["one", "twice"] {
        assert_eq!(set.get(known), Some(&issuer.key()), "{known}");
    }
    for unknown in ["two", "encryption", "secret", "broken", ""] {
        assert_eq!(set.get(unknown), None, "{unknown}");
    }
    for wrong in ["", "<html>", "[]", "{}", r#"{"keys": {}}"#] {
        KeySet::from_jwks(wrong.as_bytes()).unwrap_err();
    }
    KeySet::from_jwks(&vec![b' '; 2 << 20]).unwrap_err();
}

/// An issuer that publishes what a test says.
#[derive(Clone)]
struct Publisher {
    says: Arc<Mutex<Result<Value, String>>>,
    max_age: Arc<Mutex<Option<u64>>>,
    fetches: Arc<AtomicUsize>,
    clock: Clock,
}

impl Publisher {
    fn new(keys: Value) -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        Self {
            says: Arc::new(Mutex::new(Ok(json!({ "keys": keys })))),
            max_age: Arc::new(Mutex::new(Some(3600))),
            fetches: Arc::default(),
            clock: Clock::standing_at(start),
        }
    }

    fn cache(&self) -> KeyCache {
        KeyCache::new(self.clone(), self.clock.clone())
    }

    fn publishes(&self, keys: Value) {
        *self.says.lock().unwrap() = Ok(json!({ "keys": keys }));
    }

    fn fails(&self) {
        *self.says.lock().unwrap() = Err("status 503".to_owned());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    fn pass(&self, seconds: i64) {
        self.clock.advance(SignedDuration::from_secs(seconds));
    }
}

#[async_trait]
impl KeySource for Publisher {
    async fn fetch(&self) -> Result<Fetched, String> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let document = self.says.lock().unwrap().clone()?;
        let mut headers = HeaderMap::new();
        if let Some(seconds) = *self.max_age.lock().unwrap() {
            let value = format!("public, max-age={seconds}");
            headers.insert("cache-control", HeaderValue::from_str(&value).unwrap());
        }
        let keys = KeySet::from_jwks(document.to_string().as_bytes())?;
        Ok(Fetched::new(keys, &headers, self.clock.now()))
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_for_all_and_kept_as_long_as_their_issuer_says() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    for key in join_all((0..200).map(|_| cache.key("one"))).await {
        assert_eq!(key, Ok(issuer.key()));
    }
    assert_eq!(publisher.fetches(), 1);
    publisher.pass(3599);
    cache.key("one").await.unwrap();
    assert_eq!(publisher.fetches(), 1);
    publisher.pass(1);
    cache.key("one").await.unwrap();
    assert_eq!(publisher.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_without_a_lifetime_are_kept_for_a_while() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    for max_age in [None, Some(0)] {
        *publisher.max_age.lock().unwrap() = max_age;
        let before = publisher.fetches();
        for _ in 0..10 {
            cache.key("one").await.unwrap();
            publisher.pass(29);
        }
        assert_eq!(publisher.fetches() - before, 1, "{max_age:?}");
        publisher.pass(3600);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_once_and_not_often() {
    let (issuer, later) = (Issuer::new(), Issuer::new());
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    cache.key("one").await.unwrap();
    publisher.publishes(json!([later.jwk("two")]));
    for name in ["two", "x", "y"] {
        assert_eq!(cache.key(name).await, Err(JwsError::UnknownKey(name.to_owned())));
    }
    assert_eq!(publisher.fetches(), 1);
    publisher.pass(30);
    assert_eq!(cache.key("two").await, Ok(later.key()));
    assert_eq!(cache.key("one").await, Err(JwsError::UnknownKey("one".to_owned())));
    assert_eq!(publisher.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_renewed_are_used_for_a_day() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    cache.key("one").await.unwrap();
    publisher.pass(3600);
    publisher.fails();
    for _ in 0..5 {
        assert_eq!(cache.key("one").await, Ok(issuer.key()));
    }
    assert_eq!(publisher.fetches(), 2, "a failing issuer is left in peace for a moment");
    publisher.publishes(json!([]));
    publisher.pass(30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
    assert_eq!(publisher.fetches(), 3);
    publisher.fails();
    publisher.pass(23 * 3600 - 30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
    publisher.pass(31);
    assert_eq!(cache.key("one").await, Err(JwsError::NoKeys("status 503".to_owned())));
    publisher.publishes(json!([issuer.jwk("one")]));
    publisher.pass(30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
}

#[tokio::test(start_paused = true)]
async fn where_there_are_no_keys_each_asker_tries_again() {
    let issuer = Issuer::new();
    let publisher = Publisher::new(json!([issuer.jwk("one")]));
    let cache = publisher.cache();
    publisher.fails();
    assert_eq!(cache.key("one").await, Err(JwsError::NoKeys("status 503".to_owned())));
    publisher.publishes(json!([]));
    assert_eq!(cache.key("one").await, Err(JwsError::UnknownKey("one".to_owned())));
    publisher.publishes(json!([issuer.jwk("one")]));
    publisher.pass(30);
    assert_eq!(cache.key("one").await, Ok(issuer.key()));
    assert_eq!(publisher.fetches(), 3);
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
