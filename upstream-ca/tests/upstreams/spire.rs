//! `spire` against a small SPIRE above.

use std::sync::Arc;

use jiff::SignedDuration;
use spire_core::clock::Clock;
use spire_core::id::TrustDomain;
use spire_core::keys::SigningKey;
use spire_core::upstream::{UpstreamAuthority, UpstreamError};
use spire_upstream_ca::check;
use spire_upstream_ca::spire::PLUGIN;

use crate::above::{Above, jwt_key};
use crate::harness::{Folder, HOUR, build, build_for, domain, key, mint, now, request};

/// An upstream authority below `above`, whose agent is at the folder's socket.
fn below(above: &Above, folder: &Folder, clock: &Clock) -> Arc<dyn UpstreamAuthority> {
    build(&PLUGIN, &settings(above, folder), clock).unwrap()
}

fn settings(above: &Above, folder: &Folder) -> String {
    let (port, socket) = (above.port, folder.path("agent.sock"));
    format!(
        "server_address = \"127.0.0.1\"\nserver_port = \"{port}\"\nworkload_api_socket = {socket:?}\n\
         ttl = \"1h\"\nupstream_bundle = true\nexperimental {{ }}"
    )
}

async fn world() -> (Above, Folder, Clock) {
    let folder = Folder::new();
    (Above::start(folder.path("agent.sock")).await, folder, now())
}

async fn error_of(upstream: &dyn UpstreamAuthority) -> String {
    let csr = request(&key(), &domain()).await;
    upstream.mint(&csr, HOUR).await.unwrap_err().to_string()
}

#[tokio::test]
async fn it_signs_publishes_and_says_what_is_trusted() {
    let (above, folder, clock) = world().await;
    let upstream = below(&above, &folder, &clock);
    let minted = mint(&folder, &*upstream, &clock).await;
    assert_eq!((minted.chain.len(), minted.roots.len()), (1, 1));
    let (first, second) = (jwt_key("a"), jwt_key("b"));
    assert_eq!(upstream.publish_jwt_key(&first).await.unwrap(), std::slice::from_ref(&first));
    let all = upstream.publish_jwt_key(&second).await.unwrap();
    assert_eq!(all, [first, second]);
    above.inner().bundle.sequence_number = 7;
    let bundle = upstream.bundle().await.unwrap();
    assert_eq!((bundle.roots, bundle.jwt_keys), (minted.roots, Some(all)));
    assert_eq!(bundle.sequence_number, 7);
    // One SVID and one connection serve for all of it.
    assert_eq!(above.inner().fetches, 1);
}

#[tokio::test]
async fn a_root_that_changes_is_followed_and_taint_is_told() {
    let (above, folder, clock) = world().await;
    let upstream = below(&above, &folder, &clock);
    let first = mint(&folder, &*upstream, &clock).await;
    above.rotate().await;
    let told = upstream.bundle().await.unwrap().roots;
    assert_eq!(told.len(), 2);
    let second = mint(&folder, &*upstream, &clock).await;
    assert_eq!(second.roots, told);
    above.inner().bundle.x509_authorities[0].tainted = true;
    assert!(upstream.bundle().await.unwrap().roots[0].tainted);
    above.inner().bundle.x509_authorities.remove(0);
    let roots = upstream.bundle().await.unwrap().roots;
    assert!(!roots.iter().any(|root| root.certificate == first.roots[0].certificate));
    // A fresh process finds its way as well.
    mint(&folder, &*below(&above, &folder, &clock), &clock).await;
}

#[tokio::test]
async fn an_svid_is_renewed_at_half_of_its_life() {
    let (above, folder, clock) = world().await;
    let upstream = below(&above, &folder, &clock);
    upstream.bundle().await.unwrap();
    clock.advance(SignedDuration::from_mins(10));
    upstream.bundle().await.unwrap();
    assert_eq!(above.inner().fetches, 1);
    clock.advance(SignedDuration::from_mins(25));
    upstream.bundle().await.unwrap();
    assert_eq!(above.inner().fetches, 2);
}

#[tokio::test]
async fn who_has_no_downstream_entry_is_told_so() {
    let (above, folder, clock) = world().await;
    above.inner().is_downstream = false;
    let upstream = below(&above, &folder, &clock);
    let error = error_of(&*upstream).await;
    assert!(error.contains("must have downstream set"), "{error}");
    assert!(error.contains("code = PermissionDenied"), "{error}");
    above.inner().is_downstream = true;
    mint(&folder, &*upstream, &clock).await;
}

#[tokio::test]
async fn the_server_above_must_be_one() {
    let (above, folder, clock) = world().await;
    above.show("/spire/agent/x").await;
    let upstream = below(&above, &folder, &clock);
    let error = error_of(&*upstream).await;
    assert!(error.contains("not spiffe://example.org/spire/server"), "{error}");
}

#[tokio::test]
async fn an_agent_of_another_trust_domain_has_nothing_to_give() {
    let (above, folder, clock) = world().await;
    let other = TrustDomain::parse("example.com").unwrap();
    let upstream = build_for(&PLUGIN, &settings(&above, &folder), &clock, other).unwrap();
    let error = upstream.bundle().await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "nothing was signed: {error}");
    assert!(error.to_string().contains("its trust domain is example.org"), "{error}");
}

#[tokio::test]
async fn a_bundle_of_no_use_costs_nothing_and_is_asked_for_again_soon() {
    let (above, folder, clock) = world().await;
    let upstream = below(&above, &folder, &clock);
    mint(&folder, &*upstream, &clock).await;
    let roots = std::mem::take(&mut above.inner().bundle.x509_authorities);
    let csr = request(&key(), &domain()).await;
    let (told, signed) = (upstream.bundle().await, upstream.mint(&csr, HOUR).await);
    for error in [told.unwrap_err(), signed.unwrap_err()] {
        assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
        assert!(error.to_string().ends_with("its bundle has no roots"), "{error}");
    }
    above.inner().bundle.x509_authorities = roots;
    mint(&folder, &*upstream, &clock).await;
}

#[tokio::test]
async fn while_above_is_away_calls_fail_and_then_go_on() {
    let folder = Folder::new();
    let clock = now();
    let above = Above::start(folder.path("agent.sock")).await;
    let upstream = below(&above, &folder, &clock);
    mint(&folder, &*upstream, &clock).await;
    above.stop().await;
    std::fs::remove_file(folder.path("agent.sock")).unwrap();
    let error = upstream.bundle().await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
    let absent = below(&above, &folder, &clock);
    let error = error_of(&*absent).await;
    assert!(error.starts_with("the upstream agent: "), "{error}");

    let again = above.start_again(folder.path("agent.sock")).await;
    mint(&folder, &*upstream, &clock).await;
    drop(again);
}

#[tokio::test]
async fn what_is_no_ca_is_refused() {
    let (above, folder, clock) = world().await;
    above.inner().signs_leaves = true;
    let upstream = below(&above, &folder, &clock);
    let key = key();
    let csr = request(&key, &domain()).await;
    let minted = upstream.mint(&csr, HOUR).await.unwrap();
    let error = check(&minted, &key.public_key().spki, &domain(), clock.now()).unwrap_err();
    assert!(error.to_string().contains("no signing certificate"), "{error}");
    // A chain that leads to none of the roots that the server above names.
    above.inner().signs_leaves = false;
    above.sign_by_stranger().await;
    let minted = upstream.mint(&csr, HOUR).await.unwrap();
    let error = check(&minted, &key.public_key().spki, &domain(), clock.now()).unwrap_err();
    assert!(error.to_string().contains("none of the roots"), "{error}");
}

#[test]
fn mistakes_are_named() {
    let settings = "experimental { workload_api_named_pipe_name = \"x\", require_pq_kem = true }";
    let error = build(&PLUGIN, settings, &now()).err().unwrap();
    for sentence in [
        "server_address is required",
        "server_port is required",
        "workload_api_socket is required",
        "workload_api_named_pipe_name is not supported in this platform",
        "require_pq_kem is not supported",
    ] {
        assert!(error.contains(sentence), "{error}");
    }
}
