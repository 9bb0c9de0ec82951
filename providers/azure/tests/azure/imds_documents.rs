//! `azure_imds`: forged documents, signers that are not who they must be, and issuers that are not
//! where they must be.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use spire_core::clock::Clock;
use spire_core::node::NodeAttestor;
use spire_fakes::azure::{CertificateKind, ISSUER_ADDRESS, Issued, Message, Pki, SignerInfo};
use spire_fakes::http::Trouble;

use crate::support::{Node, Scene, answer_of, assert_outcome, imds_server, imds_tenant, outcome};

/// Attests with the message that `make` makes of a genuine content.
async fn attest(
    scene: &Scene,
    server: &dyn NodeAttestor,
    make: impl Fn(&[u8]) -> Message + Send + 'static,
) -> Result<(String, Vec<String>), spire_core::node::AttestError> {
    attest_from(None, scene, server, make).await
}

/// The same, from an address.
async fn attest_from(
    address: Option<IpAddr>,
    scene: &Scene,
    server: &dyn NodeAttestor,
    make: impl Fn(&[u8]) -> Message + Send + 'static,
) -> Result<(String, Vec<String>), spire_core::node::AttestError> {
    let content = scene.content("NONCE").to_string();
    let mut node =
        Node::made(move |nonce| answer_of(&make(content.replace("NONCE", nonce).as_bytes())));
    node.address = address;
    node.attest(server, b"x").await
}

fn kind() -> CertificateKind {
    CertificateKind::default()
}

#[tokio::test]
async fn z03_a_genuine_certificate_first_and_another_that_signs() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let genuine = scene.azure.pki.issue(&kind()).der;
    for genuine_first in [true, false] {
        let (genuine, forger) = (genuine.clone(), Pki::new().issue(&kind()));
        let attested = attest(&scene, &*server, move |content| {
            let mut message = Message::signed_by(&forger, content);
            message.certificates.insert(usize::from(!genuine_first), genuine.clone());
            message
        });
        assert_outcome(attested.await, "IA", "signed by the forger");
    }
    // The genuine one is named, and the forger's key signs.
    let (genuine, forger) = (genuine.clone(), Pki::new().issue(&kind()));
    let attested = attest(&scene, &*server, move |content| {
        let mut message = Message::signed_by(&forger, content);
        message.certificates.push(genuine.clone());
        message.signers[0].certificate.clone_from(&genuine);
        message
    });
    assert_outcome(attested.await, "IA", "in the name of the genuine one");
}

#[tokio::test]
async fn z04_none_or_two_signers_or_one_without_certificate() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    for case in ["two", "none", "no certificate", "another certificate"] {
        let signer = scene.azure.pki.issue(&kind());
        let other = scene.azure.pki.issue(&kind()).der;
        let attested = attest(&scene, &*server, move |content| {
            let mut message = Message::signed_by(&signer, content);
            match case {
                "two" => message.signers.push(SignerInfo::of(&signer, content)),
                "none" => message.signers.clear(),
                "no certificate" => message.certificates.clear(),
                _ => message.certificates = vec![other.clone()],
            }
            message
        });
        assert_outcome(attested.await, "IA", case);
    }
}

#[tokio::test]
async fn z05_two_certificates_of_one_issuer_and_serial() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let same = CertificateKind { serial: Some(vec![7; 8]), ..kind() };
    let genuine = scene.azure.pki.issue(&same).der;
    for genuine_first in [true, false] {
        let (genuine, forger) = (genuine.clone(), Pki::new().issue(&same));
        let attested = attest(&scene, &*server, move |content| {
            let mut message = Message::signed_by(&forger, content);
            message.certificates.insert(usize::from(!genuine_first), genuine.clone());
            message
        });
        assert_outcome(attested.await, "IA", "an ambiguous signer");
    }
    let forger = Pki::new().issue(&same);
    let attested = attest(&scene, &*server, move |content| Message::signed_by(&forger, content));
    assert_outcome(attested.await, "IA", "the forger alone");
}

#[tokio::test]
async fn z06_names_that_look_alike() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let address: IpAddr = "169.254.169.254".parse().unwrap();
    for (names, ip_address, expected) in [
        (vec!["metadata.azure.com"], None, "A"),
        (vec!["MetaData.Azure.com"], None, "A"),
        (vec!["metadata.azure.com.evil.example"], None, "IA"),
        (vec!["evilmetadata.azure.com"], None, "IA"),
        (vec!["azure.com"], None, "IA"),
        (vec!["*.metadata.azure.com"], None, "A"),
        (vec![], None, "IA"),
        (vec![], Some(address), "IA"),
    ] {
        let dns_names = names.iter().map(|name| (*name).to_owned()).collect();
        let kind = CertificateKind { dns_names, ip_address, ..kind() };
        let signer = scene.azure.pki.issue(&kind);
        let attested =
            attest(&scene, &*server, move |content| Message::signed_by(&signer, content));
        assert_outcome(attested.await, expected, &format!("{names:?}"));
    }
}

#[tokio::test]
async fn z07_chains_that_do_not_hold() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let hours = |from: i64, to: i64| CertificateKind { hours: (from, to), ..kind() };
    for (kind, expected, what) in [
        (kind(), "A", "an extra root"),
        (CertificateKind { large_key: true, ..kind() }, "A", "a larger key"),
        (hours(48, -1), "IA", "expired"),
        (hours(-1, 48), "IA", "not yet valid"),
        (CertificateKind { server_auth: false, ..kind() }, "IA", "no serverAuth"),
        (CertificateKind { is_ca: true, ..kind() }, "IA", "a CA"),
    ] {
        let signer = scene.azure.pki.issue(&kind);
        let attested =
            attest(&scene, &*server, move |content| Message::signed_by(&signer, content));
        assert_outcome(attested.await, expected, what);
    }
    // Without the operator's root there are Microsoft's alone.
    let text =
        scene.azure.server_endpoints_with_issuers() + &imds_tenant(spire_fakes::azure::DOMAIN, "");
    let strict = imds_server(&text, Clock::system()).await.unwrap();
    let signer = scene.azure.pki.issue(&kind());
    let attested = attest(&scene, &*strict, move |content| Message::signed_by(&signer, content));
    assert_outcome(attested.await, "IA", "a root outside of the set");
}

#[tokio::test]
async fn z08_issuers_that_are_elsewhere() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    for address in [
        Some("http://www.microsoft.com.evil/a"),
        Some("http://www.microsoft.com:8443/a"),
        Some("http://www.microsoft.com@evil/a"),
        Some("http://[::1]/a"),
        Some("file:///etc/passwd"),
        Some("ldap://www.microsoft.com/a"),
        Some(""),
        None,
    ] {
        let issuer_address = address.map(str::to_owned);
        let signer = scene.azure.pki.issue(&CertificateKind { issuer_address, ..kind() });
        let attested =
            attest(&scene, &*server, move |content| Message::signed_by(&signer, content));
        assert_outcome(attested.await, "IA", &format!("{address:?}"));
    }
    assert_eq!(scene.azure.issuer_certificates.count(), 0);
}

#[tokio::test]
async fn z08_x17_issuers_that_answer_badly() {
    let scene = Scene::new().await;
    let other =
        spire_fakes::http::HttpServer::start(|_| spire_fakes::http::text(http::StatusCode::OK, ""))
            .await;
    let large = Bytes::from(vec![0x30; 8 << 20]);
    for trouble in [
        Trouble::Redirect(format!("{}/a", other.url())),
        Trouble::Body(large),
        Trouble::Body("<html>".into()),
        Trouble::Body(Bytes::new()),
        Trouble::Reset,
        Trouble::Hang,
    ] {
        let server = scene.imds("", "").await;
        scene.azure.issuer_certificates.fail_next(1, trouble.clone());
        let began = std::time::Instant::now();
        let signer = scene.azure.pki.issue(&kind());
        let attested =
            attest(&scene, &*server, move |content| Message::signed_by(&signer, content));
        assert_outcome(attested.await, "IA", &format!("{trouble:.60?}"));
        assert!(began.elapsed() < Duration::from_secs(15));
        let signer = scene.azure.pki.issue(&kind());
        let attested =
            attest(&scene, &*server, move |content| Message::signed_by(&signer, content));
        assert_outcome(attested.await, "A", "the next one");
    }
    assert_eq!(other.count(), 0, "the redirect was followed");
}

#[tokio::test]
async fn z09_many_documents_with_addresses_of_their_own() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let genuine = scene.azure.pki.issue(&kind());
    let attested = attest(&scene, &*server, move |content| Message::signed_by(&genuine, content));
    assert_outcome(attested.await, "A", "the first genuine one");
    let forgers = Pki::new();
    let mut turned_away = 0;
    for number in 0..30 {
        let issuer_address = Some(format!("http://www.microsoft.com/pkiops/certs/{number}.crt"));
        let forger = forgers.issue(&CertificateKind { issuer_address, ..kind() });
        let attested =
            attest(&scene, &*server, move |content| Message::signed_by(&forger, content));
        match outcome(&attested.await) {
            "UNAV" => turned_away += 1,
            other => assert_eq!(other, "IA", "{number}"),
        }
    }
    // How many exactly depends on the time that the forging takes.
    assert!(turned_away > 0, "each of the documents made the server ask");
    assert_eq!(scene.azure.issuer_certificates.count(), 1 + 30 - turned_away);
    let genuine = scene.azure.pki.issue(&kind());
    let attested = attest(&scene, &*server, move |content| Message::signed_by(&genuine, content));
    assert_outcome(attested.await, "A", "a genuine one is not kept out");
}

#[tokio::test]
async fn z09_one_address_uses_up_what_others_need_as_little() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let [stranger, node] = ["192.0.2.1", "192.0.2.2"].map(|one| one.parse().ok());
    let forgers = Pki::new();
    for number in 0..30 {
        let issuer_address = Some(format!("http://www.microsoft.com/pkiops/certs/{number}.crt"));
        let forger = forgers.issue(&CertificateKind { issuer_address, ..kind() });
        let forged = attest_from(stranger, &scene, &*server, move |content| {
            Message::signed_by(&forger, content)
        });
        forged.await.unwrap_err();
    }
    let genuine = scene.azure.pki.issue(&kind());
    let attested =
        attest_from(node, &scene, &*server, move |content| Message::signed_by(&genuine, content));
    assert_outcome(attested.await, "A", "whose issuer was not known before");
}

#[tokio::test]
async fn an_issuer_that_was_proven_is_kept_while_its_host_is_away() {
    let scene = Scene::new().await;
    let clock = Clock::standing_at(Timestamp::now());
    let server = scene.imds_at(clock.clone(), "", "").await;
    let issuers = &scene.azure.issuer_certificates;
    let attest = async |expected: &str, what: &str| {
        // Documents end after some hours, whatever their issuer.
        let signer = scene.azure.pki.issue(&kind());
        let mut content = scene.content("NONCE");
        let ends = clock.now() + SignedDuration::from_hours(1);
        content["timeStamp"]["expiresOn"] =
            ends.strftime("%m/%d/%y %H:%M:%S -0000").to_string().into();
        let content = content.to_string();
        let mut node = Node::made(move |nonce| {
            answer_of(&Message::signed_by(&signer, content.replace("NONCE", nonce).as_bytes()))
        });
        assert_outcome(node.attest(&*server, b"x").await, expected, what);
    };
    attest("A", "the first").await;
    issuers.fail_always(Trouble::Status(http::StatusCode::SERVICE_UNAVAILABLE));
    clock.advance(SignedDuration::from_hours(25));
    attest("A", "a day later").await;
    attest("A", "the next one").await;
    assert_eq!(issuers.count(), 2, "it is asked for again once");
    issuers.fail_always(None);
    clock.advance(SignedDuration::from_hours(25));
    attest("A", "fetched anew").await;
    attest("A", "kept").await;
    assert_eq!(issuers.count(), 3);
}

#[tokio::test]
async fn z10_another_issuer_or_another_form() {
    let scene = Scene::new().await;
    let pki = &scene.azure.pki;
    let issuing = pki.issuing();
    let bundle =
        Message { content: None, certificates: vec![issuing.der.clone()], signers: vec![] };
    let two = format!("{}{}", issuing.pem(), scene.azure.pki.root_pem());
    for (published, expected, what) in [
        (Pki::new().issuing().der.clone(), "IA", "another CA of the same name"),
        (pki.issue(&kind()).der, "IA", "no CA"),
        (issuing.pem().into_bytes(), "A", "PEM"),
        (two.into_bytes(), "IA", "two certificates"),
        (bundle.der(), "IA", "a PKCS#7 bundle"),
        (issuing.der.clone(), "A", "DER"),
    ] {
        let server = scene.imds("", "").await;
        pki.publish(ISSUER_ADDRESS, published);
        let signer = pki.issue(&kind());
        let attested =
            attest(&scene, &*server, move |content| Message::signed_by(&signer, content));
        assert_outcome(attested.await, expected, what);
    }
}

#[tokio::test]
async fn an_issuer_that_was_something_else_is_soon_asked_for_again() {
    let scene = Scene::new().await;
    let (pki, clock) = (&scene.azure.pki, Clock::standing_at(Timestamp::now()));
    let server = scene.imds_at(clock.clone(), "", "").await;
    let attest = async || {
        let signer = pki.issue(&kind());
        self::attest(&scene, &*server, move |content| Message::signed_by(&signer, content)).await
    };
    pki.publish(ISSUER_ADDRESS, Pki::new().issuing().der.clone());
    assert_outcome(attest().await, "IA", "another CA");
    pki.publish(ISSUER_ADDRESS, pki.issuing().der.clone());
    assert_outcome(attest().await, "IA", "what was fetched is kept for a moment");
    clock.advance(SignedDuration::from_mins(1));
    assert_outcome(attest().await, "A", "the genuine one");
    // It is kept from then on, whatever others show.
    let forger = Pki::new().issue(&kind());
    let forged =
        self::attest(&scene, &*server, move |content| Message::signed_by(&forger, content));
    assert_outcome(forged.await, "IA", "a forger with the genuine address");
    clock.advance(SignedDuration::from_mins(10));
    assert_outcome(attest().await, "A", "the genuine one again");
    assert_eq!(scene.azure.issuer_certificates.count(), 2);
}

#[tokio::test]
async fn z20_a_signature_alone() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    for content in [None, Some(Vec::new())] {
        let signer = scene.azure.pki.issue(&kind());
        let attested = attest(&scene, &*server, move |genuine| Message {
            content: content.clone(),
            ..Message::signed_by(&signer, genuine)
        });
        assert_outcome(attested.await, "IA", "no content");
    }
}

#[tokio::test]
async fn mutations_of_a_genuine_message_are_refused() {
    let scene = Scene::new().await;
    let server = scene.imds("", "").await;
    let signer: Issued = scene.azure.pki.issue(&kind());
    let signer = std::sync::Arc::new(signer);
    let length = Message::signed_by(&signer, scene.content(&"n".repeat(32)).to_string().as_bytes());
    let length = length.der().len();
    // Each byte once, except that some lie in what is not looked at: ends of the certificate.
    for at in (0..length).step_by(23) {
        let (content, signer) = (scene.content("NONCE").to_string(), signer.clone());
        let mut node = Node::made(move |nonce| {
            use base64::Engine;
            let content = content.replace("NONCE", nonce);
            let mut der = Message::signed_by(&signer, content.as_bytes()).der();
            der[at] ^= 0x01;
            let signature = base64::engine::general_purpose::STANDARD.encode(der);
            crate::support::answer(&signature)
        });
        assert_outcome(node.attest(&*server, b"x").await, "IA", &format!("byte {at}"));
    }
}

#[tokio::test]
async fn the_genuine_sample_holds_up_to_the_issuer_that_is_not_at_hand() {
    let sample = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../localstack-tests/data/azure-attested-samples/2023-10-westeurope.signature"
    );
    let sample = std::fs::read_to_string(sample).unwrap();
    let scene = Scene::new().await;
    let then: Timestamp = "2023-10-20T00:00:00Z".parse().unwrap();
    let server = scene.imds_at(Clock::standing_at(then), "", "").await;
    let mut paper = Node::new(crate::support::Answerer::Nobody);
    let evidence = crate::support::answer(sample.trim());
    assert_outcome(paper.attest(&*server, &evidence).await, "IA", "no issuer");
    let failed = paper.examination.failed().unwrap();
    assert_eq!(failed.name, "signer's issuer", "{failed:?}");
    let passed: Vec<_> = paper.examination.checks.iter().map(|check| check.name).collect();
    assert!(passed.contains(&"document signature") && passed.contains(&"signer's name"));
}
