//! Whatever is issued at any moment holds against the bundle that was published before it.

use jiff::Timestamp;
use spire_core::svid::jwt;
use spire_core::svid::x509::{X509Svid, verify};

use super::super::{JwtRequest, JwtSvid};
use super::world::{World, entry, id, request};

#[tokio::test]
async fn fed_02_04_below_our_own_roots() {
    no_gap(World::new().await).await;
}

#[tokio::test]
async fn fed_02_04_below_an_upstream_that_replaces_its_root() {
    no_gap(World::below_upstream().await).await;
}

/// Turns the clock through a dozen lives of authorities, as slowly as agents fetch bundles.
async fn no_gap(world: World) {
    let mut server = world.start().await.unwrap();
    let request = request("/w").await;
    let mut entry = entry("/w");
    entry.x509_svid_ttl = 60;
    let mut issued: Vec<(X509Svid, JwtSvid)> = Vec::new();
    let mut known = server.authority.bundle().borrow().clone();
    for step in 0..400 {
        world.pass(5);
        if step % 2 == 0 {
            server.look().await;
        }
        if let Some(upstream) = world.upstream.as_ref().filter(|_| step % 60 == 0) {
            upstream.replace_root(std::time::Duration::from_secs(100_000)).await;
        }
        let now = world.clock.now();
        let svid = server.authority.sign_workload(&request, &entry).await.unwrap();
        let asked = JwtRequest {
            id: &id("/w"),
            audience: &["a".to_owned()],
            ttl: Some(std::time::Duration::from_secs(60)),
            with_id: false,
        };
        let token = server.authority.sign_jwt(asked).await.unwrap();
        // Whoever checks it may have read the bundle a step ago.
        verify(&svid.chain, &known, now).unwrap();
        jwt::verify(&token.token, "a", |_| Some(known.clone()), now).unwrap();
        known = server.authority.bundle().borrow().clone();

        issued.push((svid, token));
        issued.retain(|(svid, token)| alive(svid.expires_at.min(token.expires_at), now));
        for (svid, token) in &issued {
            verify(&svid.chain, &known, now).unwrap();
            jwt::verify(&token.token, "a", |_| Some(known.clone()), now).unwrap();
        }
        // What is left of an authority's life is never less than its last sixth.
        assert!(issued.len() >= 5 || step < 5, "{} alive at step {step}", issued.len());
    }
    assert!(known.jwt_authorities.len() > 10);
}

fn alive(until: Timestamp, now: Timestamp) -> bool {
    now < until
}
