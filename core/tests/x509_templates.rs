//! What is signed, field by field: read back with x509-cert and with OpenSSL.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]
#![allow(unreachable_pub, dead_code, reason = "both test binaries use a part")]

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

#[tokio::test]
async fn x509_01_13_15_17_18_19_20_the_leaf() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let dns_names = names(&["app.example.org", "*.b.example.org"]);
    let id = id();
    let template = LeafTemplate { dns_names: &dns_names, ..leaf(&id, &key.public_key().spki) };
    let svid = issuer.sign_leaf(&template, now).await.unwrap();
    let certificate = parse(&svid.chain[0]);
    let tbs = certificate.tbs_certificate();

    assert_eq!(svid.chain.len(), 1, "the root is in the bundle");
    assert_eq!(
        extensions(&certificate),
        in_order(&[
            (KEY_USAGE, true),
            (EXTENDED_KEY_USAGE, false),
            (BASIC_CONSTRAINTS, true),
            (SUBJECT_KEY_ID, false),
            (AUTHORITY_KEY_ID, false),
            (SUBJECT_ALT_NAME, false),
        ])
    );
    let (_, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
    assert!(usage.digital_signature() && usage.key_encipherment() && usage.key_agreement());
    assert!(!usage.key_cert_sign() && !usage.crl_sign());
    let (_, purposes) = tbs.get_extension::<ExtendedKeyUsage>().unwrap().unwrap();
    let purposes: Vec<_> = purposes.0.iter().map(ToString::to_string).collect();
    assert_eq!(purposes, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    let (_, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
    assert!(!constraints.ca);
    assert_eq!(
        alternative_names(&certificate),
        ["DNS:app.example.org", "DNS:*.b.example.org", "URI:spiffe://example.org/app"]
    );
    let root = parse(issuer.certificate());
    assert_eq!(key_ids(&certificate), (sha1_of_key(&certificate), Some(sha1_of_key(&root))));
    assert_eq!(tbs.issuer(), root.tbs_certificate().subject());
    assert_eq!(validity(&certificate), (seconds(now) - 10, seconds(now) + 3600));
    assert_eq!((seconds(svid.not_before), seconds(svid.expires_at)), validity(&certificate));
    assert!(!tbs.serial_number().as_bytes().is_empty() && svid.serial != "0");
    assert_eq!(tbs.subject_public_key_info().to_der().unwrap(), key.public_key().spki);

    let mut bundle = Bundle::empty(trust_domain());
    let root = X509Authority::trusted(issuer.certificate().clone()).unwrap();
    bundle.x509_authorities.push(root);
    assert_eq!(verify(&svid.chain, &bundle, now).unwrap(), svid);
    openssl_verifies(issuer.certificate(), &svid.chain);
}

#[tokio::test]
async fn openssl_reads_what_was_meant() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let id = id();
    let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let print = |der: &[u8], options: &str| {
        std::fs::write(directory.path().join("c.pem"), certificate_pem(der)).unwrap();
        openssl(directory.path(), &format!("x509 -in c.pem -noout {options}"))
    };
    let serial = print(&svid.chain[0], "-serial");
    let hexadecimal = serial.trim().strip_prefix("serial=").unwrap();
    assert_eq!(u128::from_str_radix(hexadecimal, 16).unwrap().to_string(), svid.serial);
    assert_eq!(print(&svid.chain[0], "-subject -nameopt RFC2253").trim(), "subject=O=SPIRE,C=US");

    let text = print(issuer.certificate(), "-text -nameopt RFC2253,sname");
    let serial = print(issuer.certificate(), "-serial");
    let serial = u128::from_str_radix(serial.trim().strip_prefix("serial=").unwrap(), 16).unwrap();
    let subject = format!("serialNumber={serial},CN=Authority,O=SPIFFE,C=US");
    assert!(text.contains(&format!("Subject: {subject}")), "{text}");
    assert!(text.contains(&format!("Issuer: {subject}")), "{text}");
    let mut rest = text.as_str();
    for line in [
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Basic Constraints: critical\n                CA:TRUE\n",
        "X509v3 Subject Key Identifier: \n",
        "X509v3 Subject Alternative Name: \n                URI:spiffe://example.org\n",
    ] {
        rest = &rest[rest.find(line).unwrap_or_else(|| panic!("{line} is missing in {text}"))..];
    }
    assert!(!text.contains("Authority Key Identifier"), "{text}");
}

#[tokio::test]
async fn x509_07_08_09_10_12_14_15_16_21_id_22_23_the_authorities() {
    let now = Timestamp::now();
    let root = root(KeyType::EcP384, now).await;
    let key = key(KeyType::EcP256);
    let subject = root.downstream_subject();
    let template = CaTemplate {
        trust_domain: &trust_domain(),
        public_key: &key.public_key().spki,
        subject: &subject,
        ttl: TTL,
    };
    let chain = root.sign_ca(&template, now).await.unwrap();
    assert_eq!(chain.len(), 1);
    let root_certificate = parse(root.certificate());
    let certificate = parse(&chain[0]);
    assert_eq!(
        extensions(&root_certificate),
        in_order(&[
            (KEY_USAGE, true),
            (BASIC_CONSTRAINTS, true),
            (SUBJECT_KEY_ID, false),
            (SUBJECT_ALT_NAME, false),
        ])
    );
    assert_eq!(
        extensions(&certificate),
        in_order(&[
            (KEY_USAGE, true),
            (BASIC_CONSTRAINTS, true),
            (SUBJECT_KEY_ID, false),
            (AUTHORITY_KEY_ID, false),
            (SUBJECT_ALT_NAME, false),
        ])
    );
    for authority in [&root_certificate, &certificate] {
        let tbs = authority.tbs_certificate();
        let (_, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        let (_, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
        assert!(constraints.ca && constraints.path_len_constraint.is_none());
        assert_eq!(alternative_names(authority), ["URI:spiffe://example.org"]);
    }
    let root_key = sha1_of_key(&root_certificate);
    assert_eq!(key_ids(&root_certificate), (root_key.clone(), None));
    assert_eq!(root.authority_id(), hex::encode(&root_key));
    assert_eq!(key_ids(&certificate).1, Some(root_key));

    let serial = root_certificate.tbs_certificate().serial_number().as_bytes();
    let serial = serial.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    assert_eq!(subject.serial_number, Some(serial.to_string()));
    assert_eq!(
        certificate.tbs_certificate().subject().to_string(),
        format!("SERIALNUMBER={serial},CN=Authority,OU=DOWNSTREAM-1,O=SPIFFE,C=US")
            .replace("SERIALNUMBER", "2.5.4.5")
            .replace(&format!("2.5.4.5={serial}"), &serial_in_name(&certificate))
    );

    let intermediate = Issuer::intermediate(chain.clone(), key.clone()).unwrap();
    assert_eq!(intermediate.downstream_subject().organizational_unit, ["DOWNSTREAM-1"]);
    let below = intermediate.sign_ca(&template, now).await.unwrap();
    assert_eq!(below.len(), 2);
    assert_eq!(below[1], chain[0]);
    let below = Issuer::intermediate(below, key.clone()).unwrap();
    assert_eq!(below.downstream_subject().organizational_unit, ["DOWNSTREAM-2"]);

    let id = id();
    let svid = intermediate.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    assert_eq!(svid.chain[1..], chain);
    openssl_verifies(root.certificate(), &svid.chain);
}

/// How x509-cert prints the attribute, whichever name it has for it.
fn serial_in_name(certificate: &Certificate) -> String {
    let name = certificate.tbs_certificate().subject().to_string();
    name.split(',').next().unwrap().to_owned()
}

#[tokio::test]
async fn every_kind_of_key_signs_with_its_algorithm() {
    let now = Timestamp::now();
    let id = id();
    for (kind, algorithm) in [
        (KeyType::EcP256, "1.2.840.10045.4.3.2"),
        (KeyType::EcP384, "1.2.840.10045.4.3.3"),
        (KeyType::Rsa2048, "1.2.840.113549.1.1.11"),
    ] {
        let issuer = root(kind, now).await;
        let key = key(kind);
        let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
        let certificate = parse(&svid.chain[0]);
        assert_eq!(certificate.signature_algorithm().oid.to_string(), algorithm);
        assert_eq!(certificate.tbs_certificate().signature(), certificate.signature_algorithm());
        openssl_verifies(issuer.certificate(), &svid.chain);
    }
    let workshop = Workshop::new();
    openssl(
        workshop.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -subj /CN=p521 -days 1 \
         -addext keyUsage=critical,keyCertSign \
         -keyout p521.key -out p521.pem",
    );
    let key = Arc::new(LocalKey::from_pem(&workshop.key("p521")).unwrap());
    let issuer = Issuer::root(workshop.der("p521"), key.clone()).unwrap();
    let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    let algorithm = parse(&svid.chain[0]).signature_algorithm().oid.to_string();
    assert_eq!(algorithm, "1.2.840.10045.4.3.4");
    openssl_verifies(issuer.certificate(), &svid.chain);
}

#[tokio::test]
async fn nothing_outlives_its_issuer() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let id = id();
    let template = LeafTemplate { ttl: Duration::MAX, ..leaf(&id, &key.public_key().spki) };
    let svid = issuer.sign_leaf(&template, now).await.unwrap();
    assert_eq!(svid.expires_at, issuer.expires_at());
    let later = issuer.expires_at() + SignedDuration::from_secs(11);
    let error = issuer.sign_leaf(&template, later).await.unwrap_err().to_string();
    assert!(error.starts_with("the signing authority expired at "), "{error}");
}

#[tokio::test]
async fn x509_06_where_there_is_no_subject_the_alternative_name_is_critical() {
    let now = Timestamp::now();
    let root = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let empty = Subject::default();
    let template = CaTemplate {
        trust_domain: &trust_domain(),
        public_key: &key.public_key().spki,
        subject: &empty,
        ttl: TTL,
    };
    let chain = root.sign_ca(&template, now).await.unwrap();
    let authority = parse(&chain[0]);
    assert!(authority.tbs_certificate().subject().is_empty());
    assert!(extensions(&authority).contains(&(SUBJECT_ALT_NAME.to_owned(), true)));
    // Leaves get the subject of SVIDs instead of none.
    let id = id();
    let leaf = LeafTemplate { subject: Some(&empty), ..leaf(&id, &key.public_key().spki) };
    let svid = root.sign_leaf(&leaf, now).await.unwrap();
    let leaf = parse(&svid.chain[0]);
    assert!(!leaf.tbs_certificate().subject().is_empty());
    assert!(extensions(&leaf).contains(&(SUBJECT_ALT_NAME.to_owned(), false)));
}

#[tokio::test]
async fn id_17_x509_and_jwt_svids_carry_ids_of_2048_bytes() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let longest = "a".repeat(2048 - "spiffe://example.org/".len());
    let id = trust_domain().member(&format!("/{longest}")).unwrap();
    let svid = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap();
    let mut bundle = Bundle::empty(trust_domain());
    let root = X509Authority::trusted(issuer.certificate().clone()).unwrap();
    bundle.x509_authorities.push(root);
    assert_eq!(verify(&svid.chain, &bundle, now).unwrap().id, id);
    openssl_verifies(issuer.certificate(), &svid.chain);

    bundle.jwt_authorities.push(JwtAuthority {
        key_id: "kid".to_owned(),
        public_key: key.public_key().spki.clone(),
        expires_at: None,
        tainted: false,
    });
    let claims = jwt::Claims {
        subject: &id,
        audience: &["a".to_owned()],
        issued_at: now,
        expires_at: now + SignedDuration::from_mins(5),
        issuer: None,
        with_id: false,
    };
    let token = jwt::sign(&*key, "kid", &claims).await.unwrap();
    assert_eq!(jwt::verify(&token, "a", |_| Some(&bundle), now).unwrap().id, id);
}

#[tokio::test]
async fn x509_05_a_leaf_needs_a_path() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let id = trust_domain().id();
    let key = key(KeyType::EcP256);
    let error = issuer.sign_leaf(&leaf(&id, &key.public_key().spki), now).await.unwrap_err();
    assert_eq!(error.to_string(), "spiffe://example.org has no path");
}

#[tokio::test]
async fn subjects_follow_the_request_and_the_first_dns_name() {
    let now = Timestamp::now();
    let issuer = root(KeyType::EcP256, now).await;
    let key = key(KeyType::EcP256);
    let dns_names = names(&["first.example.org", "second.example.org"]);
    let asked = Subject {
        organization: vec!["Acme".into()],
        common_name: Some("app".into()),
        ..Subject::default()
    };
    let id = id();
    let empty = Subject::default();
    for (subject, dns_names, expected) in [
        (None, &dns_names[..0], "O=SPIRE,C=US"),
        (None, &dns_names[..], "CN=first.example.org,O=SPIRE,C=US"),
        (Some(&empty), &dns_names[..0], "O=SPIRE,C=US"),
        (Some(&asked), &dns_names[..0], "CN=app,O=Acme"),
        (Some(&asked), &dns_names[..], "CN=first.example.org,O=Acme"),
    ] {
        let template = LeafTemplate { subject, dns_names, ..leaf(&id, &key.public_key().spki) };
        let svid = issuer.sign_leaf(&template, now).await.unwrap();
        let certificate = parse(&svid.chain[0]);
        assert_eq!(certificate.tbs_certificate().subject().to_string(), expected);
    }
}

#[tokio::test]
async fn an_issuer_needs_its_own_key() {
    let issuer = root(KeyType::EcP256, Timestamp::now()).await;
    let error = Issuer::root(issuer.certificate().clone(), key(KeyType::EcP256)).unwrap_err();
    assert_eq!(error.to_string(), "certificate and private key do not match");
}
