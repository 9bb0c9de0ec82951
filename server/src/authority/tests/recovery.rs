//! Databases that fall back: what they lose of a server's authorities comes back.

use std::time::Duration;

use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::svid::x509::verify;
use spire_core::tasks::Tasks;

use super::super::orders::Command;
use super::super::{Authority, Kind};
use super::world::{Obstacle, Server, World, domain, entry, request};
use crate::store::DeleteMode;

/// A server whose authorities have turned once: one signs, and one signed.
async fn turned(world: &World) -> Server {
    let mut server = world.start().await.unwrap();
    for seconds in [90, 60] {
        world.pass(seconds);
        server.look().await;
    }
    server
}

/// Puts `bundle` in the place of the stored one, and loses the journals.
async fn fall_back(world: &World, bundle: Bundle) {
    world.store.set_bundle(bundle).await.unwrap();
    world.store.prune_ca_journals(Timestamp::MAX).await.unwrap();
}

/// The bundle without the authorities, and with `number`.
fn emptied(number: u64) -> Bundle {
    Bundle { sequence_number: number, ..Bundle::empty(domain()) }
}

fn has_all(bundle: &Bundle, of: &Bundle) -> bool {
    of.x509_authorities.iter().all(|root| bundle.x509_authorities.contains(root))
        && of.jwt_authorities.iter().all(|key| bundle.jwt_authorities.contains(key))
}

async fn signs_what_holds(server: &Server, bundle: &Bundle, now: Timestamp) {
    let svid = server.authority.sign_workload(&request("/w").await, &entry("/w")).await.unwrap();
    verify(&svid.chain, bundle, now).unwrap();
}

#[tokio::test]
async fn what_the_database_lost_of_a_server_comes_back() {
    for (what, is_gone, others) in
        [("it is older", false, 0), ("it is gone", true, 0), ("another server filled it", false, 1)]
    {
        let world = World::new().await;
        let mut server = turned(&world).await;
        let told = world.stored().await;
        assert_eq!((told.x509_authorities.len(), told.jwt_authorities.len()), (2, 2));
        let states = server.authority.states(Kind::X509);

        fall_back(&world, emptied(told.sequence_number - 1)).await;
        if is_gone {
            world.store.delete_bundle(domain(), DeleteMode::Restrict).await.unwrap();
        }
        // It takes the number of the journal that is lost.
        let other = world.beside();
        let beside = if others == 0 { None } else { Some(other.start().await.unwrap()) };
        server.authority.bundle.refresh().await.unwrap();
        server.look().await;

        let bundle = world.stored().await;
        assert!(has_all(&bundle, &told), "{what}");
        assert!(bundle.sequence_number > told.sequence_number, "{what}");
        assert_eq!(*server.authority.bundle().borrow().as_ref(), bundle, "{what}");
        for server in beside.iter().chain([&server]) {
            signs_what_holds(server, &bundle, world.clock.now()).await;
        }
        // Each has its journal.
        assert_eq!(world.store.ca_journals().await.unwrap().len(), 1 + others, "{what}");
        let restarted = world.start().await.unwrap();
        assert_eq!(restarted.authority.states(Kind::X509), states, "{what}");
        if let Some(beside) = beside {
            let restarted = other.start().await.unwrap();
            let states = beside.authority.states(Kind::X509);
            assert_eq!(restarted.authority.states(Kind::X509), states, "{what}");
        }
        // Nothing is lost any more, and nothing changes.
        server.authority.bundle.refresh().await.unwrap();
        server.look().await;
        assert_eq!(world.stored().await, bundle, "{what}");
    }
}

#[tokio::test]
async fn what_was_revoked_does_not_come_back() {
    let world = World::new().await;
    let mut server = turned(&world).await;
    for kind in [Kind::X509, Kind::Jwt] {
        let old = server.authority.states(kind).old.clone().unwrap().authority_id;
        server.obey(Command::Taint(kind, old.clone())).await.unwrap();
        server.obey(Command::Revoke(kind, old)).await.unwrap();
    }
    let told = world.stored().await;
    assert_eq!((told.x509_authorities.len(), told.jwt_authorities.len()), (1, 1));
    for number in [told.sequence_number - 1, told.sequence_number + 5] {
        fall_back(&world, emptied(number)).await;
        server.authority.bundle.refresh().await.unwrap();
        server.look().await;
        assert!(world.stored().await.same_authorities(&told), "{number}");
    }
}

#[tokio::test]
async fn what_others_tainted_and_revoked_does_not_come_back() {
    let world = World::new().await;
    let mut server = turned(&world).await;
    let old = server.authority.states(Kind::Jwt).old.clone().unwrap().authority_id;
    let id = old.clone();
    let taint = move |bundle: &mut Bundle| {
        let mut keys = bundle.jwt_authorities.iter_mut();
        keys.find(|key| key.key_id == id).unwrap().tainted = true;
        Ok(())
    };
    world.store.edit_bundle(domain(), taint).await.unwrap();
    server.authority.bundle.refresh().await.unwrap();
    let revoke = move |bundle: &mut Bundle| {
        bundle.jwt_authorities.retain(|key| key.key_id != old);
        Ok(())
    };
    world.store.edit_bundle(domain(), revoke).await.unwrap();
    let revoked = world.stored().await;
    assert_eq!(revoked.jwt_authorities.len(), 1);
    server.authority.bundle.refresh().await.unwrap();
    server.look().await;
    assert_eq!(world.stored().await, revoked);
}

#[tokio::test]
async fn a_root_above_comes_back_as_soon_as_the_database_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datastore.sqlite3");
    let mut world = World::below_upstream().await;
    world.keep_in(&path).await;
    let mut server = world.start().await.unwrap();
    let told = world.stored().await;
    fall_back(&world, emptied(0)).await;
    let obstacle = Obstacle::before("bundles", &path).await;
    server.authority.bundle.refresh().await.unwrap();
    server.look().await;
    assert_eq!(*server.authority.bundle().borrow().as_ref(), told, "what is lost still signs");
    obstacle.remove().await;
    server.look().await;
    let bundle = world.stored().await;
    assert!(bundle.same_authorities(&told) && bundle.sequence_number > told.sequence_number);
    signs_what_holds(&server, &bundle, world.clock.now()).await;
}

#[tokio::test]
async fn a_server_notices_by_itself() {
    let world = World::new().await;
    let tasks = Tasks::new();
    let authority = Authority::start(world.parts(), &tasks).await.unwrap();
    let told = world.stored().await;
    world.store.set_bundle(emptied(0)).await.unwrap();
    let mut bundle = authority.bundle();
    let seen = bundle.wait_for(|bundle| bundle.sequence_number > told.sequence_number);
    let seen = tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap().unwrap().clone();
    assert!(seen.same_authorities(&told));
    assert_eq!(world.stored().await, *seen);
    assert!(tasks.drain(Duration::from_secs(5)).await);
}
