//! While an upstream takes its time to sign, all else goes on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use spire_core::tasks::Tasks;
use tokio::time::timeout;

use super::super::{Authority, Kind};
use super::world::World;

/// Much less than an upstream may take.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn orders_are_obeyed_and_the_one_that_needs_it_is_answered_at_last() {
    let world = World::below_upstream().await;
    let tasks = Tasks::new();
    let authority = Authority::start(world.parts(), &tasks).await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    let former = authority.states(Kind::Jwt).active.clone().unwrap().authority_id;
    upstream.busy.send_replace(true);
    let ordered = authority.prepare(Kind::X509);
    let meanwhile = async {
        let next = authority.prepare(Kind::Jwt).await.unwrap();
        authority.activate(Kind::Jwt, &next.authority_id).await.unwrap();
        authority.taint(Kind::Jwt, &former).await.unwrap();
        authority.revoke(Kind::Jwt, &former).await.unwrap();
        assert!(authority.states(Kind::X509).prepared.is_none());
        upstream.busy.send_replace(false);
    };
    let both = async { tokio::join!(ordered, meanwhile).0 };
    let prepared = timeout(SOON, both).await.expect("nobody waits for the upstream").unwrap();
    assert_eq!(authority.states(Kind::X509).prepared, Some(prepared));
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 2);
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn an_order_whose_caller_has_gone_buys_nothing_more() {
    let world = World::below_upstream().await;
    let tasks = Tasks::new();
    let authority = Authority::start(world.parts(), &tasks).await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    upstream.busy.send_replace(true);
    for _ in 0..3 {
        let gone = timeout(Duration::from_millis(50), authority.prepare(Kind::X509));
        gone.await.unwrap_err();
    }
    let ordered = authority.prepare(Kind::X509);
    let signs = async { upstream.busy.send_replace(false) };
    let both = async { tokio::join!(ordered, signs).0 };
    timeout(SOON, both).await.unwrap().unwrap();
    // One before all this, one for the first who had gone, one for who waits.
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 3);
    assert!(tasks.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn jwt_keys_turn_meanwhile_and_it_is_asked_once() {
    let world = World::below_upstream().await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    upstream.busy.send_replace(true);
    world.pass(90);
    for _ in 90..150 {
        server.rotation.look().await;
        assert!(server.authority.states(Kind::Jwt).prepared.is_some());
        assert!(server.authority.states(Kind::X509).prepared.is_none());
        assert!(server.authority.rotation_failure().is_none());
        world.pass(1);
    }
    server.rotation.look().await;
    assert!(server.authority.states(Kind::Jwt).old.is_some());
    upstream.busy.send_replace(false);
    server.look().await;
    // Its root was known already, and it is high time.
    assert!(server.authority.states(Kind::X509).old.is_some());
    assert_eq!(upstream.mints.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn it_is_not_waited_for_without_end() {
    let world = World::below_upstream().await;
    let mut server = world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    upstream.busy.send_replace(true);
    world.pass(140);
    server.rotation.look().await;
    // Time passes by itself now, as nothing else is to be done.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    server.rotation.answered().await;
    let waited = began.elapsed();
    assert!((239..=241).contains(&waited.as_secs()), "{waited:?}");
    tokio::time::resume();
    server.rotation.look().await;
    let failure = server.authority.rotation_failure().unwrap();
    let end = "upstream authority: it did not answer in time";
    assert!(failure.ends_with(end), "{failure}");

    upstream.busy.send_replace(false);
    world.pass(10);
    server.look().await;
    assert!(server.authority.states(Kind::X509).old.is_some());
}

#[tokio::test]
async fn a_start_waits_for_it_only_where_nothing_signs() {
    let world = World::below_upstream().await;
    world.start().await.unwrap();
    let upstream = world.upstream.clone().unwrap();
    upstream.busy.send_replace(true);
    world.pass(90);
    let tasks = Tasks::new();
    let started = timeout(SOON, Authority::start(world.parts(), &tasks)).await.unwrap().unwrap();
    started.check_signing().await.unwrap();
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
