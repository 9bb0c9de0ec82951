//! The check of X.509-SVIDs, row by row of the SPIFFE standard, against certificates of OpenSSL.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]
#![allow(unreachable_pub, dead_code, reason = "both test binaries use a part")]

mod openssl;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use openssl::{CA, Workshop};
use rustls_pki_types::CertificateDer;
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::svid::x509::{VerifyError, X509Svid, verify, verify_for};
use x509_cert::der::{Decode, Encode};

const URI: &str = "subjectAltName=URI:spiffe://example.org/app";
const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature";

fn bundle(roots: &[&Bytes]) -> Bundle {
    let mut bundle = Bundle::empty(TrustDomain::parse("example.org").unwrap());
    for root in roots {
        bundle.x509_authorities.push(X509Authority::trusted(Bytes::clone(root)).unwrap());
    }
    bundle
}

/// Has a leaf with these extensions signed and checks it.
fn check(extensions: &str) -> Result<X509Svid, VerifyError> {
    let workshop = Workshop::new();
    let leaf = workshop.sign("root", "leaf", extensions);
    verify(&[leaf], &bundle(&[&workshop.der("root")]), Timestamp::now())
}

fn reason(result: Result<X509Svid, VerifyError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_good_leaf_is_accepted() {
    let svid = check(&format!("{LEAF}\n{URI}")).unwrap();
    assert_eq!(svid.id.as_str(), "spiffe://example.org/app");
    assert!(svid.serial.bytes().all(|digit| digit.is_ascii_digit()));
}

#[test]
fn x509_02_one_uri_san_and_no_other_number() {
    for uri in ["URI:https://x", "URI:spiffe://example.org/b"] {
        let error = reason(check(&format!("{LEAF}\n{URI},{uri}")));
        assert_eq!(error, "certificate contains more than one URI SAN");
    }
    let error = reason(check(&format!("{LEAF}\nsubjectAltName=DNS:a.example.org")));
    assert_eq!(error, "certificate contains no URI SAN");
    assert_eq!(reason(check(LEAF)), "certificate contains no URI SAN");
}

#[test]
fn x509_03_other_kinds_of_san_do_no_harm() {
    check(&format!("{LEAF}\n{URI},DNS:a.org,DNS:b.org,DNS:*.c.org,IP:10.0.0.1")).unwrap();
}

#[test]
fn x509_04_11_23_a_signing_certificate_names_no_peer() {
    let error = reason(check(&format!("{CA}/app")));
    assert_eq!(error, "leaf certificate must not have CA flag set to true");
    let workshop = Workshop::new();
    let root = workshop.der("root");
    assert!(verify(std::slice::from_ref(&root), &bundle(&[&root]), Timestamp::now()).is_err());
}

#[test]
fn x509_22_expired_and_not_yet_valid_leaves_are_refused() {
    let workshop = Workshop::new();
    let leaf = [workshop.sign("root", "leaf", &format!("{LEAF}\n{URI}"))];
    let bundle = bundle(&[&workshop.der("root")]);
    let now = Timestamp::now();
    // The leaf lives a day, its root two.
    let later = now + SignedDuration::from_hours(30);
    assert_eq!(verify(&leaf, &bundle, later), Err(VerifyError::Expired));
    let after_root = now + SignedDuration::from_hours(50);
    assert_eq!(verify(&leaf, &bundle, after_root), Err(VerifyError::Expired));
    let before = now - SignedDuration::from_hours(1);
    assert!(verify(&leaf, &bundle, before).is_err());
}

#[test]
fn x509_22_33_wrong_signers_and_broken_signatures_are_refused() {
    let workshop = Workshop::new();
    let leaf = workshop.sign("root", "leaf", &format!("{LEAF}\n{URI}"));
    let other = Workshop::new().der("root");
    let now = Timestamp::now();
    let chain = std::slice::from_ref(&leaf);
    assert_eq!(verify(chain, &bundle(&[&other]), now), Err(VerifyError::UnknownAuthority));
    assert_eq!(verify(chain, &bundle(&[]), now), Err(VerifyError::UnknownAuthority));
    // Its own key signed it, and nobody trusts that key.
    let own = [workshop.root("own", &format!("{LEAF}\n{URI}"))];
    let bundle = bundle(&[&workshop.der("root")]);
    // It may be valid only from the second that has begun since.
    let now = Timestamp::now();
    assert_eq!(verify(&own, &bundle, now), Err(VerifyError::UnknownAuthority));
    let mut broken = leaf.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    assert!(verify(&[broken.into()], &bundle, now).is_err());
    assert!(verify(&[], &bundle, now).is_err());
    assert!(verify(&vec![leaf; 17], &bundle, now).is_err());
}

#[test]
fn x509_22_chains_through_intermediates_hold_if_each_may_sign() {
    let leaf_extensions = format!("{LEAF}\n{URI}");
    let no_signer = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature";
    let cases = [
        (CA, true, "a signer"),
        (LEAF, false, "an intermediate without CA flag"),
        (no_signer, false, "an intermediate whose key may not sign certificates"),
    ];
    for (extensions, holds, what) in cases {
        let workshop = Workshop::new();
        let intermediate = workshop.sign("root", "intermediate", extensions);
        let leaf = workshop.sign("intermediate", "leaf", &leaf_extensions);
        let bundle = bundle(&[&workshop.der("root")]);
        let now = Timestamp::now();
        let result = verify(&[leaf.clone(), intermediate], &bundle, now);
        assert_eq!(result.is_ok(), holds, "{what}: {result:?}");
        assert_eq!(verify(&[leaf], &bundle, now), Err(VerifyError::UnknownAuthority));
    }
}

#[test]
fn x509_22_a_path_is_no_longer_than_its_signers_allow() {
    let workshop = Workshop::new();
    let limited = CA.replace("CA:TRUE", "CA:TRUE,pathlen:0");
    let first = workshop.sign("root", "first", &limited);
    let second = workshop.sign("first", "second", CA);
    let leaf = workshop.sign("second", "leaf", &format!("{LEAF}\n{URI}"));
    let bundle = bundle(&[&workshop.der("root")]);
    assert!(verify(&[leaf, second, first], &bundle, Timestamp::now()).is_err());

    let workshop = Workshop::new();
    let root = workshop.root("limited", &limited);
    let intermediate = workshop.sign("limited", "intermediate", CA);
    let leaf = workshop.sign("intermediate", "leaf", &format!("{LEAF}\n{URI}"));
    let bundle = self::bundle(&[&root]);
    assert!(verify(&[leaf, intermediate], &bundle, Timestamp::now()).is_err(), "a limited root");
}

#[test]
fn x509_22_unknown_critical_extensions_are_refused() {
    let extension = "1.2.3.4.5=critical,ASN1:UTF8String:x";
    assert!(check(&format!("{LEAF}\n{URI}\n{extension}")).is_err());
    check(&format!("{LEAF}\n{URI}\n{}", extension.replace("critical,", ""))).unwrap();
}

#[test]
fn x509_24_a_leaf_may_not_sign() {
    for bit in ["keyCertSign", "cRLSign"] {
        let leaf = format!("keyUsage=critical,digitalSignature,{bit}\n{URI}");
        let sentence = format!("leaf certificate must not have '{bit}' set as key usage");
        assert_eq!(reason(check(&leaf)), sentence);
    }
}

#[test]
fn x509_25_the_uri_must_be_a_spiffe_id() {
    for uri in ["https://example.org/w", "spiffe://example.org/a//b", "spiffe://EXAMPLE.org/w"] {
        let error = reason(check(&format!("{LEAF}\nsubjectAltName=URI:{uri}")));
        assert!(error.starts_with("certificate contains no SPIFFE ID as URI SAN: "), "{error}");
    }
}

#[test]
fn x509_26_the_id_of_a_leaf_has_a_path() {
    let error = reason(check(&format!("{LEAF}\nsubjectAltName=URI:spiffe://example.org")));
    assert_eq!(error, "leaf certificate names a trust domain, not a workload");
}

#[test]
fn id_21_fed_09_wl_13_only_authorities_of_the_own_trust_domain_count() {
    let workshop = Workshop::new();
    let leaf = workshop.sign("root", "leaf", &format!("{LEAF}\nsubjectAltName=URI:spiffe://b/w"));
    let own = bundle(&[&workshop.der("root")]);
    let chain = [leaf];
    let now = Timestamp::now();
    assert_eq!(verify(&chain, &own, now), Err(VerifyError::UnknownAuthority));

    let b = TrustDomain::parse("b").unwrap();
    let foreign = Bundle { trust_domain: b, ..bundle(&[&Workshop::new().der("root")]) };
    let certificates = [CertificateDer::from(chain[0].as_ref())];
    let held = |id: &SpiffeId| {
        [&own, &foreign].into_iter().find(|bundle| id.is_member_of(&bundle.trust_domain))
    };
    let result = verify_for(&certificates, now, held);
    assert_eq!(result, Err(VerifyError::UnknownAuthority), "both bundles are at hand");
}

#[test]
fn one_extension_twice_is_refused() {
    let workshop = Workshop::new();
    let leaf = workshop.sign("root", "leaf", &format!("{LEAF}\n{URI}"));
    let mut certificate = x509_cert::Certificate::from_der(&leaf).unwrap().to_der().unwrap();
    // The identifier of the key usage becomes that of the basic constraints.
    let (usage, constraints) = ([0x55, 0x1d, 0x0f], [0x55, 0x1d, 0x13]);
    let at = certificate.windows(3).position(|window| window == usage).unwrap();
    certificate[at..at + 3].copy_from_slice(&constraints);
    let error = X509Svid::from_chain(vec![certificate.into()]).unwrap_err();
    assert!(error.to_string().contains("SEQUENCE"), "{error}");
}

#[test]
fn tainted_roots_are_trusted_until_they_go() {
    let workshop = Workshop::new();
    let leaf = workshop.sign("root", "leaf", &format!("{LEAF}\n{URI}"));
    let mut bundle = bundle(&[&workshop.der("root")]);
    bundle.x509_authorities[0].tainted = true;
    verify(&[leaf], &bundle, Timestamp::now()).unwrap();
}
