//! Google's keys: when they are fetched, and what is made of what comes.

use bytes::Bytes;
use futures::future::join_all;
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::json;
use spire_fakes::gcp::SigningKey;
use spire_fakes::http::{HttpServer, Trouble, text};

use crate::world::Outcome::{Accepted, InvalidArgument, Unavailable};
use crate::world::{World, attest};

#[tokio::test]
async fn g04_keys_that_are_unknown_missing_withdrawn_or_ambiguous() {
    let world = World::new().await;
    let server = world.server("");
    let (certificates, claims) = (&world.google.certificates, world.claims());
    let fetches = || certificates.server().count();
    world.attest(&*server, &claims).await.is(Accepted, "known");

    let no_key = world.google.key.sign(r#"{"alg":"RS256"}"#, &claims.to_string());
    attest(&*server, no_key.as_bytes()).await.is(InvalidArgument, "no kid");
    assert_eq!(fetches(), 1);

    let other = SigningKey::generate("google-2");
    world.clock.advance(SignedDuration::from_secs(30));
    for _ in 0..5 {
        let token = other.token(&claims);
        attest(&*server, token.as_bytes()).await.is(InvalidArgument, "unknown kid");
    }
    assert_eq!(fetches(), 2, "an unknown key is looked for once");

    certificates.publish(&[&other]);
    world.clock.advance(SignedDuration::from_secs(30));
    attest(&*server, other.token(&claims).as_bytes()).await.is(Accepted, "the next key");
    assert_eq!(fetches(), 3);
    world.attest(&*server, &claims).await.is(InvalidArgument, "withdrawn");

    let double = SigningKey::generate("google-1");
    certificates.publish(&[&world.google.key, &double, &other]);
    world.clock.advance(SignedDuration::from_secs(30));
    world.attest(&*server, &claims).await.is(InvalidArgument, "two keys of one ID");
    attest(&*server, double.token(&claims).as_bytes()).await.is(InvalidArgument, "the second");
    attest(&*server, other.token(&claims).as_bytes()).await.is(Accepted, "the other one");
}

#[tokio::test]
async fn g19_keys_without_a_lifetime_and_keys_that_cannot_be_renewed() {
    let world = World::new().await;
    let certificates = &world.google.certificates;
    for headers in [&[][..], &[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], &[("expires", "0")]] {
        certificates.send_headers(headers);
        let server = world.server("");
        let before = certificates.server().count();
        for _ in 0..20 {
            world.attest(&*server, &world.claims()).await.is(Accepted, "kept for a while");
        }
        assert_eq!(certificates.server().count() - before, 1, "{headers:?}");
        certificates.server().fail_always(Trouble::Status(StatusCode::NOT_FOUND));
        world.clock.advance(SignedDuration::from_mins(6));
        world.attest(&*server, &world.claims()).await.is(Accepted, "used on");
        assert_eq!(certificates.server().count() - before, 2, "{headers:?}");
        certificates.server().fail_always(None);
        world.clock.advance(SignedDuration::from_mins(-6));
    }
}

#[tokio::test]
async fn g20_certificates_that_cannot_be_read() {
    let world = World::new().await;
    let key = &world.google.key;
    let elliptic = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let elliptic = rcgen::CertificateParams::default().self_signed(&elliptic).unwrap().pem();
    world.google.certificates.publish_texts(&[
        ("no-pem", "certificate"),
        ("empty", ""),
        ("elliptic", &elliptic),
        (key.id(), key.certificate()),
        ("broken", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
    ]);
    let server = world.server("");
    world.attest(&*server, &world.claims()).await.is(Accepted, "the good one");
    for id in ["no-pem", "empty", "elliptic", "broken"] {
        let header = json!({ "alg": "RS256", "kid": id }).to_string();
        let token = key.sign(&header, &world.claims().to_string());
        attest(&*server, token.as_bytes()).await.is(InvalidArgument, id);
    }
}

#[tokio::test]
async fn x16_two_hundred_nodes_at_once_need_one_set_of_keys() {
    let world = World::new().await;
    let server = world.server("");
    world.google.certificates.server().delay(std::time::Duration::from_millis(100));
    let claims = world.claims();
    let verdicts = join_all((0..200).map(|_| world.attest(&*server, &claims))).await;
    verdicts.iter().for_each(|verdict| verdict.is(Accepted, "one of many"));
    assert_eq!(world.google.certificates.server().count(), 1);
}

#[tokio::test]
async fn x17_a_key_endpoint_that_gives_no_keys() {
    let world = World::new().await;
    let certificates = world.google.certificates.server();
    let elsewhere = HttpServer::start(|_| text(StatusCode::OK, "{}")).await;
    for (trouble, outcome) in [
        (Trouble::Body(Bytes::from_static(b"<html>sign in</html>")), Unavailable),
        (Trouble::Body(Bytes::from_static(b"{}")), InvalidArgument),
        (Trouble::Body(Bytes::from_static(b"[]")), Unavailable),
        (Trouble::Body(Bytes::from(vec![b' '; 100 << 20])), Unavailable),
        (Trouble::Redirect(elsewhere.url()), Unavailable),
        (Trouble::Status(StatusCode::NOT_FOUND), Unavailable),
    ] {
        let server = world.server("");
        certificates.fail_next(1, trouble.clone());
        let verdict = world.attest(&*server, &world.claims()).await;
        verdict.is(outcome, &format!("{:.80}", format!("{trouble:?}")));
        assert_eq!(verdict.failed(), "key of the token");
        // Nothing is left of it.
        world.clock.advance(SignedDuration::from_secs(30));
        world.attest(&*server, &world.claims()).await.is(Accepted, "healthy again");
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn a_busy_key_endpoint_is_asked_again() {
    let world = World::new().await;
    let certificates = world.google.certificates.server();
    certificates.fail_next(1, Trouble::Status(StatusCode::SERVICE_UNAVAILABLE));
    certificates.fail_next(1, Trouble::Reset);
    world.attest(&*world.server(""), &world.claims()).await.is(Accepted, "the third time");
    assert_eq!(certificates.count(), 3);
}
