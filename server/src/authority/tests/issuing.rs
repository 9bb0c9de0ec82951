//! The rules for lifetimes, and what goes into each kind of SVID.

use std::time::Duration;

use spire_core::keys::{KeyType, LocalKey};
use spire_core::svid::jwt;
use spire_core::svid::x509::{CertificateRequest, X509Svid, verify, workload_request};

use super::super::{IssueError, JwtRequest, Kind};
use super::world::{World, entry, id, openssl_verifies, request};

#[tokio::test]
async fn lifetimes_come_from_the_entry_then_the_settings_and_end_with_the_authority() {
    let world = World::new().await;
    let server = world.start().await.unwrap();
    let authority = &server.authority;
    let (now, request) = (world.clock.now(), request("/w").await);
    let lives = |svid: &spire_core::svid::x509::X509Svid| {
        (
            svid.expires_at.duration_since(now).as_secs(),
            svid.not_before.duration_since(now).as_secs(),
        )
    };
    let mut entry = entry("/w");
    assert_eq!(lives(&authority.sign_workload(&request, &entry).await.unwrap()), (20, -10));
    entry.x509_svid_ttl = 77;
    assert_eq!(lives(&authority.sign_workload(&request, &entry).await.unwrap()), (77, -10));
    entry.x509_svid_ttl = u32::MAX;
    assert_eq!(lives(&authority.sign_workload(&request, &entry).await.unwrap()), (180, -10));
    let agent = authority.sign_agent(&request, &id("/spire/agent/x")).await.unwrap();
    assert_eq!(lives(&agent), (25, -10));
    for ttl in [None, Some(Duration::ZERO)] {
        let minted = authority.mint_x509(&request, &id("/m"), &[], ttl).await.unwrap();
        assert_eq!(lives(&minted), (20, -10));
    }
    let minted = authority.mint_x509(&request, &id("/m"), &[], Some(Duration::MAX)).await.unwrap();
    assert_eq!(lives(&minted), (180, -10));
    assert_eq!(minted.id, id("/m"));
}

#[tokio::test]
async fn a_workload_gets_what_its_entry_says_whatever_it_asks() {
    let world = World::new().await;
    let server = world.start().await.unwrap();
    let mut entry = entry("/w");
    entry.dns_names = vec!["a.example.org".parse().unwrap(), "b.example.org".parse().unwrap()];
    let asked = request("/other").await;
    let svid = server.authority.sign_workload(&asked, &entry).await.unwrap();
    assert_eq!(svid.id, id("/w"));
    let verified = verify(&svid.chain, &world.stored().await, world.clock.now()).unwrap();
    assert_eq!(verified, svid);
    let leaf = String::from_utf8_lossy(&svid.chain[0]).into_owned();
    assert!(leaf.contains("a.example.org") && leaf.contains("b.example.org"));
}

#[tokio::test]
async fn x509_01_id_22_23_whatever_is_issued_names_one_id() {
    let world = World::new().await;
    let server = world.start().await.unwrap();
    let (authority, request) = (&server.authority, request("/whatever").await);
    let own = authority.server_svid().borrow().clone().unwrap();
    let agent = authority.sign_agent(&request, &id("/spire/agent/x")).await.unwrap();
    let workload = authority.sign_workload(&request, &entry("/w")).await.unwrap();
    let minted = authority.mint_x509(&request, &id("/m"), &[], None).await.unwrap();
    let below = authority.sign_downstream(&request, None).await.unwrap();
    let root = world.stored().await.x509_authorities[0].certificate.clone();
    for (chain, path) in [
        (own.svid().chain.clone(), "/spire/server"),
        (agent.chain, "/spire/agent/x"),
        (workload.chain, "/w"),
        (minted.chain, "/m"),
        (below, ""),
        (vec![root], ""),
    ] {
        // Reading fails unless there is exactly one URI.
        let svid = X509Svid::from_chain(chain).unwrap();
        assert_eq!(svid.id.to_string(), format!("spiffe://example.org{path}"));
    }
}

#[tokio::test]
async fn a_server_below_gets_a_ca_whose_svids_verify() {
    let world = World::below_upstream().await;
    let server = world.start().await.unwrap();
    let now = world.clock.now();
    let key = std::sync::Arc::new(LocalKey::generate(KeyType::EcP256).await.unwrap());
    let csr = workload_request(&*key, &id("/whatever")).await.unwrap();
    let request = CertificateRequest::parse(&csr).unwrap();
    let chain = server.authority.sign_downstream(&request, None).await.unwrap();
    assert_eq!(chain.len(), 2);
    let text = String::from_utf8_lossy(&chain[0]).into_owned();
    assert!(text.contains("DOWNSTREAM-1"));
    let bundle = world.stored().await;
    assert!(openssl_verifies(&chain, &bundle, now));
    let below = spire_core::svid::x509::Issuer::intermediate(chain, key).unwrap();
    let leaf = spire_core::svid::x509::LeafTemplate {
        id: &id("/w"),
        public_key: &request.public_key,
        dns_names: &[],
        subject: None,
        ttl: Duration::from_secs(10),
    };
    let svid = below.sign_leaf(&leaf, now).await.unwrap();
    verify(&svid.chain, &bundle, now).unwrap();
}

#[tokio::test]
async fn tokens_end_with_their_key_and_carry_what_was_configured() {
    let mut world = World::new().await;
    world.settings.jwt_issuer = Some("https://issuer.example.org".to_owned());
    let server = world.start().await.unwrap();
    let now = world.clock.now();
    let (id, audience) = (id("/w"), ["a".to_owned(), String::new(), "b".to_owned()]);
    let asked = JwtRequest { id: &id, audience: &audience, ttl: None, with_id: true };
    let svid = server.authority.sign_jwt(asked).await.unwrap();
    assert_eq!(svid.expires_at.duration_since(svid.issued_at).as_secs(), 10);
    let bundle = std::sync::Arc::new(world.stored().await);
    let verified = jwt::verify(&svid.token, "b", |_| Some(bundle), now).unwrap();
    assert_eq!((&verified.id, verified.expires_at), (&id, svid.expires_at));
    assert_eq!(verified.claims["iss"], "https://issuer.example.org");
    assert!(verified.claims.contains_key("jti"));
    let long = JwtRequest { ttl: Some(Duration::from_secs(9999)), ..asked };
    let svid = server.authority.sign_jwt(long).await.unwrap();
    let key = server.authority.states(Kind::Jwt).active.clone().unwrap();
    assert_eq!(svid.expires_at, key.expires_at);
    let none = JwtRequest { audience: &[String::new()], ..asked };
    let error = server.authority.sign_jwt(none).await.err().unwrap().to_string();
    assert_eq!(error, "invalid JWT-SVID audience: cannot be empty");
}

#[tokio::test]
async fn tokens_that_are_switched_off_are_refused() {
    let mut world = World::new().await;
    world.settings.disable_jwt_svids = true;
    let server = world.start().await.unwrap();
    let asked = JwtRequest { id: &id("/w"), audience: &["a".into()], ttl: None, with_id: false };
    let error = server.authority.sign_jwt(asked).await.err().unwrap();
    assert!(matches!(error, IssueError::JwtDisabled));
    assert_eq!(error.to_string(), "JWT functionality is disabled");
}
