//! First start, and the dates at which authorities turn.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use spire_core::bundle::Bundle;
use spire_core::keys::KeyType;
use spire_core::svid::x509::verify;
use spire_core::tasks::Tasks;

use super::super::{Authority, Kind, RotationError};
use super::world::{World, domain, entry, id, openssl_verifies, request};

#[tokio::test]
async fn the_first_start_makes_all_that_signs() {
    let world = World::new().await;
    let server = world.start().await.unwrap();
    let bundle = world.stored().await;
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (1, 1));
    assert_eq!(bundle.sequence_number, 1);
    assert_eq!(*server.authority.bundle().borrow().as_ref(), bundle);

    let x509 = server.authority.states(Kind::X509);
    let active = x509.active.as_ref().unwrap();
    assert!(x509.prepared.is_none() && x509.old.is_none());
    assert_eq!(active.authority_id.len(), 40);
    assert_eq!(active.expires_at, world.clock.now() + super::world::CA_TTL);
    let jwt = server.authority.states(Kind::Jwt);
    assert_eq!(jwt.active.as_ref().unwrap().authority_id, bundle.jwt_authorities[0].key_id);

    let own = server.authority.server_svid().borrow().clone().unwrap();
    assert_eq!(own.svid().id, id("/spire/server"));
    verify(&own.svid().chain, &bundle, world.clock.now()).unwrap();
    assert!(openssl_verifies(&own.svid().chain, &bundle, world.clock.now()));
    assert!(server.authority.rotation_failure().is_none());
    server.authority.check_signing().await.unwrap();
}

#[tokio::test]
async fn authorities_are_prepared_and_activated_at_their_dates() {
    let world = World::new().await;
    let mut server = world.start().await.unwrap();
    let first = server.authority.states(Kind::X509).active.clone().unwrap();

    world.pass(89);
    server.look().await;
    assert!(server.authority.states(Kind::X509).prepared.is_none());

    world.pass(1);
    server.look().await;
    for kind in [Kind::X509, Kind::Jwt] {
        let states = server.authority.states(kind);
        assert!(states.prepared.is_some(), "{kind:?}");
    }
    let states = server.authority.states(Kind::X509);
    assert_eq!(states.active.as_ref(), Some(&first));
    let bundle = world.stored().await;
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (2, 2));

    world.pass(59);
    server.look().await;
    assert_eq!(server.authority.states(Kind::X509).active.as_ref(), Some(&first));

    world.pass(1);
    server.look().await;
    let turned = server.authority.states(Kind::X509);
    assert_eq!(turned.active, states.prepared);
    assert_eq!(turned.old.as_ref(), Some(&first));
    assert!(server.authority.states(Kind::Jwt).old.is_some());
    let svid = server.authority.sign_workload(&request("/w").await, &entry("/w")).await.unwrap();
    verify(&svid.chain, &bundle, world.clock.now()).unwrap();
}

#[tokio::test]
async fn fed_03_an_authority_is_published_long_before_it_signs() {
    let mut world = World::new().await;
    world.settings.ca_ttl = Duration::from_secs(24 * 3600);
    let mut server = world.start().await.unwrap();
    world.pass(12 * 3600);
    server.look().await;
    for kind in [Kind::X509, Kind::Jwt] {
        assert!(server.authority.states(kind).prepared.is_some(), "{kind:?}");
    }
    // Others keep a bundle that does not say how long for five minutes.
    world.pass(3 * 300);
    server.look().await;
    for kind in [Kind::X509, Kind::Jwt] {
        assert!(server.authority.states(kind).old.is_none(), "{kind:?}");
    }
}

#[tokio::test]
async fn bnd_06_the_number_of_the_bundle_grows_with_each_change_and_never_falls() {
    let world = World::new().await;
    let mut server = world.start().await.unwrap();
    let mut before = world.stored().await;
    let authorities = |bundle: &Bundle| {
        let x509 = BTreeSet::from_iter(bundle.x509_authorities.clone());
        (x509, BTreeSet::from_iter(bundle.jwt_authorities.clone()))
    };
    // Two authorities are prepared, activated and pruned in the course of this.
    for step in 0..60 {
        world.pass(5);
        server.look().await;
        if step % 20 == 19 {
            let later = world.clock.now() + SignedDuration::from_hours(24);
            server.authority.bundle.prune(later - SignedDuration::from_secs(30)).await.unwrap();
        }
        if step == 40 {
            server = world.start().await.unwrap();
        }
        let after = world.stored().await;
        let grown = after.sequence_number > before.sequence_number;
        assert_eq!(grown, authorities(&after) != authorities(&before), "step {step}");
        assert!(after.sequence_number >= before.sequence_number, "step {step}");
        before = after;
    }
    assert!(before.sequence_number > 4, "{}", before.sequence_number);
}

#[tokio::test]
async fn operators_turn_authorities_through_the_task() {
    let world = World::new().await;
    let tasks = Tasks::new();
    let authority = Authority::start(world.parts(), &tasks).await.unwrap();
    for kind in [Kind::X509, Kind::Jwt] {
        let first = authority.states(kind).active.clone().unwrap();
        let replaced = authority.prepare(kind).await.unwrap();
        let prepared = authority.prepare(kind).await.unwrap();
        assert_ne!(replaced, prepared);
        let error = authority.activate(kind, &replaced.authority_id).await.unwrap_err();
        assert!(matches!(error, RotationError::UnexpectedId), "{error}");
        assert_eq!(authority.activate(kind, &prepared.authority_id).await.unwrap(), prepared);
        let error = authority.activate(kind, &first.authority_id).await.unwrap_err();
        assert!(matches!(error, RotationError::NotPrepared), "{error}");
        let states = authority.states(kind);
        assert_eq!((&states.active, &states.old), (&Some(prepared), &Some(first)));
    }
    assert!(tasks.drain(Duration::from_secs(5)).await);
    let error = authority.prepare(Kind::X509).await.unwrap_err();
    assert!(matches!(error, RotationError::Stopping), "{error}");
}

#[tokio::test]
async fn the_server_renews_its_own_svid_at_half_life() {
    let world = World::new().await;
    let server = world.start().await.unwrap();
    let serial = || {
        let own = server.authority.server_svid().borrow().clone();
        own.map(|own| own.svid().serial.clone())
    };
    let first = serial();
    // It is valid from 10 s before its issue to 20 s after it.
    world.pass(4);
    server.authority.renew_server_svid().await.unwrap();
    assert_eq!(serial(), first);
    world.pass(1);
    server.authority.renew_server_svid().await.unwrap();
    assert_ne!(serial(), first);
}

#[tokio::test]
async fn without_jwt_svids_no_key_is_made_for_them() {
    let mut world = World::new().await;
    world.settings.disable_jwt_svids = true;
    let mut server = world.start().await.unwrap();
    world.pass(90);
    server.look().await;
    assert!(world.stored().await.jwt_authorities.is_empty());
    assert!(server.authority.states(Kind::Jwt).active.is_none());
    assert!(server.authority.states(Kind::X509).prepared.is_some());
}

#[tokio::test]
async fn all_kinds_of_keys_turn() {
    for kind in [KeyType::EcP384, KeyType::Rsa2048] {
        let mut world = World::new().await;
        world.settings.ca_key_type = kind;
        world.settings.jwt_key_type = kind;
        let server = world.start().await.unwrap();
        let svid = server.authority.sign_workload(&request("/w").await, &entry("/w")).await;
        let bundle = world.stored().await;
        assert!(openssl_verifies(&svid.unwrap().chain, &bundle, world.clock.now()), "{kind:?}");
    }
}

#[tokio::test]
async fn fed_04_what_ended_a_day_ago_leaves_the_bundle_which_is_never_emptied() {
    let world = World::new().await;
    let mut server = world.start().await.unwrap();
    world.pass(90);
    server.look().await;
    let bundle = &server.authority.bundle;
    let later = |hours| world.clock.now() + SignedDuration::from_hours(hours);

    bundle.prune(later(23)).await.unwrap();
    assert_eq!(world.stored().await.x509_authorities.len(), 2);
    // The first of each kind ended 90 s earlier than the second.
    bundle.prune(later(24) + SignedDuration::from_secs(100)).await.unwrap();
    let pruned = world.stored().await;
    assert_eq!((pruned.x509_authorities.len(), pruned.jwt_authorities.len()), (1, 1));
    assert_eq!(**bundle.subscribe().borrow(), pruned);
    bundle.prune(later(1000)).await.unwrap();
    assert_eq!(world.stored().await, pruned);
}

#[tokio::test]
async fn what_other_servers_do_to_the_bundle_is_seen() {
    let world = World::new().await;
    let tasks = Tasks::new();
    let authority = Authority::start(world.parts(), &tasks).await.unwrap();
    let mut bundle = authority.bundle();
    let other =
        World { keys: Arc::new(spire_core::keys::memory::MemoryKeyManager::new()), ..world };
    other.start().await.unwrap();
    let seen = bundle.wait_for(|bundle| bundle.jwt_authorities.len() == 2);
    tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap().unwrap();
    let stored = other.stored().await;
    assert_eq!(**authority.bundle().borrow(), stored);
    assert_eq!(stored.trust_domain, domain());
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
