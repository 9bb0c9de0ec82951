//! What is a token of Google's and what is not.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::json;
use spire_fakes::gcp::SigningKey;

use crate::world::Outcome::{Accepted, InvalidArgument, PermissionDenied};
use crate::world::{World, attest};

fn header(alg: &str) -> String {
    json!({ "alg": alg, "kid": "google-1", "typ": "JWT" }).to_string()
}

#[tokio::test]
async fn a_token_of_a_node_gives_its_agent_id_and_selectors() {
    let world = World::new().await;
    let verdict = world.attest(&*world.server(""), &world.claims()).await;
    assert_eq!(
        verdict.examination.claimed.as_deref(),
        Some(
            "projects/big-kahuna-123456/zones/us-west1-b/instances/blog-server \
             (7152993111222333444)"
        )
    );
    let found = verdict.found();
    assert_eq!(
        found.agent_id,
        "spiffe://example.org/spire/agent/gcp_iit/big-kahuna-123456/7152993111222333444"
    );
    assert_eq!(
        found.selectors,
        [
            "project-id:big-kahuna-123456",
            "zone:us-west1-b",
            "instance-name:blog-server",
            "sa:123456789-compute@developer.gserviceaccount.com",
        ]
    );
    assert_eq!(world.google.compute.server().count(), 0);
}

#[tokio::test]
async fn g01_algorithm_none_empty_or_missing() {
    let world = World::new().await;
    let server = world.server("");
    let claims = world.claims().to_string();
    let mut headers: Vec<String> = ["none", "None", "NONE", "", "rs256"].map(header).into();
    headers.push(json!({ "kid": "google-1" }).to_string());
    for header in headers {
        let token = world.google.key.sign(&header, &claims);
        attest(&*server, token.as_bytes()).await.is(InvalidArgument, &header);
        let (unsigned, _) = token.rsplit_once('.').unwrap();
        attest(&*server, format!("{unsigned}.").as_bytes()).await.is(InvalidArgument, &header);
    }
}

#[tokio::test]
async fn g02_shared_secret_made_of_the_public_key() {
    let world = World::new().await;
    let server = world.server("");
    let key = &world.google.key;
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(&header("HS256")), part(&world.claims().to_string()));
    for secret in [key.certificate().as_bytes(), key.public_der()] {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, signed.as_bytes()));
        attest(&*server, format!("{signed}.{tag}").as_bytes()).await.is(InvalidArgument, "HS256");
    }
}

#[tokio::test]
async fn g03_other_algorithms_by_the_right_key() {
    let world = World::new().await;
    let server = world.server("");
    for alg in ["RS384", "PS256"] {
        let token = world.google.key.sign(&header(alg), &world.claims().to_string());
        attest(&*server, token.as_bytes()).await.is(InvalidArgument, alg);
    }
}

#[tokio::test]
async fn g05_keys_in_the_header_are_ignored() {
    let world = World::new().await;
    let attacker = SigningKey::generate("google-1");
    let header = json!({
        "alg": "RS256",
        "kid": "google-1",
        "jku": world.google.certificates.server().url(),
        "x5u": world.google.certificates.server().url(),
        "x5c": [attacker.certificate()],
        "jwk": { "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(attacker.public_der()), "e": "AQAB" },
    });
    let token = attacker.sign(&header.to_string(), &world.claims().to_string());
    attest(&*world.server(""), token.as_bytes()).await.is(InvalidArgument, "attacker's key");
    let paths: Vec<String> =
        world.google.certificates.server().requests().into_iter().map(|one| one.path).collect();
    assert_eq!(paths, ["/oauth2/v1/certs"]);
}

#[tokio::test]
async fn g06_a_service_account_signs_for_itself() {
    let world = World::new().await;
    let own = SigningKey::generate("service-account-key");
    let verdict = attest(&*world.server(""), own.token(&world.claims()).as_bytes()).await;
    verdict.is(InvalidArgument, "own key");
    assert_eq!(verdict.failed(), "key of the token");
}

#[tokio::test]
async fn g13_claims_that_stand_twice() {
    let world = World::new().await;
    let server = world.server("");
    let claims = world.claims().to_string();
    let google = world.claims()["google"].to_string();
    for twice in [
        claims.replacen('{', r#"{"aud":"spire-gcp-node-attestor","#, 1),
        claims.replacen('{', &format!(r#"{{"google":{google},"#), 1),
        claims.replacen(r#""zone":"#, r#""zone":"elsewhere","zone":"#, 1),
    ] {
        let token = world.google.key.sign(&header("RS256"), &twice);
        let verdict = attest(&*server, token.as_bytes()).await;
        verdict.is(InvalidArgument, &twice);
        assert!(verdict.error().contains("appears twice"), "{}", verdict.error());
    }
}

/// The payload is the token alone, so that nothing but its header and its claims (G13) could say a
/// thing twice.
#[tokio::test]
async fn x13_a_header_with_a_member_twice_or_in_another_case() {
    let world = World::new().await;
    let server = world.server("");
    let claims = world.claims().to_string();
    for header in [
        r#"{"alg":"RS256","alg":"RS256","kid":"google-1"}"#,
        r#"{"alg":"none","alg":"RS256","kid":"google-1"}"#,
        r#"{"alg":"RS256","kid":"other","kid":"google-1"}"#,
        r#"{"Alg":"RS256","kid":"google-1"}"#,
        r#"{"alg":"RS256","Kid":"google-1"}"#,
    ] {
        let token = world.google.key.sign(header, &claims);
        attest(&*server, token.as_bytes()).await.is(InvalidArgument, header);
    }
    for name in ["aud", "iss", "exp", "google"] {
        let capital = name[..1].to_uppercase() + &name[1..];
        let other = claims.replacen(&format!("\"{name}\":"), &format!("\"{capital}\":"), 1);
        let token = world.google.key.sign(&header("RS256"), &other);
        attest(&*server, token.as_bytes()).await.is(PermissionDenied, &capital);
    }
}

/// A newline is no part of a token; the metadata server sends none.
#[tokio::test]
async fn g14_anything_around_the_token() {
    let world = World::new().await;
    let server = world.server("");
    let token = world.token(&world.claims());
    let parts: Vec<&str> = token.split('.').collect();
    let padded = URL_SAFE.encode(URL_SAFE_NO_PAD.decode(parts[2]).unwrap());
    assert!(padded.ends_with('='));
    for payload in [
        format!("{token}\n"),
        format!(" {token}"),
        format!("\"{token}\""),
        json!({ "token": token }).to_string(),
        format!("{token}.{}", parts[2]),
        format!("{}.{}.{padded}", parts[0], parts[1]),
        parts[..2].join("."),
        String::new(),
    ] {
        attest(&*server, payload.as_bytes()).await.is(InvalidArgument, &payload);
    }
    attest(&*server, token.as_bytes()).await.is(Accepted, "the token itself");
}
