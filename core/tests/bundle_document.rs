//! Bundles as documents, row by row of the SPIFFE standard: what is published, and what is read.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use jiff::Timestamp;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value, json};
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::jwt::{self, Claims};
use spire_core::svid::x509::{
    Issuer, LeafTemplate, Subject, VerifyError, X509Svid, self_sign_ca, verify,
};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

const KINDS: [KeyType; 3] = [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048];

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// A domain with one authority of each kind of key, for both kinds of SVIDs.
struct Domain {
    bundle: Bundle,
    issuers: Vec<Issuer>,
    keys: Vec<LocalKey>,
}

impl Domain {
    async fn new() -> Self {
        let bundle = Bundle { sequence_number: 9, refresh_hint: 600, ..Bundle::empty(domain()) };
        let mut domain = Self { bundle, issuers: Vec::new(), keys: Vec::new() };
        for kind in KINDS {
            let key = LocalKey::generate_blocking(kind).unwrap();
            let (id, subject) = (&domain.bundle.trust_domain, Subject::of_svids());
            let ttl = Duration::from_secs(3600);
            let root = self_sign_ca(&key, id, &subject, ttl, Timestamp::now()).await.unwrap();
            let authority = X509Authority::trusted(root.clone()).unwrap();
            domain.bundle.x509_authorities.push(authority);
            domain.bundle.jwt_authorities.push(JwtAuthority {
                key_id: format!("{kind:?}"),
                public_key: key.public_key().spki.clone(),
                expires_at: None,
                tainted: false,
            });
            domain.issuers.push(Issuer::root(root, std::sync::Arc::new(key.clone())).unwrap());
            domain.keys.push(key);
        }
        domain
    }

    fn document(&self) -> Value {
        serde_json::from_str(&self.bundle.to_spiffe_json()).unwrap()
    }

    /// An SVID of the authority at `at`.
    async fn svid(&self, at: usize) -> X509Svid {
        let id = domain().member("/w").unwrap();
        let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        let template = LeafTemplate {
            id: &id,
            public_key: &key.public_key().spki,
            dns_names: &[],
            subject: None,
            ttl: Duration::from_secs(60),
        };
        self.issuers[at].sign_leaf(&template, Timestamp::now()).await.unwrap()
    }
}

fn read(document: &Value) -> Result<Bundle, String> {
    let text = document.to_string();
    Bundle::from_spiffe_json(domain(), text.as_bytes()).map_err(|error| error.to_string())
}

fn members(document: &Value) -> impl Iterator<Item = &Map<String, Value>> {
    document["keys"].as_array().unwrap().iter().map(|key| key.as_object().unwrap())
}

fn of_use<'d>(document: &'d Value, usage: &str) -> Vec<&'d Map<String, Value>> {
    members(document).filter(|key| key["use"] == usage).collect()
}

fn rejected(bundle: &Bundle, svid: &X509Svid) {
    let result = verify(&svid.chain, bundle, Timestamp::now());
    assert_eq!(result, Err(VerifyError::UnknownAuthority));
}

#[tokio::test]
async fn bnd_05_08_09_10_14_15_17_what_is_published_says_what_it_must_and_no_more() {
    let document = Domain::new().await.document();
    assert_eq!(document["spiffe_sequence"], json!(9));
    assert_eq!(document["spiffe_refresh_hint"], json!(600));
    assert_eq!(members(&document).count(), 6);
    for key in members(&document) {
        let (kty, usage) = (key["kty"].as_str().unwrap(), key["use"].as_str().unwrap());
        let of_kind: &[&str] = match kty {
            "RSA" => &["n", "e"],
            "EC" => &["crv", "x", "y"],
            other => panic!("kty {other}"),
        };
        let of_use = match usage {
            "x509-svid" => "x5c",
            "jwt-svid" => "kid",
            other => panic!("use {other}"),
        };
        let mut expected: Vec<_> = [&["use", "kty", of_use], of_kind].concat();
        let mut found: Vec<_> = key.keys().map(String::as_str).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn x509_27_28_29_30_each_root_is_published_with_its_certificate() {
    let domain = Domain::new().await;
    let document = domain.document();
    let keys = of_use(&document, "x509-svid");
    assert_eq!(keys.len(), KINDS.len());
    for (key, root) in keys.into_iter().zip(&domain.bundle.x509_authorities) {
        assert!(!key.contains_key("kid"));
        let [certificate] = &key["x5c"].as_array().unwrap()[..] else { panic!("one certificate") };
        let der = STANDARD.decode(certificate.as_str().unwrap()).unwrap();
        assert_eq!(der, root.certificate);
        let certificate = Certificate::from_der(&der).unwrap();
        let tbs = certificate.tbs_certificate();
        assert_eq!(tbs.issuer(), tbs.subject());
        let spki = tbs.subject_public_key_info();
        assert_eq!(public_key(key), spki.subject_public_key.raw_bytes());
        // It signs as its own issuer, else it would be no root of its own.
        let own = vec![Bytes::from(der)];
        let bundle = Bundle { x509_authorities: vec![root.clone()], ..domain.bundle.clone() };
        let refusal = verify(&own, &bundle, Timestamp::now()).unwrap_err();
        assert_ne!(refusal, VerifyError::UnknownAuthority, "a root, but no peer");
    }
}

/// The bits of the key that a JWK's numbers make.
fn public_key(key: &Map<String, Value>) -> Vec<u8> {
    let number = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    if key["kty"] == "EC" {
        return [vec![4], number("x"), number("y")].concat();
    }
    #[derive(x509_cert::der::Sequence)]
    struct RsaKey {
        n: x509_cert::der::asn1::Uint,
        e: x509_cert::der::asn1::Uint,
    }
    assert!(number("n")[0] != 0 && number("e")[0] != 0, "numbers have no leading zeros");
    let uint = |name| x509_cert::der::asn1::Uint::new(&number(name)).unwrap();
    RsaKey { n: uint("n"), e: uint("e") }.to_der().unwrap()
}

#[tokio::test]
async fn jwt_20_each_key_for_tokens_is_published_with_its_id() {
    let domain = Domain::new().await;
    let document = domain.document();
    let keys = of_use(&document, "jwt-svid");
    let ids: Vec<_> = keys.iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(ids, ["EcP256", "EcP384", "Rsa2048"]);
    for (key, local) in keys.into_iter().zip(&domain.keys) {
        let spki = spki::SubjectPublicKeyInfoRef::from_der(&local.public_key().spki).unwrap();
        assert_eq!(public_key(key), spki.subject_public_key.raw_bytes());
    }
}

#[tokio::test]
async fn bnd_03_others_read_our_documents_and_check_our_tokens_by_them() {
    let domain = Domain::new().await;
    let id = self::domain().member("/w").unwrap();
    let now = Timestamp::now();
    let algorithms = [Algorithm::ES256, Algorithm::ES384, Algorithm::RS256];
    for text in [domain.bundle.to_spiffe_json(), domain.bundle.to_jwks()] {
        let set: JwkSet = serde_json::from_str(&text).unwrap();
        for (key, algorithm) in domain.keys.iter().zip(algorithms) {
            let kid = format!("{:?}", key.public_key().kind);
            let claims = Claims {
                subject: &id,
                audience: &["a".to_owned()],
                issued_at: now,
                expires_at: now + Duration::from_secs(60),
                issuer: None,
                with_id: false,
            };
            let token = jwt::sign(key, &kid, &claims).await.unwrap();
            let jwk: &Jwk = set.find(&kid).unwrap();
            let mut validation = Validation::new(algorithm);
            validation.set_audience(&["a"]);
            let decoding = DecodingKey::from_jwk(jwk).unwrap();
            let decoded = jsonwebtoken::decode::<Value>(&token, &decoding, &validation).unwrap();
            assert_eq!(decoded.claims["sub"], id.as_str());
        }
    }
}

#[tokio::test]
async fn a_bundle_survives_its_document() {
    let bundle = Domain::new().await.bundle;
    let read = Bundle::from_spiffe_json(domain(), bundle.to_spiffe_json().as_bytes()).unwrap();
    assert_eq!(read, bundle);
    let keys = Bundle::from_jwks(domain(), bundle.to_jwks().as_bytes()).unwrap();
    assert_eq!(keys.jwt_authorities, bundle.jwt_authorities);
    assert!(keys.x509_authorities.is_empty());
}

#[tokio::test]
async fn bnd_04_07_unknown_members_do_no_harm_and_numbers_are_exact() {
    let domain = Domain::new().await;
    let keys = domain.document()["keys"].clone();
    let read = |document: Value| self::read(&document).unwrap();
    let alone = read(json!({ "keys": keys }));
    assert_eq!((alone.sequence_number, alone.refresh_hint), (0, 0));
    assert_eq!(alone.x509_authorities, domain.bundle.x509_authorities);
    let more =
        json!({ "keys": keys, "foo": { "keys": 7 }, "spiffe_sequence": 9007199254740993u64 });
    let more = read(more);
    assert_eq!(more.sequence_number, 9_007_199_254_740_993);
    assert_eq!(more.x509_authorities, alone.x509_authorities);
    let largest = read(json!({ "keys": [], "spiffe_sequence": u64::MAX }));
    assert_eq!(largest.sequence_number, u64::MAX);
}

#[tokio::test]
async fn bnd_10_12_13_x509_33_a_domain_without_usable_keys_is_trusted_in_nothing() {
    let domain = Domain::new().await;
    let svid = domain.svid(0).await;
    verify(&svid.chain, &domain.bundle, Timestamp::now()).unwrap();
    assert_eq!(read(&json!({})).unwrap_err(), "spiffebundle: no authorities found");
    let mut unknown = domain.document();
    for key in unknown["keys"].as_array_mut().unwrap() {
        key["use"] = json!("foo");
    }
    let mut tokens_only = domain.document();
    tokens_only["keys"].as_array_mut().unwrap().retain(|key| key["use"] == "jwt-svid");
    for document in [json!({ "keys": [] }), unknown, tokens_only] {
        rejected(&read(&document).unwrap(), &svid);
    }
}

#[tokio::test]
async fn bnd_11_16_18_keys_that_are_not_known_are_skipped() {
    let domain = Domain::new().await;
    let mut document = domain.document();
    let good = domain.document()["keys"][0].clone();
    let changed = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    let mut without_use = good.clone();
    without_use.as_object_mut().unwrap().remove("use");
    let strange = [
        changed("kty", json!("XYZ")),
        changed("kty", json!(null)),
        changed("use", json!("X509-SVID")),
        changed("use", json!("sig")),
        changed("use", json!(7)),
        without_use,
        json!({ "use": "jwt-svid", "kid": "k", "kty": "oct", "k": "AAAA" }),
        json!({ "use": "jwt-svid", "kid": "k", "kty": "EC", "crv": "secp256k1" }),
        json!({ "use": "jwt-svid", "kty": "EC" }),
        json!({ "use": "wit-svid", "kid": "k", "kty": "EC", "crv": "P-256" }),
        json!("no object"),
    ];
    let keys = document["keys"].as_array_mut().unwrap();
    for key in strange {
        keys.insert(1, key);
    }
    assert_eq!(read(&document).unwrap(), domain.bundle);
}

#[tokio::test]
async fn x509_31_32_the_first_certificate_of_a_key_counts_if_there_is_one() {
    let domain = Domain::new().await;
    let certificate =
        |at: usize| json!(STANDARD.encode(&domain.bundle.x509_authorities[at].certificate));
    let key = |x5c: Value| json!({ "use": "x509-svid", "kty": "EC", "x5c": x5c });
    let without = json!({ "use": "x509-svid", "kty": "EC" });
    let second = key(json!([certificate(0), certificate(1)]));
    let bundle = read(&json!({ "keys": [without, key(json!([])), second] })).unwrap();
    assert_eq!(bundle.x509_authorities, domain.bundle.x509_authorities[..1]);
    verify(&domain.svid(0).await.chain, &bundle, Timestamp::now()).unwrap();
    rejected(&bundle, &domain.svid(1).await);
}

#[tokio::test]
async fn bnd_02_a_bundle_goes_with_the_name_of_its_domain() {
    let domain = Domain::new().await;
    let svid = domain.svid(0).await;
    let other = TrustDomain::parse("other.org").unwrap();
    let renamed = Bundle::from_spiffe_json(other, domain.bundle.to_spiffe_json().as_bytes());
    rejected(&renamed.unwrap(), &svid);
}
