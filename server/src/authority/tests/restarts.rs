//! What a restart takes up again, and what it does not.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::id::TrustDomain;
use spire_core::keys::disk::DiskKeyManager;
use spire_core::keys::memory::MemoryKeyManager;
use spire_core::svid::x509::authority_id;

use super::super::slots::SlotId;
use super::super::{Kind, StartError, x509_ca::X509Ca};
use super::world::{Server, World, domain};
use crate::store::CaJournal;

async fn ids(server: &Server) -> [Option<String>; 2] {
    [Kind::X509, Kind::Jwt]
        .map(|kind| server.authority.states(kind).active.clone().map(|it| it.authority_id))
}

#[tokio::test]
async fn keys_on_the_disk_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let mut world = World::new().await;
    world.keys = Arc::new(DiskKeyManager::open(&path).unwrap());
    let mut server = world.start().await.unwrap();
    world.pass(90);
    server.look().await;
    let (before, bundle) = (ids(&server).await, world.stored().await);
    let prepared = server.authority.states(Kind::X509).prepared.clone();

    world.keys = Arc::new(DiskKeyManager::open(&path).unwrap());
    let mut server = world.start().await.unwrap();
    assert_eq!(ids(&server).await, before);
    assert_eq!(server.authority.states(Kind::X509).prepared, prepared);
    assert_eq!(world.stored().await, bundle);

    world.pass(60);
    server.look().await;
    let turned = ids(&server).await;
    assert_eq!(turned[0], prepared.map(|it| it.authority_id));
    world.keys = Arc::new(DiskKeyManager::open(&path).unwrap());
    let server = world.start().await.unwrap();
    assert_eq!(ids(&server).await, turned);
    assert!(server.authority.states(Kind::X509).old.is_some());
    assert_eq!(world.store.ca_journals().await.unwrap().len(), 1);
}

#[tokio::test]
async fn keys_in_memory_make_another_ca_beside_the_old_one() {
    let mut world = World::new().await;
    let first = ids(&world.start().await.unwrap()).await;
    world.keys = Arc::new(MemoryKeyManager::new());
    let second = ids(&world.start().await.unwrap()).await;
    assert!(first[0] != second[0] && first[1] != second[1]);
    let bundle = world.stored().await;
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (2, 2));
}

#[tokio::test]
async fn what_expired_is_made_anew() {
    let world = World::new().await;
    let first = ids(&world.start().await.unwrap()).await;
    world.pass(180);
    let second = ids(&world.start().await.unwrap()).await;
    assert!(first[0] != second[0] && first[1] != second[1]);
}

#[tokio::test]
async fn a_ca_that_left_the_bundle_is_not_used_again() {
    let world = World::new().await;
    let first = ids(&world.start().await.unwrap()).await;
    let emptied = |bundle: &mut Bundle| {
        bundle.x509_authorities.clear();
        bundle.jwt_authorities.clear();
        Ok(())
    };
    world.store.edit_bundle(domain(), emptied).await.unwrap();
    let second = ids(&world.start().await.unwrap()).await;
    assert!(first[0] != second[0] && first[1] != second[1]);
    assert_eq!(world.stored().await.x509_authorities.len(), 1);
}

#[tokio::test]
async fn a_key_that_was_replaced_is_not_used_again() {
    let world = World::new().await;
    let mut server = world.start().await.unwrap();
    world.pass(90);
    server.look().await;
    let before = ids(&server).await;
    // The server dies between a fresh key in the free slot and its place in the journal.
    let key_id = X509Ca::key_id(SlotId::B);
    world.keys.generate(&key_id, world.settings.ca_key_type).await.unwrap();
    let server = world.start().await.unwrap();
    assert_eq!(ids(&server).await, before);
    let states = server.authority.states(Kind::X509);
    // The dates ask for another one at once.
    let prepared = states.prepared.as_ref().unwrap();
    let key = world.keys.key(&key_id).await.unwrap().unwrap();
    let expected = authority_id(&key.public_key().spki).ok();
    assert_eq!(Some(&prepared.authority_id), expected.as_ref());
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_costs_the_ca_alone() {
    let world = World::new().await;
    let first = ids(&world.start().await.unwrap()).await;
    let broken = CaJournal {
        id: None,
        active_x509_authority_id: first[0].clone().unwrap(),
        data: Bytes::from_static(b"\xff\xff"),
        expires_at: Timestamp::MAX,
    };
    world.store.set_ca_journal(broken).await.unwrap();
    let second = ids(&world.start().await.unwrap()).await;
    assert_ne!(first[0], second[0]);
}

#[tokio::test]
async fn the_ca_of_another_trust_domain_stops_the_start() {
    let mut world = World::new().await;
    world.start().await.unwrap();
    world.settings.trust_domain = TrustDomain::parse("other.org").unwrap();
    let error = world.start().await.err().unwrap();
    assert!(matches!(error, StartError::OtherTrustDomain { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("example.org") && text.contains("other.org"), "{text}");
}

#[tokio::test]
async fn a_journal_is_found_by_the_keys_in_it_where_its_id_is_another() {
    let world = World::new().await;
    let first = ids(&world.start().await.unwrap()).await;
    let stored = world.store.ca_journals().await.unwrap().pop().unwrap();
    for id in ["", "00ff"] {
        let renamed = CaJournal { active_x509_authority_id: id.to_owned(), ..stored.clone() };
        world.store.set_ca_journal(renamed).await.unwrap();
        assert_eq!(ids(&world.start().await.unwrap()).await, first, "{id:?}");
    }
    assert_eq!(world.store.ca_journals().await.unwrap().len(), 1);
}
