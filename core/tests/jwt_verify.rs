//! The check of JWT-SVIDs, row by row of the SPIFFE standard. Tokens are put together here, since
//! most of them are none that an issuer of ours would sign.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use spire_core::bundle::{Bundle, JwtAuthority};
use spire_core::id::TrustDomain;
use spire_core::svid::jwt::{JwtError, Verified, verify};

const NOW: i64 = 1_800_000_000;

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

/// An issuer that signs whatever it is given.
struct Issuer {
    key: EcdsaKeyPair,
    alg: &'static str,
}

impl Issuer {
    fn new() -> Self {
        Self::on(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256")
    }

    fn on(curve: &'static EcdsaSigningAlgorithm, alg: &'static str) -> Self {
        Self { key: EcdsaKeyPair::generate(curve).unwrap(), alg }
    }

    fn spki(&self) -> Bytes {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().unwrap();
        Bytes::copy_from_slice(der.as_ref())
    }

    fn bundle(&self, name: &str) -> Bundle {
        bundle_of(name, self.spki())
    }

    fn header(&self) -> Value {
        json!({ "alg": self.alg, "kid": "kid" })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        seal(header, claims, |message| {
            self.key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        })
    }
}

fn bundle_of(name: &str, public_key: Bytes) -> Bundle {
    let key = JwtAuthority { key_id: "kid".into(), public_key, expires_at: None, tainted: false };
    Bundle { jwt_authorities: vec![key], ..Bundle::empty(domain(name)) }
}

fn seal(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// What a good token says.
fn claims() -> Value {
    json!({ "sub": "spiffe://td/w", "aud": ["a", "b"], "exp": NOW + 300 })
}

/// What a good token says, with `name` changed, or gone where it becomes null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn check(token: &str, audience: &str, bundle: &Bundle) -> Result<Verified, JwtError> {
    let held =
        |trust_domain: &TrustDomain| (bundle.trust_domain == *trust_domain).then_some(bundle);
    verify(token, audience, held, Timestamp::from_second(NOW).unwrap())
}

/// Signs these claims and has them checked for the audience `a`.
fn check_claims(claims: &Value) -> Result<Verified, JwtError> {
    let issuer = Issuer::new();
    check(&issuer.sign(&issuer.header(), claims), "a", &issuer.bundle("td"))
}

/// Signs a good token with this header and has it checked.
fn check_header(header: impl FnOnce(&Issuer) -> Value) -> Result<Verified, JwtError> {
    let issuer = Issuer::new();
    check(&issuer.sign(&header(&issuer), &claims()), "a", &issuer.bundle("td"))
}

fn sentence(result: Result<Verified, JwtError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_good_token_is_accepted() {
    let verified = check_claims(&claims()).unwrap();
    assert_eq!(verified.id.as_str(), "spiffe://td/w");
    assert_eq!(verified.expires_at.as_second(), NOW + 300);
    assert_eq!(Value::from(verified.claims), claims());
}

#[test]
fn jwt_01_03_only_the_compact_form_of_a_signed_token_is_read() {
    let issuer = Issuer::new();
    let bundle = issuer.bundle("td");
    let token = issuer.sign(&issuer.header(), &claims());
    check(&token, "a", &bundle).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let flattened =
        json!({ "protected": header, "payload": payload, "signature": signature }).to_string();
    let general = json!({
        "payload": payload,
        "signatures": [{ "protected": header, "signature": signature }],
    });
    let five_parts = format!("{header}.{payload}.{payload}.{payload}.{signature}");
    let others = [
        flattened.as_str(),
        &general.to_string(),
        &five_parts,
        &format!("{header}.{payload}"),
        &format!("{token}."),
        &format!(" {token}"),
        &format!("{header}=.{payload}.{signature}"),
        "",
        "..",
    ];
    for other in others {
        assert!(check(other, "a", &bundle).is_err(), "{other}");
    }
}

#[test]
fn jwt_05_other_algorithms_are_refused() {
    for alg in ["none", "None", "", "HS256", "EdDSA", "ES256K", "rs256", "es256", "RSA-OAEP"] {
        let error = sentence(check_header(|_| json!({ "alg": alg, "kid": "kid" })));
        assert!(error.contains("unexpected signature algorithm"), "{alg}: {error}");
    }
    let error = sentence(check_header(|_| json!({ "kid": "kid" })));
    assert!(error.contains("unexpected signature algorithm"), "{error}");

    // The public key, which everyone has, as the secret of a MAC.
    let issuer = Issuer::new();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &issuer.spki());
    let token = seal(&json!({ "alg": "HS256", "kid": "kid" }), &claims(), |message| {
        hmac::sign(&secret, message).as_ref().to_vec()
    });
    assert!(check(&token, "a", &issuer.bundle("td")).is_err());
    let unsigned = seal(&json!({ "alg": "none", "kid": "kid" }), &claims(), |_| Vec::new());
    assert!(check(&unsigned, "a", &issuer.bundle("td")).is_err());
}

#[test]
fn jwt_06_a_token_without_key_id_is_refused() {
    for header in [json!({ "alg": "ES256" }), json!({ "alg": "ES256", "kid": "" })] {
        assert_eq!(sentence(check_header(|_| header)), "token header missing key id");
    }
    assert_eq!(
        sentence(check_header(|_| json!({ "alg": "ES256", "kid": "KID" }))),
        "public key \"KID\" not found in trust domain \"td\""
    );
}

#[test]
fn jwt_07_id_25_tokens_of_other_types_are_no_svids() {
    let typed = |typ: &str| check_header(|_| json!({ "alg": "ES256", "kid": "kid", "typ": typ }));
    for typ in ["JWT", "JOSE"] {
        typed(typ).unwrap();
    }
    for typ in ["wit+jwt", "at+jwt", "jwt", "", "application/jwt"] {
        let expected = "token header type not equal to either JWT or JOSE";
        assert_eq!(sentence(typed(typ)), expected, "{typ}");
    }
}

#[test]
fn members_of_a_header_are_tolerated_unless_they_are_critical() {
    check_header(|_| json!({ "alg": "ES256", "kid": "kid", "x": 1, "jku": "https://x" })).unwrap();
    for crit in [json!(["x"]), json!([]), json!("exp")] {
        let header = json!({ "alg": "ES256", "kid": "kid", "x": 1, "crit": crit });
        assert!(sentence(check_header(|_| header)).contains("crit"));
    }
}

#[test]
fn jwt_09_the_subject_is_a_spiffe_id() {
    for subject in [json!(null), json!("")] {
        assert_eq!(sentence(check_claims(&with("sub", subject))), "token missing subject claim");
    }
    for subject in [json!("foo"), json!("spiffe://td/a//b"), json!(7), json!(["spiffe://td/w"])] {
        let error = sentence(check_claims(&with("sub", subject)));
        assert!(error.starts_with("token has in invalid subject claim: "), "{error}");
    }
}

#[test]
fn jwt_11_the_own_audience_is_among_those_of_the_token() {
    let issuer = Issuer::new();
    let bundle = issuer.bundle("td");
    let check = |aud: Value, own: &str| {
        check(&issuer.sign(&issuer.header(), &with("aud", aud)), own, &bundle)
    };
    check(json!(["a", "b"]), "b").unwrap();
    let verified = check(json!("a"), "a").unwrap();
    assert_eq!(verified.claims["aud"], json!(["a"]));
    for own in ["B", "ab", "", "a b"] {
        let error = sentence(check(json!(["a", "b"]), own));
        assert_eq!(error, format!("expected audience in [{own:?}] (audience=[\"a\" \"b\"])"));
    }
    for aud in [json!(null), json!([]), json!("A"), json!([""]), json!(7), json!([7]), json!({})] {
        assert!(check(aud.clone(), "a").is_err(), "{aud}");
    }
    assert!(check(json!([""]), "").is_err(), "nobody is called nothing");
}

#[test]
fn jwt_14_a_token_expires() {
    assert_eq!(sentence(check_claims(&with("exp", json!(null)))), "token missing exp claim");
    for exp in [NOW - 3600, NOW - 61, 0, -1, i64::MIN] {
        let error = sentence(check_claims(&with("exp", json!(exp))));
        assert_eq!(error, "token has expired", "{exp}");
    }
    for exp in [json!("soon"), json!([NOW + 300]), json!(true), json!((NOW + 300).to_string())] {
        assert!(check_claims(&with("exp", exp.clone())).is_err(), "{exp}");
    }
    check_claims(&with("exp", json!(NOW - 59))).unwrap();
}

#[test]
fn jwt_15_registered_claims_keep_their_meaning() {
    assert!(sentence(check_claims(&with("nbf", json!(NOW + 3600)))).contains("(nbf)"));
    assert!(sentence(check_claims(&with("iat", json!(NOW + 3600)))).contains("(iat)"));
    for claim in ["nbf", "iat"] {
        check_claims(&with(claim, json!(NOW + 59))).unwrap();
        check_claims(&with(claim, json!(NOW - 3600))).unwrap();
        assert!(check_claims(&with(claim, json!("now"))).is_err());
    }
    check_claims(&with("iss", json!("https://anyone"))).unwrap();
}

#[test]
fn jwt_16_id_24_whatever_changes_breaks_the_signature() {
    let issuer = Issuer::new();
    let bundle = issuer.bundle("td");
    let other = Issuer::new();
    let token = other.sign(&other.header(), &claims());
    assert!(check(&token, "a", &bundle).is_err(), "another key under the same id");

    let token = issuer.sign(&issuer.header(), &claims());
    let parts: Vec<&str> = token.split('.').collect();
    for (name, value) in [("sub", json!("spiffe://td/x")), ("exp", json!(NOW + 301))] {
        let forged = URL_SAFE_NO_PAD.encode(with(name, value).to_string());
        let forged = format!("{}.{forged}.{}", parts[0], parts[2]);
        let error = sentence(check(&forged, "a", &bundle));
        assert_eq!(error, "go-jose/go-jose: error in cryptographic primitive");
    }
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    for at in 0..8 * signature.len() {
        let mut flipped = signature.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let flipped = format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(flipped));
        assert!(check(&flipped, "a", &bundle).is_err(), "bit {at}");
    }
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    assert!(check(&format!("{}.{}.{zeros}", parts[0], parts[1]), "a", &bundle).is_err());
    assert!(check(&format!("{}.{}.", parts[0], parts[1]), "a", &bundle).is_err());
}

#[test]
fn jwt_04_16_each_algorithm_goes_with_its_kind_of_key() {
    let curves = [
        Issuer::new(),
        Issuer::on(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384"),
        Issuer::on(&ECDSA_P521_SHA512_FIXED_SIGNING, "ES512"),
    ];
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_spki: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
    let rsa_bundle = bundle_of("td", Bytes::copy_from_slice(rsa_spki.as_ref()));
    let rsa_forms: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    let named: Vec<&str> =
        curves.iter().map(|one| one.alg).chain(rsa_forms.map(|(alg, _)| alg)).collect();

    for issuer in &curves {
        for alg in &named {
            let header = json!({ "alg": alg, "kid": "kid" });
            let result = check(&issuer.sign(&header, &claims()), "a", &issuer.bundle("td"));
            assert_eq!(result.is_ok(), *alg == issuer.alg, "{} as {alg}", issuer.alg);
        }
    }
    for (form, encoding) in rsa_forms {
        for alg in &named {
            let header = json!({ "alg": alg, "kid": "kid" });
            let token = seal(&header, &claims(), |message| {
                let mut signature = vec![0; rsa.public_modulus_len()];
                rsa.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            });
            assert_eq!(check(&token, "a", &rsa_bundle).is_ok(), *alg == form, "{form} as {alg}");
        }
    }
}

#[test]
fn jwt_17_further_claims_do_no_harm_and_tokens_are_not_counted() {
    let issuer = Issuer::new();
    let mut claims = with("jti", json!("one"));
    claims["scope"] = json!({ "read": [1, null, 2.5] });
    let token = issuer.sign(&issuer.header(), &claims);
    for _ in 0..2 {
        let verified = check(&token, "a", &issuer.bundle("td")).unwrap();
        assert_eq!(Value::from(verified.claims), claims);
    }
}

#[test]
fn jwt_21_only_keys_for_jwt_svids_count() {
    let issuer = Issuer::new();
    let token = issuer.sign(&issuer.header(), &claims());
    let document = issuer.bundle("td").to_spiffe_json();
    let read = |usage: &str| {
        let text = document.replace("\"jwt-svid\"", usage);
        Bundle::from_spiffe_json(domain("td"), text.as_bytes()).unwrap()
    };
    check(&token, "a", &read("\"jwt-svid\"")).unwrap();
    for usage in ["\"wit-svid\"", "\"x509-svid\"", "\"sig\"", "\"JWT-SVID\"", "null"] {
        let error = sentence(check(&token, "a", &read(usage)));
        assert_eq!(error, "public key \"kid\" not found in trust domain \"td\"", "{usage}");
    }
}

#[test]
fn jwt_22_wl_40_without_keys_of_its_domain_a_token_is_nothing() {
    let issuer = Issuer::new();
    let token = issuer.sign(&issuer.header(), &claims());
    let keyless = Bundle::empty(domain("td"));
    let error = sentence(check(&token, "a", &keyless));
    assert_eq!(error, "public key \"kid\" not found in trust domain \"td\"");
    let other = issuer.bundle("other");
    assert_eq!(sentence(check(&token, "a", &other)), "no keys found for trust domain \"td\"");
}

#[test]
fn id_21_fed_09_the_keys_of_one_domain_say_nothing_of_another() {
    let (a, b) = (Issuer::new(), Issuer::new());
    let token = a.sign(&a.header(), &with("sub", json!("spiffe://b/w")));
    let bundles = [a.bundle("a"), b.bundle("b")];
    let held = |of: &TrustDomain| bundles.iter().find(|bundle| bundle.trust_domain == *of);
    let now = Timestamp::from_second(NOW).unwrap();
    let error = verify(&token, "a", held, now).unwrap_err().to_string();
    assert_eq!(error, "go-jose/go-jose: error in cryptographic primitive");
    // Whoever asks may be handed the wrong bundle; it does not count either.
    let error = verify(&token, "a", |_| Some(&bundles[0]), now).unwrap_err().to_string();
    assert_eq!(error, "no keys found for trust domain \"b\"");
}
