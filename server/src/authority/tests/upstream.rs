//! Below an upstream authority.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spire_core::bundle::{Bundle, X509Authority};
use spire_core::svid::x509::verify;
use spire_core::tasks::Tasks;
use spire_core::telemetry::health::Health;
use spire_core::upstream::UpstreamBundle;

use super::super::slots::SlotId;
use super::super::x509_ca::X509Ca;
use super::super::{Authority, Kind};
use super::log::Warnings;
use super::world::{
    CA_TTL, FakeUpstream, Obstacle, Server, World, domain, entry, openssl_verifies, request,
};
use crate::health;

#[tokio::test]
async fn its_roots_are_in_the_bundle_and_its_chain_in_the_svid() {
    let world = World::below_upstream().await;
    let server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    let bundle = world.stored().await;
    assert_eq!(bundle.x509_authorities.len(), 1);
    assert_eq!(bundle.x509_authorities[0].certificate, upstream.root());
    assert_eq!(bundle.jwt_authorities.len(), 1);
    let svid = server.authority.sign_workload(&request("/w").await, &entry("/w")).await.unwrap();
    assert_eq!(svid.chain.len(), 2);
    verify(&svid.chain, &bundle, world.clock.now()).unwrap();
    assert!(openssl_verifies(&svid.chain, &bundle, world.clock.now()));
    let active = server.authority.states(Kind::X509).active.clone().unwrap();
    assert_eq!(active.upstream_authority_id.map(|id| id.len()), Some(40));

    // A restart buys no other certificate.
    let again = world.start().await.unwrap();
    let states = again.authority.states(Kind::X509);
    assert_eq!(states.active.as_ref().unwrap().authority_id, active.authority_id);
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn while_it_is_away_the_authority_in_use_goes_on() {
    let world = World::below_upstream().await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    let first = server.authority.states(Kind::X509).active.clone().unwrap();

    upstream.away.store(true, Ordering::Relaxed);
    world.pass(90);
    server.look().await;
    // Half of the rest of its life passes before anyone is called.
    assert!(server.authority.rotation_failure().is_none());
    assert_eq!(server.authority.states(Kind::X509).active.as_ref(), Some(&first));
    server.authority.sign_workload(&request("/w").await, &entry("/w")).await.unwrap();

    // It is not asked at every look, but before the active one ends it is.
    upstream.away.store(false, Ordering::Relaxed);
    server.look().await;
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 1);
    world.pass(12);
    server.look().await;
    assert!(server.authority.rotation_failure().is_none());
    assert!(server.authority.states(Kind::X509).prepared.is_some());
}

#[tokio::test]
async fn what_it_signed_is_used_when_it_can_be_stored_and_not_bought_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datastore.sqlite3");
    let mut world = World::below_upstream().await;
    world.keep_in(&path).await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    let key = async || {
        let key = world.keys.key(&X509Ca::key_id(SlotId::B)).await.unwrap();
        key.map(|key| key.public_key().spki.clone())
    };

    upstream.away.store(true, Ordering::Relaxed);
    world.pass(90);
    server.look().await;
    let asked_for = key().await;
    assert!(asked_for.is_some());
    upstream.away.store(false, Ordering::Relaxed);
    // The root is new, so that the bundle is written before the journal.
    upstream.replace_root(Duration::from_secs(100_000)).await;
    for table in ["bundles", "ca_journals"] {
        let obstacle = Obstacle::before(table, &path).await;
        world.pass(15);
        server.look().await;
        assert!(server.authority.states(Kind::X509).prepared.is_none());
        assert_eq!(upstream.mints.load(Ordering::Relaxed), 2);
        obstacle.remove().await;
    }
    world.pass(15);
    server.look().await;
    let states = server.authority.states(Kind::X509);
    // Its time begins when others can learn its root.
    assert_eq!(states.prepared.as_ref().unwrap().issued_at, world.clock.now());
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 2);
    assert_eq!(key().await, asked_for);
    assert_eq!(world.stored().await.x509_authorities.len(), 2);
}

#[tokio::test]
async fn from_half_of_what_is_left_on_somebody_is_called_and_it_still_goes_on() {
    let world = World::below_upstream().await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    upstream.away.store(true, Ordering::Relaxed);
    world.pass(90);
    for second in 90..180 {
        server.look().await;
        let failure = server.authority.rotation_failure();
        // The pause after a failure at 134 s may end ten seconds later.
        assert!(failure.is_none() || second >= 135, "{second}");
        assert!(failure.is_some() || second < 145, "{second}");
        if let Some(failure) = &failure {
            let start = "an authority in use ends at ";
            assert!(failure.starts_with(start) && failure.ends_with(": gone fishing"), "{failure}");
        }
        server.authority.check_signing().await.unwrap();
        let health = health(&world, &server, "server.ca.rotator").await;
        assert_eq!(health.details.is_empty(), failure.is_none(), "{second}");
        assert!(health.live && health.ready, "{second}: nothing fails before the end");
        world.pass(1);
    }
    server.authority.check_signing().await.unwrap_err();
    for (name, error) in
        [("server.ca.rotator", "rotation_err"), ("server.ca", "sign_x509_svid_err")]
    {
        let health = health(&world, &server, name).await;
        assert!(!health.ready && health.details.contains_key(error), "{name}");
        assert!(health.live, "{name}: a restart would mend nothing");
    }
}

/// What operators are told of a subsystem.
async fn health(world: &World, server: &Server, name: &str) -> Health {
    let checks = health::checks(&domain(), &server.authority, &world.store);
    let (_, check) = checks.iter().find(|(known, _)| *known == name).unwrap();
    check.check().await
}

#[tokio::test]
async fn a_start_without_it_needs_a_ca_from_before() {
    let world = World::below_upstream().await;
    let upstream = world.upstream.clone().unwrap();
    upstream.away.store(true, Ordering::Relaxed);
    let error = world.start().await.err().unwrap().to_string();
    assert_eq!(error, "unable to prepare an authority: upstream authority: gone fishing");
    // JWT keys wait for the X.509 authority.
    assert!(world.store.bundle(&domain()).await.unwrap().is_none());

    upstream.away.store(false, Ordering::Relaxed);
    world.start().await.unwrap();
    upstream.away.store(true, Ordering::Relaxed);
    world.pass(140);
    let server = world.start().await.unwrap();
    assert!(server.authority.rotation_failure().is_some());
    server.authority.check_signing().await.unwrap();
}

#[tokio::test]
async fn a_ca_that_has_ended_signs_nothing_and_is_replaced_when_the_upstream_is_back() {
    let world = World::below_upstream().await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    upstream.away.store(true, Ordering::Relaxed);
    world.pass(180);
    server.look().await;
    let refusal = server.authority.check_signing().await.unwrap_err().to_string();
    assert_eq!(refusal, "X509 CA is not available for signing");
    upstream.away.store(false, Ordering::Relaxed);
    world.pass(10);
    server.look().await;
    server.authority.check_signing().await.unwrap();
}

#[tokio::test]
async fn a_replaced_root_joins_the_one_before() {
    let world = World::below_upstream().await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    let request = request("/w").await;
    let mut long = entry("/w");
    long.x509_svid_ttl = 1000;
    let before = server.authority.sign_workload(&request, &long).await.unwrap();
    upstream.replace_root(Duration::from_secs(100_000)).await;
    world.pass(90);
    server.look().await;
    let bundle = world.stored().await;
    assert_eq!(bundle.x509_authorities.len(), 2);
    world.pass(60);
    server.look().await;
    let after = server.authority.sign_workload(&request, &long).await.unwrap();
    for svid in [before, after] {
        verify(&svid.chain, &bundle, world.clock.now()).unwrap();
    }
}

#[tokio::test]
async fn one_that_has_expired_is_refused() {
    let mut world = World::new().await;
    let upstream = FakeUpstream::new(world.clock.clone(), Duration::from_secs(5)).await;
    world.upstream = Some(Arc::new(upstream));
    world.pass(6);
    let error = world.start().await.err().unwrap().to_string();
    assert!(error.contains("expired at"), "{error}");
}

#[tokio::test]
async fn one_that_ends_soon_is_reported_and_not_asked_faster_and_faster() {
    let mut world = World::new().await;
    let upstream = Arc::new(FakeUpstream::new(world.clock.clone(), CA_TTL).await);
    world.upstream = Some(upstream.clone());
    let mut server = world.start().await.unwrap();
    world.pass(90);
    server.look().await;
    assert!(server.authority.rotation_failure().is_none());
    world.pass(45);
    server.look().await;
    let failure = server.authority.rotation_failure().unwrap();
    assert!(failure.contains("renew the upstream CA"), "{failure}");
    assert!(server.authority.states(Kind::X509).prepared.is_none());
    upstream.replace_root(Duration::from_secs(100_000)).await;
    world.pass(12);
    server.look().await;
    assert!(server.authority.states(Kind::X509).prepared.is_some());
}

#[tokio::test]
async fn one_that_tells_its_end_is_not_paid_for_what_ends_too_soon() {
    let mut world = World::new().await;
    let upstream = Arc::new(FakeUpstream::new(world.clock.clone(), CA_TTL).await);
    upstream.tells_its_end.store(true, Ordering::Relaxed);
    world.upstream = Some(upstream.clone());
    let mut server = world.start().await.unwrap();
    world.pass(90);
    for _ in 90..150 {
        server.look().await;
        world.pass(1);
    }
    let failure = server.authority.rotation_failure().unwrap();
    assert!(failure.contains("renew the upstream CA"), "{failure}");
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 1);
    upstream.replace_root(Duration::from_secs(100_000)).await;
    world.pass(12);
    server.look().await;
    assert!(server.authority.states(Kind::X509).prepared.is_some());
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_shorter_ca_ttl_than_before_waits_for_its_time_without_complaint() {
    let warnings = Warnings::collect();
    for mut world in [World::new().await, World::below_upstream().await] {
        world.start().await.unwrap();
        world.settings.ca_ttl = Duration::from_secs(20);
        if let Some(upstream) = &world.upstream {
            upstream.tells_its_end.store(true, Ordering::Relaxed);
        }
        let mut server = world.start().await.unwrap();
        world.pass(90);
        // From 160 s on the next ones end later than those in use.
        for second in 90..=160 {
            server.look().await;
            for kind in [Kind::X509, Kind::Jwt] {
                let states = server.authority.states(kind);
                assert!(states.prepared.is_none() && states.old.is_none(), "{second}");
            }
            assert!(server.authority.rotation_failure().is_none(), "{second}");
            world.pass(1);
        }
        for _ in 161..170 {
            server.look().await;
            world.pass(1);
        }
        for kind in [Kind::X509, Kind::Jwt] {
            assert!(server.authority.states(kind).old.is_some(), "{kind:?}");
        }
        if let Some(upstream) = &world.upstream {
            assert_eq!(upstream.mints.load(Ordering::Relaxed), 2);
        }
    }
    assert_eq!(warnings.count("Unable to rotate"), 0);
}

#[tokio::test]
async fn one_that_signs_what_is_of_no_use_is_asked_seldom() {
    let mut world = World::below_upstream().await;
    world.settings.rotation_check_interval = Duration::from_secs(1);
    let upstream = world.upstream.clone().unwrap();
    let mut server = world.start().await.unwrap();
    upstream.hostile.store(true, Ordering::Relaxed);
    world.pass(90);
    // An eighth of what is left of the life passes between two tries.
    for (seconds, mints) in [(11, 2), (9, 3)] {
        for _ in 0..seconds {
            server.look().await;
            world.pass(1);
        }
        assert_eq!(upstream.mints.load(Ordering::Relaxed), mints);
    }
    upstream.hostile.store(false, Ordering::Relaxed);
    world.pass(10);
    server.look().await;
    assert!(server.authority.states(Kind::X509).prepared.is_some());
}

#[tokio::test]
async fn an_intermediate_whose_root_was_revoked_meanwhile_is_not_used_again() {
    let world = World::below_upstream().await;
    let upstream = world.upstream.clone().unwrap();
    world.start().await.unwrap();
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let second = X509Authority { certificate: upstream.root(), tainted: false };
    let revoke = move |bundle: &mut Bundle| {
        bundle.x509_authorities = vec![second.clone()];
        Ok(())
    };
    world.store.edit_bundle(domain(), revoke).await.unwrap();
    let server = world.start().await.unwrap();
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 2);
    let svid = server.authority.sign_workload(&request("/w").await, &entry("/w")).await.unwrap();
    verify(&svid.chain, &world.stored().await, world.clock.now()).unwrap();
}

#[tokio::test]
async fn one_that_lives_shorter_than_ca_ttl_is_mentioned_and_leaves_no_gap() {
    let warnings = Warnings::collect();
    let mut world = World::new().await;
    let ttl = Duration::from_secs(100);
    let upstream = Arc::new(FakeUpstream::new(world.clock.clone(), ttl).await);
    world.upstream = Some(upstream.clone());
    let mut server = world.start().await.unwrap();
    let (request, mut entry) = (request("/w").await, entry("/w"));
    entry.x509_svid_ttl = 10;
    let mut known = server.authority.bundle().borrow().clone();
    for step in 1..=80 {
        world.pass(5);
        if step % 8 == 0 {
            upstream.replace_root(ttl).await;
        }
        server.look().await;
        assert!(server.authority.rotation_failure().is_none(), "step {step}");
        let svid = server.authority.sign_workload(&request, &entry).await.unwrap();
        verify(&svid.chain, &known, world.clock.now()).unwrap();
        known = server.authority.bundle().borrow().clone();
    }
    let mints = upstream.mints.load(Ordering::Relaxed);
    assert!(mints > 5, "{mints}");
    let start = "The upstream authority signs for less than ca_ttl";
    assert_eq!(warnings.count(start), mints, "once for each authority");
}

#[tokio::test]
async fn jwt_keys_are_published_where_it_takes_them() {
    let mut world = World::new().await;
    let mut upstream = FakeUpstream::new(world.clock.clone(), Duration::from_secs(100_000)).await;
    upstream.jwt_keys = Some(Mutex::default());
    let upstream = Arc::new(upstream);
    world.upstream = Some(upstream.clone());
    world.start().await.unwrap();
    let published = upstream.jwt_keys.as_ref().unwrap().lock().unwrap().clone();
    assert_eq!(published, world.stored().await.jwt_authorities);
    assert_eq!(published.len(), 1);
}

#[tokio::test]
async fn what_it_trusts_besides_comes_into_the_bundle() {
    let world = World::below_upstream().await;
    let tasks = Tasks::new();
    let authority = Authority::start(world.parts(), &tasks).await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    let first = upstream.root();
    upstream.replace_root(CA_TTL).await;
    let second = X509Authority { certificate: upstream.root(), tainted: false };
    *upstream.bundle.lock().unwrap() =
        UpstreamBundle { roots: vec![second.clone()], ..UpstreamBundle::default() };
    let mut bundle = authority.bundle();
    let seen = bundle.wait_for(|bundle| bundle.x509_authorities.contains(&second));
    let seen = tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap().unwrap();
    assert!(seen.x509_authorities.iter().any(|root| root.certificate == first));
    drop(seen);
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
