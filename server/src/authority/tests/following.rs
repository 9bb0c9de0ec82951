//! Below a SPIRE, whose bundle is followed: also when this server was off while it changed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::svid::x509::{VerifyError, verify};
use spire_core::upstream::UpstreamBundle;

use super::super::Kind;
use super::super::follow::{Heard, tell};
use super::super::orders::Command;
use super::log::Warnings;
use super::world::{FakeUpstream, Obstacle, Server, World, domain, entry, request};
use crate::store::CaJournal;

fn root(upstream: &FakeUpstream) -> X509Authority {
    X509Authority { certificate: upstream.root(), tainted: false }
}

fn tainted(root: &X509Authority) -> X509Authority {
    X509Authority { tainted: true, ..root.clone() }
}

/// What a SPIRE above tells that keeps no number.
fn told(roots: &[&X509Authority]) -> UpstreamBundle {
    let roots = roots.iter().copied().cloned().collect();
    UpstreamBundle { roots, jwt_keys: Some(Vec::new()), sequence_number: 0 }
}

async fn follow(server: &Server, heard: &mut Heard, roots: &[&X509Authority]) {
    server.authority.take_over(heard, told(roots)).await.unwrap();
}

#[tokio::test]
async fn what_was_tainted_and_is_revoked_while_this_server_is_off_goes_when_it_is_back() {
    let world = World::below_spire().await;
    let upstream = world.upstream.clone().unwrap();
    let mut server = world.start().await.unwrap();
    let (first, mut heard) = (root(&upstream), Heard::default());
    follow(&server, &mut heard, &[&first]).await;
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let second = root(&upstream);
    follow(&server, &mut heard, &[&tainted(&first), &second]).await;
    server.look().await;
    assert_eq!(world.stored().await.x509_authorities, [tainted(&first), second.clone()]);
    let foreign = JwtAuthority {
        key_id: "foreign".to_owned(),
        public_key: world.stored().await.jwt_authorities[0].public_key.clone(),
        expires_at: None,
        tainted: true,
    };
    let add = move |bundle: &mut Bundle| {
        bundle.jwt_authorities.push(foreign.clone());
        Ok(())
    };
    world.store.edit_bundle(domain(), add).await.unwrap();

    let server = world.start().await.unwrap();
    follow(&server, &mut Heard::default(), &[&second]).await;
    let bundle = world.stored().await;
    assert_eq!(bundle.x509_authorities, [second]);
    assert!(bundle.jwt_authorities.iter().all(|key| !key.tainted), "only the tainted key went");
    assert_eq!(bundle.jwt_authorities.len(), 1);
}

#[tokio::test]
async fn what_was_tainted_and_revoked_while_this_server_was_off_is_left_and_goes() {
    let world = World::below_spire().await;
    let upstream = world.upstream.clone().unwrap();
    let server = world.start().await.unwrap();
    let first = root(&upstream);
    let mut long = entry("/w");
    long.x509_svid_ttl = 100;
    let svid = server.authority.sign_workload(&request("/w").await, &long).await.unwrap();
    drop(server);
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let second = root(&upstream);

    let mut server = world.start().await.unwrap();
    let mut heard = Heard::default();
    follow(&server, &mut heard, &[&second]).await;
    world.pass(29);
    follow(&server, &mut heard, &[&second]).await;
    server.look().await;
    let both = [first.clone(), second.clone()];
    assert_eq!(world.stored().await.x509_authorities, both, "a server above may be behind");

    world.pass(1);
    follow(&server, &mut heard, &[&second]).await;
    assert_eq!(world.stored().await.x509_authorities, both, "it is in use");
    server.look().await;
    assert!(server.authority.states(Kind::X509).old.is_some());
    for _ in 0..2 {
        follow(&server, &mut heard, &[&second]).await;
        let stored = world.stored().await.x509_authorities;
        assert!(stored.contains(&tainted(&first)), "agents get time for other SVIDs");
        world.pass(15);
    }
    follow(&server, &mut heard, &[&second]).await;
    let bundle = world.stored().await;
    assert_eq!(bundle.x509_authorities, [second]);
    let refusal = verify(&svid.chain, &bundle, world.clock.now());
    assert_eq!(refusal, Err(VerifyError::UnknownAuthority));
}

#[tokio::test]
async fn roots_that_never_came_from_above_stay() {
    // One server signs its own root, another one hung below a file, and now below a SPIRE.
    let world = World::new().await;
    world.start().await.unwrap();
    let own = world.stored().await.x509_authorities[0].clone();
    let ttl = Duration::from_secs(100_000);
    let mut world = world.beside();
    world.upstream = Some(Arc::new(FakeUpstream::new(world.clock.clone(), ttl).await));
    world.start().await.unwrap();
    let file = root(world.upstream.as_ref().unwrap());
    let upstream = World::below_spire().await.upstream.unwrap();
    world.upstream = Some(upstream.clone());
    let server = world.start().await.unwrap();

    let (first, mut heard) = (root(&upstream), Heard::default());
    upstream.replace_root(ttl).await;
    let second = root(&upstream);
    follow(&server, &mut heard, &[&first, &second]).await;
    // A server above that is behind does not know the second root yet.
    follow(&server, &mut heard, &[&first]).await;
    world.pass(20);
    follow(&server, &mut heard, &[&first, &second]).await;
    world.pass(60);
    follow(&server, &mut heard, &[&first, &second]).await;
    let mut stored = world.stored().await.x509_authorities;
    assert_eq!(stored, [own.clone(), file.clone(), first.clone(), second.clone()]);

    // Nor do those go that another server or upstream made, when they are tainted.
    stored[0].tainted = true;
    stored[1].tainted = true;
    let taint = move |bundle: &mut Bundle| {
        bundle.x509_authorities = stored.clone();
        Ok(())
    };
    world.store.edit_bundle(domain(), taint).await.unwrap();
    upstream.replace_root(ttl).await;
    follow(&server, &mut heard, &[&first, &second, &root(&upstream)]).await;
    let stored = world.stored().await.x509_authorities;
    assert_eq!((stored.len(), &stored[..2]), (5, &[tainted(&own), tainted(&file)][..]));
}

#[tokio::test]
async fn a_root_that_was_given_up_by_mistake_is_trusted_again() {
    let world = World::below_spire().await;
    let upstream = world.upstream.clone().unwrap();
    let mut server = world.start().await.unwrap();
    let first = root(&upstream);
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let second = root(&upstream);
    let mut heard = Heard::default();
    follow(&server, &mut heard, &[&first, &second]).await;
    // For long only a server above is asked that is behind: once the root is tainted, then gone.
    for _ in 0..3 {
        follow(&server, &mut heard, &[&first]).await;
        world.pass(30);
    }
    assert_eq!(world.stored().await.x509_authorities, std::slice::from_ref(&first));

    follow(&server, &mut heard, &[&first, &second]).await;
    assert_eq!(world.stored().await.x509_authorities, [first, second]);
    server.look().await;
    assert!(server.authority.states(Kind::X509).prepared.is_some(), "below the second root");
    assert!(server.authority.rotation_failure().is_none());
}

#[tokio::test]
async fn the_time_of_a_lost_root_runs_from_its_last_use_on() {
    let world = World::below_spire().await;
    let upstream = world.upstream.clone().unwrap();
    let mut server = world.start().await.unwrap();
    let (first, mut heard) = (root(&upstream), Heard::default());
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let second = root(&upstream);
    follow(&server, &mut heard, &[&first, &second]).await;
    // It is given up after 30 s, and in use for much longer.
    for _ in 0..8 {
        follow(&server, &mut heard, &[&second]).await;
        assert_eq!(world.stored().await.x509_authorities, [first.clone(), second.clone()]);
        world.pass(10);
    }
    server.look().await;
    assert!(server.authority.states(Kind::X509).old.is_some());
    for _ in 0..2 {
        follow(&server, &mut heard, &[&second]).await;
        let stored = world.stored().await.x509_authorities;
        assert!(stored.contains(&tainted(&first)), "agents get time for other SVIDs");
        world.pass(10);
    }
    follow(&server, &mut heard, &[&second]).await;
    assert_eq!(world.stored().await.x509_authorities, [second]);
}

#[tokio::test]
async fn an_older_answer_makes_no_root_lost() {
    let world = World::below_spire().await;
    let upstream = world.upstream.clone().unwrap();
    let server = world.start().await.unwrap();
    let first = root(&upstream);
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let second = root(&upstream);
    let mut heard = Heard::default();
    let mut follow = async |sequence_number, roots: &[&X509Authority]| {
        let told = UpstreamBundle { sequence_number, ..told(roots) };
        server.authority.take_over(&mut heard, told).await.unwrap();
        world.stored().await.x509_authorities
    };
    let both = [first.clone(), second.clone()];
    assert_eq!(follow(2, &[&first, &second]).await, both);
    for _ in 0..10 {
        assert_eq!(follow(1, &[&first]).await, both);
        world.pass(10);
    }
    assert_eq!(follow(3, &[&first]).await, [first, tainted(&second)]);
}

#[tokio::test]
async fn what_could_not_be_stored_is_taken_over_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datastore.sqlite3");
    let mut world = World::below_spire().await;
    world.keep_in(&path).await;
    let upstream = world.upstream.clone().unwrap();
    let server = world.start().await.unwrap();
    let first = root(&upstream);
    upstream.replace_root(Duration::from_secs(100_000)).await;
    let (second, mut heard) = (root(&upstream), Heard::default());
    follow(&server, &mut heard, &[&first]).await;
    let obstacle = Obstacle::before("bundles", &path).await;
    let told = told(&[&first, &second]);
    server.authority.take_over(&mut heard, told.clone()).await.unwrap_err();
    obstacle.remove().await;
    server.authority.take_over(&mut heard, told).await.unwrap();
    assert_eq!(world.stored().await.x509_authorities, [first, second]);
}

#[tokio::test]
async fn while_a_journal_cannot_be_read_any_root_may_be_of_its_server() {
    let world = World::new().await;
    world.start().await.unwrap();
    let own = world.stored().await.x509_authorities[0].clone();
    let journal = world.store.ca_journals().await.unwrap().pop().unwrap();
    let journal = CaJournal { data: Bytes::from_static(b"\xff\xff"), ..journal };
    world.store.set_ca_journal(journal).await.unwrap();
    let taint = |bundle: &mut Bundle| {
        bundle.x509_authorities[0].tainted = true;
        Ok(())
    };
    world.store.edit_bundle(domain(), taint).await.unwrap();

    let mut world = world.beside();
    world.upstream = World::below_spire().await.upstream;
    let server = world.start().await.unwrap();
    let first = root(world.upstream.as_ref().unwrap());
    follow(&server, &mut Heard::default(), &[&first]).await;
    assert_eq!(world.stored().await.x509_authorities, [tainted(&own), first]);
}

#[tokio::test]
async fn servers_on_one_database_leave_a_lost_root_one_after_the_other() {
    for leaver_is_told_first in [false, true] {
        let world = World::below_spire().await;
        let other = world.beside();
        let upstream = world.upstream.clone().unwrap();
        let (mut gone, mut leaver) = (world.start().await.unwrap(), other.start().await.unwrap());
        let first = root(&upstream);
        upstream.replace_root(Duration::from_secs(100_000)).await;
        let second = root(&upstream);
        // One of them signs below the second root already when the first one is lost.
        let prepared = gone.obey(Command::Prepare(Kind::X509)).await.unwrap().unwrap();
        let activate = Command::Activate(Kind::X509, prepared.authority_id);
        gone.obey(activate).await.unwrap();
        let (mut gone_heard, mut leaver_heard) = (Heard::default(), Heard::default());
        for roots in [&[&first, &second][..], &[&second]] {
            follow(&gone, &mut gone_heard, roots).await;
            follow(&leaver, &mut leaver_heard, roots).await;
        }
        let request = request("/w").await;
        for _ in 0..20 {
            world.pass(5);
            let told = async |heard: &mut Heard, server: &mut Server| {
                follow(server, heard, &[&second]).await;
            };
            if leaver_is_told_first {
                told(&mut leaver_heard, &mut leaver).await;
                leaver.authority.bundle.refresh().await.unwrap();
                leaver.look_if_tainted().await;
                told(&mut gone_heard, &mut gone).await;
            } else {
                told(&mut gone_heard, &mut gone).await;
                leaver.authority.bundle.refresh().await.unwrap();
                leaver.look_if_tainted().await;
                told(&mut leaver_heard, &mut leaver).await;
            }
            let (bundle, now) = (world.stored().await, world.clock.now());
            for server in [&gone, &leaver] {
                let svid = server.authority.sign_workload(&request, &entry("/w")).await.unwrap();
                verify(&svid.chain, &bundle, now).unwrap();
            }
        }
        assert_eq!(world.stored().await.x509_authorities, [second], "{leaver_is_told_first}");
        assert!(leaver.authority.states(Kind::X509).old.is_some());
    }
}

#[test]
fn an_upstream_that_is_away_is_mentioned_once() {
    let warnings = Warnings::collect();
    let mut last = None;
    let away = || Some("away".to_owned());
    let mut expect = |failure: Option<String>, count: usize| {
        tell(&mut last, failure);
        let start = "Unable to take over the bundle of the upstream authority";
        assert_eq!(warnings.count(start), count);
    };
    expect(None, 0);
    expect(away(), 1);
    expect(away(), 1);
    expect(Some("refuses".to_owned()), 2);
    expect(None, 2);
    expect(away(), 3);
}
