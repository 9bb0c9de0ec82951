//! Certificate requests: what ours say, and what is taken of others'.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]
#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

mod openssl;

use openssl::{Workshop, openssl};
use spire_core::entry::DnsName;
use spire_core::id::{SpiffeId, TrustDomain};
use spire_core::keys::{KeyType, LocalKey, SigningKey};
use spire_core::svid::x509::{
    CertificateRequest, CsrError, Subject, agent_request, ca_request, mint_request,
    workload_request,
};

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn id() -> SpiffeId {
    trust_domain().member("/app").unwrap()
}

fn key(kind: KeyType) -> LocalKey {
    LocalKey::generate_blocking(kind).unwrap()
}

fn names(texts: &[&str]) -> Vec<DnsName> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn requests_say_what_they_were_made_to_say() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = key(kind);
        let request = workload_request(&key, &id()).await.unwrap();
        let parsed = CertificateRequest::parse(&request).unwrap();
        assert_eq!(parsed.uris, ["spiffe://example.org/app"]);
        assert_eq!(parsed.subject, Subject::of_svids());
        assert_eq!(parsed.public_key, key.public_key().spki);
    }
    let key = key(KeyType::EcP256);
    let agent = CertificateRequest::parse(&agent_request(&key).await.unwrap()).unwrap();
    assert!(agent.uris.is_empty() && agent.subject.is_empty());

    let names = names(&["a.example.org", "b.example.org"]);
    let mint = mint_request(&key, &Subject::default(), &names, &id()).await.unwrap();
    let mint = CertificateRequest::parse(&mint).unwrap();
    assert_eq!(mint.dns_names, ["a.example.org", "b.example.org"]);

    let subject = Subject { common_name: Some("Authority".into()), ..Subject::of_svids() };
    let upstream = ca_request(&key, &trust_domain(), &subject).await.unwrap();
    let parsed = CertificateRequest::parse(&upstream).unwrap();
    assert_eq!(parsed.uris, ["spiffe://example.org"]);
    assert!(parsed.subject.serial_number.is_some());
    let workshop = Workshop::new();
    std::fs::write(workshop.file("request.der"), &upstream).unwrap();
    let text = openssl(workshop.path(), "req -inform DER -in request.der -noout -verify -text");
    assert!(text.contains("URI:spiffe://example.org\n"), "{text}");
}

#[tokio::test]
async fn foreign_requests_are_read_and_false_ones_refused() {
    let workshop = Workshop::new();
    for (kind, option) in [
        ("ec", "-pkeyopt ec_paramgen_curve:P-521"),
        ("ed25519", ""),
        ("rsa:3072", ""),
        ("rsa:2048", "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"),
    ] {
        openssl(
            workshop.path(),
            &format!(
                "req -new -newkey {kind} {option} -nodes -subj /C=DE/O=Acme/CN=app -addext \
                 subjectAltName=URI:spiffe://example.org/app,DNS:a.org -outform DER -keyout \
                 foreign.key -out foreign.csr"
            ),
        );
        let request = std::fs::read(workshop.file("foreign.csr")).unwrap();
        let parsed = CertificateRequest::parse(&request).unwrap();
        assert_eq!(parsed.subject.common_name.as_deref(), Some("app"), "{kind}");
        assert_eq!(parsed.uris, ["spiffe://example.org/app"]);
        assert_eq!(parsed.dns_names, ["a.org"]);
    }
    openssl(
        workshop.path(),
        "req -new -newkey rsa:1024 -nodes -subj /CN=app -outform DER -keyout weak.key -out weak",
    );
    let weak = std::fs::read(workshop.file("weak")).unwrap();
    assert_eq!(CertificateRequest::parse(&weak), Err(CsrError::Signature));

    let key = key(KeyType::EcP256);
    let request = workload_request(&key, &id()).await.unwrap().to_vec();
    let mut forged = request.clone();
    let at = forged.windows(4).position(|window| window == b"/app").unwrap();
    forged[at + 1] = b'b';
    assert_eq!(CertificateRequest::parse(&forged), Err(CsrError::Signature));
    let longer = [&request[..], &[0]].concat();
    assert!(matches!(CertificateRequest::parse(&longer), Err(CsrError::Malformed(_))));
    assert_eq!(CertificateRequest::parse(&vec![0x30; 1 << 20]), Err(CsrError::TooLarge));
}
