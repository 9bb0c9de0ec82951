//! What is signed, field by field: read back with x509-cert and with OpenSSL.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]
#![allow(unreachable_pub, dead_code, reason = "both test binaries use a part")]

mod authorities;
mod leaves;
#[path = "../openssl/mod.rs"]
mod openssl;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use openssl::{Workshop, openssl};
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority, certificate_pem};
use spire_core::entry::DnsName;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::jwt;
use spire_core::svid::x509::{CaTemplate, Issuer, LeafTemplate, Subject, self_sign_ca, verify};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName,
    SubjectKeyIdentifier,
};

const TTL: Duration = Duration::from_secs(3600);
const KEY_USAGE: &str = "2.5.29.15";
const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const SUBJECT_KEY_ID: &str = "2.5.29.14";
const AUTHORITY_KEY_ID: &str = "2.5.29.35";
const SUBJECT_ALT_NAME: &str = "2.5.29.17";

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn id() -> SpiffeId {
    trust_domain().member("/app").unwrap()
}

fn names(texts: &[&str]) -> Vec<DnsName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ca_subject() -> Subject {
    Subject {
        country: vec!["US".into()],
        organization: vec!["SPIFFE".into()],
        common_name: Some("Authority".into()),
        ..Subject::default()
    }
}

fn key(kind: KeyType) -> Arc<LocalKey> {
    Arc::new(LocalKey::generate_blocking(kind).unwrap())
}

async fn root(kind: KeyType, now: Timestamp) -> Issuer {
    let key = key(kind);
    let root = self_sign_ca(&*key, &trust_domain(), &ca_subject(), TTL * 24, now).await.unwrap();
    Issuer::root(root, key).unwrap()
}

fn leaf<'t>(id: &'t SpiffeId, public_key: &'t [u8]) -> LeafTemplate<'t> {
    LeafTemplate { id, public_key, dns_names: &[], subject: None, ttl: TTL }
}

fn parse(der: &[u8]) -> Certificate {
    Certificate::from_der(der).unwrap()
}

/// The extensions in order, each with whether it is critical.
fn extensions(certificate: &Certificate) -> Vec<(String, bool)> {
    let extensions = certificate.tbs_certificate().extensions().unwrap();
    extensions.iter().map(|item| (item.extn_id.to_string(), item.critical)).collect()
}

fn in_order(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
    expected.iter().map(|(oid, critical)| ((*oid).to_owned(), *critical)).collect()
}

fn alternative_names(certificate: &Certificate) -> Vec<String> {
    let (_, names) =
        certificate.tbs_certificate().get_extension::<SubjectAltName>().unwrap().unwrap();
    let text = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => format!("DNS:{}", name.as_str()),
        GeneralName::UniformResourceIdentifier(uri) => format!("URI:{}", uri.as_str()),
        other => format!("{other:?}"),
    };
    names.0.iter().map(text).collect()
}

fn key_ids(certificate: &Certificate) -> (Vec<u8>, Option<Vec<u8>>) {
    let tbs = certificate.tbs_certificate();
    let (_, subject) = tbs.get_extension::<SubjectKeyIdentifier>().unwrap().unwrap();
    let authority = tbs.get_extension::<AuthorityKeyIdentifier>().unwrap();
    let authority = authority.map(|(_, id)| {
        assert!(id.authority_cert_issuer.is_none() && id.authority_cert_serial_number.is_none());
        id.key_identifier.unwrap().as_bytes().to_vec()
    });
    (subject.0.as_bytes().to_vec(), authority)
}

fn sha1_of_key(certificate: &Certificate) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let bits = &certificate.tbs_certificate().subject_public_key_info().subject_public_key;
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bits.raw_bytes()).as_ref().to_vec()
}

fn seconds(time: Timestamp) -> u64 {
    time.as_second().try_into().unwrap()
}

fn validity(certificate: &Certificate) -> (u64, u64) {
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    (seconds(validity.not_before), seconds(validity.not_after))
}

/// Whether OpenSSL, strict as it can be, agrees that the chain holds.
fn openssl_verifies(root: &[u8], chain: &[Bytes]) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("root.pem"), certificate_pem(root)).unwrap();
    std::fs::write(directory.path().join("leaf.pem"), certificate_pem(&chain[0])).unwrap();
    let between: String = chain[1..].iter().map(|der| certificate_pem(der)).collect();
    std::fs::write(directory.path().join("between.pem"), &between).unwrap();
    let untrusted = if between.is_empty() { "" } else { "-untrusted between.pem" };
    let arguments = format!("verify -x509_strict -CAfile root.pem {untrusted} leaf.pem");
    assert_eq!(openssl(directory.path(), &arguments), "leaf.pem: OK\n");
}
