//! Bytes from outside: whatever they are, nothing panics, and nothing that was tampered with is
//! taken. The targets in `fuzz/` look for the same with more time.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::config::Section;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::disk::DiskKeyManager;
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::jwt::{self, Claims};
use spire_core::svid::x509::{
    CertificateRequest, Issuer, LeafTemplate, Subject, X509Svid, mint_request, self_sign_ca,
    split_chain, verify,
};
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;

/// A small trust domain, made once for all cases.
struct World {
    bundle: Bundle,
    svid: X509Svid,
    token: String,
    request: Bytes,
    /// As `request`, but by another key.
    other_request: Bytes,
    now: Timestamp,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(World::new())
});

impl World {
    async fn new() -> Self {
        let key = || LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        let (authority, holder, now) = (key(), key(), Timestamp::now());
        let mut bundle = Bundle::empty(TrustDomain::parse("example.org").unwrap());
        let (day, subject) = (Duration::from_secs(86_400), Subject::of_svids());
        let root = self_sign_ca(&authority, &bundle.trust_domain, &subject, day, now).await;
        let root = root.unwrap();
        bundle.x509_authorities.push(X509Authority::trusted(root.clone()).unwrap());
        bundle.jwt_authorities.push(JwtAuthority {
            key_id: "kid".into(),
            public_key: authority.public_key().spki.clone(),
            expires_at: None,
            tainted: false,
        });
        let id = SpiffeId::parse("spiffe://example.org/app").unwrap();
        let names = ["app.example.org".parse().unwrap()];
        let claims = Claims {
            subject: &id,
            audience: &["a".to_owned()],
            issued_at: now,
            expires_at: now + Duration::from_secs(300),
            issuer: None,
            with_id: true,
        };
        let token = jwt::sign(&authority, "kid", &claims).await.unwrap();
        let issuer = Issuer::root(root, std::sync::Arc::new(authority)).unwrap();
        let template = LeafTemplate {
            id: &id,
            public_key: &holder.public_key().spki,
            dns_names: &names,
            subject: None,
            ttl: Duration::from_secs(300),
        };
        Self {
            svid: issuer.sign_leaf(&template, now).await.unwrap(),
            request: mint_request(&holder, &subject, &names, &id).await.unwrap(),
            other_request: mint_request(&key(), &subject, &names, &id).await.unwrap(),
            bundle,
            token,
            now,
        }
    }

    fn verify_token(&self, token: &str) -> bool {
        jwt::verify(token, "a", |_| Some(&self.bundle), self.now).is_ok()
    }
}

/// One change to bytes, at a place relative to their length.
#[derive(Debug, Clone)]
enum Change {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Repeat(Index, Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => any::<(Index, u8)>().prop_map(|(at, byte)| Change::Replace(at, byte)),
        1 => any::<(Index, u8)>().prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => any::<Index>().prop_map(Change::Remove),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Change::Repeat(from, to)),
    ];
    vec(change, 1..4)
}

fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match change {
            Change::Replace(at, byte) => bytes[at.index(length)] = *byte,
            Change::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Change::Remove(at) => drop(bytes.remove(at.index(length))),
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from..from, part);
            }
        }
    }
    bytes
}

/// What a key file of one key holds.
fn key_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let keys = DiskKeyManager::open(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let generated = spire_core::keys::KeyManager::generate(&keys, "a", KeyType::EcP256);
    runtime.block_on(generated).unwrap();
    std::fs::read(path).unwrap()
}

static KEY_FILE: LazyLock<Vec<u8>> = LazyLock::new(key_file);

#[test]
fn a_request_with_the_key_or_the_signature_of_another_is_refused() {
    let (own, other) = (&WORLD.request, &WORLD.other_request);
    CertificateRequest::parse(own).unwrap();
    let mut swapped = CertReq::from_der(own).unwrap();
    swapped.signature = CertReq::from_der(other).unwrap().signature;
    assert!(CertificateRequest::parse(&swapped.to_der().unwrap()).is_err());
    let mut swapped = CertReq::from_der(own).unwrap();
    swapped.info.public_key = CertReq::from_der(other).unwrap().info.public_key;
    assert!(CertificateRequest::parse(&swapped.to_der().unwrap()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_changed_request_is_refused_or_says_the_same(changes in changes()) {
        let original = CertificateRequest::parse(&WORLD.request).unwrap();
        if let Ok(taken) = CertificateRequest::parse(&changed(&WORLD.request, &changes)) {
            prop_assert_eq!(taken, original);
        }
    }

    #[test]
    fn id_24_a_changed_certificate_is_refused_or_says_the_same(changes in changes()) {
        let leaf = changed(&WORLD.svid.chain[0], &changes);
        if let Ok(taken) = verify(&[leaf.into()], &WORLD.bundle, WORLD.now) {
            prop_assert_eq!(X509Svid { chain: WORLD.svid.chain.clone(), ..taken }, WORLD.svid.clone());
        }
    }

    #[test]
    fn jwt_16_id_24_a_changed_token_is_refused(changes in changes()) {
        let token = changed(WORLD.token.as_bytes(), &changes);
        let token = String::from_utf8_lossy(&token);
        prop_assert!(WORLD.verify_token(&WORLD.token));
        prop_assert!(token == WORLD.token || !WORLD.verify_token(&token), "{}", token);
    }

    #[test]
    fn a_changed_bundle_is_no_panic(changes in changes()) {
        let domain = || WORLD.bundle.trust_domain.clone();
        let document = changed(WORLD.bundle.to_spiffe_json().as_bytes(), &changes);
        if let Ok(bundle) = Bundle::from_spiffe_json(domain(), &document) {
            // What was read can be written, and is read again as the same.
            let written = bundle.to_spiffe_json();
            let again = Bundle::from_spiffe_json(domain(), written.as_bytes()).unwrap();
            prop_assert_eq!(again.jwt_authorities, bundle.jwt_authorities);
        }
        let _ = Bundle::from_jwks(domain(), &document);
        let pem = changed(WORLD.bundle.to_pem().as_bytes(), &changes);
        if let Ok(bundle) = Bundle::from_pem(domain(), &pem) {
            prop_assert_eq!(Bundle::from_pem(domain(), bundle.to_pem().as_bytes()).unwrap(), bundle);
        }
        let der = changed(&WORLD.bundle.x509_der(), &changes);
        if let Ok(bundle) = Bundle::from_der(domain(), &der) {
            prop_assert_eq!(bundle.x509_der(), der);
        }
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..300), text in ".{0,80}") {
        let domain = || WORLD.bundle.trust_domain.clone();
        let _ = CertificateRequest::parse(&bytes);
        let _ = verify(&[bytes.clone().into()], &WORLD.bundle, WORLD.now);
        let _ = split_chain(&bytes);
        let _ = Bundle::from_pem(domain(), &bytes);
        let _ = Bundle::from_spiffe_json(domain(), &bytes);
        prop_assert!(!WORLD.verify_token(&text));
    }

    #[test]
    fn an_error_of_the_syntax_has_a_place_in_the_file(text in "([a-c \"{}\\[\\]=:,\n#/*<0-9\\\\-]|EOT|\\PC){0,60}") {
        if let Err(error) = Section::parse(&text) {
            let lines = text.split('\n').count();
            prop_assert!((1..=lines).contains(&(error.at.line as usize)), "{}", error);
            prop_assert!(error.at.column >= 1);
            let place = format!("At {}:{}: ", error.at.line, error.at.column);
            prop_assert!(error.to_string().starts_with(&place), "{}", error);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_changed_key_file_is_refused_or_holds_a_usable_key(changes in changes()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, changed(&KEY_FILE, &changes)).unwrap();
        if let Err(error) = DiskKeyManager::open(&path) {
            let text = error.to_string();
            let key = String::from_utf8_lossy(&KEY_FILE).into_owned();
            let secret = key.split('"').max_by_key(|part| part.len()).unwrap();
            prop_assert!(!text.contains(&secret[..40]), "{}", text);
        }
    }
}
